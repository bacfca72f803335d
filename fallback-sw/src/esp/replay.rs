//! The anti-replay window of RFC 4303 §3.4.3 and Appendix A, with extended sequence numbers.
//!
//! Checked before the packet is authenticated, updated after: a forged packet never moves it.

/// Largest window in packets.
pub const MAX_WINDOW: u32 = 4096;
const WORDS: usize = MAX_WINDOW as usize / 64;

/// A window that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a replay window of {0} packets: use a multiple of 32 from 32 to {MAX_WINDOW}")]
pub struct WindowError(pub u32);

/// A packet that the window refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Its number is left of the window.
    #[error("sequence number left of the replay window")]
    TooOld,
    /// Its number was received before.
    #[error("sequence number received before")]
    Seen,
    /// Zero is never sent (RFC 4303 §2.2), and with ESN numbers end at 2^64 − 1.
    #[error("sequence number that is never sent")]
    Invalid,
}

/// The window of one SA.
#[derive(Clone)]
pub struct Window {
    size: u32,
    esn: bool,
    /// Highest number that was authenticated; 0: none.
    top: u64,
    /// Bit of a number: modulo the bits of the ring. Bits outside the window are clear.
    ring: [u64; WORDS],
}

impl Window {
    /// An empty window.
    ///
    /// # Errors
    /// [`WindowError`].
    pub fn new(size: u32, esn: bool) -> Result<Self, WindowError> {
        if size == 0 || size > MAX_WINDOW || !size.is_multiple_of(32) {
            return Err(WindowError(size));
        }
        Ok(Self { size, esn, top: 0, ring: [0; WORDS] })
    }

    /// Packets that it spans.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Highest number that was authenticated; 0: none.
    #[must_use]
    pub const fn top(&self) -> u64 {
        self.top
    }

    /// The full number of a packet that carries these 32 bits, if it may be received.
    ///
    /// # Errors
    /// [`ReplayError`].
    #[inline]
    pub fn check(&self, low: u32) -> Result<u64, ReplayError> {
        let number = self.full(low).ok_or(ReplayError::Invalid)?;
        if number == 0 {
            return Err(ReplayError::Invalid);
        }
        if number > self.top {
            return Ok(number);
        }
        if self.top - number >= u64::from(self.size) {
            return Err(ReplayError::TooOld);
        }
        if self.bit(number) { Err(ReplayError::Seen) } else { Ok(number) }
    }

    /// The packet with this number, which [`Window::check`] allowed, is authentic.
    #[inline]
    pub fn update(&mut self, number: u64) {
        if number > self.top {
            self.advance(number);
        }
        if let Some(word) = self.ring.get_mut(Self::word(number)) {
            *word |= 1 << (number % 64);
        }
    }

    /// Numbers up to this one are not received any more: somebody else may have received them.
    pub fn refuse_through(&mut self, number: u64) {
        if number > self.top {
            self.advance(number);
        }
        let oldest = self.top.saturating_sub(u64::from(self.size) - 1).max(1);
        for seen in oldest..=number.min(self.top) {
            self.update(seen);
        }
    }

    /// RFC 4303 Appendix A2.1: the high half is not sent; it is the one that puts the number nearest to the window.
    #[inline]
    fn full(&self, low: u32) -> Option<u64> {
        if !self.esn {
            return Some(low.into());
        }
        let (top_high, top_low) = (self.top >> 32, self.top as u32);
        let size = self.size;
        let high = if top_low >= size - 1 {
            // Case A: the window lies within one subspace.
            if low >= top_low - (size - 1) { top_high } else { top_high + 1 }
        } else if low >= top_low.wrapping_sub(size - 1) {
            // Case B: the window spans two; before the first wrap there is no lower one.
            if top_high == 0 { 0 } else { top_high - 1 }
        } else {
            top_high
        };
        (high <= u64::from(u32::MAX)).then_some(high << 32 | u64::from(low))
    }

    #[inline]
    const fn word(number: u64) -> usize {
        (number / 64) as usize % WORDS
    }

    #[inline]
    fn bit(&self, number: u64) -> bool {
        self.ring.get(Self::word(number)).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Moves the right edge, and clears what becomes new: bits between the edges, for that of the new one is set next.
    fn advance(&mut self, number: u64) {
        let new = number - self.top;
        if new == 1 {
            // The usual case: its bit is about to be set.
        } else if new >= u64::from(MAX_WINDOW) {
            self.ring = [0; WORDS];
        } else {
            for fresh in self.top + 1..=number {
                if let Some(word) = self.ring.get_mut(Self::word(fresh)) {
                    *word &= !(1 << (fresh % 64));
                }
            }
        }
        self.top = number;
    }
}
