//! What makes the dataplane a node: its forwarding state as protobuf and typed, what it learns, how it is asked.

pub mod control;
pub mod daemon;
pub mod decode;
pub mod encode;
pub mod filter;
pub mod hit_rate;
pub mod ike;
pub mod machine;
pub mod offload_link;
pub mod persist;
pub mod runtime;
pub mod sa_view;
pub mod sequences;
pub mod service;
pub mod thread;
pub mod view;
