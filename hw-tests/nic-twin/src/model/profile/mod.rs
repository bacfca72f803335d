//! What a kind of NIC can do. The figures are of drivers and guides, each with its source; the twin's own profile can do all that
//! the model knows.

mod data;
mod definer;
mod masks;
mod mlx5;
mod secure;

use std::time::Duration;

use super::action::{Action, ActionKind, Attr, Modify, ModifyOp};
use super::error::{EINVAL, ENOTSUP, Errno, ErrorKind, FlowError};
use super::item::{Item, ItemKind, MAX_SPEC};
use super::security::SessionKind;
use super::shape::effective_mask;
use secure::Secures;

pub(crate) use mlx5::Engine;
pub use mlx5::Place;

/// A kind of NIC.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    /// Its name in the vdev arguments.
    pub name: &'static str,
    /// Has the synchronous API (`rte_flow_create`).
    pub sync: bool,
    /// Has templates and queues (`rte_flow_async_create`).
    pub templates: bool,
    /// Highest group; 0 when there are no jumps.
    pub max_group: u32,
    /// Highest priority number.
    pub max_priority: u32,
    /// Takes transfer rules.
    pub transfer: bool,
    /// Takes egress rules.
    pub egress: bool,
    /// Rules that fit.
    pub max_rules: u64,
    /// Counters there are.
    pub max_counters: u64,
    /// Interval in which counters are read; zero for at once.
    pub refresh: Duration,
    /// The errno when the table is full.
    pub full_errno: Errno,
    /// Takes `last`.
    pub ranges: bool,
    /// Refuses a second rule of the same pattern, group and priority with EEXIST.
    pub refuses_duplicates: bool,
    /// A rule whose spec has bits outside its mask is taken and never hits.
    pub stray_bits_miss: bool,
    /// Sessions of IPsec that it has, and that its rules can use.
    pub sessions: &'static [SessionKind],
    /// Sessions that fit, each way.
    pub max_sessions: u64,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Packets of the largest replay window.
    pub max_window: u32,
    /// Octets of the longest key.
    pub max_key: usize,
    pub(crate) secures: Secures,
    /// A rule that names a session is not destroyed (EINVAL): it goes with the session.
    pub rules_go_with_sessions: bool,
    /// MARK comes behind the queue.
    pub(crate) mark_last: bool,
    /// Marks have this many bits.
    pub mark_bits: u32,
    pub(crate) items: &'static [(ItemKind, &'static [u8])],
    pub(crate) actions: &'static [ActionKind],
    /// Refused in transfer rules.
    pub(crate) not_transfer: &'static [ActionKind],
    /// Refused in ingress rules.
    pub(crate) not_ingress: &'static [ActionKind],
    /// Refused in group 0.
    pub(crate) not_root: &'static [ActionKind],
    /// What mlx5 refuses of whole rules, by engine.
    pub(crate) engine: Option<Engine>,
    /// DROP goes with COUNT and AGE only.
    pub(crate) drop_alone: bool,
    pub(crate) modify_sub: bool,
    pub(crate) modify_inner: bool,
    /// POP_VLAN needs a VLAN item.
    pub(crate) pop_needs_item: bool,
}

impl Profile {
    /// The profile of this name.
    pub fn named(name: &str) -> Option<Profile> {
        data::ALL_PROFILES.iter().find(|profile| profile.name == name).copied()
    }

