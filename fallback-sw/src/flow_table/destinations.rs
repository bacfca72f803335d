//! Records by VRF and destination, so that a change of a prefix finds those that it covers without looking at others.
//!
//! Records whose destination is in the same /24 (IPv4) or /64 (IPv6) of a VRF are a group: a list through the slots. A group of many
//! is split once, into a list for each address: a change of a longer prefix then looks at no record beside those that it covers. The
//! groups are in order of address, so that a prefix is a range of them. Which group a record is in, its key tells.
//!
//! Records without another direction are filed by their source in the same way, in a [`Destinations`] of its own: that of any other
//! record is the destination of its other direction.

mod groups;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use offload_rules::VrfId;

use self::groups::{ByAddress, ByOctet, Groups, Link, List, Range};
use super::memory::Array;

/// What is covered is more than was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

/// The groups of a table.
pub(super) struct Destinations {
    links: Array<Link>,
    /// By VRF and the first three octets.
    inet: Groups<u64, ByOctet>,
    /// By VRF and the first half.
    inet6: Groups<u128, ByAddress>,
}

/// VRF (16 bits) and the first 24 bits of an address; the rest of it.
const fn inet(vrf: VrfId, address: Ipv4Addr) -> (u64, u64) {
    let bits = address.to_bits() as u64;
    ((vrf.get() as u64) << 24 | bits >> 8, bits & 0xff)
}

/// VRF (16 bits) and the first 64 bits of an address; the rest of it.
const fn inet6(vrf: VrfId, address: Ipv6Addr) -> (u128, u64) {
    let bits = address.to_bits();
    ((vrf.get() as u128) << 64 | bits >> 64, bits as u64)
}

impl Destinations {
    /// For a table of this many records.
    ///
    /// # Errors
    /// The kernel refuses the address space.
    pub(super) fn new(capacity: u32) -> io::Result<Self> {
        Ok(Self { links: Array::new(capacity as usize)?, inet: Groups::default(), inet6: Groups::default() })
    }

    /// Adds a record that is in no group by an address of its key; `address_of` tells those of the records that are here.
    pub(super) fn add(
        &mut self,
        slot: u32,
        (vrf, address): (VrfId, IpAddr),
        address_of: impl Fn(u32) -> Option<IpAddr>,
    ) {
        let Self { links, inet: groups, inet6: groups6 } = self;
        match address {
            IpAddr::V4(v4) => groups.add(links, slot, inet(vrf, v4), |slot| Some(rest(address_of(slot)?))),
            IpAddr::V6(v6) => groups6.add(links, slot, inet6(vrf, v6), |slot| Some(rest(address_of(slot)?))),
        }
    }

    /// Takes a record out that was added by this address.
    pub(super) fn remove(&mut self, slot: u32, (vrf, address): (VrfId, IpAddr)) {
        let Self { links, inet: groups, inet6: groups6 } = self;
        match address {
            IpAddr::V4(v4) => groups.remove(links, slot, inet(vrf, v4)),
            IpAddr::V6(v6) => groups6.remove(links, slot, inet6(vrf, v6)),
        }
    }

    /// Appends to `out` the slots of the records of a VRF with an address in this prefix, but for those of groups that `skip`
    /// says no to. Of a group that the prefix is a part of, the records are looked at by `address_of`.
    ///
    /// # Errors
    /// [`TooMany`] when more than `most` records or groups are looked at: what has been appended is not all.
    pub(super) fn covered(
        &self,
        (vrf, prefix): (VrfId, IpNet),
        skip: impl Fn(IpNet) -> bool,
        address_of: impl Fn(u32) -> Option<IpAddr>,
        most: &mut usize,
        out: &mut Vec<u32>,
    ) -> Result<(), TooMany> {
        let visit = |list: List, is_inside: bool, most: &mut usize| {
            for slot in list.slots(&self.links) {
                *most = most.checked_sub(1).ok_or(TooMany)?;
                if is_inside || address_of(slot).is_some_and(|address| prefix.contains(&address)) {
                    out.push(slot);
                }
            }
            Ok(())
        };
        match prefix {
            IpNet::V4(net) => {
                let ((first, low), (last, high)) = (inet(vrf, net.network()), inet(vrf, net.broadcast()));
                let range = Range { first, last, part: (net.prefix_len() > 24).then_some((low, high)) };
                self.inet.visit(range, |place, rest| skip(inet_prefix(place, rest)), most, visit)
            }
            IpNet::V6(net) => {
                let ((first, low), (last, high)) = (inet6(vrf, net.network()), inet6(vrf, net.broadcast()));
                let range = Range { first, last, part: (net.prefix_len() > 64).then_some((low, high)) };
                self.inet6.visit(range, |place, rest| skip(inet6_prefix(place, rest)), most, visit)
            }
        }
    }

    /// An address of this family that no record of the VRF has a destination before, from `from` on. `None`: there is no record behind
    /// that.
    pub(super) fn next(&self, vrf: VrfId, from: IpAddr) -> Option<IpAddr> {
        match from {
            IpAddr::V4(v4) => {
                let place = self.inet.next(inet(vrf, v4).0).filter(|place| place >> 24 == u64::from(vrf.get()))?;
                Some(inet_prefix(place, None).network().max(from))
            }
            IpAddr::V6(v6) => {
                let place = self.inet6.next(inet6(vrf, v6).0).filter(|place| place >> 64 == u128::from(vrf.get()))?;
                Some(inet6_prefix(place, None).network().max(from))
            }
        }
    }

    /// Octets of memory for this many records.
    pub(super) fn bytes(&self, records: u32) -> usize {
        records as usize * size_of::<Link>() + self.inet.bytes() + self.inet6.bytes()
    }
}

/// What of its address tells a record from others of its group.
const fn rest(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => v4.to_bits() as u64 & 0xff,
        IpAddr::V6(v6) => v6.to_bits() as u64,
    }
}

/// The addresses of a group, or that of one of its lists.
fn inet_prefix(place: u64, rest: Option<u64>) -> IpNet {
    // Invariant: these are lengths of prefixes.
    let (rest, len) = rest.map_or((0, 24), |rest| (rest as u32, 32));
    Ipv4Net::new_assert(((place as u32) << 8 | rest).into(), len).into()
}

/// The same for IPv6.
fn inet6_prefix(place: u128, rest: Option<u64>) -> IpNet {
    // Invariant: these are lengths of prefixes.
    let (rest, len) = rest.map_or((0, 64), |rest| (u128::from(rest), 128));
    Ipv6Net::new_assert((place << 64 | rest).into(), len).into()
}
