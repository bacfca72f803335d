//! What the two engines of mlx5 refuse of whole rules, as its driver's code does: mlx5_flow_dv.c with rdma-core's dr_*.c, and
//! mlx5_flow_hw.c with hws/. `hw-tests/tests/mlx5_judge` holds the answers against the driver's own.

use super::super::{
    action::{Action, ActionKind as A, Attr, PortId},
    error::{E2BIG, EINVAL, ENOTSUP, Errno, ErrorKind, FlowError},
    item::{INTEGRITY_BITS, Item, ItemKind},
};
use super::definer;

/// Octets of a header that tell one of layer 2 from a tunnel's (mlx5_flow.h, MLX5_ENCAPSULATION_DECISION_SIZE: Ethernet and IPv4).
const DECISION: usize = 34;
/// Ethernet with one tag: what software steering puts on behind a tunnel (rdma-core, dr_ste.c: 14 or 18 octets).
const TAGGED: usize = 18;

/// How rules come to the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    /// `dv_flow_en=1`.
    Software,
    /// `dv_flow_en=2`.
    Hardware,
}

/// What a port is at the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// A virtual function, by its representor; else a wire.
    pub function: bool,
    /// The switch; `None`: no switch.
    pub domain: Option<u16>,
}

/// What RAW_DECAP with RAW_ENCAP behind it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reformat {
    OffTunnel,
    IntoTunnel,
}

impl Engine {
    /// Checks a whole rule.
    ///
    /// # Errors
    /// With the driver's errno.
    pub(crate) fn check(
        self,
        attr: &Attr,
        items: &[Item],
        actions: &[Action],
        place: &dyn Fn(PortId) -> Option<Place>,
    ) -> Result<(), FlowError> {
        self.check_pattern(attr.group, items)?;
        self.check_actions(actions)?;
        let from = items.iter().find_map(port_of).and_then(place);
        if self == Self::Software {
            let wire = attr.transfer && from.is_some_and(|from| !from.function);
            self.check_integrity(items, wire)?;
            let off = actions.windows(2).position(|pair| reformat(pair) == Some(Reformat::OffTunnel));
            if let Some(index) = off.filter(|_| attr.transfer && from.is_some_and(|from| from.function)) {
                return Err(refused(EINVAL, index, c"packets of a function are sent: no tunnel comes off them"));
            }
        }
        let to = actions.iter().enumerate().find_map(|(index, action)| match action {
            Action::RepresentedPort(port) => Some((index, place(*port))),
            _ => None,
        });
        if let (Some(from), Some((index, Some(to)))) = (from, to)
            && from.domain.zip(to.domain).is_some_and(|(from, to)| from != to)
        {
            return Err(refused(EINVAL, index, c"the port does not belong to the E-Switch"));
        }
        Ok(())
    }

    /// Checks the pattern of a rule. Group 0 is firmware's, which has no definers.
    ///
    /// # Errors
    /// E2BIG: hardware steering, and there is no definer for it; ENOTSUP: software steering, and it has two tags.
    pub(crate) fn check_pattern(self, group: u32, items: &[Item]) -> Result<(), FlowError> {
        match self {
            Self::Hardware if group != 0 && !definer::fits(items) => {
                Err(FlowError::new(E2BIG, ErrorKind::Item, c"no definer holds the pattern"))
            }
            Self::Software => one_tag(items),
            _ => Ok(()),
        }
    }

    /// Checks the pattern of a template, by the driver of a DPDK of this year and month. Later ones want a definer for it whatever group it
    /// will be in, and count tags as software steering does (24.07, `__flow_hw_pattern_validate`).
    ///
    /// # Errors
    /// As for [`Self::check_pattern`]; EINVAL where it does not say which register TAG is about; ENOTSUP for MPLS before 23.03, and for two
    /// tags from 24.07 on.
    pub(crate) fn check_template(self, version: (u32, u32), items: &[Item]) -> Result<(), FlowError> {
        let refuse = |errno, index, message| Err(FlowError::item(errno, ErrorKind::Item, index, message));
        if let Some(index) = items.iter().position(|item| item.kind == ItemKind::Tag && item.spec.is_none()) {
            return refuse(EINVAL, index, c"Tag spec is NULL");
        }
        if let Some(index) = items.iter().position(|item| item.kind == ItemKind::Mpls && version < (23, 3)) {
            return refuse(ENOTSUP, index, c"Unsupported item type");
        }
        if version >= (24, 7) {
            one_tag(items)?;
        }
        if version < (23, 11) { Ok(()) } else { self.check_pattern(1, items) }
    }

    /// Checks the actions of a rule or of a template.
    ///
    /// # Errors
    /// EINVAL, ENOTSUP.
    pub(crate) fn check_actions(self, actions: &[Action]) -> Result<(), FlowError> {
        let mut reached = 0;
        let mut pushed = false;
        for (index, action) in actions.iter().enumerate() {
            let kind = action.kind();
            let before = index.checked_sub(1).and_then(|before| actions.get(before)).map(Action::kind);
            if kind == A::RawEncap && before == Some(A::RawDecap) {
                // Of the pair that begins before it.
                continue;
            }
            self.check_headers(actions, index)?;
            if kind == A::SetVlanPcp && !pushed {
                return Err(refused(ENOTSUP, index, c"set VLAN PCP action must follow the push VLAN action"));
            }
            pushed |= kind == A::PushVlan;
            let pair = actions.get(index..index + 2).unwrap_or_default();
            let Some(stage) = self.stage(kind, reformat(pair)) else { continue };
            if stage < reached {
                return Err(refused(EINVAL, index, c"actions are not in this engine's order"));
            }
            reached = stage;
        }
        Ok(())
    }

