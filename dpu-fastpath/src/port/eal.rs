//! DPDK's environment: started once in a process, before any device is opened.

use std::{
    cell::RefCell,
    ffi::{CStr, CString, NulError, OsStr, c_char, c_int},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use dpdk_sys as sys;
use offload_rules::lower::DpdkVersion;

use super::{
    args::EalArgs,
    errno::{errno, errno_text},
    log, pool,
};

/// Why there is no EAL.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// EAL can be started once in a process, whether that succeeds or not.
    #[error("DPDK was already started in this process")]
    Again,
    /// An argument cannot be passed on.
    #[error("an argument for DPDK has a zero octet in it")]
    Argument(#[from] NulError),
    /// A driver's library cannot be loaded.
    #[error("driver library {}: {why}", .library.display())]
    Driver {
        /// The library.
        library: PathBuf,
        /// What the loader says.
        why: String,
    },
    /// DPDK refused to start.
    #[error("DPDK does not start: {why}{}", told(.log))]
    Refused {
        /// The errno it gave, in words.
        why: String,
        /// What it has logged: warnings and errors, oldest first.
        log: Vec<String>,
    },
    /// No thread to start it in.
    #[error("starting a thread for DPDK: {0}")]
    Thread(std::io::Error),
}

fn told(log: &[String]) -> String {
    if log.is_empty() { String::new() } else { format!(" ({})", log.join("; ")) }
}

/// DPDK is started. There is one in a process.
#[derive(Debug)]
pub struct Eal(());

static STARTED: AtomicBool = AtomicBool::new(false);
/// Calls that change devices: DPDK wants them one at a time.
static CONTROL: Mutex<()> = Mutex::new(());

/// Runs something that changes devices, while nothing else does.
pub(super) fn exclusively<T>(change: impl FnOnce() -> T) -> T {
    let _one = CONTROL.lock().unwrap_or_else(PoisonError::into_inner);
    change()
}

impl Eal {
    /// Loads the drivers' libraries, which register themselves, and starts DPDK.
    ///
    /// # Errors
    /// [`EalError`]. Nothing in this process can start DPDK after it has refused.
    pub fn start(args: &EalArgs, drivers: &[PathBuf]) -> Result<Self, EalError> {
        let line = args.build(std::process::id(), allowed_cpu())?;
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(EalError::Again);
        }
        log::redirect();
        for library in drivers {
            load(library)?;
        }
        tracing::info!(arguments = %shown(&line), "starting DPDK");
        // EAL binds the thread that calls to a processor, and threads that this one starts would be bound as well.
        std::thread::Builder::new()
            .name("eal-start".to_owned())
            .spawn(move || init(line))
            .map_err(EalError::Thread)?
            .join()
            .unwrap_or_else(|_| {
                Err(EalError::Refused { why: "its thread has panicked".to_owned(), log: Vec::new() })
            })?;
        Ok(Self(()))
    }

    /// Names of all Ethernet devices, in order of their port ids.
    #[must_use]
    pub fn ethdevs(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut port = 0;
        loop {
            // SAFETY: any number is allowed, and the next port in use behind it is returned.
            let next = unsafe { sys::rte_eth_find_next_owned_by(port, 0) };
            let Some(found) = u16::try_from(next).ok().filter(|next| u32::from(*next) < sys::RTE_MAX_ETHPORTS) else {
                return names;
            };
            names.extend(name_of(found));
            port = found + 1;
        }
    }

    /// Makes a virtual device: `net_twin0`, `iface=eth0,profile=ice`.
    ///
    /// # Errors
    /// [`EalError::Refused`] with what its driver has logged.
    pub fn add_vdev(&self, name: &str, arguments: &str) -> Result<(), EalError> {
        let (device, arguments) = (CString::new(name)?, CString::new(arguments)?);
        let _ = log::take_complaints();
        // SAFETY: C strings, which are copied.
        let answer =
            exclusively(|| unsafe { sys::rte_eal_hotplug_add(c"vdev".as_ptr(), device.as_ptr(), arguments.as_ptr()) });
        if answer == 0 {
            return Ok(());
        }
        let why = format!("device {name}: {}", errno_text(answer.saturating_abs()));
        Err(EalError::Refused { why, log: log::take_complaints() })
    }

    /// Name of the driver of an Ethernet device.
    #[must_use]
    pub fn driver(&self, ethdev: &str) -> Option<&'static str> {
        port_by_name(ethdev).map(super::driver::driver_of)
    }

    /// Name of a port.
    pub(super) fn name(&self, port: u16) -> Option<String> {
        name_of(port)
    }

    /// The port id of an Ethernet device.
    #[must_use]
    pub fn port_id(&self, ethdev: &str) -> Option<u16> {
        port_by_name(ethdev)
    }
}

impl Drop for Eal {
    fn drop(&mut self) {
        exclusively(|| {
            // A switch's representors before its manager, and what stands on another device before that: those came later.
            for port in self.ethdevs().iter().rev().filter_map(|ethdev| port_by_name(ethdev)) {
                // SAFETY: devices that are open hold on to EAL, so nobody uses this one; it is stopped.
                unsafe { sys::rte_eth_dev_close(port) };
            }
            // Packets that still borrow mbufs: their memory goes with the process.
            if pool::in_use() == 0 {
                // SAFETY: EAL was started, and nothing that it made is used any more.
                unsafe { sys::rte_eal_cleanup() };
            }
        });
    }
}

