//! Access lists on the way of a packet: ingress, service, egress.

use super::{
    AclMatch, AclPacket, FragmentMatch, Inquiry, Role, evaluate, evaluate_fragment, flow_trace::fold, walk::Reads,
};
use crate::{
    AclId, VifId,
    flow::{Dependency, FlowKey},
    forwarding::{Action, Scope, Snapshot, Vif},
};

const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// What the lists say depends on what the head of the datagram holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NeedsHead;

/// The lists that judge a packet: those of the vifs that it comes in on and leaves on ([`VifId::TUNNEL`]: none of its own).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lists {
    ingress: VifId,
    egress: VifId,
    /// It is for this node.
    local: bool,
}

/// What the lists say: for ingress, service and egress in turn, what decided. Behind a denial nothing is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Judgement([Option<AclMatch>; 3]);

impl Judgement {
    /// The entry that denies, or the one that permits (stateless when any of them is), or `None` when no list has anything to say.
    fn decision(self) -> Option<AclMatch> {
        let mut decided: Option<AclMatch> = None;
        for found in self.0.into_iter().flatten() {
            if found.action == Action::Deny {
                return Some(found);
            }
            match decided {
                None => decided = Some(found),
                // One stateless entry on the way is enough: the other direction has to be judged by itself.
                Some(before) if before.scope == Scope::Stateful && found.scope == Scope::Stateless => {
                    decided = Some(found);
                }
                Some(_) => {}
            }
        }
        decided
    }

    /// A hash of the entries.
    pub(super) fn digest(self) -> u64 {
        self.0.iter().fold(0, |digest, found| {
            let entry = found.map_or(0, |found| u64::from(found.acl.get()) << 32 | u64::from(found.ace.unwrap_or(0)));
            fold(digest, entry)
        })
    }
}

/// What the lists say of a packet that leaves on `egress`, [`VifId::TUNNEL`] when that is no vif of its own. A reply is permitted with
/// what it replies to, unless an entry with stateless scope decided that.
pub(super) fn check(
    snapshot: &Snapshot,
    inquiry: &Inquiry<'_>,
    egress: VifId,
    local: bool,
    read: &mut Reads<'_>,
) -> Option<AclMatch> {
    let ingress = if inquiry.ingress.tunnel.is_some() { VifId::TUNNEL } else { inquiry.ingress.vif };
    let lists = match inquiry.role {
        Role::Own => return None,
        Role::Initiator => Lists { ingress, egress, local },
        Role::Responder(_) => Lists { ingress: egress, egress: ingress, local: false },
    };
    let mut is_asked = false;
    let judgement = judge(snapshot, &asked(inquiry), lists, |what| {
        is_asked |= matches!(what, Dependency::Acl(_));
        read.note(what);
    });
    // Where there are no lists, they say nothing of any packet.
    if is_asked {
        read.lists(lists, judgement);
    }
    match (inquiry.role, judgement.decision()) {
        (Role::Responder(_), Some(AclMatch { scope: Scope::Stateless, action: Action::Permit, .. })) => {
            read.blur();
            let this_way = packet(inquiry.key, inquiry.service_port);
            judge(snapshot, &this_way, Lists { ingress, egress, local }, |what| read.note(what)).decision()
        }
        (_, decision) => decision,
    }
}

/// The packet that lists are asked about first: of a reply, what it replies to.
pub(super) fn asked(inquiry: &Inquiry<'_>) -> AclPacket {
    match inquiry.role {
        Role::Own | Role::Initiator => packet(inquiry.key, inquiry.service_port),
        Role::Responder(initiator) => {
            let port = if is_icmp(initiator.proto) { request_type(&initiator) } else { initiator.dport };
            packet(&initiator, port)
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
    let lists = Lists { ingress, egress, local };
    for ids in stages(snapshot, lists, |what| read.note(what)).into_iter().flatten() {
        match evaluate_fragment(ids.iter().filter_map(|id| snapshot.acl(*id).map(AsRef::as_ref)), &packet) {
            FragmentMatch::Decided(Some(found)) if found.action == Action::Deny => return Ok(Some(found)),
            FragmentMatch::Decided(_) => {}
            FragmentMatch::Depends => depends = true,
        }
    }
    if depends { Err(NeedsHead) } else { Ok(None) }
}

/// The lists on the way, in order.
fn stages(snapshot: &Snapshot, lists: Lists, mut note: impl FnMut(Dependency)) -> [Option<&Vec<AclId>>; 3] {
    let mut vif = |id: VifId| -> Option<&Vif> {
        if id == VifId::TUNNEL {
            return None;
        }
        note(Dependency::Vif(id));
        snapshot.vif(id).map(AsRef::as_ref)
    };
    let (from, to) = (vif(lists.ingress), vif(lists.egress));
    [
        from.map(|vif| &vif.ingress_acls),
        from.filter(|_| lists.local).map(|vif| &vif.service_acls),
        to.map(|vif| &vif.egress_acls),
    ]
}

/// Asks lists about a packet. `note` is told what is read of the snapshot.
pub(super) fn judge(
    snapshot: &Snapshot,
    packet: &AclPacket,
    lists: Lists,
    mut note: impl FnMut(Dependency),
) -> Judgement {
    let mut judgement = Judgement::default();
    for (ids, judged) in stages(snapshot, lists, &mut note).into_iter().zip(&mut judgement.0) {
        let asked = ids.into_iter().flatten().filter_map(|id| {
            note(Dependency::Acl(*id));
            snapshot.acl(*id).map(AsRef::as_ref)
        });
        *judged = evaluate(asked, packet);
        if judged.is_some_and(|found| found.action == Action::Deny) {
            break;
        }
    }
    judgement
}
