//! Ports: where frames come from and go to. One receive and one transmit side for each worker.
//!
//! [`open()`] chooses the driver for a vif. [`af_packet`] and [`af_xdp`] read and write a device that exists, [`tap`] makes one,
//! [`pcap`] reads and writes capture files, [`memory`] joins two ports of one process. Whatever the driver, a frame that
//! [`Port::receive`] returns is as it would be on the wire: checksums are complete, every VLAN tag is in the frame, and no
//! frame is larger than what the sender's MTU allows.

use std::os::fd::BorrowedFd;

use crate::packet::Packet;

pub mod af_packet;
pub mod af_xdp;
mod bpf;
pub mod device;
mod gso;
pub mod links;
pub mod memory;
mod open;
pub mod pcap;
mod sys;
pub mod tap;

pub use open::{Chosen, KernelPorts, OpenPorts, Opened, open};

/// A port of one worker: a queue of a device.
pub trait Port: Send {
    /// Receives up to `max` frames and appends them; returns how many. `spare` holds packets to reuse, when it has any.
    ///
    /// A worker waits on [`Port::readiness`] only after this returned 0: frames may wait in the port itself.
    ///
    /// # Errors
    /// [`PortError`]; the port stays usable only if [`PortError::is_fatal`] says no.
    fn receive(&mut self, into: &mut Vec<Packet>, spare: &mut Vec<Packet>, max: usize) -> Result<usize, PortError>;

    /// Sends all frames, leaves the packets for reuse in `spare`, and empties `frames`. Returns how many were sent; the rest
    /// were dropped because the device took no more (they count as TX errors).
    ///
    /// # Errors
    /// As for [`Port::receive`].
    fn transmit(&mut self, frames: &mut Vec<Packet>, spare: &mut Vec<Packet>) -> Result<usize, PortError>;

    /// Becomes readable when frames wait; `None` where there is nothing to wait for.
    fn readiness(&self) -> Option<BorrowedFd<'_>>;

    /// Nothing tells when frames wait: the port has to be looked at all the time.
    fn polls(&self) -> bool {
        false
    }

    /// Seals what is noted for a session of the NIC; other ports would send it in the clear.
    fn seals(&self) -> bool {
        false
    }

    /// Name of the driver as `vif --get` prints it: `net_af_packet`, `net_af_xdp`, `net_tap`, `net_pcap`.
    fn driver(&self) -> &'static str;

    /// Frames lost since the port was opened, before [`Port::receive`] could return them: the ring was full, or the frame could
    /// not be made whole. They count as RX errors. Asks the operating system: not for every batch.
    fn lost(&mut self) -> u64 {
        0
    }
}

/// What went wrong with a port.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The device is not there (any more).
    #[error("device '{device}' is gone or does not exist: create it or correct the vif's device")]
    NoDevice {
        /// Name of the device.
        device: String,
    },
    /// Another device has its name by now, and the driver cannot go over to it.
    #[error("device '{device}' was replaced: start the node again")]
    Replaced {
        /// Name of the device.
        device: String,
    },
    /// The device is down for now.
    #[error("device '{device}' is down")]
    Down {
        /// Name of the device.
        device: String,
    },
    /// A device that the node would make is there already.
    #[error(
        "device '{device}' exists already: delete it, name the vif's device otherwise, or use driver AF_PACKET on it"
    )]
    NameTaken {
        /// Name of the device.
        device: String,
    },
    /// Not a name that a device can have: 1..=15 octets without '/' and white space.
    #[error("'{device}' cannot be the name of a device: use 1 to 15 characters without '/' and spaces")]
    BadName {
        /// What was given.
        device: String,
    },
    /// The driver cannot serve this device.
    #[error("device '{device}' cannot be used with {driver}: {why}")]
    Unsupported {
        /// Name of the device.
        device: String,
        /// The driver.
        driver: &'static str,
        /// What is missing and what to do about it.
        why: String,
    },
    /// A capture file cannot be read or written.
    #[error(transparent)]
    Capture(#[from] pcap::CaptureError),
    /// The operating system refused something.
    #[error("device '{device}': {action}: {source}")]
    Os {
        /// Name of the device.
        device: String,
        /// What was tried.
        action: &'static str,
        /// Why it did not work.
        source: std::io::Error,
    },
}

impl PortError {
    /// The port cannot be used again without opening it anew.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        !matches!(self, Self::Down { .. })
    }
}
