//! Hairpin queues: from the receiving side of one port to the sending side of another (ethdev guide; rte_flow guide, item META).

use nic_twin::model::{Action, Attr, DropReason, ItemKind as K, Nic, Outcome};

use crate::kit::*;

const EGRESS: Attr = Attr { group: 0, priority: 1, ingress: false, egress: true, transfer: false };
/// Behind the queues of software.
const QUEUE: u16 = 3;
const TOLD: u32 = 0x1234;

/// A rule that puts everything that port 0 receives into the hairpin queue, and says so to the sending side.
fn through() -> Nic {
    let mut nic = nic();
    let told = Action::SetMeta { data: TOLD, mask: u32::MAX };
    insert(&mut nic, INGRESS, &[plain(K::Eth)], &[told, Action::Queue(QUEUE)]).unwrap();
    nic
}

fn frame() -> Vec<u8> {
    tcp4([10, 0, 0, 1], [10, 0, 1, 1], [4000, 443])
}

#[test]
fn a_hairpin_queue_leads_to_the_wire_of_the_port_that_it_is_bound_to() {
    let mut nic = through();
    assert_eq!(delivered(receive(&mut nic, &frame()).0).queue, QUEUE, "an ordinary queue");
    nic.set_hairpin(0, QUEUE, None);
    assert_eq!(receive(&mut nic, &frame()).0, Outcome::Drop(DropReason::Unbound));
    nic.set_hairpin(0, QUEUE, Some(1));
    assert_eq!(receive(&mut nic, &frame()), (Outcome::Forward { port: 1 }, frame()));
    nic.set_hairpin(0, QUEUE, Some(0));
    assert_eq!(receive(&mut nic, &frame()).0, Outcome::Forward { port: 0 }, "back out of its own port");
    nic.set_hairpin(0, QUEUE, Some(1));
    nic.unbind_hairpins(1);
    assert_eq!(receive(&mut nic, &frame()).0, Outcome::Drop(DropReason::Unbound), "the other port has stopped");
    nic.forget_hairpins(0);
    assert_eq!(delivered(receive(&mut nic, &frame()).0).queue, QUEUE, "an ordinary queue again");
}

#[test]
fn rules_of_the_sending_port_see_what_the_receiving_rule_has_told_them() {
    let mut nic = through();
    nic.set_hairpin(0, QUEUE, Some(1));
    let told = fields(4, &[(0, &TOLD.to_le_bytes())]);
    let other = fields(4, &[(0, &(TOLD + 1).to_le_bytes())]);
    let drop_of = |nic: &mut Nic, port, meta: &(Vec<u8>, Vec<u8>)| {
        nic.insert(port, &EGRESS, &[item(K::Meta, meta)], &[Action::Drop], T0).unwrap()
    };
    drop_of(&mut nic, 0, &told);
    drop_of(&mut nic, 1, &other);
    assert_eq!(
        receive(&mut nic, &frame()).0,
        Outcome::Forward { port: 1 },
        "rules of another port, and of another word"
    );
    let rule = drop_of(&mut nic, 1, &told);
    assert_eq!(receive(&mut nic, &frame()).0, Outcome::Drop(DropReason::Rule));
    nic.destroy(rule.id).unwrap();
    let header = [&DST_MAC[..], &SRC_MAC, &[0x81, 0, 0, 7, 8, 0]].concat();
    let actions = [Action::RawDecap(&frame()[..14]), Action::RawEncap(&header)];
    nic.insert(1, &EGRESS, &[item(K::Meta, &told)], &actions, T0).unwrap();
    let (outcome, sent) = receive(&mut nic, &frame());
    assert_eq!(outcome, Outcome::Forward { port: 1 });
    assert_eq!(sent, vlan(0x8100, 7, &frame()), "the sending side has put a tag on");
}

#[test]
fn software_gets_nothing_on_a_hairpin_queue_by_spreading() {
    let mut nic = nic();
    for queue in [1, 3] {
        nic.set_hairpin(0, queue, Some(1));
    }
    for port in 4000..4064 {
        let delivery = delivered(receive(&mut nic, &tcp4([10, 0, 0, 1], [10, 0, 1, 1], [port, 443])).0);
        assert!([0, 2].contains(&delivery.queue), "{delivery:?}");
    }
}
