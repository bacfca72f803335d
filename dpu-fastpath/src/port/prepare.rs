//! Hooks of the owner of a NIC's rules into the opening of devices.

use offload_rules::VifId;

use super::{gate::Gate, hairpin::Hairpins};
use crate::security::Sessions;

/// Hooks into the opening of a device, implemented by the owner of the NIC's rules and sessions.
pub trait Prepare: Send {
    /// The device is configured, and not started yet.
    ///
    /// # Errors
    /// Why it cannot be used so, in words.
    fn before_start(&self, port: u16) -> Result<(), String>;

    /// The sessions that packets may be sent with; `None`: there are none.
    fn sessions(&self) -> Option<Sessions> {
        None
    }

    /// The ports that rules lead between by hairpin queues; `None`: by a switch, or not at all.
    fn hairpins(&self) -> Option<Hairpins> {
        None
    }

    /// The gate that excludes calls of rte_flow while a port starts or stops; `None`: no rules are given.
    fn gate(&self) -> Option<Gate> {
        None
    }

    /// A device is given up: with it go the rules that it had.
    fn stopped(&self) {}

    /// The device of this vif has started.
    fn started(&self, vif: VifId, port: u16, queues: u16);
}
