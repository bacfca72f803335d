//! Nexthops.

use std::net::Ipv4Addr;

use offload_rules::{
    NexthopId, VifId, VrfId,
    forwarding::{
        DscpMap, L2Rewrite, Listener, ListenerTable, Member, Nexthop, NexthopKind, Receive, StateError, Tunnel,
    },
};
use proto::v1::{self as pb, nexthop::Kind};

use super::{fields::Object, policy, route::optional_label};

const DEFAULT_WEIGHT: u32 = 100;
/// RFC 7510 §3.
const MPLS_O_UDP_PORT: u16 = 6635;
/// The port that was in use before RFC 7510 assigned one.
const OLD_MPLS_O_UDP_PORT: u16 = 51234;

pub(super) fn nexthop(nexthop: &pb::Nexthop, place: &str, errors: &mut Vec<StateError>) -> Option<Nexthop> {
    let mut object = Object::numbered("nexthop", nexthop.id, place, errors);
    let id = object.id("id", nexthop.id, NexthopId::new);
    let vrf = object.optional_id("vrf", nexthop.vrf, VrfId::new);
    let kind = kind(&mut object, nexthop.kind.as_ref());
    Some(Nexthop { id: id?, vrf: vrf?, policy: nexthop.policy, valid: !nexthop.invalid, kind: kind? })
}

fn kind(object: &mut Object<'_>, kind: Option<&Kind>) -> Option<NexthopKind> {
    match kind {
        None => {
            object.wrong("kind", "is missing, give drop, encap, tunnel, composite, vrf_translate, receive or resolve");
            None
        }
        Some(Kind::Nat(_)) => {
            object.not_implemented("nat", "address and port translation");
            None
        }
        Some(Kind::Drop(_)) => Some(NexthopKind::Drop),
        Some(Kind::Encap(encap)) => self::encap(object, encap),
        Some(Kind::Tunnel(tunnel)) => self::tunnel(object, tunnel).map(NexthopKind::Tunnel),
        Some(Kind::Composite(composite)) => {
            Some(NexthopKind::Composite { members: object.each("members", &composite.members, member)? })
        }
        Some(Kind::VrfTranslate(translate)) => {
            Some(NexthopKind::VrfTranslate { vrf: object.id("vrf_translate.vrf", translate.vrf, VrfId::new)? })
        }
        Some(Kind::Receive(receive)) => self::receive(object, receive).map(NexthopKind::Receive),
        Some(Kind::Resolve(resolve)) => {
            let oif = object.id("oif", resolve.oif, VifId::new);
            let gateway = match resolve.gateway.as_str() {
                "" => Some(None),
                text => object.address("gateway", text).map(Some),
            };
            Some(NexthopKind::Resolve { oif: oif?, gateway: gateway? })
        }
    }
}

fn encap(object: &mut Object<'_>, encap: &pb::EncapNexthop) -> Option<NexthopKind> {
    let oif = object.id("oif", encap.oif, VifId::new);
    let rewrite = if encap.encap_data.trim().is_empty() {
        Some(None)
    } else {
        object.octets("encap_data", &encap.encap_data).and_then(|octets| {
            let rewrite = L2Rewrite::new(&octets);
            if rewrite.is_none() {
                object.wrong(
                    "encap_data",
                    format!(
                        "{} octets are not an Ethernet header, give 14, 18 or 22: destination, source, at most two tags \
                         (8100, 88a8 or 9100), ethertype",
                        octets.len()
                    ),
                );
            }
            rewrite.map(Some)
        })
    };
    Some(NexthopKind::Encap { oif: oif?, rewrite: rewrite? })
}

