//! Protobuf → typed forwarding state.
//!
//! Every field is read before anything is refused, so that one answer names all that is wrong. What an object says about
//! others (does nexthop 489 exist?) is checked by `offload_rules::forwarding::Snapshot`, not here.

mod fields;
mod ipsec;
mod nexthop;
mod policy;
mod route;
mod settings;
mod vif;

#[cfg(test)]
mod tests;

use fields::Object;
use offload_rules::{
    AclId, IdError, Label, NexthopId, SaId, VifId, VrfId,
    forwarding::{Delta, State, StateError, StateErrors, Vrf},
};
use proto::v1 as pb;

/// The typed form of a state.
///
/// # Errors
/// All fields that are wrong, and all objects that this node does not implement.
pub fn state(state: &pb::ForwardingState) -> Result<State, StateErrors> {
    let mut errors = Vec::new();
    let typed = State {
        generation: state.generation,
        node: state.node.clone(),
        settings: state.settings.as_ref().map_or_else(Default::default, |s| settings::settings(s, &mut errors)),
        vifs: all(&state.vifs, "vifs", vif::vif, &mut errors),
        vrfs: all(&state.vrfs, "vrfs", vrf, &mut errors),
        nexthops: all(&state.nexthops, "nexthops", nexthop::nexthop, &mut errors),
        routes: all(&state.routes, "routes", route::route, &mut errors),
        labels: all(&state.labels, "labels", route::label, &mut errors),
        acls: all(&state.acls, "acls", policy::acl, &mut errors),
        sas: all(&state.sas, "sas", ipsec::sa, &mut errors),
    };
    generation("state", state.generation, &mut errors);
    checked(typed, errors)
}

/// The typed form of a change.
///
/// # Errors
/// Like [`state`].
pub fn delta(delta: &pb::ForwardingDelta) -> Result<Delta, StateErrors> {
    let mut errors = Vec::new();
    let typed = Delta {
        base_generation: delta.base_generation,
        generation: delta.generation,
        remove_vifs: ids(&delta.remove_vifs, "remove_vifs", VifId::new, &mut errors),
        remove_vrfs: ids(&delta.remove_vrfs, "remove_vrfs", VrfId::new, &mut errors),
        remove_nexthops: ids(&delta.remove_nexthops, "remove_nexthops", NexthopId::new, &mut errors),
        remove_routes: all(&delta.remove_routes, "remove_routes", route::route_key, &mut errors),
        remove_labels: ids(&delta.remove_labels, "remove_labels", Label::new, &mut errors),
        remove_acls: ids(&delta.remove_acls, "remove_acls", AclId::new, &mut errors),
        remove_sas: ids(&delta.remove_sas, "remove_sas", SaId::new, &mut errors),
        settings: delta.settings.as_ref().map(|s| settings::settings(s, &mut errors)),
        vifs: all(&delta.vifs, "vifs", vif::vif, &mut errors),
        vrfs: all(&delta.vrfs, "vrfs", vrf, &mut errors),
        nexthops: all(&delta.nexthops, "nexthops", nexthop::nexthop, &mut errors),
        routes: all(&delta.routes, "routes", route::route, &mut errors),
        labels: all(&delta.labels, "labels", route::label, &mut errors),
        acls: all(&delta.acls, "acls", policy::acl, &mut errors),
        sas: all(&delta.sas, "sas", ipsec::sa, &mut errors),
    };
    generation("delta", delta.generation, &mut errors);
    checked(typed, errors)
}

fn checked<T>(typed: T, errors: Vec<StateError>) -> Result<T, StateErrors> {
    if errors.is_empty() { Ok(typed) } else { Err(StateErrors(errors)) }
}

/// Objects of one kind. A converter gets the object's place in the list (`vifs[3]`) to name it by when it has no number.
fn all<P, T>(
    objects: &[P],
    list: &str,
    convert: impl Fn(&P, &str, &mut Vec<StateError>) -> Option<T>,
    errors: &mut Vec<StateError>,
) -> Vec<T> {
    objects.iter().enumerate().filter_map(|(i, object)| convert(object, &format!("{list}[{i}]"), errors)).collect()
}

fn ids<T>(
    numbers: &[u32],
    list: &str,
    new: impl Fn(u32) -> Result<T, IdError>,
    errors: &mut Vec<StateError>,
) -> Vec<T> {
    let mut delta = Object::new("delta", errors);
    numbers.iter().enumerate().filter_map(|(i, number)| delta.id(&format!("{list}[{i}]"), *number, &new)).collect()
}

fn vrf(vrf: &pb::Vrf, place: &str, errors: &mut Vec<StateError>) -> Option<Vrf> {
    let mut object = Object::numbered("vrf", vrf.id, place, errors);
    Some(Vrf { id: object.id("id", vrf.id, VrfId::new)?, name: vrf.name.clone() })
}

/// The largest number is what a JSON number beyond 64 bits is read as, and nothing could ever follow it.
fn generation(object: &str, generation: u64, errors: &mut Vec<StateError>) {
    if generation == u64::MAX {
        Object::new(object, errors).wrong("generation", format!("is out of range, use 0..={}", u64::MAX - 1));
    }
}
