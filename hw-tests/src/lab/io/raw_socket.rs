//! An AF_PACKET socket on one device that sends and receives whole frames, VLAN tags included.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::{size_of, zeroed},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    sys::socket::{
        AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType,
        recvmsg, send, sendmmsg, setsockopt, socket, sockopt,
    },
};

use crate::lab::{LabError, Namespace};

/// Octets of a tag.
const TAG: usize = 4;
/// Position of the tag: after both MAC addresses.
const TAG_AT: usize = 12;
/// Receive and send queues, octets: enough for a burst of a TCP window.
const QUEUE: usize = 8 << 20;

/// A socket on one device of a namespace.
#[derive(Debug)]
pub struct RawSocket {
    socket: OwnedFd,
    device: String,
    control: Vec<u8>,
}

/// A received frame.
#[derive(Debug)]
pub struct Frame<'a> {
    /// From the destination MAC on, with its tags.
    pub bytes: &'a mut [u8],
}

impl RawSocket {
    /// Longest frame that [`RawSocket::receive`] takes.
    pub const MAX_FRAME: usize = 9216 + 64;

    /// Opens a non-blocking socket on a device of a namespace.
    ///
    /// # Errors
    /// [`LabError::Io`]: no rights, or no such device.
    pub fn open(namespace: &Namespace, device: &str) -> Result<Self, LabError> {
        let what = format!("raw socket on {} of {}", device, namespace.role());
        let socket = namespace.inside(|| open_here(device).map_err(LabError::os(what)))?;
        // Room for the control message with the VLAN tag that the kernel has taken out of the frame.
        let control = nix::cmsg_space!(libc::tpacket_auxdata);
        Ok(Self { socket, device: device.to_owned(), control })
    }

    /// The next frame that came in on the device; `None` when there is none now. `buffer` holds it.
    ///
    /// # Errors
    /// [`LabError::Io`]: the device is gone or down.
    pub fn receive<'b>(&mut self, buffer: &'b mut [u8]) -> Result<Option<Frame<'b>>, LabError> {
        let what = || format!("receive on {}", self.device);
        loop {
            // The frame is received behind a gap, so that a tag can be put back without moving more than the addresses.
            let Some(area) = buffer.get_mut(TAG..) else { return Ok(None) };
            let mut parts = [IoSliceMut::new(area)];
            let received =
                recvmsg::<LinkAddr>(self.socket.as_raw_fd(), &mut parts, Some(&mut self.control), MsgFlags::empty());
            let message = match received {
                Ok(message) => message,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(LabError::os(what())(errno)),
            };
            let outgoing = message.address.is_some_and(|from| from.pkttype() == libc::PACKET_OUTGOING);
            let length = message.bytes;
            let tag = message.cmsgs().map_err(LabError::os(what()))?.find_map(|control| stripped_tag(&control));
            if outgoing {
                continue;
            }
            let start = match tag {
                Some(tag) => {
                    buffer.copy_within(TAG..TAG + TAG_AT, 0);
                    if let Some(place) = buffer.get_mut(TAG_AT..TAG_AT + TAG) {
                        place.copy_from_slice(&tag);
                    }
                    0
                }
                None => TAG,
            };
            return Ok(buffer.get_mut(start..TAG + length).map(|bytes| Frame { bytes }));
        }
    }

    /// Sends a frame. Returns false when the device takes no more now.
    ///
    /// # Errors
    /// [`LabError::Io`]: too short, too long, or the device is gone or down.
    pub fn send(&self, frame: &[u8]) -> Result<bool, LabError> {
        match send(self.socket.as_raw_fd(), frame, MsgFlags::empty()) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::ENOBUFS) => Ok(false),
            Err(errno) => Err(LabError::os(format!("send {} octets on {}", frame.len(), self.device))(errno)),
        }
    }

    /// Sends frames in one system call; returns how many the device took.
    ///
    /// # Errors
    /// As for [`RawSocket::send`].
    pub fn send_burst(&mut self, frames: &[Vec<u8>]) -> Result<usize, LabError> {
        let slices: Vec<[IoSlice<'_>; 1]> = frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
        let addresses: Vec<Option<LinkAddr>> = vec![None; frames.len()];
        let mut headers = MultiHeaders::preallocate(frames.len(), None);
        match sendmmsg(self.socket.as_raw_fd(), &mut headers, &slices, &addresses, [], MsgFlags::empty()) {
            Ok(results) => Ok(results.count()),
            Err(Errno::EAGAIN | Errno::ENOBUFS) => Ok(0),
            Err(errno) => Err(LabError::os(format!("send {} frames on {}", frames.len(), self.device))(errno)),
        }
    }
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The tag that the kernel reports beside the frame (packet(7), PACKET_AUXDATA).
fn stripped_tag(control: &ControlMessageOwned) -> Option<[u8; TAG]> {
    let ControlMessageOwned::Unknown(unknown) = control else { return None };
    if (unknown.cmsg_header.cmsg_level, unknown.cmsg_header.cmsg_type) != (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
        return None;
    }
    // struct tpacket_auxdata: status, length and captured length (32 bit each), MAC and network offset, TCI and TPID (16 bit each).
    let word = |at: usize| unknown.data_bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes);
    let status = unknown.data_bytes.get(..4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes)?;
    if status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let tpid = if status & libc::TP_STATUS_VLAN_TPID_VALID == 0 { 0x8100 } else { word(18)? };
    let [t0, t1] = tpid.to_be_bytes();
    let [c0, c1] = word(16)?.to_be_bytes();
    Some([t0, t1, c0, c1])
}

fn open_here(device: &str) -> nix::Result<OwnedFd> {
    let index = if_nametoindex(device)?;
    // Protocol 0: nothing is received before the socket is bound to the device.
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None::<SockProtocol>)?;
    setsockopt(&socket, sockopt::RcvBufForce, &QUEUE)?;
    setsockopt(&socket, sockopt::SndBufForce, &QUEUE)?;
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int, and pointer and length are those of one.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_AUXDATA,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Errno::result(set)?;
    // SAFETY: sockaddr_ll is plain data for which all zeros is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    // SAFETY: address is an initialised sockaddr_ll that outlives the call, and the length is its own.
    let bound = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    Errno::result(bound)?;
    Ok(socket)
}
