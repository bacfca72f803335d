//! Ports of DPDK's own mlx5 driver, on a card that isn't there: each case is a process of its own, started below the judge.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::BTreeSet,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use dpu_fastpath::{
    nic::{self, NicPorts, WrongEngine, identify, profile},
    port::{DpdkPorts, Eal, EalArgs, Memory, PortMap, transfer_proxy},
};
use fallback_sw::io::{KernelPorts, OpenPorts, Opened, PortError};
use mlx5_judge::{Below, Card, Engine, Preload};
use offload_engine::{Completion, RuleBackend, Token};
use offload_rules::{
    MacAddr,
    forwarding::{Snapshot, Vif},
    lower::{Action, Item, Layout, Role, Rule, Table},
};
use test_kit::vif as vif_id;

/// Names the case that this process is.
const CASE: &str = "SLUICEGATE_MLX5_CASE";

/// Runs the test of this name again, below the judge, with each engine; `None` there: this is that process.
fn cases(name: &str, card: &Card) -> Option<Engine> {
    match std::env::var(CASE).as_deref() {
        Ok("1") => return Some(Engine::Software),
        Ok("2") => return Some(Engine::Hardware),
        _ => {}
    }
    let preload = Preload::new().unwrap();
    for engine in [Engine::Software, Engine::Hardware] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", name, "--nocapture"]).envs(card.environment());
        child.envs([preload.variable(), (CASE, engine.dv_flow_en().to_string().into())]);
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{engine:?}: {}: {said}", output.status);
    }
    None
}

struct Node {
    ports: DpdkPorts,
    nic: NicPorts,
    eal: Arc<Eal>,
    snapshot: Arc<Snapshot>,
}

/// A node on the card with a vif for each of these devices: vif 1 on the first, and so on.
fn node(card: &Card, engine: Engine, devices: &[&str], hairpin: bool) -> Node {
    let (eal, map) = map(card, engine, devices);
    let mut nic = NicPorts::new(engine == Engine::Hardware);
    if hairpin {
        nic = nic.with_hairpins(map.iter().map(|map| eal.port_id(&map.ethdev).unwrap()));
    }
    let ports = DpdkPorts::new(Arc::clone(&eal), &map, Box::new(KernelPorts)).unwrap();
    let ports = ports.prepared_by(Box::new(nic.clone()));
    let vif = |(id, map): (u32, &PortMap)| {
        let mac = format!("02:00:00:00:00:{id:02x}");
        serde_json::json!({"id": id, "name": map.device, "type": "PHYSICAL", "mac": mac, "vrf": 1})
    };
    let vifs: Vec<_> = (1..).zip(&map).map(vif).collect();
    let state = serde_json::json!({"generation": "1", "node": "pe", "vrfs": [{"id": 1, "name": "one"}], "vifs": vifs});
    let snapshot = test_kit::snapshot(&state.to_string());
    Node { ports, nic, eal, snapshot }
}

impl Node {
    fn vif(&self, number: u32) -> Arc<Vif> {
        self.snapshot.vif(vif_id(number)).map(Arc::clone).unwrap()
    }

    fn open(&mut self, number: u32) -> Result<Opened, PortError> {
        let vif = self.vif(number);
        self.ports.open(&vif, 2)
    }

    fn device(&self, number: u32) -> String {
        self.vif(number).kind.port().unwrap().device.clone()
    }

    fn ethdev(&self, name: &str) -> u16 {
        self.eal.port_id(name).unwrap()
    }
}

fn waits(result: &Result<Opened, PortError>, errno: i32) -> bool {
    matches!(result, Err(PortError::Os { source, .. }) if source.raw_os_error() == Some(errno))
}

#[test]
fn hairpin_queues_of_two_wires_work_both_ways_also_after_a_reopening() {
    let card = Card::hairpin(2);
    let name = "hairpin_queues_of_two_wires_work_both_ways_also_after_a_reopening";
    let Some(engine) = cases(name, &card) else { return };
    let mut node = node(&card, engine, &["pf0", "pf1"], true);
    // Without an E-Switch there is nothing that leads from port to port but the queues.
    for address in card.addresses() {
        assert_eq!(transfer_proxy(node.ethdev(&address)), None, "{address}");
    }
    let first = node.open(1).unwrap();
    assert_eq!(node.nic.hairpin(vif_id(1), vif_id(2)), None, "the other is not open");
    assert_eq!(node.nic.hairpin(vif_id(1), vif_id(1)), Some(2), "behind the two of the workers");
    let second = node.open(2).unwrap();
    let queues =
        |node: &Node| [(1, 1), (1, 2), (2, 1), (2, 2)].map(|(from, to)| node.nic.hairpin(vif_id(from), vif_id(to)));
    assert_eq!(queues(&node), [Some(2), Some(3), Some(2), Some(3)]);
    drop(first);
    assert_eq!(queues(&node), [None, None, None, Some(3)]);
    let first = node.open(1).unwrap();
    assert_eq!(queues(&node), [Some(2), Some(3), Some(2), Some(3)]);
    for vif in [1, 2] {
        assert_eq!(node.nic.facts(vif_id(vif)).unwrap().role, Role::Wire);
    }
    drop((first, second));
    assert_eq!(queues(&node), [None; 4]);
}

