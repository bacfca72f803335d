//! SAs that strongSwan's charon negotiates become this node's: what its kernel plugin asks over the IKE socket.
//!
//! `line` is the protocol (docs/decisions/027-charon-talks-to-the-node.md), `book` what the node remembers, `server` the socket.

mod book;
mod line;
mod server;

pub use book::{Book, OuterPath};
pub use line::{Event, NewSa, Refused, Request, VERSION};
pub use server::{listen, serve};
