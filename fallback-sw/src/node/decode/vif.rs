//! Vifs.

use std::net::IpAddr;

use ipnet::IpNet;
use offload_rules::{
    AclId, MacAddr, NexthopId, VifId, VrfId,
    forwarding::{IoDriver, PortConfig, StateError, Vif, VifFlags, VifKind, VlanTag},
};
use proto::v1 as pb;

use super::{
    fields::{Object, net},
    ipsec,
};

const DEFAULT_MTU: u32 = 1500;
const MIN_MTU: u16 = 576;
const MAX_MTU: u16 = 9216;

pub(super) fn vif(vif: &pb::Vif, place: &str, errors: &mut Vec<StateError>) -> Option<Vif> {
    let mut object = Object::numbered("vif", vif.id, place, errors);
    let id = object.id("id", vif.id, VifId::new);
    let kind = kind(&mut object, vif);
    let mac = match (vif.mac.as_str(), vif.r#type()) {
        ("", pb::VifType::Virtual) => Some(Some(MacAddr::VIRTUAL)),
        ("", _) => Some(None),
        (text, _) => object.mac("mac", text).map(Some),
    };
    let vrf = object.id("vrf", vif.vrf, VrfId::new);
    let addresses = object.each("addresses", &vif.addresses, own_address);
    let mtu = object.number("mtu", if vif.mtu == 0 { DEFAULT_MTU } else { vif.mtu }, MIN_MTU, MAX_MTU);
    let enc_mss = object.number("enc_mss", vif.enc_mss, 0, MAX_MTU);
    let nexthop = object.optional_id("nexthop", vif.nexthop, NexthopId::new);
    let ingress_acls = object.ids("ingress_acls", &vif.ingress_acls, AclId::new);
    let egress_acls = object.ids("egress_acls", &vif.egress_acls, AclId::new);
    let service_acls = object.ids("service_acls", &vif.service_acls, AclId::new);
    let flags = vif.flags.as_ref().map_or_else(|| Some(VifFlags::default()), |set| flags(&mut object, set));
    let nat_pool = object.each("nat_pool", &vif.nat_pool, |object, field, text| object.address(field, text));
    Some(Vif {
        id: id?,
        name: vif.name.clone(),
        kind: kind?,
        mac: mac?,
        vrf: vrf?,
        addresses: addresses?,
        mtu: mtu?,
        enc_mss: enc_mss?,
        flags: flags?,
        nexthop: nexthop?,
        ingress_acls: ingress_acls?,
        egress_acls: egress_acls?,
        service_acls: service_acls?,
        nat_pool: nat_pool?,
        vn: vif.vn,
    })
}

