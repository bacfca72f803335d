//! Bytes of packets: buffers with headroom, parsing, rewriting, checksums, ICMP, fragments.
//!
//! Knows nothing of forwarding state. Nothing here reads outside the frame or panics, whatever the frame holds.

pub mod arp;
mod buffer;
pub mod checksum;
pub mod ecn;
pub mod fragment;
pub mod icmp;
pub mod mss;
pub mod nd;
pub mod parse;
pub mod reassembly;
pub mod rewrite;
#[cfg(test)]
pub(crate) mod samples;
pub mod tcp;
#[cfg(test)]
mod tests;

pub use buffer::{Foreign, HEADROOM, MAX_FRAME, NicNote, NoRoom, Owner, Packet};
