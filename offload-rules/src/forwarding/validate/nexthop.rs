//! Nexthops.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::Check;
use crate::{
    Label, NexthopId, VifId,
    forwarding::{L2Rewrite, Listener, Member, Nexthop, NexthopKind, Receive, Tunnel, Vif, VifKind, VlanTag},
};

/// ECMP slots: a flow keeps its slot in eight bits, one value of which is "none".
const MAX_SLOTS: usize = 255;
/// Levels of composites: a flow keeps two slots.
const MAX_LEVELS: u32 = 2;

impl<'a> Check<'a> {
    pub(super) fn nexthops(&mut self, ids: &BTreeSet<NexthopId>) {
        for id in ids {
            self.chains.of(*id);
        }
        for cycle in std::mem::take(&mut self.chains.cycles) {
            let problem = format_args!("leads back to nexthop {}; break the cycle", cycle.to);
            self.found.push(format_args!("nexthop {}", cycle.from), cycle.field, problem);
        }
        for id in ids {
            if let Some(nexthop) = self.tables.nexthop(*id) {
                self.nexthop(nexthop);
            }
        }
    }

    fn nexthop(&mut self, nexthop: &Nexthop) {
        let object = format_args!("nexthop {}", nexthop.id);
        if NexthopId::new(nexthop.id.get()).is_err() {
            self.found.push(object, "id", "is out of range; use 1..=16777215");
        }
        if let Some(vrf) = nexthop.vrf {
            self.vrf_reference(object, "vrf", vrf);
        }
        for (field, to) in nexthop.references() {
            if self.tables.nexthop(to).is_none() {
                let problem = format_args!("nexthop {to} does not exist; define it or name another");
                self.found.push(object, field, problem);
            }
        }
        match &nexthop.kind {
            NexthopKind::Drop => {}
            NexthopKind::Encap { oif, rewrite } => self.encap(nexthop.id, *oif, rewrite.as_ref()),
            NexthopKind::Tunnel(tunnel) => self.tunnel(nexthop, tunnel),
            NexthopKind::Composite { members } => self.composite(nexthop.id, members),
            NexthopKind::VrfTranslate { vrf } => self.vrf_reference(object, "vrf_translate.vrf", *vrf),
            NexthopKind::Receive(receive) => self.receive(nexthop.id, receive),
            NexthopKind::Resolve { oif, gateway } => self.resolve(nexthop.id, *oif, *gateway),
        }
    }

