//! Raw Ethernet sockets: the only part of the lab that needs unsafe system calls.

mod raw_socket;

pub use raw_socket::{Frame, RawSocket};
