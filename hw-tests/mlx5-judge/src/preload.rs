//! The library below the driver, as a file that a program can be started with.

use std::{
    ffi::{OsString, c_char, c_int},
    fs::File,
    io::{self, Write},
    os::fd::{AsRawFd, FromRawFd},
    path::PathBuf,
};

/// The library itself, compiled by build.rs.
static BELOW: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libbelow.so"));

/// The library could not be made a file.
#[derive(Debug, thiserror::Error)]
#[error("the library below the mlx5 driver can't be written: {0}")]
pub struct PreloadError(#[from] io::Error);

/// A file in memory that programs started by this process inherit: nothing is left behind, however they end.
#[derive(Debug)]
pub struct Preload(File);

impl Preload {
    /// Writes the library.
    ///
    /// # Errors
    /// When there is no memory or no descriptor for it.
    pub fn new() -> Result<Self, PreloadError> {
        // SAFETY: the name is a C string; without MFD_CLOEXEC the descriptor is inherited, as it must be.
        let fd = unsafe { libc::memfd_create(c"mlx5-judge".as_ptr(), 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error().into());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let mut file = unsafe { File::from_raw_fd(fd) };
        file.write_all(BELOW)?;
        Ok(Self(file))
    }

    /// Path for `LD_PRELOAD` of a program that this process starts or becomes.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    /// `LD_PRELOAD` and its value.
    #[must_use]
    pub fn variable(&self) -> (&'static str, OsString) {
        ("LD_PRELOAD", self.path().into_os_string())
    }
}

/// Writes the library below the driver and puts its path, for `LD_PRELOAD` of programs that this process starts or becomes,
/// into `path`, with a zero behind it. It stays until the process ends.
///
/// Returns 0, or an errno: ENAMETOOLONG when `room` octets are too few.
///
/// # Safety
/// `path` points to `room` octets that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlx5_judge_preload(path: *mut c_char, room: usize) -> c_int {
    let preload = match Preload::new() {
        Ok(preload) => preload,
        Err(PreloadError(error)) => return error.raw_os_error().unwrap_or(libc::EIO),
    };
    let text = preload.path().into_os_string().into_encoded_bytes();
    if text.len() >= room {
        return libc::ENAMETOOLONG;
    }
    // SAFETY: the caller vouches for `room` octets, and the text and a zero are no more.
    unsafe {
        path.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
        path.add(text.len()).write(0);
    }
    std::mem::forget(preload);
    0
}
