//! A finite table: which flows deserve it, and what is in it against what should be.
//!
//! Generic over the id of a flow. Time is a parameter: milliseconds of the node's clock.

mod diff;
mod placement;
mod rate;

pub use diff::{Difference, diff};
pub use placement::{Hysteresis, Placement};
pub use rate::Rate;
