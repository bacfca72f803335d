//! IPsec tunnels and security associations.

use std::net::{IpAddr, Ipv4Addr};

use offload_rules::{
    SaId, VrfId,
    forwarding::{
        DEFAULT_KEEPALIVE_SECS, DEFAULT_WINDOW, DfPolicy, IpsecTunnel, Lifetime, NAT_T_PORT, NatT, Sa, SaDirection,
        SaKey, StateError,
    },
};
use proto::{REDACTED, v1 as pb};

use super::fields::Object;

/// Longest key material in octets that is read; the exact lengths are for validation to say.
const MAX_KEY: usize = 64;
const MAX_KEEPALIVE: u32 = 3600;

pub(super) fn sa(sa: &pb::SecurityAssociation, place: &str, errors: &mut Vec<StateError>) -> Option<Sa> {
    let mut object = Object::numbered("sa", sa.id, place, errors);
    let id = object.id("id", sa.id, SaId::new);
    let direction = match pb::SaDirection::try_from(sa.direction) {
        Ok(pb::SaDirection::Outbound) => Some(SaDirection::Outbound),
        Ok(pb::SaDirection::Inbound) => Some(SaDirection::Inbound),
        Ok(pb::SaDirection::Unspecified) => {
            object.wrong("direction", "is missing, use OUTBOUND or INBOUND");
            None
        }
        Err(_) => {
            object.wrong("direction", format!("{} is not a direction", sa.direction));
            None
        }
    };
    let key = key(&mut object, &sa.key);
    let only = |object: &mut Object<'_>, field: &str, set: bool, which: &str| {
        if set {
            object.wrong(field, format!("is only for {which} security associations, leave it out"));
        }
    };
    let inbound = direction == Some(SaDirection::Inbound);
    let outbound = direction == Some(SaDirection::Outbound);
    only(&mut object, "replay_window", sa.replay_window != 0 && outbound, "INBOUND");
    only(&mut object, "first_sequence", sa.first_sequence != 0 && inbound, "OUTBOUND");
    only(&mut object, "worker", sa.worker != 0 && inbound, "OUTBOUND");
    let window = match (inbound, sa.replay_window) {
        (false, _) => 0,
        (true, 0) => DEFAULT_WINDOW,
        (true, window) => window,
    };
    Some(Sa {
        id: id?,
        spi: sa.spi,
        direction: direction?,
        key: key?,
        esn: sa.esn,
        window,
        soft: lifetime(sa.soft.as_ref()),
        hard: lifetime(sa.hard.as_ref()),
        first: sa.first_sequence.max(1),
        worker: sa.worker,
    })
}

fn lifetime(lifetime: Option<&pb::Lifetime>) -> Lifetime {
    lifetime.map_or_else(Lifetime::default, |limit| Lifetime {
        packets: limit.packets,
        bytes: limit.bytes,
        seconds: limit.seconds,
    })
}

/// Octets in hexadecimal. What is wrong is said without a digit of it.
fn key(object: &mut Object<'_>, text: &str) -> Option<SaKey> {
    if text.is_empty() || text == REDACTED {
        object.wrong("key", "is missing, give key and salt as 20 or 36 octets in hexadecimal");
        return None;
    }
    let digits = text.chars().filter(|c| !matches!(c, ' ' | ':' | '-'));
    let mut octets = Vec::with_capacity(MAX_KEY);
    let mut high = None;
    let mut good = true;
    for digit in digits {
        match (digit.to_digit(16), high.take()) {
            (Some(first), None) => high = Some(first),
            (Some(second), Some(first)) if octets.len() < MAX_KEY => octets.push((first << 4 | second) as u8),
            _ => good = false,
        }
    }
    if !good || high.is_some() {
        octets.fill(0);
        object.wrong("key", "is not 20 or 36 octets of two hexadecimal digits");
        return None;
    }
    let key = SaKey::new(octets.as_slice().into());
    octets.fill(0);
    Some(key)
}

pub(super) fn tunnel(object: &mut Object<'_>, tunnel: &pb::IpsecTunnel) -> Option<IpsecTunnel> {
    let source = address(object, "tunnel.source", &tunnel.source);
    let ike = tunnel.ike.is_some();
    let destination = if ike && tunnel.destination.is_empty() {
        Some(Ipv4Addr::UNSPECIFIED)
    } else {
        address(object, "tunnel.destination", &tunnel.destination)
    };
    let outbound = object.ids("tunnel.outbound_sas", &tunnel.outbound_sas, SaId::new);
    let inbound = object.ids("tunnel.inbound_sas", &tunnel.inbound_sas, SaId::new);
    let vrf = object.id("tunnel.vrf", tunnel.vrf, VrfId::new);
    let df = match pb::DfPolicy::try_from(tunnel.df) {
        Ok(pb::DfPolicy::DfCopy) => Some(DfPolicy::Copy),
        Ok(pb::DfPolicy::DfSet) => Some(DfPolicy::Set),
        Ok(pb::DfPolicy::DfClear) => Some(DfPolicy::Clear),
        Err(_) => {
            object.wrong("tunnel.df", format!("{} is not a policy", tunnel.df));
            None
        }
    };
    let dscp = match tunnel.dscp {
        Some(dscp) => object.number("tunnel.dscp", dscp, 0_u8, 63).map(Some),
        None => Some(None),
    };
    let nat_t = match &tunnel.nat_t {
        Some(set) => nat_t(object, set).map(Some),
        None => Some(None),
    };
    Some(IpsecTunnel {
        source: source?,
        destination: destination?,
        nat_t: nat_t?,
        outbound: outbound?,
        inbound: inbound?,
        vrf: vrf?,
        df: df?,
        dscp: dscp?,
        ike,
    })
}

fn nat_t(object: &mut Object<'_>, nat_t: &pb::NatTraversal) -> Option<NatT> {
    let mut port = |field: &str, port: u32| {
        let port = if port == 0 { u32::from(NAT_T_PORT) } else { port };
        object.number(&format!("tunnel.nat_t.{field}"), port, 1_u16, u16::MAX)
    };
    let source_port = port("source_port", nat_t.source_port);
    let destination_port = port("destination_port", nat_t.destination_port);
    let seconds = if nat_t.keepalive_secs == 0 { DEFAULT_KEEPALIVE_SECS } else { nat_t.keepalive_secs };
    let keepalive_secs = object.number("tunnel.nat_t.keepalive_secs", seconds, 1_u32, MAX_KEEPALIVE);
    if nat_t.no_keepalive && nat_t.keepalive_secs != 0 {
        object.wrong("tunnel.nat_t.no_keepalive", "contradicts keepalive_secs, leave one of them out");
    }
    Some(NatT {
        source_port: source_port?,
        destination_port: destination_port?,
        keepalive_secs: if nat_t.no_keepalive { 0 } else { keepalive_secs? },
    })
}

fn address(object: &mut Object<'_>, field: &str, text: &str) -> Option<Ipv4Addr> {
    if text.is_empty() {
        object.wrong(field, "is missing, write it as 172.28.13.36");
        return None;
    }
    match object.address(field, text)? {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => {
            object.wrong(field, format!("{text} is an IPv6 address, the outside of a tunnel is IPv4"));
            None
        }
    }
}
