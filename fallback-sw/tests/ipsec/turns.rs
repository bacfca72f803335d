//! Packets of a flow leave in the order in which they came, in whatever turns the workers of a node work, while SAs are replaced and
//! snapshots change. Workers take frames from queues of their own, and from rings what others hand over: a ring keeps order, two do not.

use std::{collections::VecDeque, sync::Arc};

use fallback_sw::{
    node::{control::Control, decode, machine::MachineConfig},
    packet::Packet,
    worker::{Delivery, Outbox, Worker, WorkerConfig},
};
use offload_rules::forwarding::Snapshot;
use proptest::prelude::*;

use crate::{
    common::{
        packets::{Frame, VRRP, eth, udp},
        snapshot, vif,
        walk_a::altered,
    },
    net::{CE1_DOWN, CE1_UP, CLIENT, LAN, Net, Pair, SERVER, WAN, ce1, ce2, re},
    rekey::{at_ce1, at_re, delta},
};

const FLOWS: u8 = 4;
/// What takes the place of the first tunnel's SAs: like those that replace an SA of IKE's, they have its last octet.
const UP: Pair = Pair(0x111);
const DOWN: Pair = Pair(0x121);

/// CE1's workers.
struct Turns {
    workers: Vec<Worker>,
    control: Control,
    out: Outbox,
    /// The frames of a port, by queue.
    queues: Vec<VecDeque<Packet>>,
    /// From each worker to each.
    rings: Vec<Vec<VecDeque<Delivery>>>,
    /// Of each worker: what it has not adopted yet.
    news: Vec<VecDeque<Arc<Snapshot>>>,
    sent: Vec<Packet>,
    now: u64,
}

impl Turns {
    fn new(state: &str, count: usize) -> Self {
        let mut control = Control::new(snapshot(state));
        let mut workers: Vec<Worker> = (0..count)
            .map(|id| {
                let ip_id = id as u16 * 8192;
                let config =
                    WorkerConfig { id, workers: count, ip_id, entropy: None, cookie_secret: [0; 2], offload: false };
                Worker::new(config, Arc::clone(control.snapshot())).unwrap()
            })
            .collect();
        let grants = control.take_grants();
        workers.iter_mut().for_each(|worker| worker.grant(&grants));
        Self {
            workers,
            control,
            out: Outbox::default(),
            queues: (0..count).map(|_| VecDeque::new()).collect(),
            rings: (0..count).map(|_| (0..count).map(|_| VecDeque::new()).collect()).collect(),
            news: (0..count).map(|_| VecDeque::new()).collect(),
            sent: Vec::new(),
            now: 1000,
        }
    }

    /// In force for each worker when its turn to adopt it comes.
    fn change(&mut self, json: &str) {
        let mut message: proto::v1::ForwardingDelta = proto::json::parse(json, "test delta").unwrap();
        message.base_generation = self.control.snapshot().generation();
        message.generation = message.base_generation + 1;
        let snapshot = self.control.apply_delta(decode::delta(&message).unwrap()).unwrap();
        self.publish(&snapshot);
    }

    fn publish(&mut self, snapshot: &Arc<Snapshot>) {
        self.news.iter_mut().for_each(|news| news.push_back(Arc::clone(snapshot)));
    }

    /// One turn of a worker: from its queue, from one of its rings, or a snapshot.
    fn turn(&mut self, id: usize, what: usize, at_most: usize, port: u32) {
        self.now += 1;
        let (now, worker) = (self.now, &mut self.workers[id]);
        match what.checked_sub(2) {
            None if what == 0 => {
                let count = at_most.min(self.queues[id].len());
                let mut frames = self.queues[id].drain(..count).collect();
                worker.receive(vif(port), &mut frames, now, &mut self.out);
            }
            None => {
                if let Some(snapshot) = self.news[id].pop_front() {
                    worker.adopt(snapshot, now, &mut self.out);
                }
            }
            Some(from) => {
                let ring = &mut self.rings[from % self.queues.len()][id];
                let count = at_most.min(ring.len());
                worker.deliver_all(ring.drain(..count).collect(), now, &mut self.out);
            }
        }
        for (owner, delivery) in self.out.handoff.drain(..) {
            self.rings[id][owner].push_back(delivery);
        }
        for port in std::mem::take(&mut self.out.dirty) {
            let queue = self.out.queue(port);
            queue.metas.clear();
            self.sent.append(&mut queue.packets);
        }
        let actions = self.control.handle(std::mem::take(&mut self.out.events), now);
        let grants = self.control.take_grants();
        self.workers.iter_mut().for_each(|worker| worker.grant(&grants));
        if let Some(snapshot) = actions.snapshot {
            self.publish(&snapshot);
        }
    }

