//! Groups of records of one address family.

use std::collections::BTreeMap;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Array, TooMany};

/// Records of a group that is not split.
pub(super) const SPLIT: u32 = 256;
/// Groups whose place was asked for lately; a power of two.
const RECENT: usize = 256;

/// A record's neighbours in its list, by slot and one; 0: none.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Link {
    next: u32,
    previous: u32,
}

/// A list of records.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct List {
    /// Slot and one of the first; 0: it is empty.
    first: u32,
}

impl List {
    fn push(&mut self, links: &mut Array<Link>, slot: u32) {
        let next = std::mem::replace(&mut self.first, slot + 1);
        if let Some(behind) = next.checked_sub(1).and_then(|next| links.get_mut(next)) {
            behind.previous = slot + 1;
        }
        if let Some(link) = links.get_mut(slot) {
            *link = Link { next, previous: 0 };
        }
    }

    fn take(&mut self, links: &mut Array<Link>, slot: u32) {
        let Some(link) = links.get_mut(slot).map(std::mem::take) else { return };
        match link.previous.checked_sub(1) {
            Some(previous) => _ = links.get_mut(previous).map(|before| before.next = link.next),
            None => self.first = link.next,
        }
        if let Some(next) = link.next.checked_sub(1) {
            _ = links.get_mut(next).map(|behind| behind.previous = link.previous);
        }
    }

    pub(super) fn slots(self, links: &Array<Link>) -> impl Iterator<Item = u32> {
        let mut next = self.first;
        std::iter::from_fn(move || {
            let slot = next.checked_sub(1)?;
            next = links.get(slot).map_or(0, |link| link.next);
            Some(slot)
        })
    }

    const fn is_empty(self) -> bool {
        self.first == 0
    }
}

/// The lists that a group is split into, by what the addresses of a group differ in.
pub(super) trait Lists: Default {
    /// The list of an address, made when there is none.
    fn list(&mut self, rest: u64) -> &mut List;
    /// The list of an address may be empty.
    fn emptied(&mut self, rest: u64);
    /// Lists that are not empty, in order of address.
    fn range(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, List)>;
    /// Octets of memory.
    fn bytes(&self) -> usize;
}

/// Lists of a /24, by the last octet.
pub(super) struct ByOctet(Box<[List; 256]>);

impl Default for ByOctet {
    fn default() -> Self {
        Self(Box::new([List::default(); 256]))
    }
}

impl Lists for ByOctet {
    fn list(&mut self, rest: u64) -> &mut List {
        // An index below 256 into an array of 256.
        &mut self.0[usize::from(rest as u8)]
    }

    fn emptied(&mut self, _: u64) {}

