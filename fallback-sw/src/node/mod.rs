//! What makes the dataplane a node: its forwarding state as protobuf and typed, what it learns, how it is asked.

mod attachment;
pub mod backlog;
pub mod control;
pub mod daemon;
pub mod decode;
mod device_mtu;
pub mod encode;
pub mod engine_host;
pub mod filter;
pub mod gateways;
mod handle;
pub mod hit_rate;
pub mod ike;
mod initial_state;
pub mod machine;
pub mod messages;
pub mod neighbours;
pub mod persist;
mod processor;
pub mod runtime;
pub mod sa_view;
pub mod sequences;
pub mod service;
mod signals;
pub mod thread;
pub mod view;
