//! Security associations: what one direction of an IPsec tunnel is protected with (RFC 4301 §4.1).

use std::sync::Arc;

use crate::SaId;

/// Octets of key and salt together: AES-128 and AES-256, each with the four octets of RFC 4106 §8.1.
pub const KEY_LENGTHS: [usize; 2] = [20, 36];
/// Smallest index that an SA may have: 0 is for local use, 1..=255 are reserved (RFC 4303 §2.1).
pub const MIN_SPI: u32 = 256;
/// Packets of the replay window when nothing is said.
pub const DEFAULT_WINDOW: u32 = 1024;
/// Largest replay window in packets.
pub const MAX_WINDOW: u32 = 4096;

/// A security association with AES-GCM (RFC 4106).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sa {
    /// Number.
    pub id: SaId,
    /// Security parameters index: of an inbound SA chosen by this node, of an outbound one by the other end.
    pub spi: u32,
    /// Which way.
    pub direction: SaDirection,
    /// Key and salt.
    pub key: SaKey,
    /// Extended sequence numbers (RFC 4303 §2.2.1).
    pub esn: bool,
    /// Inbound: packets of the replay window, a multiple of 32 up to [`MAX_WINDOW`]. Outbound: 0.
    pub window: u32,
    /// Time for a new one: told, and nothing else.
    pub soft: Lifetime,
    /// The end.
    pub hard: Lifetime,
    /// Outbound: first sequence number, 1 or more.
    pub first: u64,
    /// Outbound: the worker that seals with it (modulo their number), so that cores share no sequence number (RFC 9611).
    pub worker: u32,
}

/// Which way packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaDirection {
    /// From this node: seals.
    Outbound,
    /// To this node: opens.
    Inbound,
}

impl SaDirection {
    /// As in the protobuf messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Outbound => "OUTBOUND",
            Self::Inbound => "INBOUND",
        }
    }
}

/// How long an SA lasts; 0: not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lifetime {
    /// Packets.
    pub packets: u64,
    /// Octets of the packets inside.
    pub bytes: u64,
    /// Seconds since it was put in force.
    pub seconds: u64,
}

impl Lifetime {
    /// The limits with their names; none is 0.
    pub fn limits(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = [("packets", self.packets), ("bytes", self.bytes), ("seconds", self.seconds)];
        all.into_iter().filter(|(_, limit)| *limit > 0)
    }

    /// Reached?
    #[must_use]
    pub const fn is_over(&self, packets: u64, bytes: u64, seconds: u64) -> bool {
        (self.packets > 0 && packets >= self.packets)
            || (self.bytes > 0 && bytes >= self.bytes)
            || (self.seconds > 0 && seconds >= self.seconds)
    }
}

/// Key and salt, kept once however many hold it. Overwritten when the last lets go of it; never formatted.
#[derive(Clone, PartialEq, Eq)]
pub struct SaKey(Arc<Secret>);

#[derive(PartialEq, Eq)]
struct Secret(Box<[u8]>);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Keeps the writes: nobody reads the memory after them.
        std::hint::black_box(&self.0);
    }
}

impl SaKey {
    /// Key material: the key, then the salt. Whether the length fits is for validation to say.
    #[must_use]
    pub fn new(material: Box<[u8]>) -> Self {
        Self(Arc::new(Secret(material)))
    }

    /// Key and salt.
    #[must_use]
    pub fn material(&self) -> &[u8] {
        &self.0.0
    }

    /// How many hold this memory.
    #[must_use]
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Bits of the key without its salt.
    #[must_use]
    pub fn bits(&self) -> usize {
        self.0.0.len().saturating_sub(4) * 8
    }
}

impl std::fmt::Debug for SaKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(redacted)")
    }
}
