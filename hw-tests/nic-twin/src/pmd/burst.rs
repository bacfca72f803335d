//! Bursts: wire to host, with the NIC in between, and host to wire.

use std::{ffi::c_void, sync::atomic::Ordering};

use super::{
    ethdev::Queue,
    ffi, flow,
    mbuf::{Packet, session_of},
    security,
    twin::{self, Twin},
};
use crate::model::{Delivery, Outcome};

/// Polls one queue: what the NIC left for the host.
pub(super) unsafe extern "C" fn receive(queue: *mut c_void, into: *mut *mut ffi::rte_mbuf, room: u16) -> u16 {
    // SAFETY: a queue that the setup function put there, or null after it was released.
    let Some(queue) = (unsafe { queue.cast::<Queue>().as_ref() }) else { return 0 };
    let room = usize::from(room);
    let mut ready = Vec::with_capacity(room);
    queue.twin.take(queue.number, &mut ready, room);
    if ready.len() < room {
        let mut arrived = Vec::new();
        let _turn = queue.twin.poll(queue.number, &mut arrived, room - ready.len());
        refuse_oversize(&queue.twin, &mut arrived);
        if !arrived.is_empty() {
            work(queue, arrived, &mut ready);
            security::tell_expiries(queue.twin.port);
        }
    }
    let mut bytes = 0;
    let count = ready.len();
    for (at, packet) in ready.into_iter().enumerate() {
        bytes += u64::from(packet.len());
        // SAFETY: no more than `room` packets were taken, and there is room for them.
        unsafe { *into.add(at) = packet.into_raw() };
    }
    queue.twin.counters.host_packets.fetch_add(count as u64, Ordering::Relaxed);
    queue.twin.counters.host_bytes.fetch_add(bytes, Ordering::Relaxed);
    count as u16
}

/// What is larger than the port takes never comes to a rule.
fn refuse_oversize(twin: &Twin, arrived: &mut Vec<Packet>) {
    if arrived.is_empty() {
        return;
    }
    let tag_room = if flow::with_nic(|nic| nic.profile().ranges).unwrap_or(false) { 8 } else { 0 };
    let count = arrived.len();
    arrived.retain_mut(|packet| packet.bytes().is_none_or(|frame| !twin.is_oversize(frame, tag_room)));
    twin.counters.oversize.fetch_add((count - arrived.len()) as u64, Ordering::Relaxed);
}

/// Runs what arrived through the NIC, and spreads it.
fn work(queue: &Queue, arrived: Vec<Packet>, ready: &mut Vec<Packet>) {
    let twin = &queue.twin;
    let mut wires = Wires::default();
    for (packet, outcome) in flow::judge(twin.port, arrived) {
        match outcome {
            Outcome::Drop(_) => {
                twin.counters.dropped.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Forward { port } => wires.add(port, packet),
            Outcome::ToSoftware(delivery) if delivery.port == twin.port => {
                // Where the lower port has as many queues, it has spread already.
                let below = !delivery.steered && twin.receive_queues() == twin.lower_receive();
                let number = if below { queue.number } else { delivery.queue };
                if number == queue.number { ready.push(packet) } else { twin.leave(number, packet) }
            }
            Outcome::ToSoftware(delivery) => to_host(twin, delivery, packet),
        }
    }
    for (port, packets) in wires.0 {
        twin.counters.forwarded.fetch_add(packets.len() as u64, Ordering::Relaxed);
        to_wire(twin, queue.number, port, packets);
    }
}

/// Packets by the port whose wire they leave by.
#[derive(Default)]
struct Wires(Vec<(u16, Vec<Packet>)>);

impl Wires {
    fn add(&mut self, port: u16, packet: Packet) {
        match self.0.iter_mut().find(|(known, _)| *known == port) {
            Some((_, packets)) => packets.push(packet),
            None => self.0.push((port, vec![packet])),
        }
    }
}

/// To the host by another port.
fn to_host(from: &Twin, delivery: Delivery, packet: Packet) {
    match twin::find(delivery.port) {
        Some(other) => other.leave(delivery.queue, packet),
        None => {
            from.counters.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn to_wire(from: &Twin, queue: u16, port: u16, packets: Vec<Packet>) {
    match twin::find(port) {
        Some(egress) => egress.send(queue, packets),
        None => {
            from.counters.refused.fetch_add(packets.len() as u64, Ordering::Relaxed);
        }
    }
}

/// Sends what the host gives, after the NIC's egress and transfer rules.
pub(super) unsafe extern "C" fn transmit(queue: *mut c_void, packets: *mut *mut ffi::rte_mbuf, count: u16) -> u16 {
    // SAFETY: a queue that the setup function put there, or null after it was released.
    let Some(queue) = (unsafe { queue.cast::<Queue>().as_ref() }) else { return 0 };
    let twin = &queue.twin;
    if packets.is_null() || twin.lower_transmit() == 0 {
        return 0;
    }
    // SAFETY: the host's array of `count` packets.
    let packets = unsafe { std::slice::from_raw_parts_mut(packets, usize::from(count)) };
    let octets = |raw: &*mut ffi::rte_mbuf| {
        // SAFETY: a valid mbuf of the host's.
        u64::from(unsafe { ffi::twin_mbuf_length(*raw) })
    };
    let lengths: Vec<u64> = packets.iter().map(octets).collect();
    let to_seal = |raw: &*mut ffi::rte_mbuf| {
        // SAFETY: a valid mbuf of the host's.
        unsafe { session_of(*raw) }.is_some()
    };
    let sent = if flow::host_sends_untouched(twin.port) && !packets.iter().any(to_seal) {
        twin.send_raw(queue.number, packets)
    } else {
        // SAFETY: the host gives its packets away: all of them are taken.
        let owned = packets.iter().filter_map(|raw| unsafe { Packet::from_raw(*raw) }).collect();
        through_rules(queue, owned);
        security::tell_expiries(twin.port);
        count
    };
    twin.counters.sent_packets.fetch_add(u64::from(sent), Ordering::Relaxed);
    twin.counters.sent_bytes.fetch_add(lengths.iter().take(usize::from(sent)).sum(), Ordering::Relaxed);
    sent
}

fn through_rules(queue: &Queue, packets: Vec<Packet>) {
    let twin = &queue.twin;
    let mut wires = Wires::default();
    for (packet, outcome) in flow::judge_sent(twin.port, packets) {
        match outcome {
            Outcome::Drop(_) => {
                twin.counters.dropped.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Forward { port } => wires.add(port, packet),
            Outcome::ToSoftware(delivery) => to_host(twin, delivery, packet),
        }
    }
    for (port, packets) in wires.0 {
        to_wire(twin, queue.number, port, packets);
    }
}
