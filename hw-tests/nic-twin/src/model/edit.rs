//! Changing a packet: fields with their checksums, tags.

use super::action::{FieldId, Modify, ModifyOp};
use super::checksum;
use super::layers::{Ip, Layers, bit, slot};
use super::shape::read_bits;

/// Where a field is and whose checksums cover it.
struct Place {
    /// First bit, from the start of the frame.
    bit: usize,
    width: usize,
    /// The IP header over it, for fields of IP and above.
    ip: Option<Ip>,
    /// In the IP header.
    in_ip: bool,
    /// Covered by the L4 checksum (by the pseudo header too).
    in_l4: bool,
}

/// Octets of the value in `rte_flow_item_*` and bits of it that count (the low ones).
pub(crate) const fn value_layout(field: FieldId) -> (usize, usize) {
    match field {
        FieldId::MacDst | FieldId::MacSrc => (6, 48),
        FieldId::VlanId => (2, 12),
        FieldId::MacType | FieldId::TcpSrc | FieldId::TcpDst | FieldId::UdpSrc | FieldId::UdpDst => (2, 16),
        FieldId::Ipv4Dscp | FieldId::Ipv6Dscp => (1, 6),
        FieldId::Ipv4Ecn | FieldId::Ipv6Ecn => (1, 2),
        FieldId::Ipv4Ttl | FieldId::Ipv6HopLimit => (1, 8),
        FieldId::Ipv4Src | FieldId::Ipv4Dst | FieldId::Mark | FieldId::Meta | FieldId::Tag => (4, 32),
        FieldId::Ipv6Src | FieldId::Ipv6Dst => (16, 128),
        FieldId::Other => (0, 0),
    }
}

fn place(field: FieldId, level: u32, layers: &Layers) -> Option<Place> {
    let inner = usize::from(level > 1);
    let l2 =
        |bit: usize| layers.has(bit::ETH).then_some(Place { bit, width: 48, ip: None, in_ip: false, in_l4: false });
    let ip = |version: u8, bit: usize, in_l4: bool| {
        let ip = layers.ip.get(inner).copied().flatten().filter(|ip| ip.version == version)?;
        Some(Place { bit: ip.at * 8 + bit, width: value_layout(field).1, ip: Some(ip), in_ip: true, in_l4 })
    };
    let l4 = |protocol: u8, bit: usize| {
        let ip = layers.ip.get(inner).copied().flatten().filter(|ip| ip.protocol == protocol)?;
        let at = ip.l4.filter(|at| at + 4 <= ip.end)?;
        Some(Place { bit: at * 8 + bit, width: 16, ip: Some(ip), in_ip: false, in_l4: true })
    };
    match field {
        FieldId::MacDst => l2(0),
        FieldId::MacSrc => l2(48),
        FieldId::MacType => l2(96).map(|place| Place { width: 16, ..place }),
        FieldId::VlanId => {
            let at = usize::from(*layers.at.get(slot::VLAN)?);
            layers.has(bit::VLAN).then_some(Place { bit: at * 8 + 4, width: 12, ip: None, in_ip: false, in_l4: false })
        }
        FieldId::Ipv4Dscp => ip(4, 8, false),
        FieldId::Ipv4Ecn => ip(4, 14, false),
        FieldId::Ipv4Ttl => ip(4, 64, false),
        FieldId::Ipv4Src => ip(4, 96, true),
        FieldId::Ipv4Dst => ip(4, 128, true),
        FieldId::Ipv6Dscp => ip(6, 4, false),
        FieldId::Ipv6Ecn => ip(6, 10, false),
        FieldId::Ipv6HopLimit => ip(6, 56, false),
        FieldId::Ipv6Src => ip(6, 64, true),
        FieldId::Ipv6Dst => ip(6, 192, true),
        FieldId::TcpSrc => l4(6, 0),
        FieldId::TcpDst => l4(6, 16),
        FieldId::UdpSrc => l4(17, 0),
        FieldId::UdpDst => l4(17, 16),
        FieldId::Mark | FieldId::Meta | FieldId::Tag | FieldId::Other => None,
    }
}

fn write_bits(octets: &mut [u8], at: usize, width: usize, value: u128) {
    if at.is_multiple_of(8) && width.is_multiple_of(8) {
        let value = value.to_be_bytes();
        if let (Some(to), Some(from)) = (octets.get_mut(at / 8..(at + width) / 8), value.get(16 - width / 8..)) {
            to.copy_from_slice(from);
        }
        return;
    }
    for index in 0..width {
        let bit = at + index;
        let Some(octet) = octets.get_mut(bit / 8) else { return };
        let mask = 0x80 >> (bit % 8);
        if value >> (width - 1 - index) & 1 == 1 {
            *octet |= mask;
        } else {
            *octet &= !mask;
        }
    }
}

const fn ones(width: usize) -> u128 {
    if width >= 128 { u128::MAX } else { (1 << width) - 1 }
}

