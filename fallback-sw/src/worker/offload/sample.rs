//! How the packets of a flow arrive, read from one of them.

use std::net::Ipv4Addr;

use offload_rules::{
    Label,
    forwarding::VlanTag,
    lower::{Arrival, NotOffloaded, TunnelArrival},
};

use super::{Offloads, slab::Entry};
use crate::{
    flow_table::FlowTable,
    packet::parse,
    worker::{context::Context, env::Env, flag},
};
use offload_engine::protocol::{Request, Tier};

/// Milliseconds after the rules were there before packets in software count as evidence: some are still on their way.
const GRACE_MS: u64 = 2000;
/// Packets in software that tell that a rule does not work, or that the flow's packets arrive otherwise now.
const EVIDENCE: u32 = 64;
/// Milliseconds before a NIC that does not honour a flow's rules is asked again.
const REST_MS: u64 = 60_000;

impl Offloads {
    /// Sees an ordinary packet of a flow that carries [`flag::SAMPLE`], as it was received.
    #[cold]
    #[inline(never)]
    pub(in crate::worker) fn sample(
        &mut self,
        flows: &mut FlowTable,
        env: &Env,
        slot: u32,
        context: &Context,
        frame: &[u8],
    ) {
        let (snapshot, now) = (&env.snapshot, env.clock);
        if snapshot.vif(context.port).is_none_or(|port| !port.has_ethernet()) {
            if snapshot.vif(context.port).is_some_and(|port| port.kind.tunnel().is_some()) {
                // Opened in software. When the NIC does it, the flow is looked at again.
                self.entry_of(flows, slot);
            }
            return stop(flows, slot);
        }
        let Some(arrival) = arrival(frame, context) else { return };
        let Some(index) = self.entry_of(flows, slot) else { return stop(flows, slot) };
        self.arrives(&arrival);
        let Some(record) = flows.record_mut(slot) else { return };
        let direction = usize::from(record.flags & flag::INITIATOR == 0);
        let Some(entry) = self.get_mut(index) else { return };
        let known = entry.arrivals.get(direction).copied().flatten();
        if known.is_none() {
            record.flags &= !flag::SAMPLE;
            take(entry, direction, arrival);
            return self.call(index);
        }
        if entry.tier != Tier::Hardware || entry.closing {
            record.flags &= !flag::SAMPLE;
            return;
        }
        if now < entry.watch.since.saturating_add(GRACE_MS) {
            return;
        }
        let marks_congestion = context.outer.is_some_and(|outer| outer.tos & 1 != 0);
        if known == Some(arrival) && !marks_congestion {
            if count(&mut entry.watch.missed, direction) >= EVIDENCE {
                record.flags &= !flag::SAMPLE;
                entry.reason = Some(NotOffloaded::NotHonoured);
                entry.rest_until = now + REST_MS;
                if let Some(id) = self.id(index) {
                    self.requests.push(Request::NotHonoured { id });
                    self.close(index);
                }
            }
        } else if known != Some(arrival) && count(&mut entry.watch.strange, direction) >= EVIDENCE {
            // The way to us has changed: TTL, priority, DSCP.
            record.flags &= !flag::SAMPLE;
            take(entry, direction, arrival);
            self.call(index);
        }
    }

    /// The entry of the flow in this slot, made if need be.
    fn entry_of(&mut self, flows: &mut FlowTable, slot: u32) -> Option<u32> {
        let record = flows.record(slot)?;
        if record.flags & flag::OFFLOAD != 0 {
            return Some(flows.binding(slot).offload);
        }
        let back = record.reverse;
        let first = if record.flags & flag::INITIATOR != 0 { slot } else { back };
        let index = self.add(first)?;
        for slot in [slot, back] {
            if let Some(record) = flows.record_mut(slot) {
                record.flags |= flag::OFFLOAD;
                if let Some(binding) = flows.binding_mut(slot) {
                    binding.offload = index;
                }
            }
        }
        Some(index)
    }
}

fn stop(flows: &mut FlowTable, slot: u32) {
    if let Some(record) = flows.record_mut(slot) {
        record.flags &= !flag::SAMPLE;
    }
}

fn take(entry: &mut Entry, direction: usize, arrival: Arrival) {
    if let Some(place) = entry.arrivals.get_mut(direction) {
        *place = Some(arrival);
    }
}

fn count(counts: &mut [u32; 2], direction: usize) -> u32 {
    counts.get_mut(direction).map_or(0, |count| {
        *count = count.saturating_add(1);
        *count
    })
}

/// How a frame arrives; `None` for what no rule matches: options, extension headers.
fn arrival(frame: &[u8], context: &Context) -> Option<Arrival> {
    let ip = &context.ip;
    if !is_plain(ip.version, ip.header_len) {
        return None;
    }
    let ethernet = parse::ethernet(frame).ok()?;
    let tag = |i: u8| {
        let at = usize::from(i);
        let (tpid, tci) = (ethernet.tpid.get(at)?, ethernet.tci.get(at)?);
        (i < ethernet.tags).then_some(VlanTag { tpid: *tpid, vid: tci & 0x0fff })
    };
    let tunnel = match context.outer {
        Some(_) => Some(tunnel(frame.get(ethernet.len..)?)?),
        None => None,
    };
    Some(Arrival {
        port: context.port,
        vif: context.vif,
        sealed_on: context.sealed_on,
        eth_dst: ethernet.dst,
        tags: [tag(0), tag(1)],
        pcp_dei: (ethernet.tci[0] >> 12) as u8,
        tunnel,
        tos: ip.tos,
        ttl: ip.ttl,
    })
}

/// No options, no extension headers.
fn is_plain(version: u8, header_len: u16) -> bool {
    matches!((version, header_len), (4, 20) | (6, 40))
}

/// The outside of a packet that the worker has taken out of a tunnel.
fn tunnel(l3: &[u8]) -> Option<TunnelArrival> {
    let outer = parse::ip(l3, 4).ok().filter(|outer| is_plain(4, outer.header_len))?;
    let ([a, b, c, d, ..], [e, f, g, h, ..]) = (outer.src, outer.dst);
    // With a checksum, which nobody has to send (RFC 7510 §3.1), it is for software to check.
    if l3.get(26..28)? != [0, 0] {
        return None;
    }
    let word = l3.get(28..32)?.first_chunk::<4>().map(|word| u32::from_be_bytes(*word))?;
    Some(TunnelArrival {
        source: Ipv4Addr::new(a, b, c, d),
        destination: Ipv4Addr::new(e, f, g, h),
        udp_port: outer.dport,
        label: Label::new(word >> 12).ok()?,
        label_ttl: (word & 0xff) as u8,
    })
}
