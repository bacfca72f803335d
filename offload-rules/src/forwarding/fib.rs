//! Longest prefix match.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{Route, trie::Trie};
use crate::{NexthopId, flow::Family};

/// What forwarding takes from a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteAnswer {
    /// Its nexthop.
    pub nexthop: NexthopId,
    /// Its label, as a number; `u32::MAX`: none.
    pub label: u32,
}

impl RouteAnswer {
    /// Of a route.
    #[inline]
    #[must_use]
    pub fn of(route: &Route) -> Self {
        Self { nexthop: route.nexthop, label: route.label.map_or(u32::MAX, |label| label.get()) }
    }
}

/// A route in a trie, beside what is asked of it for each packet: a longest match ends without a look at the route itself.
#[derive(Debug, Clone)]
struct Leaf {
    answer: RouteAnswer,
    route: Arc<Route>,
}

/// Routes of one VRF, a trie for each family. Persistent: a clone is cheap, and a changed clone shares what did not change.
#[derive(Debug, Clone, Default)]
pub struct Fib {
    inet: Trie<u32, Leaf>,
    inet6: Trie<u128, Leaf>,
}

impl Fib {
    /// Longest match.
    #[must_use]
    pub fn lookup(&self, destination: IpAddr) -> Option<&Arc<Route>> {
        match destination {
            IpAddr::V4(v4) => self.inet.lookup(v4.to_bits()).map(|leaf| &leaf.route),
            IpAddr::V6(v6) => self.inet6.lookup(v6.to_bits()).map(|leaf| &leaf.route),
        }
    }

    /// What the longest match says. `address`: IPv6, or IPv4 in the first four octets, as [`FlowKey`](crate::flow::FlowKey) has it.
    #[inline]
    #[must_use]
    pub fn answer(&self, family: Family, address: &[u8; 16]) -> Option<RouteAnswer> {
        let leaf = match family {
            Family::Inet => {
                let [a, b, c, d, ..] = *address;
                self.inet.lookup(u32::from_be_bytes([a, b, c, d]))
            }
            Family::Inet6 => self.inet6.lookup(u128::from_be_bytes(*address)),
        };
        leaf.map(|leaf| leaf.answer)
    }

    /// The route with exactly this prefix.
    #[must_use]
    pub fn get(&self, prefix: IpNet) -> Option<&Arc<Route>> {
        match prefix {
            IpNet::V4(net) => self.inet.get(net.addr().to_bits(), net.prefix_len()),
            IpNet::V6(net) => self.inet6.get(net.addr().to_bits(), net.prefix_len()),
        }
        .map(|leaf| &leaf.route)
    }

    /// Adds or replaces; returns what was there.
    pub fn insert(&mut self, route: Arc<Route>) -> Option<Arc<Route>> {
        let (prefix, leaf) = (route.prefix, Leaf { answer: RouteAnswer::of(&route), route });
        match prefix {
            IpNet::V4(net) => self.inet.insert(net.addr().to_bits(), net.prefix_len(), leaf),
            IpNet::V6(net) => self.inet6.insert(net.addr().to_bits(), net.prefix_len(), leaf),
        }
        .map(|leaf| leaf.route)
    }

    /// Removes; what it covered is found again.
    pub fn remove(&mut self, prefix: IpNet) -> Option<Arc<Route>> {
        match prefix {
            IpNet::V4(net) => self.inet.remove(net.addr().to_bits(), net.prefix_len()),
            IpNet::V6(net) => self.inet6.remove(net.addr().to_bits(), net.prefix_len()),
        }
        .map(|leaf| leaf.route)
    }

    /// In order of prefix, IPv4 first; a covering prefix comes before what it covers.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        let inet6 = self.inet6.iter().map(|(_, _, leaf)| &leaf.route);
        self.inet.iter().map(|(_, _, leaf)| &leaf.route).chain(inet6)
    }

    /// Routes of one family in order of prefix.
    #[must_use]
    pub fn routes(&self, family: Family) -> Vec<Arc<Route>> {
        match family {
            Family::Inet => self.inet.iter().map(|(_, _, leaf)| Arc::clone(&leaf.route)).collect(),
            Family::Inet6 => self.inet6.iter().map(|(_, _, leaf)| Arc::clone(&leaf.route)).collect(),
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
