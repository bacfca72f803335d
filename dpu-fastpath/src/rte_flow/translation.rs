//! A whole rule, as one of rte_flow's calls takes it.

use std::hash::{Hash, Hasher};

use dpdk_sys::rte_flow_attr;
use offload_rules::lower::{Action, Item, Rule, Session};

use super::{
    actions::{self, Actions, ActionsShape, Missing, Named},
    items::{Pattern, PatternShape},
    ports::Ethdev,
    style::{Style, TtlStyle},
};
use crate::{hash::QuickHasher, offload::Failure};

/// A rule with the storage of all that its items and actions point to.
#[derive(Debug)]
pub(super) struct Translation {
    /// The port that the rule is on, before a transfer proxy is asked for.
    pub(super) port: Ethdev,
    pub(super) place: Place,
    pub(super) pattern: Pattern,
    pub(super) actions: Actions,
    /// The session that it names.
    pub(super) session: Option<Session>,
}

/// Attributes of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) group: u32,
    pub(super) priority: u32,
    pub(super) transfer: bool,
}

impl Place {
    pub(super) fn attr(self) -> rte_flow_attr {
        let mut attr = rte_flow_attr { group: self.group, priority: self.priority, ..Default::default() };
        if self.transfer {
            attr.set_transfer(1);
        } else {
            attr.set_ingress(1);
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
    pub(super) fn new(rule: &Rule, style: Style, named: Named<'_>) -> Result<Self, Failure> {
        Self::reusing(Pattern::default(), rule, style, named)
    }

    /// The same, in the memory of a pattern that is done with.
    pub(super) fn reusing(spare: Pattern, rule: &Rule, style: Style, named: Named<'_>) -> Result<Self, Failure> {
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
        let transfer = style.transfer && !actions::to_host(&rule.actions);
        let pattern =
            spare.refilled(&rule.items, style, transfer, ports).map_err(|error| no_port(error.to_string()))?;
        let actions = Actions::new(&rule.actions, style, port.queues, named).map_err(|missing| match missing {
            Missing::Port(_) => no_port(missing.to_string()),
            Missing::Session(_) => Failure::from_errno(libc::ENOENT, missing.to_string()),
        })?;
        let place = Place { group: actions::group(rule.table), priority: rule.priority, transfer };
        let session = actions::session(&rule.actions);
        Ok(Self { port, place, pattern, actions, session })
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
