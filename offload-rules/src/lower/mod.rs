//! From a program to the rule of a NIC.
//!
//! A rule is typed: items with spec and mask, actions in one canonical order. What a NIC can take is in its profile; what it can't
//! take is [`Unsupported`], with a reason for the operator. A rule never matches more than what software decided on: its match
//! holds every field that the walk read, and every field whose value is baked into its actions.
//!
//! Pure: knows no driver and no port numbers; a port is named by the vif of its device.

mod direction;
mod reason;
mod rule;

pub use direction::{Arrival, Direction, TunnelArrival};
pub use reason::{FailureClass, NotOffloaded, Unsupported};
pub use rule::{Action, Field, Item, Rule, Table};
