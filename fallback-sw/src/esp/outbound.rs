//! Sealing: an IP packet becomes ESP.

use std::{net::Ipv4Addr, ops::Range};

use super::{
    Cipher, HEADER_LEN, ICV_LEN, IV_LEN, Key, NAT_T_PORT, NEXT_IPV4, NEXT_IPV6, PROTOCOL, Provider, cipher::aad,
};
use crate::packet::{Packet, checksum};

/// Outer headers of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// Outer source.
    pub source: Ipv4Addr,
    /// Outer destination.
    pub destination: Ipv4Addr,
    /// In UDP (RFC 3948): source and destination port. `None`: ESP is IP protocol 50.
    pub udp: Option<(u16, u16)>,
}

impl Tunnel {
    /// In UDP on port 4500 at both ends.
    #[must_use]
    pub const fn nat_t(source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        Self { source, destination, udp: Some((NAT_T_PORT, NAT_T_PORT)) }
    }

    /// Octets before the ESP header.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        if self.udp.is_some() { 28 } else { 20 }
    }
}

/// Fields of the outer IPv4 header that are the caller's choice.
#[derive(Clone, Copy)]
struct OuterFields {
    tos: u8,
    /// Identification.
    id: u16,
    /// Don't fragment.
    df: bool,
}

/// How an outbound SA is set up.
#[derive(Clone)]
pub struct OutboundConfig {
    /// Security parameters index, at the other end; 256 and above (RFC 4303 §2.1).
    pub spi: u32,
    /// Key and salt.
    pub key: Key,
    /// Extended sequence numbers.
    pub esn: bool,
    /// First sequence number, 1 for a fresh key. What was used under this key must never be used again.
    pub first: u64,
    /// Outer headers.
    pub tunnel: Tunnel,
}

/// A packet cannot be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// All sequence numbers are used: the SA is at its end (RFC 4303 §3.3.3).
    #[error("the sequence numbers of the SA are used up")]
    Exhausted,
    /// Not IPv4 or IPv6.
    #[error("not an IP packet")]
    NotIp,
    /// No room in the buffer, or longer than IPv4 can be.
    #[error("no room for the ESP headers")]
    NoRoom,
}

/// An SA for sending, of one worker.
pub struct OutboundSa {
    spi: u32,
    esn: bool,
    /// The number of the next packet.
    next: u64,
    /// The first number of each of the last two spans of time, the older one first.
    spans: [u64; 2],
    cipher: Cipher,
    tunnel: Tunnel,
}

impl OutboundSa {
    /// Ready to send.
    #[must_use]
    pub fn new(config: &OutboundConfig) -> Self {
        Self::by(Provider::of_the_process(), config)
    }

    /// Ready to send, with AES-GCM by this provider.
    #[must_use]
    pub fn by(provider: Provider, config: &OutboundConfig) -> Self {
        let OutboundConfig { spi, key, esn, first, tunnel } = config;
        let next = (*first).max(1);
        Self { spi: *spi, esn: *esn, next, spans: [next; 2], cipher: Cipher::by(provider, key), tunnel: *tunnel }
    }

    /// Its index.
    #[must_use]
    pub const fn spi(&self) -> u32 {
        self.spi
    }

    /// The number of the next packet.
    #[must_use]
    pub const fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Numbers below this one are passed over from now on; lower ones than the next are ignored.
    pub fn skip_to(&mut self, sequence: u64) {
        if sequence > self.next {
            self.next = sequence;
            self.spans = [sequence; 2];
        }
    }

    /// Begins a span of time. What was sent before the last one began was not sent lately.
    pub const fn begin_span(&mut self) {
        self.spans = [self.spans[1], self.next];
    }

    /// Numbers that it has sent in this span of time and in the last one. After a gap in its numbers only those behind the gap.
    #[must_use]
    pub const fn sent_lately(&self) -> Range<u64> {
        self.spans[0]..self.next
    }

    /// The outer headers from now on.
    pub const fn set_tunnel(&mut self, tunnel: Tunnel) {
        self.tunnel = tunnel;
    }

    /// Has it used up all its numbers?
    #[inline]
    #[must_use]
    pub const fn is_exhausted(&self) -> bool {
        self.next > if self.esn { u64::MAX - 1 } else { u32::MAX as u64 }
    }

    /// Seals the IP packet that `packet` holds: afterwards it holds the outer IPv4 packet. `tos` and `id` are those of the outer
    /// header (RFC 4301 §5.1.2, RFC 6040 §4.1: the caller's choice); `df` is its don't-fragment bit.
    ///
    /// # Errors
    /// [`SealError`]; the packet and the SA are as they were.
    #[inline]
    pub fn seal(&mut self, packet: &mut Packet, tos: u8, id: u16, df: bool) -> Result<(), SealError> {
        self.build(packet, OuterFields { tos, id, df }, Cipher::seal)
    }

