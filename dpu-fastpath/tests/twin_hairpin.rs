//! Hairpin queues between two ports of the twin, set up and bound as the node opens them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod twin;

use std::sync::Arc;

use dpu_fastpath::{
    nic::NicPorts,
    port::{DpdkPorts, Eal, EalArgs, Memory, PortMap, Wire},
    rte_flow::{Style, Synchronous},
};
use fallback_sw::io::{KernelPorts, OpenPorts, Opened};
use offload_engine::{Completion, RuleBackend};
use offload_rules::{
    MacAddr,
    lower::{Action, Item, Rule, Table},
};
use test_kit::{snapshot, vif};

const STATE: &str = r#"{"generation": "1", "node": "router", "vrfs": [{"id": 1, "name": "one"}], "vifs": [
    {"id": 1, "name": "lan", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 1},
    {"id": 2, "name": "wan", "type": "PHYSICAL", "mac": "02:00:00:00:00:02", "vrf": 1}]}"#;
const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// A frame to the router, of the least length.
fn frame() -> Vec<u8> {
    let mut frame = [&OWN.0[..], &[2, 0, 0, 0, 0, 9], &[0x08, 0x00]].concat();
    frame.resize(60, 0x5a);
    frame
}

/// What arrives at the first wire: how much software gets of it, and what leaves by each wire.
fn pass(opened: &mut Opened, wires: &[Wire; 2]) -> (usize, [usize; 2]) {
    assert!(wires[0].arrive(&frame()));
    let mut received = Vec::new();
    opened.ports[0].receive(&mut received, &mut Vec::new(), 32).unwrap();
    (received.len(), wires.each_ref().map(|wire| std::iter::from_fn(|| wire.sent()).count()))
}

#[test]
fn a_rule_forwards_wire_to_wire_unless_one_of_the_ports_is_stopped() {
    let eal = EalArgs { memory: Memory::Ordinary { mib: 256 }, ..EalArgs::default() };
    let eal = Arc::new(Eal::start(&eal, &[twin::library()]).unwrap());
    let wires = ["wire0", "wire1"].map(|name| Wire::new(&eal, name).unwrap());
    for (at, wire) in wires.iter().enumerate() {
        eal.add_vdev(&format!("net_twin{at}"), &format!("port={},profile=mlx5-sws", wire.ethdev())).unwrap();
    }
    let devices = [("lan", "net_twin0"), ("wan", "net_twin1")];
    let map = devices.map(|(device, ethdev)| PortMap { device: device.to_owned(), ethdev: ethdev.to_owned() });
    let nic = NicPorts::new(false).with_hairpins(map.iter().map(|map| eal.port_id(&map.ethdev).unwrap()));
    let opener = DpdkPorts::new(Arc::clone(&eal), &map, Box::new(KernelPorts)).unwrap();
    let mut opener = opener.prepared_by(Box::new(nic.clone()));
    let snapshot = snapshot(STATE);
    let mut open = |number| opener.open(snapshot.vif(vif(number)).unwrap(), 1).unwrap();
    let mut lan = open(1);
    let wan = open(2);

    let queue = nic.hairpin(vif(1), vif(2)).unwrap();
    assert_eq!(
        (queue, nic.hairpin(vif(2), vif(1))),
        (2, Some(1)),
        "behind the one of software: to itself and to the other"
    );
    let mut backend = Synchronous::new(nic.registry().clone(), Style { transfer: false, ..Style::default() }, 4);
    let rule = Rule {
        table: Table::Flows,
        priority: 2,
        items: vec![Item::Port(vif(1)), Item::Eth { dst: Some(OWN), has_vlan: Some(false) }],
        actions: vec![Action::Queue(queue)],
    };
    assert_eq!(pass(&mut lan, &wires), (1, [0, 0]), "no rule yet: software's");
    backend.create(1, &rule).unwrap();
    let mut done = Vec::new();
    backend.pull(&mut done).unwrap();
    assert_eq!(done, [Completion::Created(1)]);
    assert_eq!(pass(&mut lan, &wires), (0, [0, 1]));
    // Queues are bound to nothing while rules are flushed, and are bound again.
    backend.flush().unwrap();
    assert_eq!(pass(&mut lan, &wires), (1, [0, 0]));
    backend.create(2, &rule).unwrap();
    assert_eq!(pass(&mut lan, &wires), (0, [0, 1]));

    drop(wan);
    assert_eq!(nic.hairpin(vif(1), vif(2)), None, "whoever asks now gets no queue");
    assert_eq!(
        pass(&mut lan, &wires),
        (0, [0, 0]),
        "it leads nowhere: the rule is still there, and software gets nothing"
    );
    let _wan = open(2);
    assert_eq!(nic.hairpin(vif(1), vif(2)), Some(queue));
    assert_eq!(pass(&mut lan, &wires), (0, [0, 1]));
}
