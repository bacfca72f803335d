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
