//! Memory that NICs receive into.

use std::{
    collections::BTreeMap,
    ffi::CString,
    ptr::NonNull,
    sync::{Mutex, PoisonError},
};

use dpdk_sys as sys;
use fallback_sw::packet::HEADROOM;

use super::errno::errno;

/// mbufs that a thread keeps for itself.
const CACHE: u32 = 256;
/// Octets of the smallest buffer without its headroom: drivers want at least this (`RTE_MBUF_DEFAULT_DATAROOM`).
const ROOM: u16 = 2048;

/// A pool of mbufs. Never freed: packets that borrow its memory may be anywhere.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    pool: NonNull<sys::rte_mempool>,
    size: u32,
    frame: u32,
}

// SAFETY: DPDK's pools are for all threads, and this one is never freed.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

/// All pools of the process, by port and octets of a buffer.
static POOLS: Mutex<BTreeMap<(u16, u16), Pool>> = Mutex::new(BTreeMap::new());

/// mbufs of all pools that are not in their pool.
pub(super) fn in_use() -> u32 {
    let pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    pools.values().map(|pool| pool.size.saturating_sub(pool.available())).sum()
}

impl Pool {
    /// The pool of a port for frames of up to `frame` octets, with `count` mbufs if it has to be made.
    ///
    /// # Errors
    /// The errno of DPDK: no memory.
    pub(super) fn of(port: u16, frame: u32, count: u32, socket: i32) -> Result<Self, std::io::Error> {
        let room = u16::try_from(frame).unwrap_or(u16::MAX).next_multiple_of(64).max(ROOM);
        let room = room.saturating_add(HEADROOM as u16);
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&(port, room)) {
            return Ok(*pool);
        }
        let name = CString::new(format!("sg-{port}-{room}"))?;
        // SAFETY: a C string; all numbers are in the bounds that DPDK checks.
        let pool = unsafe { sys::rte_pktmbuf_pool_create(name.as_ptr(), count, CACHE, 0, room, socket) };
        let pool = NonNull::new(pool).ok_or_else(|| std::io::Error::from_raw_os_error(errno()))?;
        let pool = Self { pool, size: count, frame: u32::from(room) - HEADROOM as u32 };
        pools.insert((port, room), pool);
        Ok(pool)
    }

    /// mbufs that are in the pool and in the caches of threads. Not for every batch.
    #[must_use]
    pub fn available(&self) -> u32 {
        // SAFETY: a pool that is never freed.
        unsafe { sys::rte_mempool_avail_count(self.pool.as_ptr()) }
    }

    /// Octets of the longest frame that fits an mbuf.
    #[must_use]
    pub const fn frame(&self) -> u32 {
        self.frame
    }

    /// mbufs that there are.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.size
    }

    pub(super) const fn as_ptr(&self) -> *mut sys::rte_mempool {
        self.pool.as_ptr()
    }
}
