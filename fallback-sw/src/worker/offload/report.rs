//! What the engine tells: where flows run, and what the NIC has counted, which becomes part of all counters as if software had
//! done it.

use offload_rules::{
    DropReason, VifId,
    flow::{Prepended, TunnelHeader, tcp::TcpPhase},
    lower::{Direction, NotOffloaded},
};

use crate::{
    esp,
    worker::{
        Outbox, Worker,
        counters::{Counters, Traffic},
        env::Env,
        flag,
        flow_state::FlowState,
    },
};
use offload_engine::protocol::{Report, Tier};

/// Octets of an Ethernet header without tags, and of a tag.
const ETHERNET: u64 = 14;
const TAG: u64 = 4;

impl Worker {
    /// Takes in what the engine tells.
    pub fn offload_reports(&mut self, reports: &[Report], now: u64, out: &mut Outbox) {
        self.env.advance_clock(now);
        let Self { env, state, ipsec, counters, .. } = self;
        for report in reports {
            match *report {
                Report::State { id, tier, reason } => {
                    if let Some(index) = state.offloads.find(id) {
                        state.runs_in(env, index, tier, reason);
                    }
                }
                Report::Marked { id, directions } => {
                    if let Some(entry) = state.offloads.find(id).and_then(|index| state.offloads.get_mut(index)) {
                        entry.marked = directions;
                    }
                }
                Report::Counted { id, direction, packets, bytes, last_hit } => {
                    if let Some(index) = state.offloads.find(id) {
                        let direction = state.counted(index, direction.into(), Traffic { packets, bytes }, last_hit);
                        if let Some(direction) = direction {
                            count_as_software(env, counters, &direction, Traffic { packets, bytes });
                        }
                    }
                }
                Report::Transit { ref direction, packets, bytes, .. } => {
                    count_as_software(env, counters, direction, Traffic { packets, bytes });
                }
                Report::Gone { id } => {
                    if let Some(index) = state.offloads.find(id) {
                        state.gone(index);
                    }
                }
                Report::SaCounted { .. } | Report::SaLeave { .. } => ipsec.report(report, env, &mut out.events),
                Report::SaHeld { .. } | Report::SaGone { .. } => {
                    ipsec.report(report, env, &mut out.events);
                    // What flows of tunnels may have in the NIC has changed.
                    state.offloads.sweep_all();
                }
                Report::Tunnel { vif, sealed, .. } => {
                    state.offloads.set_sealed_by_nic(vif, sealed);
                    state.offloads.sweep_all();
                }
            }
        }
        self.finish(out);
    }

    /// The engine has been started anew, and nothing is in hardware: what shall be there is asked for again, under new ids.
    pub fn offload_restarted(&mut self) {
        self.ipsec.lost(self.env.clock);
        let state = &mut self.state;
        state.offloads.forget_tunnels();
        state.offloads.sweep_all();
        for index in 0..state.offloads.len() {
            if state.offloads.get(index).is_some_and(|entry| entry.installs > 0 || entry.closing) {
                state.gone(index);
            }
        }
    }
}

impl FlowState {
    fn runs_in(&mut self, env: &Env, index: u32, tier: Tier, reason: Option<NotOffloaded>) {
        let on = self.offloads.on;
        let Some(entry) = self.offloads.get_mut(index) else { return };
        let was = std::mem::replace(&mut entry.tier, tier);
        if matches!(tier, Tier::Hardware | Tier::Partial) {
            entry.active.clone_from(&entry.asked);
            entry.watch = super::slab::Watch { since: env.clock, ..super::slab::Watch::default() };
        }
        if entry.closing || entry.orphan {
            return;
        }
        entry.reason = reason;
        let slot = entry.slot;
        if reason == Some(NotOffloaded::Off) && on {
            // Switched on again before this has come.
            self.offloads.call(index);
        }
        if tier == Tier::Hardware {
            self.watch(slot);
        }
        if tier == Tier::Hardware || was == Tier::Hardware {
            // Segments pass, or have passed, where they are not seen.
            self.forget_sequence(slot);
        }
    }

    /// The rules are gone: so is the entry, unless the flow may be asked for again.
    fn gone(&mut self, index: u32) {
        let Some(entry) = self.offloads.get(index) else { return };
        let (slot, orphan, was) = (entry.slot, entry.orphan, entry.tier);
        if orphan {
            return self.offloads.remove(index);
        }
        let Some(record) = self.flows.record(slot) else { return self.offloads.remove(index) };
        if self.phase(record).is_none_or(|phase| phase == TcpPhase::Established) {
            if was == Tier::Hardware {
                self.forget_sequence(slot);
            }
            self.offloads.renew(index);
            return self.offloads.call(index);
        }
        // A TCP connection that closes: what the NIC has carried of it is told as long as the flow is there.
        let back = record.reverse;
        for slot in [slot, back] {
            if let Some(record) = self.flows.record_mut(slot) {
                record.flags &= !flag::SAMPLE;
            }
        }
        self.offloads.renew(index);
        if let Some(entry) = self.offloads.get_mut(index) {
            entry.arrivals = [None; 2];
            entry.reason = Some(NotOffloaded::NotEstablished);
        }
    }

