//! What makes the dataplane a node: its forwarding state as protobuf, typed.

pub mod decode;
pub mod encode;