    /// The vif that is sent on.
    fn oif(&mut self, id: NexthopId, oif: VifId) -> Option<&'a Arc<Vif>> {
        let vif = self.tables.vif(oif);
        if vif.is_none() {
            let problem = format_args!("vif {oif} does not exist; define it or name another");
            self.found.push(format_args!("nexthop {id}"), "oif", problem);
        }
        vif
    }

    fn encap(&mut self, id: NexthopId, oif: VifId, rewrite: Option<&L2Rewrite>) {
        let Some(vif) = self.oif(id, oif) else { return };
        let object = format_args!("nexthop {id}");
        if vif.kind.tunnel().is_some() {
            // A tunnel has no Ethernet; a header that is given (vRouter gives a dummy one) is left out.
            return;
        }
        let rewrite = match (rewrite, vif.flags.raw_ip) {
            (Some(rewrite), false) => rewrite,
            (None, true) => return,
            (None, false) => {
                let problem =
                    format_args!("is missing, and vif {oif} carries Ethernet; give the header to put before packets");
                self.found.push(object, "encap_data", problem);
                return;
            }
            (Some(_), true) => {
                let problem = format_args!("is given, but vif {oif} is RawIp and has no Ethernet header; leave it out");
                self.found.push(object, "encap_data", problem);
                return;
            }
        };
        let (outer, inner) = tags(rewrite);
        let Some(outer_tag) = outer else { return };
        match vif.kind {
            VifKind::PhysicalVlan { outer, inner: own, .. } => {
                if outer_tag != outer || inner != own {
                    let problem = format_args!(
                        "has the tags {}, but vif {oif} has {}; use those, or leave tags out to have them added",
                        Tags(outer_tag, inner),
                        Tags(outer, own)
                    );
                    self.found.push(object, "encap_data", problem);
                }
            }
            _ => {
                if let Some(owner) = self.tables.vlan_vif(oif, outer_tag, inner) {
                    let problem = format_args!(
                        "has the tags {} of vif {owner}; send on vif {owner}, or leave tags out",
                        Tags(outer_tag, inner)
                    );
                    self.found.push(object, "encap_data", problem);
                }
            }
        }
    }

    fn tunnel(&mut self, nexthop: &Nexthop, tunnel: &Tunnel) {
        let object = format_args!("nexthop {}", nexthop.id);
        for (field, address) in [("sip", tunnel.sip), ("dip", tunnel.dip)] {
            if address.is_unspecified() || address.is_multicast() || address.is_broadcast() || address.is_loopback() {
                let problem =
                    format_args!("{address} is no address of one node; use the unicast address of a tunnel end");
                self.found.push(object, field, problem);
            }
        }
        if tunnel.sip == tunnel.dip {
            let problem = format_args!("{} is the source too; use the address of the other end", tunnel.dip);
            self.found.push(object, "dip", problem);
        }
        if !matches!(tunnel.udp_port, 6635 | 51234) {
            let problem = format_args!("{} is no port of MPLS over UDP; use 6635 or 51234", tunnel.udp_port);
            self.found.push(object, "udp_port", problem);
        }
        if let Some((inner, outer)) = tunnel.dscp.0.iter().enumerate().find(|(_, outer)| **outer > 63) {
            let problem = format_args!("DSCP {inner} is mapped to {outer}; use 0..=63");
            self.found.push(object, "dscp_map", problem);
        }
        match tunnel.direct {
            None if nexthop.vrf.is_none() => {
                let problem =
                    "is missing, and there is no direct_nexthop; name the VRF that outer packets are routed in";
                self.found.push(object, "vrf", problem);
            }
            None => {}
            Some(direct) => {
                if let Some(bad) = self.chains.of(direct).not_under_tunnel {
                    let kind = self.tables.nexthop(bad).map_or("missing", |nexthop| nexthop.type_name());
                    let problem = format_args!(
                        "leads to nexthop {bad}, a {kind}; outer packets go to Encap, Resolve, Drop, or a Composite of them"
                    );
                    self.found.push(object, "direct_nexthop", problem);
                }
            }
        }
    }

    fn composite(&mut self, id: NexthopId, members: &[Option<Member>]) {
        let object = format_args!("nexthop {id}");
        if members.is_empty() {
            self.found.push(object, "members", "has no slots; give at least one member or hole");
        }
        if members.len() > MAX_SLOTS {
            let problem = format_args!("has {} slots; use at most {MAX_SLOTS}", members.len());
            self.found.push(object, "members", problem);
        }
        for (i, member) in members.iter().enumerate() {
            let Some(member) = member else { continue };
            if member.weight == 0 {
                let problem = "is 0; use 1..=65535, or a hole for a member that is gone";
                self.found.push(object, format_args!("members[{i}].weight"), problem);
            }
            if member.label.is_some_and(|label| Label::new(label.get()).is_err()) {
                self.found.push(object, format_args!("members[{i}].label"), "is out of range; use 16..=1048575");
            }
        }
        let levels = self.chains.of(id).composites;
        if levels > MAX_LEVELS {
            let problem = format_args!("has {levels} levels of composites behind each other; use at most {MAX_LEVELS}");
            self.found.push(object, "members", problem);
        }
    }

    fn receive(&mut self, id: NexthopId, receive: &Receive) {
        let object = format_args!("nexthop {id}");
        for (field, to) in receive.listeners.references() {
            if let Some(tunnel) = self.chains.of(to).needs_label {
                let problem =
                    format_args!("leads to the tunnel nexthop {tunnel} without a label; name a nexthop on this node");
                self.found.push(object, field, problem);
            }
        }
        let listeners = &receive.listeners.listeners;
        for (i, listener) in listeners.iter().enumerate() {
            if listener.first > listener.last {
                let problem =
                    format_args!("{} comes after {}; write the smaller one first", listener.first, listener.last);
                self.found.push(object, format_args!("listeners[{i}].first_port"), problem);
            }
        }
        // Exact entries may lie within a range; ranges among themselves, and exact entries among themselves, differ.
        let mut order: Vec<(usize, &Listener)> =
            listeners.iter().enumerate().filter(|(_, l)| l.first <= l.last).collect();
        order.sort_by_key(|(i, l)| (l.proto, l.first != l.last, l.first, *i));
        let mut widest: Option<(usize, &Listener)> = None;
        for (i, listener) in order {
            let same = |other: &Listener| {
                other.proto == listener.proto && (other.first == other.last) == (listener.first == listener.last)
            };
            if let Some((j, other)) = widest.filter(|(_, other)| same(other)) {
                if other.last >= listener.first {
                    let problem = format_args!(
                        "{}..={} of protocol {} overlaps listeners[{j}], {}..={}; keep one of them",
                        listener.first, listener.last, listener.proto, other.first, other.last
                    );
                    self.found.push(object, format_args!("listeners[{i}].first_port"), problem);
                }
                if other.last >= listener.last {
                    continue;
                }
            }
            widest = Some((i, listener));
        }
        let defaults = &receive.listeners.defaults;
        for (i, (proto, _)) in defaults.iter().enumerate() {
            if defaults.iter().take(i).any(|(other, _)| other == proto) {
                let problem = format_args!("protocol {proto} has a default already; keep one of them");
                self.found.push(object, format_args!("defaults[{i}].proto"), problem);
            }
        }
    }

    fn resolve(&mut self, id: NexthopId, oif: VifId, gateway: Option<IpAddr>) {
        let Some(vif) = self.oif(id, oif) else { return };
        let object = format_args!("nexthop {id}");
        if !vif.has_ethernet() {
            let problem = format_args!("vif {oif} has no Ethernet and so no neighbours to resolve; use an Encap");
            self.found.push(object, "oif", problem);
        }
        // A vif with Ethernet has an IPv6 link-local address in any case.
        let asks_link_local = matches!(gateway, Some(IpAddr::V6(v6)) if v6.is_unicast_link_local());
        if vif.addresses.is_empty() && !asks_link_local {
            let problem = format_args!("vif {oif} has no address to ask from; give it one in the subnet");
            self.found.push(object, "oif", problem);
        } else if let Some(gateway) = gateway {
            self.gateway(id, vif, gateway);
        }
    }

    /// Can there be a gateway with this address on the vif, and can it be asked for its MAC?
    fn gateway(&mut self, id: NexthopId, vif: &Vif, gateway: IpAddr) {
        let object = format_args!("nexthop {id}");
        let oif = vif.id;
        if vif.flags.no_arp {
            let problem = format_args!("vif {oif} is NoArp, so nobody is asked there; use an Encap with the MAC");
            self.found.push(object, "oif", problem);
        }
        if !is_host(gateway) {
            let problem = format_args!("{gateway} is no address of one host; use the unicast address of the gateway");
            self.found.push(object, "gateway", problem);
            return;
        }
        if vif.owns_on_link(gateway) {
            let problem = format_args!("{gateway} is vif {oif}'s own address; use that of the other router");
            self.found.push(object, "gateway", problem);
            return;
        }
        if !vif.is_on_link(gateway) {
            let problem = format_args!(
                "{gateway} is in no subnet of vif {oif} ({}); name a gateway that is reached without another router, or give \
                 the vif an address in its subnet",
                Subnets(vif)
            );
            self.found.push(object, "gateway", problem);
        } else if vif.is_subnet_broadcast(gateway) || vif.is_anycast(gateway) {
            let problem = format_args!("{gateway} stands for all in its subnet; use the address of one router");
            self.found.push(object, "gateway", problem);
        }
    }

    /// What routes and labels demand of a nexthop that has changed behind them.
    pub(super) fn demands_of_users(&mut self, nexthop: &Nexthop) {
        let users = self.tables.users_of(nexthop.id);
        if users.unlabelled > 0 && self.chains.of(nexthop.id).needs_label.is_some() {
            self.found.push(format_args!("nexthop {}", nexthop.id), "label", "has routes without a label");
        }
        if users.routes6 > 0 && self.chains.of(nexthop.id).gateway4.is_some() {
            self.found.push(
                format_args!("nexthop {}", nexthop.id),
                "gateway",
                "is of IPv4, and IPv6 routes lead to it",
            );
        }
        if users.labels > 0 && self.label_problem(nexthop.id, &nexthop.kind).is_some() {
            self.found.push(format_args!("nexthop {}", nexthop.id), "label", "has labels that may not lead to it");
        }
    }

    /// No object may refer to a nexthop that is removed.
    pub(super) fn users_of_gone_nexthop(&mut self, id: NexthopId) {
        let users = self.tables.users_of(id);
        let parents = self.tables.parents.get(id.get()).is_some_and(|parents| !parents.is_empty());
        if parents || users.routes + users.labels + users.vifs > 0 {
            self.found.push(format_args!("nexthop {id}"), "id", "is still in use");
        }
    }
}

