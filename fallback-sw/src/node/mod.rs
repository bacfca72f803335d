//! What makes the dataplane a node: its forwarding state as protobuf and typed, what it learns, how it is asked.

mod attachment;
pub mod backlog;
mod beginning;
pub mod control;
pub mod daemon;
pub mod decode;
mod device_mtu;
pub mod encode;
pub mod filter;
pub mod gateways;
mod handle;
pub mod hit_rate;
pub mod ike;
pub mod machine;
pub mod neighbours;
pub mod offload;
pub mod persist;
mod processor;
pub mod runtime;
pub mod sa_view;
pub mod sequences;
pub mod service;
mod signals;
pub mod thread;
pub mod view;
