//! Lowering to the ports of a NIC: roles of ports, switch domains, hairpins.

use std::collections::BTreeMap;

use offload_engine::protocol::NotHeld;
use offload_rules::{
    VifId,
    forwarding::{Sa, Snapshot},
    lower::{
        Action, Chain, Direction, HeaderCheck, Item, Layout, NicProfile, Origin, Outcome, PortFacts, Role, Rule,
        Session, Shape, Table, Unsupported, canary, checked_steering,
    },
    transit::TransitRule,
};

use super::NicPorts;
use offload_engine::{Lowering, SessionKind, SessionPlace};

/// Lowering for a profile: rules that need a device which is no port of the NIC are refused.
#[derive(Debug, Clone)]
pub struct NicLowering {
    profile: NicProfile,
    ports: NicPorts,
    skip_canaries: bool,
}

impl NicLowering {
    /// For this profile and these ports.
    #[must_use]
    pub const fn new(profile: NicProfile, ports: NicPorts) -> Self {
        Self { profile, ports, skip_canaries: false }
    }

    /// The NIC has been tried in this process: no canaries. What it refuses all the same, it refuses flow by flow.
    #[must_use]
    pub fn without_canaries(self) -> Self {
        Self { skip_canaries: true, ..self }
    }

    /// The port of a device.
    fn port(&self, vif: VifId) -> Result<PortFacts, Unsupported> {
        self.ports.facts(vif).ok_or(Unsupported::ForeignPort)
    }

    /// The roles of the ports on the way, if the NIC leads from the one to the other.
    fn pair(&self, ingress: VifId, egress: Option<VifId>) -> Result<(Role, Role), Unsupported> {
        let from = self.port(ingress)?;
        let Some(egress) = egress else { return Ok((from.role, from.role)) };
        let to = self.port(egress)?;
        if self.profile.layout == Layout::Hairpin {
            return Ok((from.role, to.role));
        }
        if !from.shares_switch(&to) {
            return Err(Unsupported::OtherSwitch);
        }
        // Of a port without a switch domain it is not known what it stands for: the NIC is asked.
        let by_switch = from.domain.is_some() && to.domain.is_some();
        if by_switch && (from.role, to.role) == (Role::Wire, Role::Wire) && !self.profile.does.wire_to_wire.value {
            return Err(Unsupported::WireToWire);
        }
        Ok((from.role, to.role))
    }

    /// What depends on the role of the port that packets come in on: a tunnel taken off, and whether their headers are checked.
    fn check_role(&self, from: Role, out_of_tunnel: bool) -> Result<(), Unsupported> {
        let profile = &self.profile;
        if profile.layout == Layout::Switch
            && from == Role::Function
            && out_of_tunnel
            && !profile.does.decap_on_function.value
        {
            return Err(Unsupported::DecapFromFunction);
        }
        if profile.strict && profile.matches.header_check.value == HeaderCheck::Steering && !self.checks_headers(from) {
            return Err(Unsupported::HeaderCheck);
        }
        Ok(())
    }

    /// Does steering check the headers of what comes in on such a port?
    fn checks_headers(&self, from: Role) -> bool {
        let steering = self.profile.matches.header_check.value == HeaderCheck::Steering;
        steering && self.profile.layout == Layout::Switch && from == Role::Function
    }

    /// Two ports for each pair of roles that there is, or why the NIC leads from none to the other: two different ones where it can be.
    fn pairs(&self, snapshot: &Snapshot) -> BTreeMap<(Role, Role), Result<[VifId; 2], Unsupported>> {
        let own = snapshot.vifs().filter(|vif| vif.kind.port().is_some()).map(|vif| vif.id);
        let own: Vec<(VifId, PortFacts)> = own.filter_map(|vif| Some((vif, self.ports.facts(vif)?))).collect();
        let mut pairs = BTreeMap::new();
        for (ingress, from) in &own {
            for (egress, to) in own.iter().filter(|(egress, _)| egress != ingress).chain([&(*ingress, *from)]) {
                let found = self.pair(*ingress, Some(*egress)).map(|_| [*ingress, *egress]);
                let known = pairs.entry((from.role, to.role)).or_insert(found);
                if known.is_err() {
                    *known = found;
                }
            }
        }
        pairs
    }

