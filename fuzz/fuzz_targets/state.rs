//! Any text as a forwarding state: an error or a snapshot, never a panic; what is accepted can be written and read again.
#![no_main]

use fallback_sw::node::{decode, encode};
use libfuzzer_sys::fuzz_target;
use offload_rules::forwarding::Snapshot;

fuzz_target!(|text: &str| {
    let Ok(message) = proto::json::parse::<proto::v1::ForwardingState>(text, "input") else { return };
    let Ok(state) = decode::state(&message) else { return };
    let Ok(snapshot) = Snapshot::empty().with_state(state) else { return };
    let again = decode::state(&encode::state(&snapshot.to_state())).expect("what was accepted is well formed");
    assert_eq!(again, snapshot.to_state());
});
