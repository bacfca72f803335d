//! AF_PACKET: any device that exists, read by a memory-mapped ring.
//!
//! Receiving: TPACKET_V2, one slot a frame, so that a frame is seen the moment it arrives (TPACKET_V3 hands over blocks, up to
//! a timer tick late). Slots hold a frame of the device's MTU; larger frames (GSO) come by the socket's queue instead
//! (PACKET_COPY_THRESH), so that the ring stays small enough for the cache. Each frame has a virtio-net header
//! (PACKET_VNET_HDR): partial checksums are completed and super-frames cut here, because a veth's peer leaves both to us. The
//! VLAN tag that the kernel takes out of every frame is put back.
//!
//! Sending: a second socket with `sendmmsg` straight from the packet's memory, past the device's queueing discipline
//! (PACKET_QDISC_BYPASS). A TX ring would copy each frame into the ring first, and the kernel holds its slots until the last
//! receiver has freed them.
//!
//! Several workers: one socket each, joined by PACKET_FANOUT_HASH. The hash is symmetric: both directions of a flow that pass
//! the same device come to the same worker.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU32, Ordering},
};

use memmap2::{MmapOptions, MmapRaw};

use super::{
    Port, PortError,
    device::{self, Device, Link, Watch},
    gso::{self, VNET_HEADER, VnetHeader},
    sys,
};
use crate::packet::Packet;

/// Name of the driver in `vif --get`.
pub const DRIVER: &str = "net_af_packet";

/// Memory of one ring in octets, unless slots are so large that [`MIN_SLOTS`] need more.
const RING: usize = 4 << 20;
const MIN_SLOTS: usize = 256;
/// Contiguous memory that the kernel is asked for at once.
const BLOCK: usize = 64 << 10;
/// Room in a slot before the frame: tpacket2_hdr, sockaddr_ll, alignment, the virtio-net header; and two VLAN tags.
const SLOT_OVERHEAD: usize = 128;
/// For super-frames on their way; the kernel counts their memory, not their octets.
const RECEIVE_BUFFER: i32 = 32 << 20;
const SEND_BUFFER: i32 = 4 << 20;
/// Largest frame read from the socket's queue.
const LARGEST: usize = (64 << 10) + 64;
/// Frames in one `sendmmsg`.
const TX_BATCH: usize = 64;
/// Calls of [`Port::receive`] that find nothing between two looks at the device's health.
const HEALTH_INTERVAL: u32 = 32;

/// One worker's AF_PACKET sockets on a device.
#[derive(Debug)]
pub struct AfPacketPort {
    link: Link,
    watch: Watch,
    rx: OwnedFd,
    ring: RxRing,
    tx: OwnedFd,
    /// Segments of super-frames that the last [`Port::receive`] had no room for.
    backlog: VecDeque<Packet>,
    scratch: Box<[u8]>,
    empty: u32,
    lost: u64,
}

/// Opens a device for `workers` workers (at least one), each with a port of its own.
///
/// # Errors
/// [`PortError::NoDevice`], [`PortError::BadName`]; [`PortError::Os`] mostly for want of CAP_NET_RAW. A device that is
/// down is opened all the same.
pub fn open(device: &str, workers: usize) -> Result<Vec<Box<dyn Port>>, PortError> {
    // Tags stay or are put back; segments merged by LRO could not be cut again.
    device::keep_frames_whole(device)?;
    let device = Device::read(device)?;
    let mut group: Option<u16> = None;
    let mut ports: Vec<Box<dyn Port>> = Vec::with_capacity(workers.max(1));
    for _ in 0..workers.max(1) {
        let port = AfPacketPort::new(&device)?;
        if workers > 1 {
            let joined =
                join(&port.rx, group).map_err(|e| sys::device_error(&device.name, "joining its fanout group", e))?;
            group = Some(joined);
        }
        ports.push(Box::new(port));
    }
    Ok(ports)
}

/// Joins the fanout group, or makes one with an identifier that nobody in this network namespace has yet.
fn join(socket: &OwnedFd, group: Option<u16>) -> io::Result<u16> {
    let flags = if group.is_some() { 0 } else { libc::PACKET_FANOUT_FLAG_UNIQUEID };
    let argument = u32::from(group.unwrap_or(0)) | (libc::PACKET_FANOUT_HASH | flags) << 16;
    sys::set_option(socket, libc::SOL_PACKET, libc::PACKET_FANOUT, &argument)?;
    let joined: u32 = sys::get_option(socket, libc::SOL_PACKET, libc::PACKET_FANOUT, 0u32)?;
    // The low 16 bits are the identifier.
    Ok((joined & 0xffff) as u16)
}

