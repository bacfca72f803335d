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

#[cfg(test)]
mod tests {
    use fallback_sw::node::decode;

    use super::*;
    use crate::port::Prepare as _;

    #[test]
    fn of_a_port_that_is_not_there_yet_nothing_is_asked_and_nothing_said_about_the_sa() {
        let state = r#"{"generation": "1", "node": "ce", "vrfs": [{"id": 2, "name": "wan"}, {"id": 8, "name": "tunnels"}], "vifs": [
            {"id": 1, "name": "wan", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 2,
             "addresses": ["198.51.100.2/24"]},
            {"id": 11, "name": "tunnel", "type": "TUNNEL", "vrf": 8, "tunnel":
                {"source": "192.0.2.1", "destination": "198.51.100.1", "vrf": 2}}],
            "nexthops": [{"id": 13, "vrf": 2, "resolve": {"oif": 1}}],
            "routes": [{"vrf": 2, "prefix": "198.51.100.0/24", "nexthop": 13}]}"#;
        let message: proto::v1::ForwardingState = proto::json::parse(state, "test state").unwrap();
        let snapshot = Snapshot::empty().with_state(decode::state(&message).unwrap()).unwrap();
        let [wan, tunnel] = [1, 11].map(|id| VifId::new(id).unwrap());
        let ports = NicPorts::new(false);
        let lowering = NicLowering::new(NicProfile::by_name("twin").unwrap(), ports.clone());
        let mut asked = Vec::new();
        let early = lowering.session(&snapshot, tunnel, &mut |port| {
            asked.push(port);
            Vec::new()
        });
        assert_eq!((early.err(), asked), (Some(NotHeld::Underlay), Vec::new()));
        ports.started(wan, 0, 1);
        let place = lowering.session(&snapshot, tunnel, &mut |_| vec![SessionKind::InlineProtocol]).unwrap();
        assert_eq!((place.port, place.kind), (wan, SessionKind::InlineProtocol));
        let none = lowering.session(&snapshot, tunnel, &mut |_| Vec::new());
        assert_eq!(none.err(), Some(NotHeld::Unsupported), "now the NIC has spoken");
    }
}
