//! Routes.

use ipnet::IpNet;

use crate::{Label, NexthopId, VrfId};

/// A route of one VRF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Table.
    pub vrf: VrfId,
    /// Destination; host bits are 0.
    pub prefix: IpNet,
    /// Where to; [`NexthopId::NONE`] drops as "No Route", as 0.0.0.0/0 does in the dumps.
    pub nexthop: NexthopId,
    /// L: label to push when the nexthop is a tunnel.
    pub label: Option<Label>,
    /// P, T, F, H, V.
    pub flags: RouteFlags,
    /// Where it came from; shown, not used to forward.
    pub origin: RouteOrigin,
}

/// Flags of a route besides L.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteFlags {
    /// P: answer ARP and ND for it with the vif's own address.
    pub proxy_arp: bool,
    /// T: hand ARP requests for it to the agent.
    pub trap_arp: bool,
    /// F: flood ARP requests for it.
    pub flood_arp: bool,
    /// H: like P, for requests from the host's interface.
    pub proxy_arp_for_host: bool,
    /// V: preferred VRF.
    pub preferred_vrf: bool,
}

/// Origin of a route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteOrigin {
    /// S of (S,N): site.
    pub site: u32,
    /// N of (S,N): network.
    pub network: u32,
    /// Local virtual network number.
    pub vn: u32,
    /// Statistics id.
    pub stats_uid: u32,
    /// "1:45".
    pub policy_labels: Vec<String>,
}
