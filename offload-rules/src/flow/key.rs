//! The key of one direction of a flow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{VifId, VrfId};

/// Address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

impl Family {
    /// Of an address.
    #[must_use]
    pub const fn of(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Inet,
            IpAddr::V6(_) => Self::Inet6,
        }
    }

    /// `AF_INET` or `AF_INET6`, as the dumps print it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inet => "AF_INET",
            Self::Inet6 => "AF_INET6",
        }
    }
}

/// What the packets of one direction of a flow have in common: 42 octets, comparable and hashable as plain memory.
///
/// Ports: TCP, UDP and SCTP: source and destination port. ICMP echo: (identifier, 0), so that request and reply make one
/// pair. Other ICMP: (0, type). Everything else: (0, 0).
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowKey {
    /// Source: IPv6, or IPv4 in the first four octets and zeros.
    pub src: [u8; 16],
    /// Destination, in the same form.
    pub dst: [u8; 16],
    /// Source port in host order.
    pub sport: u16,
    /// Destination port in host order.
    pub dport: u16,
    /// VRF of the lookup.
    pub vrf: VrfId,
    /// Ingress vif, or [`VifId::TUNNEL`].
    pub vif: VifId,
    /// IP protocol (the last header of an IPv6 chain).
    pub proto: u8,
    /// 4 or 6.
    pub version: u8,
}

impl FlowKey {
    /// A key from addresses and ports. Both addresses must be of one family; otherwise that of `src` counts.
    #[must_use]
    pub fn new(vrf: VrfId, vif: VifId, src: IpAddr, dst: IpAddr, proto: u8, sport: u16, dport: u16) -> Self {
        let version = if src.is_ipv4() { 4 } else { 6 };
        Self { src: octets(src), dst: octets(dst), sport, dport, vrf, vif, proto, version }
    }

    /// Family.
    #[must_use]
    pub const fn family(&self) -> Family {
        if self.version == 4 { Family::Inet } else { Family::Inet6 }
    }

    /// Source address.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        address(self.version, &self.src)
    }

    /// Destination address.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        address(self.version, &self.dst)
    }

    /// The key of the other direction, without translation, arriving on `vif` in `vrf`.
    #[must_use]
    pub fn reversed(&self, vrf: VrfId, vif: VifId) -> Self {
        let (sport, dport) = if self.swaps_ports() { (self.dport, self.sport) } else { (self.sport, self.dport) };
        Self { src: self.dst, dst: self.src, sport, dport, vrf, vif, ..*self }
    }

    /// A 64-bit hash of everything but the vif: the same on every node and in every run. ECMP members and the entropy of tunnel
    /// source ports (RFC 7510 §3) come from it. Not for hash tables: whoever can guess it can collide it.
    #[must_use]
    pub fn spread(&self) -> u64 {
        let ports = u64::from(self.sport) << 48
            | u64::from(self.dport) << 32
            | u64::from(self.vrf.get()) << 16
            | u64::from(self.proto) << 8
            | u64::from(self.version);
        let hash =
            mix(half(&self.src, 0) ^ half(&self.src, 8).rotate_left(32), half(&self.dst, 0) ^ 0x9e37_79b9_7f4a_7c15);
        mix(hash ^ half(&self.dst, 8), ports)
    }

    /// A 64-bit hash that is the same for both directions of a flow and for any vif and VRF: it chooses the worker that owns
    /// the pair.
    #[must_use]
    pub fn owner_hash(&self) -> u64 {
        let end = |address: &[u8; 16], port: u16| {
            mix(half(address, 0) ^ u64::from(port), half(address, 8) ^ 0x9e37_79b9_7f4a_7c15)
        };
        let ends = if self.swaps_ports() {
            end(&self.src, self.sport).wrapping_add(end(&self.dst, self.dport))
        } else {
            end(&self.src, self.sport).wrapping_add(end(&self.dst, self.sport))
        };
        mix(ends, u64::from(self.proto))
    }

    /// ICMP's "ports" are an identifier or a type: they are the same in both directions.
    const fn swaps_ports(&self) -> bool {
        !matches!((self.version, self.proto), (4, 1) | (6, 58))
    }
}

const fn half(octets: &[u8; 16], at: usize) -> u64 {
    let mut value = 0;
    let mut i = 0;
    while i < 8 {
        value = value << 8 | octets[at + i] as u64;
        i += 1;
    }
    value
}

/// Multiplies and folds: each bit of the result depends on each bit of both words.
const fn mix(a: u64, b: u64) -> u64 {
    let product = (a ^ 0xa076_1d64_78bd_642f) as u128 * (b ^ 0xe703_7ed1_a0b4_28db) as u128;
    (product >> 64) as u64 ^ product as u64
}

impl std::fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "[{}]:{} -> [{}]:{} proto {} vrf {} vif {}",
            self.source(),
            self.sport,
            self.destination(),
            self.dport,
            self.proto,
            self.vrf,
            self.vif
        )
    }
}

/// An address in the form that keys hold.
pub(crate) fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn address(version: u8, octets: &[u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = *octets;
    if version == 4 { IpAddr::V4(Ipv4Addr::new(a, b, c, d)) } else { IpAddr::V6(Ipv6Addr::from(*octets)) }
}
