//! Rules by table, as software steering keeps them: a matcher after the other by priority, in each a hash of the masked fields.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Id;
use crate::machine::{Params, VERSIONS, VLAN_KINDS};

/// Octets of `fte_match_param`.
const BLOCK: usize = 64;

/// Where rules are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// Level 0 of a domain.
    Root(Id),
    /// A table of a higher level.
    Table(Id),
}

/// Masked fields: the octets of `fte_match_param` that a matcher looks at.
pub type Key = Vec<u8>;

/// A mask and its place.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// Where its rules are.
    pub place: Place,
    /// The lowest first.
    pub priority: u16,
    /// The mask as the driver gave it.
    pub given: Params,
    /// Octets that are compared: place and mask.
    octets: Vec<(usize, u8)>,
}

impl Matcher {
    pub(super) fn new(place: Place, priority: u16, criteria: u8, mask: &[u8]) -> Self {
        let given = Params::new(mask);
        let mut whole = given.clone();
        // A tag is none, a C-tag or an S-tag: two bits of the STE, both compared if one is asked for (rdma-core dr_ste_v1.c,
        // dr_ste_v1_build_eth_l2_src_bit_mask: first_vlan_qualifier). So is the version of IP, whatever bits of it are masked.
        for group in VLAN_KINDS.iter().chain(&VERSIONS) {
            if group.iter().any(|field| given.get(*field) != 0) {
                group.iter().for_each(|field| whole.set(*field, u64::MAX));
            }
        }
        // A block that is no criterion is not looked at.
        let counts = |at: usize| criteria >> (at / BLOCK).min(7) & 1 == 1;
        let octets = whole.octets().iter().enumerate().filter(|(at, mask)| **mask != 0 && counts(*at));
        Self { place, priority, given, octets: octets.map(|(at, mask)| (at, *mask)).collect() }
    }

    /// What of these fields it looks at.
    #[must_use]
    pub fn key(&self, fields: &[u8]) -> Key {
        self.octets.iter().map(|(at, mask)| fields.get(*at).copied().unwrap_or(0) & mask).collect()
    }
}

/// A rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Of this matcher.
    pub matcher: Id,
    /// Matches packets with these masked fields.
    pub key: Key,
    /// What it does, in this order.
    pub actions: Vec<Id>,
}

/// The rules of one table.
#[derive(Debug, Default)]
pub struct TableRules {
    /// Matchers in the order in which the device asks them: by priority, then the older first.
    order: BTreeSet<(u16, Id)>,
    rules: BTreeMap<Id, HashMap<Key, BTreeSet<Id>>>,
}

impl TableRules {
    pub(super) fn enter(&mut self, id: Id, matcher: &Matcher) {
        self.order.insert((matcher.priority, id));
    }

    pub(super) fn leave(&mut self, id: Id) {
        self.order.retain(|(_, matcher)| *matcher != id);
        self.rules.remove(&id);
    }

    pub(super) fn add(&mut self, matcher: Id, key: Key, rule: Id) {
        self.rules.entry(matcher).or_default().entry(key).or_default().insert(rule);
    }

    pub(super) fn remove(&mut self, matcher: Id, key: &Key, rule: Id) {
        let Some(rules) = self.rules.get_mut(&matcher) else { return };
        if let Some(same) = rules.get_mut(key) {
            same.remove(&rule);
            if same.is_empty() {
                rules.remove(key);
            }
        }
    }

    /// Matchers with rules, in the order in which the device asks them.
    pub fn matchers(&self) -> impl Iterator<Item = Id> {
        self.order.iter().map(|(_, matcher)| *matcher).filter(|matcher| self.rules.contains_key(matcher))
    }

    /// The rule of a matcher for these masked fields; of several the oldest.
    #[must_use]
    pub fn find(&self, matcher: Id, key: &Key) -> Option<Id> {
        self.rules.get(&matcher)?.get(key)?.first().copied()
    }
}
