//! The port below a twin: it carries the frames, the twin decides about them.

use std::{
    ffi::{CStr, CString, c_uint},
    sync::{
        Mutex,
        atomic::{AtomicU16, AtomicU32, Ordering},
    },
};

use super::{args::Below, ffi, twin::locked};

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
    port: AtomicU16,
    owner: u64,
    twin: CString,
    /// The device of the kernel that it was made for, to be closed with the twin.
    interface: Option<Interface>,
    /// A wire that is turned back, of one queue: the twin's others may be hairpins.
    turned_back: bool,
}

/// A network device of the kernel, below a `net_af_packet` that was made for it.
#[derive(Debug)]
struct Interface {
    name: String,
    /// As it was when the `net_af_packet` was made: index, and the MTU that its ring has room for. net_af_packet tells 1518 octets for
    /// any.
    made: Mutex<Made>,
}

#[derive(Debug, Clone, Copy)]
struct Made {
    index: c_uint,
    room: u16,
}

impl Interface {
    /// The device's MTU, as far as the ring has room for it.
    fn mtu(&self) -> u16 {
        let room = locked(&self.made).room;
        mtu_of(&self.name).map_or(room, |mtu| room.min(u16::try_from(mtu).unwrap_or(u16::MAX)))
    }
}

impl Lower {
    /// Finds the port, or makes it, and takes it.
    pub(super) fn open(below: &Below, twin: &CStr) -> Result<Lower, Status> {
        let (port, interface) = match below {
            Below::Port(name) => (numbered(&CString::new(name.as_str()).map_err(|_| -EINVAL)?)?, None),
            Below::Loop => (numbered(&ring_device()?)?, None),
            Below::Interface(name) => {
                let (port, made) = over(name)?;
                (port, Some(Interface { name: name.clone(), made: Mutex::new(made) }))
            }
        };
        // SAFETY: plain data, for which zeros are a value.
        let mut owner: ffi::rte_eth_dev_owner = unsafe { std::mem::zeroed() };
        // SAFETY: a place for the number.
        check(unsafe { ffi::rte_eth_dev_owner_new(&mut owner.id) })?;
        let turned_back = *below == Below::Loop;
        let lower =
            Lower { port: AtomicU16::new(port), owner: owner.id, twin: twin.to_owned(), interface, turned_back };
        lower.take(port)?;
        Ok(lower)
    }

    fn take(&self, port: u16) -> Result<(), Status> {
        // SAFETY: plain data, for which zeros are a value.
        let mut owner: ffi::rte_eth_dev_owner = unsafe { std::mem::zeroed() };
        owner.id = self.owner;
        for (place, octet) in owner.name.iter_mut().rev().skip(1).rev().zip(self.twin.to_bytes()) {
            *place = *octet as std::ffi::c_char;
        }
        // SAFETY: an owner that was made before, with a NUL-terminated name.
        check(unsafe { ffi::rte_eth_dev_owner_set(port, &owner) })
    }

    /// Is the kernel's device another one by now than the port is on, or larger than the port has room for?
    pub(super) fn is_outdated(&self) -> bool {
        let Some(interface) = &self.interface else { return false };
        let Made { index, room } = *locked(&interface.made);
        index_of(&interface.name) != Some(index) || mtu_of(&interface.name).is_ok_and(|mtu| mtu > u32::from(room))
    }

    /// Goes over to the kernel's device as it is now. The twin is stopped, and nobody sends or receives by the port.
    pub(super) fn renew(&self) -> Result<(), Status> {
        let Some(interface) = &self.interface else { return Ok(()) };
        let (port, made) = over(&interface.name)?;
        self.take(port)?;
        let before = self.port.swap(port, Ordering::AcqRel);
        *locked(&interface.made) = made;
        self.give_up(before);
        Ok(())
    }

    /// Its number.
    pub(super) fn port(&self) -> u16 {
        self.port.load(Ordering::Acquire)
    }

    fn give_up(&self, port: u16) {
        // SAFETY: functions that take a port's number and check it. What fails was not there any more.
        unsafe {
            ffi::rte_eth_dev_stop(port);
            ffi::rte_eth_dev_owner_unset(port, self.owner);
            if self.interface.is_some() {
                // Its virtual device stays until EAL ends: unplugging one inside the removal of another would take it from
                // under EAL's walk over all of them.
                ffi::rte_eth_dev_close(port);
            }
        }
    }

