//! Which packets two versions of an access list may judge otherwise.
//!
//! The first entry that matches decides. A packet that matches none of the entries that came, went, changed or moved meets the same
//! others in the same order in both versions, so that the same one decides: it is enough to name what those entries match.

use std::collections::{BTreeSet, HashMap};

use crate::forwarding::{Ace, Acl, Selector};

/// Selectors that are told of one change of a list.
const MOST: usize = 64;

/// Selectors of all packets that two versions of a list may judge otherwise, or by another entry; of a list that is not there, `None`,
/// no entry decides. `None`: they are more than [`MOST`].
pub(super) fn judged_otherwise(old: Option<&Acl>, new: Option<&Acl>) -> Option<Vec<Selector>> {
    let default = |list: Option<&Acl>| list.and_then(|list| list.default);
    if default(old) != default(new) {
        // What no entry matches is the rest of everything.
        return Some(vec![Selector::ALL]);
    }
    let [before, after] = [old, new].map(|list| list.map_or(&[][..], |list| &list.entries));
    let kept = kept(before, after);
    let [gone, come] = [(before, kept.before), (after, kept.after)].map(|(entries, kept)| {
        (0..).zip(entries).filter(move |(at, _): &(usize, _)| !kept.contains(at)).map(|(_, entry)| entry.selector())
    });
    let mut selectors = Vec::new();
    for selector in gone.chain(come) {
        if selectors.contains(&selector) {
            continue;
        }
        if selectors.len() == MOST {
            return None;
        }
        selectors.push(selector);
    }
    Some(selectors)
}

/// Places of entries that both versions have in the same order.
#[derive(Default)]
struct Kept {
    before: BTreeSet<usize>,
    after: BTreeSet<usize>,
}

