//! Headers off and on.

use super::{broken::Broken, checksum, packet::Packet, parse::parse};
use crate::record::ReformatKind;

const ADDRESSES: usize = 12;
const TAG: usize = 4;
const UDP: u8 = 17;

/// Takes headers off, or puts `header` on (`mlx5dv_dr_action_create_packet_reformat`).
pub(super) fn reformat(packet: &mut Packet, kind: ReformatKind, header: &[u8]) -> Result<(), Broken> {
    let layers = packet.layers();
    let (outer, inner) = (layers.outer_l3, layers.inner_l3);
    let data = match kind {
        ReformatKind::L3TunnelToL2 => {
            let inner = inner.ok_or(Broken::NoHeader("IP in a tunnel"))?;
            [header, packet.data().get(inner..).unwrap_or_default()].concat()
        }
        ReformatKind::L2ToL3Tunnel => {
            let outer = outer.ok_or(Broken::NoHeader("IP"))?;
            filled(header, packet.data().get(outer..).unwrap_or_default())
        }
        ReformatKind::L2ToL2Tunnel => filled(header, packet.data()),
        // The tunnels that this parser sees have no Ethernet header in them.
        ReformatKind::L2TunnelToL2 => return Err(Broken::NoHeader("Ethernet in a tunnel")),
        ReformatKind::Unknown => return Err(Broken::Action("a reformat of this kind")),
    };
    packet.replace(data);
    Ok(())
}

/// Header and what is in it, with the lengths and the IPv4 header checksum, which are the device's.
fn filled(header: &[u8], inner: &[u8]) -> Vec<u8> {
    let mut data = [header, inner].concat();
    let layers = parse(&data);
    let Some(ip) = layers.outer_l3.filter(|at| *at < header.len()) else { return data };
    let length = u16::try_from(data.len() - ip).unwrap_or(u16::MAX);
    let Some(l3) = data.get_mut(ip..) else { return data };
    match l3.first().map(|octet| octet >> 4) {
        Some(4) => {
            put(l3, 2, length);
            put(l3, 10, 0);
            let header = l3.first().map_or(0, |octet| usize::from(octet & 15) * 4);
            let sum = checksum::of(l3.get(..header).unwrap_or_default());
            put(l3, 10, sum);
        }
        Some(6) => put(l3, 4, length.saturating_sub(40)),
        _ => {}
    }
    let protocol = l3.get(9).copied();
    if let Some(l4) = layers.outer_l4.filter(|at| *at < header.len() && protocol == Some(UDP)) {
        let length = u16::try_from(data.len() - l4).unwrap_or(u16::MAX);
        put(&mut data, l4 + 4, length);
    }
    data
}

fn put(data: &mut [u8], at: usize, value: u16) {
    if let Some(place) = data.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// Takes the outer tag off.
pub(super) fn pop(packet: &mut Packet) -> Result<(), Broken> {
    let at = packet.layers().vlan.ok_or(Broken::NoHeader("VLAN"))?;
    let data = packet.data();
    let (before, behind) = (data.get(..at), data.get(at + TAG..));
    let data = [before.unwrap_or_default(), behind.unwrap_or_default()].concat();
    packet.replace(data);
    Ok(())
}

/// Puts a tag before those that are there.
pub(super) fn push(packet: &mut Packet, tag: u32) -> Result<(), Broken> {
    let (addresses, rest) = packet.data().split_at_checked(ADDRESSES).ok_or(Broken::NoHeader("Ethernet"))?;
    let data = [addresses, &tag.to_be_bytes(), rest].concat();
    packet.replace(data);
    Ok(())
}
