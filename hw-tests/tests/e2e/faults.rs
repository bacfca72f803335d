//! Faults of a NIC under traffic: it goes on in software, and everything converges when the fault is over.

use std::time::Duration;

use hw_tests::lab::{L3vpn, LabError, Nic, Node, NodeClient, Site, scenario, until};
use proto::v1::{self, FlowTier};

use crate::offload::{datagrams, flows_of, go_on, on_twin, until_settled, until_tier};

const LIMIT: Duration = Duration::from_secs(15);

/// Numbered datagrams pass a NIC with a fault: none is lost, and the flow reaches the tier that the fault allows.
fn under_fault(
    name: &str,
    nic: Nic,
    with_fault: impl FnOnce(&Node) -> Result<(), LabError>,
    after: impl FnOnce(&Node) -> Result<(), LabError>,
) -> Result<(), String> {
    scenario(name, || {
        let mut l3vpn = L3vpn::new(&on_twin(nic))?;
        let node = l3vpn.node(Site::Ce1)?;
        let sequence = datagrams(&l3vpn, 7000)?;
        go_on(&sequence, 100)?;
        with_fault(node)?;
        go_on(&sequence, 100)?;
        node.twin()?.tell("clear")?;
        after(node)?;
        go_on(&sequence, 100)?;
        println!("{name}: {}", sequence.stop()?.perfect()?);
        until_settled(node.client())?;
        l3vpn.assert_healthy()
    })
}

fn reaches(node: &Node, tier: FlowTier) -> Result<(), LabError> {
    until_tier(node.client(), 7000, tier).map(drop)
}

/// Stays in software, and says why.
fn stays_in_software(node: &Node) -> Result<(), LabError> {
    until("the flow to say why it is in software", LIMIT, || {
        let flows = flows_of(node.client(), 7000)?;
        let told = |tier, reason: &str| tier == FlowTier::Software && !reason.is_empty();
        Ok((!flows.is_empty() && flows.iter().all(|flow| told(flow.tier(), &flow.not_offloaded_reason))).then_some(()))
    })
}

#[test]
fn fault_every_insert_is_refused() -> Result<(), String> {
    under_fault("fault_every_insert_is_refused", Nic::default().fault("fail_every=1"), stays_in_software, |_| Ok(()))
}

#[test]
fn fault_inserts_are_half_a_second_late() -> Result<(), String> {
    let hardware = |node: &Node| reaches(node, FlowTier::Hardware);
    under_fault("fault_inserts_are_half_a_second_late", Nic::default().fault("slow=500"), hardware, hardware)
}

#[test]
fn fault_half_of_a_pair_fails() -> Result<(), String> {
    // Every second insert: of each pair, one half.
    under_fault(
        "fault_half_of_a_pair_fails",
        Nic::default(),
        |node| {
            reaches(node, FlowTier::Hardware)?;
            node.twin()?.tell("fail_every=2")?;
            node.twin()?.tell("reset")
        },
        |node| reaches(node, FlowTier::Hardware),
    )
}

#[test]
fn fault_the_table_is_full() -> Result<(), String> {
    under_fault(
        "fault_the_table_is_full",
        Nic::default(),
        |node| {
            reaches(node, FlowTier::Hardware)?;
            // In force before the rules go: they are not to come back.
            node.twin()?.tell("full_at=1")?;
            node.client().set_offload(false)?;
            reaches(node, FlowTier::Software)?;
            node.client().set_offload(true)?;
            stays_in_software(node)
        },
        |node| reaches(node, FlowTier::Hardware),
    )
}

#[test]
fn fault_no_counters_are_left() -> Result<(), String> {
    under_fault(
        "fault_no_counters_are_left",
        Nic::default(),
        |node| {
            reaches(node, FlowTier::Hardware)?;
            // In force before the rules go: they are not to come back.
            node.twin()?.tell("counters=0")?;
            node.client().set_offload(false)?;
            reaches(node, FlowTier::Software)?;
            node.client().set_offload(true)?;
            stays_in_software(node)
        },
        |node| reaches(node, FlowTier::Hardware),
    )
}

#[test]
fn fault_the_nic_resets() -> Result<(), String> {
    under_fault(
        "fault_the_nic_resets",
        Nic::default(),
        |node| {
            for _ in 0..3 {
                reaches(node, FlowTier::Hardware)?;
                let resets = node.client().offload_status()?.totals.unwrap_or_default().resets;
                node.twin()?.tell("reset")?;
                until("the engine to notice the reset", LIMIT, || {
                    Ok((node.client().offload_status()?.totals.unwrap_or_default().resets > resets).then_some(()))
                })?;
            }
            Ok(())
        },
        |node| reaches(node, FlowTier::Hardware),
    )
}

