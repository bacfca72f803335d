//! Ports whose driver has no rte_flow: every rule is refused as a shape that the NIC never takes, and nothing else breaks.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[allow(dead_code, reason = "shared with other tests")]
mod dpdk;

use std::ffi::{CString, c_char, c_int, c_void};

use dpdk_sys::rte_eth_event_type;
use dpu_fastpath::{
    port::{PortRegistry, StartedPort},
    rte_flow::{Asynchronous, Sizes, Style, Synchronous, configure},
};
use offload_engine::RuleBackend;
use offload_rules::{
    VifId,
    lower::{Action, FailureClass, Item, Rule, Table},
};

// The driver's side of ethdev, which is no part of the public API.
unsafe extern "C" {
    fn rte_eth_dev_allocated(name: *const c_char) -> *mut c_void;
    fn rte_eth_dev_callback_process(dev: *mut c_void, event: rte_eth_event_type::Type, parameter: *mut c_void)
    -> c_int;
}

const SIZES: Sizes = Sizes { queue: 64, table: 1024, counters: 1024 };

fn rule(vif: VifId) -> Rule {
    Rule {
        table: Table::Flows,
        priority: 2,
        items: vec![Item::Port(vif), Item::Eth { dst: None, has_vlan: Some(false) }],
        actions: vec![Action::Count, Action::Drop],
    }
}

#[test]
fn a_driver_without_rte_flow_takes_no_rule() {
    let _turn = dpdk::eal(|| {});
    let wire = dpdk::Wire::new("noflow");
    dpdk::start(wire.ethdev, || {
        let failure = configure(wire.ethdev, SIZES).unwrap_err();
        assert_eq!(failure.class, FailureClass::Shape, "{failure}");
    });
    let vif = VifId::new(3).unwrap();
    let ports = PortRegistry::new([(vif, StartedPort { ethdev: wire.ethdev, queues: 1 })]);
    let backends: [Box<dyn RuleBackend>; 2] = [
        Box::new(Synchronous::new(ports.clone(), Style::default(), 32)),
        Box::new(Asynchronous::new(ports.clone(), Style::default(), SIZES)),
    ];
    for mut backend in backends {
        for failure in [backend.validate(&rule(vif)), backend.create(7, &rule(vif))].map(Result::unwrap_err) {
            assert_eq!(failure.class, FailureClass::Shape, "{failure}");
            assert!(!failure.message.is_empty());
        }
        let mut completions = Vec::new();
        backend.push().unwrap();
        backend.pull(&mut completions).unwrap();
        assert_eq!(completions, []);
        assert_eq!(backend.query_one(7).unwrap_err().errno, libc::ENOENT);
        assert_eq!(backend.destroy(7).unwrap_err().errno, libc::ENOENT);
        backend.flush().unwrap();
        assert!(backend.alive());
    }
}

#[test]
fn a_port_that_tells_of_a_reset_has_lost_its_rules_once() {
    let _turn = dpdk::eal(|| {});
    let wire = dpdk::Wire::new("reset");
    dpdk::start(wire.ethdev, || {});
    let vif = VifId::new(4).unwrap();
    let ports = PortRegistry::new([(vif, StartedPort { ethdev: wire.ethdev, queues: 1 })]);
    let mut backend = Synchronous::new(ports, Style::default(), 32);
    assert!(backend.alive());
    let name = CString::new(wire.name.as_str()).unwrap();
    // SAFETY: what a driver does when its device is reset; the port exists.
    unsafe {
        let device = rte_eth_dev_allocated(name.as_ptr());
        assert!(!device.is_null());
        rte_eth_dev_callback_process(device, rte_eth_event_type::RTE_ETH_EVENT_INTR_RESET, std::ptr::null_mut());
    }
    assert!(!backend.alive());
    assert!(backend.alive());
}
