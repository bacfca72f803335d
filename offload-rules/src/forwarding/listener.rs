//! The listener table of a receive nexthop: (protocol, port or ICMP type) → nexthop.

use crate::NexthopId;

/// Ports of one protocol that go to a nexthop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// IP protocol number.
    pub proto: u8,
    /// First port, or ICMP type.
    pub first: u16,
    /// Last port; equal to `first` for an exact entry.
    pub last: u16,
    /// The nexthop that gets the packets.
    pub nexthop: NexthopId,
}

/// Looked up exact → range → per-protocol default. Ranges of one protocol do not overlap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListenerTable {
    /// Exact and range entries.
    pub listeners: Vec<Listener>,
    /// (protocol, nexthop).
    pub defaults: Vec<(u8, NexthopId)>,
}

impl ListenerTable {
    /// The nexthop that listens on `port` (ICMP: type) of `proto`?
    #[must_use]
    pub fn lookup(&self, proto: u8, port: u16) -> Option<NexthopId> {
        let mine = || self.listeners.iter().filter(|l| l.proto == proto && (l.first..=l.last).contains(&port));
        mine()
            .find(|l| l.first == l.last)
            .or_else(|| mine().next())
            .map(|l| l.nexthop)
            .or_else(|| self.defaults.iter().find(|(p, _)| *p == proto).map(|(_, nh)| *nh))
    }

    /// The nexthops named, with the field that names each.
    #[must_use]
    pub fn references(&self) -> Vec<(String, NexthopId)> {
        let listeners = self.listeners.iter().enumerate().map(|(i, l)| (format!("listeners[{i}].nexthop"), l.nexthop));
        let defaults = self.defaults.iter().enumerate().map(|(i, (_, nh))| (format!("defaults[{i}].nexthop"), *nh));
        listeners.chain(defaults).collect()
    }
}
