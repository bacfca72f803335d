//! Lazily touched anonymous memory, seen as an array of plain records.

use std::{io, marker::PhantomData};

use memmap2::{MmapMut, MmapOptions};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A fixed array of zeroed `T` that costs no memory until it is written to.
///
/// Transparent huge pages are asked for: at a million flows every access would otherwise miss the TLB as well as the cache.
/// Pages from the hugetlb pool are not taken, even where there are some: they are reserved whole and up front, and the
/// operator has set them aside for the NIC driver.
pub(super) struct Array<T> {
    map: MmapMut,
    of: PhantomData<T>,
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> Array<T> {
    /// # Errors
    /// The kernel refuses the mapping, or `len` elements are more than the address space.
    pub(super) fn new(len: usize) -> io::Result<Self> {
        let bytes = len
            .checked_mul(size_of::<T>())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "flow table larger than the address space"))?;
        let map = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
        // A kernel without transparent huge pages refuses: small pages are slower and just as right.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { map, of: PhantomData })
    }

    #[inline(always)]
    pub(super) fn as_slice(&self) -> &[T] {
        // Invariant: the mapping is page-aligned and a whole number of elements long.
        <[T]>::ref_from_bytes(&self.map).unwrap_or(&[])
    }

    #[inline(always)]
    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        // Invariant: as above.
        <[T]>::mut_from_bytes(&mut self.map).unwrap_or(&mut [])
    }

    #[inline(always)]
    pub(super) fn get(&self, at: u32) -> Option<&T> {
        // By the octets of the one element: the layout of the whole mapping would be checked each time.
        let from = at as usize * size_of::<T>();
        T::ref_from_bytes(self.map.get(from..from + size_of::<T>())?).ok()
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        let from = at as usize * size_of::<T>();
        T::mut_from_bytes(self.map.get_mut(from..from + size_of::<T>())?).ok()
    }

    pub(super) fn bytes(&self) -> usize {
        self.map.len()
    }
}
