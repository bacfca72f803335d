//! Memory for the structures that items and actions point to.

/// Octets of one of rte_flow's structures: large enough and aligned for every one that this module fills.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub(super) struct Blob([u8; Blob::SIZE]);

impl Blob {
    pub(super) const SIZE: usize = 64;

    pub(super) const ZERO: Self = Self([0; Self::SIZE]);

    /// The octets of a structure without padding that matters and without pointers.
    pub(super) fn with(offset: usize, octets: &[u8]) -> Self {
        let mut blob = Self::ZERO;
        blob.put(offset, octets);
        blob
    }

    /// Writes octets; what would lie behind the end is no part of any structure here.
    pub(super) fn put(&mut self, offset: usize, octets: &[u8]) {
        if let Some(slot) = self.0.get_mut(offset..offset + octets.len()) {
            slot.copy_from_slice(octets);
        }
    }

    /// Writes what the mask leaves of octets.
    pub(super) fn put_masked(&mut self, offset: usize, octets: &[u8], mask: &[u8]) {
        let slots = self.0.iter_mut().skip(offset);
        slots.zip(octets.iter().zip(mask)).for_each(|(slot, (octet, mask))| *slot = octet & mask);
    }

    /// Writes ones.
    pub(super) fn fill(&mut self, offset: usize, count: usize) {
        self.0.iter_mut().skip(offset).take(count).for_each(|slot| *slot = 0xff);
    }

    pub(super) fn octets(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn as_ptr(&self) -> *const std::ffi::c_void {
        self.0.as_ptr().cast()
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = self.0.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
        self.0.iter().take(end).try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}
