//! The SAs of one worker, and the tunnels of the node.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    net::Ipv4Addr,
    sync::Arc,
};

use offload_rules::{
    DropReason, SaId, VifId, VrfId,
    forwarding::{IpsecTunnel, NatT, Sa},
};

use super::{
    history::{QuotableSa, RetiredSa, Spans},
    inbound::Inbound,
    nic_state::{NicOffers, NicState},
    outbound::Outbound,
    sa::{Grant, Refused, SaNews, SaStatus, Usage},
};
use crate::{
    esp::{self, InboundConfig, InboundSa, Key, OutboundConfig, OutboundSa},
    packet::{Packet, checksum},
    worker::{
        env::Env,
        event::Event,
        ingress::EspFrame,
        outcome::{Emit, OwnPath},
    },
};

/// Milliseconds between two looks at lifetimes in seconds and at keepalives.
const LOOK_MS: u64 = 1000;

/// The SA that seals what goes into a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum SealedBy {
    /// One of this worker: its place.
    This(usize),
    /// One of another worker.
    Other(usize),
    /// No SA is usable.
    None(DropReason),
}

/// A tunnel of the node.
pub(super) struct Tunnel {
    pub(super) vif: VifId,
    pub(super) ipsec: IpsecTunnel,
    sealed_by: SealedBy,
    /// When this worker sent something last; `None`: never, so that no NAT on the way knows of the tunnel.
    sent: Option<u64>,
    /// SAs of any worker that its packets may be quoted with.
    pub(super) used: Vec<QuotableSa>,
}

impl Tunnel {
    /// Does it send with this worker's SA at that place?
    pub(super) fn sends_with(&self, place: usize) -> bool {
        self.sealed_by == SealedBy::This(place)
    }
}

/// IPsec state of one worker.
pub(in crate::worker) struct Ipsec {
    pub(super) outbound: Vec<Outbound>,
    pub(super) inbound: HashMap<u32, Inbound, BuildHasherDefault<SpiHasher>>,
    /// Not named by a tunnel at the moment. Their windows are kept: they may be again.
    pub(super) inactive: Vec<Inbound>,
    pub(super) tunnels: Vec<Tunnel>,
    pub(super) offers: NicOffers,
    /// SAs of this worker that are gone.
    pub(super) retired: Vec<RetiredSa>,
    pub(super) spans: Spans,
    /// By vif: place of its tunnel and one; 0: none.
    by_vif: Vec<u32>,
    /// Outsides of tunnels, VRF, source and destination, with their places; in order.
    pub(super) outsides: Vec<((VrfId, Ipv4Addr, Ipv4Addr), usize)>,
    /// Granted sequence numbers of SAs that are not in force yet.
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
fn opener(spi: u32, env: &Env) -> usize {
    usize::from(crate::esp::opener_octet(spi)) % env.workers()
}

/// The worker that opens an ESP packet, when it is another one.
#[inline]
pub(in crate::worker) fn other_opener(env: &Env, frame: &[u8], esp: EspFrame) -> Option<usize> {
    let owner = opener(spi(frame.get(usize::from(esp.at)..)?)?, env);
    (owner != env.config.id).then_some(owner)
}

#[inline]
pub(super) fn spi(esp: &[u8]) -> Option<u32> {
    esp.first_chunk().map(|octets| u32::from_be_bytes(*octets))
}

pub(super) fn sealer(sa: &Sa, env: &Env) -> usize {
    sa.worker as usize % env.workers()
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
            inactive: Vec::new(),
            tunnels: Vec::new(),
            offers: NicOffers::new(worker as u16, nic),
            retired: Vec::new(),
            spans: Spans::default(),
            by_vif: Vec::new(),
            outsides: Vec::new(),
            grants: HashMap::new(),
            next_look: 0,
        }
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

    /// The SA that seals what goes into a tunnel now.
    #[inline]
    pub(super) fn sealed_by(&self, vif: VifId) -> SealedBy {
        let tunnel = self.tunnel_place(vif).and_then(|place| self.tunnels.get(place));
        tunnel.map_or(SealedBy::None(DropReason::NoSa), |tunnel| tunnel.sealed_by)
    }

