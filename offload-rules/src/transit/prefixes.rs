//! The prefixes of a VRF's routes, and which of them a rule can stand for.
//!
//! A rule matches a prefix as a whole. So none is made for one in which a longer route, an address of the node, or one that the walk or the
//! parser treats by its value, lies.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Reason;
use crate::{VrfId, flow::Family, forwarding::Snapshot};

/// No addresses of hosts beyond a link, as sources or destinations: "this network", loopback, link-local, groups and class E (RFC 1122
/// §3.2.1.3, RFC 3927, RFC 5771).
const SPECIAL4: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];
/// The same of IPv6: unspecified and loopback, IPv4 addresses in disguise, link-local, groups (RFC 4291 §2).
const SPECIAL6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::UNSPECIFIED, 127),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
];

/// Addresses that no rule may stand for.
#[derive(Debug, Default)]
pub(super) struct Special(BTreeSet<IpAddr>);

impl Special {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        Self(snapshot.node_addresses().collect())
    }

    /// Does one of them lie in the prefix?
    pub(super) fn touches(&self, net: &IpNet) -> bool {
        let overlaps = |special: IpNet| special.contains(net) || net.contains(&special);
        let reserved = match net {
            IpNet::V4(_) => {
                SPECIAL4.iter().any(|(at, len)| Ipv4Net::new(*at, *len).is_ok_and(|net| overlaps(net.into())))
            }
            IpNet::V6(_) => {
                SPECIAL6.iter().any(|(at, len)| Ipv6Net::new(*at, *len).is_ok_and(|net| overlaps(net.into())))
            }
        };
        reserved || self.0.range(net.network()..=net.broadcast()).next().is_some()
    }
}

/// The prefixes that routes of a VRF are for.
#[derive(Debug, Default)]
pub(super) struct Prefixes(BTreeSet<IpNet>);

impl Prefixes {
    pub(super) fn of(snapshot: &Snapshot, vrf: VrfId) -> Self {
        let routes = [Family::Inet, Family::Inet6].into_iter().flat_map(|family| snapshot.routes(vrf, family));
        Self(routes.map(|route| route.prefix.trunc()).collect())
    }

    /// A route has come, gone, or is another one.
    pub(super) fn follow(&mut self, net: IpNet, is_there: bool) {
        if is_there {
            self.0.insert(net);
        } else {
            self.0.remove(&net);
        }
    }

    pub(super) fn contains(&self, net: &IpNet) -> bool {
        self.0.contains(net)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// So many of them, the shortest first.
    pub(super) fn by_length(&self, most: usize) -> Vec<IpNet> {
        let mut all: Vec<IpNet> = self.0.iter().copied().collect();
        all.sort_by_key(IpNet::prefix_len);
        all.truncate(most);
        all
    }

    /// The longest one that covers this one.
    pub(super) fn above(&self, net: &IpNet) -> Option<IpNet> {
        let mut above = *net;
        loop {
            above = above.supernet()?;
            if self.0.contains(&above) {
                return Some(above);
            }
        }
    }

    /// Why no rule can stand for the prefix, if that is so.
    pub(super) fn check(&self, net: &IpNet, special: &Special) -> Result<(), Reason> {
        // A covering prefix comes before what it covers, and nothing else in between.
        let next = self.0.range((std::ops::Bound::Excluded(*net), std::ops::Bound::Unbounded)).next();
        if next.is_some_and(|next| net.contains(next)) {
            return Err(Reason::Covers);
        }
        if special.touches(net) { Err(Reason::Special) } else { Ok(()) }
    }
}