#[test]
fn fault_the_nic_accepts_rules_and_ignores_them() -> Result<(), String> {
    under_fault(
        "fault_the_nic_accepts_rules_and_ignores_them",
        Nic::default().fault("dead=1"),
        |node| {
            until("the flow to be found not honoured", LIMIT, || {
                let flows = flows_of(node.client(), 7000)?;
                Ok((!flows.is_empty() && flows.iter().all(|flow| flow.not_offloaded_reason.contains("honour")))
                    .then_some(()))
            })
        },
        |_| Ok(()),
    )
}

#[test]
fn fault_a_node_is_killed_under_load_and_started_again() -> Result<(), String> {
    scenario("fault_a_node_is_killed_under_load_and_started_again", || {
        let mut l3vpn = L3vpn::new(&on_twin(Nic::default()))?;
        let sequence = datagrams(&l3vpn, 7000)?;
        reaches(l3vpn.node(Site::Ce1)?, FlowTier::Hardware)?;
        go_on(&sequence, 100)?;
        l3vpn.restart_after_kill(Site::Ce1)?;
        reaches(l3vpn.node(Site::Ce1)?, FlowTier::Hardware)?;
        go_on(&sequence, 100)?;
        // What passed while nobody forwarded is lost; nothing came twice, nothing overtook.
        let report = sequence.stop()?;
        println!("killed with -9: {report}");
        assert_eq!((report.there.duplicated, report.back.duplicated), (0, 0), "{report}");
        until_settled(l3vpn.node(Site::Ce1)?.client())?;
        l3vpn.assert_healthy()
    })
}

#[test]
fn fault_the_controller_restarts() -> Result<(), String> {
    scenario("fault_the_controller_restarts", || {
        let mut l3vpn = L3vpn::new(&on_twin(Nic::default()))?;
        let node = l3vpn.node(Site::Ce1)?;
        let sequence = datagrams(&l3vpn, 7000)?;
        reaches(node, FlowTier::Hardware)?;
        let installed =
            |client: &NodeClient| Ok::<_, LabError>(client.offload_status()?.totals.unwrap_or_default().installed);
        let before = installed(node.client())?;
        // A controller that comes back tells the whole state again, over a connection of its own.
        let controller = NodeClient::connect("ce1", node.socket())?;
        for _ in 0..3 {
            let state = controller.state()?;
            controller.apply_state(v1::ForwardingState { generation: state.generation + 1, ..state })?;
            go_on(&sequence, 100)?;
        }
        reaches(node, FlowTier::Hardware)?;
        assert_eq!(installed(node.client())?, before, "the same state has changed rules");
        println!("controller restarts: {}", sequence.stop()?.perfect()?);
        until_settled(node.client())?;
        l3vpn.assert_healthy()
    })
}

#[test]
fn fault_an_uplink_of_the_nic_goes_down() -> Result<(), String> {
    scenario("fault_an_uplink_of_the_nic_goes_down", || {
        let mut l3vpn = L3vpn::new(&on_twin(Nic::default()))?;
        let client = l3vpn.node(Site::Ce1)?.client();
        let sequence = datagrams(&l3vpn, 7000)?;
        let leaves_on = |flow: &v1::Flow| match flow.ops.last().map(String::as_str) {
            Some("output vif 4111") => Some(0),
            Some("output vif 4109") => Some(1),
            _ => None,
        };
        let uplink = |client: &NodeClient| {
            let flows = until_tier(client, 7000, FlowTier::Hardware)?;
            let forward = flows.iter().find(|flow| flow.label.is_some());
            Ok::<_, LabError>(forward.and_then(leaves_on))
        };
        let first = uplink(client)?.ok_or_else(|| LabError::Violated("no flow into the tunnel".to_owned()))?;
        let transit = l3vpn.transits()?.get(first).ok_or_else(|| LabError::Violated("no such transit".to_owned()))?;
        // On both sides, so that the other end takes the other way as well.
        for link in ["to-ce1", "to-ce2"] {
            transit.ip(&format!("link set {link} down"))?;
        }
        until("the rule to move to the other uplink", LIMIT, || Ok(uplink(client)?.filter(|now| *now != first)))?;
        go_on(&sequence, 100)?;
        let report = sequence.stop()?;
        println!("an uplink goes down: {report}");
        assert_eq!((report.there.duplicated, report.back.duplicated), (0, 0), "{report}");
        until_settled(client)?;
        l3vpn.assert_healthy()
    })
}