fn tunnel(object: &mut Object<'_>, tunnel: &pb::TunnelNexthop) -> Option<Tunnel> {
    let known = match pb::TunnelType::try_from(tunnel.r#type) {
        Ok(pb::TunnelType::MplsOUdp) => true,
        Ok(pb::TunnelType::Unspecified) => {
            object.wrong("type", "is missing, use MPLS_O_UDP");
            false
        }
        Err(_) => {
            object.wrong("type", format!("{} is not a type of tunnel, use MPLS_O_UDP", tunnel.r#type));
            false
        }
    };
    let sip = outer_address(object, "sip", &tunnel.sip);
    let dip = outer_address(object, "dip", &tunnel.dip);
    let direct = object.optional_id("direct_nexthop", tunnel.direct_nexthop, NexthopId::new);
    let udp_port = match u16::try_from(tunnel.udp_port) {
        Ok(0 | MPLS_O_UDP_PORT) => Some(MPLS_O_UDP_PORT),
        Ok(OLD_MPLS_O_UDP_PORT) => Some(OLD_MPLS_O_UDP_PORT),
        _ => {
            let ports = format!("use {MPLS_O_UDP_PORT} or {OLD_MPLS_O_UDP_PORT}");
            object.wrong("udp_port", format!("{} is not a port of MPLS over UDP, {ports}", tunnel.udp_port));
            None
        }
    };
    let dscp = dscp(object, &tunnel.dscp_map);
    known.then_some(Tunnel { sip: sip?, dip: dip?, direct: direct?, udp_port: udp_port?, dscp: dscp? })
}

fn outer_address(object: &mut Object<'_>, field: &str, text: &str) -> Option<Ipv4Addr> {
    match text.parse::<Ipv4Addr>() {
        Ok(address) => object.unicast(field, address.into()).then_some(address),
        Err(_) if text.is_empty() => {
            object.wrong(field, "is missing, give the IPv4 address of the outer header");
            None
        }
        Err(_) => {
            object.wrong(field, format!("'{text}' is not an IPv4 address, the outer header is IPv4"));
            None
        }
    }
}

fn dscp(object: &mut Object<'_>, mappings: &[pb::DscpMapping]) -> Option<DscpMap> {
    let mut map = DscpMap::default();
    let mut seen = [false; 64];
    object.each("dscp_map", mappings, |object, field, mapping| {
        let inner = object.number(&format!("{field}.inner"), mapping.inner, 0_u8, 63);
        let outer = object.number(&format!("{field}.outer"), mapping.outer, 0_u8, 63);
        let (inner, outer) = (usize::from(inner?), outer?);
        let (slot, seen) = (map.0.get_mut(inner)?, seen.get_mut(inner)?);
        if std::mem::replace(seen, true) {
            object.wrong(format!("{field}.inner"), format!("{inner} is mapped twice, keep one"));
            return None;
        }
        *slot = outer;
        Some(())
    })?;
    Some(map)
}

fn member(object: &mut Object<'_>, field: &str, member: &pb::CompositeMember) -> Option<Option<Member>> {
    let nexthop = object.optional_id(&format!("{field}.nexthop"), member.nexthop, NexthopId::new);
    let weight = object.number(&format!("{field}.weight"), member.weight.unwrap_or(DEFAULT_WEIGHT), 1, u16::MAX);
    let label = optional_label(object, &format!("{field}.label"), member.label);
    let (weight, label) = (weight?, label?);
    Some(nexthop?.map(|nexthop| Member { nexthop, weight, label }))
}

fn receive(object: &mut Object<'_>, receive: &pb::ReceiveNexthop) -> Option<Receive> {
    let listeners = object.each("listeners", &receive.listeners, listener);
    let defaults = object.each("defaults", &receive.defaults, |object, field, default| {
        let proto = object.number(&format!("{field}.proto"), default.proto, 0, u8::MAX);
        let nexthop = object.id(&format!("{field}.nexthop"), default.nexthop, NexthopId::new);
        Some((proto?, nexthop?))
    });
    Some(Receive {
        listeners: ListenerTable { listeners: listeners?, defaults: defaults? },
        terminate_mpls_o_udp: receive.terminate_mpls_o_udp,
    })
}

fn listener(object: &mut Object<'_>, field: &str, listener: &pb::Listener) -> Option<Listener> {
    let proto = object.number(&format!("{field}.proto"), listener.proto, 0, u8::MAX);
    let max = policy::max_port(listener.proto);
    let first = object.number(&format!("{field}.first_port"), listener.first_port, 0, max);
    let last = if listener.last_port == 0 { listener.first_port } else { listener.last_port };
    let last = object.number(&format!("{field}.last_port"), last, 0, max);
    let nexthop = object.id(&format!("{field}.nexthop"), listener.nexthop, NexthopId::new);
    let (first, last) = (first?, last?);
    if first > last {
        object.wrong(format!("{field}.last_port"), format!("{last} is before first_port {first}, exchange them"));
        return None;
    }
    Some(Listener { proto: proto?, first, last, nexthop: nexthop? })
}
