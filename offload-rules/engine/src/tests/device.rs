//! Faults of device and firmware, for flows whose rules need no others and for flows whose rules do.

use offload_rules::lower::{FailureClass, NotOffloaded, Table};

use super::{
    Bed, Kind, PLAIN,
    chain::{GUARD, OWN, STAGE},
    id, install_as,
};
use crate::protocol::{Request, Tier};

const fn failed(class: FailureClass) -> Option<(Tier, Option<NotOffloaded>)> {
    Some((Tier::Software, Some(NotOffloaded::Failed(class))))
}

/// Flows with one rule each way, and with rules that these need.
const CHAINS: [u8; 3] = [0, OWN, GUARD | STAGE | OWN];

fn flows(bed: &mut Bed, chain: u8) {
    (1..=3).for_each(|flow| bed.ask(install_as(id(flow), Kind { chain, ..PLAIN }, 1000)));
}

#[test]
fn when_the_nth_rule_is_refused_the_others_go_on_and_it_is_tried_again() {
    for chain in CHAINS {
        for nth in 0..12 {
            let mut bed = Bed::new();
            bed.settle();
            bed.nic.lock().unwrap().script = std::iter::repeat_n(None, nth).chain([Some(libc::ENOMEM)]).collect();
            flows(&mut bed, chain);
            bed.run(10_000);
            assert!((1..=3).all(|flow| bed.tier(id(flow)) == Some(Tier::Hardware)), "{chain} {nth}");
            bed.assert_healthy();
        }
    }
}

#[test]
fn a_table_that_cannot_be_made_leaves_its_flows_in_software() {
    // mlx5 says ENOMEM when rdma-core has no table for a group.
    for chain in CHAINS {
        let mut bed = Bed::new();
        bed.settle();
        bed.nic.lock().unwrap().closed.insert(Table::Tenant, libc::ENOMEM);
        flows(&mut bed, chain);
        bed.run(5_000);
        assert!((1..=3).all(|flow| bed.tier(id(flow)) == Some(Tier::Software)), "{chain}");
        bed.nic.lock().unwrap().closed.clear();
        bed.run(60_000);
        assert!((1..=3).all(|flow| bed.tier(id(flow)) == Some(Tier::Hardware)), "{chain}");
        bed.assert_healthy();
    }
}

#[test]
fn without_a_counter_no_rule_of_a_flow_stays_nor_what_it_needs() {
    for chain in CHAINS {
        let mut bed = Bed::new();
        bed.settle();
        bed.nic.lock().unwrap().no_counter = Some(libc::ENOMEM);
        flows(&mut bed, chain);
        bed.settle();
        assert!((1..=3).all(|flow| bed.tier(id(flow)) == Some(Tier::Software)), "{chain}");
        assert_eq!(bed.nic.lock().unwrap().rules.len(), 0, "{chain}");
        bed.nic.lock().unwrap().no_counter = None;
        bed.run(60_000);
        assert!((1..=3).all(|flow| bed.tier(id(flow)) == Some(Tier::Hardware)), "{chain}");
        bed.assert_healthy();
    }
}

#[test]
fn a_stopped_ports_flows_are_in_software_until_it_starts() {
    for chain in CHAINS {
        let mut bed = Bed::new();
        flows(&mut bed, chain);
        bed.settle();
        // What mlx5 answers on a port that is not started.
        bed.nic.lock().unwrap().stop(libc::ENODEV);
        bed.run(3_000);
        assert!((1..=3).all(|flow| bed.state(id(flow)) == failed(FailureClass::Device)), "{chain}");
        assert_eq!(bed.nic.lock().unwrap().rules.len(), 0);
        bed.nic.lock().unwrap().stopped = None;
        bed.run(60_000);
        assert!((1..=3).all(|flow| bed.tier(id(flow)) == Some(Tier::Hardware)), "{chain}");
        assert_eq!(bed.engine.status(bed.now).totals.resets, 1);
        bed.assert_healthy();
    }
}

#[test]
fn a_removed_nic_leaves_every_flow_in_software_until_it_is_back() {
    for chain in CHAINS {
        let mut bed = Bed::new();
        flows(&mut bed, chain);
        bed.settle();
        {
            let mut nic = bed.nic.lock().unwrap();
            nic.stop(libc::EIO);
            nic.flush_fails = u32::MAX;
        }
        bed.run(60_000);
        assert!((1..=3).all(|flow| bed.state(id(flow)) == failed(FailureClass::Device)), "{chain}");
        bed.ask(Request::Remove { id: id(3) });
        bed.poll(0);
        assert_eq!(bed.gone(id(3)), 1, "a worker gets its entry back all the same");
        {
            let mut nic = bed.nic.lock().unwrap();
            (nic.stopped, nic.flush_fails) = (None, 0);
        }
        bed.run(120_000);
        assert!((1..=2).all(|flow| bed.tier(id(flow)) == Some(Tier::Hardware)), "{chain}");
        bed.assert_healthy();
    }
}

#[test]
fn late_completions_one_after_the_other_leave_nothing_of_a_chain() {
    for chain in CHAINS {
        let mut bed = Bed::new();
        bed.settle();
        bed.nic.lock().unwrap().delay = 2_100;
        flows(&mut bed, chain);
        bed.run(10_000);
        (1..=3).for_each(|flow| bed.ask(Request::Remove { id: id(flow) }));
        bed.run(20_000);
        assert!((1..=3).all(|flow| bed.gone(id(flow)) == 1), "{chain}");
        assert_eq!(bed.nic.lock().unwrap().rules.len(), 0, "{chain}");
        bed.assert_healthy();
    }
}
