//! A finite table: which flows deserve it, and what is in it against what should be.
//!
//! Generic over the id of a flow. Time is a parameter: milliseconds of the node's clock.

mod placement;
mod rate;
mod reconcile;

pub use placement::{Admission, Hysteresis, Placement, Standing};
pub use rate::Rate;
pub use reconcile::{Difference, Step, diff, reconcile};
