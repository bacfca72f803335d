//! A NIC in front of the node in a replay: it handles some frames itself.

use offload_rules::{
    VifId,
    forwarding::{Snapshot, VlanTag},
};

use crate::{
    node::machine::{Machine, Sent},
    packet::{Packet, parse},
    worker::{TxKind, TxMeta},
};

/// The outcome of one frame at the NIC.
#[derive(Debug, Default)]
pub struct NicOutcome {
    /// What software gets, with what the NIC noted on it.
    pub software: Vec<Packet>,
    /// What the NIC sent by itself: the vif of the device, and the frame.
    pub sent: Vec<(VifId, Packet)>,
}

/// A NIC in front of the node. Everything happens within the calls, so a replay has the same outcome each time.
pub trait Front {
    /// A frame arrives on the device of a vif.
    ///
    /// # Errors
    /// What is wrong with the NIC, in words.
    fn receive(&mut self, port: VifId, frame: &[u8], now: u64) -> Result<NicOutcome, String>;

    /// The node sends a frame by the device of a vif. What leaves, with the vif of the device that it leaves by: sealed, where the
    /// frame is noted for a session. Nothing: the NIC did not take it.
    ///
    /// # Errors
    /// As for [`Front::receive`].
    fn send(&mut self, port: VifId, packet: Packet) -> Result<Vec<(VifId, Packet)>, String>;

    /// The node has processed packets: its requests to the NIC are carried out, the NIC's reports are given to the node.
    ///
    /// # Errors
    /// As for [`Front::receive`].
    fn settle(&mut self, machine: &mut Machine, now: u64) -> Result<(), String>;

    /// No more frames come: all that the NIC has counted is reported to the node.
    ///
    /// # Errors
    /// As for [`Front::receive`].
    fn finish(&mut self, machine: &mut Machine, now: u64) -> Result<(), String>;
}

/// A frame that the NIC sent, as one that the node sent: the vif is found by its tags.
pub(super) fn as_sent(snapshot: &Snapshot, port: VifId, packet: Packet) -> Sent {
    let raw = snapshot.vif(port).is_some_and(|vif| vif.flags.raw_ip);
    let vif = if raw { port } else { sub_interface(snapshot, port, packet.data()).unwrap_or(port) };
    Sent { port, meta: TxMeta { vif, kind: TxKind::Forwarded }, packet }
}

fn sub_interface(snapshot: &Snapshot, port: VifId, frame: &[u8]) -> Option<VifId> {
    let ethernet = parse::ethernet(frame).ok()?;
    let tag = |i: usize| {
        let (tpid, tci) = (*ethernet.tpid.get(i)?, *ethernet.tci.get(i)?);
        Some(VlanTag { tpid, vid: tci & 0x0fff })
    };
    match ethernet.tags {
        0 => None,
        1 => snapshot.vlan_vif(port, tag(0)?, None),
        _ => snapshot.vlan_vif(port, tag(0)?, tag(1)),
    }
}
