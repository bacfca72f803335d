//! A software NIC: rule tables and their interpreter, from the rte_flow guide of DPDK 22.11.
//!
//! A packet from a wire meets the switch's transfer rules, then the ingress rules of its port; each starts at group 0, where lower
//! priorities come first and, among rules of one priority, the older. A rule is terminating unless it says PASSTHRU; JUMP leads to a
//! higher group; what no rule decides goes to the application.
//!
//! Where the guide leaves something open, this NIC does the following. Actions run in the order of the list, each on the packet as
//! the ones before left it. Addresses, TTL and ports change with the checksums over them. RAW_DECAP takes off as many octets as its
//! buffer has, and the next thing must be an IP header. RAW_ENCAP fills the lengths and the IPv4 header checksum of what it puts on,
//! and never a UDP checksum. A packet that ends without an Ethernet header is dropped and counted. The padding of a short frame is
//! cut off when a rule changes the packet. Octet counts are of the frame as the rule met it. L4 items never match fragments. MPLS is
//! known over UDP ports 6635 and 51234 only. A transfer rule without a port item matches what any port or application sends.

mod action;
mod checksum;
mod counter;
mod edit;
mod error;
mod fault;
mod frame;
mod hairpin;
mod indirect;
mod item;
mod layers;
mod nic;
mod pipeline;
mod profile;
mod program;
mod security;
mod shape;
mod table;
mod template;

pub use action::{Action, ActionKind, Attr, FieldId, IndirectId, Modify, ModifyOp, PortId};
pub use counter::{AgeOwner, AgeState, AgeUpdate, Aged, Hits};
pub use error::{
    Cause, E2BIG, EAGAIN, EBUSY, EEXIST, EINVAL, ENODEV, ENOENT, ENOMEM, ENOSPC, ENOSYS, ENOTSUP, Errno, ErrorKind,
    FlowError,
};
pub use fault::{Command, ControlLog, Fault, FaultError, Faults};
pub use frame::Frame;
pub use item::{ETH_HAS_VLAN, INTEGRITY_BITS, IPV6_HAS_EXT, Item, ItemKind, MAX_SPEC, VLAN_HAS_MORE};
pub use nic::{Inserted, Nic, RuleId};
pub use pipeline::{Delivery, DropReason, Outcome, Stats};
pub use profile::{Place, Profile};
pub use security::{
    BY_SPI, Expiry, Limits, NO_SESSION, OuterHeader, SessionConfig, SessionKind, SessionStats, SessionWay,
};
