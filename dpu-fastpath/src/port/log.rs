//! DPDK's log, passed on to the node's.

use std::{
    collections::VecDeque,
    ffi::{c_char, c_int, c_void},
    sync::{Mutex, OnceLock, PoisonError},
};

use dpdk_sys as sys;

/// Lines kept to tell why something failed.
const KEPT: usize = 8;

/// The last warnings and errors.
static COMPLAINTS: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// `cookie_io_functions_t` of stdio.h (GNU).
#[repr(C)]
struct CookieFunctions {
    read: Option<unsafe extern "C" fn(*mut c_void, *mut c_char, usize) -> isize>,
    write: Option<unsafe extern "C" fn(*mut c_void, *const c_char, usize) -> isize>,
    seek: Option<unsafe extern "C" fn(*mut c_void, *mut i64, c_int) -> c_int>,
    close: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
}

unsafe extern "C" {
    fn fopencookie(cookie: *mut c_void, mode: *const c_char, functions: CookieFunctions) -> *mut libc::FILE;
}

/// Sends what DPDK logs to the node's log from now on.
pub(super) fn redirect() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let functions = CookieFunctions { read: None, write: Some(write), seek: None, close: None };
        // SAFETY: the mode is a C string; the functions match what stdio.h declares, and need no cookie.
        let stream = unsafe { fopencookie(std::ptr::null_mut(), c"w".as_ptr(), functions) };
        if !stream.is_null() {
            // SAFETY: an open stream for writing, which is never closed.
            unsafe { sys::rte_openlog_stream(stream.cast()) };
        }
    });
}

/// What DPDK has complained of since the last call, oldest first.
pub(super) fn take_complaints() -> Vec<String> {
    COMPLAINTS.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
}

/// DPDK flushes the stream after each message: this is called in the thread that logs.
unsafe extern "C" fn write(_: *mut c_void, text: *const c_char, len: usize) -> isize {
    // SAFETY: stdio passes the `len` octets that are to be written.
    let text = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    // SAFETY: reads a variable of this thread.
    let level = unsafe { sys::rte_log_cur_msg_loglevel() };
    for line in String::from_utf8_lossy(text).lines().map(str::trim).filter(|line| !line.is_empty()) {
        take(line, u32::try_from(level).unwrap_or(0));
    }
    isize::try_from(len).unwrap_or(isize::MAX)
}

fn take(line: &str, level: u32) {
    if level > sys::RTE_LOG_WARNING {
        // What is normal for DPDK is of interest to those who look for something.
        tracing::debug!(target: "dpdk", "{line}");
        return;
    }
    if level <= sys::RTE_LOG_ERR {
        tracing::error!(target: "dpdk", "{line}");
    } else {
        tracing::warn!(target: "dpdk", "{line}");
    }
    let mut complaints = COMPLAINTS.lock().unwrap_or_else(PoisonError::into_inner);
    if complaints.len() == KEPT {
        complaints.pop_front();
    }
    complaints.push_back(line.to_owned());
}
