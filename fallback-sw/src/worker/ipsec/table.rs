//! The SAs of one worker, and the tunnels of the node.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    net::Ipv4Addr,
    sync::Arc,
};

use offload_rules::{
    DropReason, SaId, VifId, VrfId,
    forwarding::{IpsecTunnel, NatT, Sa, Snapshot},
};

use super::{
    Grant, LOOK_MS, Refused, SaNews, SaStatus, Usage,
    inbound::Inbound,
    nic::{Desk, Hold},
    outbound::Outbound,
    quoted::{Former, Spans, Used},
};
use crate::{
    esp::{self, InboundConfig, InboundSa, Key, OutboundConfig, OutboundSa},
    packet::checksum,
};

/// With what a tunnel sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum Way {
    /// An SA of this worker: its place.
    Here(usize),
    /// An SA of another worker.
    There(usize),
    /// None that is of use.
    Nowhere(DropReason),
}

/// A tunnel of the node.
pub(super) struct Tunnel {
    pub(super) vif: VifId,
    pub(super) ipsec: IpsecTunnel,
    way: Way,
    /// When this worker sent something last; `None`: never, so that no NAT on the way knows of the tunnel.
    sent: Option<u64>,
    /// What rules of the NIC forward into it is sealed there.
    pub(super) sealed_by_nic: bool,
    /// SAs of any worker that its packets may be quoted with.
    pub(super) used: Vec<Used>,
}

impl Tunnel {
    /// Does it send with this worker's SA at that place?
    pub(super) fn sends_with(&self, place: usize) -> bool {
        self.way == Way::Here(place)
    }
}

/// See the module.
pub(in crate::worker) struct Ipsec {
    pub(super) outbound: Vec<Outbound>,
    pub(super) inbound: HashMap<u32, Inbound, BuildHasherDefault<SpiHasher>>,
    /// Not named by a tunnel at the moment. Their windows are kept: they may be again.
    pub(super) parked: Vec<Inbound>,
    pub(super) tunnels: Vec<Tunnel>,
    pub(super) desk: Desk,
    /// SAs of this worker that are gone.
    pub(super) former: Vec<Former>,
    pub(super) spans: Spans,
    /// By vif: place of its tunnel and one; 0: none.
    by_vif: Vec<u32>,
    /// Outsides of tunnels, VRF, source and destination, with their places; in order.
    pub(super) outsides: Vec<((VrfId, Ipv4Addr, Ipv4Addr), usize)>,
    /// Where tunnels end: VRF and address, in order.
    ends: Vec<(VrfId, Ipv4Addr)>,
    /// Numbers of SAs that have not begun.
    grants: HashMap<SaId, Grant>,
    next_look: u64,
}

/// Indices are this node's choice: nobody outside chooses what collides.
#[derive(Default)]
pub(super) struct SpiHasher(u64);

impl Hasher for SpiHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.write_u32(u32::from(*octet));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

/// The worker that opens packets with this index.
#[inline]
pub(in crate::worker) fn opener(spi: u32, workers: usize) -> usize {
    spi as usize % workers.max(1)
}

pub(super) fn sealer(sa: &Sa, workers: usize) -> usize {
    sa.worker as usize % workers.max(1)
}

const fn outside(ipsec: &IpsecTunnel) -> esp::Tunnel {
    let udp = match ipsec.nat_t {
        Some(NatT { source_port, destination_port, .. }) => Some((source_port, destination_port)),
        None => None,
    };
    esp::Tunnel { source: ipsec.source, destination: ipsec.destination, udp }
}

impl Ipsec {
    /// Without tunnels. `nic`: there is an engine that may be offered SAs.
    pub(in crate::worker) fn new(worker: usize, nic: bool) -> Self {
        Self {
            outbound: Vec::new(),
            inbound: HashMap::default(),
            parked: Vec::new(),
            tunnels: Vec::new(),
            desk: Desk::new(worker as u16, nic),
            former: Vec::new(),
            spans: Spans::default(),
            by_vif: Vec::new(),
            outsides: Vec::new(),
            ends: Vec::new(),
            grants: HashMap::new(),
            next_look: 0,
        }
    }

    /// Does the NIC seal what its rules forward into this tunnel?
    pub(in crate::worker) fn is_sealed_by_nic(&self, vif: VifId) -> bool {
        self.tunnel_place(vif).and_then(|place| self.tunnels.get(place)).is_some_and(|tunnel| tunnel.sealed_by_nic)
    }

