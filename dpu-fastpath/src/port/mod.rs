//! NICs as DPDK drives them: the environment (EAL), memory, devices, and their queues as ports of workers.
//!
//! A frame is never copied between the NIC and a worker: a [`Packet`](fallback_sw::packet::Packet) borrows the mbuf that it was
//! received in, and gives it back when it is sent or dropped. Drivers are shared libraries: DPDK's own, and others by name.

pub mod args;
mod device;
pub mod eal;
mod log;
mod mbuf;
mod open;
mod pool;
mod queue;
mod wire;

pub use args::{EalArgs, Memory};
pub use device::Ethdev;
pub use eal::{Eal, EalError};
pub use open::{Directory, DpdkPorts, PortMap, Prepare, UnknownEthdev};
pub use pool::Pool;
pub use queue::DpdkPort;
pub use wire::Wire;
