//! The library below the driver, when this process was started with it.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

type Hear = unsafe extern "C" fn(*mut c_void, *const c_char, usize);

/// Functions of the library below the driver in this process.
#[derive(Debug, Clone, Copy)]
pub struct Below {
    on_record: unsafe extern "C" fn(Option<Hear>, *mut c_void),
    mark: unsafe extern "C" fn(*const c_char),
    count: unsafe extern "C" fn(u32, u32, u64, u64),
    fault: unsafe extern "C" fn(*const c_char) -> c_int,
}

fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name is a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// # Safety
/// `state` is a leaked `Box<dyn Fn(&str)>` that is called by one thread at a time, `line` points to `length` octets.
unsafe extern "C" fn hear(state: *mut c_void, line: *const c_char, length: usize) {
    // SAFETY: as the caller vouches.
    let (listener, octets) = unsafe {
        (&*state.cast::<Box<dyn Fn(&str) + Send + Sync>>(), std::slice::from_raw_parts(line.cast::<u8>(), length))
    };
    if let Ok(line) = std::str::from_utf8(octets) {
        listener(line);
    }
}

impl Below {
    /// The library, if this process was started with it.
    #[must_use]
    pub fn find() -> Option<Self> {
        let (on_record, mark, count, fault) =
            (symbol(c"judge_on_record")?, symbol(c"judge_mark")?, symbol(c"judge_count")?, symbol(c"judge_fault")?);
        // SAFETY: these are the types that below/judge.h declares.
        Some(unsafe {
            Self {
                on_record: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Option<Hear>, *mut c_void)>(
                    on_record,
                ),
                mark: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const c_char)>(mark),
                count: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(u32, u32, u64, u64)>(count),
                fault: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const c_char) -> c_int>(fault),
            }
        })
    }

    /// Has `listener` hear of each event, as a line of JSON, in the driver's thread and while the driver waits. What has happened
    /// before is not told: set it before EAL probes its devices. It stays for the life of the process.
    pub fn on_record(&self, listener: Box<dyn Fn(&str) + Send + Sync>) {
        let state = Box::into_raw(Box::new(listener));
        // SAFETY: `hear` gets the state that it wants, which is never freed; the library calls it with a lock held.
        unsafe { (self.on_record)(Some(hear), state.cast()) }
    }

    /// Notes `text` in the record: what follows is about this.
    pub fn mark(&self, text: &str) {
        if let Ok(text) = CString::new(text) {
            // SAFETY: a C string.
            unsafe { (self.mark)(text.as_ptr()) }
        }
    }

    /// Adds to counter `counter + offset` what the driver will read there.
    pub fn count(&self, counter: u32, offset: u32, packets: u64, octets: u64) {
        // SAFETY: any number is a counter.
        unsafe { (self.count)(counter, offset, packets, octets) }
    }

    /// Begins a fault.
    pub fn fault(&self, fault: crate::Fault) {
        if let Ok(word) = CString::new(fault.word()) {
            // SAFETY: a C string.
            unsafe { (self.fault)(word.as_ptr()) };
        }
    }
}
