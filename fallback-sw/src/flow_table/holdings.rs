//! Who holds how many flows, and which of them gave no sign of life for longest: what decides who gives way when a table is full.
//!
//! Each flow is filed once, under its holder and a [`Class`], at the end of a list. All that is done here costs the same however many
//! flows there are; to find the holder of most costs a step for each doubling of their number. A hit never comes here.

use std::io;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::memory::Array;

/// How little is lost when a flow goes, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// Its connection is over.
    Over,
    /// A denial: cheap to find out again.
    Denied,
    /// Packets have come from one side only, as far as is known.
    Unanswered,
    /// Both sides have spoken.
    Answered,
}

impl Class {
    const fn of(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Over,
            1 => Self::Denied,
            2 => Self::Unanswered,
            _ => Self::Answered,
        }
    }
}

/// The place of a holder, which stays its own. Not the number that it was named by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(u32);

/// A flow's neighbours in its list, by slot and one; 0: none. The highest bits of the two are the class.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Link {
    next: u32,
    previous: u32,
    /// When the flow was last known to be of use, in wrapping milliseconds.
    at: u32,
}

/// Above all slots: a bit of the class.
const TOP: u32 = 1 << 31;
const _: () = assert!(super::MAX_RECORDS < TOP);

impl Link {
    const fn new(previous: u32, class: Class, at: u32) -> Self {
        let class = class as u32;
        Self { next: (class >> 1) << 31, previous: previous | (class & 1) << 31, at }
    }

    const fn class(self) -> Class {
        Class::of((self.next >> 31) << 1 | self.previous >> 31)
    }

    const fn next(self) -> u32 {
        self.next & !TOP
    }

    const fn previous(self) -> u32 {
        self.previous & !TOP
    }

    const fn set_next(&mut self, next: u32) {
        self.next = self.next & TOP | next;
    }

    const fn set_previous(&mut self, previous: u32) {
        self.previous = self.previous & TOP | previous;
    }
}

/// First and last slot of a list, each and one; 0: it is empty.
#[derive(Debug, Clone, Copy, Default)]
struct List {
    first: u32,
    last: u32,
}

/// What each holder has of a table.
pub struct Holdings {
    /// By slot, the number of its link and one; 0: it is not filed. A pair is filed under one of its two slots, so that links are half
    /// as many as slots.
    numbers: Array<u32>,
    links: Array<Link>,
    /// Links from here on were never used.
    fresh: u32,
    /// The link that was freed last, and one; the list continues in [`Link::next`].
    freed: u32,
    /// By place, the lists of each class.
    lists: Vec<[List; 4]>,
    /// By number, the place and one.
    places: Vec<u32>,
    /// By class, who has how many of it.
    by_class: [Ranking; 4],
    total: Ranking,
    /// Holders that hold something.
    holding: u32,
}

impl Holdings {
    /// For a table of this many records.
    ///
    /// # Errors
    /// The kernel refuses the address space.
    pub fn new(capacity: u32) -> io::Result<Self> {
        Ok(Self {
            numbers: Array::new(capacity as usize)?,
            links: Array::new(capacity as usize)?,
            fresh: 0,
            freed: 0,
            lists: Vec::new(),
            places: Vec::new(),
            by_class: Default::default(),
            total: Ranking::default(),
            holding: 0,
        })
    }

    /// The holder with this number, if it ever held something.
    #[must_use]
    pub fn known_holder(&self, number: u32) -> Option<Holder> {
        self.places.get(number as usize)?.checked_sub(1).map(Holder)
    }

    /// The holder with this number, small ones to be preferred.
    pub fn holder(&mut self, number: u32) -> Holder {
        let at = number as usize;
        if self.places.len() <= at {
            self.places.resize(at + 1, 0);
        }
        let next = self.lists.len() as u32 + 1;
        let Some(place) = self.places.get_mut(at) else { return Holder(0) };
        if *place == 0 {
            *place = next;
            self.lists.push(Default::default());
            self.by_class.iter_mut().chain([&mut self.total]).for_each(Ranking::enter);
        }
        Holder(*place - 1)
    }

    fn link(&self, slot: u32) -> Option<&Link> {
        self.links.get(self.numbers.get(slot)?.checked_sub(1)?)
    }

    fn link_mut(&mut self, slot: u32) -> Option<&mut Link> {
        self.links.get_mut(self.numbers.get(slot)?.checked_sub(1)?)
    }

    /// Gives a slot a link.
    fn add(&mut self, slot: u32, link: Link) {
        let number = if self.freed > 0 { self.freed } else { self.fresh + 1 };
        let (Some(to), Some(place)) = (self.numbers.get_mut(slot), self.links.get_mut(number - 1)) else { return };
        *to = number;
        let next = std::mem::replace(place, link).next;
        if self.freed > 0 {
            self.freed = next;
        } else {
            self.fresh += 1;
        }
    }