/// As many entries as possible that both versions have in the same order: numbers of entries are unique in a list, so that it is the
/// longest rising sequence of the places that the new version's entries had in the old one.
fn kept(before: &[Ace], after: &[Ace]) -> Kept {
    let places: HashMap<u32, usize> = (0..).zip(before).map(|(at, entry)| (entry.id, at)).collect();
    // For each length, the sequence of that length that ends at the least place: that place, and where it is now.
    let mut ends: Vec<(usize, usize)> = Vec::new();
    // What comes before an entry in the sequence that it was added to.
    let mut links: HashMap<usize, (usize, usize)> = HashMap::new();
    for (now, entry) in after.iter().enumerate() {
        let Some(was) = places.get(&entry.id).copied().filter(|was| before.get(*was) == Some(entry)) else { continue };
        let length = ends.partition_point(|(end, _)| *end < was);
        if let Some(link) = length.checked_sub(1).and_then(|shorter| ends.get(shorter)) {
            links.insert(now, *link);
        }
        match ends.get_mut(length) {
            Some(end) => *end = (was, now),
            None => ends.push((was, now)),
        }
    }
    let mut kept = Kept::default();
    let mut next = ends.last().copied();
    while let Some((was, now)) = next {
        kept.before.insert(was);
        kept.after.insert(now);
        next = links.get(&now).copied();
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        VifId, VrfId,
        classify::{AclPacket, evaluate},
        flow::FlowKey,
        forwarding::{
            Action, Scope,
            testing::{ace, acl},
        },
    };

    fn differ(old: &[Ace], new: &[Ace]) -> Option<Vec<Selector>> {
        judged_otherwise(Some(&acl(5, old.to_vec(), None)), Some(&acl(5, new.to_vec(), None)))
    }

    fn to(id: u32, prefix: &str) -> Ace {
        Ace { destination: Some(prefix.parse().unwrap()), ..ace(id, Action::Permit) }
    }

    #[test]
    fn entries_that_stay_in_order_are_not_named() {
        let [a, b, c, d] = [(1, "10.1.0.0/16"), (2, "10.2.0.0/16"), (3, "10.3.0.0/16"), (4, "10.4.0.0/16")]
            .map(|(id, prefix)| to(id, prefix));
        let all = [a.clone(), b.clone(), c.clone(), d.clone()];
        assert_eq!(differ(&all, &all), Some(vec![]));
        let without_b = [a.clone(), c.clone(), d.clone()];
        assert_eq!(differ(&all, &without_b), Some(vec![b.selector()]), "one that goes");
        assert_eq!(differ(&without_b, &all), Some(vec![b.selector()]), "one that comes");
        let d_first = [d.clone(), a.clone(), b.clone(), c.clone()];
        assert_eq!(differ(&all, &d_first), Some(vec![d.selector()]), "one that moves");
        let denied = Ace { action: Action::Deny, ..c.clone() };
        assert_eq!(differ(&all, &[a, b, denied, d]), Some(vec![c.selector()]), "one that does something else");
    }

    #[test]
    fn another_number_of_an_entry_is_another_entry() {
        let (old, new) = (to(1, "10.1.0.0/16"), to(9, "10.1.0.0/16"));
        assert_eq!(differ(&[old], std::slice::from_ref(&new)), Some(vec![new.selector()]));
    }

    #[test]
    fn another_default_concerns_everything_and_too_many_entries_are_not_told() {
        let [open, closed] = [None, Some(Action::Deny)].map(|default| acl(5, vec![], default));
        assert_eq!(judged_otherwise(Some(&open), Some(&closed)), Some(vec![Selector::ALL]));
        assert_eq!(judged_otherwise(None, Some(&open)), Some(vec![]), "without entries it says nothing");
        let entries = |count: u32| -> Vec<Ace> { (0..count).map(|i| to(i, &format!("10.0.{i}.0/24"))).collect() };
        assert_eq!(differ(&[], &entries(64)).map(|told| told.len()), Some(64));
        assert_eq!(differ(&[], &entries(65)), None);
    }

    fn any_entry() -> impl Strategy<Value = Ace> {
        let prefix = || prop::sample::select(vec![None, Some("10.0.0.0/31"), Some("10.0.0.1/32"), Some("fd00::/64")]);
        let ports = || prop::sample::select(vec![None, Some((1, 2)), Some((2, 2))]);
        let what = (any::<bool>(), any::<bool>(), prop::sample::select(vec![None, Some(1), Some(17)]));
        (1u32..6, what, prefix(), prefix(), ports(), ports()).prop_map(
            |(id, (deny, stateless, proto), source, destination, source_ports, destination_ports)| Ace {
                id,
                action: if deny { Action::Deny } else { Action::Permit },
                scope: if stateless { Scope::Stateless } else { Scope::Stateful },
                proto,
                source: source.map(|prefix| prefix.parse().unwrap()),
                destination: destination.map(|prefix| prefix.parse().unwrap()),
                source_ports: source_ports.filter(|_| proto == Some(17)),
                destination_ports: destination_ports.filter(|_| proto.is_some()),
            },
        )
    }

    fn any_list() -> impl Strategy<Value = Acl> {
        let default = prop::sample::select(vec![None, None, Some(Action::Permit), Some(Action::Deny)]);
        (prop::collection::vec(any_entry(), 0..6), default).prop_map(|(mut entries, default)| {
            let mut seen = BTreeSet::new();
            entries.retain(|entry| seen.insert(entry.id));
            acl(5, entries, default)
        })
    }

    /// A list, and the same with some entries swapped, removed or replaced.
    fn two_lists() -> impl Strategy<Value = (Acl, Acl)> {
        let edits = prop::collection::vec((0usize..6, 0usize..6, prop::option::of(any_entry())), 0..3);
        (any_list(), edits).prop_map(|(old, edits)| {
            let mut new = old.clone();
            for (one, other, entry) in edits.iter().filter(|_| !old.entries.is_empty()) {
                let (one, other) = (one % old.entries.len(), other % old.entries.len());
                match entry {
                    Some(entry) => new.entries[one] = Ace { id: new.entries[one].id, ..entry.clone() },
                    None => new.entries.swap(one, other),
                }
            }
            (old, new)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        /// What is not named is decided on by the same entry in the same way.
        #[test]
        fn a_packet_that_no_selector_matches_is_judged_as_before(
            (old, new) in prop_oneof![two_lists(), (any_list(), any_list())],
        ) {
            let Some(selectors) = judged_otherwise(Some(&old), Some(&new)) else {
                return Err(TestCaseError::fail("few entries are told"));
            };
            let hosts = ["10.0.0.0", "10.0.0.1", "10.0.0.2", "fd00::1", "fd01::1"].map(|host| host.parse().unwrap());
            for (source, destination) in hosts.iter().flat_map(|one| hosts.map(|other| (*one, other))) {
                let source: std::net::IpAddr = source;
                if source.is_ipv4() != destination.is_ipv4() {
                    continue;
                }
                for (proto, sport, dport) in [1, 6, 17].into_iter().flat_map(|p| (0..4).flat_map(move |s| (0..4).map(move |d| (p, s, d)))) {
                    let packet = AclPacket {
                        source,
                        destination,
                        proto,
                        source_port: if proto == 1 { 0 } else { sport },
                        destination_port: dport,
                    };
                    let vrf = VrfId::new(1).unwrap();
                    let key = FlowKey::new(vrf, VifId::new(1).unwrap(), source, destination, proto, sport, dport);
                    let [before, after] = [&old, &new].map(|list| evaluate([list], &packet));
                    let named = selectors.iter().any(|selector| selector.may_match(&key));
                    prop_assert!(named || before == after, "{:?}: {:?}, then {:?}", packet, before, after);
                }
            }
        }
    }
}
