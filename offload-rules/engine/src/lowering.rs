//! What the engine asks of lowering: rules for directions, for sessions and for steering, and the shapes that rules have.

use std::fmt::{Debug, Display};

use offload_rules::{
    VifId,
    forwarding::{Sa, Snapshot},
    lower::{
        Chain, Direction, Ipsec, NicProfile, Opener, Rule, Session, Shape, TunnelEnd, Unsupported, canary, lower,
        open_rule, partial, priority, proactive, seal_rule, transit, underlay,
    },
    transit::TransitRule,
};

use crate::{SessionKind, protocol::NotHeld};

/// Where a session is, and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionPlace {
    /// How much of ESP it does.
    pub kind: SessionKind,
    /// The vif that brings and takes the tunnel's packets.
    pub link: VifId,
    /// The vif of its device.
    pub port: VifId,
}

/// Turns directions into rules. The engine learns which shapes a NIC refuses; it never looks into a rule.
pub trait Lowering: Send {
    /// What rules with the same items, masks and kinds of actions have in common.
    type Shape: Clone + Ord + Debug + Display + Send;

    /// Name of the NIC's profile.
    fn name(&self) -> &str;

    /// Milliseconds between two readings of a counter that can differ; 0: any time.
    fn refresh_ms(&self) -> u64;

    /// Capacity of the NIC in rules, where that is known.
    fn capacity(&self) -> Option<usize>;

    /// Rules to try at start, with what they need, each with the shape that it stands for: few, since flows wait for them. They match no real packet. None
    /// as long as there is no port.
    fn canaries(&self, snapshot: &Snapshot) -> Vec<(Self::Shape, Chain)>;

    /// Rules that do not belong to a flow: steering of packets to the tables of flows. One that leads to a table is in the NIC only while all
    /// others of these in that table are.
    fn proactive(&self, snapshot: &Snapshot) -> Vec<Rule>;

    /// Grows with each change of the NIC's ports that rules depend on; always 0 where lowering does not look at ports.
    fn ports_version(&self) -> u64;

    /// Does a session of the whole protocol begin with the number that it is given? Otherwise with 1.
    fn begins_with_any_number(&self) -> bool;

    /// How the NIC would hold an SA of the tunnel `vif`, if its driver offers these kinds of sessions for it.
    ///
    /// # Errors
    /// It would not, and why.
    fn session(
        &self,
        snapshot: &Snapshot,
        vif: VifId,
        offered: &mut dyn FnMut(VifId) -> Vec<SessionKind>,
    ) -> Result<SessionPlace, NotHeld>;

    /// The rule that opens the packets of an inbound SA by a session.
    ///
    /// # Errors
    /// The NIC does not allow it.
    fn open_rule(
        &self,
        snapshot: &Snapshot,
        vif: VifId,
        place: SessionPlace,
        sa: &Sa,
        session: Session,
    ) -> Result<Rule, Unsupported>;

    /// The rule that seals what rules forward into the tunnel `vif`, by a session, at one of two priorities.
    ///
    /// # Errors
    /// The NIC does not allow it.
    fn seal_rule(
        &self,
        vif: VifId,
        place: SessionPlace,
        session: Session,
        alternate: bool,
    ) -> Result<Rule, Unsupported>;

    /// The rule that forwards or drops a direction in the NIC, with what it needs.
    ///
    /// # Errors
    /// The NIC, or the program, does not allow it.
    fn full(
        &self,
        snapshot: &Snapshot,
        direction: &Direction,
        priority: u32,
    ) -> Result<(Chain, Self::Shape), Unsupported>;

    /// The rule for transit, with what it needs, and the shape of flows that go the same way through the NIC.
    ///
    /// # Errors
    /// The NIC does not allow it.
    fn transit(&self, snapshot: &Snapshot, rule: &TransitRule) -> Result<(Chain, Option<Self::Shape>), Unsupported>;

    /// The rule that marks a direction's packets with `mark`, and puts them into the queue `queue`. It may have a priority of its own.
    ///
    /// # Errors
    /// The NIC does not allow even that.
    fn partial(
        &self,
        snapshot: &Snapshot,
        direction: &Direction,
        priority: u32,
        mark: u32,
        queue: u16,
    ) -> Result<(Chain, Self::Shape), Unsupported>;
}

