//! Interfaces.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;

use super::Check;
use crate::{
    VifId, VrfId,
    forwarding::{Vif, VifKind, VlanTag},
};

/// Longest name of a network device (IFNAMSIZ without its terminator).
const MAX_DEVICE_NAME: usize = 15;

impl<'a> Check<'a> {
    /// Each vif by itself, and all of them together.
    pub(super) fn all_vifs(&mut self) {
        let vifs: Vec<&'a Vif> = self.tables.vifs.values().map(|entry| &*entry.configured).collect();
        for vif in &vifs {
            self.vif(vif);
        }
        self.devices(&vifs);
        self.tags(&vifs);
        self.subnets(&vifs);
    }

    fn vif(&mut self, vif: &Vif) {
        let object = format_args!("vif {}", vif.id);
        if vif.id == VifId::TUNNEL {
            self.found.push(object, "id", "0 is no vif; use 1..=65535");
        }
        if !(576..=9216).contains(&vif.mtu) {
            self.found.push(object, "mtu", format_args!("{} is out of range; use 576..=9216", vif.mtu));
        }
        self.vrf_reference(object, "vrf", vif.vrf);
        if let Some(nexthop) = vif.nexthop.filter(|id| self.tables.nexthop(*id).is_none()) {
            let problem = format_args!("nexthop {nexthop} does not exist; define it or name another");
            self.found.push(object, "nexthop", problem);
        }
        if let Some(mac) = vif.mac.filter(|mac| mac.is_multicast() || mac.0 == [0; 6]) {
            self.found.push(object, "mac", format_args!("{mac} is no address of one interface; use a unicast address"));
        }
        let lists = [
            ("ingress_acls", &vif.ingress_acls),
            ("egress_acls", &vif.egress_acls),
            ("service_acls", &vif.service_acls),
        ];
        for (field, acls) in lists {
            for (i, acl) in acls.iter().enumerate().filter(|(_, acl)| !self.tables.acls.contains(acl.get())) {
                let problem = format_args!("acl {acl} does not exist; define it or name another");
                self.found.push(object, format_args!("{field}[{i}]"), problem);
            }
        }
        for (i, address) in vif.addresses.iter().enumerate() {
            if let Some(problem) = address_problem(*address) {
                self.found.push(object, format_args!("addresses[{i}]"), format_args!("{address} {problem}"));
            }
        }
        match &vif.kind {
            // With all SAs, by `all_sas`.
            VifKind::Tunnel(_) => {}
            VifKind::PhysicalVlan { parent, outer, inner } => self.sub_interface(vif, *parent, *outer, *inner),
            VifKind::Physical { port }
            | VifKind::Virtual { port }
            | VifKind::Host { port }
            | VifKind::Agent { port } => {
                let device = &port.device;
                let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
                if device.is_empty()
                    || device.len() > MAX_DEVICE_NAME
                    || device.contains(bad)
                    || device.starts_with('.')
                {
                    let problem = format_args!(
                        "'{device}' is no name of a network device; use 1 to {MAX_DEVICE_NAME} characters without blanks, \
                         slashes and colons"
                    );
                    self.found.push(object, "device", problem);
                }
            }
        }
    }

    fn sub_interface(&mut self, vif: &Vif, parent: VifId, outer: VlanTag, inner: Option<VlanTag>) {
        let object = format_args!("vif {}", vif.id);
        for (field, tag) in [("outer_vlan", Some(outer)), ("inner_vlan", inner)] {
            let Some(tag) = tag else { continue };
            if !(1..=4094).contains(&tag.vid) {
                self.found.push(object, field, format_args!("VLAN id {} is out of range; use 1..=4094", tag.vid));
            }
            if !matches!(tag.tpid, 0x8100 | 0x88a8) {
                self.found.push(
                    object,
                    field,
                    format_args!("TPID {:#06x} is not known; use 0x8100 or 0x88a8", tag.tpid),
                );
            }
        }
        if vif.flags.raw_ip {
            self.found.push(object, "flags.raw_ip", "a sub-interface has tags, and tags need Ethernet; clear the flag");
        }
        let Some(port) = self.tables.vifs.get(u32::from(parent.get())).map(|entry| &entry.configured) else {
            let problem = format_args!("vif {parent} does not exist; define it or name another");
            self.found.push(object, "parent", problem);
            return;
        };
        if !matches!(port.kind, VifKind::Physical { .. } | VifKind::Virtual { .. }) {
            let problem = format_args!("vif {parent} has no sub-interfaces; name a PHYSICAL or VIRTUAL vif");
            self.found.push(object, "parent", problem);
        } else if port.flags.raw_ip {
            let problem = format_args!("vif {parent} is RawIp and carries no tags; name a vif with Ethernet");
            self.found.push(object, "parent", problem);
        }
        if vif.mtu > port.mtu {
            let problem = format_args!(
                "{} is more than {} of its parent, vif {parent}; lower it or raise that",
                vif.mtu, port.mtu
            );
            self.found.push(object, "mtu", problem);
        }
    }