fn kind(object: &mut Object<'_>, vif: &pb::Vif) -> Option<VifKind> {
    let Ok(kind) = pb::VifType::try_from(vif.r#type) else {
        object.wrong("type", format!("{} is not a type of vif", vif.r#type));
        return None;
    };
    if !matches!(kind, pb::VifType::PhysicalVlan | pb::VifType::Unspecified) {
        let only = "is only for type PHYSICAL_VLAN, leave it out";
        for (field, set) in [
            ("parent", vif.parent != 0),
            ("outer_vlan", vif.outer_vlan.is_some()),
            ("inner_vlan", vif.inner_vlan.is_some()),
        ] {
            if set {
                object.wrong(field, only);
            }
        }
    }
    if kind != pb::VifType::Tunnel && vif.tunnel.is_some() {
        object.wrong("tunnel", "is only for type TUNNEL, leave it out");
    }
    match kind {
        pb::VifType::Unspecified => {
            object.wrong("type", "is missing, use PHYSICAL, PHYSICAL_VLAN, VIRTUAL, TUNNEL, HOST or AGENT");
            None
        }
        pb::VifType::Tunnel => tunnel(object, vif),
        pb::VifType::Ip6Flow => {
            object.not_implemented("type", "IP6_FLOW, service addresses");
            None
        }
        pb::VifType::Physical => Some(VifKind::Physical { port: port(object, vif)? }),
        pb::VifType::Virtual => Some(VifKind::Virtual { port: port(object, vif)? }),
        pb::VifType::Host => Some(VifKind::Host { port: port(object, vif)? }),
        pb::VifType::Agent => Some(VifKind::Agent { port: port(object, vif)? }),
        pb::VifType::PhysicalVlan => sub_interface(object, vif),
    }
}

fn tunnel(object: &mut Object<'_>, vif: &pb::Vif) -> Option<VifKind> {
    if !vif.device.is_empty() {
        object.wrong("device", "a TUNNEL vif has no device, leave it out");
    }
    if vif.io != pb::IoDriver::Auto as i32 {
        object.wrong("io", "a TUNNEL vif has no device, leave it out");
    }
    match &vif.tunnel {
        Some(tunnel) => Some(VifKind::Tunnel(Box::new(ipsec::tunnel(object, tunnel)?))),
        None => {
            object.wrong("tunnel", "is missing, a TUNNEL vif has an outside");
            None
        }
    }
}

fn sub_interface(object: &mut Object<'_>, vif: &pb::Vif) -> Option<VifKind> {
    if !vif.device.is_empty() {
        object.wrong("device", "a PHYSICAL_VLAN vif uses its parent's device, leave it out");
    }
    if vif.io != pb::IoDriver::Auto as i32 {
        object.wrong("io", "a PHYSICAL_VLAN vif uses its parent's driver, leave it out");
    }
    let parent = object.id("parent", vif.parent, VifId::new);
    let outer = match &vif.outer_vlan {
        Some(outer) => tag(object, "outer_vlan", outer),
        None => {
            object.wrong("outer_vlan", "is missing, a PHYSICAL_VLAN vif is selected by its tags");
            None
        }
    };
    let inner = match &vif.inner_vlan {
        Some(inner) => tag(object, "inner_vlan", inner).map(Some),
        None => Some(None),
    };
    Some(VifKind::PhysicalVlan { parent: parent?, outer: outer?, inner: inner? })
}

fn port(object: &mut Object<'_>, vif: &pb::Vif) -> Option<PortConfig> {
    let device = if vif.device.is_empty() { &vif.name } else { &vif.device };
    if device.is_empty() {
        object.wrong("device", "is missing, and there is no name to take it from");
    }
    let driver = match pb::IoDriver::try_from(vif.io) {
        Ok(pb::IoDriver::Auto) => IoDriver::Auto,
        Ok(pb::IoDriver::AfXdp) => IoDriver::AfXdp,
        Ok(pb::IoDriver::AfPacket) => IoDriver::AfPacket,
        Ok(pb::IoDriver::Tap) => IoDriver::Tap,
        Err(_) => {
            object.wrong("io", format!("{} is not a driver", vif.io));
            return None;
        }
    };
    Some(PortConfig { device: device.clone(), driver })
}

fn tag(object: &mut Object<'_>, field: &str, tag: &pb::VlanTag) -> Option<VlanTag> {
    // IEEE 802.1Q: 0 is a priority tag, 4095 is reserved.
    let vid = object.number(&format!("{field}.vid"), tag.vid, 1_u16, 4094);
    let tpid = match tag.tpid {
        0 | 0x8100 => Some(0x8100),
        0x88a8 => Some(0x88a8),
        other => {
            object.wrong(format!("{field}.tpid"), format!("{other:#06x} is not a TPID, use 0x8100 or 0x88a8"));
            None
        }
    };
    Some(VlanTag { tpid: tpid?, vid: vid? })
}

fn own_address(object: &mut Object<'_>, field: &str, text: &String) -> Option<IpNet> {
    let Some(net) = net(text) else {
        let hint = match text.parse::<IpAddr>() {
            Ok(_) => format!("give the length of its subnet too: {text}/24"),
            Err(_) => "write it as 192.168.1.1/24".to_owned(),
        };
        object.wrong(field, format!("'{text}' is not an address with its subnet, {hint}"));
        return None;
    };
    object.unicast(field, net.addr()).then_some(net)
}

fn flags(object: &mut Object<'_>, flags: &pb::VifFlags) -> Option<VifFlags> {
    // Who sets them relies on what they promise.
    let unkept = [("flags.gro", flags.gro, "merging of received segments")];
    for (field, _, what) in unkept.iter().filter(|(_, set, _)| *set) {
        object.not_implemented(field, what);
    }
    let kept = unkept.iter().all(|(_, set, _)| !set);
    kept.then_some(VifFlags {
        policy: flags.policy,
        proxy: flags.proxy,
        ttl_unmodified: flags.ttl_unmodified,
        no_rpf: flags.no_rpf,
        no_arp: flags.no_arp,
        no_fragment: flags.no_fragment,
        drop_new_flows: flags.drop_new_flows,
        multi_queue: flags.multi_queue,
        raw_ip: flags.raw_ip,
        syn_cookies: flags.syn_cookies,
        gro: flags.gro,
    })
}