fn drops_on(port: u32) -> Rule {
    let items = vec![Item::Port(vif_id(port)), Item::Eth { dst: Some(MacAddr([2, 0, 0, 0, 0, 9])), has_vlan: None }];
    Rule { table: Table::Tenant, priority: 2, items, actions: vec![Action::Count, Action::Drop] }
}

fn completes(backend: &mut dyn RuleBackend, wanted: Completion) {
    let mut done = Vec::new();
    let begun = Instant::now();
    while done.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{wanted:?}");
        backend.push().unwrap();
        backend.pull(&mut done).unwrap();
    }
    assert_eq!(done, [wanted]);
}

/// A driver that stops a port lets go of its rules (mlx5_trigger.c, `mlx5_dev_stop`): their handles point to what is no more.
#[test]
fn handles_of_a_port_that_has_stopped_do_not_reach_the_driver_again() {
    let card = Card::hairpin(2);
    let Some(engine) = cases("handles_of_a_port_that_has_stopped_do_not_reach_the_driver_again", &card) else {
        return;
    };
    let mut node = node(&card, engine, &["pf0", "pf1"], true);
    let name = if engine == Engine::Hardware { "mlx5-hws" } else { "mlx5-sws" };
    let profile = profile(name).unwrap().with_layout(Layout::Hairpin);
    let [_first, second] = [1, 2].map(|vif| node.open(vif).unwrap());
    let mut backend = nic::connect(&profile, &node.nic).unwrap().rules;
    let create = |backend: &mut dyn RuleBackend, token: Token, port: u32| {
        backend.create(token, &drops_on(port)).unwrap();
        completes(backend, Completion::Created(token));
    };
    create(&mut *backend, 1, 1);
    create(&mut *backend, 2, 2);
    drop(second);
    assert_eq!(backend.query_one(2).unwrap_err().errno, libc::ENODEV);
    backend.destroy(2).unwrap();
    completes(&mut *backend, Completion::Destroyed(2));
    backend.query_one(1).unwrap();
    let _second = node.open(2).unwrap();
    create(&mut *backend, 3, 2);
    for token in [3, 1] {
        backend.query_one(token).unwrap();
        backend.destroy(token).unwrap();
        completes(&mut *backend, Completion::Destroyed(token));
    }
}

/// Entries of hardware steering that are removed, by table: a work request is TABLE_ACCESS of an STE, and deactivates (mlx5dr_send.h).
fn removed(line: &str) -> Option<u32> {
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    let octets = event["octets"].as_str().filter(|_| event["e"] == "wqe")?;
    let octet = |at: usize| u8::from_str_radix(&octets[at * 2..at * 2 + 2], 16).unwrap();
    let removes = (octet(0), octet(3), octet(16) >> 4) == (0, 0x2c, 1);
    removes.then(|| u32::from_be_bytes([12, 13, 14, 15].map(octet)))
}

/// A flush takes rules in the driver's order: a first stage would be there without its second.
#[test]
fn a_backend_of_templates_that_ends_takes_the_newest_rule_first() {
    let card = Card::hairpin(2);
    let Some(engine) = cases("a_backend_of_templates_that_ends_takes_the_newest_rule_first", &card) else { return };
    if engine == Engine::Software {
        return;
    }
    let seen: Arc<Mutex<Vec<u32>>> = Arc::default();
    let to = Arc::clone(&seen);
    Below::find().unwrap().on_record(Box::new(move |line| to.lock().unwrap().extend(removed(line))));
    let mut node = node(&card, engine, &["pf0", "pf1"], true);
    let profile = profile("mlx5-hws").unwrap().with_layout(Layout::Hairpin);
    let _open = [1, 2].map(|vif| node.open(vif).unwrap());
    let tables = [Table::Tunnel, Table::Untagged, Table::Tenant, Table::Inner];
    let rules = |backend: &mut dyn RuleBackend| {
        for (token, table) in (1..).zip(tables) {
            backend.create(token, &Rule { table, ..drops_on(1) }).unwrap();
            completes(backend, Completion::Created(token));
        }
    };
    // Which table is which.
    let mut backend = nic::connect(&profile, &node.nic).unwrap().rules;
    rules(&mut *backend);
    for token in (1..=4).rev() {
        backend.destroy(token).unwrap();
        completes(&mut *backend, Completion::Destroyed(token));
    }
    let newest_first = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(newest_first.iter().collect::<BTreeSet<_>>().len(), 4, "{newest_first:?}");
    rules(&mut *backend);
    drop(backend);
    assert_eq!(*seen.lock().unwrap(), newest_first);
}

