//! The parser: where the headers of a packet are. It reads any octets without failing; what is not whole is not there.

use super::checksum;
use super::item::ItemKind;

/// Places where a header can be.
pub(crate) mod slot {
    pub(crate) const ETH: usize = 0;
    pub(crate) const VLAN: usize = 1; // and 2
    pub(crate) const L3: [usize; 2] = [3, 9];
    pub(crate) const FRAGMENT: [usize; 2] = [4, 10];
    pub(crate) const L4: [usize; 2] = [5, 11];
    pub(crate) const MPLS: usize = 6; // to 8
    pub(crate) const ESP: usize = 12;
    pub(crate) const META: usize = 13;
    pub(crate) const COUNT: usize = 14;
}

/// Bits of [`Layers::present`].
pub(crate) mod bit {
    pub(crate) const ETH: u32 = 1;
    pub(crate) const VLAN: u32 = 1 << 1; // and << 2
    pub(crate) const MPLS: u32 = 1 << 3; // to << 5
    pub(crate) const ESP: u32 = 1 << 6;
    // Of the outer headers; those of the inner ones are `INNER` higher.
    pub(crate) const L3: u32 = 1 << 8;
    pub(crate) const IPV4: u32 = 1 << 9;
    pub(crate) const IPV6: u32 = 1 << 10;
    pub(crate) const FRAGMENT: u32 = 1 << 11;
    pub(crate) const L4: u32 = 1 << 12;
    pub(crate) const UDP: u32 = 1 << 13;
    pub(crate) const TCP: u32 = 1 << 14;
    pub(crate) const SCTP: u32 = 1 << 15;
    pub(crate) const ICMP: u32 = 1 << 16;
    pub(crate) const ICMP6: u32 = 1 << 17;
    pub(crate) const INNER: u32 = 12;
}

/// Bits of the integrity item's value.
pub(crate) mod check {
    pub(crate) const PACKET: u8 = 1;
    pub(crate) const L2: u8 = 1 << 1;
    pub(crate) const L3: u8 = 1 << 2;
    pub(crate) const L4: u8 = 1 << 3;
    pub(crate) const L2_CRC: u8 = 1 << 4;
    pub(crate) const IPV4_CHECKSUM: u8 = 1 << 5;
    pub(crate) const L4_CHECKSUM: u8 = 1 << 6;
    pub(crate) const L3_LEN: u8 = 1 << 7;
    /// Those that need the whole payload read.
    pub(crate) const DEEP: u8 = PACKET | L4 | L4_CHECKSUM;
}

pub(crate) const MAX_VLANS: usize = 2;
pub(crate) const MAX_LABELS: usize = 3;
/// UDP ports of MPLS (RFC 7510), the second before it was assigned.
pub(crate) const MPLS_PORTS: [u16; 2] = [6635, 51234];
/// UDP port of ESP (RFC 3948).
const NAT_T_PORT: u16 = 4500;

/// An IP header with what is behind it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ip {
    /// 4 or 6.
    pub(crate) version: u8,
    pub(crate) at: usize,
    /// Where the packet ends by its own length, or the frame if that is shorter.
    pub(crate) end: usize,
    /// Protocol behind the header and its extensions.
    pub(crate) protocol: u8,
    /// Where that begins; `None` in fragments other than the first.
    pub(crate) l4: Option<usize>,
    pub(crate) fragment: bool,
}

/// The headers of a packet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layers {
    pub(crate) present: u32,
    pub(crate) at: [u16; slot::COUNT],
    pub(crate) ip: [Option<Ip>; 2],
    /// Integrity bits, outer and inner.
    pub(crate) checks: [u8; 2],
    /// Extension headers of IPv6 in the bit order of `rte_flow_item_ipv6`.
    pub(crate) extensions: [u16; 2],
}

pub(crate) fn be16(octets: &[u8], at: usize) -> Option<u16> {
    match octets.get(at..at + 2) {
        Some(&[high, low]) => Some(u16::from_be_bytes([high, low])),
        _ => None,
    }
}

pub(crate) fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8 | 0x9100)
}

impl Layers {
    /// Parses a frame; `deep` checks L4 checksums, which means to read all of it.
    pub(crate) fn of_frame(octets: &[u8], deep: bool) -> Layers {
        let mut layers = Layers::default();
        let Some(mut ethertype) = be16(octets, 12) else { return layers };
        layers.present = bit::ETH;
        let mut at = 14;
        for tag in 0..MAX_VLANS {
            if !is_tag(ethertype) {
                break;
            }
            let Some(next) = be16(octets, at + 2) else { return layers.checked(octets, deep) };
            layers.set(slot::VLAN + tag, bit::VLAN << tag, at);
            ethertype = next;
            at += 4;
        }
        let version = match ethertype {
            0x0800 => 4,
            0x86dd => 6,
            _ => return layers.checked(octets, deep),
        };
        layers.network(octets, at, version);
        layers.checked(octets, deep)
    }

