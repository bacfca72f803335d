//! The MTU of a vif's device: the smaller of both is the limit, also when it changes while the node runs.

use std::sync::Arc;

use offload_rules::{VifId, forwarding::Snapshot};

use super::control::Control;
use crate::io::device::Device;

/// Octets of an IP packet that every port has room for.
const ROOM: u32 = 1500;

/// Takes in a device's MTU, and says so where it is smaller than what a vif on it is configured with.
pub(super) fn take_in(control: &mut Control, vif: VifId, device: &Device) -> Option<Arc<Snapshot>> {
    let before = Arc::clone(control.snapshot());
    let snapshot = control.set_device_mtu(vif, device.mtu)?;
    for vif in snapshot.vifs().filter(|other| snapshot.port_of(other.id) == vif) {
        let configured = snapshot.configured_mtu(vif.id).unwrap_or(vif.mtu);
        if vif.mtu < configured {
            let (device, mtu) = (&device.name, vif.mtu);
            tracing::warn!(vif = %vif.id, device, mtu, configured, "the device's MTU is less than the vif's, and is the limit");
        } else if before.vif(vif.id).is_some_and(|before| before.mtu < vif.mtu) {
            tracing::info!(vif = %vif.id, device = device.name, mtu = vif.mtu, "the device takes the vif's MTU now");
        }
    }
    Some(snapshot)
}

/// Does a port have to be opened anew to take all that its device can? It was opened when the device could take `room`, for a vif of
/// `asked`, which is one of `wanted` now.
pub(super) fn outgrows(device: &Device, room: u32, asked: u16, wanted: u16) -> bool {
    let has_grown = device.attainable > ROOM && device.attainable > room;
    let is_asked_for_more = wanted > asked && device.mtu < u32::from(wanted).min(device.attainable);
    has_grown || is_asked_for_more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::device::Link;

    /// A device whose port takes packets of `mtu`, and would take `attainable` if it were opened now.
    fn device(mtu: u32, attainable: u32) -> Device {
        Device {
            name: "eth0".to_owned(),
            index: 2,
            mac: None,
            mtu,
            attainable,
            link: Link::Ethernet,
            up: true,
            operational: true,
            carrier: true,
            kernel_driver: String::new(),
            queues: 1,
        }
    }

    #[test]
    fn a_port_is_reopened_when_its_device_or_vif_outgrows_its_buffers() {
        // The kernel's port: laid out for what the device had.
        assert!(!outgrows(&device(1500, 1500), 1500, 1500, 1500));
        assert!(!outgrows(&device(1500, 1500), 1400, 1500, 1500), "every port has room for that");
        assert!(outgrows(&device(9000, 9000), 1500, 1500, 1500));
        assert!(!outgrows(&device(1500, 1500), 1500, 1500, 9000), "the device has no more");
        // A driver over a device of the kernel's, which stays at the vif's MTU.
        assert!(outgrows(&device(1500, 9000), 1500, 1500, 1500));
        assert!(!outgrows(&device(1500, 9000), 9000, 1500, 1500), "opened for it, and it took no more");
        // A NIC that is the driver's alone: its MTU is the vif's.
        assert!(!outgrows(&device(1500, 9216), 9216, 1500, 1500));
        assert!(outgrows(&device(1500, 9216), 9216, 1500, 9000));
        assert!(!outgrows(&device(1500, 9216), 9216, 9000, 9000), "asked for once");
        assert!(!outgrows(&device(9000, 9216), 9216, 9000, 1500));
    }
}
