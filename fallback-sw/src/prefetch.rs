//! A hint to the processor that memory will be read soon.
//!
//! The one use of `unsafe` outside packet I/O: a cache line from DRAM costs as much as all the rest of a packet's work, and
//! the language offers no safe way to ask for it early.

/// Asks for the cache line that holds the first octet of `value`. Nothing but time depends on it; no-op where the
/// architecture has no such instruction.
#[inline(always)]
pub(crate) fn read<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch has no architectural effect: it neither faults nor reads or writes a value, whatever the
        // address (Intel SDM vol. 2, PREFETCHh); and the address is that of a live reference. SSE is part of x86_64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
