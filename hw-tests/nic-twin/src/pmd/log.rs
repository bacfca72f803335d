//! DPDK's log.

use std::ffi::CString;

use super::ffi;

/// How grave a line is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Level {
    Error,
    Warning,
    Info,
}

/// Writes one line to DPDK's log.
pub(super) fn log(level: Level, text: &str) {
    let level = match level {
        Level::Error => ffi::RTE_LOG_ERR,
        Level::Warning => ffi::RTE_LOG_WARNING,
        Level::Info => ffi::RTE_LOG_INFO,
    };
    if let Ok(text) = CString::new(text) {
        // SAFETY: a NUL-terminated string that lives through the call.
        unsafe { ffi::twin_log(level, text.as_ptr()) };
    }
}
