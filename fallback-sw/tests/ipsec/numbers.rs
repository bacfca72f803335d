//! SAs whose keys may have used numbers that nobody knows of: they seal nothing, and nothing leaves in their place.

use std::sync::Arc;

use fallback_sw::node::{
    control::Control,
    ike,
    machine::{Machine, MachineConfig},
    sa_view,
    sequences::{NumbersUnknown, Sequences},
};
use fallback_sw::worker::{Grant, Outbox, Worker, WorkerConfig};
use offload_engine::protocol::Request;
use offload_rules::forwarding::{Sa, SaDirection};
use proto::v1::SaState;

use crate::{
    common::{Node, packets::udp, snapshot},
    net::{CE1_DOWN, CE1_UP, CLIENT, Net, Pair, SERVER, TUNNELS, ce1},
    rekey::{at_ce1, delta},
};

/// CE1 started again with the keys of these SAs refused.
fn refused(state: &str, pairs: &[Pair], config: MachineConfig) -> Node {
    let snapshot = snapshot(state);
    let mut sequences = Sequences::default();
    let sas: Vec<Arc<Sa>> = snapshot.sas().filter(|sa| sa.direction == SaDirection::Outbound).cloned().collect();
    for sa in sas.iter().filter(|sa| pairs.iter().any(|pair| pair.0 == sa.id.get())) {
        sequences.refuse(sa, NumbersUnknown::Missing);
    }
    Node { machine: Machine::started_again(config, snapshot, sequences).unwrap(), now: 1000 }
}

fn send(net: &mut Net, port: u16) -> usize {
    let sent = net.from_client(&udp(CLIENT, SERVER, port, 53, b"x").ip());
    let count = sent.len();
    net.carry(sent);
    net.nothing_in_the_clear();
    count
}

#[test]
fn a_refused_sa_seals_nothing_and_the_other_tunnel_carries_all() {
    let mut net = Net { ce1: refused(&ce1(), &CE1_UP[..1], MachineConfig::default()), ..Net::default() };
    for port in 5000..5040 {
        assert_eq!(send(&mut net, port), 1);
    }
    let sas = net.ce1.machine.workers()[0].sas();
    let packets = |pair: Pair| sas.iter().find(|sa| sa.id.get() == pair.0).map(|sa| (sa.packets, sa.reserved_until));
    assert_eq!([packets(CE1_UP[0]), packets(CE1_UP[1])], [Some((0, 0)), Some((40, (1 << 22) + 1))]);
}

#[test]
fn with_all_sas_refused_packets_are_dropped_with_a_reason() {
    for workers in [1, 2] {
        let config = MachineConfig { workers, ..MachineConfig::default() };
        let mut net = Net { ce1: refused(&ce1(), &CE1_UP, config), ..Net::default() };
        for port in 5000..5010 {
            assert_eq!(send(&mut net, port), 0);
        }
        assert_eq!(net.ce1.all_drops(), [("Invalid NH", 10)]);
    }
    // Whoever is led to the tunnel itself, without a choice, is told what is wrong with it.
    let direct = ce1().replace("\"nexthop\": 489, \"label\": 280", "\"nexthop\": 85");
    let mut net = Net { ce1: refused(&direct, &CE1_UP, MachineConfig::default()), ..Net::default() };
    for port in 5000..5010 {
        assert_eq!(send(&mut net, port), 0);
    }
    assert_eq!(net.ce1.all_drops(), [("SA Refused", 10)]);
}

#[test]
fn a_refused_sa_says_why_and_a_new_key_takes_its_place_without_a_restart() {
    let mut net = Net::altered(&[("\"outboundSas\": [18]", "\"outboundSas\": []")]);
    let state = ce1().replace("\"outboundSas\": [18]", "\"outboundSas\": []");
    net.ce1 = refused(&state, &CE1_UP, MachineConfig::default());
    assert_eq!(send(&mut net, 5000), 0);
    let control = net.ce1.machine.control();
    let statuses: Vec<_> = net.ce1.machine.workers().iter().map(Worker::sas).collect();
    let shown = sa_view::sas(control, &statuses);
    let one = shown.iter().find(|info| info.sa.as_ref().unwrap().id == CE1_UP[0].0).unwrap();
    assert_eq!((one.state(), one.reserved_until), (SaState::SaRefused, 0));
    assert_eq!(one.refused_reason, NumbersUnknown::Missing.to_string());
    assert!(!offload_rules::classify::is_tunnel_up(control.snapshot(), crate::common::vif(TUNNELS[0])));
    let up = Pair(0x100);
    net.re.change(&delta(&crate::rekey::at_re(&[CE1_DOWN[0]], &[CE1_UP[0], up]), &[up.inbound()], &[]));
    net.ce1.change(&delta(&at_ce1(&[CE1_UP[0], up], &[CE1_DOWN[0]]), &[up.outbound()], &[]));
    assert_eq!(net.to_server(&udp(CLIENT, SERVER, 5000, 53, b"again").ip()).body[8..], *b"again");
    assert_eq!(net.ce1.machine.control().refused().count(), 2);
}

