//! Records by VRF and destination, so that a change of a prefix finds those that it covers without looking at others.
//!
//! Records whose destination is in the same /24 (IPv4) or /64 (IPv6) of a VRF are a group: a list through the slots. A group of many
//! is split once, into one for each address: a change of a longer prefix then looks at no record beside those that it covers. The
//! groups are in order of address, so that a prefix is a range of them.

use std::{collections::BTreeMap, io, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use offload_rules::{VrfId, flow::FlowKey};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::memory::Array;

/// Records of a group that is not split.
const SPLIT: u32 = 256;

/// A record's neighbours in its group, by slot and one; 0: none. All zero: it is in none.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Link {
    next: u32,
    previous: u32,
    /// Number of the group and one.
    group: u32,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    place: Place,
    /// Slot and one of the first record; 0: none is here itself.
    first: u32,
    /// Records here, or in the groups that it was split into.
    len: u32,
    is_split: bool,
}

/// Where a group is: a whole one before those that it was split into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Inet(u64),
    Inet6(u16, u128, bool),
}

/// VRF (16 bits), address (32), and whether it is the group of that one address.
const fn inet(vrf: VrfId, address: u32, exact: bool) -> u64 {
    (vrf.get() as u64) << 33 | (address as u64) << 1 | exact as u64
}

impl Place {
    /// Of the whole group.
    fn whole(vrf: VrfId, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::Inet(inet(vrf, v4.to_bits() & 0xffff_ff00, false)),
            IpAddr::V6(v6) => Self::Inet6(vrf.get(), v6.to_bits() >> 64 << 64, false),
        }
    }

    /// Of the group of one address.
    fn exact(vrf: VrfId, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::Inet(inet(vrf, v4.to_bits(), true)),
            IpAddr::V6(v6) => Self::Inet6(vrf.get(), v6.to_bits(), true),
        }
    }

    const fn is_exact(self) -> bool {
        match self {
            Self::Inet(bits) => bits & 1 == 1,
            Self::Inet6(.., exact) => exact,
        }
    }

    /// The addresses of the group.
    fn prefix(self) -> IpNet {
        // Invariant: these are lengths of prefixes.
        match self {
            Self::Inet(bits) => {
                let address = ((bits >> 1) as u32).into();
                Ipv4Net::new_assert(address, if self.is_exact() { 32 } else { 24 }).into()
            }
            Self::Inet6(_, bits, exact) => Ipv6Net::new_assert(bits.into(), if exact { 128 } else { 64 }).into(),
        }
    }
}

/// What is covered is more than was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

/// The groups of a table.
pub(super) struct Destinations {
    links: Array<Link>,
    groups: Vec<Group>,
    free: Vec<u32>,
    inet: BTreeMap<u64, u32>,
    inet6: BTreeMap<(u16, u128, bool), u32>,
}

impl Destinations {
    /// For a table of this many records.
    ///
    /// # Errors
    /// The kernel refuses the address space.
    pub(super) fn new(capacity: u32) -> io::Result<Self> {
        Ok(Self {
            links: Array::new(capacity as usize)?,
            groups: Vec::new(),
            free: Vec::new(),
            inet: BTreeMap::new(),
            inet6: BTreeMap::new(),
        })
    }

