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

/// Octets that [`OutboundSa::frame`] may need behind a packet: padding, trailer, check value.
pub const BEHIND: usize = 3 + 2 + ICV_LEN;
/// Octets of the ESP header with the initialisation vector.
const ESP_LEN: usize = HEADER_LEN + IV_LEN;
/// Octets of all outer headers, in UDP and bare.
const IN_UDP: usize = 28 + ESP_LEN;
const BARE: usize = 20 + ESP_LEN;

/// All headers of a tunnel but for what differs from packet to packet. Kept in whole arrays, so that writing them is a few stores.
#[derive(Clone, Copy)]
struct Headers {
    /// IPv4, UDP if there is one, ESP, vector.
    octets: [u8; IN_UDP],
    /// Sum of the IPv4 header without length, TOS, identification and flags.
    sum: u16,
    in_udp: bool,
}

impl Headers {
    fn new(spi: u32, tunnel: &Tunnel) -> Self {
        let mut octets = [0; IN_UDP];
        octets[0] = 0x45;
        octets[8] = 64;
        octets[9] = if tunnel.udp.is_some() { 17 } else { PROTOCOL };
        octets[12..16].copy_from_slice(&tunnel.source.octets());
        octets[16..20].copy_from_slice(&tunnel.destination.octets());
        let sum = checksum::sum(&octets[..20]);
        let esp = match tunnel.udp {
            Some((source, destination)) => {
                octets[20..22].copy_from_slice(&source.to_be_bytes());
                octets[22..24].copy_from_slice(&destination.to_be_bytes());
                28
            }
            None => 20,
        };
        if let Some(field) = octets.get_mut(esp..esp + 4) {
            field.copy_from_slice(&spi.to_be_bytes());
        }
        Self { octets, sum, in_udp: tunnel.udp.is_some() }
    }

    const fn len(&self) -> usize {
        if self.in_udp { IN_UDP } else { BARE }
    }

    /// Writes them into `room`, which has their length. `total_len`: octets of the outer packet.
    #[inline]
    fn write(&self, room: &mut [u8], total_len: u16, sequence: u64, outer: OuterFields) -> Option<()> {
        let OuterFields { tos, id, df } = outer;
        let flags = u16::from(df) << 14;
        let sum = checksum::add4(self.sum, total_len, id, flags | u16::from(tos));
        let esp = if self.in_udp {
            let room = room.first_chunk_mut::<IN_UDP>()?;
            *room = self.octets;
            // The checksum is zero (RFC 3948 §2.1).
            room[24..26].copy_from_slice(&(total_len - 20).to_be_bytes());
            room.last_chunk_mut::<12>()?
        } else {
            let room = room.first_chunk_mut::<BARE>()?;
            *room = *self.octets.first_chunk()?;
            room.last_chunk_mut::<12>()?
        };
        esp[..4].copy_from_slice(&(sequence as u32).to_be_bytes());
        // RFC 4106 §3.1: the vector is unique for a key; the sequence number is.
        esp[4..].copy_from_slice(&sequence.to_be_bytes());
        let ip = room.first_chunk_mut::<12>()?;
        ip[1] = tos;
        ip[2..4].copy_from_slice(&total_len.to_be_bytes());
        ip[4..6].copy_from_slice(&id.to_be_bytes());
        ip[6..8].copy_from_slice(&flags.to_be_bytes());
        ip[10..12].copy_from_slice(&(!sum).to_be_bytes());
        Some(())
    }
}

/// Padding and its length (RFC 4303 §2.4), by its length.
const PADDING: [[u8; 4]; 4] = [[0, 0, 0, 0], [1, 1, 0, 0], [1, 2, 2, 0], [1, 2, 3, 3]];

/// An SA for sending, of one worker.
pub struct OutboundSa {
    spi: u32,
    esn: bool,
    /// The number of the next packet.
    next: u64,
    /// The last number that it may use.
    last: u64,
    /// The first number of each of the last two spans of time, the older one first.
    spans: [u64; 2],
    cipher: Cipher,
    headers: Headers,
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
        Self {
            spi: *spi,
            esn: *esn,
            next,
            last: if *esn { u64::MAX - 1 } else { u32::MAX.into() },
            spans: [next; 2],
            cipher: Cipher::by(provider, key),
            headers: Headers::new(*spi, tunnel),
        }
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
    pub fn set_tunnel(&mut self, tunnel: Tunnel) {
        self.headers = Headers::new(self.spi, &tunnel);
    }