#[test]
fn a_key_is_not_forgotten_while_an_sa_has_it() {
    let state = snapshot(&ce1());
    let sa = state.sas().find(|sa| sa.direction == SaDirection::Outbound).unwrap();
    let mut text = String::new();
    for other in 1..=70_000u128 {
        text.push_str(&format!("{other:032x} 4194305\n"));
    }
    let mut sequences = Sequences::default();
    let first = sequences.reserve(sa, false).unwrap().until;
    let mut sequences = Sequences::from_text(&(sequences.to_text() + &text)).unwrap();
    sequences.forget_oldest(std::iter::once(&**sa));
    assert!(sequences.to_text().lines().count() < 70_000);
    assert!(sequences.knows(sa));
    assert_eq!(sequences.reserve(sa, false).unwrap().from, first);
}

#[test]
fn a_refused_sa_is_offered_to_no_nic() {
    let config = MachineConfig { offload: true, ..MachineConfig::default() };
    for (refused_pairs, offered) in [(&CE1_UP[..0], 2), (&CE1_UP[..1], 1), (&CE1_UP[..], 0)] {
        let mut node = refused(&ce1(), refused_pairs, config);
        node.wait(3000);
        let requests = node.machine.take_offload_requests();
        let outbound = requests
            .iter()
            .filter(|request| matches!(request, Request::Offer { sa, .. } if sa.direction == SaDirection::Outbound));
        assert_eq!(outbound.count(), offered);
    }
}

#[test]
fn keys_of_ike_are_not_kept_and_still_use_no_number_twice() {
    let tunnel = r#"{"vifs": [{"id": 4111, "name": "tunnel4111", "type": "TUNNEL", "vrf": 8, "mtu": 1400, "tunnel": {
        "source": "172.28.13.36", "destination": "103.135.56.40", "vrf": 2, "ike": {}}}]}"#;
    let mut net = Net::default();
    net.ce1.change(tunnel);
    let mut control = Control::new(Arc::clone(net.ce1.machine.control().snapshot()));
    control.take_grants();
    let kept = control.sequences().to_text();
    let key = "ab".repeat(20);
    let mut ask = |line: String| {
        control.ike(ike::Request::parse(line.as_bytes()).unwrap(), 0).0.unwrap();
        let grants = control.take_grants();
        assert_eq!(control.sequences().to_text(), kept);
        grants.first().map(|grant| (grant.from, grant.until))
    };
    let add =
        format!("add-sa dir=out src=172.28.13.36 dst=103.135.56.40 spi=c1000001 key={key} esn=1 encap=0 if_id=4111");
    let first = ask(add.clone()).unwrap();
    assert_eq!(first.0, 1);
    assert_eq!(ask("del-sa spi=c1000001 dst=103.135.56.40".to_owned()), None);
    // Whoever negotiates the same key again does not get the same numbers again.
    assert_eq!(ask(add).unwrap().0, first.1);
}

#[test]
fn a_returning_sa_seals_nothing_before_it_has_unused_numbers() {
    let mut net = Net::default();
    let in_force = |net: &Net| Arc::clone(net.ce1.machine.control().snapshot());
    let there = in_force(&net);
    net.ce1.change(&delta(&at_ce1(&[], &[CE1_DOWN[0]]), &[], &[CE1_UP[0]]));
    let gone = in_force(&net);
    net.ce1.change(&delta(&at_ce1(&[CE1_UP[0]], &[CE1_DOWN[0]]), &[CE1_UP[0].outbound()], &[]));
    let back = in_force(&net);
    let mut control = Control::new(Arc::clone(&there));
    let first = control.take_grants();
    let config = WorkerConfig { id: 0, workers: 1, ip_id: 1, entropy: None, cookie_secret: [0; 2], offload: false };
    let mut worker = Worker::new(config, there).unwrap();
    let mut out = Outbox::default();
    let numbers = |worker: &Worker| {
        let sas = worker.sas();
        sas.iter().find(|sa| sa.id.get() == CE1_UP[0].0).map(|sa| (sa.sequence, sa.reserved_until))
    };
    worker.grant(&first);
    let until = numbers(&worker).unwrap().1;
    worker.adopt(gone, 1000, &mut out);
    assert_eq!(numbers(&worker), None);
    // The disk is full: the numbers that are reserved for it are not told.
    worker.adopt(back, 1001, &mut out);
    assert_eq!(numbers(&worker), Some((1, 0)));
    let sa = first.iter().map(|grant| &grant.sa).find(|sa| sa.id.get() == CE1_UP[0].0).unwrap();
    worker.grant(&[Grant { sa: Arc::clone(sa), from: until, until: until + 100 }]);
    assert_eq!(numbers(&worker), Some((until, until + 100)));
    // More that follow on those leave out none.
    worker.grant(&[Grant { sa: Arc::clone(sa), from: until + 100, until: until + 200 }]);
    assert_eq!(numbers(&worker), Some((until, until + 200)));
}
