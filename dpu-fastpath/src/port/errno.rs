//! DPDK's errno (`rte_errno`), and what it means.

use std::ffi::{CStr, c_int};

use dpdk_sys as sys;

/// DPDK's errno of this thread.
pub(super) fn errno() -> c_int {
    // SAFETY: reads a variable of this thread.
    unsafe { sys::rte_errno_get() }
}

/// An errno of DPDK in words.
pub(super) fn errno_text(errno: c_int) -> String {
    // SAFETY: returns a C string that lives until this thread asks again.
    unsafe { CStr::from_ptr(sys::rte_strerror(errno)) }.to_string_lossy().into_owned()
}
