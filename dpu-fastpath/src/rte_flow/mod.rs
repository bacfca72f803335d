//! NICs by DPDK's rte_flow: two implementations of [`RuleBackend`](offload_engine::RuleBackend).
//!
//! [`Synchronous`] works with every driver; [`Asynchronous`] is the template API (mlx5 with hardware steering). Both translate a
//! [`Rule`](offload_rules::lower::Rule) the same way; what a driver wants said in its own way is a [`Style`].
//!
//! - **Where a rule is.** On the port that its pattern names. With [`Style::transfer`] a rule that leaves the packets to the NIC is
//!   given to that port's transfer proxy, and the port is an item; a rule that gives packets to a queue is the port's own.
//!   Rules of the side of sending are the port's that it is of.
//! - **Groups.** Steering and flows: 0, tenants: 1, tunnels: 2, out of IPsec: 3, into IPsec: 4, behind stages 5 to 7, transit: 8; 9 has no rules
//!   (see [`Table`](offload_rules::lower::Table)). The side of sending has 0 and 1 of its own. The priority is the rule's.
//! - **Stages.** What one rule passes to a later one is a number in the TAG register, or in the metadata where it goes to the side of sending.
//! - **Sessions.** A rule names a session of IPsec by its number ([`Sessions`](crate::security::Sessions)); one that is not open is
//!   refused, and one that rules name is not closed.
//! - **Stops.** A driver releases the rules of a port that stops. No port starts or stops while a call is in its driver
//!   ([`Gate`](crate::port::Gate)), and a handle of before a stop is not given back.
//! - **Ends.** A backend that ends takes its rules away, the newest first, so that none is without those that it relies on.
//! - **Resets.** A port that is reset or removed tells by an event. A driver that doesn't is found out by its rules: when the query
//!   of a rule that counts (the last created) says ENOENT, all are taken for lost, and what the driver still keeps of them is flushed,
//!   sessions as well.
//!
//! EAL is running and the ports are started before a backend is made; [`configure`] comes before the start. No other code calls
//! rte_flow on these ports.

mod actions;
mod advice;
mod asynchronous;
mod error;
mod gated;
mod items;
mod name_tables;
mod nic;
mod stages;
mod storage;
mod style;
mod sync;
mod tables;
mod translation;
mod unresolved;

#[cfg(test)]
mod tests;

pub use asynchronous::{Asynchronous, Sizes, configure, takes_templates};
pub use gated::Gated;
pub use style::{FieldStyle, PortStyle, Style, TtlStyle};
pub use sync::Synchronous;
