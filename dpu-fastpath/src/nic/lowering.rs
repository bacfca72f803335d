//! Lowering for the ports that a NIC has.

use fallback_sw::offload::NotHeld;
use offload_rules::{
    VifId,
    forwarding::{Sa, Snapshot},
    lower::{Direction, Item, NicProfile, Rule, Session, Shape, Unsupported, canary},
};

use super::NicPorts;
use crate::offload::{Lowering, SessionKind, SessionPlace};

/// Lowering for a profile: rules that need a device which is no port of the NIC are refused.
#[derive(Debug, Clone)]
pub struct NicLowering {
    profile: NicProfile,
    ports: NicPorts,
    tried: bool,
}

impl NicLowering {
    /// For this profile and these ports.
    #[must_use]
    pub const fn new(profile: NicProfile, ports: NicPorts) -> Self {
        Self { profile, ports, tried: false }
    }

    /// The NIC has been tried in this process: no canaries. What it refuses all the same, it refuses flow by flow.
    #[must_use]
    pub fn tried(self) -> Self {
        Self { tried: true, ..self }
    }

    fn known(&self, direction: &Direction) -> Result<(), Unsupported> {
        let leaves_elsewhere = direction.egress_port.is_some_and(|port| !self.ports.has(port));
        if !self.ports.has(direction.arrival.port) || leaves_elsewhere {
            return Err(Unsupported::ForeignPort);
        }
        Ok(())
    }
}

impl Lowering for NicLowering {
    type Shape = Shape;

    fn name(&self) -> &str {
        Lowering::name(&self.profile)
    }

    fn refresh_ms(&self) -> u64 {
        self.profile.refresh_ms()
    }

    fn capacity(&self) -> Option<usize> {
        self.profile.capacity()
    }

    fn canaries(&self, snapshot: &Snapshot) -> Vec<(Shape, Rule)> {
        if self.tried {
            return Vec::new();
        }
        let own = snapshot.vifs().filter(|vif| vif.kind.port().is_some() && self.ports.has(vif.id));
        let ports: Vec<VifId> = own.map(|vif| vif.id).take(2).collect();
        let (Some(ingress), Some(egress)) = (ports.first(), ports.last()) else { return Vec::new() };
        Shape::representatives()
            .filter_map(|shape| Some((shape, canary(&shape, &self.profile, [*ingress, *egress]).ok()?)))
            .collect()
    }

    fn proactive(&self, snapshot: &Snapshot) -> Vec<Rule> {
        let mut rules = self.profile.proactive(snapshot);
        rules.retain(|rule| {
            rule.items.iter().all(|item| match item {
                Item::Port(vif) => self.ports.has(*vif),
                _ => true,
            })
        });
        rules
    }

    fn begins_with_any_number(&self) -> bool {
        self.profile.begins_with_any_number()
    }

    fn session(
        &self,
        snapshot: &Snapshot,
        vif: VifId,
        offered: &mut dyn FnMut(VifId) -> Vec<SessionKind>,
    ) -> Result<SessionPlace, NotHeld> {
        // A port that is not there, or not yet, offers nothing: that is no word of the NIC's about the SA.
        let mut there = true;
        let place = self.profile.session(snapshot, vif, &mut |port| {
            there = self.ports.has(port);
            if there { offered(port) } else { Vec::new() }
        });
        if there { place } else { Err(NotHeld::Underlay) }
    }

    fn open_rule(
        &self,
        snapshot: &Snapshot,
        place: (VifId, SessionPlace),
        sa: &Sa,
        session: Session,
    ) -> Result<Rule, Unsupported> {
        self.profile.open_rule(snapshot, place, sa, session)
    }

    fn seal_rule(
        &self,
        vif: VifId,
        place: SessionPlace,
        session: Session,
        alternate: bool,
    ) -> Result<Rule, Unsupported> {
        self.profile.seal_rule(vif, place, session, alternate)
    }

    fn full(&self, snapshot: &Snapshot, direction: &Direction, priority: u32) -> Result<(Rule, Shape), Unsupported> {
        self.known(direction)?;
        self.profile.full(snapshot, direction, priority)
    }

    fn partial(
        &self,
        snapshot: &Snapshot,
        direction: &Direction,
        priority: u32,
        mark: u32,
        queue: u16,
    ) -> Result<(Rule, Shape), Unsupported> {
        if !self.ports.has(direction.arrival.port) {
            return Err(Unsupported::ForeignPort);
        }
        self.profile.partial(snapshot, direction, priority, mark, queue)
    }
}
