//! Changing headers in place: TTL, DSCP and ECN, link layer, MPLS over UDP.
#![forbid(unsafe_code)]

mod ip;
mod l2;
mod outer;
#[cfg(test)]
mod tests;

pub use ip::{decrement_ttl, set_ecn, set_tos};
pub use l2::write_l2;
pub use outer::{OUTER_LEN, Outer, OuterTemplate, entropy_port};