    /// Adds a record; `key_of` tells the keys of those that are here.
    pub(super) fn add<'a>(&mut self, slot: u32, key: &FlowKey, key_of: impl Fn(u32) -> Option<&'a FlowKey>) {
        let whole = self.group_at(Place::whole(key.vrf, key.destination()));
        let Some(group) = self.groups.get_mut(whole as usize) else { return };
        group.len += 1;
        if group.is_split {
            return self.add_exact(slot, key);
        }
        if group.len <= SPLIT {
            return self.push(slot, whole);
        }
        group.is_split = true;
        let mut next = std::mem::take(&mut group.first);
        while let Some(other) = next.checked_sub(1) {
            next = self.links.get(other).map_or(0, |link| link.next);
            if let Some(key) = key_of(other) {
                self.add_exact(other, key);
            }
        }
        self.add_exact(slot, key);
    }

    fn add_exact(&mut self, slot: u32, key: &FlowKey) {
        let exact = self.group_at(Place::exact(key.vrf, key.destination()));
        if let Some(group) = self.groups.get_mut(exact as usize) {
            group.len += 1;
        }
        self.push(slot, exact);
    }

    /// Takes a record out.
    pub(super) fn remove(&mut self, slot: u32, key: &FlowKey) {
        let Some(link) = self.links.get_mut(slot).map(std::mem::take) else { return };
        let Some(id) = link.group.checked_sub(1) else { return };
        match link.previous.checked_sub(1) {
            Some(previous) => _ = self.links.get_mut(previous).map(|before| before.next = link.next),
            None => _ = self.groups.get_mut(id as usize).map(|group| group.first = link.next),
        }
        if let Some(next) = link.next.checked_sub(1) {
            _ = self.links.get_mut(next).map(|behind| behind.previous = link.previous);
        }
        let is_exact = self.groups.get(id as usize).is_some_and(|group| group.place.is_exact());
        self.count_out(id);
        if is_exact && let Some(whole) = self.find(Place::whole(key.vrf, key.destination())) {
            self.count_out(whole);
        }
    }

    /// One record less; the last one takes the group with it.
    fn count_out(&mut self, id: u32) {
        let Some(group) = self.groups.get_mut(id as usize) else { return };
        group.len = group.len.saturating_sub(1);
        if group.len > 0 {
            return;
        }
        match group.place {
            Place::Inet(place) => _ = self.inet.remove(&place),
            Place::Inet6(vrf, bits, exact) => _ = self.inet6.remove(&(vrf, bits, exact)),
        }
        self.free.push(id);
    }

    fn push(&mut self, slot: u32, id: u32) {
        let Some(group) = self.groups.get_mut(id as usize) else { return };
        let next = std::mem::replace(&mut group.first, slot + 1);
        if let Some(behind) = next.checked_sub(1).and_then(|next| self.links.get_mut(next)) {
            behind.previous = slot + 1;
        }
        if let Some(link) = self.links.get_mut(slot) {
            *link = Link { next, previous: 0, group: id + 1 };
        }
    }

    fn find(&self, place: Place) -> Option<u32> {
        match place {
            Place::Inet(place) => self.inet.get(&place).copied(),
            Place::Inet6(vrf, bits, exact) => self.inet6.get(&(vrf, bits, exact)).copied(),
        }
    }

    /// The group of a place, made when there is none.
    fn group_at(&mut self, place: Place) -> u32 {
        let Self { groups, free, inet, inet6, .. } = self;
        let make = || {
            let group = Group { place, first: 0, len: 0, is_split: false };
            match free.pop() {
                Some(id) => {
                    if let Some(old) = groups.get_mut(id as usize) {
                        *old = group;
                    }
                    id
                }
                None => {
                    groups.push(group);
                    groups.len() as u32 - 1
                }
            }
        };
        match place {
            Place::Inet(place) => *inet.entry(place).or_insert_with(make),
            Place::Inet6(vrf, bits, exact) => *inet6.entry((vrf, bits, exact)).or_insert_with(make),
        }
    }

    /// Appends to `out` the slots of the records of a VRF with a destination in this prefix, but for those of groups that `skip`
    /// says no to. Of a group that the prefix is a part of, the records are looked at by `key_of`.
    ///
    /// # Errors
    /// [`TooMany`] when more than `most` records or groups are looked at: what has been appended is not all.
    pub(super) fn covered<'a>(
        &self,
        (vrf, prefix): (VrfId, IpNet),
        skip: impl Fn(IpNet) -> bool,
        key_of: impl Fn(u32) -> Option<&'a FlowKey>,
        most: &mut usize,
        out: &mut Vec<u32>,
    ) -> Result<(), TooMany> {
        let mut visit = |id: u32| -> Result<Next, TooMany> {
            *most = most.checked_sub(1).ok_or(TooMany)?;
            let Some(group) = self.groups.get(id as usize) else { return Ok(Next::Behind) };
            let of_group = group.place.prefix();
            if skip(of_group) {
                return Ok(if group.is_split { Next::BehindSplit } else { Next::Behind });
            }
            let is_inside = prefix.contains(&of_group);
            if !is_inside && (group.is_split || group.place.is_exact()) {
                return Ok(Next::Behind);
            }
            let mut next = group.first;
            while let Some(slot) = next.checked_sub(1) {
                *most = most.checked_sub(1).ok_or(TooMany)?;
                if is_inside || key_of(slot).is_some_and(|key| prefix.contains(&key.destination())) {
                    out.push(slot);
                }
                next = self.links.get(slot).map_or(0, |link| link.next);
            }
            Ok(Next::Behind)
        };
        match prefix {
            IpNet::V4(net) => {
                let first = inet(vrf, net.network().to_bits(), false);
                let last = inet(vrf, net.broadcast().to_bits(), true);
                // The whole group that a longer prefix is a part of comes before it.
                let part = (net.prefix_len() > 24).then(|| inet(vrf, net.network().to_bits() & 0xffff_ff00, false));
                if let Some(id) = part.filter(|place| *place < first).and_then(|place| self.inet.get(&place)) {
                    visit(*id)?;
                }
                walk(&self.inet, first, last, |place| inet(vrf, (place >> 1) as u32 | 0xff, true), visit)
            }
            IpNet::V6(net) => {
                let (low, high) = (net.network().to_bits(), net.broadcast().to_bits());
                let first = (vrf.get(), low, false);
                let part = (net.prefix_len() > 64).then_some((vrf.get(), low >> 64 << 64, false));
                if let Some(id) = part.filter(|place| *place < first).and_then(|place| self.inet6.get(&place)) {
                    visit(*id)?;
                }
                let end = |(vrf, bits, _): (u16, u128, bool)| (vrf, bits | u128::from(u64::MAX), true);
                walk(&self.inet6, first, (vrf.get(), high, true), end, visit)
            }
        }
    }

    /// Octets of memory for this many records.
    pub(super) fn bytes(&self, records: u32) -> usize {
        records as usize * size_of::<Link>()
            + self.groups.len() * (size_of::<Group>() + size_of::<u32>())
            + self.inet.len() * 2 * size_of::<(u64, u32)>()
            + self.inet6.len() * 2 * size_of::<((u16, u128, bool), u32)>()
    }
}

/// Where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Behind the group.
    Behind,
    /// Behind all groups that it was split into.
    BehindSplit,
}

/// Visits the groups from `first` to `last`; `end` is the last place of a whole group.
fn walk<K: Ord + Copy>(
    groups: &BTreeMap<K, u32>,
    mut first: K,
    last: K,
    end: impl Fn(K) -> K,
    mut visit: impl FnMut(u32) -> Result<Next, TooMany>,
) -> Result<(), TooMany> {
    let mut is_behind = false;
    loop {
        let mut skipped = None;
        for (place, id) in groups.range(first..=last) {
            if is_behind && *place == first {
                continue;
            }
            if visit(*id)? == Next::BehindSplit {
                skipped = Some(end(*place));
                break;
            }
        }
        match skipped.filter(|end| *end < last) {
            // The place itself may be the last group of those that are left out.
            Some(end) => (first, is_behind) = (end, true),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
