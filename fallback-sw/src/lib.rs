//! The software dataplane.
//!
//! Packets come in batches from [`io`] ports, are parsed once by [`packet`], find their program in the [`flow_table`] or get one
//! from `offload_rules::classify`, and are rewritten in place by [`exec`]. A [`worker`] runs to completion and shares nothing
//! with others. [`node`] is what the daemons share; [`replay`] runs captures through a node without any I/O.

pub mod esp;
pub mod exec;
pub mod flow_table;
pub mod io;
pub mod node;
pub mod packet;
mod prefetch;
pub mod replay;
pub mod shares;
pub mod worker;
