//! The memory pool of sessions, in which drivers keep keys.

use std::{
    collections::BTreeMap,
    ffi::{CString, c_void},
    ptr::NonNull,
    sync::{Mutex, PoisonError},
};

use dpdk_sys::rte_mempool;

/// Sessions of a port; one less than a power of two takes the least memory (rte_mempool guide).
const SESSIONS: u32 = (1 << 14) - 1;

struct Pool(NonNull<rte_mempool>);

// SAFETY: a mempool is for all threads, and these are never freed.
unsafe impl Send for Pool {}

/// All pools of the process, by port and octets of a session. Whoever takes a session from a pool, or gives one back, has the lock.
static POOLS: Mutex<BTreeMap<(u16, u32), Pool>> = Mutex::new(BTreeMap::new());

/// Takes a session from the pool of a port, by `take`. `None`: there is no memory for a pool, or none is left in it.
pub(super) fn take<T>(port: u16, size: u32, take: impl FnOnce(*mut rte_mempool) -> T) -> Option<T> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let pool = match pools.get(&(port, size)) {
        Some(pool) => pool.0,
        None => {
            let pool = make(port, size)?;
            pools.insert((port, size), Pool(pool));
            pool
        }
    };
    // SAFETY: a pool that is never freed.
    (unsafe { dpdk_sys::rte_mempool_avail_count(pool.as_ptr()) } > 0).then(|| take(pool.as_ptr()))
}

fn make(port: u16, size: u32) -> Option<NonNull<rte_mempool>> {
    let name = CString::new(format!("sg-sa-{port}-{size}")).ok()?;
    // SAFETY: a C string, and no constructors; no cache, so that what is given back is in the pool.
    let pool = unsafe {
        let socket = dpdk_sys::rte_eth_dev_socket_id(port);
        dpdk_sys::rte_mempool_create(
            name.as_ptr(),
            SESSIONS,
            size,
            0,
            0,
            None,
            std::ptr::null_mut(),
            None,
            std::ptr::null_mut(),
            socket,
            0,
        )
    };
    NonNull::new(pool)
}

/// Gives a session back, by `give`, and overwrites its memory: drivers leave keys in it. Not when `give` fails.
pub(super) fn give_back(session: NonNull<c_void>, size: u32, give: impl FnOnce() -> i32) -> i32 {
    let _pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let code = give();
    if code == 0 {
        // SAFETY: an element of a pool that is never freed, with this many octets. It is nobody's now, and becomes nobody's before
        // the lock is released; pools keep what they know of an element outside of it.
        unsafe { session.cast::<u8>().write_bytes(0, size as usize) };
        // Keeps the writes: nobody reads the memory after them.
        std::hint::black_box(session);
    }
    code
}
