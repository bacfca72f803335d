//! Flows: the key they are found by, the program that says what happens to their packets, and TCP's state.
//!
//! A program is the only description of what happens to the later packets of one direction. Executors (software, NIC, the
//! NIC twin) read it; none of them looks at forwarding state.

mod key;
mod op;
mod operations;
mod program;
pub mod tcp;

pub use key::{Family, FlowKey};
pub use op::{IPV6_MIN_MTU, Op, SealHeader, TunnelHeader, largest_sealed, sealed_len};
pub use operations::{
    Decap, Egress, Forward, IllegalOperations, Operations, Oversize, Prepended, SequenceShift, SizeLimit,
};
pub use program::{AclEntry, Choices, Decided, Dependency, Program, VrfCounter};
