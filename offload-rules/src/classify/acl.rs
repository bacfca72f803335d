//! Access lists: first match decides.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    AclId,
    flow::AclEntry,
    forwarding::{Ace, Acl, Action, Scope},
};

const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// What lists are matched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AclPacket {
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// IP protocol.
    pub proto: u8,
    /// Source port (0 for ICMP).
    pub source_port: u16,
    /// Destination port; ICMP: type.
    pub destination_port: u16,
}

/// What decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AclMatch {
    /// The list.
    pub acl: AclId,
    /// The entry; `None` is the list's default.
    pub ace: Option<u32>,
    /// Verdict.
    pub action: Action,
    /// Whether replies share the verdict.
    pub scope: Scope,
}

impl AclMatch {
    /// The entry, as a program remembers it.
    #[must_use]
    pub const fn entry(self) -> AclEntry {
        AclEntry { acl: self.acl, ace: self.ace }
    }
}

/// What lists say of a fragment whose head is not known: neither ports nor ICMP type, in IPv6 not even the protocol, because
/// only the first fragment's next header counts (RFC 8200 §4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FragmentMatch {
    /// The same whatever the head holds: the first match that is possible, as [`evaluate`] has it.
    Decided(Option<AclMatch>),
    /// It depends on what the head holds.
    Depends,
}

/// The first match over lists in order; `None` when no entry matches and no list has a default (the caller permits).
///
/// A list whose entries do not match decides by its default, and without one goes on with the next list. What a default
/// permits, it permits statefully.
pub fn evaluate<'a>(lists: impl IntoIterator<Item = &'a Acl>, packet: &AclPacket) -> Option<AclMatch> {
    lists.into_iter().find_map(|acl| {
        if let Some(ace) = acl.entries.iter().find(|ace| matches(ace, packet)) {
            return Some(AclMatch { acl: acl.id, ace: Some(ace.id), action: ace.action, scope: ace.scope });
        }
        acl.default.map(|action| AclMatch { acl: acl.id, ace: None, action, scope: Scope::default() })
    })
}

/// As [`evaluate`], for a fragment whose head is not known. An entry that asks for what the head holds may match or not; as
/// long as all that may decide say the same, so does the list.
pub fn evaluate_fragment<'a>(lists: impl IntoIterator<Item = &'a Acl>, packet: &AclPacket) -> FragmentMatch {
    let mut possible: Option<AclMatch> = None;
    for acl in lists {
        let entries = acl.entries.iter().filter(|ace| matches_addresses(ace, packet)).filter_map(|ace| {
            let certain = matches_headless(ace, packet)?;
            Some((AclMatch { acl: acl.id, ace: Some(ace.id), action: ace.action, scope: ace.scope }, certain))
        });
        let default = acl.default.map(|action| {
            let found = AclMatch { acl: acl.id, ace: None, action, scope: Scope::default() };
            (found, true)
        });
        for (found, certain) in entries.chain(default) {
            if possible.get_or_insert(found).action != found.action {
                return FragmentMatch::Depends;
            }
            if certain {
                return FragmentMatch::Decided(possible);
            }
        }
    }
    // After the last list it is permitted.
    match possible {
        Some(AclMatch { action: Action::Deny, .. }) => FragmentMatch::Depends,
        possible => FragmentMatch::Decided(possible),
    }
}

fn matches(ace: &Ace, packet: &AclPacket) -> bool {
    let ports = |ports: Option<(u16, u16)>, port| ports.is_none_or(|(first, last)| (first..=last).contains(&port));
    ace.proto.is_none_or(|proto| proto == packet.proto)
        && matches_addresses(ace, packet)
        && ports(ace.source_ports, packet.source_port)
        && ports(ace.destination_ports, packet.destination_port)
}

/// A prefix of the other family holds no address of this one.
fn matches_addresses(ace: &Ace, packet: &AclPacket) -> bool {
    let prefix = |prefix: Option<IpNet>, address| prefix.is_none_or(|prefix| prefix.contains(&address));
    prefix(ace.source, packet.source) && prefix(ace.destination, packet.destination)
}

