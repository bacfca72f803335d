//! Access lists: first match decides.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    AclId,
    forwarding::{Ace, Acl, Action, Scope},
};

/// What lists are matched on.
#[derive(Debug, Clone, Copy)]
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

/// A prefix of the other family holds no address of this one.
fn matches(ace: &Ace, packet: &AclPacket) -> bool {
    let prefix = |prefix: Option<IpNet>, address| prefix.is_none_or(|prefix| prefix.contains(&address));
    let ports = |ports: Option<(u16, u16)>, port| ports.is_none_or(|(first, last)| (first..=last).contains(&port));
    ace.proto.is_none_or(|proto| proto == packet.proto)
        && prefix(ace.source, packet.source)
        && prefix(ace.destination, packet.destination)
        && ports(ace.source_ports, packet.source_port)
        && ports(ace.destination_ports, packet.destination_port)
}

#[cfg(test)]
mod tests {
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
}
