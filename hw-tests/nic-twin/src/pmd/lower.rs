//! The port below a twin: it carries the frames, the twin decides about them.

use std::{
    ffi::{CStr, CString},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{args::Below, ffi};

/// A negative errno, as DPDK's functions return it.
pub(super) type Status = std::ffi::c_int;

const EINVAL: Status = 22;
const ENODEV: Status = 19;
/// Octets of an Ethernet header and its check sequence.
const L2: u16 = 18;

/// Numbers the af_packet devices: a name is never used again, so a device that is going away is in nobody's way.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The port below, owned: applications that walk over the ports don't see it.
#[derive(Debug)]
pub(super) struct Lower {
    port: u16,
    owner: u64,
    /// The device of the kernel that it was made for, to be closed with the twin, and the device's MTU: net_af_packet tells 1518
    /// octets for any.
    interface: Option<(String, u16)>,
}

impl Lower {
    /// Finds the port, or makes it, and takes it.
    pub(super) fn open(below: &Below, twin: &CStr) -> Result<Lower, Status> {
        let (name, interface) = match below {
            Below::Port(name) => (CString::new(name.as_str()).map_err(|_| -EINVAL)?, None),
            Below::Loop => (ring_device()?, None),
            Below::Interface(interface) => {
                let mtu = mtu_of(interface)?;
                let known = u16::try_from(mtu).unwrap_or(u16::MAX - L2);
                (af_packet(interface, mtu)?, Some((interface.clone(), known)))
            }
        };
        let mut port = 0;
        // SAFETY: a NUL-terminated name and a place for the number.
        if unsafe { ffi::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut port) } != 0 {
            return Err(-ENODEV);
        }
        let mut lower = Lower { port, owner: 0, interface };
        lower.take(twin)?;
        Ok(lower)
    }

    fn take(&mut self, twin: &CStr) -> Result<(), Status> {
        // SAFETY: plain data, for which zeros are a value.
        let mut owner: ffi::rte_eth_dev_owner = unsafe { std::mem::zeroed() };
        // SAFETY: a place for the number.
        check(unsafe { ffi::rte_eth_dev_owner_new(&mut owner.id) })?;
        for (place, octet) in owner.name.iter_mut().rev().skip(1).rev().zip(twin.to_bytes()) {
            *place = *octet as std::ffi::c_char;
        }
        // SAFETY: an owner that was just made, with a NUL-terminated name.
        check(unsafe { ffi::rte_eth_dev_owner_set(self.port, &owner) })?;
        self.owner = owner.id;
        Ok(())
    }

    /// Its number.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What it can do.
    pub(super) fn info(&self) -> Result<ffi::rte_eth_dev_info, Status> {
        // SAFETY: plain data, for which zeros are a value.
        let mut info: ffi::rte_eth_dev_info = unsafe { std::mem::zeroed() };
        // SAFETY: a place for the answer.
        check(unsafe { ffi::rte_eth_dev_info_get(self.port, &mut info) })?;
        if let Some((_, mtu)) = &self.interface {
            let mtu = *mtu;
            (info.max_mtu, info.max_rx_pktlen) = (mtu, u32::from(mtu) + u32::from(L2));
        }
        Ok(info)
    }

    /// Its MAC address.
    pub(super) fn mac(&self) -> Result<[u8; 6], Status> {
        // SAFETY: plain data, for which zeros are a value.
        let mut address: ffi::rte_ether_addr = unsafe { std::mem::zeroed() };
        // SAFETY: a place for the answer.
        check(unsafe { ffi::rte_eth_macaddr_get(self.port, &mut address) })?;
        Ok(address.addr_bytes)
    }

    /// Whether the kernel's device has a carrier: `net_af_packet` only tells whether it was started. `None` for a port of DPDK.
    pub(super) fn carrier(&self) -> Option<bool> {
        const RUNNING: libc::c_short = libc::IFF_RUNNING as libc::c_short;
        let (interface, _) = self.interface.as_ref()?;
        let answer = ask(interface, libc::SIOCGIFFLAGS);
        // SAFETY: the kernel filled in this member.
        Some(answer.is_ok_and(|answer| unsafe { answer.ifr_ifru.ifru_flags } & RUNNING != 0))
    }

    /// Its MTU, octets behind the Ethernet header.
    pub(super) fn mtu(&self) -> Result<u16, Status> {
        if let Some((_, mtu)) = &self.interface {
            return Ok(*mtu);
        }
        let mut mtu = 0;
        // SAFETY: a place for the answer.
        check(unsafe { ffi::rte_eth_dev_get_mtu(self.port, &mut mtu) })?;
        Ok(mtu)
    }

    /// Takes packets of so many octets; what the kernel's device takes already, it is not asked for.
    pub(super) fn set_mtu(&self, mtu: u16) -> Status {
        if self.interface.as_ref().is_some_and(|(_, most)| mtu <= *most) {
            return 0;
        }
        // SAFETY: takes a port's number and checks it.
        unsafe { ffi::rte_eth_dev_set_mtu(self.port, mtu) }
    }
}

