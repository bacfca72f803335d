//! Reverse path: may a packet with this source arrive here?
//!
//! The nexthop of the route to the source, S(nh), must lead back where the packet came from: Encap and Resolve by the vif,
//! Tunnel by the outer source, Composite by any of its members, Receive by coming from the node's own stack.

use std::net::IpAddr;

use super::{
    Ingress, Inquiry, protect,
    walk::{Reads, Walk},
};
use crate::{
    DropReason, NexthopId, VrfId,
    flow::{Choices, Dependency, FlowKey},
    forwarding::{NexthopKind, Snapshot, Vif},
};

/// Nexthops that are followed.
const MAX_STEPS: u8 = 8;

/// S(nh), or why the source may not come from there. [`NexthopId::NONE`] where RPF is off.
pub(super) fn check(snapshot: &Snapshot, inquiry: &Inquiry<'_>, read: &mut Reads<'_>) -> Result<NexthopId, DropReason> {
    let mut source_check =
        SourceCheck { read, snapshot, ingress: inquiry.ingress, choices: Choices::default(), level: 0 };
    source_check.check(inquiry.key)
}

/// The ECMP slots on the way back to where a packet came from.
pub(super) fn slots_toward(snapshot: &Snapshot, key: &FlowKey, ingress: Ingress) -> Result<Choices, DropReason> {
    let inquiry = Inquiry {
        key,
        service_port: 0,
        ingress,
        start: super::Start::Route,
        role: super::Role::Initiator,
        prior: Choices::default(),
        other_ingress: None,
        hash: 0,
    };
    let mut walk = Walk::new(snapshot, &inquiry);
    let mut source_check =
        SourceCheck { read: &mut walk.read, snapshot, ingress, choices: Choices::default(), level: 0 };
    source_check.check(key)?;
    Ok(source_check.choices)
}

struct SourceCheck<'t, 'a> {
    read: &'t mut Reads<'a>,
    snapshot: &'t Snapshot,
    ingress: Ingress,
    choices: Choices,
    level: usize,
}

impl SourceCheck<'_, '_> {
    fn check(&mut self, key: &FlowKey) -> Result<NexthopId, DropReason> {
        let source = key.source();
        let Some(vif) = self.read.vif(self.ingress.vif) else { return Err(DropReason::InvalidIf) };
        if self.ingress.tunnel.is_none() && (vif.is_subnet_broadcast(source) || self.is_broadcast(key.vrf, source)) {
            return Err(DropReason::InvalidSource);
        }
        let from_host = self.is_from_host();
        self.read.note(Dependency::Addresses);
        let own = self.snapshot.owner(key.vrf, source).is_some();
        if let Some(outer) = self.ingress.tunnel {
            protect::check_outer_source(self.snapshot, self.read, vif.id, outer)?;
        }
        if own && !from_host {
            return Err(DropReason::OwnSource);
        }
        if self.ingress.tunnel.is_none() && vif.flags.no_rpf {
            let exposed = protect::is_exposed(self.read, vif, (key.vrf, source));
            return if exposed { Err(DropReason::Unprotected) } else { Ok(NexthopId::NONE) };
        }
        let route = self.read.route(key.vrf, source).ok_or(DropReason::InvalidSource)?;
        let id = route.nexthop;
        if own || self.leads_back(id, key, MAX_STEPS) {
            return Ok(id);
        }
        let exposed = protect::is_exposed(self.read, vif, (key.vrf, source));
        Err(if exposed { DropReason::Unprotected } else { DropReason::InvalidSource })
    }

    /// The broadcast or network address of a subnet that its route leads to: nobody has it, whatever vif it comes in on.
    fn is_broadcast(&mut self, vrf: VrfId, source: IpAddr) -> bool {
        let Some(route) = self.read.route(vrf, source) else { return false };
        match self.read.nexthop(route.nexthop).map(|nexthop| &nexthop.kind) {
            Some(NexthopKind::Encap { oif, .. } | NexthopKind::Resolve { oif, .. }) => {
                self.read.vif(*oif).is_some_and(|vif| vif.is_subnet_broadcast(source))
            }
            _ => false,
        }
    }

    fn leads_back(&mut self, id: NexthopId, key: &FlowKey, steps: u8) -> bool {
        let Some(steps) = steps.checked_sub(1) else { return false };
        let Some(nexthop) = self.read.nexthop(id).filter(|nexthop| nexthop.valid) else { return false };
        match &nexthop.kind {
            NexthopKind::Encap { oif, .. } | NexthopKind::Resolve { oif, .. } => {
                self.ingress.tunnel.is_none() && *oif == self.ingress.vif
            }
            NexthopKind::Tunnel(tunnel) => {
                if self.ingress.tunnel != Some(tunnel.dip) {
                    return false;
                }
                // Which of the underlay's members it came by decides no admission, only the way back.
                if let Some(direct) = tunnel.direct {
                    self.note_member(direct);
                }
                true
            }
            NexthopKind::Composite { members } => {
                let level = self.level;
                self.level += 1;
                for (slot, member) in members.iter().enumerate() {
                    let Some(member) = member else { continue };
                    if self.leads_back(member.nexthop, key, steps) {
                        self.set_slot(level, slot);
                        return true;
                    }
                }
                self.level = level;
                false
            }
            NexthopKind::VrfTranslate { vrf } => self.leads_back_in(*vrf, key, steps),
            // An address of this node: only its own stack may speak from it.
            NexthopKind::Receive(_) => self.is_from_host(),
            NexthopKind::Drop => false,
        }
    }

    /// From the node's own stack or an agent on it?
    fn is_from_host(&self) -> bool {
        let punt = |vif: &std::sync::Arc<Vif>| vif.kind.is_punt();
        self.ingress.tunnel.is_none() && self.snapshot.vif(self.ingress.vif).is_some_and(punt)
    }

    fn leads_back_in(&mut self, vrf: VrfId, key: &FlowKey, steps: u8) -> bool {
        self.read.route(vrf, key.source()).is_some_and(|route| self.leads_back(route.nexthop, key, steps))
    }

    /// The slot of a tunnel's underlay composite whose interface the packet came by.
    fn note_member(&mut self, direct: NexthopId) {
        let Some(nexthop) = self.read.nexthop(direct) else { return };
        let NexthopKind::Composite { members } = &nexthop.kind else { return };
        let underlay = Ingress { vif: self.ingress.vif, tunnel: None };
        for (slot, member) in members.iter().enumerate() {
            let Some(member) = member else { continue };
            if super::usable::leads_to(self.read, member.nexthop, underlay, 2) {
                self.set_slot(self.level, slot);
                return;
            }
        }
    }

    fn set_slot(&mut self, level: usize, slot: usize) {
        if let (Some(choice), Ok(slot)) = (self.choices.ecmp.get_mut(level), u8::try_from(slot)) {
            *choice = Some(slot);
        }
    }
}