    /// Octets from the outer IPv4 header to the ESP header.
    #[inline]
    #[must_use]
    pub const fn esp_at(&self) -> usize {
        self.headers.len() - ESP_LEN
    }

    /// The last number that it may use.
    #[inline]
    #[must_use]
    pub const fn last_sequence(&self) -> u64 {
        self.last
    }

    /// Has it used up all its numbers?
    #[inline]
    #[must_use]
    pub const fn is_exhausted(&self) -> bool {
        self.next > self.last
    }

    /// Seals the IP packet that `packet` holds: afterwards it holds the outer IPv4 packet. `tos` and `id` are those of the outer
    /// header (RFC 4301 §5.1.2, RFC 6040 §4.1: the caller's choice); `df` is its don't-fragment bit.
    ///
    /// # Errors
    /// [`SealError`]; the packet and the SA are as they were.
    #[inline]
    pub fn seal(&mut self, packet: &mut Packet, tos: u8, id: u16, df: bool) -> Result<(), SealError> {
        self.frame(packet, tos, id, df)?;
        let esp = packet.data_mut().get_mut(self.esp_at()..).unwrap_or(&mut []);
        // Invariant: it was framed just now.
        if self.encipher(esp) { Ok(()) } else { Err(SealError::NoRoom) }
    }

    /// The same without enciphering: the text is as it was, and the check value is zero. For a NIC that enciphers what it sends, or for
    /// [`encipher`](Self::encipher) once more packets have come so far.
    ///
    /// # Errors
    /// [`SealError`]; the packet and the SA are as they were.
    #[inline]
    pub fn frame(&mut self, packet: &mut Packet, tos: u8, id: u16, df: bool) -> Result<(), SealError> {
        let next_header = match packet.data().first().map(|octet| octet >> 4) {
            Some(4) => NEXT_IPV4,
            Some(6) => NEXT_IPV6,
            _ => return Err(SealError::NotIp),
        };
        if self.is_exhausted() {
            return Err(SealError::Exhausted);
        }
        let (len, before) = (packet.len(), self.headers.len());
        // RFC 4303 §2.4: the text ends on a multiple of four octets.
        let padding = (len + 2).wrapping_neg() % 4;
        let trailer = padding + 2 + ICV_LEN;
        let Ok(total_len) = u16::try_from(len + before + trailer) else { return Err(SealError::NoRoom) };
        if packet.headroom() < before {
            return Err(SealError::NoRoom);
        }
        let room = packet.extend(BEHIND).map_err(|_| SealError::NoRoom)?;
        if let (Some(end), Some(padded)) = (room.first_chunk_mut(), PADDING.get(padding)) {
            *end = *padded;
        }
        if let Some([next, icv @ ..]) = room.get_mut(padding + 1..).and_then(|end| end.first_chunk_mut::<17>()) {
            *next = next_header;
            icv.fill(0);
        }
        packet.truncate(len + trailer);
        let sequence = self.next;
        self.next += 1;
        // Invariant: the room was checked above.
        let room = packet.prepend(before).map_err(|_| SealError::NoRoom)?;
        self.headers.write(room, total_len, sequence, OuterFields { tos, id, df }).ok_or(SealError::NoRoom)
    }

    /// Enciphers what was framed, and writes its check value: `esp` begins with the ESP header and ends with the packet. Once for each
    /// packet: the header tells the number. False: it is no ESP packet, and must not be sent.
    #[inline]
    #[must_use]
    pub fn encipher(&self, esp: &mut [u8]) -> bool {
        let Some((head, body)) = esp.split_first_chunk_mut::<ESP_LEN>() else { return false };
        let Some((text, icv)) = body.split_last_chunk_mut::<ICV_LEN>() else { return false };
        let [s0, s1, s2, s3, _, _, _, _, iv @ ..] = *head;
        let mut authenticated = [0; 12];
        let spi = u32::from_be_bytes([s0, s1, s2, s3]);
        let aad = aad(spi, u64::from_be_bytes(iv), self.esn, &mut authenticated);
        self.cipher.seal(iv, aad, text, icv);
        true
    }
}
