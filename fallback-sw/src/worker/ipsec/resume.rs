//! Packets that a NIC has done everything about but ESP.

use offload_rules::{
    DropReason, VifId,
    forwarding::{L2Rewrite, Snapshot},
    lower::underlay,
};

use super::request::SealRequest;
use crate::{
    exec::EspEgress,
    packet::{NicNote, Packet, parse},
    worker::{
        context::Context,
        outcome::{Blame, Outcome},
        tx::TxKind,
    },
};

/// What the NIC has decided on is sealed in its tunnel, the context's vif.
#[cold]
pub(in crate::worker) fn resume(snapshot: &Snapshot, packet: &mut Packet, context: &Context) -> Outcome {
    let drop = |reason| Outcome::Drop { blame: Blame::Resumed(context.port), reason };
    packet.set_note(NicNote::None);
    let Some(egress) = egress_of(snapshot, context.vif, packet.data()) else { return drop(DropReason::InvalidNh) };
    packet.advance(egress.l2.map_or(0, |l2| l2.bytes().len()));
    let total = match packet.data() {
        [0x45..=0x4f, _, a, b, ..] => u16::from_be_bytes([*a, *b]).into(),
        [first, _, _, _, a, b, ..] if first >> 4 == 6 => 40 + usize::from(u16::from_be_bytes([*a, *b])),
        _ => return drop(DropReason::InvalidProtocol),
    };
    // What Ethernet padded is no part of the packet.
    packet.truncate(total);
    Outcome::Seal(SealRequest::new(egress, TxKind::Resumed, context.vif))
}

/// Where a packet goes once it is sealed: out on the tunnel's underlay, behind the Ethernet header that the NIC has written.
fn egress_of(snapshot: &Snapshot, tunnel: VifId, frame: &[u8]) -> Option<EspEgress> {
    let ipsec = snapshot.vif(tunnel)?.kind.tunnel()?;
    let link = underlay(snapshot, ipsec)?;
    let ethernet = parse::ethernet(frame).ok()?;
    Some(EspEgress {
        tunnel,
        dscp: ipsec.dscp,
        df: ipsec.df,
        vif: link,
        port: snapshot.port_of(link),
        l2: Some(L2Rewrite::new(frame.get(..ethernet.len)?)?),
        // The NIC's rules take nothing larger than goes into one.
        whole: u16::MAX,
        fragment: u16::MAX,
    })
}
