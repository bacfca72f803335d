//! The walk: forwarding snapshot, parsed headers and ingress in, verdict out.
//!
//! Pure: reads only its arguments. What is decided here is decided once for a flow; later packets follow the program.

mod acl;

pub use acl::{AclMatch, AclPacket, evaluate};
