//! Access lists.

use ipnet::IpNet;

use crate::AclId;

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
