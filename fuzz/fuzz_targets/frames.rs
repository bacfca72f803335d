//! Any frames on any vif of a customer edge: no panic, and every packet is accounted for.
#![no_main]

use std::sync::{Arc, LazyLock};

use fallback_sw::node::{
    decode,
    machine::{Machine, MachineConfig},
};
use libfuzzer_sys::fuzz_target;
use offload_rules::{VifId, forwarding::Snapshot};

static STATE: LazyLock<Arc<Snapshot>> = LazyLock::new(|| {
    let text = include_str!("../../docs/examples/l3vpn/ce1.json");
    let message = proto::json::parse(text, "ce1.json").expect("the example's JSON");
    let state = decode::state(&message).expect("the example's fields");
    Arc::new(Snapshot::empty().with_state(state).expect("the example's references"))
});

// Input: for each frame the vif (one octet, by position), the length (two octets), and the frame; 100 ms pass between frames.
fuzz_target!(|data: &[u8]| {
    let ports: Vec<VifId> = STATE.vifs().filter(|vif| vif.kind.port().is_some()).map(|vif| vif.id).collect();
    let Ok(mut machine) = Machine::new(MachineConfig::default(), Arc::clone(&STATE)) else { return };
    let (mut rest, mut now) = (data, 0);
    while let [port, high, low, tail @ ..] = rest {
        let len = (usize::from(*high) << 8 | usize::from(*low)).min(tail.len());
        let (frame, next) = tail.split_at(len);
        machine.receive_frame(ports[usize::from(*port) % ports.len()], frame, now);
        now += 100;
        machine.tick(now);
        assert_eq!(machine.counters().0.account.unaccounted(machine.held()), 0);
        rest = next;
    }
});
