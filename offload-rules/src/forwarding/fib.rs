//! Longest prefix match.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{Route, trie::Trie};
use crate::flow::Family;

/// Routes of one VRF, a trie for each family. Persistent: a clone is cheap, and a changed clone shares what did not change.
#[derive(Debug, Clone, Default)]
pub struct Fib {
    inet: Trie<u32, Arc<Route>>,
    inet6: Trie<u128, Arc<Route>>,
}

impl Fib {
    /// Longest match.
    #[must_use]
    pub fn lookup(&self, destination: IpAddr) -> Option<&Arc<Route>> {
        match destination {
            IpAddr::V4(v4) => self.inet.lookup(v4.to_bits()),
            IpAddr::V6(v6) => self.inet6.lookup(v6.to_bits()),
        }
    }

    /// The route with exactly this prefix.
    #[must_use]
    pub fn get(&self, prefix: IpNet) -> Option<&Arc<Route>> {
        match prefix {
            IpNet::V4(net) => self.inet.get(net.addr().to_bits(), net.prefix_len()),
            IpNet::V6(net) => self.inet6.get(net.addr().to_bits(), net.prefix_len()),
        }
    }

    /// Adds or replaces; returns what was there.
    pub fn insert(&mut self, route: Arc<Route>) -> Option<Arc<Route>> {
        match route.prefix {
            IpNet::V4(net) => self.inet.insert(net.addr().to_bits(), net.prefix_len(), route),
            IpNet::V6(net) => self.inet6.insert(net.addr().to_bits(), net.prefix_len(), route),
        }
    }

    /// Removes; what it covered is found again.
    pub fn remove(&mut self, prefix: IpNet) -> Option<Arc<Route>> {
        match prefix {
            IpNet::V4(net) => self.inet.remove(net.addr().to_bits(), net.prefix_len()),
            IpNet::V6(net) => self.inet6.remove(net.addr().to_bits(), net.prefix_len()),
        }
    }

    /// In order of prefix, IPv4 first; a covering prefix comes before what it covers.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.inet.iter().map(|(_, _, route)| route).chain(self.inet6.iter().map(|(_, _, route)| route))
    }

    /// Routes of one family in order of prefix.
    #[must_use]
    pub fn routes(&self, family: Family) -> Vec<Arc<Route>> {
        match family {
            Family::Inet => self.inet.iter().map(|(_, _, route)| Arc::clone(route)).collect(),
            Family::Inet6 => self.inet6.iter().map(|(_, _, route)| Arc::clone(route)).collect(),
        }
    }

    /// Number of routes of both families.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inet.len() + self.inet6.len()
    }

    /// No routes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests;