    fn devices(&mut self, vifs: &[&'a Vif]) {
        let mut owners: HashMap<&str, VifId> = HashMap::new();
        for vif in vifs {
            let Some(port) = vif.kind.port() else { continue };
            if let Some(owner) = owners.insert(&port.device, vif.id) {
                let problem = format_args!("'{}' is the device of vif {owner} too; use another device", port.device);
                self.found.push(format_args!("vif {}", vif.id), "device", problem);
            }
        }
    }

    fn tags(&mut self, vifs: &[&'a Vif]) {
        let mut owners: HashMap<(VifId, VlanTag, Option<VlanTag>), VifId> = HashMap::new();
        for vif in vifs {
            let VifKind::PhysicalVlan { parent, outer, inner } = vif.kind else { continue };
            if let Some(owner) = owners.insert((parent, outer, inner), vif.id) {
                let problem = format_args!("vif {owner} has the same tags on vif {parent}; use others");
                self.found.push(format_args!("vif {}", vif.id), "outer_vlan", problem);
            }
        }
    }

    /// Subnets of one VRF do not overlap, except several addresses of one vif in one subnet. Link-local IPv6 subnets are
    /// those of each link (RFC 4007 §4): they may be the same.
    fn subnets(&mut self, vifs: &[&'a Vif]) {
        let mut nets: Vec<(VrfId, IpNet, VifId, usize)> = Vec::new();
        for vif in vifs {
            for (i, net) in vif.addresses.iter().enumerate() {
                if vif.addresses.iter().take(i).any(|other| other.addr() == net.addr()) {
                    let problem = format_args!("{} is given twice; keep one of them", net.addr());
                    self.found.push(format_args!("vif {}", vif.id), format_args!("addresses[{i}]"), problem);
                } else if !is_link_local(net.addr()) {
                    nets.push((vif.vrf, *net, vif.id, i));
                }
            }
        }
        // In order of first address, the wider first: what overlaps a subnet comes right behind it or behind one inside it.
        nets.sort_by_key(|(vrf, net, vif, i)| (*vrf, net.network(), net.prefix_len(), *vif, *i));
        let mut widest: Option<&(VrfId, IpNet, VifId, usize)> = None;
        for entry in &nets {
            let (vrf, net, vif, i) = entry;
            match widest {
                Some((in_vrf, wide, owner, _)) if in_vrf == vrf && wide.contains(&net.trunc()) => {
                    if owner != vif || wide.prefix_len() != net.prefix_len() {
                        let problem =
                            format_args!("{net} overlaps {wide} of vif {owner} in vrf {vrf}; use different subnets");
                        self.found.push(format_args!("vif {vif}"), format_args!("addresses[{i}]"), problem);
                    }
                }
                _ => widest = Some(entry),
            }
        }
    }
}

const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Why an address cannot be a vif's own. (The last address of an IPv6 subnet is one like the others; its first is the
/// subnet-router anycast address, RFC 4291 §2.6.1, except on a /127, RFC 6164. IPv4 /31: RFC 3021.)
fn address_problem(net: IpNet) -> Option<&'static str> {
    let address = net.addr();
    if net.prefix_len() == 0 {
        return Some("has a subnet of all addresses; use a longer prefix");
    }
    if address.is_unspecified() {
        return Some("is the unspecified address; use one of the subnet's");
    }
    if address.is_multicast() {
        return Some("is a multicast address; use a unicast address");
    }
    if address.is_loopback() {
        return Some("is a loopback address; use one of the subnet's");
    }
    if matches!(address, IpAddr::V4(v4) if v4.is_broadcast()) {
        return Some("is a broadcast address; use one of the subnet's");
    }
    let wide = net.max_prefix_len() - net.prefix_len() > 1;
    if wide && address == net.network() {
        return Some("is the address of the subnet itself; use another one of the subnet's");
    }
    if wide && address.is_ipv4() && address == net.broadcast() {
        return Some("is the broadcast address of the subnet; use another one of the subnet's");
    }
    None
}
