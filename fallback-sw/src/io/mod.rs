//! Ports: where frames come from and go to. One receive and one transmit side for each worker.

use std::os::fd::BorrowedFd;

use crate::packet::Packet;

/// A port of one worker: a queue of a device.
pub trait Port: Send {
    /// Receives up to `max` frames and appends them; returns how many. `spare` holds packets to reuse, when it has any.
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

    /// Name of the driver as `vif --get` prints it: `net_af_packet`, `net_af_xdp`, `net_tap`, `net_pcap`.
    fn driver(&self) -> &'static str;
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
    /// The device is down for now.
    #[error("device '{device}' is down")]
    Down {
        /// Name of the device.
        device: String,
    },
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
