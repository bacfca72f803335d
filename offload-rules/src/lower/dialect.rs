//! Dialects: how drivers want the same rule expressed.

use super::Fact;

/// How a port is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortName {
    /// `REPRESENTED_PORT`, DPDK 21.11's.
    Represented,
    /// `PORT_ID`, its deprecated predecessor.
    PortId,
}

/// How a rule says that it is one of the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwitchAttribute {
    /// By `transfer`, without a direction.
    Transfer,
    /// By `ingress`; the port is an item all the same.
    Ingress,
}

/// When the number of the IP protocol may be matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtoMatch {
    /// Always.
    Always,
    /// Only without ports: beside them their item says it.
    WithoutPorts,
    /// Never: packets without ports cannot be matched.
    Never,
}

/// The rule of an inbound session of IPsec: what it matches, and what its packets do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenRule {
    /// All that the NIC can match; SECURITY, then on to the next table or spread over the queues.
    Steered,
    /// All that the NIC can match; SECURITY is the one terminating action.
    Terminating,
    /// ETH, IP, UDP if there is one, ESP, without other fields: the driver enters the session's index and the destination into a table and
    /// reads nothing else. SECURITY and nothing behind it.
    Table,
}

/// What differs from one driver to another of what means the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// Ports in patterns.
    pub port_item: Fact<PortName>,
    /// Ports in actions.
    pub port_action: Fact<PortName>,
    /// Rules of the switch.
    pub switch: Fact<SwitchAttribute>,
    /// Priorities that a rule of a flow may have: 0 to one less.
    pub priorities: Fact<u32>,
    /// The IP protocol's number.
    pub proto: Fact<ProtoMatch>,
    /// MARK comes behind the queue.
    pub mark_last: Fact<bool>,
    /// Inbound sessions.
    pub open: Fact<OpenRule>,
    /// The driver refuses to destroy the rule of an inbound session: its entry goes with the session.
    pub open_ends_with_session: Fact<bool>,
}

impl Dialect {
    /// As the rte_flow guide has it.
    pub const GUIDE: Self = {
        const GUIDE: &str = "DPDK rte_flow guide";
        Self {
            port_item: Fact::new(PortName::Represented, GUIDE),
            port_action: Fact::new(PortName::Represented, GUIDE),
            switch: Fact::new(SwitchAttribute::Transfer, GUIDE),
            priorities: Fact::new(u32::MAX, GUIDE),
            proto: Fact::new(ProtoMatch::Always, GUIDE),
            mark_last: Fact::new(false, GUIDE),
            open: Fact::new(OpenRule::Steered, GUIDE),
            open_ends_with_session: Fact::new(false, GUIDE),
        }
    };
}