    /// Counts packets of a direction that the NIC has handled. The direction, when all other counters are to have them, too.
    fn counted(&mut self, index: u32, at: usize, count: Traffic, last_hit: u64) -> Option<Direction> {
        let entry = self.offloads.get_mut(index)?;
        if count.packets > 0
            && let Some(counted) = entry.watch.counted.get_mut(at)
        {
            *counted = true;
        }
        let (slot, orphan) = (entry.slot, entry.orphan);
        // What is marked comes to software, and is counted there.
        let counts = entry.tier != Tier::Partial;
        if counts && let Some(total) = entry.total.get_mut(at) {
            total.add(count);
        }
        let known = entry.active.as_ref().or(entry.asked.as_ref());
        let direction = known.and_then(|directions| directions.get(at)).and_then(Option::as_ref);
        let has_rules = direction.is_some();
        let direction = direction.filter(|_| counts).cloned();
        let slot = if at == 0 { Some(slot) } else { self.flows.record(slot).map(|record| record.reverse) };
        let record = slot.filter(|_| !orphan).and_then(|slot| self.flows.record_mut(slot));
        let Some(record) = record else { return direction };
        if counts {
            record.packets += count.packets;
            record.bytes += count.bytes;
        }
        if count.packets > 0 {
            let later = (last_hit as u32).wrapping_sub(record.last_seen).cast_signed() > 0;
            if later {
                record.last_seen = last_hit as u32;
            }
            if has_rules {
                record.flags &= !flag::SAMPLE;
            }
        }
        direction
    }
}

/// Counts packets of a direction as software would have done.
fn count_as_software(env: &Env, counters: &mut Counters, direction: &Direction, count: Traffic) {
    let Direction { arrival, program, key, .. } = direction;
    let Traffic { packets, bytes } = count;
    let udp = |tunnel: VifId| {
        env.snapshot.vif(tunnel).and_then(|vif| vif.kind.tunnel()).is_some_and(|tunnel| tunnel.nat_t.is_some())
    };
    let seal = program.forward().and_then(|forward| forward.seal()).map(|header| header.vif);
    let (opened_udp, sealed_udp) = (udp(arrival.vif), seal.is_some_and(udp));
    counters.tier(key.vrf).hardware.add(count);
    for (vrf, what) in &program.passes {
        counters.pass(*vrf, *what, packets);
    }
    // A rule counts what has been opened: before, it was larger.
    let on_wire = match arrival.sealed_on {
        Some(_) => sealed_octets(count, link_in(direction), opened_udp),
        None => bytes,
    };
    if let Some(port) = counters.port(arrival.port) {
        port.rx_packets += packets;
        port.rx_bytes += on_wire;
    }
    if let Some(link) = arrival.sealed_on.and_then(|link| counters.vif(link)) {
        link.rx_packets += packets;
        link.rx_bytes += on_wire;
    }
    let drops = program.drops().is_some();
    if let Some(vif) = counters.vif(arrival.vif) {
        // A tunnel's packets have no Ethernet header.
        let link = if arrival.sealed_on.is_some() { link_in(direction) } else { 0 };
        vif.rx_packets += packets;
        vif.rx_bytes += bytes.saturating_sub(packets * link);
        vif.drops += if drops { packets } else { 0 };
    }
    if drops {
        return counters.account.drop_in_hardware(packets, DropReason::FlowActionDrop);
    }
    counters.account.forward_in_hardware(packets);
    let sent = bytes.saturating_add(packets * octets_out(direction)).saturating_sub(packets * octets_in(direction));
    let sent = match seal {
        Some(tunnel) => {
            let link = link_out(direction);
            if let Some(vif) = counters.vif(tunnel) {
                vif.tx_packets += packets;
                vif.tx_bytes += sent.saturating_sub(packets * link);
            }
            sealed_octets(Traffic { packets, bytes: sent }, link, sealed_udp)
        }
        None => sent,
    };
    let vif = program.egress().and_then(|vif| counters.vif(vif));
    if let Some(vif) = vif {
        vif.tx_packets += packets;
        vif.tx_bytes += sent;
    }
    if let Some(port) = direction.egress_port.and_then(|port| counters.port(port)) {
        port.tx_packets += packets;
        port.tx_bytes += sent;
    }
}

/// Octets of Ethernet as a packet arrives.
fn link_in(direction: &Direction) -> u64 {
    ETHERNET + direction.arrival.tags.iter().flatten().count() as u64 * TAG
}

/// Octets of Ethernet as it leaves.
fn link_out(direction: &Direction) -> u64 {
    direction.program.forward().map_or(0, |forward| forward.prepended().ethernet.into())
}

/// Octets of the frames that these were in, or will be in, sealed: as if all were of one length.
fn sealed_octets(count: Traffic, link: u64, udp: bool) -> u64 {
    let Some(length) = count.bytes.checked_div(count.packets) else { return 0 };
    let text = (length.saturating_sub(link) + 2).next_multiple_of(4);
    let outer = if udp { 28 } else { 20 };
    count.packets * (link + outer + (esp::HEADER_LEN + esp::IV_LEN + esp::ICV_LEN) as u64 + text)
}

/// Octets before the (inner) IP packet as it arrives.
fn octets_in(direction: &Direction) -> u64 {
    let tunnel = if direction.arrival.tunnel.is_some() { u64::from(TunnelHeader::OVERHEAD) } else { 0 };
    link_in(direction) + tunnel
}

/// Octets before the (inner) IP packet as it leaves.
fn octets_out(direction: &Direction) -> u64 {
    direction.program.forward().map_or(0, |forward| {
        let Prepended { ethernet, tunnel } = forward.prepended();
        u64::from(ethernet) + u64::from(tunnel)
    })
}
