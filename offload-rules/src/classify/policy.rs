//! Access lists on the way of a packet: ingress, service, egress.

use super::{AclMatch, AclPacket, FragmentMatch, Inquiry, Role, evaluate, evaluate_fragment, walk::Reads};
use crate::{
    AclId, VifId,
    flow::{Dependency, FlowKey},
    forwarding::{Action, Scope, Snapshot},
};

const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// What the lists say depends on what the head of the datagram holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NeedsHead;

/// What the lists say: the entry that denies, or the one that permits (stateless when any of them is), or `None` when no list
/// has anything to say.
///
/// `egress` is [`VifId::TUNNEL`] when the packet does not leave on a vif of its own. A reply is permitted with what it replies to,
/// unless an entry with stateless scope decided that.
pub(super) fn check(
    snapshot: &Snapshot,
    inquiry: &Inquiry<'_>,
    egress: VifId,
    local: bool,
    read: &mut Reads<'_>,
) -> Option<AclMatch> {
    let ingress = if inquiry.ingress.tunnel.is_some() { VifId::TUNNEL } else { inquiry.ingress.vif };
    let this_way = packet(inquiry.key, inquiry.service_port);
    match inquiry.role {
        Role::Own => None,
        Role::Initiator => along(snapshot, &this_way, ingress, egress, local, read),
        Role::Responder(initiator) => {
            let port = if is_icmp(initiator.proto) { request_type(&initiator) } else { initiator.dport };
            let asked = along(snapshot, &packet(&initiator, port), egress, ingress, false, read);
            match asked {
                Some(asked) if asked.scope == Scope::Stateless && asked.action == Action::Permit => {
                    along(snapshot, &this_way, ingress, egress, local, read)
                }
                asked => asked,
            }
        }
    }
}

const fn is_icmp(proto: u8) -> bool {
    matches!(proto, ICMP | ICMP6)
}

/// ICMP type of the packets that made a pair: the key of an echo holds no type, others do.
const fn request_type(key: &FlowKey) -> u16 {
    if key.dport != 0 {
        key.dport
    } else if key.version == 4 {
        8
    } else {
        128
    }
}

fn packet(key: &FlowKey, service_port: u16) -> AclPacket {
    AclPacket {
        source: key.source(),
        destination: key.destination(),
        proto: key.proto,
        source_port: if is_icmp(key.proto) { 0 } else { key.sport },
        destination_port: service_port,
    }
}

/// What the lists say of a fragment whose head is not known. What one list denies whatever the head holds is denied.
///
/// # Errors
/// [`NeedsHead`].
pub(super) fn check_fragment(
    snapshot: &Snapshot,
    inquiry: &Inquiry<'_>,
    egress: VifId,
    local: bool,
    read: &mut Reads<'_>,
) -> Result<Option<AclMatch>, NeedsHead> {
    let ingress = if inquiry.ingress.tunnel.is_some() { VifId::TUNNEL } else { inquiry.ingress.vif };
    let packet = packet(inquiry.key, inquiry.service_port);
    let mut depends = false;
    for ids in stages(ingress, egress, local, read).into_iter().flatten() {
        match evaluate_fragment(ids.iter().filter_map(|id| snapshot.acl(*id).map(AsRef::as_ref)), &packet) {
            FragmentMatch::Decided(Some(found)) if found.action == Action::Deny => return Ok(Some(found)),
            FragmentMatch::Decided(_) => {}
            FragmentMatch::Depends => depends = true,
        }
    }
    if depends { Err(NeedsHead) } else { Ok(None) }
}

/// The lists on the way, in order.
fn stages<'a>(ingress: VifId, egress: VifId, local: bool, read: &mut Reads<'a>) -> [Option<&'a Vec<AclId>>; 3] {
    let from = if ingress == VifId::TUNNEL { None } else { read.vif(ingress) };
    let to = if egress == VifId::TUNNEL { None } else { read.vif(egress) };
    [
        from.map(|vif| &vif.ingress_acls),
        from.filter(|_| local).map(|vif| &vif.service_acls),
        to.map(|vif| &vif.egress_acls),
    ]
}

fn along(
    snapshot: &Snapshot,
    packet: &AclPacket,
    ingress: VifId,
    egress: VifId,
    local: bool,
    read: &mut Reads<'_>,
) -> Option<AclMatch> {
    let mut decided: Option<AclMatch> = None;
    for ids in stages(ingress, egress, local, read).into_iter().flatten() {
        let lists = ids.iter().filter_map(|id| {
            read.note(Dependency::Acl(*id));
            snapshot.acl(*id).map(AsRef::as_ref)
        });
        let Some(found) = evaluate(lists, packet) else { continue };
        if found.action == Action::Deny {
            return Some(found);
        }
        match decided {
            None => decided = Some(found),
            // One stateless entry on the way is enough: the other direction has to be judged by itself.
            Some(before) if before.scope == Scope::Stateful && found.scope == Scope::Stateless => decided = Some(found),
            Some(_) => {}
        }
    }
    decided
}
