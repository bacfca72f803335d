//! Interfaces.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{IpsecTunnel, L2Rewrite};
use crate::{AclId, MacAddr, NexthopId, VifId, VrfId};

/// An interface of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vif {
    /// Index.
    pub id: VifId,
    /// Name, for people.
    pub name: String,
    /// What it is.
    pub kind: VifKind,
    /// Own MAC; `None` until the device's address is known.
    pub mac: Option<MacAddr>,
    /// VRF of what arrives here.
    pub vrf: VrfId,
    /// Own addresses with the length of their subnet.
    pub addresses: Vec<IpNet>,
    /// Largest IP packet in octets, 576..=9216.
    pub mtu: u16,
    /// Octets set aside for encapsulation when MSS is clamped (EncMSS).
    pub enc_mss: u16,
    /// Behaviour.
    pub flags: VifFlags,
    /// Nexthop of its own.
    pub nexthop: Option<NexthopId>,
    /// Lists for what comes in, in order.
    pub ingress_acls: Vec<AclId>,
    /// Lists for what goes out, in order.
    pub egress_acls: Vec<AclId>,
    /// Lists for what is meant for the node or a service on it, in order.
    pub service_acls: Vec<AclId>,
    /// Addresses for NAT; shown, not used yet.
    pub nat_pool: Vec<IpAddr>,
    /// Virtual network number.
    pub vn: u32,
}

/// Type of a vif, with what only that type has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VifKind {
    /// A network device that carries Ethernet.
    Physical {
        /// Device and driver.
        port: PortConfig,
    },
    /// L3 sub-interface: frames of the parent with these tags.
    PhysicalVlan {
        /// The physical vif.
        parent: VifId,
        /// Outer tag.
        outer: VlanTag,
        /// Inner tag of two.
        inner: Option<VlanTag>,
    },
    /// A device toward something on this machine.
    Virtual {
        /// Device and driver.
        port: PortConfig,
    },
    /// The host's own stack: what is punted goes here.
    Host {
        /// Device and driver.
        port: PortConfig,
    },
    /// An agent on this machine; forwards like [`VifKind::Host`].
    Agent {
        /// Device and driver.
        port: PortConfig,
    },
    /// An IPsec tunnel: no Ethernet, a packet begins with its IP header.
    Tunnel(Box<IpsecTunnel>),
}

impl VifKind {
    /// Device and driver; `None` on a sub-interface and a tunnel.
    #[must_use]
    pub const fn port(&self) -> Option<&PortConfig> {
        match self {
            Self::Physical { port } | Self::Virtual { port } | Self::Host { port } | Self::Agent { port } => Some(port),
            Self::PhysicalVlan { .. } | Self::Tunnel(_) => None,
        }
    }

    /// The IPsec tunnel that it is.
    #[must_use]
    pub const fn tunnel(&self) -> Option<&IpsecTunnel> {
        match self {
            Self::Tunnel(tunnel) => Some(tunnel),
            _ => None,
        }
    }

    /// Packets that leave here are punted, not forwarded.
    #[must_use]
    pub const fn is_punt(&self) -> bool {
        matches!(self, Self::Host { .. } | Self::Agent { .. })
    }
}

/// The device under a vif.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortConfig {
    /// Name of the network device.
    pub device: String,
    /// How packets are read and written.
    pub driver: IoDriver,
}

/// How packets are read from and written to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoDriver {
    /// AF_XDP where the device takes it, else AF_PACKET; TAP for host and agent.
    Auto,
    /// AF_XDP socket.
    AfXdp,
    /// AF_PACKET socket with a memory-mapped ring.
    AfPacket,
    /// A TAP device that the node makes.
    Tap,
}

/// One 802.1Q or 802.1ad tag without its priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VlanTag {
    /// 0x8100 or 0x88a8.
    pub tpid: u16,
    /// 1..=4094.
    pub vid: u16,
}

