//! NICs as DPDK drives them: the environment (EAL), memory, devices, and their queues as ports of workers.
//!
//! A frame is never copied between the NIC and a worker: a [`Packet`](fallback_sw::packet::Packet) borrows the mbuf that it was
//! received in, and gives it back when it is sent or dropped. Drivers are shared libraries: DPDK's own, and others by name.

pub mod args;
mod conf;
mod device;
mod driver;
pub mod eal;
mod errno;
mod facts;
mod gate;
mod hairpin;
mod log;
mod manager;
mod mbuf;
mod names;
mod open;
mod pool;
mod prepare;
mod queue;
mod registry;
mod tx_counter;
mod wire;

pub use args::{EalArgs, Memory};
pub use device::Ethdev;
pub use eal::{Eal, EalError};
pub(crate) use facts::configure_bare;
pub use facts::{dpdk_version, facts, transfer_proxy};
pub use gate::Gate;
pub use hairpin::Hairpins;
pub use open::{DpdkPorts, PortMap, UnknownEthdev, resolve};
pub use pool::Pool;
pub use prepare::Prepare;
pub use queue::DpdkPort;
pub(crate) use registry::PortSet;
pub use registry::{PortRegistry, StartedPort, UnknownPort};
pub(crate) use tx_counter::TxCounter;
pub use wire::Wire;