    /// Takes a slot's link away.
    fn remove(&mut self, slot: u32) -> Option<Link> {
        let number = self.numbers.get_mut(slot).map(std::mem::take).filter(|number| *number > 0)?;
        let freed = Link { next: self.freed, ..Link::default() };
        let link = self.links.get_mut(number - 1).map(|link| std::mem::replace(link, freed))?;
        self.freed = number;
        Some(link)
    }

    /// Octets of memory in use, of a table whose slots below `slots` were used.
    #[must_use]
    pub const fn memory_bytes(&self, slots: u32) -> usize {
        slots as usize * size_of::<u32>() + self.fresh as usize * size_of::<Link>()
    }

    /// Files a flow that is not filed.
    pub fn file(&mut self, slot: u32, holder: Holder, class: Class, at: u32) {
        let Some(list) = self.lists.get_mut(holder.0 as usize).and_then(|lists| lists.get_mut(class as usize)) else {
            return;
        };
        let previous = std::mem::replace(&mut list.last, slot + 1);
        if previous == 0 {
            list.first = slot + 1;
        } else if let Some(link) = self.link_mut(previous - 1) {
            link.set_next(slot + 1);
        }
        self.add(slot, Link::new(previous, class, at));
        self.count_in(holder, class, true);
    }

    /// Takes a flow of this holder out; nothing happens when it is not filed.
    pub fn take(&mut self, slot: u32, holder: Holder) {
        let Some(link) = self.remove(slot) else { return };
        let class = link.class();
        match link.previous().checked_sub(1) {
            Some(previous) => _ = self.link_mut(previous).map(|before| before.set_next(link.next())),
            None => _ = self.list_mut(holder, class).map(|list| list.first = link.next()),
        }
        match link.next().checked_sub(1) {
            Some(next) => _ = self.link_mut(next).map(|behind| behind.set_previous(link.previous())),
            None => _ = self.list_mut(holder, class).map(|list| list.last = link.previous()),
        }
        self.count_in(holder, class, false);
    }

    /// Files a flow of this holder anew.
    pub fn refile(&mut self, slot: u32, holder: Holder, class: Class, at: u32) {
        if self.filed(slot).is_some() {
            self.take(slot, holder);
            self.file(slot, holder, class, at);
        }
    }

    fn ranking(&self, class: Class) -> &Ranking {
        let [over, denied, unanswered, answered] = &self.by_class;
        match class {
            Class::Over => over,
            Class::Denied => denied,
            Class::Unanswered => unanswered,
            Class::Answered => answered,
        }
    }

    fn count_in(&mut self, holder: Holder, class: Class, more: bool) {
        if let Some(ranking) = self.by_class.get_mut(class as usize) {
            ranking.change(holder, more);
        }
        self.total.change(holder, more);
        match (more, self.total.count(holder)) {
            (true, 1) => self.holding += 1,
            (false, 0) => self.holding -= 1,
            _ => {}
        }
    }

    fn list_mut(&mut self, holder: Holder, class: Class) -> Option<&mut List> {
        self.lists.get_mut(holder.0 as usize)?.get_mut(class as usize)
    }

    /// What a flow was when it was filed. Whose it is its key tells.
    #[must_use]
    pub fn filed(&self, slot: u32) -> Option<Class> {
        self.link(slot).map(|link| link.class())
    }

    /// When a flow was last known to be of use.
    #[must_use]
    pub fn at(&self, slot: u32) -> u32 {
        self.link(slot).map_or(0, |link| link.at)
    }

    /// The flow of a holder and class that was filed first.
    #[must_use]
    pub fn first(&self, holder: Holder, class: Class) -> Option<u32> {
        self.lists.get(holder.0 as usize)?.get(class as usize)?.first.checked_sub(1)
    }

    /// The flow that was filed next after this one, in the same list.
    #[must_use]
    pub fn after(&self, slot: u32) -> Option<u32> {
        self.link(slot)?.next().checked_sub(1)
    }

    /// How many flows of a class a holder has.
    #[must_use]
    pub fn count(&self, holder: Holder, class: Class) -> u32 {
        self.ranking(class).count(holder)
    }

    /// How many flows a holder has.
    #[must_use]
    pub fn total(&self, holder: Holder) -> u32 {
        self.total.count(holder)
    }

    /// Who has most flows of a class.
    #[must_use]
    pub fn most(&self, class: Class) -> Option<Holder> {
        self.ranking(class).most()
    }

    /// Who has most flows.
    #[must_use]
    pub fn most_of_all(&self) -> Option<Holder> {
        self.total.most()
    }

    /// How many hold something.
    #[must_use]
    pub const fn holding(&self) -> u32 {
        self.holding
    }
}

/// Holders in the order of a heap: who has most is first.
#[derive(Default)]
struct Ranking {
    /// By place of the holder.
    counts: Vec<u32>,
    heap: Vec<u32>,
    /// By place of the holder, where in the heap it is.
    at: Vec<u32>,
}

