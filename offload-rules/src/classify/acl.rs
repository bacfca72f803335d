//! Access lists: first match decides.

use std::net::IpAddr;

use crate::{
    AclId,
    forwarding::{Acl, Action, Scope},
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
#[allow(unused_variables, dead_code)]
pub fn evaluate<'a>(lists: impl IntoIterator<Item = &'a Acl>, packet: &AclPacket) -> Option<AclMatch> {
    todo!()
}
