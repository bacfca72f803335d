//! How drivers differ in the items and actions of the same rule.

pub use offload_rules::lower::PortName as PortStyle;
use offload_rules::lower::{FieldRewrite, Layout, NicProfile, SwitchAttribute, TtlRewrite};

/// How a field of a header is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldStyle {
    /// `SET_MAC_DST`, `SET_MAC_SRC`, `SET_TTL`.
    #[default]
    Set,
    /// `MODIFY_FIELD`, the only way of mlx5's hardware steering. VLAN id and priority are written by `OF_SET_VLAN_*` in either style:
    /// drivers make one action of them with `OF_PUSH_VLAN`, and there is no field for the priority.
    Modify,
}

/// How TTL and hop limit are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TtlStyle {
    /// To a value, by [`FieldStyle`].
    #[default]
    Write,
    /// `DEC_TTL`. A rule that sets another value than one less than it matches is refused.
    Decrement,
}

/// How rules are expressed to a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Ports in patterns.
    pub port_item: PortStyle,
    /// Ports in actions.
    pub port_action: PortStyle,
    /// Fields.
    pub field: FieldStyle,
    /// TTL and hop limit.
    pub ttl: TtlStyle,
    /// Rules that leave the packets to the NIC are transfer rules: they live in the switch of the NIC, and name the port that packets
    /// come from. Rules that give packets to a queue are always rules of the port itself, as are all when this is off.
    pub transfer: bool,
    /// Rules of the switch say `ingress` in place of `transfer`.
    pub switch_by_ingress: bool,
    /// MARK comes behind the queue.
    pub mark_last: bool,
    /// The driver refuses to destroy the rule of an inbound session (EINVAL): its entry goes with the session.
    pub open_ends_with_session: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            port_item: PortStyle::Represented,
            port_action: PortStyle::Represented,
            field: FieldStyle::default(),
            ttl: TtlStyle::default(),
            transfer: true,
            switch_by_ingress: false,
            mark_last: false,
            open_ends_with_session: false,
        }
    }
}

impl Style {
    /// What the driver of such a NIC wants. A NIC with a switch forwards by transfer rules.
    #[must_use]
    pub fn of(profile: &NicProfile) -> Self {
        let dialect = &profile.dialect;
        Self {
            port_item: dialect.port_item.value,
            port_action: dialect.port_action.value,
            field: match profile.does.rewrite.value {
                FieldRewrite::Set => FieldStyle::Set,
                FieldRewrite::ModifyField => FieldStyle::Modify,
            },
            ttl: match profile.does.ttl.value {
                TtlRewrite::Decrement => TtlStyle::Decrement,
                TtlRewrite::Set | TtlRewrite::SetOrDecrement | TtlRewrite::None => TtlStyle::Write,
            },
            transfer: profile.layout == Layout::Switch,
            switch_by_ingress: dialect.switch.value == SwitchAttribute::Ingress,
            mark_last: dialect.mark_last.value,
            open_ends_with_session: dialect.open_ends_with_session.value,
        }
    }
}
