//! A machine that runs frames through what the driver gave the device: tables, matchers, rules and actions of the record.
//!
//! What a field or an action means is the PRM's, as rdma-core's software steering (`providers/mlx5/dr_ste_v1.c`, `dr_action.c`) and
//! the kernel use it. It shares nothing with lowering, nor with the NIC twin. Where all three leave something open, it does the
//! following, and none of it has been seen on a card:
//!
//! - Actions run in the rule's order, each on the packet as those before left it; but a counter is behind what takes headers off, and before
//!   what puts them on.
//! - Among matchers of one priority the older comes first; among equal rules of a matcher the older is the device's.
//! - A field of a header that is not there reads 0. L4 of a first fragment is seen, of a later one not; extension headers are stepped
//!   over, and the protocol is the one behind them; MPLS is seen over UDP port 6635, with the inner IP packet behind the first label.
//! - The header checksum of IPv4 follows what is written (RFC 1624): a wrong one stays wrong. Encapsulation fills IPv4's length and
//!   header checksum, and UDP's length.
//! - What is led to a hairpin queue that is in reset is lost.
//! - A packet that misses in the switch comes to its manager with its registers as they are, and meets the rules of the receive side.
//!
//! Left out: meters, sampling, mirrors, RSS (the first queue stands for all), MTU, and hardware steering.

mod action;
mod broken;
mod checksum;
mod modify;
mod packet;
mod params;
mod parse;
mod queues;
mod reformat;
mod run;
#[cfg(test)]
mod tests;

pub use broken::Broken;
pub use packet::{Counted, Packet, Registers};
pub use params::{Field, Params, VERSIONS, VLAN_KINDS};
pub use parse::{Layers, parse};
pub use run::{Lost, Outcome, Passage, Port, Step, UPLINK, receive, transmit};
