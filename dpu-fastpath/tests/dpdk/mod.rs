//! EAL without huge pages and hardware, and ports made of rings: a test puts frames into one and takes them out of the other.

use std::{
    ffi::CString,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use dpdk_sys::{rte_mbuf, rte_mempool, rte_ring};

/// How long a test waits for what must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

struct Pool(*mut rte_mempool);

// SAFETY: a mempool is made for many threads.
unsafe impl Send for Pool {}
// SAFETY: see above.
unsafe impl Sync for Pool {}

static POOL: OnceLock<Pool> = OnceLock::new();
static TURN: Mutex<()> = Mutex::new(());

/// Starts EAL when it is not running. Tests of a process take turns: they share EAL, and the twin's one NIC.
pub(crate) fn eal(before: impl FnOnce()) -> MutexGuard<'static, ()> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    POOL.get_or_init(|| {
        before();
        // With the number of this process in its name `hw-tests sweep` finds the folder when this process was killed.
        let prefix = format!("sluicegate-{}", std::process::id());
        let arguments = ["test", "--file-prefix", &prefix, "--no-huge", "-m", "128", "--no-pci", "--no-telemetry"];
        let arguments = arguments.iter().chain(&["--no-shconf", "--lcores", "0"]);
        let strings: Vec<CString> = arguments.map(|text| CString::new(*text).unwrap()).collect();
        let mut pointers: Vec<_> = strings.iter().map(|text| text.as_ptr().cast_mut()).collect();
        // SAFETY: the strings live until after the call, which is made once.
        let code = unsafe { dpdk_sys::rte_eal_init(i32::try_from(pointers.len()).unwrap(), pointers.as_mut_ptr()) };
        assert!(code >= 0, "EAL does not start: errno {}", errno());
        // Nothing is shared: EAL has made it empty.
        let _ = std::fs::remove_dir(format!("/run/dpdk/{prefix}"));
        // SAFETY: EAL runs.
        let pool = unsafe { dpdk_sys::rte_pktmbuf_pool_create(c"test".as_ptr(), 4095, 0, 0, 2176, 0) };
        assert!(!pool.is_null(), "no mempool: errno {}", errno());
        Pool(pool)
    });
    turn
}

fn errno() -> i32 {
    // SAFETY: reads a variable of this thread.
    unsafe { dpdk_sys::rte_errno_get() }
}

fn pool() -> *mut rte_mempool {
    POOL.get().unwrap().0
}

/// A port whose wire is two rings.
pub(crate) struct Wire {
    pub(crate) name: String,
    pub(crate) ethdev: u16,
    received: *mut rte_ring,
    sent: *mut rte_ring,
}

impl Wire {
    /// `name` is not in use and has at most 16 characters.
    pub(crate) fn new(name: &str) -> Self {
        let ring = |direction: &str| {
            let name = CString::new(format!("{name}_{direction}")).unwrap();
            // SAFETY: EAL runs; the name is copied.
            let ring = unsafe { dpdk_sys::rte_ring_create(name.as_ptr(), 1024, 0, 0) };
            assert!(!ring.is_null(), "no ring: errno {}", errno());
            ring
        };
        let (received, sent) = (ring("rx"), ring("tx"));
        let label = CString::new(name).unwrap();
        // SAFETY: one ring each way; the driver keeps the rings, which outlive the port.
        let port = unsafe {
            dpdk_sys::rte_eth_from_rings(
                label.as_ptr(),
                [received].as_ptr().cast_mut(),
                1,
                [sent].as_ptr().cast_mut(),
                1,
                0,
            )
        };
        Self { name: format!("net_ring_{name}"), ethdev: u16::try_from(port).unwrap(), received, sent }
    }

    /// A frame arrives.
    pub(crate) fn arrive(&self, frame: &[u8]) {
        // SAFETY: a buffer of our own, large enough for a frame, that the ring's reader frees.
        unsafe {
            let mbuf = dpdk_sys::rte_pktmbuf_alloc(pool());
            assert!(!mbuf.is_null());
            let data = dpdk_sys::rte_pktmbuf_append(mbuf, u16::try_from(frame.len()).unwrap());
            assert!(!data.is_null());
            data.cast::<u8>().copy_from_nonoverlapping(frame.as_ptr(), frame.len());
            let mut object = mbuf.cast();
            let count = dpdk_sys::rte_ring_enqueue_burst(self.received, &raw mut object, 1, std::ptr::null_mut());
            assert_eq!(count, 1);
        }
    }

    /// The next frame that was sent.
    pub(crate) fn sent(&self) -> Option<Vec<u8>> {
        let mut object = std::ptr::null_mut();
        // SAFETY: the ring holds buffers that the port has given away.
        unsafe {
            let count = dpdk_sys::rte_ring_dequeue_burst(self.sent, &raw mut object, 1, std::ptr::null_mut());
            (count == 1).then(|| take(object.cast()))
        }
    }
}

impl Drop for Wire {
    /// The port goes, and its number with it: DPDK has room for 32 ports.
    fn drop(&mut self) {
        while self.sent().is_some() {}
        let name = CString::new(self.name.as_str()).unwrap();
        // SAFETY: nobody uses the port any more; a driver above it has let go of it.
        unsafe {
            dpdk_sys::rte_eth_dev_stop(self.ethdev);
            dpdk_sys::rte_vdev_uninit(name.as_ptr());
            dpdk_sys::rte_ring_free(self.received);
            dpdk_sys::rte_ring_free(self.sent);
        }
    }
}

/// A buffer's frame; the buffer is freed.
///
/// # Safety
/// `mbuf` is a buffer of one segment that belongs to the caller.
unsafe fn take(mbuf: *mut rte_mbuf) -> Vec<u8> {
    // SAFETY: the octets are within the buffer.
    unsafe {
        let data = dpdk_sys::rte_pktmbuf_mtod(mbuf).cast::<u8>();
        let length = dpdk_sys::rte_pktmbuf_data_len(mbuf);
        let frame = std::slice::from_raw_parts(data, usize::from(length)).to_vec();
        dpdk_sys::rte_pktmbuf_free(mbuf);
        frame
    }
}

/// Configures and starts a port with one queue each way; `between` runs after the first and before the second.
pub(crate) fn start(ethdev: u16, between: impl FnOnce()) {
    let conf = dpdk_sys::rte_eth_conf::default();
    // SAFETY: the port exists and is stopped; null: the driver's defaults.
    unsafe {
        assert_eq!(dpdk_sys::rte_eth_dev_configure(ethdev, 1, 1, &raw const conf), 0);
        between();
        assert_eq!(dpdk_sys::rte_eth_rx_queue_setup(ethdev, 0, 512, 0, std::ptr::null(), pool()), 0);
        assert_eq!(dpdk_sys::rte_eth_tx_queue_setup(ethdev, 0, 512, 0, std::ptr::null()), 0);
        assert_eq!(dpdk_sys::rte_eth_dev_start(ethdev), 0);
    }
}

/// What a port gives to software now.
pub(crate) fn receive(ethdev: u16) -> Vec<Vec<u8>> {
    let mut mbufs = [std::ptr::null_mut(); 32];
    // SAFETY: the port is started and this is the one thread that polls its queue.
    unsafe {
        let count = dpdk_sys::rte_eth_rx_burst(ethdev, 0, mbufs.as_mut_ptr(), 32);
        mbufs.iter().take(usize::from(count)).map(|mbuf| take(*mbuf)).collect()
    }
}

/// Waits until there is a value.
pub(crate) fn wait<T>(what: &str, mut value: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = value() {
            return value;
        }
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::yield_now();
    }
}