    /// Notes that a packet was sent into a tunnel, so that no keepalive is due.
    #[inline]
    pub(super) fn sent(&mut self, vif: VifId, now: u64) {
        if let Some(tunnel) = self.tunnel_place(vif).and_then(|place| self.tunnels.get_mut(place)) {
            tunnel.sent = Some(now);
        }
    }

    /// Brings SAs and tunnels in line with a snapshot. What has not changed keeps its numbers and its window.
    pub(in crate::worker) fn adopt(&mut self, env: &Env) {
        let (snapshot, id, now) = (&env.snapshot, env.config.id, env.clock);
        let mut outbound: HashMap<SaId, Outbound> = self.outbound.drain(..).map(|sa| (sa.usage.sa.id, sa)).collect();
        let known = self.inbound.drain().map(|(_, sa)| sa).chain(self.inactive.drain(..));
        let mut inbound: HashMap<SaId, Inbound> = known.map(|sa| (sa.usage.sa.id, sa)).collect();
        let mut before: HashMap<VifId, Tunnel> = self.tunnels.drain(..).map(|tunnel| (tunnel.vif, tunnel)).collect();
        self.by_vif.clear();
        self.outsides.clear();
        for vif in snapshot.vifs() {
            let Some(ipsec) = vif.kind.tunnel() else { continue };
            for sa in ipsec.outbound.iter().filter_map(|sa| snapshot.sa(*sa)).filter(|sa| sealer(sa, env) == id) {
                let known = outbound.remove(&sa.id);
                if let Some(other) = known.as_ref().filter(|known| *known.usage.sa != **sa) {
                    self.remember(other, now);
                }
                let kept = known.and_then(|known| keep(&mut self.offers, known, |known| *known.usage.sa == **sa));
                let Some(mut made) = kept.or_else(|| self.new_outbound(sa, vif.id, ipsec, now)) else { continue };
                made.sa.set_tunnel(outside(ipsec));
                made.vif = vif.id;
                if snapshot.why_sa_ended(sa.id) == Some(DropReason::SaRefused) {
                    made.usage.ended = Some(DropReason::SaRefused);
                }
                self.outbound.push(made);
            }
            for sa in ipsec.inbound.iter().filter_map(|sa| snapshot.sa(*sa)).filter(|sa| opener(sa.spi, env) == id) {
                let known = inbound.remove(&sa.id);
                let kept = known.and_then(|known| keep(&mut self.offers, known, |known| *known.usage.sa == **sa));
                let Some(mut made) = kept.or_else(|| new_inbound(sa, vif.id, ipsec, now)) else { continue };
                (made.vif, made.end) = (vif.id, (ipsec.vrf, ipsec.source));
                self.inbound.insert(sa.spi, made);
            }
            let before = before.remove(&vif.id);
            let sent = before.as_ref().and_then(|tunnel| tunnel.sent);
            let sealed_by = SealedBy::None(DropReason::NoSa);
            let used = before.as_ref().map_or(&[][..], |tunnel| &tunnel.used);
            let used = Self::quotable(env, ipsec, used);
            let tunnel = Tunnel { vif: vif.id, ipsec: ipsec.clone(), sealed_by, sent, used };
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
        outbound.values_mut().for_each(|sa| self.offers.give_back(&mut sa.nic, false));
        inbound.values_mut().for_each(|sa| self.offers.give_back(&mut sa.nic, false));
        // Numbers and windows go with the SA, not with the tunnel: none may begin anew.
        let stays = |sa: &Arc<Sa>| snapshot.sa(sa.id).is_some_and(|now| now == sa);
        for sa in outbound.into_values() {
            if stays(&sa.usage.sa) {
                self.outbound.push(sa);
            } else {
                self.remember(&sa, now);
            }
        }
        self.inactive.extend(inbound.into_values().filter(|sa| stays(&sa.usage.sa)));
        self.outsides.sort_unstable();
        self.grants.retain(|id, grant| snapshot.sa(*id).is_some_and(|sa| *sa == grant.sa));
        self.choose_all(env);
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
    pub(super) fn choose_all(&mut self, env: &Env) {
        let snapshot = &env.snapshot;
        for tunnel in &mut self.tunnels {
            let mut sealed_by = SealedBy::None(DropReason::NoSa);
            for id in &tunnel.ipsec.outbound {
                match self.outbound.iter().position(|sa| sa.usage.sa.id == *id) {
                    Some(place) => match self.outbound.get(place).and_then(|sa| sa.usage.ended) {
                        None => {
                            sealed_by = SealedBy::This(place);
                            break;
                        }
                        Some(reason) if sealed_by == SealedBy::None(DropReason::NoSa) => {
                            sealed_by = SealedBy::None(reason)
                        }
                        Some(_) => {}
                    },
                    None if !matches!(sealed_by, SealedBy::Other(_)) && snapshot.is_sa_usable(*id) => {
                        if let Some(sa) = snapshot.sa(*id) {
                            sealed_by = SealedBy::Other(sealer(sa, env));
                        }
                    }
                    None => {}
                }
            }
            tunnel.sealed_by = sealed_by;
        }
        // What was sealed with before, the NIC must not go on to seal with: the peer may let go of it.
        for (place, sa) in self.outbound.iter_mut().enumerate() {
            if !self.tunnels.iter().any(|tunnel| tunnel.sends_with(place)) {
                self.offers.give_back(&mut sa.nic, false);
            }
        }
        // What has never sent has a keepalive to send, now.
        if self.tunnels.iter().any(|tunnel| tunnel.sent.is_none() && matches!(tunnel.sealed_by, SealedBy::This(_))) {
            self.next_look = 0;
        }
    }

    pub(in crate::worker) fn grant(&mut self, grants: &[Grant], env: &Env) {
        let id = env.config.id;
        for grant in grants.iter().filter(|grant| sealer(&grant.sa, env) == id) {
            match self.outbound.iter_mut().find(|sa| *sa.usage.sa == *grant.sa) {
                Some(sa) => sa.grant(grant),
                None => _ = self.grants.insert(grant.sa.id, grant.clone()),
            }
        }
        self.offer(env.clock);
    }

    /// Checks lifetimes in seconds, and sends the keepalives that are due.
    pub(in crate::worker) fn tick(&mut self, env: &Env, emit: &mut Emit<'_>) {
        let mut news = Vec::new();
        let keepalives = self.look(env.clock, &mut news);
        for (sa, news) in news {
            self.tell(sa, news, env, emit.events);
        }
        self.offer(env.clock);
        for (vrf, keepalive) in keepalives {
            emit.originate(Packet::from_frame(&keepalive), OwnPath::Route(vrf));
        }
    }

    /// Tells the node of an SA; never left out, each is told once.
    pub(super) fn tell(&mut self, sa: SaId, news: SaNews, env: &Env, events: &mut Vec<Event>) {
        if matches!(news, SaNews::Ended(_)) {
            self.end_in_nic(sa);
            self.offer(env.clock);
            self.choose_all(env);
        }
        events.push(Event::Sa { sa, news });
    }

    /// Lifetimes in seconds, and the keepalives that are due, each with the VRF that it is routed in.
    fn look(&mut self, now: u64, news: &mut Vec<(SaId, SaNews)>) -> Vec<(VrfId, [u8; 29])> {
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
            if matches!(tunnel.sealed_by, SealedBy::This(_)) && idle {
                tunnel.sent = Some(now);
                due.push((tunnel.ipsec.vrf, keepalive(&tunnel.ipsec, nat_t)));
            }
        }
        due
    }

    pub(in crate::worker) fn statuses(&self, now: u64) -> Vec<SaStatus> {
        let active = |place| self.tunnels.iter().any(|tunnel| tunnel.sends_with(place));
        let outbound = self.outbound.iter().enumerate().map(|(place, sa)| sa.status(active(place), now));
        outbound.chain(self.inbound.values().map(|sa| sa.status(now))).collect()
    }
}

/// An SA that is the one that the state names; another one goes, and the NIC lets go of it.
fn keep<T: InNic>(offers: &mut NicOffers, mut known: T, same: impl FnOnce(&T) -> bool) -> Option<T> {
    if same(&known) {
        return Some(known);
    }
    offers.give_back(known.nic_mut(), false);
    None
}

/// An SA that a NIC may hold.
trait InNic {
    fn nic_mut(&mut self) -> &mut NicState;
}

impl InNic for Outbound {
    fn nic_mut(&mut self) -> &mut NicState {
        &mut self.nic
    }
}

impl InNic for Inbound {
    fn nic_mut(&mut self) -> &mut NicState {
        &mut self.nic
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
        nic: NicState::default(),
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
