//! Fragments follow their head: the one that holds the ports.
//!
//! Tracked by {VRF, source, destination, protocol, identification} (RFC 791 §3.2, RFC 8200 §4.5), bounded in number, in
//! fragments each, and in time. A fragment that comes before its head is held; one that overlaps another spoils the datagram
//! (RFC 5722 §4; the same for IPv4, RFC 1858 §3), but for an exact duplicate, which is only dropped itself (RFC 8200 §4.5). A
//! datagram that has passed whole is forgotten at once, so that its identification can be used again.

use std::collections::{HashMap, VecDeque};

use offload_rules::{DropReason, VrfId};

use super::Delivery;
use crate::packet::parse::{FragmentInfo, Ip};

/// Fragments of one datagram: 65,535 octets in pieces of 576.
const MAX_PIECES: usize = 128;

/// Whose fragment it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DatagramKey {
    vrf: VrfId,
    src: [u8; 16],
    dst: [u8; 16],
    /// 0 for IPv6: a later fragment may name another header (RFC 8200 §4.5).
    proto: u8,
    version: u8,
    id: u32,
}

impl DatagramKey {
    /// The datagram that a packet is a fragment of; `None` when it is whole.
    #[must_use]
    pub const fn of(vrf: VrfId, ip: &Ip) -> Option<Self> {
        let (FragmentInfo::First { id } | FragmentInfo::Later { id, .. }) = ip.fragment else { return None };
        let proto = if ip.version == 4 { ip.proto } else { 0 };
        Some(Self { vrf, src: ip.src, dst: ip.dst, proto, version: ip.version, id })
    }
}

/// What the head told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Protocol behind the IP headers.
    pub proto: u8,
    /// Source port as flow keys have it.
    pub sport: u16,
    /// Destination port as flow keys have it.
    pub dport: u16,
    /// ICMP type; 0 otherwise.
    pub icmp_type: u8,
}

#[derive(Debug)]
struct Datagram {
    head: Option<Head>,
    /// Octets seen, as [begin, end).
    pieces: Vec<(u32, u32)>,
    /// Length of the whole, once the last fragment was seen.
    total: Option<u32>,
    spoilt: bool,
    held: VecDeque<Delivery>,
    expires: u64,
}

/// What to do with a fragment.
#[derive(Debug)]
pub enum Fate {
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
    /// Fragments that wait for their heads.
    pub held: usize,
    /// Milliseconds.
    pub timeout: u64,
}

/// The fragments that one worker tracks.
#[derive(Debug, Default)]
pub struct FragmentTable {
    datagrams: HashMap<DatagramKey, Datagram>,
    /// In order of expiry, which is the order of arrival.
    queue: VecDeque<(u64, DatagramKey)>,
    held: usize,
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
        self.held
    }

    /// Takes in a fragment. `ip` was parsed from it; it must be a fragment of the datagram `key`.
    pub fn take(&mut self, key: DatagramKey, ip: &Ip, packet: Delivery, limits: FragmentLimits, now: u64) -> Fate {
        let (offset, more) = match ip.fragment {
            FragmentInfo::None => (0, false),
            FragmentInfo::First { .. } => (0, true),
            FragmentInfo::Later { offset, more, .. } => (u32::from(offset), more),
        };
        let end = offset + u32::from(ip.payload_len());
        if !self.datagrams.contains_key(&key) {
            if self.datagrams.len() >= limits.datagrams {
                return Fate::Drop(DropReason::FragmentTableFull, packet, Vec::new());
            }
            let expires = now + limits.timeout;
            let fresh =
                Datagram { head: None, pieces: Vec::new(), total: None, spoilt: false, held: VecDeque::new(), expires };
            self.datagrams.insert(key, fresh);
            self.queue.push_back((expires, key));
        }
        let Some(datagram) = self.datagrams.get_mut(&key) else {
            return Fate::Drop(DropReason::FragmentTableFull, packet, Vec::new());
        };
        if !datagram.spoilt && datagram.pieces.contains(&(offset, end)) {
            return Fate::Drop(DropReason::FragmentErr, packet, Vec::new());
        }
        if datagram.spoilt || !datagram.admits(offset, end, more, ip) {
            datagram.spoilt = true;
            let waiting: Vec<_> = datagram.held.drain(..).collect();
            self.held -= waiting.len();
            return Fate::Drop(DropReason::FragmentErr, packet, waiting);
        }
        if offset == 0 {
            let head = Head { proto: ip.proto, sport: ip.sport, dport: ip.dport, icmp_type: ip.icmp_type };
            datagram.head = Some(head);
        }
        let Some(head) = datagram.head else {
            if self.held >= limits.held {
                datagram.spoilt = true;
                return Fate::Drop(DropReason::FragmentTableFull, packet, Vec::new());
            }
            datagram.pieces.push((offset, end));
            datagram.held.push_back(packet);
            self.held += 1;
            return Fate::Held;
        };
        datagram.pieces.push((offset, end));
        let waiting: Vec<_> = datagram.held.drain(..).collect();
        self.held -= waiting.len();
        if datagram.is_whole() {
            self.datagrams.remove(&key);
            self.tidy(limits.datagrams);
        }
        Fate::Go(head, packet, waiting)
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
            if let Some(datagram) = self.datagrams.get(&key)
                && datagram.expires == expires
                && let Some(datagram) = self.datagrams.remove(&key)
            {
                lost.extend(datagram.held);
            }
        }
        self.held -= lost.len();
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
