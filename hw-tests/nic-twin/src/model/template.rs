//! Headers given as octets: the buffers of RAW_ENCAP and RAW_DECAP.

use super::checksum;
use super::layers::{MPLS_PORTS, be16, is_tag};

/// Where the headers of a buffer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Template {
    /// Version and place of the IP header.
    pub(crate) ip: Option<(u8, u16)>,
    pub(crate) udp: Option<u16>,
}

impl Template {
    /// Parses a buffer; `None` when it is not whole headers from Ethernet up to where it ends: Ethernet, tags, IP without options,
    /// UDP, MPLS labels up to the bottom of the stack.
    pub(crate) fn parse(octets: &[u8]) -> Option<Template> {
        let mut template = Template::default();
        let mut ethertype = be16(octets, 12)?;
        let mut at = 14;
        while is_tag(ethertype) {
            ethertype = be16(octets, at + 2)?;
            at += 4;
        }
        if at == octets.len() {
            return Some(template);
        }
        let first = octets.get(at)? >> 4;
        let (size, protocol) = match (ethertype, first) {
            (0x0800, 4) if octets.get(at)? & 15 == 5 => (20, octets.get(at + 9)?),
            (0x86dd, 6) => (40, octets.get(at + 6)?),
            _ => return None,
        };
        template.ip = Some((first, u16::try_from(at).ok()?));
        at += size;
        if at == octets.len() {
            return Some(template);
        }
        if *protocol != 17 {
            return None;
        }
        template.udp = Some(u16::try_from(at).ok()?);
        let port = be16(octets, at + 2)?;
        at += 8;
        if at == octets.len() {
            return Some(template);
        }
        // Behind UDP: labels for MPLS; of other tunnels the header is opaque.
        if MPLS_PORTS.contains(&port) {
            while let Some(&[_, _, third, _]) = octets.get(at..at + 4) {
                at += 4;
                if third & 1 == 1 {
                    break;
                }
            }
            return (at == octets.len()).then_some(template);
        }
        (at < octets.len()).then_some(template)
    }

    /// Fills what depends on the packet: IPv4 total length and header checksum or IPv6 payload length, and UDP length. The UDP
    /// checksum stays as the buffer has it.
    pub(crate) fn fill(&self, frame: &mut [u8]) {
        let len = frame.len();
        let mut put = |at: usize, value: usize| {
            if let Some(field) = frame.get_mut(at..at + 2) {
                field.copy_from_slice(&u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes());
            }
        };
        if let Some(udp) = self.udp.map(usize::from) {
            put(udp + 4, len.saturating_sub(udp));
        }
        match self.ip.map(|(version, at)| (version, usize::from(at))) {
            Some((4, at)) => {
                put(at + 2, len.saturating_sub(at));
                put(at + 10, 0);
                if let Some(header) = frame.get_mut(at..at + 20) {
                    let checksum = !checksum::fold(checksum::sum(header));
                    if let Some(field) = header.get_mut(10..12) {
                        field.copy_from_slice(&checksum.to_be_bytes());
                    }
                }
            }
            Some((_, at)) => put(at + 4, len.saturating_sub(at + 40)),
            None => {}
        }
    }
}