    /// The same without enciphering: the text is as it was, and the check value is zero. For a NIC that enciphers what it sends.
    ///
    /// # Errors
    /// [`SealError`]; the packet and the SA are as they were.
    #[inline]
    pub fn frame(&mut self, packet: &mut Packet, tos: u8, id: u16, df: bool) -> Result<(), SealError> {
        self.build(packet, OuterFields { tos, id, df }, |_, _, _, _, icv| icv.fill(0))
    }

    #[inline]
    fn build(
        &mut self,
        packet: &mut Packet,
        outer: OuterFields,
        encipher: impl FnOnce(&Cipher, [u8; IV_LEN], &[u8], &mut [u8], &mut [u8; ICV_LEN]),
    ) -> Result<(), SealError> {
        let next_header = match packet.data().first().map(|octet| octet >> 4) {
            Some(4) => NEXT_IPV4,
            Some(6) => NEXT_IPV6,
            _ => return Err(SealError::NotIp),
        };
        if self.is_exhausted() {
            return Err(SealError::Exhausted);
        }
        let before = self.tunnel.header_len() + HEADER_LEN + IV_LEN;
        // RFC 4303 §2.4: the text ends on a multiple of four octets.
        let padding = (packet.len() + 2).wrapping_neg() % 4;
        let trailer = padding + 2 + ICV_LEN;
        let total = packet.len() + before + trailer;
        let Ok(total_len) = u16::try_from(total) else { return Err(SealError::NoRoom) };
        if packet.headroom() < before || packet.tailroom() < trailer {
            return Err(SealError::NoRoom);
        }
        let sequence = self.next;
        self.next += 1;
        // Invariant: the room was checked above.
        let end = packet.extend(trailer).map_err(|_| SealError::NoRoom)?;
        for (octet, value) in end.iter_mut().take(padding).zip(1..) {
            *octet = value;
        }
        if let Some([pad_len, next]) = end.get_mut(padding..padding + 2) {
            (*pad_len, *next) = (padding as u8, next_header);
        }
        packet.prepend(before).map_err(|_| SealError::NoRoom)?;
        let frame = packet.data_mut();
        let Some((head, body)) = frame.split_at_mut_checked(before) else { return Err(SealError::NoRoom) };
        let Some((text, icv)) = body.split_last_chunk_mut::<ICV_LEN>() else { return Err(SealError::NoRoom) };
        // RFC 4106 §3.1: unique for a key; the sequence number is.
        let iv = sequence.to_be_bytes();
        let mut authenticated = [0; 12];
        encipher(&self.cipher, iv, aad(self.spi, sequence, self.esn, &mut authenticated), text, icv);
        self.write_outer(head, total_len, outer);
        let esp = self.tunnel.header_len();
        for (at, octets) in [(0, &self.spi.to_be_bytes()), (4, &(sequence as u32).to_be_bytes())] {
            if let Some(field) = head.get_mut(esp + at..esp + at + 4) {
                field.copy_from_slice(octets);
            }
        }
        if let Some(field) = head.get_mut(esp + 8..) {
            field.copy_from_slice(&iv);
        }
        Ok(())
    }

    #[inline]
    fn write_outer(&self, head: &mut [u8], total_len: u16, outer: OuterFields) {
        let OuterFields { tos, id, df } = outer;
        let Some((ip, udp)) = head.split_first_chunk_mut::<20>() else { return };
        ip[0] = 0x45;
        ip[1] = tos;
        ip[2..4].copy_from_slice(&total_len.to_be_bytes());
        ip[4..6].copy_from_slice(&id.to_be_bytes());
        ip[6..8].copy_from_slice(&(u16::from(df) << 14).to_be_bytes());
        ip[8] = 64;
        ip[9] = if self.tunnel.udp.is_some() { 17 } else { PROTOCOL };
        ip[10..12].fill(0);
        ip[12..16].copy_from_slice(&self.tunnel.source.octets());
        ip[16..20].copy_from_slice(&self.tunnel.destination.octets());
        let sum = !checksum::sum(&ip[..]);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        if let (Some((source, destination)), Some(udp)) = (self.tunnel.udp, udp.first_chunk_mut::<8>()) {
            udp[..2].copy_from_slice(&source.to_be_bytes());
            udp[2..4].copy_from_slice(&destination.to_be_bytes());
            udp[4..6].copy_from_slice(&(total_len - 20).to_be_bytes());
            // RFC 3948 §2.1: zero.
            udp[6..8].fill(0);
        }
    }
}
