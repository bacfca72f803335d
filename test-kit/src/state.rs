//! Forwarding states from JSON.

use std::sync::Arc;

use fallback_sw::node::decode;
use offload_rules::{VifId, forwarding::Snapshot};

/// A vif number.
///
/// # Panics
/// It is none.
#[must_use]
pub fn vif(number: u32) -> VifId {
    VifId::new(number).unwrap()
}

/// A snapshot from a state in protobuf JSON.
///
/// # Panics
/// The text is no state, or the state is not consistent.
#[must_use]
pub fn snapshot(json: &str) -> Arc<Snapshot> {
    let message: proto::v1::ForwardingState = proto::json::parse(json, "test state").unwrap();
    let state = decode::state(&message).unwrap_or_else(|errors| panic!("{errors}\n{json}"));
    Arc::new(Snapshot::empty().with_state(state).unwrap_or_else(|errors| panic!("{errors}\n{json}")))
}
