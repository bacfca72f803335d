//! The software dataplane.
//!
//! Packets come in batches from [`io`] ports, are parsed once by [`packet`], find their program in the flow table or get one
//! from `offload_rules::classify`, and are rewritten in place. A worker runs to completion and shares nothing with others.

pub mod flow_table;
pub mod io;
pub mod packet;
pub mod prefetch;