/// The port id of an Ethernet device.
pub(super) fn port_by_name(ethdev: &str) -> Option<u16> {
    let name = CString::new(ethdev).ok()?;
    let mut port = 0;
    // SAFETY: a C string and a place for the answer.
    let found = unsafe { sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut port) };
    (found == 0).then_some(port)
}

fn name_of(port: u16) -> Option<String> {
    let mut name = [0; sys::RTE_ETH_NAME_MAX_LEN as usize];
    // SAFETY: the array is as long as DPDK's names may be.
    let found = unsafe { sys::rte_eth_dev_get_name_by_port(port, name.as_mut_ptr()) };
    // SAFETY: DPDK has written a C string that fits.
    (found == 0).then(|| unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
}

/// The DPDK that is running: drivers are its own, whichever version this program was built with.
#[must_use]
pub fn version() -> DpdkVersion {
    // SAFETY: both read constants of the library.
    let (year, month) = unsafe { (sys::rte_version_year(), sys::rte_version_month()) };
    let part = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
    DpdkVersion::new(part(year), part(month))
}

/// Gives the calling thread a number with DPDK, so that it has caches of mbufs of its own. The number is given back when the
/// thread ends. Without one everything works, slower.
pub fn register_thread() {
    struct Registered;
    impl Drop for Registered {
        fn drop(&mut self) {
            // SAFETY: this thread was registered, and does nothing with DPDK any more.
            unsafe { sys::rte_thread_unregister() };
        }
    }
    thread_local!(static REGISTERED: RefCell<Option<Registered>> = const { RefCell::new(None) });
    REGISTERED.with_borrow_mut(|registered| {
        if registered.is_some() {
            return;
        }
        // SAFETY: allowed for any thread that EAL did not start.
        if unsafe { sys::rte_thread_register() } == 0 {
            *registered = Some(Registered);
        } else {
            tracing::warn!(error = errno_text(errno()), "DPDK has no number left for this thread: it will be slower");
        }
    });
}

fn init(line: Vec<CString>) -> Result<(), EalError> {
    let _ = log::take_complaints();
    let mut argv: Vec<*mut c_char> = line.into_iter().map(CString::into_raw).collect();
    let argc = c_int::try_from(argv.len()).unwrap_or(c_int::MAX);
    argv.push(std::ptr::null_mut());
    // EAL keeps pointers to arguments: neither the strings nor the array are ever freed.
    let argv = argv.leak();
    // SAFETY: `argc` C strings that may be changed and live for ever, and a null behind them.
    let answer = unsafe { sys::rte_eal_init(argc, argv.as_mut_ptr()) };
    let errno = errno();
    remove_empty_folder();
    if answer >= 0 {
        // Before any device is configured: rules may write metadata. Without room for it in mbufs it does not come to software.
        // SAFETY: EAL runs.
        if unsafe { sys::rte_flow_dynf_metadata_register() } != 0 {
            tracing::warn!("mbufs have no room for the metadata of rules");
        }
        return Ok(());
    }
    Err(EalError::Refused { why: errno_text(errno), log: log::take_complaints() })
}

/// EAL makes a folder for files that it shares with other processes, with none in it when nothing is shared.
fn remove_empty_folder() {
    // SAFETY: returns null or a C string that EAL keeps.
    let folder = unsafe { sys::rte_eal_get_runtime_dir() };
    if !folder.is_null() {
        // SAFETY: not null, as just seen.
        let folder = unsafe { CStr::from_ptr(folder) };
        // With files in it, it stays.
        let _ = std::fs::remove_dir(OsStr::from_bytes(folder.to_bytes()));
    }
}

/// Loads a driver: its constructor registers it with DPDK, so it stays loaded.
fn load(library: &Path) -> Result<(), EalError> {
    let refused = |why: String| EalError::Driver { library: library.to_owned(), why };
    // A name without a folder would be looked for among the system's libraries only.
    let file = std::fs::canonicalize(library).unwrap_or_else(|_| library.to_owned());
    let name = CString::new(file.as_os_str().as_encoded_bytes()).map_err(|error| refused(error.to_string()))?;
    // SAFETY: a C string. What a library does when it is loaded is up to the operator who names it.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if handle.is_null() {
        // SAFETY: returns null or a C string that lives until the next call of this thread.
        let why = unsafe { libc::dlerror() };
        let why = if why.is_null() {
            "it cannot be loaded".to_owned()
        } else {
            // SAFETY: not null, as just seen.
            unsafe { CStr::from_ptr(why) }.to_string_lossy().into_owned()
        };
        return Err(refused(why));
    }
    Ok(())
}

/// A processor that this process may run on.
fn allowed_cpu() -> usize {
    // SAFETY: a set of bits, for which zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is as large as it says.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0 {
        return 0;
    }
    // SAFETY: the numbers are below the size of the set.
    (0..libc::CPU_SETSIZE as usize).find(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).unwrap_or(0)
}

fn shown(line: &[CString]) -> String {
    line.iter().skip(1).map(|argument| argument.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_is_the_one_that_dpdk_names_itself_by() {
        // SAFETY: a constant string of the library.
        let named = unsafe { std::ffi::CStr::from_ptr(dpdk_sys::rte_version()) }.to_str().unwrap().to_owned();
        assert!(named.starts_with(&format!("DPDK {}", super::version())), "{named}");
    }
}