impl Ranking {
    /// One more holder, with nothing.
    fn enter(&mut self) {
        let place = self.counts.len() as u32;
        self.counts.push(0);
        self.heap.push(place);
        self.at.push(place);
    }

    fn count(&self, holder: Holder) -> u32 {
        self.counts.get(holder.0 as usize).copied().unwrap_or(0)
    }

    fn most(&self) -> Option<Holder> {
        self.heap.first().copied().map(Holder).filter(|holder| self.count(*holder) > 0)
    }

    /// A flow more, or less.
    fn change(&mut self, holder: Holder, more: bool) {
        let (Some(count), Some(at)) = (self.counts.get_mut(holder.0 as usize), self.at.get(holder.0 as usize).copied())
        else {
            return;
        };
        if more {
            *count += 1;
            self.rise(at as usize);
        } else {
            *count -= 1;
            self.sink(at as usize);
        }
    }

    fn count_at(&self, at: usize) -> Option<u32> {
        self.counts.get(*self.heap.get(at)? as usize).copied()
    }

    fn rise(&mut self, mut at: usize) {
        while at > 0 && self.count_at(at) > self.count_at((at - 1) / 2) {
            self.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    fn sink(&mut self, mut at: usize) {
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            // Beyond the end is `None`, which is less than any number.
            let larger = if self.count_at(right) > self.count_at(left) { right } else { left };
            if self.count_at(larger) <= self.count_at(at) {
                return;
            }
            self.swap(at, larger);
            at = larger;
        }
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        for at in [one, other] {
            if let Some(place) = self.heap.get(at)
                && let Some(known) = self.at.get_mut(*place as usize)
            {
                *known = at as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use proptest::prelude::*;

    use super::*;

    const CLASSES: [Class; 4] = [Class::Over, Class::Denied, Class::Unanswered, Class::Answered];

    #[derive(Debug, Clone)]
    enum Step {
        File(u32, u32, u8),
        Take(u32),
        Refile(u32, u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..64u32, 0..9u32, 0..4u8).prop_map(|(slot, holder, class)| Step::File(slot, holder, class)),
            2 => (0..64u32).prop_map(Step::Take),
            1 => (0..64u32, 0..4u8).prop_map(|(slot, class)| Step::Refile(slot, class)),
        ]
    }

    proptest! {
        /// The model: a queue for each holder and class.
        #[test]
        fn holdings_are_those_of_a_plain_model(steps in prop::collection::vec(step(), 1..400)) {
            let mut held = Holdings::new(64).unwrap();
            let mut model: BTreeMap<(u32, Class), VecDeque<u32>> = BTreeMap::new();
            let mut whose: BTreeMap<u32, (u32, Class)> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::File(slot, holder, class) => {
                        let class = Class::of(class.into());
                        if whose.contains_key(&slot) {
                            continue;
                        }
                        let place = held.holder(holder * 7);
                        held.file(slot, place, class, slot);
                        whose.insert(slot, (holder, class));
                        model.entry((holder, class)).or_default().push_back(slot);
                    }
                    Step::Take(slot) => {
                        let Some(key) = whose.remove(&slot) else { continue };
                        let place = held.holder(key.0 * 7);
                        held.take(slot, place);
                        model.get_mut(&key).unwrap().retain(|other| *other != slot);
                    }
                    Step::Refile(slot, class) => {
                        let class = Class::of(class.into());
                        let Some((holder, old)) = whose.remove(&slot) else { continue };
                        let place = held.holder(holder * 7);
                        held.refile(slot, place, class, 0);
                        model.get_mut(&(holder, old)).unwrap().retain(|other| *other != slot);
                        model.entry((holder, class)).or_default().push_back(slot);
                        whose.insert(slot, (holder, class));
                    }
                }
                let mut totals: BTreeMap<u32, u32> = BTreeMap::new();
                for holder in 0..9 {
                    let place = held.holder(holder * 7);
                    for class in CLASSES {
                        let queue = model.get(&(holder, class));
                        let count = queue.map_or(0, |queue| queue.len() as u32);
                        prop_assert_eq!(held.count(place, class), count);
                        prop_assert_eq!(held.first(place, class), queue.and_then(|queue| queue.front().copied()));
                        *totals.entry(holder).or_default() += count;
                    }
                    prop_assert_eq!(held.total(place), totals[&holder]);
                }
                let most = held.most_of_all().map_or(0, |holder| held.total(holder));
                prop_assert_eq!(most, totals.values().copied().max().unwrap_or(0));
                for class in CLASSES {
                    let most = held.most(class).map_or(0, |holder| held.count(holder, class));
                    let queues = model.iter().filter(|((_, of), _)| *of == class).map(|(_, queue)| queue.len() as u32);
                    prop_assert_eq!(most, queues.max().unwrap_or(0));
                }
                prop_assert_eq!(held.holding() as usize, totals.values().filter(|total| **total > 0).count());
                prop_assert_eq!(totals.values().sum::<u32>() as usize, whose.len());
            }
        }
    }
}
