//! Access lists.

use ipnet::IpNet;

use crate::{AclId, flow::FlowKey};

const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// A list of entries; the first that matches decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    /// Number.
    pub id: AclId,
    /// Name, for people.
    pub name: String,
    /// In order.
    pub entries: Vec<Ace>,
    /// What no entry matches; `None` goes on with the vif's next list.
    pub default: Option<Action>,
}

/// What an entry does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Let it through.
    Permit,
    /// Drop it.
    Deny,
}

/// What a permit means for the other direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Replies are permitted too.
    #[default]
    Stateful,
    /// Each direction is judged by itself.
    Stateless,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ace {
    /// Number within the list.
    pub id: u32,
    /// What it does.
    pub action: Action,
    /// Stateful or stateless.
    pub scope: Scope,
    /// IP protocol; `None` is any.
    pub proto: Option<u8>,
    /// Source prefix; `None` is any.
    pub source: Option<IpNet>,
    /// Destination prefix; `None` is any.
    pub destination: Option<IpNet>,
    /// First and last source port; `None` is any.
    pub source_ports: Option<(u16, u16)>,
    /// First and last destination port (ICMP: type); `None` is any.
    pub destination_ports: Option<(u16, u16)>,
}

/// The packets that an entry matches, whatever it does with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selector {
    /// IP protocol; `None` is any.
    pub proto: Option<u8>,
    /// Source prefix; `None` is any.
    pub source: Option<IpNet>,
    /// Destination prefix; `None` is any.
    pub destination: Option<IpNet>,
    /// First and last source port; `None` is any.
    pub source_ports: Option<(u16, u16)>,
    /// First and last destination port (ICMP: type); `None` is any.
    pub destination_ports: Option<(u16, u16)>,
}

impl Ace {
    /// What it matches.
    #[must_use]
    pub const fn selector(&self) -> Selector {
        let Self { id: _, action: _, scope: _, proto, source, destination, source_ports, destination_ports } = *self;
        Selector { proto, source, destination, source_ports, destination_ports }
    }
}

impl Selector {
    /// Every packet.
    pub const ALL: Self =
        Self { proto: None, source: None, destination: None, source_ports: None, destination_ports: None };

    /// May packets with this key match? The key of an ICMP echo does not tell request and reply apart: both may.
    #[must_use]
    pub fn may_match(&self, key: &FlowKey) -> bool {
        let within = |ports: Option<(u16, u16)>, port| ports.is_none_or(|(first, last)| (first..=last).contains(&port));
        let is_icmp = matches!(key.proto, ICMP | ICMP6);
        let source_port = if is_icmp { 0 } else { key.sport };
        self.proto.is_none_or(|proto| proto == key.proto)
            && within(self.source_ports, source_port)
            && (is_icmp && key.dport == 0 || within(self.destination_ports, key.dport))
            && self.source.is_none_or(|prefix| prefix.contains(&key.source()))
            && self.destination.is_none_or(|prefix| prefix.contains(&key.destination()))
    }
}