impl AfPacketPort {
    /// A port that sees all frames of the device.
    ///
    /// # Errors
    /// As for [`open`].
    pub fn single(device: &str) -> Result<Self, PortError> {
        device::keep_frames_whole(device)?;
        Self::new(&Device::read(device)?)
    }

    fn new(device: &Device) -> Result<Self, PortError> {
        let failed = |action| move |error| (action, error);
        let opened = (|| {
            // Protocol 0: nothing is received before `bind`, when all options are set.
            let rx = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0).map_err(failed("opening a packet socket"))?;
            let on = 1i32;
            let version = libc::tpacket_versions::TPACKET_V2 as i32;
            let option = |name, value: &i32| sys::set_option(&rx, libc::SOL_PACKET, name, value);
            option(libc::PACKET_VERSION, &version).map_err(failed("choosing TPACKET_V2"))?;
            option(libc::PACKET_VNET_HDR, &on).map_err(failed("setting PACKET_VNET_HDR"))?;
            option(libc::PACKET_IGNORE_OUTGOING, &on).map_err(failed("setting PACKET_IGNORE_OUTGOING"))?;
            option(libc::PACKET_COPY_THRESH, &on).map_err(failed("setting PACKET_COPY_THRESH"))?;
            sys::set_option(&rx, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &RECEIVE_BUFFER)
                .or_else(|_| sys::set_option(&rx, libc::SOL_SOCKET, libc::SO_RCVBUF, &RECEIVE_BUFFER))
                .map_err(failed("setting its receive buffer"))?;
            let ring = RxRing::map(&rx, device.mtu).map_err(failed("mapping its receive ring"))?;
            bind(&rx, device.index, libc::ETH_P_ALL as u16).map_err(failed("binding a packet socket"))?;
            if device.link == Link::Ethernet {
                let membership = libc::packet_mreq {
                    mr_ifindex: device.index,
                    mr_type: libc::PACKET_MR_PROMISC as u16,
                    mr_alen: 0,
                    mr_address: [0; 8],
                };
                sys::set_option(&rx, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)
                    .map_err(failed("making it promiscuous"))?;
            }

            let tx = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0).map_err(failed("opening a packet socket"))?;
            sys::set_option(&tx, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &on)
                .map_err(failed("setting PACKET_QDISC_BYPASS"))?;
            sys::set_option(&tx, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_BUFFER)
                .or_else(|_| sys::set_option(&tx, libc::SOL_SOCKET, libc::SO_SNDBUF, &SEND_BUFFER))
                .map_err(failed("setting its send buffer"))?;
            bind(&tx, device.index, 0).map_err(failed("binding a packet socket"))?;
            Ok((rx, ring, tx))
        })();
        let (rx, ring, tx) =
            opened.map_err(|(action, error): (_, io::Error)| sys::device_error(&device.name, action, error))?;
        let mut port = Self {
            link: device.link,
            watch: Watch::new(device)?,
            rx,
            ring,
            tx,
            backlog: VecDeque::new(),
            scratch: vec![0; VNET_HEADER + LARGEST].into_boxed_slice(),
            empty: 0,
            lost: 0,
        };
        // Binding to a device that is down leaves ENETDOWN as the socket's pending error; it is told when a frame fails.
        let _ = port.health();
        Ok(port)
    }

    /// Takes the frame of the current slot into the backlog or `into`.
    fn take(&mut self, into: &mut Vec<Packet>, spare: &mut Vec<Packet>) -> Result<(), gso::NotWhole> {
        let Some(slot) = self.ring.current() else { return Ok(()) };
        let (header, frame) = if slot.status & libc::TP_STATUS_COPY != 0 {
            let len = receive_copy(&self.rx, &mut self.scratch).ok_or(gso::NotWhole)?;
            split_header(self.scratch.get(..len).unwrap_or(&[])).ok_or(gso::NotWhole)?
        } else if slot.truncated {
            return Err(gso::NotWhole);
        } else {
            (slot.vnet, slot.frame)
        };
        let link = self.link;
        if header.is_plain() {
            let mut packet = spare.pop().unwrap_or_else(|| Packet::with_capacity(frame.len()));
            refill_tagged(&mut packet, frame, slot.tag);
            into.push(packet);
            return Ok(());
        }
        if header.is_super_frame() {
            let first = self.backlog.len();
            if gso::segment(frame, link, header, &mut self.backlog, spare).is_err() {
                self.backlog.truncate(first);
                return Err(gso::NotWhole);
            }
            if let Some(tag) = slot.tag {
                for packet in self.backlog.iter_mut().skip(first) {
                    insert_tag(packet, tag);
                }
            }
            return Ok(());
        }
        let mut packet = spare.pop().unwrap_or_else(|| Packet::with_capacity(frame.len()));
        refill_tagged(&mut packet, frame, slot.tag);
        let header = if slot.tag.is_some() { header.shifted(4) } else { header };
        gso::complete_checksum(packet.data_mut(), header)?;
        into.push(packet);
        Ok(())
    }

    /// Moves from the backlog until `max` frames are in `into` behind `start`.
    fn drain_backlog(&mut self, into: &mut Vec<Packet>, start: usize, max: usize) {
        let room = max.saturating_sub(into.len() - start).min(self.backlog.len());
        into.extend(self.backlog.drain(..room));
    }

    /// The error that the device's loss has left on the socket.
    fn health(&mut self) -> Result<(), PortError> {
        let pending = sys::get_option(&self.rx, libc::SOL_SOCKET, libc::SO_ERROR, 0i32).unwrap_or(0);
        if pending == 0 {
            return Ok(());
        }
        Err(self.watch.failure("receiving", io::Error::from_raw_os_error(pending)))
    }

    /// Sends up to [`TX_BATCH`] frames; returns how many of them were sent, and how many are dealt with.
    fn send(&self, frames: &[Packet]) -> Result<(usize, usize), PortError> {
        let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; TX_BATCH];
        let mut messages = [EMPTY_MESSAGE; TX_BATCH];
        let mut count = 0;
        for ((packet, vector), message) in frames.iter().zip(&mut vectors).zip(&mut messages) {
            let data = packet.data();
            *vector = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
            message.msg_hdr.msg_iov = std::ptr::from_mut(vector);
            message.msg_hdr.msg_iovlen = 1;
            count += 1;
        }
        // SAFETY: the first `count` messages each point to one vector, which points to the memory of a packet; all of them
        // live until the call returns, and the kernel only reads through them.
        let sent = unsafe { libc::sendmmsg(self.tx.as_raw_fd(), messages.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
        if let Ok(sent) = usize::try_from(sent) {
            return Ok((sent, sent));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // The device or the socket takes no more for now.
            Some(libc::EAGAIN) => Ok((0, frames.len())),
            // This frame alone: no buffer for it, larger than the MTU, or shorter than its header.
            Some(libc::ENOBUFS | libc::EMSGSIZE | libc::EINVAL) => Ok((0, 1)),
            Some(libc::EINTR) => Ok((0, 0)),
            _ => Err(self.watch.failure("sending", error)),
        }
    }
}

