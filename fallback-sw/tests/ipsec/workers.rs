//! Several workers: each SA has one owner, whoever the packet comes to.

use std::collections::{BTreeMap, BTreeSet};

use fallback_sw::{
    node::machine::MachineConfig,
    packet::{NicNote, Packet},
    worker::{Outbox, Worker, WorkerConfig},
};
use offload_rules::DropReason;

use crate::{
    common::{
        hex,
        packets::{Frame, udp},
        snapshot, vif, walk_a,
    },
    net::{CE1_UP, CLIENT, END1, END2, LAN, Net, Pair, RE_MAC, SERVER, TUNNELS, WAN, ce1, ce2, re, to},
};

fn three() -> MachineConfig {
    MachineConfig { workers: 3, ..MachineConfig::default() }
}

/// Sends packets of many flows, spread over the queues; the ESP headers on the wire by index.
fn numbers(net: &mut Net, flows: u16) -> BTreeMap<u32, Vec<u32>> {
    let mut found: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for port in 0..flows {
        net.ce1.now += 1;
        let frame = walk_a::from_client(&udp(CLIENT, SERVER, 2000 + port, 53, b"x").ip());
        let queue = usize::from(port) % 3;
        net.ce1.machine.receive(vif(LAN), queue, &mut vec![Packet::from_frame(&frame)], net.ce1.now);
        let sent = net.ce1.machine.take_sent();
        net.ce1.check_account();
        assert_eq!(sent.len(), 1, "{:?}", net.ce1.all_drops());
        let ip = Frame::read(sent[0].packet.data()).ip();
        let word = |at: usize| u32::from_be_bytes(ip.body[at..at + 4].try_into().unwrap());
        found.entry(word(8)).or_default().push(word(12));
        assert_eq!(net.carry(sent).len(), 1, "{:?}", net.all_drops());
    }
    found
}

#[test]
fn with_one_sa_for_a_tunnel_all_workers_hand_their_packets_to_its_owner() {
    let mut net = Net::with(&ce1(), &re(), &ce2(), three());
    let found = numbers(&mut net, 300);
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), CE1_UP.map(Pair::spi));
    for numbers in found.values() {
        // In order, without a gap and without a number twice.
        assert_eq!(*numbers, (1..=numbers.len() as u32).collect::<Vec<_>>());
    }
    assert_eq!(net.all_drops(), [vec![], vec![], vec![]]);
}

#[test]
fn with_an_sa_for_each_worker_none_hands_over() {
    // RFC 9611: three SAs for the first tunnel, the second is down.
    let pairs = [CE1_UP[0], Pair(0x51), Pair(0x52)];
    let list = pairs.map(|pair| pair.0.to_string()).join(", ");
    let more: Vec<_> = (1..3).map(|i| pairs[i].outbound_with(&format!(r#", "worker": {i}"#))).collect();
    let ce1 = walk_a::altered(
        &ce1(),
        &[
            ("\"outboundSas\": [17]", &format!("\"outboundSas\": [{list}]")),
            ("\"outboundSas\": [18]", "\"outboundSas\": []"),
            (&CE1_UP[0].outbound(), &format!("{}, {}", CE1_UP[0].outbound(), more.join(","))),
        ],
    );
    let inbound: Vec<_> = pairs[1..].iter().map(|pair| pair.inbound()).collect();
    let re = walk_a::altered(
        &re(),
        &[
            ("\"inboundSas\": [17]", &format!("\"inboundSas\": [{list}]")),
            (&CE1_UP[0].inbound(), &format!("{}, {}", CE1_UP[0].inbound(), inbound.join(","))),
        ],
    );
    let mut net = Net::with(&ce1, &re, &ce2(), three());
    let found = numbers(&mut net, 300);
    assert_eq!(found.keys().copied().collect::<BTreeSet<_>>(), pairs.map(Pair::spi).into());
    for (id, worker) in net.ce1.machine.workers().iter().enumerate() {
        let active: Vec<_> = worker.sas().into_iter().filter(|sa| sa.active && sa.reserved_until > 0).collect();
        assert_eq!(active.len(), 1);
        assert_eq!(active[0].id.get(), pairs[id].0);
        assert!(active[0].packets > 50);
    }
    assert_eq!(net.all_drops(), [vec![], vec![], vec![]]);
}

#[test]
fn a_worker_whose_sa_has_ended_hands_its_packets_to_another_one() {
    let pairs = [CE1_UP[0], Pair(0x51)];
    let ce1 = walk_a::altered(
        &ce1(),
        &[
            ("\"outboundSas\": [17]", "\"outboundSas\": [17, 81]"),
            ("\"outboundSas\": [18]", "\"outboundSas\": []"),
            (
                &CE1_UP[0].outbound(),
                &format!(
                    "{}, {}",
                    CE1_UP[0].outbound_with(r#", "hard": {"packets": "5"}"#),
                    pairs[1].outbound_with(r#", "worker": 1"#)
                ),
            ),
        ],
    );
    let re = walk_a::altered(
        &re(),
        &[
            ("\"inboundSas\": [17]", "\"inboundSas\": [17, 81]"),
            (&CE1_UP[0].inbound(), &format!("{}, {}", CE1_UP[0].inbound(), pairs[1].inbound())),
        ],
    );
    let mut net = Net::with(&ce1, &re, &ce2(), three());
    let found = numbers(&mut net, 100);
    assert_eq!(found[&pairs[0].spi()].len(), 5);
    assert_eq!(found[&pairs[1].spi()].len(), 95);
    assert_eq!(net.all_drops(), [vec![], vec![], vec![]]);
}

#[test]
fn a_packet_of_the_nics_lost_between_workers_is_accounted_for() {
    // The first worker owns the SAs.
    let config = WorkerConfig { id: 1, workers: 2, ip_id: 1, entropy: None, cookie_secret: [0; 2], offload: true };
    let (mut worker, mut out) = (Worker::new(config, snapshot(&ce1())).unwrap(), Outbox::default());
    // A rule of the NIC has forwarded it into the tunnel, and counted it: it is not received here.
    let mut ready = Packet::from_frame(&to(RE_MAC, &udp(END1, END2, 50_000, 6635, &hex("00118140")).ip()));
    ready.set_note(NicNote::ToSeal(vif(TUNNELS[0])));
    worker.receive(vif(WAN), &mut vec![ready], 1000, &mut out);
    assert_eq!((worker.account().received, out.handoff.len()), (0, 1));
    let (owner, delivery) = out.handoff.remove(0);
    assert_eq!(owner, 0);
    worker.lose(&delivery, DropReason::HandoffFull);
    let account = worker.account();
    assert_eq!((account.received, account.dropped_total(), account.unaccounted(0)), (1, 1, 0));
    assert_eq!(account.dropped[DropReason::HandoffFull.index()], 1);
}