    /// What it can do.
    pub(super) fn info(&self) -> Result<ffi::rte_eth_dev_info, Status> {
        // SAFETY: plain data, for which zeros are a value.
        let mut info: ffi::rte_eth_dev_info = unsafe { std::mem::zeroed() };
        // SAFETY: a place for the answer.
        check(unsafe { ffi::rte_eth_dev_info_get(self.port(), &mut info) })?;
        if let Some(interface) = &self.interface {
            let mtu = interface.mtu();
            (info.max_mtu, info.max_rx_pktlen) = (mtu, u32::from(mtu) + u32::from(L2));
            // It takes no pool whose buffers are smaller than the ring's places, and does not say so.
            info.min_rx_bufsize = u32::from(locked(&interface.made).room) + AROUND;
        }
        if self.turned_back {
            (info.max_rx_queues, info.max_tx_queues) = (1, 1);
        }
        Ok(info)
    }

    /// Its MAC address.
    pub(super) fn mac(&self) -> Result<[u8; 6], Status> {
        // SAFETY: plain data, for which zeros are a value.
        let mut address: ffi::rte_ether_addr = unsafe { std::mem::zeroed() };
        // SAFETY: a place for the answer.
        check(unsafe { ffi::rte_eth_macaddr_get(self.port(), &mut address) })?;
        Ok(address.addr_bytes)
    }

    /// Whether the kernel's device has a carrier: `net_af_packet` only tells whether it was started. `None` for a port of DPDK.
    pub(super) fn carrier(&self) -> Option<bool> {
        const RUNNING: libc::c_short = libc::IFF_RUNNING as libc::c_short;
        let answer = ask(&self.interface.as_ref()?.name, libc::SIOCGIFFLAGS);
        // SAFETY: the kernel filled in this member.
        Some(answer.is_ok_and(|answer| unsafe { answer.ifr_ifru.ifru_flags } & RUNNING != 0))
    }

    /// Its MTU, octets behind the Ethernet header.
    pub(super) fn mtu(&self) -> Result<u16, Status> {
        if let Some(interface) = &self.interface {
            return Ok(interface.mtu());
        }
        let mut mtu = 0;
        // SAFETY: a place for the answer.
        check(unsafe { ffi::rte_eth_dev_get_mtu(self.port(), &mut mtu) })?;
        Ok(mtu)
    }

    /// Takes packets of so many octets; what the kernel's device takes already, it is not asked for.
    pub(super) fn set_mtu(&self, mtu: u16) -> Status {
        if self.interface.as_ref().is_some_and(|interface| mtu <= interface.mtu()) {
            return 0;
        }
        // SAFETY: takes a port's number and checks it.
        unsafe { ffi::rte_eth_dev_set_mtu(self.port(), mtu) }
    }
}

impl Drop for Lower {
    fn drop(&mut self) {
        self.give_up(self.port());
    }
}

/// The number of a port.
fn numbered(name: &CStr) -> Result<u16, Status> {
    let mut port = 0;
    // SAFETY: a NUL-terminated name and a place for the number.
    let answer = unsafe { ffi::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut port) };
    if answer == 0 { Ok(port) } else { Err(-ENODEV) }
}

/// Makes a port for a network device of the kernel.
fn over(interface: &str) -> Result<(u16, Made), Status> {
    let index = index_of(interface).ok_or(-ENODEV)?;
    let mtu = mtu_of(interface)?;
    let room = u16::try_from(ring(mtu).0 - AROUND).unwrap_or(u16::MAX - L2);
    Ok((numbered(&af_packet(interface, mtu)?)?, Made { index, room }))
}

/// Index of a network device of the kernel: one that is made again has another.
fn index_of(interface: &str) -> Option<c_uint> {
    let name = CString::new(interface).ok()?;
    // SAFETY: a NUL-terminated name.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
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

/// Octets of a place that the packet does not get.
const AROUND: u32 = 128;

/// Octets of a place in the ring of a `net_af_packet`, and of its blocks.
///
/// A place holds the kernel's header (about 80 octets), the Ethernet header and tags too; it is no larger than need be, since
/// the driver asks for mbufs of its size. Blocks are whole pages, full of places: the driver takes the ring for an array.
fn ring(mtu: u32) -> (u32, u32) {
    let place = (mtu.min(16_000) + AROUND).next_multiple_of(256);
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