    /// Headers that an action takes off or puts on: one reformat with the action behind it, or those of a tunnel with Ethernet inside.
    fn check_headers(self, actions: &[Action], index: usize) -> Result<(), FlowError> {
        let pair = actions.get(index..index + 2).unwrap_or_default();
        match (actions.get(index), reformat(pair), pair) {
            (Some(Action::RawDecap(_)), Some(Reformat::OffTunnel), [_, Action::RawEncap(on)])
                if self == Self::Software && on.len() > TAGGED =>
            {
                Err(refused(EINVAL, index + 1, c"an Ethernet header has one tag at most"))
            }
            (Some(Action::RawDecap(off)), None, _) => {
                let elsewhere = actions.iter().any(|action| action.kind() == A::RawEncap);
                if off.len() > DECISION && !elsewhere {
                    return Ok(());
                }
                Err(refused(ENOTSUP, index, c"encap and decap combination aren't supported"))
            }
            (Some(Action::RawEncap(on)), ..) if on.len() <= DECISION => {
                Err(refused(ENOTSUP, index, c"small raw encap size"))
            }
            _ => Ok(()),
        }
    }

    /// The order of actions: rdma-core's dr_action.c, and the sequences of hws/mlx5dr_action.c. `None`: anywhere.
    const fn stage(self, kind: A, reformat: Option<Reformat>) -> Option<u8> {
        let tags = matches!(kind, A::PushVlan | A::SetVlanVid | A::SetVlanPcp);
        Some(match kind {
            A::Mark | A::Flag => 0,
            A::RawDecap => match reformat {
                Some(Reformat::IntoTunnel) => 7,
                _ => 1,
            },
            A::PopVlan => 2,
            A::Count | A::Age | A::Indirect => match self {
                Self::Hardware => 3,
                Self::Software => return None,
            },
            _ if tags => match self {
                Self::Hardware => 4,
                Self::Software => 6,
            },
            A::ModifyField | A::SetMeta | A::SetTag | A::SetMacSrc | A::SetMacDst | A::SetTtl | A::DecTtl => 5,
            A::RawEncap => 7,
            A::Jump | A::Drop | A::Rss | A::Queue | A::PortId | A::RepresentedPort => 8,
            _ => return None,
        })
    }

    /// rdma-core, dr_ste_v1.c: l3_ok and ipv4_checksum_ok are in definers 0 and 2, without addresses, ports and the source port of a wire.
    fn check_integrity(self, items: &[Item], wire: bool) -> Result<(), FlowError> {
        let checks = |item: &Item| {
            item.kind == ItemKind::Integrity && item.mask.is_some_and(|mask| mask.get(INTEGRITY_BITS) != Some(&0))
        };
        let Some(index) = items.iter().position(checks) else { return Ok(()) };
        let inner = items
            .get(index)
            .and_then(|item| item.mask)
            .is_some_and(|mask| mask.first().is_some_and(|level| *level > 1));
        let beside = items.iter().any(|item| match (item.kind, item.mask) {
            (ItemKind::Integrity | ItemKind::Void | ItemKind::RepresentedPort, _) | (_, None) => false,
            // Whether it is a fragment is in them.
            (ItemKind::Ipv4, Some(mask)) => {
                mask.iter().enumerate().any(|(at, mask)| *mask != 0 && !(6..8).contains(&at))
            }
            (_, Some(mask)) => mask.iter().any(|mask| *mask != 0),
        });
        if wire || inner || beside {
            return Err(FlowError::item(
                ENOTSUP,
                ErrorKind::Item,
                index,
                c"integrity stands beside nothing but fragment bits",
            ));
        }
        Ok(())
    }
}

fn one_tag(items: &[Item]) -> Result<(), FlowError> {
    if items.iter().filter(|item| item.kind == ItemKind::Vlan).count() > 1 {
        return Err(FlowError::new(ENOTSUP, ErrorKind::Item, c"multiple VLAN layers not supported"));
    }
    Ok(())
}

fn refused(errno: Errno, index: usize, message: &'static std::ffi::CStr) -> FlowError {
    FlowError::action(errno, ErrorKind::Action, index, message)
}

/// What a pair of actions takes off and puts on.
fn reformat(pair: &[Action]) -> Option<Reformat> {
    let [Action::RawDecap(off), Action::RawEncap(on)] = pair else { return None };
    match (off.len() > DECISION, on.len() > DECISION) {
        (true, false) => Some(Reformat::OffTunnel),
        (false, true) => Some(Reformat::IntoTunnel),
        _ => None,
    }
}

/// The port that an item names.
fn port_of(item: &Item) -> Option<PortId> {
    let (ItemKind::RepresentedPort, Some(&[low, high, ..])) = (item.kind, item.spec) else { return None };
    Some(PortId::from_ne_bytes([low, high]))
}
