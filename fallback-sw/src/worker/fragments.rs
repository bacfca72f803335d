//! Fragments follow their head: the one that holds the ports.
//!
//! Tracked by {VRF, source, destination, protocol, identification} (RFC 791 §3.2, RFC 8200 §4.5), apart when they came in the clear
//! and out of IPsec, bounded in number, in
//! fragments each, and in time, and shared among tenants: when the table is full, the oldest of the tenant that has most in it gives
//! way, datagrams without a head first, so that a flood of one tenant's costs the others nothing. A fragment that comes before its head is held; one that overlaps another spoils the datagram
//! (RFC 5722 §4; the same for IPv4, RFC 1858 §3), but for an exact duplicate, which is only dropped itself (RFC 8200 §4.5). A
//! datagram that has passed whole is forgotten at once, so that its identification can be used again.

use std::collections::{HashMap, VecDeque};

use offload_rules::{
    DropReason, NexthopId, VifId, VrfId,
    classify::Start,
    forwarding::{Snapshot, is_link_local},
};

use super::{
    context::{Context, Head, Path},
    delivery::Delivery,
    env::Env,
    tenant::Tenant,
};
use crate::{
    packet::parse::{FragmentInfo, Ip},
    shares::{Rank, Shares, Ticket},
};

/// Fragments of one datagram: 65,535 octets in pieces of 576.
const MAX_PIECES: usize = 128;

/// Whose fragment it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DatagramKey {
    vrf: VrfId,
    /// Nexthop of the label that it came with, when that leads to no VRF: two labels are two tenants.
    nexthop: NexthopId,
    /// The link that link-local addresses are of: two links may have the same (RFC 4007 §6).
    link: VifId,
    protection: Protection,
    src: [u8; 16],
    dst: [u8; 16],
    /// 0 for IPv6: a later fragment may name another header (RFC 8200 §4.5).
    proto: u8,
    version: u8,
    id: u32,
}

/// Whether a fragment came out of an IPsec tunnel. One that came in the clear is no part of a datagram that came protected: what is
/// put together of both would pass for protected (RFC 4301 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protection {
    /// In the clear.
    Clear,
    /// Out of an IPsec tunnel.
    Ipsec,
}

impl DatagramKey {
    /// The datagram that a received packet is a fragment of.
    pub(super) fn of_packet(context: &Context, snapshot: &Snapshot) -> Option<Self> {
        let nexthop = match context.path {
            Path::Walk(Start::Nexthop(nexthop)) => nexthop,
            Path::Walk(Start::Route) | Path::Flow | Path::Reassemble | Path::Resume => NexthopId::NONE,
        };
        let is_tunnel = snapshot.vif(context.vif).is_some_and(|vif| vif.kind.tunnel().is_some());
        let protection = if is_tunnel { Protection::Ipsec } else { Protection::Clear };
        Self::of((context.key.vrf, nexthop), (context.vif, protection), &context.ip)
    }

    /// The datagram that a packet, received on a vif, is a fragment of; `None` when it is whole. `nexthop` is that of the label which
    /// the packet came with, or [`NexthopId::NONE`] when it is routed in the VRF.
    #[must_use]
    pub fn of((vrf, nexthop): (VrfId, NexthopId), (vif, protection): (VifId, Protection), ip: &Ip) -> Option<Self> {
        let (FragmentInfo::First { id } | FragmentInfo::Later { id, .. }) = ip.fragment else { return None };
        let proto = if ip.version == 4 { ip.proto } else { 0 };
        let on_link = is_link_local(ip.source()) || is_link_local(ip.destination());
        let link = if on_link { vif } else { VifId::TUNNEL };
        Some(Self { vrf, nexthop, link, protection, src: ip.src, dst: ip.dst, proto, version: ip.version, id })
    }
}

#[derive(Debug)]
struct Datagram {
    head: Option<Head>,
    /// Octets seen, as [begin, end).
    pieces: Vec<(u32, u32)>,
    /// Length of the whole, once the last fragment was seen.
    total: Option<u32>,
    spoilt: bool,
    held: VecDeque<Held>,
    expires: u64,
    /// Who sent the first of it to come, and its place among that tenant's.
    tenant: Tenant,
    ticket: Ticket,
}

/// A fragment that waits.
#[derive(Debug)]
struct Held {
    delivery: Delivery,
    tenant: Tenant,
    ticket: Ticket,
}

