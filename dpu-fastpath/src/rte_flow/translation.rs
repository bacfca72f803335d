//! A whole rule, as one of rte_flow's calls takes it.

use std::hash::{Hash, Hasher};

use dpdk_sys::rte_flow_attr;
use offload_engine::{Failure, hash::QuickHasher};
use offload_rules::lower::{Action, Item, Role, Rule, Session};

use super::{
    actions::{self, Actions, ActionsShape},
    items::{Pattern, PatternShape},
    name_tables::NameTables,
    stages::StageNumbers,
    style::{Style, TtlStyle},
    unresolved::Unresolved,
};
use crate::port::StartedPort;

/// A rule with the storage of all that its items and actions point to.
#[derive(Debug)]
pub(super) struct Translation {
    /// The port that the rule is on, before a transfer proxy is asked for.
    pub(super) port: StartedPort,
    pub(super) place: Place,
    pub(super) pattern: Pattern,
    pub(super) actions: Actions,
    /// The session that it names.
    pub(super) session: Option<Session>,
    /// Numbers of the stages that it names.
    pub(super) stages: StageNumbers,
}

/// The domain of a rule: ingress, egress or transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Domain {
    /// The switch's.
    Transfer,
    /// A port's, of what it receives.
    Ingress,
    /// A port's, of what it sends.
    Egress,
}

/// Attributes of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) group: u32,
    pub(super) priority: u32,
    pub(super) domain: Domain,
    /// Which side of the switch its packets come from, where that is known.
    pub(super) origin: Option<Role>,
    /// The driver wants `ingress` of rules of the switch, too.
    pub(super) by_ingress: bool,
}

impl Place {
    pub(super) fn attr(self) -> rte_flow_attr {
        let mut attr = rte_flow_attr { group: self.group, priority: self.priority, ..Default::default() };
        match self.domain {
            Domain::Transfer if !self.by_ingress => attr.set_transfer(1),
            Domain::Transfer | Domain::Ingress => attr.set_ingress(1),
            Domain::Egress => attr.set_egress(1),
        }
        attr
    }
}

/// What the rules of one template table have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) place: Place,
    pub(super) pattern: PatternShape,
    pub(super) actions: ActionsShape,
}

impl Translation {
    /// Translates. The rule is on the port that its pattern names; one that names none is on the port of the lowest vif.
    ///
    /// # Errors
    ///
    /// ENODEV when a vif that it names is no port; ENOENT when a session is not open; ENOTSUP for a TTL that the NIC cannot write.
    #[cfg(test)]
    pub(super) fn new(rule: &Rule, style: Style, named: NameTables<'_>) -> Result<Self, Failure> {
        Self::reusing(Pattern::default(), rule, style, named)
    }

    /// The same, in the memory of a pattern that is done with.
    pub(super) fn reusing(spare: Pattern, rule: &Rule, style: Style, named: NameTables<'_>) -> Result<Self, Failure> {
        let ports = named.ports;
        let no_port = |message: String| Failure::from_errno(libc::ENODEV, message);
        let own = rule.items.iter().find_map(|item| match item {
            Item::Port(vif) => Some(*vif),
            _ => None,
        });
        let port = match own {
            Some(vif) => ports.get(vif).map_err(|error| no_port(error.to_string()))?,
            None => ports.first().ok_or_else(|| no_port("the NIC has no ports".to_owned()))?,
        };
        if style.ttl == TtlStyle::Decrement && !decrements(rule) {
            return Err(Failure::from_errno(libc::ENOTSUP, "the NIC takes one off the TTL and writes no other"));
        }
        let domain = match style.transfer && !actions::to_host(&rule.actions) {
            _ if rule.table.is_egress() => Domain::Egress,
            true => Domain::Transfer,
            false => Domain::Ingress,
        };
        let missing = |missing: Unresolved| match missing {
            Unresolved::Port(_) | Unresolved::Hairpin(_) => no_port(missing.to_string()),
            Unresolved::Session(_) | Unresolved::Stage => Failure::from_errno(libc::ENOENT, missing.to_string()),
        };
        let pattern = spare.refilled(&rule.items, style, domain == Domain::Transfer, named).map_err(missing)?;
        let actions = Actions::new(&rule.actions, style, (own, port.queues), named).map_err(missing)?;
        let origin = own.filter(|_| domain == Domain::Transfer).and_then(|vif| ports.origin(vif));
        let (group, priority) = (actions::group(rule.table), rule.priority);
        let place = Place { group, priority, domain, by_ingress: style.switch_by_ingress, origin };
        let session = actions::session(&rule.actions);
        Ok(Self { port, place, pattern, actions, session, stages: StageNumbers::default() })
    }

    /// Of this shape? Told without building its own.
    pub(super) fn is_of(&self, shape: &Shape) -> bool {
        self.place == shape.place && self.pattern.is_of(&shape.pattern) && self.actions.is_of(&shape.actions)
    }

    /// The same number for all rules of a shape; another one for others, most likely.
    pub(super) fn shape_hash(&self) -> u64 {
        let mut hasher = QuickHasher::default();
        self.place.hash(&mut hasher);
        self.pattern.hash_shape(&mut hasher);
        self.actions.hash_shape(&mut hasher);
        hasher.finish()
    }

    pub(super) fn shape(&self) -> Shape {
        Shape { place: self.place, pattern: self.pattern.shape(), actions: self.actions.shape() }
    }
}

/// Whether a TTL that is written, if any, is one less than the one that the last IP item matches: that of the packet that goes on.
fn decrements(rule: &Rule) -> bool {
    let written = rule.actions.iter().find_map(|action| match action {
        Action::SetTtl { ttl, .. } => Some(*ttl),
        _ => None,
    });
    let matched = rule.items.iter().rev().find_map(|item| match item {
        Item::Ipv4 { ttl, .. } | Item::Ipv6 { ttl, .. } => Some(*ttl),
        _ => None,
    });
    written.is_none_or(|written| matched.flatten() == written.checked_add(1))
}
