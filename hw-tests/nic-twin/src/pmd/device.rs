//! The driver of the virtual device: makes a port for each `--vdev=net_twinN,…`, and takes it away.
//!
//! Virtual devices are made in the order of the command line: a port below comes before its twin.

use std::{
    ffi::{CStr, c_int},
    sync::Arc,
};

use super::{
    args::{self, Args},
    ethdev, ffi, flow,
    log::{Level, log},
    lower::{Lower, Status},
    twin::{self, Twin},
};

const EINVAL: Status = 22;
const ENOMEM: Status = 12;
const ENOTSUP: Status = 95;

/// The driver as DPDK's bus keeps it, for as long as the process lives.
struct Driver(std::cell::UnsafeCell<ffi::rte_vdev_driver>);

// SAFETY: only the bus touches it, under its own lock.
unsafe impl Sync for Driver {}

static DRIVER: Driver = Driver(std::cell::UnsafeCell::new(ffi::rte_vdev_driver {
    driver: ffi::rte_driver {
        name: c"net_twin".as_ptr(),
        // SAFETY: pointers, for which zeros are null.
        ..unsafe { std::mem::zeroed() }
    },
    probe: Some(probe),
    remove: Some(remove),
    // SAFETY: pointers and flags, for which zeros are none.
    ..unsafe { std::mem::zeroed() }
}));

/// Runs when the library is loaded: EAL finds the driver when it makes the devices.
#[used]
#[unsafe(link_section = ".init_array")]
static REGISTER: unsafe extern "C" fn() = {
    unsafe extern "C" fn register() {
        // SAFETY: the driver lives as long as the process; constructors run one after the other.
        unsafe { ffi::rte_vdev_register(DRIVER.0.get()) }
    }
    register
};

/// Text of DPDK's.
///
/// # Safety
/// Null, or a NUL-terminated string that outlives the result.
unsafe fn text<'a>(raw: *const std::ffi::c_char) -> &'a CStr {
    // SAFETY: see above.
    if raw.is_null() { c"" } else { unsafe { CStr::from_ptr(raw) } }
}

unsafe extern "C" fn probe(vdev: *mut ffi::rte_vdev_device) -> c_int {
    // SAFETY: a device of the bus's, with name and arguments.
    let (name, arguments) = unsafe { (text(ffi::twin_vdev_name(vdev)), text(ffi::twin_vdev_args(vdev))) };
    let shown = name.to_string_lossy();
    // SAFETY: no arguments.
    if unsafe { ffi::rte_eal_process_type() } != ffi::RTE_PROC_PRIMARY {
        log(Level::Error, &format!("{shown}: a secondary process cannot share the rule tables"));
        return -ENOTSUP;
    }
    let args = match arguments
        .to_str()
        .map_err(|error| error.to_string())
        .and_then(|arguments| args::parse(arguments).map_err(|error| error.to_string()))
    {
        Ok(args) => args,
        Err(error) => {
            log(Level::Error, &format!("{shown}: {error}"));
            return -EINVAL;
        }
    };
    // SAFETY: passed on.
    match unsafe { create(vdev, name, &args) } {
        Ok(()) => 0,
        Err(status) => status,
    }
}

/// The lower port with its MAC address and MTU, and a place in the NIC.
fn open(port: u16, name: &CStr, args: &Args) -> Result<(Lower, [u8; 6], u16), Status> {
    let shown = name.to_string_lossy();
    let lower = Lower::open(&args.below, name).inspect_err(|status| {
        let hint = "it has to exist, come before the twin, and be nobody else's";
        log(Level::Error, &format!("{shown}: {:?}: error {}: {hint}", args.below, -status));
    })?;
    let (mac, mtu) = (lower.mac()?, lower.mtu()?);
    flow::port_opened(port, args).map_err(|error| {
        log(Level::Error, &format!("{shown}: {error}"));
        -EINVAL
    })?;
    Ok((lower, mac, mtu))
}

/// Makes the port.
///
/// # Safety
/// `vdev` is a device that the bus is probing.
unsafe fn create(vdev: *mut ffi::rte_vdev_device, name: &CStr, args: &Args) -> Result<(), Status> {
    // The twin's number comes before that of a lower port that it makes: programs that know port 0 alone find the twin.
    // SAFETY: a device of the bus's.
    let Some(dev) = (unsafe { ffi::twin_ethdev_allocate(vdev).as_mut() }) else { return Err(-ENOMEM) };
    // SAFETY: DPDK gave the port its data.
    let data = unsafe { &mut *dev.data };
    // SAFETY: DPDK's allocator; DPDK frees it with the port.
    let address =
        unsafe { ffi::rte_zmalloc(name.as_ptr(), size_of::<ffi::rte_ether_addr>(), 0) }.cast::<ffi::rte_ether_addr>();
    let opened = if address.is_null() { Err(-ENOMEM) } else { open(data.port_id, name, args) };
    let (lower, mac, mtu) = match opened {
        Ok(opened) => opened,
        Err(status) => {
            // SAFETY: the port was made above, and nobody knows it yet.
            unsafe {
                ffi::rte_free(address.cast());
                ffi::rte_eth_dev_release_port(dev);
            }
            return Err(status);
        }
    };
    let port = data.port_id;
    // SAFETY: room for one address.
    unsafe { *address = ffi::rte_ether_addr { addr_bytes: mac } };
    data.mac_addrs = address;
    data.mtu = mtu;
    data.nb_rx_queues = 1;
    data.nb_tx_queues = 1;
    data.dev_flags |= ffi::TWIN_FLOW_THREAD_SAFE;
    if args.function {
        data.dev_flags |= ffi::TWIN_REPRESENTOR;
    }
    data.set_promiscuous(0);
    if flow::with_nic(|nic| !nic.profile().sessions.is_empty()).unwrap_or(false) {
        // SAFETY: the port, which outlives its context. Without memory for one the port has no IPsec.
        dev.security_ctx = unsafe { ffi::twin_security_open(std::ptr::from_mut(dev).cast()) }.cast();
    }
    let twin = Arc::new(Twin::new(port, lower));
    twin::enter(&twin);
    let shown = name.to_string_lossy();
    log(Level::Info, &format!("{shown}: port {port} over port {}", twin.lower.port()));
    data.dev_private = Box::into_raw(Box::new(twin)).cast();
    dev.dev_ops = &raw const ethdev::OPERATIONS;
    #[cfg(flow_fp_ops)]
    {
        dev.flow_fp_ops = &raw const flow::FAST_OPERATIONS;
    }
    ethdev::set_bursts(dev);
    // SAFETY: the port is complete.
    unsafe { ffi::rte_eth_dev_probing_finish(dev) };
    Ok(())
}

unsafe extern "C" fn remove(vdev: *mut ffi::rte_vdev_device) -> c_int {
    // SAFETY: a device of the bus's, with a name.
    let dev = unsafe { ffi::rte_eth_dev_allocated(ffi::twin_vdev_name(vdev)) };
    if dev.is_null() {
        // Closed before.
        return 0;
    }
    // SAFETY: a port of this driver.
    unsafe {
        ethdev::close(dev);
        ffi::rte_eth_dev_release_port(dev)
    }
}
