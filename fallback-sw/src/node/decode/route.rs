//! Routes and incoming labels.

use ipnet::IpNet;
use offload_rules::{
    Label, NexthopId, VrfId,
    forwarding::{MplsLabel, Route, RouteFlags, RouteOrigin, StateError},
};
use proto::v1 as pb;

use super::fields::Object;

pub(super) fn route(route: &pb::Route, place: &str, errors: &mut Vec<StateError>) -> Option<Route> {
    let mut object = Object::new(route_name(route.vrf, &route.prefix, place), errors);
    let vrf = object.id("vrf", route.vrf, VrfId::new);
    let prefix = object.prefix("prefix", &route.prefix);
    let nexthop = object.optional_id("nexthop", route.nexthop, NexthopId::new);
    let label = optional_label(&mut object, "label", route.label);
    let policy_labels = object.each("policy_labels", &route.policy_labels, policy_label);
    Some(Route {
        vrf: vrf?,
        prefix: prefix?,
        nexthop: nexthop?.unwrap_or(NexthopId::NONE),
        label: label?,
        flags: RouteFlags {
            proxy_arp: route.proxy_arp,
            trap_arp: route.trap_arp,
            flood_arp: route.flood_arp,
            proxy_arp_for_host: route.proxy_arp_for_host,
            preferred_vrf: route.preferred_vrf,
        },
        origin: RouteOrigin {
            site: route.site,
            network: route.network,
            vn: route.vn,
            stats_uid: route.stats_uid,
            policy_labels: policy_labels?,
        },
    })
}

pub(super) fn route_key(key: &pb::RouteKey, place: &str, errors: &mut Vec<StateError>) -> Option<(VrfId, IpNet)> {
    let mut object = Object::new(route_name(key.vrf, &key.prefix, place), errors);
    let vrf = object.id("vrf", key.vrf, VrfId::new);
    let prefix = object.prefix("prefix", &key.prefix);
    Some((vrf?, prefix?))
}

pub(super) fn label(label: &pb::MplsLabel, place: &str, errors: &mut Vec<StateError>) -> Option<MplsLabel> {
    let mut object = Object::numbered("label", label.label, place, errors);
    let number = object.id("label", label.label, Label::new);
    let nexthop = object.id("nexthop", label.nexthop, NexthopId::new);
    Some(MplsLabel { label: number?, nexthop: nexthop? })
}

/// A label that may be absent; one that is there must not be reserved (RFC 3032 §2.1).
pub(super) fn optional_label(object: &mut Object<'_>, field: &str, label: Option<u32>) -> Option<Option<Label>> {
    match label.map(Label::new) {
        None => Some(None),
        Some(Ok(label)) => Some(Some(label)),
        Some(Err(error)) => {
            object.wrong(field, format!("{error}; leave the field out for no label"));
            None
        }
    }
}

fn route_name(vrf: u32, prefix: &str, place: &str) -> String {
    if vrf == 0 || prefix.is_empty() { format!("route at {place}") } else { format!("route vrf {vrf} {prefix}") }
}

/// "1:45": key and value.
fn policy_label(object: &mut Object<'_>, field: &str, text: &String) -> Option<String> {
    let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()) && part.parse::<u32>().is_ok();
    if text.split_once(':').is_some_and(|(key, value)| number(key) && number(value)) {
        return Some(text.clone());
    }
    object.wrong(field, format!("'{text}' is not a policy label, write key and value as 1:45"));
    None
}
