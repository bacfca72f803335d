//! Rule tables: groups of priority levels of tuples. A tuple holds all rules of one shape; it is a hash table.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::action::PortId;
use super::shape::{Compiled, View, Word};

/// Domain of groups: each has a group 0 of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Domain {
    /// The switch.
    Transfer,
    /// What a port receives.
    Ingress(PortId),
    /// What the application sends on a port.
    Egress(PortId),
}

/// No entry.
const NONE: u32 = u32::MAX;

/// Keys are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, octets: &[u8]) {
        for &octet in octets {
            self.0 = self.0.rotate_left(8) ^ u64::from(octet);
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

fn hash_step(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word) * 0x9e37_79b9_7f4a_7c15;
    (product >> 64) as u64 ^ product as u64
}

const SEED: u64 = 0x2545_f491_4f6c_dd1d;

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u64,
    next: u32,
    rule: u32,
}

/// All rules of one shape at one priority of one group.
#[derive(Default)]
struct Tuple {
    required: u32,
    words: Box<[Word]>,
    heads: HashMap<u64, u32, BuildHasherDefault<Identity>>,
    entries: Vec<Entry>,
    /// Keys of the entries, one after the other.
    keys: Vec<u64>,
    free: Vec<u32>,
}

impl Tuple {
    fn key(&self, entry: u32) -> &[u64] {
        let at = entry as usize * self.words.len();
        self.keys.get(at..at + self.words.len()).unwrap_or_default()
    }

    fn insert(&mut self, key: &[u64], rule: u32) -> u32 {
        let hash = key.iter().fold(SEED, |hash, &word| hash_step(hash, word));
        let entry = Entry { hash, next: NONE, rule };
        let place = match self.free.pop() {
            Some(place) => {
                if let Some(slot) = self.entries.get_mut(place as usize) {
                    *slot = entry;
                }
                let at = place as usize * key.len();
                if let Some(slot) = self.keys.get_mut(at..at + key.len()) {
                    slot.copy_from_slice(key);
                }
                place
            }
            None => {
                self.entries.push(entry);
                self.keys.extend_from_slice(key);
                (self.entries.len() - 1) as u32
            }
        };
        if let Some(next) = self.heads.insert(hash, place)
            && let Some(slot) = self.entries.get_mut(place as usize)
        {
            slot.next = next;
        }
        place
    }

    fn remove(&mut self, place: u32) {
        let Some(&Entry { hash, next, .. }) = self.entries.get(place as usize) else { return };
        let mut at = self.heads.get(&hash).copied().unwrap_or(NONE);
        if at == place {
            if next == NONE {
                self.heads.remove(&hash);
            } else {
                self.heads.insert(hash, next);
            }
        }
        while let Some(entry) = self.entries.get_mut(at as usize) {
            if entry.next == place {
                entry.next = next;
                break;
            }
            at = entry.next;
        }
        self.free.push(place);
    }

    /// Calls `each` with the rules whose key the packet has.
    fn find(&self, view: &View, mut each: impl FnMut(u32)) {
        if self.heads.is_empty() || view.layers.present & self.required != self.required {
            return;
        }
        let hash = self.words.iter().fold(SEED, |hash, word| hash_step(hash, view.word(word)));
        let mut at = self.heads.get(&hash).copied().unwrap_or(NONE);
        while let Some(entry) = self.entries.get(at as usize) {
            if self.key(at).iter().zip(&self.words).all(|(&key, word)| view.word(word) == key) {
                each(entry.rule);
            }
            at = entry.next;
        }
    }

    fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

/// Where a rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Location {
    tuple: u32,
    entry: u32,
}

/// A rule's rank inside its group: priority, then age.
pub(crate) type Rank = (u32, u64);

/// A priority and the tuples of it.
type Level = (u32, Vec<u32>);

/// All tables of a NIC.
#[derive(Default)]
pub(crate) struct Tables {
    groups: HashMap<(Domain, u32), Vec<Level>>,
    tuples: Vec<Tuple>,
}

