//! An offload engine beside a running node: its thread, the rings of its requests, and what of it the API shows.
//!
//! The engine itself is [`offload_engine`], which knows no threads. A daemon that has a NIC starts one with [`Offload::start`]
//! over the backend that drives the NIC, and gives the node its [`OffloadLink`].

mod attachment;
mod link;
mod runner;
mod service;

pub use attachment::{Offload, Start};
pub use link::OffloadLink;
pub use runner::{Ended, Handle, Inspect, ReportSink, Runner, RunnerConfig};
pub use service::{
    AboutNic, AboutPort, Flows, KnownFlow, NodeFlows, OffloadService, OffloadView, Switched, action, item, rule,
};