/// Whether an entry whose addresses match is certain to match a fragment whose head is not known; `None`: it cannot.
fn matches_headless(ace: &Ace, packet: &AclPacket) -> Option<bool> {
    let all = if matches!(ace.proto, Some(ICMP | ICMP6)) { 255 } else { u16::MAX };
    let narrows = |ports: Option<(u16, u16)>| ports.is_some_and(|(first, last)| first > 0 || last < all);
    let asks_for_head = narrows(ace.source_ports) || narrows(ace.destination_ports);
    match ace.proto {
        None => Some(!asks_for_head),
        // Part of the datagram's identity (RFC 791 §3.2): all its fragments name the same.
        Some(proto) if packet.source.is_ipv4() => (proto == packet.proto).then_some(!asks_for_head),
        Some(_) => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::forwarding::testing::{ace, acl, acl_id};

    fn packet(source: &str, destination: &str, proto: u8, ports: (u16, u16)) -> AclPacket {
        AclPacket {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            proto,
            source_port: ports.0,
            destination_port: ports.1,
        }
    }

    fn web() -> AclPacket {
        packet("192.168.100.100", "192.168.1.100", 6, (40000, 443))
    }

    fn decision(acl: u32, ace: Option<u32>, action: Action) -> Option<AclMatch> {
        Some(AclMatch { acl: acl_id(acl), ace, action, scope: Scope::Stateful })
    }

    /// Whether an entry that was changed from "everything" still matches.
    fn entry_matches(packet: AclPacket, change: impl FnOnce(&mut Ace)) -> bool {
        let mut entry = ace(1, Action::Deny);
        change(&mut entry);
        evaluate([&acl(1, vec![entry], None)], &packet).is_some()
    }

    #[test]
    fn without_lists_nothing_is_decided() {
        assert_eq!(evaluate([], &web()), None);
        assert_eq!(evaluate([&acl(1, vec![], None)], &web()), None);
    }

    #[test]
    fn the_first_entry_that_matches_decides() {
        let mut other = ace(10, Action::Deny);
        other.proto = Some(17);
        let list = acl(1, vec![other, ace(20, Action::Permit), ace(30, Action::Deny)], None);
        assert_eq!(evaluate([&list], &web()), decision(1, Some(20), Action::Permit));
    }

    #[test]
    fn a_list_without_default_goes_on_with_the_next() {
        let mut other = ace(10, Action::Deny);
        other.proto = Some(17);
        let (first, second) = (acl(1, vec![other], None), acl(2, vec![ace(7, Action::Deny)], None));
        assert_eq!(evaluate([&first, &second], &web()), decision(2, Some(7), Action::Deny));
    }

    #[test]
    fn a_default_decides_before_the_next_list() {
        let (first, second) = (acl(1, vec![], Some(Action::Deny)), acl(2, vec![ace(7, Action::Permit)], None));
        assert_eq!(evaluate([&first, &second], &web()), decision(1, None, Action::Deny));
    }

    #[test]
    fn the_scope_of_the_entry_is_reported() {
        let mut entry = ace(1, Action::Permit);
        entry.scope = Scope::Stateless;
        let found = evaluate([&acl(1, vec![entry], None)], &web()).unwrap();
        assert_eq!(found.scope, Scope::Stateless);
    }

    #[test]
    fn every_field_of_an_entry_must_match() {
        assert!(entry_matches(web(), |e| e.proto = Some(6)));
        assert!(!entry_matches(web(), |e| e.proto = Some(17)));
        assert!(entry_matches(web(), |e| e.source = Some("192.168.100.0/24".parse().unwrap())));
        assert!(!entry_matches(web(), |e| e.source = Some("192.168.1.0/24".parse().unwrap())));
        assert!(entry_matches(web(), |e| e.destination = Some("192.168.1.100/32".parse().unwrap())));
        assert!(!entry_matches(web(), |e| e.destination = Some("192.168.1.101/32".parse().unwrap())));
        assert!(!entry_matches(web(), |e| {
            e.source = Some("192.168.100.0/24".parse().unwrap());
            e.proto = Some(17);
        }));
    }

    #[test]
    fn both_ends_of_a_port_range_are_in_it() {
        for (range, matches) in
            [((443, 443), true), ((1, 443), true), ((443, 500), true), ((1, 442), false), ((444, 500), false)]
        {
            assert_eq!(entry_matches(web(), |e| e.destination_ports = Some(range)), matches, "{range:?}");
        }
        assert!(entry_matches(web(), |e| e.source_ports = Some((40000, 40000))));
        assert!(!entry_matches(web(), |e| e.source_ports = Some((443, 443))));
    }

    #[test]
    fn a_prefix_of_the_other_family_matches_nothing() {
        let v6 = packet("2001:db8::1", "2001:db8::2", 58, (0, 128));
        assert!(!entry_matches(v6, |e| e.source = Some("0.0.0.0/0".parse().unwrap())));
        assert!(!entry_matches(web(), |e| e.destination = Some("::/0".parse().unwrap())));
        assert!(entry_matches(v6, |e| e.source = Some("::/0".parse().unwrap())));
        assert!(entry_matches(v6, |_| {}), "an entry without prefixes is for both families");
    }

    #[test]
    fn the_destination_port_of_icmp_is_its_type() {
        let echo = packet("192.168.100.100", "192.168.1.100", 1, (0, 8));
        assert!(entry_matches(echo, |e| (e.proto, e.destination_ports) = (Some(1), Some((8, 8)))));
        assert!(!entry_matches(echo, |e| (e.proto, e.destination_ports) = (Some(1), Some((0, 0)))));
    }

    /// Action, protocol, destination ports.
    type Entry = (Action, Option<u8>, Option<(u16, u16)>);

    /// What a list of entries and a default says of a fragment.
    fn of_fragment(entries: &[Entry], default: Option<Action>, packet: &AclPacket) -> FragmentMatch {
        let entries = (1..).zip(entries).map(|(id, (action, proto, ports))| {
            let mut entry = ace(id, *action);
            (entry.proto, entry.destination_ports) = (*proto, *ports);
            entry
        });
        evaluate_fragment([&acl(1, entries.collect(), default)], packet)
    }

    const DNS: Option<(u16, u16)> = Some((53, 53));

    fn fragment4() -> AclPacket {
        packet("192.168.100.100", "192.168.1.100", 17, (0, 0))
    }

    fn fragment6() -> AclPacket {
        packet("2001:db8::1", "2001:db8::2", 0, (0, 0))
    }

    #[test]
    fn what_an_entry_with_ports_decides_depends_on_the_head() {
        for packet in [fragment4(), fragment6()] {
            for (entry, default) in [(Action::Deny, Action::Permit), (Action::Permit, Action::Deny)] {
                let list = [(entry, Some(17), DNS)];
                assert_eq!(of_fragment(&list, Some(default), &packet), FragmentMatch::Depends);
            }
            // Without a default it is permitted after the last list.
            assert_eq!(of_fragment(&[(Action::Deny, Some(17), DNS)], None, &packet), FragmentMatch::Depends);
        }
    }

    #[test]
    fn what_all_entries_that_may_match_agree_on_does_not_depend_on_the_head() {
        let decided = |ace, action| FragmentMatch::Decided(decision(1, ace, action));
        let deny = [(Action::Deny, Some(17), DNS)];
        assert_eq!(of_fragment(&deny, Some(Action::Deny), &fragment4()), decided(Some(1), Action::Deny));
        let permit = [(Action::Permit, Some(17), DNS)];
        assert_eq!(of_fragment(&permit, Some(Action::Permit), &fragment4()), decided(Some(1), Action::Permit));
        assert_eq!(of_fragment(&permit, None, &fragment4()), decided(Some(1), Action::Permit));
        let all_ports = [(Action::Permit, Some(17), Some((0, 65_535)))];
        assert_eq!(of_fragment(&all_ports, Some(Action::Deny), &fragment4()), decided(Some(1), Action::Permit));
        // Entries behind one that matches for certain do not count.
        let behind = [(Action::Permit, None, None), (Action::Deny, Some(17), DNS)];
        assert_eq!(of_fragment(&behind, Some(Action::Deny), &fragment4()), decided(Some(1), Action::Permit));
        assert_eq!(of_fragment(&[], None, &fragment4()), FragmentMatch::Decided(None));
    }

    #[test]
    fn an_ipv4_fragments_protocol_is_known_and_an_ipv6_ones_is_the_heads() {
        let decided = |ace, action| FragmentMatch::Decided(decision(1, ace, action));
        let udp = [(Action::Deny, Some(17), None)];
        assert_eq!(of_fragment(&udp, None, &fragment4()), decided(Some(1), Action::Deny));
        assert_eq!(of_fragment(&udp, None, &fragment6()), FragmentMatch::Depends);
        let tcp = [(Action::Deny, Some(6), DNS)];
        assert_eq!(of_fragment(&tcp, Some(Action::Permit), &fragment4()), decided(None, Action::Permit));
        assert_eq!(of_fragment(&tcp, Some(Action::Permit), &fragment6()), FragmentMatch::Depends);
    }

    #[test]
    fn addresses_of_a_fragment_are_matched_as_ever() {
        let mut entry = ace(1, Action::Deny);
        (entry.proto, entry.destination_ports) = (Some(17), DNS);
        entry.source = Some("192.168.101.0/24".parse().unwrap());
        let list = acl(1, vec![entry], Some(Action::Permit));
        let permitted = FragmentMatch::Decided(decision(1, None, Action::Permit));
        assert_eq!(evaluate_fragment([&list], &fragment4()), permitted);
        assert_eq!(evaluate_fragment([&list], &fragment6()), permitted);
    }

    #[test]
    fn a_later_list_is_asked_only_when_the_earlier_ones_may_leave_it_open() {
        let mut entry = ace(1, Action::Deny);
        (entry.proto, entry.destination_ports) = (Some(17), DNS);
        let open = acl(1, vec![entry.clone()], None);
        let deny = acl(2, vec![], Some(Action::Deny));
        let all = FragmentMatch::Decided(decision(1, Some(1), Action::Deny));
        assert_eq!(evaluate_fragment([&open, &deny], &fragment4()), all);
        let closed = acl(1, vec![entry], Some(Action::Permit));
        assert_eq!(evaluate_fragment([&closed, &deny], &fragment4()), FragmentMatch::Depends);
    }

    /// Protocols and ports that entries ask for, few enough to meet.
    fn any_entry() -> impl Strategy<Value = Entry> {
        let action = prop::sample::select(vec![Action::Permit, Action::Deny]);
        let ports = prop::sample::select(vec![None, DNS, Some((50, 60)), Some((0, 65_535))]);
        (action, prop::sample::select(vec![None, Some(6), Some(17)]), ports).prop_map(|(action, proto, ports)| {
            // Ports are those of a protocol.
            (action, proto, proto.and(ports))
        })
    }

    proptest! {
        /// What does not depend on the head is what the list says of every head.
        #[test]
        fn a_fragments_verdict_holds_for_every_datagram_it_may_be_of(
            entries in prop::collection::vec(any_entry(), 0..5),
            default in prop::sample::select(vec![None, Some(Action::Permit), Some(Action::Deny)]),
            v6: bool,
        ) {
            let fragment = if v6 { fragment6() } else { fragment4() };
            let said = of_fragment(&entries, default, &fragment);
            let numbered = (1..).zip(&entries).map(|(id, (action, proto, ports))| {
                let mut entry = ace(id, *action);
                (entry.proto, entry.destination_ports) = (*proto, *ports);
                entry
            });
            let list = acl(1, numbered.collect(), default);
            let mut actions = std::collections::HashSet::new();
            for proto in if v6 { vec![6, 17, 47] } else { vec![17] } {
                for destination_port in [0, 49, 50, 53, 54, 60, 61, 65_535] {
                    let whole = AclPacket { proto, destination_port, ..fragment };
                    let action = evaluate([&list], &whole).map_or(Action::Permit, |found| found.action);
                    actions.insert(action == Action::Permit);
                }
            }
            match said {
                FragmentMatch::Decided(found) => {
                    let permits = found.is_none_or(|found| found.action == Action::Permit);
                    prop_assert_eq!(actions, std::collections::HashSet::from([permits]));
                }
                // An entry may be hidden by those before it: to ask for the head in vain is no fault.
                FragmentMatch::Depends => {}
            }
        }
    }
}