    /// All frames, in these turns and then until nothing is left.
    fn run(&mut self, turns: &[(usize, usize, usize)], port: u32) {
        let count = self.workers.len();
        for (id, what, at_most) in turns {
            self.turn(id % count, what % (2 + count), *at_most, port);
        }
        let under_way = |turns: &Self| {
            turns.queues.iter().any(|queue| !queue.is_empty())
                || turns.rings.iter().flatten().any(|ring| !ring.is_empty())
        };
        while under_way(self) {
            for id in 0..count {
                (0..2 + count).for_each(|what| self.turn(id, what, 32, port));
            }
        }
    }
}

fn packet(from: &str, to: &str, flow: u8, number: u8) -> Vec<u8> {
    eth(VRRP, [0, 0x0c, 0x29, 0, 1, 0x64], &udp(from, to, 5000 + u16::from(flow), 53, &[flow, number]).ip())
}

/// All flows, in order: fails unless each has all its numbers, in theirs.
fn in_order<'a>(frames: impl IntoIterator<Item = &'a [u8]>, count: u8) -> Result<(), TestCaseError> {
    let mut found = vec![Vec::new(); usize::from(FLOWS)];
    for frame in frames {
        let ip = Frame::read(frame).ip();
        found[usize::from(ip.body[8])].push(ip.body[9]);
    }
    for flow in found {
        prop_assert_eq!(flow, (0..count).collect::<Vec<_>>());
    }
    Ok(())
}

/// Of all three, the first tunnel alone sends, and the two SAs that will take the place of its own are known.
fn net() -> (String, Net) {
    let inbound = |old: Pair, new: Pair| {
        let list = format!("\"inboundSas\": [{}", old.0);
        (list.clone(), format!("{list}, {}", new.0), old.inbound(), format!("{}, {}", old.inbound(), new.inbound()))
    };
    let with = |state: &str, old: Pair, new: Pair, down: Pair| {
        let (list, lists, sa, sas) = inbound(old, new);
        let down = format!("\"outboundSas\": [{}]", down.0);
        altered(state, &[(&list, &lists), (&sa, &sas), (&down, "\"outboundSas\": []")])
    };
    let edge = with(&ce1(), CE1_DOWN[0], DOWN, CE1_UP[1]);
    let regional = with(&re(), CE1_UP[0], UP, CE1_DOWN[1]);
    (edge.clone(), Net::with(&edge, &regional, &ce2(), MachineConfig::default()))
}

fn turns() -> impl Strategy<Value = Vec<(usize, usize, usize)>> {
    prop::collection::vec((0_usize..3, 0_usize..5, 1_usize..8), 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn flows_out_of_esp_stay_in_order(workers in 1_usize..4, queue in 0_usize..3, turns in turns(), rekey_at in 0_u8..24) {
        let (state, mut net) = net();
        let mut edge = Turns::new(&state, workers);
        for number in 0..24 {
            if number == rekey_at {
                net.re.change(&delta(&at_re(&[DOWN], &[CE1_UP[0], UP]), &[DOWN.outbound()], &[CE1_DOWN[0]]));
            }
            for flow in 0..FLOWS {
                for sealed in net.ce2.receive(LAN, &packet(SERVER, CLIENT, flow, number)) {
                    let passed = net.re.receive(WAN, sealed.packet.data());
                    edge.queues[queue % workers].extend(passed.into_iter().map(|sent| sent.packet));
                }
            }
        }
        edge.change(&delta(&at_ce1(&[UP], &[CE1_DOWN[0], DOWN]), &[UP.outbound()], &[CE1_UP[0]]));
        edge.run(&turns, WAN);
        in_order(edge.sent.iter().map(Packet::data), 24)?;
    }

    #[test]
    fn flows_into_esp_stay_in_order(workers in 1_usize..4, turns in turns()) {
        let (state, mut net) = net();
        let mut edge = Turns::new(&state, workers);
        for number in 0..24 {
            for flow in 0..FLOWS {
                let frame = packet(CLIENT, SERVER, flow, number);
                edge.queues[usize::from(flow) % workers].push_back(Packet::from_frame(&frame));
            }
        }
        edge.change(&delta(&at_ce1(&[UP], &[CE1_DOWN[0], DOWN]), &[UP.outbound()], &[CE1_UP[0]]));
        edge.run(&turns, LAN);
        let mut arrived = Vec::new();
        for sealed in &edge.sent {
            for passed in net.re.receive(WAN, sealed.data()) {
                arrived.extend(net.ce2.receive(WAN, passed.packet.data()));
            }
        }
        in_order(arrived.iter().map(|sent| sent.packet.data()), 24)?;
    }
}
