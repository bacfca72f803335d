//! The NIC twin in front: it executes rte_flow rules itself, and its wires are in memory.

use std::{path::Path, sync::Arc, time::Duration};

use fallback_sw::{io::Port, packet::Packet};
use offload_rules::{forwarding::Snapshot, lower::NicProfile};

use super::front::{self, Arrival, NicFront, Wires};
use crate::{
    nic::{self, NicPorts},
    port::{Eal, EalArgs, Memory, PortMap, Wire},
};

/// File name of the twin's driver.
pub(super) const DRIVER: &str = "libnic_twin.so";
/// MiB for DPDK itself, and for each port with frames of up to 2,000 octets.
const MEMORY: (u32, u32) = (64, 32);

/// The counters' refresh interval in milliseconds, where the faults name one.
fn refresh_ms(faults: &[String]) -> Option<u64> {
    faults.iter().rev().find_map(|fault| fault.strip_prefix("refresh=")?.parse().ok())
}

/// A wire for each port.
struct TwinWires(Vec<Wire>);

impl TwinWires {
    /// What has left by the wires since the last call.
    fn leaving(&self) -> Vec<(usize, Packet)> {
        let frames = |(at, wire): (usize, &Wire)| -> Vec<_> {
            std::iter::from_fn(|| wire.sent()).map(|packet| (at, packet)).collect()
        };
        self.0.iter().enumerate().flat_map(frames).collect()
    }
}

impl Wires for TwinWires {
    fn arrive(&mut self, at: usize, port: &mut dyn Port, frame: &[u8]) -> Result<Arrival, String> {
        if !self.0.get(at).is_some_and(|wire| wire.arrive(frame)) {
            return Err(format!("a frame of {} octets does not fit the wire", frame.len()));
        }
        let mut received = Vec::new();
        port.receive(&mut received, &mut Vec::new(), 32).map_err(|error| error.to_string())?;
        // Packets may wait in the node: not in the NIC's memory, of which there is little here.
        let software = received.into_iter().map(|packet| {
            let mut copy = Packet::from_frame(packet.data());
            copy.set_mark(packet.mark());
            copy.set_note(packet.note());
            copy
        });
        Ok(Arrival { software: software.collect(), sent: self.leaving() })
    }

    fn send(&mut self, _at: usize, port: &mut dyn Port, packet: Packet) -> Result<Vec<(usize, Packet)>, String> {
        port.transmit(&mut vec![packet], &mut Vec::new()).map_err(|error| error.to_string())?;
        Ok(self.leaving())
    }
}

impl NicFront {
    /// Starts DPDK, with a port of the twin for each device of the state that carries Ethernet. Once in a process.
    ///
    /// # Errors
    /// Whatever DPDK, the driver or the engine say.
    pub fn twin(
        snapshot: &Arc<Snapshot>,
        profile: NicProfile,
        driver: &Path,
        faults: &[String],
    ) -> anyhow::Result<Self> {
        let vifs = front::devices(snapshot);
        let (base, each) = MEMORY;
        let ports = vifs.iter().map(|vif| each * u32::from(vif.mtu).div_ceil(2000).max(1));
        let mib = ports.fold(base, u32::saturating_add);
        let eal = EalArgs { memory: Memory::Ordinary { mib }, ..EalArgs::default() };
        let eal = Arc::new(Eal::start(&eal, &[driver.to_owned()])?);
        let mut wires = Vec::new();
        let mut map = Vec::new();
        for (index, vif) in vifs.iter().enumerate() {
            let wire = Wire::new(&eal, &format!("wire{index}"))?;
            let twin = format!("net_twin{index}");
            let mut arguments = format!("port={},profile={}", wire.ethdev(), profile.name);
            for fault in faults {
                arguments.push(',');
                arguments.push_str(fault);
            }
            eal.add_vdev(&twin, &arguments)?;
            map.push(PortMap { device: front::device_of(vif), ethdev: twin });
            wires.push(wire);
        }
        let refresh = refresh_ms(faults).unwrap_or(profile.limits.counter_refresh_ms.value.into());
        let wires = Box::new(TwinWires(wires));
        let (ports, refresh) = (NicPorts::new(nic::by_templates(&profile)), Duration::from_millis(refresh));
        Self::new(snapshot, profile, front::Nic { eal, vifs, map, ports, wires, refresh })
    }
}
