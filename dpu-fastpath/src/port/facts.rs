//! Facts about a port from its driver: its role and domain at the NIC's switch.

use std::ffi::CStr;

use dpdk_sys as sys;
use offload_rules::lower::{PortFacts, Role};

use super::eal::exclusively;

/// `RTE_ETH_DEV_SWITCH_DOMAIN_ID_INVALID` (rte_ethdev.h): the driver reports no switch.
const NO_DOMAIN: u16 = u16::MAX;

/// Facts of a port that exists; of one that doesn't, or whose driver does not answer, those of a NIC without a switch.
#[must_use]
pub fn facts(port: u16) -> PortFacts {
    let mut info = sys::rte_eth_dev_info::default();
    // SAFETY: a place for the answer.
    if unsafe { sys::rte_eth_dev_info_get(port, &raw mut info) } != 0 {
        return PortFacts::default();
    }
    of(&info)
}

/// The port that takes transfer rules for a port: itself or another of its switch. `None`: the driver has no such notion, or there is no
/// switch.
#[must_use]
pub fn transfer_proxy(port: u16) -> Option<u16> {
    let mut proxy = port;
    let mut error = sys::rte_flow_error::default();
    // SAFETY: both pointers are to live variables of the right type.
    let code = unsafe { sys::rte_flow_pick_transfer_proxy(port, &raw mut proxy, &raw mut error) };
    (code == 0).then_some(proxy)
}

/// Configures an unused port with one queue each way: some queries need a configured port.
pub(crate) fn configure_bare(port: u16) -> bool {
    let config = sys::rte_eth_conf::default();
    // SAFETY: a complete configuration, which DPDK copies; a port that is in use refuses.
    exclusively(|| unsafe { sys::rte_eth_dev_configure(port, 1, 1, &raw const config) == 0 })
}

/// The DPDK that this process runs with: `22.11.11`.
#[must_use]
pub fn dpdk_version() -> String {
    // SAFETY: a C string that lives for ever.
    let words = unsafe { CStr::from_ptr(sys::rte_version()) }.to_string_lossy();
    words.strip_prefix("DPDK ").unwrap_or(&words).to_owned()
}

fn of(info: &sys::rte_eth_dev_info) -> PortFacts {
    // SAFETY: null, or a C string of ethdev that lives as long as the port.
    let flags = unsafe { info.dev_flags.as_ref() }.copied().unwrap_or(0);
    let representor = u64::from(flags) & sys::RTE_ETH_DEV_REPRESENTOR != 0;
    let domain = info.switch_info.domain_id;
    PortFacts {
        role: if representor { Role::Function } else { Role::Wire },
        domain: (domain != NO_DOMAIN).then_some(domain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_representor_stands_for_a_function_and_anything_else_for_a_wire() {
        let flags = [0_u32, sys::RTE_ETH_DEV_REPRESENTOR as u32];
        let switch_info = |domain_id| sys::rte_eth_switch_info { domain_id, ..Default::default() };
        let [uplink, representor] = flags.each_ref().map(|flags| sys::rte_eth_dev_info {
            dev_flags: std::ptr::from_ref(flags),
            switch_info: switch_info(3),
            ..Default::default()
        });
        assert_eq!(of(&uplink), PortFacts { role: Role::Wire, domain: Some(3) });
        assert_eq!(of(&representor), PortFacts { role: Role::Function, domain: Some(3) });
        let plain = sys::rte_eth_dev_info { switch_info: switch_info(NO_DOMAIN), ..Default::default() };
        assert_eq!(of(&plain), PortFacts { role: Role::Wire, domain: None });
    }
}
