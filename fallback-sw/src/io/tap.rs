//! TAP and TUN: a device that the node makes, whose other side is the host's own stack.
//!
//! The device lives as long as its ports: it disappears with the last of them, also when the process is killed. One queue a
//! worker; the kernel spreads flows over the queues, and answers a flow on the queue it last came from.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
};

use super::{
    Port, PortError,
    device::{self, Link},
    sys,
};
use crate::packet::Packet;

/// Name of the driver in `vif --get`.
pub const DRIVER: &str = "net_tap";

/// Largest frame read; the host may raise the device's MTU at any time.
const LARGEST: usize = (64 << 10) + 22;

/// One queue of a TAP or TUN device.
#[derive(Debug)]
pub struct TapPort {
    device: String,
    queue: File,
    scratch: Box<[u8]>,
}

/// Makes the device with a queue for each worker (at least one), and sets it up.
///
/// # Errors
/// [`PortError::NameTaken`] when a device of this name exists, [`PortError::BadName`], [`PortError::Os`] mostly for want of
/// CAP_NET_ADMIN or of `/dev/net/tun`.
pub fn open(device: &str, link: Link, mtu: u16, workers: usize) -> Result<Vec<Box<dyn Port>>, PortError> {
    let mut ports: Vec<Box<dyn Port>> = Vec::with_capacity(workers.max(1));
    for number in 0..workers.max(1) {
        let queue = attach(device, link, number == 0, workers > 1)?;
        let scratch = vec![0; LARGEST].into_boxed_slice();
        ports.push(Box::new(TapPort { device: device.to_owned(), queue, scratch }));
    }
    device::set_mtu(device, mtu)?;
    device::set_up(device)?;
    Ok(ports)
}

fn attach(device: &str, link: Link, first: bool, several: bool) -> Result<File, PortError> {
    let name = sys::raw_name(device)?;
    let queue = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .map_err(|source| PortError::Os { device: device.to_owned(), action: "opening /dev/net/tun", source })?;
    let mut flags = libc::IFF_NO_PI | if link == Link::Ethernet { libc::IFF_TAP } else { libc::IFF_TUN };
    if several {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    if first {
        // Never attach to a device that somebody else has made.
        flags |= libc::IFF_TUN_EXCL;
    }
    // SAFETY: a structure of integers and a pointer, for all of which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name = name;
    // The flags are 16 bits; IFF_TUN_EXCL is the topmost.
    request.ifr_ifru.ifru_flags = (flags & 0xffff) as libc::c_short;
    // SAFETY: TUNSETIFF takes an ifreq with name and flags.
    unsafe { sys::ioctl(&queue, libc::TUNSETIFF as libc::c_ulong, &mut request) }.map_err(|source| {
        match source.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST | libc::EINVAL) if device::Device::read(device).is_ok() => {
                PortError::NameTaken { device: device.to_owned() }
            }
            _ => PortError::Os { device: device.to_owned(), action: "making a TAP device", source },
        }
    })?;
    Ok(queue)
}

impl TapPort {
    fn failure(&self, action: &'static str, source: io::Error) -> PortError {
        match source.raw_os_error() {
            // The queue has no device any more.
            Some(libc::EBADFD) => PortError::NoDevice { device: self.device.clone() },
            // Writing to a device that is not set up.
            Some(libc::EIO) => PortError::Down { device: self.device.clone() },
            _ => sys::device_error(&self.device, action, source),
        }
    }
}

impl Port for TapPort {
    fn receive(&mut self, into: &mut Vec<Packet>, spare: &mut Vec<Packet>, max: usize) -> Result<usize, PortError> {
        let mut count = 0;
        while count < max {
            match self.queue.read(&mut self.scratch) {
                Ok(0) => break,
                Ok(len) => {
                    let frame = self.scratch.get(..len).unwrap_or(&[]);
                    let mut packet = spare.pop().unwrap_or_else(|| Packet::with_capacity(len));
                    packet.refill(frame);
                    into.push(packet);
                    count += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Frames that are here are given to the caller first; the error comes again.
                Err(_) if count > 0 => break,
                Err(error) => return Err(self.failure("reading", error)),
            }
        }
        Ok(count)
    }

    fn transmit(&mut self, frames: &mut Vec<Packet>, spare: &mut Vec<Packet>) -> Result<usize, PortError> {
        let mut sent = 0;
        let mut result = Ok(());
        for packet in frames.iter() {
            match self.queue.write(packet.data()) {
                // A frame is written whole or not at all.
                Ok(written) => sent += usize::from(written == packet.len()),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINVAL | libc::EMSGSIZE | libc::EINTR) => {
                    }
                    _ => {
                        result = Err(self.failure("writing", error));
                        break;
                    }
                },
            }
        }
        spare.append(frames);
        result.map(|()| sent)
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.queue.as_fd())
    }

    fn driver(&self) -> &'static str {
        DRIVER
    }
}