    /// A rule of each of these shapes between ports of each pair of roles that there is, with documentation addresses; or why none is
    /// made.
    pub fn samples<S: Iterator<Item = Shape>>(
        &self,
        snapshot: &Snapshot,
        shapes: impl Fn() -> S,
    ) -> Vec<(Shape, Result<Chain, Unsupported>)> {
        let pairs = self.pairs(snapshot);
        // What a drop or a mark asks of the NIC depends on one port.
        let mut alone = BTreeMap::new();
        for vif in snapshot.vifs() {
            if let Some(facts) = self.ports.facts(vif.id) {
                alone.entry((facts.role, facts.role)).or_insert(Ok([vif.id; 2]));
            }
        }
        let ways = pairs.iter().map(|way| (way, true)).chain(alone.iter().map(|way| (way, false)));
        let mut samples = Vec::new();
        for (((from, to), ports), leaving) in ways {
            for shape in shapes().filter(|shape| leaves(shape) == leaving) {
                let shape = shape.between(*from, *to);
                let chain = ports.and_then(|ports| {
                    if leaving {
                        self.check_role(*from, shape.from == Origin::Tunnel)?;
                    }
                    canary(&shape, &self.profile, ports)
                });
                samples.push((shape, chain));
            }
        }
        samples
    }
}

