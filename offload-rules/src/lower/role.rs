//! The role of a port at its NIC's switch.

use std::fmt::{Display, Formatter, Result};

/// The side of the NIC's switch that a port stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Role {
    /// A physical port: the uplink of a switch, or a NIC without one.
    #[default]
    Wire,
    /// A virtual or scalable function, by its representor.
    Function,
}

/// Facts of a port from its driver (`rte_eth_dev_info`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PortFacts {
    /// Which side of the switch.
    pub role: Role,
    /// The switch domain: rules forward within one. `None`: the driver reports none.
    pub domain: Option<u16>,
}

impl PortFacts {
    /// May a rule of the NIC's switch lead from this port to that one? Where a driver reports no domains, any rule may be tried.
    #[must_use]
    pub fn shares_switch(&self, other: &Self) -> bool {
        match (self.domain, other.domain) {
            (Some(own), Some(other)) => own == other,
            _ => true,
        }
    }
}

impl Display for Role {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Wire => "wire",
            Self::Function => "function",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_two_domains_share_no_switch_and_those_of_none_may() {
        let port = |domain| PortFacts { role: Role::Wire, domain };
        assert!(port(Some(1)).shares_switch(&port(Some(1))));
        assert!(!port(Some(1)).shares_switch(&port(Some(2))));
        assert!(port(None).shares_switch(&port(Some(2))) && port(Some(1)).shares_switch(&port(None)));
    }
}