/// May one host have this address?
fn is_host(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.octets()[0] == 0 || v4.octets()[0] >= 240,
        // An IPv4 address in the form of IPv6 is on no link (RFC 4291 §2.5.5.2).
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some(),
    };
    !(special || address.is_unspecified() || address.is_multicast() || address.is_loopback())
}

/// The subnets of a vif, for an error.
struct Subnets<'a>(&'a Vif);

impl std::fmt::Display for Subnets<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.addresses.is_empty() {
            return f.write_str("it has no address");
        }
        for (i, net) in self.0.addresses.iter().enumerate() {
            write!(f, "{}{}", if i > 0 { ", " } else { "" }, net.trunc())?;
        }
        Ok(())
    }
}

/// The tags in a rewrite.
fn tags(rewrite: &L2Rewrite) -> (Option<VlanTag>, Option<VlanTag>) {
    let tag = |at: usize| match rewrite.bytes().get(at..at + 4) {
        Some(&[a, b, c, d]) => {
            Some(VlanTag { tpid: u16::from_be_bytes([a, b]), vid: u16::from_be_bytes([c, d]) & 0x0fff })
        }
        _ => None,
    };
    match rewrite.tags() {
        0 => (None, None),
        1 => (tag(12), None),
        _ => (tag(12), tag(16)),
    }
}

/// Tags as a person writes them.
struct Tags(VlanTag, Option<VlanTag>);

impl std::fmt::Display for Tags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04x}:{}", self.0.tpid, self.0.vid)?;
        self.1.map_or(Ok(()), |inner| write!(f, "+{:04x}:{}", inner.tpid, inner.vid))
    }
}