impl Tables {
    /// The tuple of this shape, made if there is none.
    fn tuple(&mut self, domain: Domain, group: u32, priority: u32, pattern: &Compiled) -> u32 {
        let levels = self.groups.entry((domain, group)).or_default();
        let at = match levels.binary_search_by_key(&priority, |level| level.0) {
            Ok(at) => at,
            Err(at) => {
                levels.insert(at, (priority, Vec::new()));
                at
            }
        };
        let Some((_, tuples)) = levels.get_mut(at) else { return NONE };
        let known = tuples.iter().copied().find(|&tuple| {
            self.tuples
                .get(tuple as usize)
                .is_some_and(|tuple| tuple.required == pattern.required && *tuple.words == *pattern.words())
        });
        known.unwrap_or_else(|| {
            let tuple = Tuple { required: pattern.required, words: pattern.words().into(), ..Tuple::default() };
            self.tuples.push(tuple);
            let number = (self.tuples.len() - 1) as u32;
            tuples.push(number);
            number
        })
    }

    pub(crate) fn insert(
        &mut self,
        domain: Domain,
        group: u32,
        priority: u32,
        pattern: &Compiled,
        rule: u32,
    ) -> Location {
        let tuple = self.tuple(domain, group, priority, pattern);
        let entry = self.tuples.get_mut(tuple as usize).map_or(NONE, |tuple| tuple.insert(pattern.key(), rule));
        Location { tuple, entry }
    }

    pub(crate) fn remove(&mut self, location: Location) {
        if let Some(tuple) = self.tuples.get_mut(location.tuple as usize) {
            tuple.remove(location.entry);
        }
    }

    /// The best rule of a group that matches and ranks behind `after`. `admit` answers a candidate's age, or `None` when it is not in
    /// force or its ranges do not hold.
    pub(crate) fn lookup(
        &self,
        domain: Domain,
        group: u32,
        after: Option<Rank>,
        view: &View,
        admit: impl Fn(u32) -> Option<u64>,
    ) -> Option<(Rank, u32)> {
        let mut best: Option<(Rank, u32)> = None;
        for (priority, tuples) in self.groups.get(&(domain, group))? {
            for &tuple in tuples {
                let Some(tuple) = self.tuples.get(tuple as usize) else { continue };
                tuple.find(view, |rule| {
                    if let Some(age) = admit(rule) {
                        let rank = (*priority, age);
                        if after.is_none_or(|after| rank > after) && best.is_none_or(|(best, _)| rank < best) {
                            best = Some((rank, rule));
                        }
                    }
                });
            }
            if best.is_some() {
                break;
            }
        }
        best
    }

    /// Rules with exactly this pattern in this place.
    pub(crate) fn same(
        &self,
        domain: Domain,
        group: u32,
        priority: u32,
        pattern: &Compiled,
        mut is_same: impl FnMut(u32) -> bool,
    ) -> bool {
        let Some(levels) = self.groups.get(&(domain, group)) else { return false };
        let Some((_, tuples)) = levels.iter().find(|level| level.0 == priority) else { return false };
        tuples.iter().filter_map(|&tuple| self.tuples.get(tuple as usize)).any(|tuple| {
            if tuple.required != pattern.required || *tuple.words != *pattern.words() {
                return false;
            }
            let hash = pattern.key().iter().fold(SEED, |hash, &word| hash_step(hash, word));
            let mut at = tuple.heads.get(&hash).copied().unwrap_or(NONE);
            while let Some(entry) = tuple.entries.get(at as usize) {
                if tuple.key(at) == pattern.key() && is_same(entry.rule) {
                    return true;
                }
                at = entry.next;
            }
            false
        })
    }

    /// Is a group without rules?
    pub(crate) fn is_empty(&self, domain: Domain, group: u32) -> bool {
        self.groups.get(&(domain, group)).is_none_or(|levels| {
            levels
                .iter()
                .flat_map(|level| &level.1)
                .all(|&tuple| self.tuples.get(tuple as usize).is_none_or(|tuple| tuple.len() == 0))
        })
    }
}
