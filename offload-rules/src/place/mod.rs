//! A finite table of rules: which flows get a place in it, and how its content differs from the desired one.
//!
//! Generic over the id of a flow. Time is a parameter: milliseconds of the node's clock.

mod diff;
mod placement;
mod rate;

pub use diff::{Difference, diff};
pub use placement::{Hysteresis, Placement};
pub use rate::Rate;