    pub(super) fn tunnel_mut(&mut self, vif: VifId) -> Option<&mut Tunnel> {
        let place = self.tunnel_place(vif)?;
        self.tunnels.get_mut(place)
    }

    /// Does a tunnel end at this address?
    #[inline]
    pub(in crate::worker) fn ends_at(&self, vrf: VrfId, address: [u8; 16]) -> bool {
        let [a, b, c, d, ..] = address;
        !self.ends.is_empty() && self.ends.binary_search(&(vrf, Ipv4Addr::new(a, b, c, d))).is_ok()
    }

    #[inline]
    pub(super) fn inbound_mut(&mut self, spi: u32) -> Option<&mut Inbound> {
        self.inbound.get_mut(&spi)
    }

    #[inline]
    pub(super) fn outbound_mut(&mut self, place: usize) -> Option<&mut Outbound> {
        self.outbound.get_mut(place)
    }

    #[inline]
    fn tunnel_place(&self, vif: VifId) -> Option<usize> {
        (*self.by_vif.get(vif.index())? as usize).checked_sub(1)
    }

    /// With what a tunnel sends now.
    #[inline]
    pub(super) fn way(&self, vif: VifId) -> Way {
        let tunnel = self.tunnel_place(vif).and_then(|place| self.tunnels.get(place));
        tunnel.map_or(Way::Nowhere(DropReason::NoSa), |tunnel| tunnel.way)
    }

    /// A packet went into a tunnel.
    #[inline]
    pub(super) fn sent(&mut self, vif: VifId, now: u64) {
        if let Some(tunnel) = self.tunnel_place(vif).and_then(|place| self.tunnels.get_mut(place)) {
            tunnel.sent = Some(now);
        }
    }

    /// Brings SAs and tunnels in line with a snapshot. What has not changed keeps its numbers and its window.
    pub(in crate::worker) fn adopt(&mut self, snapshot: &Snapshot, me: (usize, usize), now: u64) {
        let (id, workers) = me;
        let mut outbound: HashMap<SaId, Outbound> = self.outbound.drain(..).map(|sa| (sa.usage.sa.id, sa)).collect();
        let known = self.inbound.drain().map(|(_, sa)| sa).chain(self.parked.drain(..));
        let mut inbound: HashMap<SaId, Inbound> = known.map(|sa| (sa.usage.sa.id, sa)).collect();
        let mut before: HashMap<VifId, Tunnel> = self.tunnels.drain(..).map(|tunnel| (tunnel.vif, tunnel)).collect();
        self.by_vif.clear();
        self.outsides.clear();
        self.ends.clear();
        for vif in snapshot.vifs() {
            let Some(ipsec) = vif.kind.tunnel() else { continue };
            for sa in ipsec.outbound.iter().filter_map(|sa| snapshot.sa(*sa)).filter(|sa| sealer(sa, workers) == id) {
                let known = outbound.remove(&sa.id);
                if let Some(other) = known.as_ref().filter(|known| *known.usage.sa != **sa) {
                    self.remember(other, now);
                }
                let kept = known.and_then(|known| keep(&mut self.desk, known, |known| *known.usage.sa == **sa));
                let Some(mut made) = kept.or_else(|| self.new_outbound(sa, vif.id, ipsec, now)) else { continue };
                made.sa.set_tunnel(outside(ipsec));
                made.vif = vif.id;
                if snapshot.why_sa_ended(sa.id) == Some(DropReason::SaRefused) {
                    made.usage.ended = Some(DropReason::SaRefused);
                }
                self.outbound.push(made);
            }
            for sa in ipsec.inbound.iter().filter_map(|sa| snapshot.sa(*sa)).filter(|sa| opener(sa.spi, workers) == id)
            {
                let known = inbound.remove(&sa.id);
                let kept = known.and_then(|known| keep(&mut self.desk, known, |known| *known.usage.sa == **sa));
                let Some(mut made) = kept.or_else(|| new_inbound(sa, vif.id, ipsec, now)) else { continue };
                (made.vif, made.end) = (vif.id, (ipsec.vrf, ipsec.source));
                self.inbound.insert(sa.spi, made);
            }
            self.ends.push((ipsec.vrf, ipsec.source));
            let before = before.remove(&vif.id);
            let (sent, sealed_by_nic) =
                before.as_ref().map_or((None, false), |tunnel| (tunnel.sent, tunnel.sealed_by_nic));
            let way = Way::Nowhere(DropReason::NoSa);
            let used = before.as_ref().map_or(&[][..], |tunnel| &tunnel.used);
            let used = Self::used(snapshot, ipsec, used, (workers, now));
            let tunnel = Tunnel { vif: vif.id, ipsec: ipsec.clone(), way, sent, sealed_by_nic, used };
            self.outsides.push(((ipsec.vrf, ipsec.source, ipsec.destination), self.tunnels.len()));
            self.tunnels.push(tunnel);
            if self.by_vif.len() <= vif.id.index() {
                self.by_vif.resize(vif.id.index() + 1, 0);
            }
            if let Some(place) = self.by_vif.get_mut(vif.id.index()) {
                *place = self.tunnels.len() as u32;
            }
        }
        // What no tunnel names the NIC need not hold.
        outbound.values_mut().for_each(|sa| self.desk.give_back(&mut sa.hold, false));
        inbound.values_mut().for_each(|sa| self.desk.give_back(&mut sa.hold, false));
        // Numbers and windows go with the SA, not with the tunnel: none may begin anew.
        let stays = |sa: &Arc<Sa>| snapshot.sa(sa.id).is_some_and(|now| now == sa);
        for sa in outbound.into_values() {
            if stays(&sa.usage.sa) {
                self.outbound.push(sa);
            } else {
                self.remember(&sa, now);
            }
        }
        self.parked.extend(inbound.into_values().filter(|sa| stays(&sa.usage.sa)));
        self.outsides.sort_unstable();
        self.ends.sort_unstable();
        self.ends.dedup();
        self.grants.retain(|id, grant| snapshot.sa(*id).is_some_and(|sa| *sa == grant.sa));
        self.choose_all(snapshot, me);
    }