/// Flags of a vif; the letters are those of the dumps' legend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VifFlags {
    /// P: look up flows.
    pub policy: bool,
    /// Proxy: answer every ARP and ND request.
    pub proxy: bool,
    /// TTL: leave TTL and hop limit of what comes in here as they are.
    pub ttl_unmodified: bool,
    /// NoRPF: no reverse-path check.
    pub no_rpf: bool,
    /// NoArp: neither ask nor answer.
    pub no_arp: bool,
    /// Nf: never fragment toward this vif.
    pub no_fragment: bool,
    /// Df: drop packets that would start a flow.
    pub drop_new_flows: bool,
    /// Mq: more than one queue.
    pub multi_queue: bool,
    /// RawIp: no Ethernet header.
    pub raw_ip: bool,
    /// SynC: SYN cookies once half-open flows reach their share.
    pub syn_cookies: bool,
    /// Gro: receive offload enabled.
    pub gro: bool,
}

impl Vif {
    /// The letters as `vif --get` prints them: `PL3ProxyTTL`.
    #[must_use]
    pub fn flag_letters(&self) -> String {
        let f = &self.flags;
        let letters = [
            (f.policy, "P"),
            (true, "L3"),
            (f.no_fragment, "Nf"),
            (f.drop_new_flows, "Df"),
            (f.multi_queue, "Mq"),
            (f.proxy, "Proxy"),
            (f.ttl_unmodified, "TTL"),
            (self.kind.tunnel().is_some(), "Tun"),
            (f.no_arp, "NoArp"),
            (f.raw_ip, "RawIp"),
            (f.no_rpf, "NoRPF"),
            (f.syn_cookies, "SynC"),
            (f.gro, "Gro"),
        ];
        letters.iter().filter(|(set, _)| *set).map(|(_, letter)| *letter).collect()
    }

    /// One of its own addresses in the family of `like`: the gateway address in ICMP errors and ARP requests. The address
    /// whose subnet holds `like` is preferred.
    #[must_use]
    pub fn own_address(&self, like: IpAddr) -> Option<IpAddr> {
        let same = |net: &&IpNet| net.addr().is_ipv4() == like.is_ipv4();
        self.addresses
            .iter()
            .filter(same)
            .find(|net| net.contains(&like))
            .or_else(|| self.addresses.iter().find(same))
            .map(IpNet::addr)
    }

    /// The Ethernet header from this vif to a station, with the tags of a sub-interface; its ethertype is 0 and to be
    /// replaced. `None` on a vif without Ethernet.
    #[must_use]
    pub fn header_to(&self, destination: MacAddr) -> Option<L2Rewrite> {
        if !self.has_ethernet() {
            return None;
        }
        let mut header = [0u8; 14];
        let (to, rest) = header.split_at_mut(6);
        to.copy_from_slice(&destination.0);
        if let (Some(from), Some(mac)) = (rest.get_mut(..6), self.mac) {
            from.copy_from_slice(&mac.0);
        }
        self.with_tags(&header)
    }

    /// An untagged Ethernet header (14 octets) with the tags of a sub-interface put in.
    #[must_use]
    pub fn with_tags(&self, header: &[u8]) -> Option<L2Rewrite> {
        let VifKind::PhysicalVlan { outer, inner, .. } = &self.kind else { return L2Rewrite::new(header) };
        let (macs, ethertype) = header.split_at_checked(12)?;
        let mut bytes = Vec::with_capacity(22);
        bytes.extend_from_slice(macs);
        for tag in std::iter::once(outer).chain(inner) {
            bytes.extend_from_slice(&tag.tpid.to_be_bytes());
            bytes.extend_from_slice(&tag.vid.to_be_bytes());
        }
        bytes.extend_from_slice(ethertype);
        L2Rewrite::new(&bytes)
    }

    /// Do its packets have an Ethernet header?
    #[must_use]
    pub const fn has_ethernet(&self) -> bool {
        !self.flags.raw_ip && self.kind.tunnel().is_none()
    }

    /// Are neighbours asked for on it?
    #[must_use]
    pub const fn resolves(&self) -> bool {
        self.has_ethernet() && !self.flags.no_arp
    }

    /// Is the address one of a station on its link: of one of its subnets, or link-local?
    #[must_use]
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        link_local || self.addresses.iter().any(|net| net.contains(&address))
    }

    /// Is the address one of its own?
    #[must_use]
    pub fn owns(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|net| net.addr() == address)
    }
}
