//! The language and the logic of Sluicegate's dataplane.
//!
//! The first packet of a flow is walked through the [`forwarding`] state by [`classify`]; the walk returns a verdict with a
//! pair of [`flow`] programs, the only description of what happens to the later packets of the flow.
//!
//! Pure: no I/O, no async, no unsafe, no clock. Time is a parameter.
#![forbid(unsafe_code)]

pub mod classify;
mod drop_reason;
pub mod flow;
pub mod forwarding;
mod ids;
pub mod lower;
pub mod place;
pub mod transit;

pub use drop_reason::DropReason;
pub use ids::{AclId, IdError, Label, MacAddr, NexthopId, SaId, VifId, VrfId};
