//! Access lists.

use ipnet::IpNet;
use offload_rules::{
    AclId,
    forwarding::{Ace, Acl, Action, Scope, StateError},
};
use proto::v1 as pb;

use super::fields::Object;

const ICMP: u32 = 1;
const ICMPV6: u32 = 58;

/// Largest number that stands where TCP has a port: ICMP's type is an octet.
pub(super) const fn max_port(proto: u32) -> u16 {
    match proto {
        ICMP | ICMPV6 => 255,
        _ => u16::MAX,
    }
}

pub(super) fn acl(acl: &pb::Acl, place: &str, errors: &mut Vec<StateError>) -> Option<Acl> {
    let mut object = Object::numbered("acl", acl.id, place, errors);
    let id = object.id("id", acl.id, AclId::new);
    let entries = object.each("entries", &acl.entries, ace);
    let default = action(&mut object, "default_action", acl.default_action);
    Some(Acl { id: id?, name: acl.name.clone(), entries: entries?, default: default? })
}

fn ace(object: &mut Object<'_>, field: &str, ace: &pb::Ace) -> Option<Ace> {
    let named = |name: &str| format!("{field}.{name}");
    let action = match action(object, &named("action"), ace.action) {
        Some(None) => {
            object.wrong(named("action"), "is missing, use PERMIT or DENY");
            None
        }
        action => action.flatten(),
    };
    let scope = match pb::AclScope::try_from(ace.scope) {
        Ok(pb::AclScope::Stateful) => Some(Scope::Stateful),
        Ok(pb::AclScope::Stateless) => Some(Scope::Stateless),
        Err(_) => {
            object.wrong(named("scope"), format!("{} is not a scope", ace.scope));
            None
        }
    };
    let proto = match ace.proto {
        Some(proto) => object.number(&named("proto"), proto, 0, u8::MAX).map(Some),
        None => Some(None),
    };
    let source = prefix(object, &named("source"), &ace.source);
    let destination = prefix(object, &named("destination"), &ace.destination);
    if let (Some(Some(source)), Some(Some(destination))) = (source, destination)
        && source.addr().is_ipv4() != destination.addr().is_ipv4()
    {
        object.wrong(named("destination"), format!("{destination} is not of the family of source {source}"));
    }
    let source_ports = ports(object, &named("source_ports"), ace.source_ports.as_ref(), u16::MAX);
    let max = ace.proto.map_or(u16::MAX, max_port);
    let destination_ports = ports(object, &named("destination_ports"), ace.destination_ports.as_ref(), max);
    Some(Ace {
        id: ace.id,
        action: action?,
        scope: scope?,
        proto: proto?,
        source: source?,
        destination: destination?,
        source_ports: source_ports?,
        destination_ports: destination_ports?,
    })
}

fn action(object: &mut Object<'_>, field: &str, action: i32) -> Option<Option<Action>> {
    match pb::AclAction::try_from(action) {
        Ok(pb::AclAction::Unspecified) => Some(None),
        Ok(pb::AclAction::Permit) => Some(Some(Action::Permit)),
        Ok(pb::AclAction::Deny) => Some(Some(Action::Deny)),
        Err(_) => {
            object.wrong(field, format!("{action} is not an action, use PERMIT or DENY"));
            None
        }
    }
}

fn prefix(object: &mut Object<'_>, field: &str, text: &str) -> Option<Option<IpNet>> {
    if text.is_empty() { Some(None) } else { object.prefix(field, text).map(Some) }
}

fn ports(object: &mut Object<'_>, field: &str, range: Option<&pb::PortRange>, max: u16) -> Option<Option<(u16, u16)>> {
    let Some(range) = range else { return Some(None) };
    let first = object.number(&format!("{field}.first"), range.first, 0, max);
    let last = object.number(&format!("{field}.last"), range.last, 0, max);
    let (first, last) = (first?, last?);
    if first > last {
        object.wrong(format!("{field}.last"), format!("{last} is before first {first}, give both ends in order"));
        return None;
    }
    Some(Some((first, last)))
}
