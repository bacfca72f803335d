//! The largest packet that the path found by a walk takes.

use std::net::IpAddr;

use super::{Reads, Walk};
use crate::{
    NexthopId, VifId,
    flow::{Dependency, TunnelHeader, largest_sealed, sealed_len},
    forwarding::{IpsecTunnel, NexthopKind, Vif},
};

impl Walk<'_> {
    /// Largest tenant packet that fits the way out.
    pub(super) fn egress_limit(&mut self, out: VifId) -> u16 {
        let mtu = self.read.vif(out).map_or(u16::MAX, |vif| vif.mtu);
        let mtu = match self.seal {
            Some((vif, ipsec)) => self.sealed_limit(vif, ipsec, mtu),
            None => mtu,
        };
        match self.tunnel {
            Some((tunnel, _)) => self.tunnel_limit(mtu, IpAddr::V4(tunnel.dip)),
            None => mtu,
        }
    }

    /// Largest outer packet that may leave whole: that of MPLS over UDP, or else of ESP. `None`: there is none.
    pub(super) fn outer_limit(&mut self, out: VifId) -> Option<u16> {
        let link = self.read.vif(out).map_or(u16::MAX, |vif| vif.mtu);
        let path = |end| self.snapshot.path_mtu(IpAddr::V4(end)).unwrap_or(u16::MAX);
        // `egress_limit` has noted both paths.
        match (self.tunnel, self.seal) {
            (Some((tunnel, _)), None) => Some(link.min(path(tunnel.dip))),
            (Some((tunnel, _)), Some((vif, ipsec))) => Some(self.sealed_limit(vif, ipsec, link).min(path(tunnel.dip))),
            // The tunnel's own MTU is that of what goes into it.
            (None, Some((vif, ipsec))) => {
                let own = sealed_len(vif.mtu, ipsec.nat_t.is_some());
                Some(link.min(path(ipsec.destination)).min(own))
            }
            (None, None) => None,
        }
    }

    /// Largest tenant packet that fits the way it came, as far as it is known.
    pub(super) fn ingress_limit(&mut self, from: &Vif) -> u16 {
        let mtu = match from.kind.tunnel() {
            Some(ipsec) => {
                let underlay = underlay_mtu(&mut self.read, ipsec).unwrap_or(u16::MAX);
                self.sealed_limit(from, ipsec, underlay)
            }
            None => from.mtu,
        };
        match self.inquiry.ingress.tunnel {
            Some(outer) => self.tunnel_limit(mtu, IpAddr::V4(outer)),
            None => mtu,
        }
    }

    /// Largest packet that an IPsec tunnel takes whose outer packets leave on a vif with this MTU.
    fn sealed_limit(&mut self, vif: &Vif, ipsec: &IpsecTunnel, mtu: u16) -> u16 {
        let outer = IpAddr::V4(ipsec.destination);
        self.read.note(Dependency::PathMtu(outer));
        let path = self.snapshot.path_mtu(outer).unwrap_or(u16::MAX);
        largest_sealed(mtu.min(path), ipsec.nat_t.is_some()).min(vif.mtu)
    }

    fn tunnel_limit(&mut self, mtu: u16, outer: IpAddr) -> u16 {
        self.read.note(Dependency::PathMtu(outer));
        let path = self.snapshot.path_mtu(outer).unwrap_or(u16::MAX);
        mtu.min(path).saturating_sub(TunnelHeader::OVERHEAD)
    }
}

/// The smallest MTU of the vifs that outer packets of an IPsec tunnel may leave on.
fn underlay_mtu(read: &mut Reads<'_>, ipsec: &IpsecTunnel) -> Option<u16> {
    fn behind(read: &mut Reads<'_>, id: NexthopId, depth: u8) -> Option<u16> {
        match &read.nexthop(id)?.kind {
            NexthopKind::Encap { oif, .. } | NexthopKind::Resolve { oif, .. } => Some(read.vif(*oif)?.mtu),
            NexthopKind::Composite { members } if depth > 0 => {
                members.iter().flatten().filter_map(|member| behind(read, member.nexthop, depth - 1)).min()
            }
            _ => None,
        }
    }
    read.enter(ipsec.destination.into());
    let route = read.route(ipsec.vrf, IpAddr::V4(ipsec.destination))?;
    behind(read, route.nexthop, 2)
}
