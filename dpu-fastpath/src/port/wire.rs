//! A device of DPDK whose wire is in memory: frames are put in at one end and taken out at the other. For replays and tests.

use std::{ffi::CString, io, ptr::NonNull};

use dpdk_sys as sys;
use fallback_sw::packet::{MAX_FRAME, Packet};

use super::{
    eal::{Eal, exclusively},
    errno::errno,
    mbuf::Mbuf,
    pool::Pool,
};

/// Frames that may be on the wire in each direction; a power of two.
const ROOM: u32 = 256;
/// mbufs of all wires together.
const BUFFERS: u32 = 2 * ROOM;
/// Stands for no port among the names of pools.
const NO_PORT: u16 = u16::MAX;

/// One device and both ends of its wire. The device stays until the process ends.
#[derive(Debug)]
pub struct Wire {
    ethdev: String,
    incoming: NonNull<sys::rte_ring>,
    outgoing: NonNull<sys::rte_ring>,
    pool: Pool,
}

impl Wire {
    /// A device; `name` is at most 16 octets long and not in use.
    ///
    /// # Errors
    /// What DPDK says: a name that is in use, no memory, no room for another port.
    pub fn new(_eal: &Eal, name: &str) -> io::Result<Self> {
        let refused = || io::Error::from_raw_os_error(errno().max(libc::EINVAL));
        let pool = Pool::of(NO_PORT, MAX_FRAME as u32, BUFFERS, -1)?;
        let ring = |end: &str| -> io::Result<NonNull<sys::rte_ring>> {
            let name = CString::new(format!("{name}-{end}"))?;
            // SAFETY: a C string, which is copied, and a size that is a power of two.
            NonNull::new(unsafe { sys::rte_ring_create(name.as_ptr(), ROOM, -1, 0) }).ok_or_else(refused)
        };
        let (incoming, outgoing) = (ring("in")?, ring("out")?);
        let label = CString::new(name)?;
        let (mut rx, mut tx) = ([incoming.as_ptr()], [outgoing.as_ptr()]);
        // SAFETY: one ring each way; they are never freed.
        let port = exclusively(|| unsafe {
            sys::rte_eth_from_rings(label.as_ptr(), rx.as_mut_ptr(), 1, tx.as_mut_ptr(), 1, 0)
        });
        if port < 0 {
            return Err(refused());
        }
        Ok(Self { ethdev: format!("net_ring_{name}"), incoming, outgoing, pool })
    }

    /// DPDK's name of the device.
    #[must_use]
    pub fn ethdev(&self) -> &str {
        &self.ethdev
    }

    /// A frame arrives at the device. False: it does not fit, or the wire is full.
    #[must_use]
    pub fn arrive(&self, frame: &[u8]) -> bool {
        let Some(mbuf) = Mbuf::copy_of(frame, &self.pool) else { return false };
        let mut object = mbuf.into_raw().cast();
        // SAFETY: a ring that is never freed, and one mbuf that is given away.
        let count =
            unsafe { sys::rte_ring_enqueue_burst(self.incoming.as_ptr(), &raw mut object, 1, std::ptr::null_mut()) };
        if count == 1 {
            return true;
        }
        // SAFETY: the ring did not take the mbuf.
        drop(NonNull::new(object.cast()).map(|mbuf| unsafe { Mbuf::new(mbuf) }));
        false
    }

    /// The next frame that the device has sent: a copy, whose memory is not DPDK's.
    #[must_use]
    pub fn sent(&self) -> Option<Packet> {
        let mut object = std::ptr::null_mut();
        // SAFETY: a ring that is never freed; what is in it are mbufs that the device has given away.
        let count =
            unsafe { sys::rte_ring_dequeue_burst(self.outgoing.as_ptr(), &raw mut object, 1, std::ptr::null_mut()) };
        let mbuf = NonNull::new(object.cast()).filter(|_| count == 1)?;
        // SAFETY: taken out of the ring just now: nobody else has it.
        unsafe { Mbuf::new(mbuf) }.into_packet(true)
    }
}
