//! The protobuf packages of Sluicegate and the code generated from them, with their JSON mapping; nothing else.
#![allow(missing_docs, clippy::all, clippy::pedantic)]

pub mod json;
mod secret;

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;
/// What every message of these packages implements.
pub use prost_reflect::ReflectMessage;

/// What a node writes in the place of a key.
pub use secret::REDACTED;

/// Descriptors of all packages, for JSON and for gRPC reflection.
pub static DESCRIPTORS: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin")).as_ref())
        .expect("descriptors that the build wrote")
});

/// Package `sluicegate.v1`.
pub mod v1 {
    tonic::include_proto!("sluicegate.v1");
}