    /// Parses a packet whose Ethernet header was taken off.
    pub(crate) fn of_packet(octets: &[u8], deep: bool) -> Layers {
        let mut layers = Layers::default();
        if let Some(&first) = octets.first() {
            layers.network(octets, 0, first >> 4);
        }
        layers.checked(octets, deep)
    }

    fn set(&mut self, slot: usize, bits: u32, at: usize) {
        self.present |= bits;
        if let (Some(place), Ok(at)) = (self.at.get_mut(slot), u16::try_from(at)) {
            *place = at;
        }
    }

    pub(crate) fn has(&self, bits: u32) -> bool {
        self.present & bits == bits
    }

    /// IP, and the tunnel in it.
    fn network(&mut self, octets: &[u8], at: usize, version: u8) {
        let Some(udp) = self.ip(octets, at, version, 0) else { return };
        let end = self.ip[0].map_or(octets.len(), |ip| ip.end);
        // What a tunnel carries ends with the datagram, which may be before the IP packet does, and never behind it (RFC 768).
        let datagram = be16(octets, udp + 4).map_or(udp, |len| udp + usize::from(len));
        if datagram > end {
            return;
        }
        let octets = octets.get(..datagram).unwrap_or(octets);
        let (Some(source), Some(destination)) = (be16(octets, udp), be16(octets, udp + 2)) else { return };
        if source == NAT_T_PORT || destination == NAT_T_PORT {
            // RFC 3948 §2.2: four zero octets mark IKE.
            if octets.get(udp + 8..udp + 16).is_some_and(|esp| esp.iter().take(4).any(|&octet| octet != 0)) {
                self.set(slot::ESP, bit::ESP, udp + 8);
            }
        } else if MPLS_PORTS.contains(&destination) {
            let mut label = udp + 8;
            for depth in 0..MAX_LABELS {
                let Some(&[_, _, third, _]) = octets.get(label..label + 4) else { return };
                self.set(slot::MPLS + depth, bit::MPLS << depth, label);
                label += 4;
                if third & 1 == 1 {
                    if let Some(&first) = octets.get(label) {
                        self.ip(octets, label, first >> 4, 1);
                    }
                    return;
                }
            }
        }
    }

    /// One IP header and what it carries. Answers where a UDP header is.
    fn ip(&mut self, octets: &[u8], at: usize, version: u8, level: usize) -> Option<usize> {
        let up = bit::INNER * level as u32;
        let (ip, checks) = match version {
            4 => ipv4(octets, at)?,
            6 => {
                let (ip, checks, extensions, fragment) = ipv6(octets, at)?;
                self.extensions[level] = extensions;
                if let Some(fragment) = fragment {
                    self.set(slot::FRAGMENT[level], bit::FRAGMENT << up, fragment);
                }
                (ip, checks)
            }
            _ => return None,
        };
        self.checks[level] |= checks;
        let family = if version == 4 { bit::IPV4 } else { bit::IPV6 };
        self.set(slot::L3[level], (bit::L3 | family) << up, at);
        self.ip[level] = Some(ip);
        // Matches on L4 never hit fragments, not even the first (mlx5 guide; and the others have no header).
        let l4 = ip.l4.filter(|_| !ip.fragment)?;
        let (size, kind) = match (ip.protocol, version) {
            (6, _) => (20, bit::TCP),
            (17, _) => (8, bit::UDP),
            (132, _) => (12, bit::SCTP),
            (1, 4) => (8, bit::ICMP),
            (58, 6) => (4, bit::ICMP6),
            (50, _) if level == 0 => {
                if l4 + 8 <= ip.end {
                    self.set(slot::ESP, bit::ESP, l4);
                }
                return None;
            }
            _ => return None,
        };
        if l4 + size > ip.end {
            return None;
        }
        self.set(slot::L4[level], (bit::L4 | kind) << up, l4);
        (kind == bit::UDP && level == 0).then_some(l4)
    }

    /// Adds what the integrity item can ask for.
    fn checked(mut self, octets: &[u8], deep: bool) -> Layers {
        for level in 0..2 {
            self.checks[level] |= check::L2 | check::L2_CRC;
            let Some(ip) = self.ip[level] else {
                if level == 0 {
                    self.checks[level] |= check::PACKET;
                }
                continue;
            };
            if !deep {
                continue;
            }
            let known = self.has(bit::L4 << (bit::INNER * level as u32));
            if known && l4_is_right(octets, &ip) {
                self.checks[level] |= check::L4 | check::L4_CHECKSUM;
            }
            let needed = check::L3 | if known { check::L4 } else { 0 };
            if self.checks[level] & needed == needed {
                self.checks[level] |= check::PACKET;
            }
        }
        self
    }

    /// Where the packet ends behind which a frame has only padding.
    pub(crate) fn end(&self) -> Option<usize> {
        self.ip[0].map(|ip| ip.end)
    }

    /// Offsets at which RAW_DECAP may cut: where an IP header begins, or a label stack or its payload.
    pub(crate) fn may_cut(&self, at: usize) -> bool {
        self.ip.iter().flatten().any(|ip| ip.at == at)
    }
}