#[test]
fn a_representor_opens_by_short_name_within_its_switch_managers_life() {
    let card = Card::switchdev(2);
    let name = "a_representor_opens_by_short_name_within_its_switch_managers_life";
    let Some(engine) = cases(name, &card) else { return };
    let mut node = node(&card, engine, &["pf0", "pf0vf0", "0000:08:00.0/vf1"], false);
    let [uplink, function] = ["0000:08:00.0", "0000:08:00.0_representor_vf1"].map(|name| node.ethdev(name));
    assert_eq!([uplink, function].map(transfer_proxy), [Some(uplink); 2]);
    let orders = [1, 2, 3].map(|vif| node.ports.order(&node.device(vif)));
    assert_eq!(orders, [0, 1, 1], "the node opens the uplink first");

    // Whoever is first all the same: the uplink is started for it.
    let one = node.open(2).unwrap();
    // A vif on the uplink wants it as that needs it: the functions make way.
    let asked = node.open(1);
    assert!(waits(&asked, libc::EBUSY), "{asked:?}");
    let makes_way = node.ports.look(&node.device(2));
    assert!(makes_way.is_err(), "{makes_way:?}");
    assert!(waits(&node.open(3), libc::EAGAIN));
    drop(one);
    let wire = node.open(1).unwrap();
    let all = [node.open(2).unwrap(), node.open(3).unwrap()];
    for vif in 1..=3 {
        node.ports.look(&node.device(vif)).unwrap();
    }
    let facts = [1, 2, 3].map(|vif| node.nic.facts(vif_id(vif)).unwrap());
    assert_eq!(facts.map(|facts| facts.role), [Role::Wire, Role::Function, Role::Function]);
    assert!(facts[0].domain.is_some() && facts.iter().all(|other| facts[0].shares_switch(other)));

    // The uplink's vif may go before them: the device stays as long as they do.
    drop(wire);
    assert!(waits(&node.open(1), libc::EBUSY));
    drop(all);
    node.open(1).unwrap();
}

#[test]
fn uplinks_of_two_switches_share_none() {
    let card = Card { pfs: 2, ..Card::switchdev(1) };
    let Some(engine) = cases("uplinks_of_two_switches_share_none", &card) else { return };
    let mut node = node(&card, engine, &["pf0", "pf1", "pf1vf0"], false);
    let _open = [1, 2, 3].map(|vif| node.open(vif).unwrap());
    let facts = [1, 2, 3].map(|vif| node.nic.facts(vif_id(vif)).unwrap());
    assert!(!facts[0].shares_switch(&facts[1]) && facts[1].shares_switch(&facts[2]), "{facts:?}");
}

/// Starts DPDK on the card, and names ports of it by the devices of vifs.
fn map(card: &Card, engine: Engine, devices: &[&str]) -> (Arc<Eal>, Vec<PortMap>) {
    let args = EalArgs { memory: Memory::Ordinary { mib: 900 }, pci: card.devices(engine), ..EalArgs::default() };
    let eal = Arc::new(Eal::start(&args, &[]).unwrap());
    let of = |(at, name): (u32, &&str)| PortMap { device: format!("device{at}"), ethdev: (*name).to_owned() };
    let map: Vec<PortMap> = (1..).zip(devices).map(of).collect();
    let map = dpu_fastpath::port::resolve(&eal, &map).unwrap();
    (eal, map)
}

#[test]
fn the_driver_tells_its_engine_and_a_profile_of_the_other_one_is_refused() {
    let card = Card::switchdev(1);
    let Some(engine) = cases("the_driver_tells_its_engine_and_a_profile_of_the_other_one_is_refused", &card) else {
        return;
    };
    let (eal, map) = map(&card, engine, &["pf0", "pf0vf0"]);
    let nic = identify(&eal, &map, None).unwrap().unwrap();
    let (own, other, wrong) = match engine {
        Engine::Software => ("mlx5-sws", "mlx5-hws", WrongEngine::Software),
        Engine::Hardware => ("mlx5-hws", "mlx5-sws", WrongEngine::Hardware),
    };
    assert_eq!((nic.profile.name, nic.profile.layout), (own, Layout::Switch));
    assert_eq!(nic.findings, Vec::<String>::new(), "tenants on functions, the network on the wire");
    assert_eq!(nic.ports.iter().map(|seen| seen.facts.role).collect::<Vec<_>>(), [Role::Wire, Role::Function]);
    assert_eq!(identify(&eal, &map, Some(profile(own).unwrap())).unwrap().unwrap().profile.name, own);
    assert_eq!(identify(&eal, &map, Some(profile(other).unwrap())).unwrap_err(), wrong);

    let wires = identify(&eal, &map[..1], None).unwrap().unwrap();
    assert!(wires.findings[0].contains("representor=vf[0-3]"), "{:?}", wires.findings);
}

#[test]
fn without_a_switch_rules_lead_by_hairpin_queues_and_nothing_is_missing() {
    let card = Card::hairpin(2);
    let Some(engine) = cases("without_a_switch_rules_lead_by_hairpin_queues_and_nothing_is_missing", &card) else {
        return;
    };
    let (eal, map) = map(&card, engine, &["pf0", "pf1"]);
    let nic = identify(&eal, &map, None).unwrap().unwrap();
    assert!(nic.profile.layout == Layout::Hairpin && nic.findings.is_empty(), "{nic:?}");
    assert_eq!(nic.about().layout, "hairpin queues");
}