    /// An SA that begins. Its numbers are taken: should the same SA go and come again, it waits for others.
    fn new_outbound(&mut self, sa: &Arc<Sa>, vif: VifId, ipsec: &IpsecTunnel, now: u64) -> Option<Outbound> {
        // Validation has looked at the length.
        let key = Key::new(sa.key.material()).ok()?;
        let config = OutboundConfig { spi: sa.spi, key, esn: sa.esn, first: sa.first, tunnel: outside(ipsec) };
        let mut made = Outbound::new(Usage::new(Arc::clone(sa), now), OutboundSa::new(&config), vif);
        if let Some(grant) = self.grants.remove(&sa.id).filter(|grant| grant.sa == *sa) {
            made.grant(&grant);
        }
        Some(made)
    }

    /// Chooses anew with which SA each tunnel sends: the first of use that is this worker's, else the first of use.
    pub(super) fn choose_all(&mut self, snapshot: &Snapshot, (_, workers): (usize, usize)) {
        for tunnel in &mut self.tunnels {
            let mut way = Way::Nowhere(DropReason::NoSa);
            for id in &tunnel.ipsec.outbound {
                match self.outbound.iter().position(|sa| sa.usage.sa.id == *id) {
                    Some(place) => match self.outbound.get(place).and_then(|sa| sa.usage.ended) {
                        None => {
                            way = Way::Here(place);
                            break;
                        }
                        Some(reason) if way == Way::Nowhere(DropReason::NoSa) => way = Way::Nowhere(reason),
                        Some(_) => {}
                    },
                    None if !matches!(way, Way::There(_)) && snapshot.is_sa_usable(*id) => {
                        if let Some(sa) = snapshot.sa(*id) {
                            way = Way::There(sealer(sa, workers));
                        }
                    }
                    None => {}
                }
            }
            tunnel.way = way;
        }
        // What was sealed with before, the NIC must not go on to seal with: the peer may let go of it.
        for (place, sa) in self.outbound.iter_mut().enumerate() {
            if !self.tunnels.iter().any(|tunnel| tunnel.sends_with(place)) {
                self.desk.give_back(&mut sa.hold, false);
            }
        }
        // What has never sent has a keepalive to send, now.
        if self.tunnels.iter().any(|tunnel| tunnel.sent.is_none() && matches!(tunnel.way, Way::Here(_))) {
            self.next_look = 0;
        }
    }

