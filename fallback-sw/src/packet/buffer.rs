//! A frame in memory with room before and behind it.

/// Room before a received frame, for the largest encapsulation: Ethernet with two tags (22) + IPv4 (20) + UDP (8) + label (4),
/// and as much again for what is to come (ESP), rounded to a cache line.
pub(super) const HEADROOM: usize = 128;
/// Largest frame: IP MTU 9216 + Ethernet with two tags.
pub const MAX_FRAME: usize = 9216 + 22;
/// Memory of a standard buffer: headroom and a frame of 1500 + 22 octets, with room to spare.
const STANDARD: usize = 2048;

/// There is no room to grow into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room in the packet buffer for {wanted} more octets")]
pub struct NoRoom {
    /// Octets asked for.
    pub wanted: usize,
}

/// A frame in memory. Cheap to move; the memory goes back to where it came from when it is dropped.
#[derive(Debug)]
pub struct Packet {
    memory: Box<[u8]>,
    head: usize,
    len: usize,
}

impl Packet {
    /// An empty packet with room for `capacity` octets behind the headroom.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let size = HEADROOM.saturating_add(capacity).max(STANDARD);
        Self { memory: vec![0; size].into_boxed_slice(), head: HEADROOM, len: 0 }
    }

    /// A copy of a frame.
    #[must_use]
    pub fn from_frame(frame: &[u8]) -> Self {
        let mut packet = Self::with_capacity(frame.len());
        packet.refill(frame);
        packet
    }

    /// Replaces the content by a copy of `frame`, reusing the memory when it is large enough.
    #[inline]
    pub fn refill(&mut self, frame: &[u8]) {
        if self.memory.len() - HEADROOM < frame.len() {
            *self = Self::with_capacity(frame.len());
        }
        self.head = HEADROOM;
        self.len = frame.len();
        self.data_mut().copy_from_slice(frame);
    }

    /// The frame.
    #[inline]
    #[must_use]
    pub fn data(&self) -> &[u8] {
        debug_assert!(self.head <= self.memory.len() && self.len <= self.memory.len() - self.head);
        // SAFETY: head + len <= memory.len(), without overflow. It holds for a new packet (head = HEADROOM, len = 0, memory at
        // least HEADROOM long), and every method that changes one of them keeps it: `refill` makes the memory large enough
        // first, `prepend` moves `head` down by what it adds to `len`, `extend` checks the tailroom, `advance` moves `head` up
        // by what it takes off `len`, `truncate` only lowers `len`.
        unsafe { self.memory.get_unchecked(self.head..self.head + self.len) }
    }

    /// The frame, to be changed in place.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        debug_assert!(self.head <= self.memory.len() && self.len <= self.memory.len() - self.head);
        // SAFETY: as in `data`.
        unsafe { self.memory.get_unchecked_mut(self.head..self.head + self.len) }
    }

    /// Length of the frame in octets.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// No octets.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Octets that [`Packet::prepend`] can still take.
    #[inline]
    #[must_use]
    pub const fn headroom(&self) -> usize {
        self.head
    }

    /// Octets that [`Packet::extend`] can still take.
    #[inline]
    #[must_use]
    pub const fn tailroom(&self) -> usize {
        self.memory.len() - self.head - self.len
    }

    /// Octets of its memory, room included.
    #[inline]
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// Grows the frame at its front and returns the new octets (their content is unspecified).
    ///
    /// # Errors
    /// [`NoRoom`]: the packet stays as it was.
    #[inline]
    pub fn prepend(&mut self, octets: usize) -> Result<&mut [u8], NoRoom> {
        self.head = self.head.checked_sub(octets).ok_or(NoRoom { wanted: octets })?;
        self.len += octets;
        Ok(self.data_mut().get_mut(..octets).unwrap_or(&mut []))
    }

    /// Grows the frame at its end and returns the new octets (their content is unspecified).
    ///
    /// # Errors
    /// [`NoRoom`]: the packet stays as it was.
    #[inline]
    pub fn extend(&mut self, octets: usize) -> Result<&mut [u8], NoRoom> {
        if octets > self.tailroom() {
            return Err(NoRoom { wanted: octets });
        }
        let old = self.len;
        self.len += octets;
        Ok(self.data_mut().get_mut(old..).unwrap_or(&mut []))
    }

    /// Removes up to this many octets at the front.
    #[inline]
    pub fn advance(&mut self, octets: usize) {
        let octets = octets.min(self.len);
        self.head += octets;
        self.len -= octets;
    }

    /// Cuts the frame to at most this length.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}
