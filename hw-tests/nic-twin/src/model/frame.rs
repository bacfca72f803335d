//! A frame with room before it, so that headers can be put on and taken off without moving the payload.

/// Octets kept free before a frame that is loaded: more than any tunnel header of this NIC.
const HEADROOM: usize = 256;

/// An Ethernet frame without FCS, in a buffer that is used again.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    buffer: Vec<u8>,
    start: usize,
}

impl Frame {
    /// A frame of these octets.
    pub fn new(octets: &[u8]) -> Frame {
        let mut frame = Frame::default();
        frame.load(octets);
        frame
    }

    /// Replaces the content; the allocation stays.
    pub fn load(&mut self, octets: &[u8]) {
        self.buffer.clear();
        self.buffer.resize(HEADROOM, 0);
        self.buffer.extend_from_slice(octets);
        self.start = HEADROOM;
    }

    /// Adds octets behind the content (the next segment of a packet in pieces).
    pub fn append(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
    }

    /// The octets.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// The octets, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.start..).unwrap_or_default()
    }

    /// Number of octets.
    pub fn len(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Is it without octets?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts octets before the content.
    pub fn prepend(&mut self, octets: &[u8]) {
        self.insert(0, octets);
    }

    /// Inserts octets at `at`, clamped to the end; the part before it moves.
    pub fn insert(&mut self, at: usize, octets: &[u8]) {
        let at = at.min(self.len());
        if self.start < octets.len() {
            let more = HEADROOM.max(octets.len());
            self.buffer.splice(0..0, std::iter::repeat_n(0, more));
            self.start += more;
        }
        let old = self.start;
        self.start -= octets.len();
        self.buffer.copy_within(old..old + at, self.start);
        if let Some(hole) = self.buffer.get_mut(self.start + at..self.start + at + octets.len()) {
            hole.copy_from_slice(octets);
        }
    }

    /// Takes out `count` octets at `at`; no more than there are.
    pub fn remove(&mut self, at: usize, count: usize) {
        let at = at.min(self.len());
        let count = count.min(self.len() - at);
        self.buffer.copy_within(self.start..self.start + at, self.start + count);
        self.start += count;
    }

    /// Cuts the frame to `len` octets, if it is longer.
    pub fn truncate(&mut self, len: usize) {
        self.buffer.truncate(self.start + len.min(self.len()));
    }
}