impl Drop for Lower {
    fn drop(&mut self) {
        // SAFETY: functions that take a port's number and check it. What fails was not there any more.
        unsafe {
            ffi::rte_eth_dev_stop(self.port);
            ffi::rte_eth_dev_owner_unset(self.port, self.owner);
            if self.interface.is_some() {
                // Its virtual device stays until EAL ends: unplugging one inside the removal of another would take it from
                // under EAL's walk over all of them.
                ffi::rte_eth_dev_close(self.port);
            }
        }
    }
}

/// Makes a `net_ring`, whose one ring is read where it is written, and tells its name.
fn ring_device() -> Result<CString, Status> {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = CString::new(format!("net_ring_twin{number}")).map_err(|_| -EINVAL)?;
    // SAFETY: NUL-terminated strings.
    check(unsafe { ffi::rte_eal_hotplug_add(c"vdev".as_ptr(), name.as_ptr(), c"".as_ptr()) })?;
    Ok(name)
}

/// Makes a `net_af_packet` for a network device of the kernel, and tells its name.
fn af_packet(interface: &str, mtu: u32) -> Result<CString, Status> {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = CString::new(format!("net_af_packet_twin{number}")).map_err(|_| -EINVAL)?;
    let (place, block) = ring(mtu);
    let arguments = format!("iface={interface},blocksz={block},framesz={place},framecnt=1024");
    let arguments = CString::new(arguments).map_err(|_| -EINVAL)?;
    // SAFETY: NUL-terminated strings.
    check(unsafe { ffi::rte_eal_hotplug_add(c"vdev".as_ptr(), name.as_ptr(), arguments.as_ptr()) })?;
    Ok(name)
}

/// Octets of a place in the ring of a `net_af_packet`, and of its blocks.
///
/// A place holds the kernel's header (about 80 octets), the Ethernet header and tags too; it is no larger than need be, since
/// the driver asks for mbufs of its size. Blocks are whole pages, full of places: the driver takes the ring for an array.
fn ring(mtu: u32) -> (u32, u32) {
    let place = (mtu.min(16_000) + 128).next_multiple_of(256);
    // Places in a block: a power of two, 16 at most, as the page has 4096 octets.
    let places = 4096 / (1 << place.trailing_zeros().min(12));
    (place, place * places)
}

/// The MTU of a network device of the kernel.
fn mtu_of(interface: &str) -> Result<u32, Status> {
    let answer = ask(interface, libc::SIOCGIFMTU)?;
    // SAFETY: the kernel filled in this member.
    u32::try_from(unsafe { answer.ifr_ifru.ifru_mtu }).map_err(|_| -EINVAL)
}

/// Asks the kernel about a network device, in the thread's own network namespace: a mounted sysfs may show another's.
fn ask(interface: &str, what: libc::c_ulong) -> Result<libc::ifreq, Status> {
    // SAFETY: plain data, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(-ENODEV);
    }
    for (place, octet) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *place = octet as std::ffi::c_char;
    }
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(-ENODEV);
    }
    // SAFETY: a socket of ours, and a request with a NUL-terminated name.
    let status = unsafe { libc::ioctl(socket, what, &mut request) };
    // SAFETY: opened above, and used nowhere else.
    unsafe { libc::close(socket) };
    if status == 0 { Ok(request) } else { Err(-ENODEV) }
}

/// A status of DPDK: 0 or more is fine.
pub(super) fn check(status: Status) -> Result<(), Status> {
    if status < 0 { Err(status) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_the_ring_are_whole_pages_full_of_places() {
        for mtu in [68, 1280, 1500, 1504, 4000, 9000, 65_535] {
            let (place, block) = ring(mtu);
            assert!(place >= mtu.min(16_000) + 128, "{mtu}");
            assert_eq!((block % 4096, block % place, 1024 % (block / place)), (0, 0, 0), "{mtu}");
        }
        assert_eq!(ring(1500), (1792, 28_672));
    }
}