    fn range(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, List)> {
        let numbered = (0..).zip(self.0.iter().copied());
        numbered.filter(move |(rest, list)| (first..=last).contains(rest) && !list.is_empty())
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

/// Lists of a /64, by the last half.
#[derive(Default)]
pub(super) struct ByAddress(BTreeMap<u64, List>);

impl Lists for ByAddress {
    fn list(&mut self, rest: u64) -> &mut List {
        self.0.entry(rest).or_default()
    }

    fn emptied(&mut self, rest: u64) {
        if self.0.get(&rest).is_some_and(|list| list.is_empty()) {
            self.0.remove(&rest);
        }
    }

    fn range(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, List)> {
        self.0.range(first..=last).map(|(rest, list)| (*rest, *list))
    }

    fn bytes(&self) -> usize {
        self.0.len() * 2 * size_of::<(u64, List)>()
    }
}

struct Group<L> {
    /// The records, as long as it is not split.
    list: List,
    /// Records, split or not.
    len: u32,
    split: Option<L>,
}

impl<L> Default for Group<L> {
    fn default() -> Self {
        Self { list: List::default(), len: 0, split: None }
    }
}

/// Where a group is among the others.
pub(super) trait Place: Copy + Ord + Default {
    /// Spreads places that follow each other.
    fn spread(self) -> usize;
}

impl Place for u64 {
    fn spread(self) -> usize {
        (self.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
    }
}

impl Place for u128 {
    fn spread(self) -> usize {
        (self as u64 ^ (self >> 64) as u64).spread()
    }
}

/// Groups by place, in order.
pub(super) struct Groups<P, L> {
    groups: Vec<Group<L>>,
    free: Vec<u32>,
    order: BTreeMap<P, u32>,
    /// Places with the number of their group and one; 0: none. Records that come and go mostly do in groups that others did before.
    recent: Box<[(P, u32)]>,
}

impl<P: Place, L: Lists> Default for Groups<P, L> {
    fn default() -> Self {
        let recent = vec![(P::default(), 0); RECENT].into_boxed_slice();
        Self { groups: Vec::new(), free: Vec::new(), order: BTreeMap::new(), recent }
    }
}

/// The addresses of a prefix: places of the first and the last group, and which of a group, where the prefix is a part of one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range<P> {
    pub(super) first: P,
    pub(super) last: P,
    pub(super) part: Option<(u64, u64)>,
}

impl<P: Place, L: Lists> Groups<P, L> {
    fn find(&mut self, place: P) -> Option<u32> {
        let known = self.recent.get_mut(place.spread() % RECENT)?;
        if known.0 != place || known.1 == 0 {
            *known = (place, self.order.get(&place)? + 1);
        }
        Some(known.1 - 1)
    }

    fn find_or_make(&mut self, place: P) -> u32 {
        if let Some(id) = self.find(place) {
            return id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.groups.push(Group::default());
            self.groups.len() as u32 - 1
        });
        self.order.insert(place, id);
        id
    }

    /// Adds a record; `rest_of` tells the rest of the addresses of those that are here.
    pub(super) fn add(
        &mut self,
        links: &mut Array<Link>,
        slot: u32,
        (place, rest): (P, u64),
        rest_of: impl Fn(u32) -> Option<u64>,
    ) {
        let id = self.find_or_make(place);
        let Some(group) = self.groups.get_mut(id as usize) else { return };
        group.len += 1;
        if let Some(split) = &mut group.split {
            return split.list(rest).push(links, slot);
        }
        if group.len <= SPLIT {
            return group.list.push(links, slot);
        }
        let mut split = L::default();
        let mut next = std::mem::take(&mut group.list).first;
        while let Some(other) = next.checked_sub(1) {
            next = links.get(other).map_or(0, |link| link.next);
            if let Some(rest) = rest_of(other) {
                split.list(rest).push(links, other);
            }
        }
        split.list(rest).push(links, slot);
        group.split = Some(split);
    }

    /// Takes a record out.
    pub(super) fn remove(&mut self, links: &mut Array<Link>, slot: u32, (place, rest): (P, u64)) {
        let Some(id) = self.find(place) else { return };
        let Some(group) = self.groups.get_mut(id as usize) else { return };
        match &mut group.split {
            Some(split) => {
                split.list(rest).take(links, slot);
                split.emptied(rest);
            }
            None => group.list.take(links, slot),
        }
        group.len = group.len.saturating_sub(1);
        if group.len > 0 {
            return;
        }
        *group = Group::default();
        self.free.push(id);
        self.order.remove(&place);
        if let Some(known) = self.recent.get_mut(place.spread() % RECENT).filter(|known| known.0 == place) {
            known.1 = 0;
        }
    }

    /// Shows the lists of a range to `visit`, with the place, the rest of the address where it is the list of one, and whether all of its
    /// records are in the range. A group that `skip` says no to is left out with all that it is split into. `most` is how many groups
    /// and lists may be looked at.
    ///
    /// # Errors
    /// [`TooMany`]: not all were shown.
    pub(super) fn visit(
        &self,
        range: Range<P>,
        skip: impl Fn(P, Option<u64>) -> bool,
        most: &mut usize,
        mut visit: impl FnMut(List, bool, &mut usize) -> Result<(), TooMany>,
    ) -> Result<(), TooMany> {
        for (place, id) in self.order.range(range.first..=range.last) {
            *most = most.checked_sub(1).ok_or(TooMany)?;
            let Some(group) = self.groups.get(*id as usize) else { continue };
            if skip(*place, None) {
                continue;
            }
            let Some(split) = &group.split else {
                visit(group.list, range.part.is_none(), most)?;
                continue;
            };
            let (first, last) = range.part.unwrap_or((0, u64::MAX));
            for (rest, list) in split.range(first, last) {
                *most = most.checked_sub(1).ok_or(TooMany)?;
                if !skip(*place, Some(rest)) {
                    visit(list, true, most)?;
                }
            }
        }
        Ok(())
    }

    /// The first group at this place or behind it.
    pub(super) fn next(&self, from: P) -> Option<P> {
        self.order.range(from..).next().map(|(place, _)| *place)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Octets of memory.
    pub(super) fn bytes(&self) -> usize {
        let split: usize = self.groups.iter().filter_map(|group| group.split.as_ref()).map(L::bytes).sum();
        self.groups.len() * (size_of::<Group<L>>() + size_of::<u32>())
            + self.order.len() * 2 * size_of::<(P, u32)>()
            + split
    }
}