/// The result of an operation on `width` bits.
pub(crate) const fn combine(op: ModifyOp, old: u128, value: u128, width: usize) -> u128 {
    let result = match op {
        ModifyOp::Set => value,
        ModifyOp::Add => old.wrapping_add(value),
        ModifyOp::Sub => old.wrapping_sub(value),
    };
    result & ones(width)
}

/// Changes a field of a header, with the checksums over it. A packet without the field stays as it is.
pub(crate) fn modify(octets: &mut [u8], layers: &Layers, action: &Modify) {
    let Some(value) = action.value else { return };
    let Some(place) = place(action.field, action.level, layers) else { return };
    let (size, bits) = value_layout(action.field);
    let (skip, width) = (action.offset as usize, action.width as usize);
    if skip + width > place.width || width == 0 {
        return;
    }
    let Some(value) = read_bits(&value, size * 8 - bits + skip, width) else { return };
    let at = place.bit + skip;
    let Some(old) = read_bits(octets, at, width) else { return };
    let new = combine(action.op, old, value, width);
    // Whole 16-bit words around the change; headers begin at even offsets of what their checksums cover.
    let base = place.ip.map_or(0, |ip| ip.at) % 2;
    let from = (at / 8 - base) / 2 * 2 + base;
    let to = ((at + width).div_ceil(8) - base).div_ceil(2) * 2 + base;
    let Some(before) = octets.get(from..to).map(checksum::sum) else { return };
    write_bits(octets, at, width, new);
    let Some(after) = octets.get(from..to).map(checksum::sum) else { return };
    let Some(ip) = place.ip else { return };
    if place.in_ip && ip.version == 4 {
        fix(octets, ip.at + 10, before, after);
    }
    if place.in_l4
        && let Some(l4) = ip.l4
    {
        match ip.protocol {
            6 => fix_within(octets, &ip, l4 + 16, before, after),
            // RFC 768: zero means none, and a sum of zero is sent as ones.
            17 if read_bits(octets, (l4 + 6) * 8, 16).is_some_and(|sum| sum != 0) => {
                fix_within(octets, &ip, l4 + 6, before, after);
                if let Some(field) = octets.get_mut(l4 + 6..l4 + 8)
                    && field == [0, 0]
                {
                    field.fill(0xff);
                }
            }
            58 => fix_within(octets, &ip, l4 + 2, before, after),
            _ => {}
        }
    }
}

fn fix_within(octets: &mut [u8], ip: &Ip, at: usize, before: u64, after: u64) {
    if at + 2 <= ip.end {
        fix(octets, at, before, after);
    }
}

fn fix(octets: &mut [u8], at: usize, before: u64, after: u64) {
    if let Some(field) = octets.get_mut(at..at + 2)
        && let &mut [high, low] = field
    {
        field.copy_from_slice(&checksum::update(u16::from_be_bytes([high, low]), before, after).to_be_bytes());
    }
}

/// Sets the TTL or hop limit of the outermost IP header.
pub(crate) fn set_ttl(octets: &mut [u8], layers: &Layers, ttl: u8) {
    let Some(ip) = layers.ip[0] else { return };
    let field = if ip.version == 4 { FieldId::Ipv4Ttl } else { FieldId::Ipv6HopLimit };
    modify(octets, layers, &set(field, &[ttl]));
}

/// Decreases the TTL or hop limit of the outermost IP header; 0 stays 0.
pub(crate) fn dec_ttl(octets: &mut [u8], layers: &Layers) {
    let Some(ip) = layers.ip[0] else { return };
    let at = ip.at + if ip.version == 4 { 8 } else { 7 };
    if let Some(&ttl) = octets.get(at) {
        set_ttl(octets, layers, ttl.saturating_sub(1));
    }
}

/// Sets a port of the outermost TCP or UDP header.
pub(crate) fn set_port(octets: &mut [u8], layers: &Layers, source: bool, port: u16) {
    let fields = if source { [FieldId::TcpSrc, FieldId::UdpSrc] } else { [FieldId::TcpDst, FieldId::UdpDst] };
    for field in fields {
        modify(octets, layers, &set(field, &port.to_be_bytes()));
    }
}

/// MODIFY_FIELD that sets the whole of an outermost field.
pub(crate) fn set(field: FieldId, value: &[u8]) -> Modify {
    let mut immediate = [0; 16];
    for (to, from) in immediate.iter_mut().zip(value) {
        *to = *from;
    }
    let width = value_layout(field).1 as u32;
    Modify { op: ModifyOp::Set, field, level: 0, offset: 0, width, value: Some(immediate) }
}

/// Sets the priority of the outer tag, if there is one.
pub(crate) fn set_priority(octets: &mut [u8], layers: &Layers, priority: u8) {
    if layers.has(bit::VLAN)
        && let Some(octet) = octets.get_mut(usize::from(layers.at[slot::VLAN]))
    {
        *octet = *octet & 0x1f | priority << 5;
    }
}