impl Port for AfPacketPort {
    fn receive(&mut self, into: &mut Vec<Packet>, spare: &mut Vec<Packet>, max: usize) -> Result<usize, PortError> {
        let start = into.len();
        loop {
            self.drain_backlog(into, start, max);
            if into.len() - start >= max || !self.ring.is_ready() {
                break;
            }
            if self.take(into, spare).is_err() {
                self.lost += 1;
            }
            self.ring.release();
        }
        let count = into.len() - start;
        if count > 0 {
            self.empty = 0;
        } else {
            // POLLERR wakes a worker that waits, so it comes back here until the error is read.
            self.empty += 1;
            if self.empty >= HEALTH_INTERVAL {
                self.empty = 0;
                self.health()?;
            }
        }
        Ok(count)
    }

    fn transmit(&mut self, frames: &mut Vec<Packet>, spare: &mut Vec<Packet>) -> Result<usize, PortError> {
        let mut total = 0;
        let mut rest = frames.as_slice();
        let mut result = Ok(());
        while !rest.is_empty() {
            match self.send(rest) {
                Ok((sent, dealt_with)) => {
                    total += sent;
                    rest = rest.get(dealt_with..).unwrap_or(&[]);
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        spare.append(frames);
        result.map(|()| total)
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.rx.as_fd())
    }

    fn driver(&self) -> &'static str {
        DRIVER
    }

    fn lost(&mut self) -> u64 {
        // Reading resets the kernel's counters.
        let empty = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        if let Ok(stats) = sys::get_option(&self.rx, libc::SOL_PACKET, libc::PACKET_STATISTICS, empty) {
            self.lost += u64::from(stats.tp_drops);
        }
        self.lost
    }
}

/// Binds a packet socket; a device that is not there any more gives ENODEV.
fn bind(socket: &OwnedFd, index: i32, protocol: u16) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `address` is a live sockaddr_ll of `len` octets.
    let done = unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), len) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads a frame that was too large for its slot, with its header; `None` when it is larger than the buffer, too.
