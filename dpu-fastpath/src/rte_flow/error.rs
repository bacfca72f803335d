//! rte_flow's errors.

use std::ffi::CStr;

use dpdk_sys::rte_flow_error;

use super::advice::advice;
use offload_engine::Failure;

/// A failure of a call: the driver's errno, and its words when it has any. `code` is what the call returned, 0 where it returns a
/// pointer: then the thread's rte_errno tells.
pub(super) fn failure(code: i32, error: &rte_flow_error) -> Failure {
    let errno = if code == 0 {
        // SAFETY: reads a variable of this thread.
        unsafe { dpdk_sys::rte_errno_get() }
    } else {
        code
    };
    let message = if error.message.is_null() {
        let errno = errno.saturating_abs();
        std::io::Error::from_raw_os_error(errno).to_string()
    } else {
        // SAFETY: rte_flow's contract: when set, a string that ends in NUL and lives as long as the driver.
        unsafe { CStr::from_ptr(error.message) }.to_string_lossy().into_owned()
    };
    match advice(&message) {
        Some(remedy) => Failure::from_errno(errno, format!("{message}: {remedy}")),
        None => Failure::from_errno(errno, message),
    }
}

/// What a call that returns an int came to.
pub(super) fn check(code: i32, error: &rte_flow_error) -> Result<(), Failure> {
    if code == 0 { Ok(()) } else { Err(failure(code, error)) }
}
