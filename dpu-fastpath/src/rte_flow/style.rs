//! Where drivers differ in how they want the same rule said.

use offload_rules::lower::{FieldRewrite, NicProfile, TtlRewrite};

/// How a port is named in a pattern and in an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PortStyle {
    /// `REPRESENTED_PORT`, DPDK 21.11's.
    #[default]
    Represented,
    /// `PORT_ID`, its deprecated predecessor.
    PortId,
}

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

/// How rules are said to a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Ports.
    pub port: PortStyle,
    /// Fields.
    pub field: FieldStyle,
    /// TTL and hop limit.
    pub ttl: TtlStyle,
    /// `has_vlan` of the Ethernet item is matched. Where not, a pattern without tags sees through them: lowering makes such patterns only
    /// for marks, which software checks.
    pub untagged: bool,
    /// Rules that leave the packets to the NIC are transfer rules: they live in the switch of the NIC, and name the port that packets
    /// come from. Rules that give packets to a queue are always rules of the port itself, as are all when this is off.
    pub transfer: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            port: PortStyle::default(),
            field: FieldStyle::default(),
            ttl: TtlStyle::default(),
            untagged: true,
            transfer: true,
        }
    }
}

impl Style {
    /// What the driver of such a NIC wants. A NIC that forwards between ports does so by transfer rules.
    #[must_use]
    pub fn of(profile: &NicProfile) -> Self {
        Self {
            port: PortStyle::Represented,
            field: match profile.does.rewrite.value {
                FieldRewrite::Set => FieldStyle::Set,
                FieldRewrite::ModifyField => FieldStyle::Modify,
            },
            ttl: match profile.does.ttl.value {
                TtlRewrite::Decrement => TtlStyle::Decrement,
                TtlRewrite::Set | TtlRewrite::None => TtlStyle::Write,
            },
            untagged: profile.matches.untagged.value,
            transfer: profile.does.port_to_port.value,
        }
    }
}