fn ipv4(octets: &[u8], at: usize) -> Option<(Ip, u8)> {
    let header = octets.get(at..at + 20)?;
    let &[first, _, len_high, len_low, _, _, flags, offset, _, protocol, ..] = header else { return None };
    let size = usize::from(first & 15) * 4;
    if first >> 4 != 4 || size < 20 {
        return None;
    }
    let header = octets.get(at..at + size)?;
    let total = usize::from(u16::from_be_bytes([len_high, len_low]));
    let mut checks = 0;
    if checksum::fold(checksum::sum(header)) == 0xffff {
        checks |= check::IPV4_CHECKSUM;
    }
    if at + total <= octets.len() {
        checks |= check::L3_LEN;
    }
    if total >= size && checks & (check::IPV4_CHECKSUM | check::L3_LEN) == check::IPV4_CHECKSUM | check::L3_LEN {
        checks |= check::L3;
    }
    let end = if total < size { at + size } else { octets.len().min(at + total) };
    let fragment = u16::from_be_bytes([flags, offset]);
    let ip = Ip {
        version: 4,
        at,
        end,
        protocol,
        l4: (fragment & 0x1fff == 0).then_some(at + size),
        fragment: fragment & 0x3fff != 0,
    };
    Some((ip, checks))
}

/// Answers also the extension headers and where the fragment header is.
fn ipv6(octets: &[u8], at: usize) -> Option<(Ip, u8, u16, Option<usize>)> {
    let header = octets.get(at..at + 40)?;
    let &[first, _, _, _, len_high, len_low, next, ..] = header else { return None };
    if first >> 4 != 6 {
        return None;
    }
    let total = 40 + usize::from(u16::from_be_bytes([len_high, len_low]));
    let checks = if at + total <= octets.len() { check::L3_LEN | check::L3 } else { 0 };
    let end = octets.len().min(at + total);
    let mut ip = Ip { version: 6, at, end, protocol: next, l4: Some(at + 40), fragment: false };
    let (mut extensions, mut fragment) = (0, None);
    // More extension headers than this are beyond a NIC's parser.
    for _ in 0..8 {
        let Some(place) = ip.l4 else { break };
        // RFC 8200 §4: length in units of 8 octets without the first 8; AH (RFC 4302 §2.2): in units of 4 less 2.
        let (bit, unit) = match ip.protocol {
            0 => (0, 8),
            43 => (1, 8),
            44 => (2, 0),
            51 => (3, 4),
            60 => (5, 8),
            135 => (6, 8),
            139 => (7, 8),
            140 => (8, 8),
            50 => {
                extensions |= 1 << 4;
                break;
            }
            _ => break,
        };
        let Some(&[next, len, high, low, ..]) = octets.get(place..(place + 8).min(end)) else {
            ip.l4 = None;
            break;
        };
        if place + 8 > end {
            ip.l4 = None;
            break;
        }
        extensions |= 1 << bit;
        ip.protocol = next;
        let size = match unit {
            0 => {
                ip.fragment = true;
                fragment = Some(place);
                if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
                    ip.l4 = None;
                    break;
                }
                8
            }
            4 => (usize::from(len) + 2) * 4,
            _ => (usize::from(len) + 1) * 8,
        };
        ip.l4 = Some(place + size);
    }
    Some((ip, checks, extensions, fragment))
}

/// Is the checksum of TCP, UDP, SCTP or ICMP right? UDP without one is (RFC 768).
fn l4_is_right(octets: &[u8], ip: &Ip) -> bool {
    let Some(at) = ip.l4 else { return false };
    let Some(segment) = octets.get(at..ip.end) else { return false };
    let addresses = match ip.version {
        4 => octets.get(ip.at + 12..ip.at + 20),
        _ => octets.get(ip.at + 8..ip.at + 40),
    };
    let Some(addresses) = addresses else { return false };
    match ip.protocol {
        1 => checksum::fold(checksum::sum(segment)) == 0xffff,
        132 => segment.get(8..12).is_some_and(|crc| crc == checksum::sctp(segment).to_le_bytes()),
        17 => {
            let Some(len) = be16(segment, 4).map(usize::from) else { return false };
            let Some(datagram) = segment.get(..len).filter(|datagram| datagram.len() >= 8) else { return false };
            if be16(segment, 6) == Some(0) {
                return ip.version == 4 || be16(segment, 2).is_some_and(|port| MPLS_PORTS.contains(&port));
            }
            checksum::fold(checksum::sum(datagram) + checksum::pseudo(addresses, 17, len)) == 0xffff
        }
        protocol => {
            let pseudo = checksum::pseudo(addresses, protocol, segment.len());
            checksum::fold(checksum::sum(segment) + pseudo) == 0xffff
        }
    }
}

/// The bit of an L4 item.
pub(crate) fn l4_bit(kind: ItemKind) -> u32 {
    match kind {
        ItemKind::Udp => bit::UDP,
        ItemKind::Tcp => bit::TCP,
        ItemKind::Sctp => bit::SCTP,
        ItemKind::Icmp => bit::ICMP,
        ItemKind::Icmp6 => bit::ICMP6,
        _ => 0,
    }
}
