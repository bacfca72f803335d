//! The library that judges and executes, by its functions of C (`hw-tests/mlx5-judge/src/device/abi.rs`).

use std::{
    ffi::{CStr, CString, OsString, c_char, c_int, c_void},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use super::Place;

/// Octets of a path.
const PATH: usize = 4096;
/// Octets by which a frame may grow in the card.
const GROWS: usize = 256;
const WHY: usize = 160;

/// Why the library can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// It is not there, or no library.
    #[error("{}: {why}", .library.display())]
    Loading {
        /// The file.
        library: PathBuf,
        /// What the loader says.
        why: String,
    },
    /// It is another one.
    #[error("{} has no function {name}: it is of another version", .library.display())]
    Foreign {
        /// The file.
        library: PathBuf,
        /// What is missing.
        name: &'static str,
    },
    /// What stands below the driver could not be written to a file.
    #[error("the library below the mlx5 driver can't be written: {0}")]
    Preload(std::io::Error),
    /// The process was not started with it.
    #[error("nothing stands below the mlx5 driver: the process was started without LD_PRELOAD")]
    NotBelow,
}

/// The outcome of a frame as the library returns it.
#[repr(C)]
struct RawDisposition {
    outcome: u32,
    pf: i32,
    vport: u16,
    marked: u16,
    mark: u32,
    length: u32,
    why: [u8; WHY],
}

type Preload = unsafe extern "C" fn(*mut c_char, usize) -> c_int;
type Begin = unsafe extern "C" fn() -> c_int;
type Frame = unsafe extern "C" fn(i32, u16, c_int, *mut u8, usize, usize, *mut RawDisposition) -> c_int;

/// The library, which stays loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Library {
    preload: Preload,
    begin: Begin,
    frame: Frame,
}

/// Where a frame went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Disposition {
    /// Software gets it.
    Software(Vec<u8>),
    /// It leaves by a port of the card.
    Sent(Place, Vec<u8>),
    /// By a rule.
    Dropped,
}

/// Where a frame went, and the flow tag that it got.
#[derive(Debug)]
pub(super) struct Executed {
    pub(super) disposition: Disposition,
    pub(super) mark: Option<u32>,
}

/// A function of a name.
fn symbol(handle: *mut c_void, name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a handle of `dlopen`, or the one that stands for all libraries; a C string.
    let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// Does something stand below the drivers of this process?
#[must_use]
pub fn is_below() -> bool {
    symbol(libc::RTLD_DEFAULT, c"judge_on_record").is_some()
}

impl Library {
    /// Loads it.
    pub(super) fn open(library: &Path) -> Result<Self, LibraryError> {
        let refused = |why: String| LibraryError::Loading { library: library.to_owned(), why };
        // A name without a folder would be looked for among the system's libraries only.
        let file = std::fs::canonicalize(library).map_err(|error| refused(error.to_string()))?;
        let name = CString::new(file.as_os_str().as_bytes()).map_err(|error| refused(error.to_string()))?;
        // SAFETY: a C string. What a library does when it is loaded is up to who names it.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            // SAFETY: after an error, a C string that lives until the next call of this thread.
            return Err(refused(unsafe { CStr::from_ptr(libc::dlerror()) }.to_string_lossy().into_owned()));
        }
        let function = |name: &'static CStr| {
            let foreign =
                || LibraryError::Foreign { library: library.to_owned(), name: name.to_str().unwrap_or("of ours") };
            symbol(handle, name).ok_or_else(foreign)
        };
        let preload = function(c"mlx5_judge_preload")?;
        let (begin, frame) = (function(c"mlx5_judge_begin")?, function(c"mlx5_judge_frame")?);
        // SAFETY: these are their types there, of the same version of this workspace.
        Ok(unsafe {
            Self {
                preload: std::mem::transmute::<*mut c_void, Preload>(preload),
                begin: std::mem::transmute::<*mut c_void, Begin>(begin),
                frame: std::mem::transmute::<*mut c_void, Frame>(frame),
            }
        })
    }

    /// What stands below the driver, as a file for `LD_PRELOAD`: for programs that this process starts or becomes.
    pub(super) fn preload(&self) -> Result<OsString, LibraryError> {
        let mut path = vec![0_u8; PATH];
        // SAFETY: as many octets as it is told.
        let code = unsafe { (self.preload)(path.as_mut_ptr().cast(), path.len()) };
        if code != 0 {
            return Err(LibraryError::Preload(std::io::Error::from_raw_os_error(code)));
        }
        path.truncate(path.iter().position(|octet| *octet == 0).unwrap_or(PATH));
        Ok(OsString::from_vec(path))
    }

    /// Begins to listen to the driver, before it is loaded.
    pub(super) fn begin(&self) -> Result<(), LibraryError> {
        // SAFETY: takes nothing.
        if unsafe { (self.begin)() } == 0 { Ok(()) } else { Err(LibraryError::NotBelow) }
    }

    /// A frame comes by a port of the card.
    pub(super) fn receive(&self, place: Place, frame: &[u8]) -> Result<Executed, String> {
        self.pass(place, 0, frame)
    }

    /// Software sends a frame by a port.
    pub(super) fn transmit(&self, place: Place, frame: &[u8]) -> Result<Executed, String> {
        self.pass(place, 1, frame)
    }

    fn pass(&self, place: Place, sends: c_int, frame: &[u8]) -> Result<Executed, String> {
        let mut buffer = frame.to_vec();
        buffer.resize(frame.len() + GROWS, 0);
        let mut passage = RawDisposition { outcome: 0, pf: 0, vport: 0, marked: 0, mark: 0, length: 0, why: [0; WHY] };
        let (pf, room) = (place.pf.into(), buffer.len());
        // SAFETY: the buffer has as many octets as it is told, the passage is one; both are this call's alone.
        let code =
            unsafe { (self.frame)(pf, place.vport, sends, buffer.as_mut_ptr(), frame.len(), room, &raw mut passage) };
        let why = CStr::from_bytes_until_nul(&passage.why).map(CStr::to_string_lossy).unwrap_or_default();
        if code != 0 {
            return Err(format!("{} {why}", std::io::Error::from_raw_os_error(code)));
        }
        buffer.truncate(passage.length as usize);
        let disposition = match passage.outcome {
            0 => Disposition::Software(buffer),
            1 => {
                let pf = u8::try_from(passage.pf).map_err(|_| format!("the card has no PF {}", passage.pf))?;
                Disposition::Sent(Place { pf, vport: passage.vport }, buffer)
            }
            2 => Disposition::Dropped,
            3 => return Err("no rule of the receive side takes a frame to software".to_owned()),
            _ => return Err(format!("a rule of the driver's is broken: {why}")),
        };
        Ok(Executed { disposition, mark: (passage.marked != 0).then_some(passage.mark) })
    }
}