/// The kind of session to ask for: the one in which the NIC does most.
fn kind(profile: &NicProfile, offered: &[SessionKind]) -> Option<SessionKind> {
    let known =
        [(Ipsec::InlineProtocol, SessionKind::InlineProtocol), (Ipsec::InlineCrypto, SessionKind::InlineCrypto)];
    let usable =
        known.into_iter().filter(|(ipsec, kind)| profile.ipsec.value.contains(ipsec) && offered.contains(kind));
    usable.map(|(_, kind)| kind).next()
}

impl Lowering for NicProfile {
    type Shape = Shape;

    fn name(&self) -> &str {
        self.name
    }

    fn refresh_ms(&self) -> u64 {
        self.limits.counter_refresh_ms.value.into()
    }

    fn capacity(&self) -> Option<usize> {
        self.limits.rules.value.map(|rules| rules as usize)
    }

    fn canaries(&self, snapshot: &Snapshot) -> Vec<(Shape, Chain)> {
        let ports: Vec<VifId> =
            snapshot.vifs().filter(|vif| vif.kind.port().is_some()).map(|vif| vif.id).take(2).collect();
        let (Some(ingress), Some(egress)) = (ports.first(), ports.last()) else { return Vec::new() };
        // What the profile refuses by itself is not asked.
        Shape::representatives()
            .filter_map(|shape| Some((shape, canary(&shape, self, [*ingress, *egress]).ok()?)))
            .collect()
    }

    fn proactive(&self, snapshot: &Snapshot) -> Vec<Rule> {
        proactive(snapshot, self)
    }

    fn ports_version(&self) -> u64 {
        0
    }

    fn begins_with_any_number(&self) -> bool {
        Self::begins_with_any_number(self)
    }

    fn session(
        &self,
        snapshot: &Snapshot,
        vif: VifId,
        offered: &mut dyn FnMut(VifId) -> Vec<SessionKind>,
    ) -> Result<SessionPlace, NotHeld> {
        let tunnel = snapshot.vif(vif).and_then(|vif| vif.kind.tunnel()).ok_or(NotHeld::Underlay)?;
        let link = underlay(snapshot, tunnel).ok_or(NotHeld::Underlay)?;
        let port = snapshot.port_of(link);
        let kind = kind(self, &offered(port)).ok_or(NotHeld::Unsupported)?;
        Ok(SessionPlace { kind, link, port })
    }

    fn open_rule(
        &self,
        snapshot: &Snapshot,
        vif: VifId,
        place: SessionPlace,
        sa: &Sa,
        session: Session,
    ) -> Result<Rule, Unsupported> {
        let tunnel = snapshot.vif(vif).and_then(|vif| vif.kind.tunnel()).ok_or(Unsupported::Ipsec)?;
        let kind = match place.kind {
            SessionKind::InlineProtocol => Ipsec::InlineProtocol,
            SessionKind::InlineCrypto => Ipsec::InlineCrypto,
        };
        open_rule(snapshot, self, &TunnelEnd { vif, tunnel, link: place.link }, &Opener { sa, session, kind })
    }

    fn seal_rule(
        &self,
        vif: VifId,
        place: SessionPlace,
        session: Session,
        alternate: bool,
    ) -> Result<Rule, Unsupported> {
        seal_rule(self, vif, place.port, session, alternate)
    }

    fn full(&self, _: &Snapshot, direction: &Direction, priority: u32) -> Result<(Chain, Shape), Unsupported> {
        let chain = lower(direction, self, priority == priority::FLOW_ALTERNATE)?;
        Ok((chain, Shape::of(direction, self)))
    }

    fn transit(&self, _: &Snapshot, rule: &TransitRule) -> Result<(Chain, Option<Shape>), Unsupported> {
        let shape = match rule {
            TransitRule::Source(_) => None,
            TransitRule::Destination(departure) => Some(Shape::of(&departure.direction, self)),
        };
        Ok((transit(rule, self)?, shape))
    }

    fn partial(
        &self,
        _: &Snapshot,
        direction: &Direction,
        _: u32,
        mark: u32,
        queue: u16,
    ) -> Result<(Chain, Shape), Unsupported> {
        Ok((partial(direction, mark, queue, self)?.into(), Shape::of_partial(direction)))
    }
}