/// A fragment, as the tables take it in.
#[derive(Debug, Clone, Copy)]
pub struct Fragment<'a> {
    /// The datagram that it is a fragment of.
    pub datagram: DatagramKey,
    /// As parsed from it.
    pub ip: &'a Ip,
    /// Who has sent it.
    pub tenant: Tenant,
    /// Where it came in.
    pub vif: VifId,
}

impl<'a> Fragment<'a> {
    /// A received fragment of a datagram.
    pub(super) fn of(datagram: DatagramKey, ip: &'a Ip, context: &Context) -> Self {
        Self { datagram, ip, tenant: context.tenant(), vif: context.vif }
    }
}

/// What becomes of a fragment that was taken in.
#[derive(Debug)]
pub enum Tracked {
    /// It may go on with what the head told; after it, those that waited for it.
    Go(Head, Delivery, Vec<Delivery>),
    /// It waits for its head.
    Held,
    /// Drop it, and those that waited with it.
    Drop(DropReason, Delivery, Vec<Delivery>),
}

/// Bounds of the table.
#[derive(Debug, Clone, Copy)]
pub struct FragmentLimits {
    /// Datagrams at once.
    pub datagrams: usize,
    /// Fragments that wait at once.
    pub held: usize,
    /// Milliseconds.
    pub timeout: u64,
}

impl FragmentLimits {
    /// A worker's share of what may be held and tracked of fragments.
    pub(super) fn of(env: &Env) -> Self {
        let (settings, workers) = (env.snapshot.settings(), env.workers());
        Self {
            datagrams: (settings.max_fragmented_datagrams as usize).div_ceil(workers),
            held: (settings.max_held as usize).div_ceil(workers),
            timeout: u64::from(settings.fragment_timeout_secs) * 1000,
        }
    }
}

/// The fragments that one worker tracks.
#[derive(Debug, Default)]
pub struct FragmentTable {
    datagrams: HashMap<DatagramKey, Datagram>,
    /// In order of expiry, which is the order of arrival.
    queue: VecDeque<(u64, DatagramKey)>,
    /// The datagrams; those whose head has come are worth more.
    tracked: Shares<Tenant, DatagramKey>,
    /// The fragments that wait for their heads.
    waiting: Shares<Tenant, DatagramKey>,
}