    /// All names, the default one first.
    pub fn names() -> impl Iterator<Item = &'static str> {
        data::ALL_PROFILES.iter().map(|profile| profile.name)
    }

    /// Does it match this item at all?
    pub fn has_item(&self, kind: ItemKind) -> bool {
        kind == ItemKind::Void || self.items.iter().any(|item| item.0 == kind)
    }

    /// Does it do this action at all?
    pub fn has_action(&self, kind: ActionKind) -> bool {
        kind == ActionKind::Void || self.actions.contains(&kind)
    }

    pub(crate) fn check_attr(&self, attr: &Attr) -> Result<(), FlowError> {
        let refuse = |errno, kind, message| Err(FlowError::new(errno, kind, message));
        if attr.transfer {
            if !self.transfer {
                return refuse(ENOTSUP, ErrorKind::AttrTransfer, c"this NIC has no transfer rules");
            }
            if attr.ingress || attr.egress {
                return refuse(EINVAL, ErrorKind::AttrTransfer, c"transfer goes without a direction");
            }
        } else if attr.ingress == attr.egress {
            let message =
                if attr.ingress { c"one direction at a time" } else { c"a direction or transfer must be given" };
            return refuse(if attr.ingress { ENOTSUP } else { EINVAL }, ErrorKind::Attr, message);
        } else if attr.egress && !self.egress {
            return refuse(ENOTSUP, ErrorKind::AttrEgress, c"this NIC has no egress rules");
        }
        if attr.group > self.max_group {
            return refuse(ENOTSUP, ErrorKind::AttrGroup, c"this NIC has no such group");
        }
        if attr.priority > self.max_priority {
            return refuse(ENOTSUP, ErrorKind::AttrPriority, c"this NIC has no such priority");
        }
        Ok(())
    }

    pub(crate) fn check_item(&self, index: usize, item: &Item) -> Result<(), FlowError> {
        if item.kind == ItemKind::Void {
            return Ok(());
        }
        let Some((_, allowed)) = self.items.iter().find(|known| known.0 == item.kind) else {
            return Err(FlowError::item(ENOTSUP, ErrorKind::Item, index, c"this NIC does not match this item"));
        };
        let is_covered = || {
            let allowed = allowed.iter().copied().chain(std::iter::repeat(0));
            effective_mask(item).iter().zip(allowed).all(|(&mask, allowed)| mask & !allowed == 0)
        };
        if allowed.len() <= MAX_SPEC && !is_covered() {
            let message = c"this NIC does not match this field";
            return Err(FlowError::item(ENOTSUP, ErrorKind::ItemMask, index, message));
        }
        if !self.ranges
            && let (Some(last), Some(spec)) = (item.last, item.spec)
            && last.iter().zip(spec).any(|(&last, &spec)| last != 0 && last != spec)
        {
            return Err(FlowError::item(ENOTSUP, ErrorKind::ItemLast, index, c"this NIC matches no ranges"));
        }
        Ok(())
    }

    pub(crate) fn check_action(&self, index: usize, action: &Action, attr: &Attr) -> Result<(), FlowError> {
        let kind = action.kind();
        if kind == ActionKind::Void {
            return Ok(());
        }
        let refuse = |errno, message| Err(FlowError::action(errno, ErrorKind::Action, index, message));
        if !self.actions.contains(&kind) {
            return refuse(ENOTSUP, c"this NIC does not do this action");
        }
        if attr.transfer && self.not_transfer.contains(&kind) {
            return refuse(ENOTSUP, c"not in transfer rules on this NIC");
        }
        if attr.ingress && self.not_ingress.contains(&kind) {
            return refuse(ENOTSUP, c"not in ingress rules on this NIC");
        }
        if attr.group == 0 && self.not_root.contains(&kind) {
            return refuse(ENOTSUP, c"not in group 0 on this NIC");
        }
        match action {
            Action::Mark(mark) if self.mark_bits < 32 && mark >> self.mark_bits != 0 => {
                Err(FlowError::action(EINVAL, ErrorKind::ActionConf, index, c"the mark is too wide for this NIC"))
            }
            Action::ModifyField(modify) => self.check_modify(index, modify),
            _ => Ok(()),
        }
    }

    fn check_modify(&self, index: usize, modify: &Modify) -> Result<(), FlowError> {
        let refuse = |message| Err(FlowError::action(ENOTSUP, ErrorKind::Action, index, message));
        if modify.op == ModifyOp::Sub && !self.modify_sub {
            return refuse(c"sub operations are not supported");
        }
        if modify.level > 1 && modify.field != super::action::FieldId::Tag && !self.modify_inner {
            return refuse(c"inner header fields modification is not supported");
        }
        Ok(())
    }

    /// Whether MARK is where the driver wants it.
    pub(crate) fn check_order(&self, actions: &[Action]) -> Result<(), FlowError> {
        let first = actions.iter().position(|action| action.kind() != ActionKind::Void);
        let marks = |index: usize| actions.get(index).is_some_and(|action| action.kind() == ActionKind::Mark);
        if let Some(first) = first.filter(|first| self.mark_last && marks(*first)) {
            let message = c"the first action is QUEUE or DROP";
            return Err(FlowError::action(EINVAL, ErrorKind::Action, first, message));
        }
        Ok(())
    }
}