    pub(super) fn grant(&mut self, grants: &[Grant], id: usize, workers: usize) {
        for grant in grants.iter().filter(|grant| sealer(&grant.sa, workers) == id) {
            match self.outbound.iter_mut().find(|sa| *sa.usage.sa == *grant.sa) {
                Some(sa) => sa.grant(grant),
                None => _ = self.grants.insert(grant.sa.id, grant.clone()),
            }
        }
    }

    /// What time does: lifetimes in seconds, and the keepalives that are due, each with the VRF that it is routed in.
    pub(super) fn tick(&mut self, now: u64, news: &mut Vec<(SaId, SaNews)>) -> Vec<(VrfId, [u8; 29])> {
        if now < self.next_look {
            return Vec::new();
        }
        self.next_look = now + LOOK_MS;
        self.begin_spans(now);
        for sa in self.outbound.iter_mut().filter(|sa| sa.usage.ended.is_none() && sa.sa.is_exhausted()) {
            news.push((sa.usage.sa.id, sa.usage.end(DropReason::SaExhausted)));
        }
        let usages = self.outbound.iter_mut().map(|sa| &mut sa.usage);
        for usage in usages.chain(self.inbound.values_mut().map(|sa| &mut sa.usage)) {
            if let Some(what) = usage.look(now) {
                news.push((usage.sa.id, what));
            }
        }
        let mut due = Vec::new();
        for tunnel in &mut self.tunnels {
            let Some(nat_t) = tunnel.ipsec.nat_t.filter(|nat_t| nat_t.keepalive_secs > 0) else { continue };
            let pause = u64::from(nat_t.keepalive_secs) * 1000;
            // Of the workers, those keep the binding that send. The first one makes it: what the other end sends by itself would
            // find no way in.
            let idle = tunnel.sent.is_none_or(|sent| now.saturating_sub(sent) >= pause);
            if matches!(tunnel.way, Way::Here(_)) && idle {
                tunnel.sent = Some(now);
                due.push((tunnel.ipsec.vrf, keepalive(&tunnel.ipsec, nat_t)));
            }
        }
        due
    }

    pub(super) fn statuses(&self, now: u64) -> Vec<SaStatus> {
        let active = |place| self.tunnels.iter().any(|tunnel| tunnel.sends_with(place));
        let outbound = self.outbound.iter().enumerate().map(|(place, sa)| sa.status(active(place), now));
        outbound.chain(self.inbound.values().map(|sa| sa.status(now))).collect()
    }
}

/// An SA that is the one that the state names; another one goes, and the NIC lets go of it.
fn keep<T: Held>(desk: &mut Desk, mut known: T, same: impl FnOnce(&T) -> bool) -> Option<T> {
    if same(&known) {
        return Some(known);
    }
    desk.give_back(known.hold_mut(), false);
    None
}

/// What a NIC may hold.
trait Held {
    fn hold_mut(&mut self) -> &mut Hold;
}

impl Held for Outbound {
    fn hold_mut(&mut self) -> &mut Hold {
        &mut self.hold
    }
}

impl Held for Inbound {
    fn hold_mut(&mut self) -> &mut Hold {
        &mut self.hold
    }
}

fn new_inbound(sa: &Arc<Sa>, vif: VifId, ipsec: &IpsecTunnel, now: u64) -> Option<Inbound> {
    // Validation has looked at length and window.
    let key = Key::new(sa.key.material()).ok()?;
    let made = InboundSa::new(&InboundConfig { spi: sa.spi, key, esn: sa.esn, window: sa.window }).ok()?;
    Some(Inbound {
        usage: Usage::new(Arc::clone(sa), now),
        sa: made,
        vif,
        end: (ipsec.vrf, ipsec.source),
        refused: Refused::default(),
        hold: Hold::default(),
    })
}

/// A NAT-keepalive (RFC 3948 §2.3): IPv4, UDP without checksum, one octet.
fn keepalive(ipsec: &IpsecTunnel, nat_t: NatT) -> [u8; 29] {
    let mut packet = [0; 29];
    let ([s0, s1], [d0, d1]) = (nat_t.source_port.to_be_bytes(), nat_t.destination_port.to_be_bytes());
    packet[..10].copy_from_slice(&[0x45, 0, 0, 29, 0, 0, 0x40, 0, 64, 17]);
    packet[12..16].copy_from_slice(&ipsec.source.octets());
    packet[16..20].copy_from_slice(&ipsec.destination.octets());
    let sum = !checksum::sum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[20..].copy_from_slice(&[s0, s1, d0, d1, 0, 9, 0, 0, 0xff]);
    packet
}