fn receive_copy(socket: &OwnedFd, buffer: &mut [u8]) -> Option<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` octets to the live buffer.
    let len = unsafe {
        libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT | libc::MSG_TRUNC)
    };
    usize::try_from(len).ok().filter(|len| *len <= buffer.len())
}

fn split_header(octets: &[u8]) -> Option<(VnetHeader, &[u8])> {
    octets.split_first_chunk().map(|(header, frame)| (VnetHeader::read(header), frame))
}

/// Tag of a frame as the kernel has taken it out: TPID and TCI.
type Tag = [u8; 4];

fn refill_tagged(packet: &mut Packet, frame: &[u8], tag: Option<Tag>) {
    packet.refill(frame);
    if let Some(tag) = tag {
        insert_tag(packet, tag);
    }
}

/// Puts the tag behind the two addresses (802.1Q §9.1), before any tag that is still there.
fn insert_tag(packet: &mut Packet, tag: Tag) {
    if packet.len() < 12 || packet.prepend(tag.len()).is_err() {
        return;
    }
    let data = packet.data_mut();
    data.copy_within(4..16, 0);
    if let Some(place) = data.get_mut(12..16) {
        place.copy_from_slice(&tag);
    }
}

// Null pointers and zeros: a message without content.
const EMPTY_MESSAGE: libc::mmsghdr = libc::mmsghdr {
    msg_hdr: libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: std::ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    },
    msg_len: 0,
};

/// The memory-mapped receive ring: slots of equal size, one frame each, filled and emptied in order.
#[derive(Debug)]
struct RxRing {
    map: MmapRaw,
    slot: usize,
    slots: usize,
    next: usize,
}

/// A slot that the kernel has filled.
struct Slot<'a> {
    status: u32,
    truncated: bool,
    vnet: VnetHeader,
    frame: &'a [u8],
    tag: Option<Tag>,
}

impl RxRing {
    fn map(socket: &OwnedFd, mtu: u32) -> io::Result<Self> {
        let frame = usize::try_from(mtu).unwrap_or(0).clamp(1500, 9216) + 22;
        let slot = (frame + SLOT_OVERHEAD).next_power_of_two();
        let slots = (RING / slot).max(MIN_SLOTS);
        // Both are powers of two, so blocks hold whole slots and slots follow each other without gaps.
        let block = BLOCK.max(slot);
        let to_u32 = |n: usize| u32::try_from(n).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL));
        let request = libc::tpacket_req {
            tp_block_size: to_u32(block)?,
            tp_block_nr: to_u32(slots * slot / block)?,
            tp_frame_size: to_u32(slot)?,
            tp_frame_nr: to_u32(slots)?,
        };
        sys::set_option(socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        let map = MmapOptions::new().len(slots * slot).populate().map_raw(socket.as_raw_fd())?;
        Ok(Self { map, slot, slots, next: 0 })
    }

    /// The status word of the next slot: whose it is.
    fn status(&self) -> &AtomicU32 {
        debug_assert!(self.next < self.slots);
        // SAFETY: `next` is below `slots`, so the slot lies in the mapping, which lives as long as `self`; a slot starts with a
        // tpacket2_hdr, whose first member is this aligned word, which kernel and user space access atomically.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().add(self.next * self.slot).cast()) }
    }

    fn is_ready(&self) -> bool {
        self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// The next slot, once the kernel has filled it.
    fn current(&self) -> Option<Slot<'_>> {
        let status = self.status().load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: as in `status`; with TP_STATUS_USER set and acquired, the kernel has written the whole slot and leaves it
        // alone until `release`, which needs `&mut self`, so the octets do not change while the slice lives.
        let slot = unsafe {
            std::slice::from_raw_parts(self.map.as_mut_ptr().add(self.next * self.slot).cast_const(), self.slot)
        };
        let word = |at: usize| slot.get(at..).and_then(|rest| rest.first_chunk()).map(|w| u32::from_ne_bytes(*w));
        let half = |at: usize| slot.get(at..).and_then(|rest| rest.first_chunk()).map(|h| u16::from_ne_bytes(*h));
        // struct tpacket2_hdr: status, len, snaplen (u32), mac, net (u16), sec, nsec (u32), vlan_tci, vlan_tpid (u16).
        let (len, snaplen, mac) = (word(4)?, word(8)?, usize::from(half(12)?));
        let tag = if status & libc::TP_STATUS_VLAN_VALID != 0 {
            let tpid = if status & libc::TP_STATUS_VLAN_TPID_VALID != 0 { half(26)? } else { 0x8100 };
            let ([a, b], [c, d]) = (tpid.to_be_bytes(), half(24)?.to_be_bytes());
            Some([a, b, c, d])
        } else {
            None
        };
        let frame = slot.get(mac..).and_then(|rest| rest.get(..usize::try_from(snaplen).ok()?)).unwrap_or(&[]);
        // The header lies right before the frame.
        let vnet = mac.checked_sub(VNET_HEADER).and_then(|at| slot.get(at..)?.first_chunk()).map(VnetHeader::read)?;
        Some(Slot { status, truncated: snaplen < len || frame.is_empty(), vnet, frame, tag })
    }

    /// Gives the slot back to the kernel.
    fn release(&mut self) {
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next += 1;
        if self.next == self.slots {
            self.next = 0;
        }
    }
}