/// A rule whose packets leave on a port.
const fn leaves(shape: &Shape) -> bool {
    matches!(shape.to, Outcome::Tenant | Outcome::Tunnel)
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

    fn canaries(&self, snapshot: &Snapshot) -> Vec<(Shape, Chain)> {
        if self.skip_canaries {
            return Vec::new();
        }
        let samples = self.samples(snapshot, Shape::representatives).into_iter();
        samples.filter_map(|(shape, chain)| Some((shape, chain.ok()?))).collect()
    }

    fn proactive(&self, snapshot: &Snapshot) -> Vec<Rule> {
        let mut rules = Vec::new();
        for rule in self.profile.proactive(snapshot) {
            let own = |item: &Item| !matches!(item, Item::Port(vif) if !self.ports.has(*vif));
            if !rule.items.iter().all(own) {
                continue;
            }
            match rule.items.as_slice() {
                [Item::Port(port)]
                    if rule.actions == [Action::Jump(Table::Tenant)]
                        && self.ports.facts(*port).is_some_and(|facts| self.checks_headers(facts.role)) =>
                {
                    rules.extend(checked_steering(*port));
                }
                _ => rules.push(rule),
            }
        }
        rules
    }

    fn ports_version(&self) -> u64 {
        self.ports.registry().version()
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
        // A port that is not there, or not yet, offers nothing: that says nothing about the SA.
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
        vif: VifId,
        place: SessionPlace,
        sa: &Sa,
        session: Session,
    ) -> Result<Rule, Unsupported> {
        self.profile.open_rule(snapshot, vif, place, sa, session)
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

    fn full(&self, snapshot: &Snapshot, direction: &Direction, priority: u32) -> Result<(Chain, Shape), Unsupported> {
        let (ingress, egress) = self.pair(direction.arrival.port, direction.egress_port)?;
        if direction.program.drops().is_none() {
            self.check_role(ingress, direction.arrival.tunnel.is_some())?;
        }
        let (chain, shape) = self.profile.full(snapshot, direction, priority)?;
        Ok((chain, shape.between(ingress, egress)))
    }

    fn transit(&self, snapshot: &Snapshot, rule: &TransitRule) -> Result<(Chain, Option<Shape>), Unsupported> {
        let arrival = rule.arrival();
        let TransitRule::Destination(departure) = rule else {
            self.check_role(self.port(arrival.port)?.role, arrival.tunnel.is_some())?;
            return self.profile.transit(snapshot, rule);
        };
        let (ingress, egress) = self.pair(arrival.port, departure.direction.egress_port)?;
        self.check_role(ingress, arrival.tunnel.is_some())?;
        let (chain, shape) = self.profile.transit(snapshot, rule)?;
        Ok((chain, shape.map(|shape| shape.between(ingress, egress))))
    }

    fn partial(
        &self,
        snapshot: &Snapshot,
        direction: &Direction,
        priority: u32,
        mark: u32,
        queue: u16,
    ) -> Result<(Chain, Shape), Unsupported> {
        let role = self.port(direction.arrival.port)?.role;
        let (chain, shape) = self.profile.partial(snapshot, direction, priority, mark, queue)?;
        Ok((chain, shape.between(role, role)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fallback_sw::node::decode;
    use offload_rules::lower::Action;

    use super::*;
    use crate::port::{Prepare as _, StartedPort};

    #[test]
    fn a_port_that_is_not_there_yet_is_not_asked_about_an_sa() {
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

    /// Two physical ports of one switch, a VF of it, and a physical port of another; device 5 is not the NIC's.
    fn node() -> (Snapshot, NicPorts) {
        let state = r#"{"generation": "1", "node": "pe", "vrfs": [{"id": 1, "name": "one"}], "vifs": [
            {"id": 1, "name": "p0", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 1, "addresses": ["192.0.2.1/24"]},
            {"id": 2, "name": "p1", "type": "PHYSICAL", "mac": "02:00:00:00:00:02", "vrf": 1, "addresses": ["198.51.100.1/24"]},
            {"id": 3, "name": "vf0", "type": "PHYSICAL", "mac": "02:00:00:00:00:03", "vrf": 1, "addresses": ["203.0.113.1/25"]},
            {"id": 4, "name": "q0", "type": "PHYSICAL", "mac": "02:00:00:00:00:04", "vrf": 1, "addresses": ["203.0.113.129/26"]},
            {"id": 5, "name": "eth0", "type": "PHYSICAL", "mac": "02:00:00:00:00:05", "vrf": 1}]}"#;
        let message: proto::v1::ForwardingState = proto::json::parse(state, "test state").unwrap();
        let snapshot = Snapshot::empty().with_state(decode::state(&message).unwrap()).unwrap();
        let ports = NicPorts::new(false);
        let known = [(1, Role::Wire, 0), (2, Role::Wire, 0), (3, Role::Function, 0), (4, Role::Wire, 1)];
        for (ethdev, (vif, role, domain)) in (0..).zip(known) {
            ports.registry().insert(VifId::new(vif).unwrap(), StartedPort { ethdev, queues: 1 });
            ports.registry().set_facts(VifId::new(vif).unwrap(), PortFacts { role, domain: Some(domain) });
        }
        (snapshot, ports)
    }

    fn nic(profile: &str) -> (Snapshot, NicLowering) {
        let (snapshot, ports) = node();
        (snapshot, NicLowering::new(NicProfile::by_name(profile).unwrap(), ports))
    }

    #[test]
    fn an_mlx5_switch_forwards_wire_to_function_and_not_wire_to_wire() {
        let (_, nic) = nic("mlx5-sws");
        let pair = |from, to| nic.pair(VifId::new(from).unwrap(), Some(VifId::new(to).unwrap()));
        assert_eq!(pair(1, 3), Ok((Role::Wire, Role::Function)));
        assert_eq!(pair(3, 2), Ok((Role::Function, Role::Wire)));
        assert_eq!(pair(3, 3), Ok((Role::Function, Role::Function)));
        // rdma-core dr_action.c, DR_ACTION_TYP_VPORT: also back to the wire that it came from.
        assert_eq!(pair(1, 2), Err(Unsupported::WireToWire));
        assert_eq!(pair(1, 1), Err(Unsupported::WireToWire));
        assert_eq!(pair(3, 4), Err(Unsupported::OtherSwitch));
        assert_eq!(pair(3, 5), Err(Unsupported::ForeignPort));
        // What is dropped leads nowhere.
        assert_eq!(nic.pair(VifId::new(1).unwrap(), None), Ok((Role::Wire, Role::Wire)));
    }

    #[test]
    fn canaries_go_between_ports_of_each_existing_pair_of_roles() {
        let (snapshot, nic) = nic("mlx5-sws");
        let found = |leaving: bool| -> BTreeSet<(Role, Role)> {
            let canaries = nic.canaries(&snapshot);
            canaries.iter().filter(|(shape, _)| leaves(shape) == leaving).map(|(shape, _)| shape.pair).collect()
        };
        let [wire, function] = [Role::Wire, Role::Function];
        assert_eq!(found(true), [(wire, function), (function, wire), (function, function)].into());
        assert_eq!(found(false), [(wire, wire), (function, function)].into());
        for (shape, Chain { rule, .. }) in nic.canaries(&snapshot) {
            let ports = |vif: VifId| nic.ports.facts(vif).unwrap().role;
            let ingress = rule.items.iter().find_map(|item| match item {
                Item::Port(vif) => Some(*vif),
                _ => None,
            });
            assert_eq!(ports(ingress.unwrap()), shape.pair.0, "{shape}: {rule}");
            for action in &rule.actions {
                if let Action::Port(egress) = action {
                    assert_eq!(ports(*egress), shape.pair.1, "{shape}: {rule}");
                }
            }
        }
    }

    #[test]
    fn without_switch_domains_the_nic_is_asked_about_two_wires() {
        let (snapshot, ports) = node();
        for vif in 1..=4 {
            ports.registry().set_facts(VifId::new(vif).unwrap(), PortFacts::default());
        }
        let nic = NicLowering::new(NicProfile::by_name("mlx5-sws").unwrap(), ports);
        let pairs = nic.pairs(&snapshot);
        let [one, two] = [1, 2].map(|vif| VifId::new(vif).unwrap());
        assert_eq!(pairs, BTreeMap::from([((Role::Wire, Role::Wire), Ok([one, two]))]));
    }
}