impl FragmentTable {
    /// Datagrams tracked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// No datagrams tracked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Fragments that wait for their heads.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.waiting.len()
    }

    /// Takes in a fragment, whose packet this is. What gives way to it is added to `lost`.
    pub fn take(
        &mut self,
        Fragment { datagram: key, ip, tenant, .. }: Fragment<'_>,
        packet: Delivery,
        limits: FragmentLimits,
        now: u64,
        lost: &mut Vec<Delivery>,
    ) -> Tracked {
        let (offset, more) = match ip.fragment {
            FragmentInfo::None => (0, false),
            FragmentInfo::First { .. } => (0, true),
            FragmentInfo::Later { offset, more, .. } => (u32::from(offset), more),
        };
        let end = offset + u32::from(ip.payload_len());
        if !self.datagrams.contains_key(&key) {
            self.begin(key, tenant, limits, now, lost);
        }
        let Some(datagram) = self.datagrams.get_mut(&key) else {
            return Tracked::Drop(DropReason::FragmentTableFull, packet, Vec::new());
        };
        if !datagram.spoilt && datagram.pieces.contains(&(offset, end)) {
            return Tracked::Drop(DropReason::FragmentErr, packet, Vec::new());
        }
        if datagram.spoilt || !datagram.admits(offset, end, more, ip) {
            datagram.spoilt = true;
            return Tracked::Drop(DropReason::FragmentErr, packet, self.let_go(key));
        }
        if offset == 0 {
            let head = Head { proto: ip.proto, sport: ip.sport, dport: ip.dport, icmp_type: ip.icmp_type };
            datagram.head = Some(head);
            self.tracked.leave(datagram.tenant, datagram.ticket);
            datagram.ticket = self.tracked.enter(datagram.tenant, Rank::High, key);
        }
        let Some(head) = datagram.head else { return self.hold(key, (offset, end), packet, tenant, limits, lost) };
        datagram.pieces.push((offset, end));
        let is_whole = datagram.is_whole();
        let waiting = self.let_go(key);
        if is_whole {
            self.remove(key);
            self.tidy(limits.datagrams);
        }
        Tracked::Go(head, packet, waiting)
    }

    /// Begins to track a datagram.
    fn begin(&mut self, key: DatagramKey, tenant: Tenant, limits: FragmentLimits, now: u64, lost: &mut Vec<Delivery>) {
        while self.datagrams.len() >= limits.datagrams.max(1) {
            let Some(victim) = self.tracked.victim(tenant) else { return };
            lost.extend(self.let_go(victim.key));
            self.remove(victim.key);
        }
        self.tidy(limits.datagrams);
        let expires = now + limits.timeout;
        let fresh = Datagram {
            head: None,
            pieces: Vec::new(),
            total: None,
            spoilt: false,
            held: VecDeque::new(),
            expires,
            tenant,
            ticket: self.tracked.enter(tenant, Rank::Low, key),
        };
        self.datagrams.insert(key, fresh);
        self.queue.push_back((expires, key));
    }

    /// Holds a fragment whose head has not come. A datagram that loses one that waits is of no use any more.
    fn hold(
        &mut self,
        key: DatagramKey,
        piece: (u32, u32),
        delivery: Delivery,
        tenant: Tenant,
        limits: FragmentLimits,
        lost: &mut Vec<Delivery>,
    ) -> Tracked {
        while self.waiting.len() >= limits.held.max(1)
            && let Some(victim) = self.waiting.victim(tenant)
        {
            lost.extend(self.let_go(victim.key));
            if let Some(datagram) = self.datagrams.get_mut(&victim.key) {
                datagram.spoilt = true;
            }
        }
        let Some(datagram) = self.datagrams.get_mut(&key).filter(|datagram| !datagram.spoilt) else {
            return Tracked::Drop(DropReason::FragmentTableFull, delivery, Vec::new());
        };
        datagram.pieces.push(piece);
        let ticket = self.waiting.enter(tenant, Rank::Low, key);
        datagram.held.push_back(Held { delivery, tenant, ticket });
        Tracked::Held
    }

    /// Takes out what waits of a datagram.
    fn let_go(&mut self, key: DatagramKey) -> Vec<Delivery> {
        let Some(datagram) = self.datagrams.get_mut(&key) else { return Vec::new() };
        let waiting = &mut self.waiting;
        let let_go = datagram.held.drain(..).map(|held| {
            waiting.leave(held.tenant, held.ticket);
            held.delivery
        });
        let_go.collect()
    }

    fn remove(&mut self, key: DatagramKey) {
        if let Some(datagram) = self.datagrams.remove(&key) {
            self.tracked.leave(datagram.tenant, datagram.ticket);
        }
    }

    /// Keeps the queue of expiries in proportion to the datagrams, when most have passed whole.
    fn tidy(&mut self, limit: usize) {
        if self.queue.len() > 2 * limit + 64 {
            let datagrams = &self.datagrams;
            self.queue.retain(|(expires, key)| datagrams.get(key).is_some_and(|d| d.expires == *expires));
        }
    }

    /// Forgets datagrams whose time is over; what still waited comes back.
    pub fn expire(&mut self, now: u64) -> Vec<Delivery> {
        let mut lost = Vec::new();
        while let Some((expires, key)) = self.queue.front().copied() {
            if expires > now {
                break;
            }
            self.queue.pop_front();
            if self.datagrams.get(&key).is_some_and(|datagram| datagram.expires == expires) {
                lost.extend(self.let_go(key));
                self.remove(key);
            }
        }
        lost
    }
}

impl Datagram {
    /// All pieces were seen: they do not overlap, so their lengths tell.
    fn is_whole(&self) -> bool {
        self.total == Some(self.pieces.iter().map(|(begin, end)| end - begin).sum())
    }

    /// Does the piece fit with those seen: no overlap, no end beyond the whole, multiples of eight but for the last?
    fn admits(&mut self, offset: u32, end: u32, more: bool, ip: &Ip) -> bool {
        let longest = 65_535 - if ip.version == 4 { u32::from(ip.header_len) } else { 0 };
        if end <= offset || end > longest || self.pieces.len() >= MAX_PIECES || (more && !end.is_multiple_of(8)) {
            return false;
        }
        if !more {
            if self.total.is_some_and(|total| total != end) {
                return false;
            }
            self.total = Some(end);
        }
        if self.total.is_some_and(|total| end > total || self.pieces.iter().any(|(_, seen)| *seen > total)) {
            return false;
        }
        self.pieces.iter().all(|(begin, seen)| end <= *begin || offset >= *seen)
    }
}
