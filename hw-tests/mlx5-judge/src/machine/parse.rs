//! What the device's parser sees of a frame.

use super::{
    checksum,
    params::{INNER_LAYER, Layer, MPLS_OVER_UDP, OUTER_LAYER, Params, SECOND_TAG},
};

/// TPIDs of a C-tag (IEEE 802.1Q) and an S-tag (802.1ad); no other is seen as one.
const TPIDS: [u16; 2] = [0x8100, 0x88a8];
/// RFC 7510 §3: the UDP port of MPLS, the only one that the device's parser has for it.
const MPLS_PORT: u16 = 6635;
const ADDRESSES: usize = 12;
const MPLS: usize = 4;

/// The fields of a frame, and where its headers begin.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// Of `fte_match_param`.
    pub fields: Params,
    /// The first tag.
    pub vlan: Option<usize>,
    /// The outer IP header.
    pub outer_l3: Option<usize>,
    /// The outer TCP or UDP header.
    pub outer_l4: Option<usize>,
    /// The inner IP header.
    pub inner_l3: Option<usize>,
    /// The inner TCP or UDP header.
    pub inner_l4: Option<usize>,
}

fn word(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

fn long(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

fn octet(data: &[u8], at: usize) -> Option<u8> {
    data.get(at).copied()
}

/// What the device sees of a frame. Of a truncated one it sees what is whole.
#[must_use]
pub fn parse(data: &[u8]) -> Layers {
    let mut layers = Layers::default();
    // What a truncated header leaves out stays 0.
    let _ = ethernet(data, &mut layers);
    layers
}

fn ethernet(data: &[u8], layers: &mut Layers) -> Option<()> {
    let outer = OUTER_LAYER;
    for (mac, at) in [(outer.dmac, 0), (outer.smac, 6)] {
        layers.fields.set(mac[0], long(data, at)?.into());
        layers.fields.set(mac[1], word(data, at + 4)?.into());
    }
    let mut at = ADDRESSES;
    for tag in [outer.vlan, SECOND_TAG] {
        let Some(kind) = TPIDS.iter().position(|tpid| word(data, at) == Some(*tpid)) else { break };
        let tci = u64::from(word(data, at + 2)?);
        layers.fields.set(tag.pcp, tci >> 13);
        layers.fields.set(tag.dei, tci >> 12);
        layers.fields.set(tag.vid, tci);
        layers.fields.set(if kind == 0 { tag.cvlan } else { tag.svlan }, 1);
        layers.vlan.get_or_insert(at);
        at += 4;
    }
    let kind = word(data, at)?;
    layers.fields.set(outer.ethertype, kind.into());
    at += 2;
    let version = match kind {
        0x0800 => 4,
        0x86dd => 6,
        _ => return None,
    };
    if octet(data, at)? >> 4 != version {
        return None;
    }
    let found = ip(data, at, &outer, &mut layers.fields)?;
    layers.outer_l3 = Some(at);
    let l4 = found.l4?;
    layers.outer_l4 = l4.seen.then_some(l4.at);
    if l4.protocol != UDP || !l4.seen || word(data, l4.at + 2)? != MPLS_PORT {
        return None;
    }
    let label = l4.at + 8;
    layers.fields.set(MPLS_OVER_UDP, long(data, label)?.into());
    let found = ip(data, label + MPLS, &INNER_LAYER, &mut layers.fields)?;
    layers.inner_l3 = Some(label + MPLS);
    layers.inner_l4 = found.l4.filter(|l4| l4.seen).map(|l4| l4.at);
    Some(())
}

const TCP: u8 = 6;
const UDP: u8 = 17;

struct Transport {
    protocol: u8,
    at: usize,
    /// The header is there, and of TCP or UDP.
    seen: bool,
}

#[derive(Default)]
struct Ip {
    l4: Option<Transport>,
}

/// An IP header and what is behind it. `None`: there is none.
fn ip(data: &[u8], at: usize, layer: &Layer, fields: &mut Params) -> Option<Ip> {
    match octet(data, at)? >> 4 {
        4 => ipv4(data, at, layer, fields),
        6 => ipv6(data, at, layer, fields),
        _ => None,
    }
}

fn ipv4(data: &[u8], at: usize, layer: &Layer, fields: &mut Params) -> Option<Ip> {
    let header: [u8; 20] = *data.get(at..)?.first_chunk()?;
    let (ihl, protocol) = (header[0] & 15, header[9]);
    let (total, offset) = (usize::from(word(&header, 2)?), word(&header, 6)?);
    let length = usize::from(ihl) * 4;
    let whole = data.get(at..at + length).filter(|_| ihl >= 5);
    fields.set(layer.version, 4);
    fields.set(layer.ihl, ihl.into());
    fields.set(layer.dscp, (header[1] >> 2).into());
    fields.set(layer.ecn, header[1].into());
    fields.set(layer.fragment, u64::from(offset & 0x3fff != 0));
    fields.set(layer.ttl, header[8].into());
    fields.set(layer.protocol, protocol.into());
    fields.set(layer.source[3], long(&header, 12)?.into());
    fields.set(layer.destination[3], long(&header, 16)?.into());
    let fits = whole.is_some() && (length..=data.len() - at).contains(&total);
    fields.set(layer.l3_ok, fits.into());
    fields.set(layer.ipv4_checksum_ok, whole.is_some_and(|header| checksum::of(header) == 0).into());
    let (Some(_), true) = (whole, offset & 0x1fff == 0) else { return Some(Ip::default()) };
    let segment = data.get(at + length..at + total).filter(|_| fits && offset & 0x3fff == 0);
    let addresses = header.get(12..)?;
    Some(Ip { l4: Some(transport(data, at + length, protocol, (addresses, segment), layer, fields)) })
}

fn ipv6(data: &[u8], at: usize, layer: &Layer, fields: &mut Params) -> Option<Ip> {
    let header: [u8; 40] = *data.get(at..)?.first_chunk()?;
    let class = word(&header, 0)? >> 4 & 0xff;
    let payload = usize::from(word(&header, 4)?);
    let fits = 40 + payload <= data.len() - at;
    fields.set(layer.version, 6);
    fields.set(layer.dscp, (class >> 2).into());
    fields.set(layer.ecn, class.into());
    fields.set(layer.ttl, header[7].into());
    fields.set(layer.l3_ok, fits.into());
    // There is none to be wrong.
    fields.set(layer.ipv4_checksum_ok, 1);
    for (words, from) in [(layer.source, 8), (layer.destination, 24)] {
        for (i, field) in words.into_iter().enumerate() {
            fields.set(field, long(&header, from + i * 4)?.into());
        }
    }
    let end = at + 40 + payload;
    let (mut at, mut next, mut fragment) = (at + 40, header[6], false);
    fields.set(layer.protocol, next.into());
    // Extension headers are stepped over, and the protocol is that behind them: so the kernel matches (ip_proto of a flow).
    while matches!(next, 0 | 43 | 44 | 60) {
        let Some([following, length, high, low]) = data.get(at..).and_then(|rest| rest.first_chunk()).copied() else {
            return Some(Ip::default());
        };
        if next == 44 {
            fragment = true;
            fields.set(layer.fragment, 1);
            if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
                fields.set(layer.protocol, following.into());
                return Some(Ip::default());
            }
        }
        at += if next == 44 { 8 } else { 8 + usize::from(length) * 8 };
        next = following;
        fields.set(layer.protocol, next.into());
    }
    let segment = data.get(at..end).filter(|_| fits && !fragment);
    let addresses = header.get(8..)?;
    Some(Ip { l4: Some(transport(data, at, next, (addresses, segment), layer, fields)) })
}

/// TCP and UDP. `covered`: the addresses, and the whole segment, of what is not in fragments.
fn transport(
    data: &[u8],
    at: usize,
    protocol: u8,
    covered: (&[u8], Option<&[u8]>),
    layer: &Layer,
    fields: &mut Params,
) -> Transport {
    let (length, ports) = match protocol {
        TCP => (20, layer.tcp_ports),
        UDP => (8, layer.udp_ports),
        _ => return Transport { protocol, at, seen: false },
    };
    let Some(header) = data.get(at..at + length) else { return Transport { protocol, at, seen: false } };
    for (i, field) in ports.into_iter().enumerate() {
        fields.set(field, word(header, i * 2).unwrap_or(0).into());
    }
    if protocol == TCP {
        fields.set(layer.tcp_flags, word(header, 12).unwrap_or(0).into());
    }
    let (addresses, segment) = covered;
    let room = segment.map_or(data.len() - at, <[u8]>::len);
    let says = match protocol {
        TCP => octet(header, 12).map_or(0, |octet| usize::from(octet >> 4) * 4),
        _ => word(header, 4).unwrap_or(0).into(),
    };
    fields.set(layer.l4_ok, (length..=room).contains(&says).into());
    // RFC 768: over IPv4 a checksum of 0 is none.
    let none = protocol == UDP && addresses.len() == 8 && word(header, 6) == Some(0);
    let right = segment.is_some_and(|segment| checksum::with_addresses(addresses, protocol, segment) == 0);
    fields.set(layer.l4_checksum_ok, (none || right).into());
    Transport { protocol, at, seen: true }
}
