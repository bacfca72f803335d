//! Packets that have left by a port, those included that the NIC forwards: the driver's extended statistics.

use std::ffi::CStr;

use dpdk_sys as sys;
use offload_rules::lower::Role;

use super::{device::link_is_up, facts::facts};

/// mlx5_ethdev_os.c, mlx5_counters_init, 22.11 and 24.11: what leaves by the physical port, with what the NIC forwards.
const WIRE: &CStr = c"tx_phy_packets";
/// The same: what the switch has given to the function of a representor (the kernel's en_rep.c counts for the port of the switch).
const FUNCTION: &CStr = c"tx_vport_packets";

/// The counter of packets that leave by a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TxCounter {
    port: u16,
    id: u64,
}

impl TxCounter {
    /// `None`: its driver has none.
    pub(crate) fn of(port: u16) -> Option<Self> {
        let name = match facts(port).role {
            Role::Wire => WIRE,
            Role::Function => FUNCTION,
        };
        let mut id = 0;
        // SAFETY: a C string and a place for the answer.
        let found = unsafe { sys::rte_eth_xstats_get_id_by_name(port, name.as_ptr(), &raw mut id) };
        (found == 0).then_some(Self { port, id })
    }

    /// Packets; `None`: it cannot be read, or the link is down and nothing can leave.
    pub(crate) fn read(self) -> Option<u64> {
        let mut value = 0;
        // SAFETY: one id, and a place for its value.
        let read = unsafe { sys::rte_eth_xstats_get_by_id(self.port, &raw const self.id, &raw mut value, 1) };
        (read == 1 && link_is_up(self.port)).then_some(value)
    }
}
