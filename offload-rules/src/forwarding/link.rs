//! Addresses that mean something on one link only: link-local ones, a subnet's broadcast, the groups and anycast addresses of a
//! router.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::Vif;
use crate::MacAddr;

/// All nodes on the link (RFC 4291 §2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// All routers on the link (RFC 4291 §2.7.1).
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// fe80::/10 (RFC 4291 §2.5.6) or 169.254/16 (RFC 3927): of one link, and on no way to another one.
#[must_use]
pub const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// The link-local address that goes with a MAC: the modified EUI-64 (RFC 4291 appendix A).
#[must_use]
pub const fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from_octets([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

impl Vif {
    /// Its link-local IPv6 address: a configured one, or else that of its MAC. `None` on a vif without Ethernet that is given none.
    #[must_use]
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        let configured = self.addresses.iter().find_map(|net| match net.addr() {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(v6),
            _ => None,
        });
        configured.or_else(|| self.derived())
    }

    /// The link-local address of its MAC.
    fn derived(&self) -> Option<Ipv6Addr> {
        self.mac.filter(|_| self.has_ethernet()).map(link_local)
    }

    /// Is the address one of its own, the link-local one of its MAC included?
    #[must_use]
    pub fn owns_on_link(&self, address: IpAddr) -> bool {
        self.owns(address) || self.derived().is_some_and(|own| IpAddr::V6(own) == address)
    }

    /// Is it the subnet-router anycast address of one of its prefixes (RFC 4291 §2.6.1)? A /127 has none (RFC 6164 §4).
    #[must_use]
    pub fn is_anycast(&self, address: IpAddr) -> bool {
        let IpAddr::V6(address) = address else { return false };
        self.addresses
            .iter()
            .any(|net| matches!(net, IpNet::V6(net) if net.prefix_len() < 127 && net.network() == address))
    }

    /// Does it listen to this group: all nodes, all routers, or the solicited-node group of an own address (RFC 4291 §2.8)?
    #[must_use]
    pub fn hears(&self, group: Ipv6Addr) -> bool {
        if group == ALL_NODES || group == ALL_ROUTERS {
            return true;
        }
        let [0xff02, 0, 0, 0, 0, 1, high @ 0xff00..=0xffff, low] = group.segments() else { return false };
        let tail = |address: Ipv6Addr| {
            let [.., a, b] = address.segments();
            (a & 0xff, b) == (high & 0xff, low)
        };
        let configured = self.addresses.iter().any(|net| match net {
            // Its anycast address has such a group, too.
            IpNet::V6(net) => tail(net.addr()) || net.prefix_len() < 127 && tail(net.network()),
            IpNet::V4(_) => false,
        });
        configured || self.derived().is_some_and(tail)
    }

    /// The broadcast or network address of one of its IPv4 subnets: no source of any packet (RFC 1812 §5.3.7, §4.2.3.1), and no
    /// destination that is forwarded to. A /31 has neither (RFC 3021).
    #[must_use]
    pub fn is_subnet_broadcast(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        self.addresses.iter().any(|net| match net {
            IpNet::V4(net) => net.prefix_len() < 31 && (net.broadcast() == address || net.network() == address),
            IpNet::V6(_) => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_local_address_of_a_mac_is_the_modified_eui_64() {
        // RFC 4291 appendix A: the universal bit inverted, fffe in the middle.
        let expected: Ipv6Addr = "fe80::3456:78ff:fe9a:bcde".parse().unwrap();
        assert_eq!(link_local(MacAddr([0x36, 0x56, 0x78, 0x9a, 0xbc, 0xde])), expected);
    }

    #[test]
    fn link_local_is_what_the_rfcs_reserve_and_nothing_beside_it() {
        for (address, expected) in [
            ("169.254.0.0", true),
            ("169.254.255.255", true),
            ("169.253.255.255", false),
            ("169.255.0.0", false),
            ("fe80::", true),
            ("febf:ffff::1", true),
            ("fe7f::1", false),
            ("fec0::1", false),
        ] {
            assert_eq!(is_link_local(address.parse().unwrap()), expected, "{address}");
        }
    }
}
