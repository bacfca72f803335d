//! IPsec of one worker: the SAs that it owns, and with which of them each tunnel sends.
//!
//! Each SA has one owner, so that no core shares a sequence number or a replay window with another: an outbound SA the worker that
//! the state names, an inbound one the worker that its index tells. Who has a packet for another one's SA hands it over.

mod esp_quote;
mod history;
mod inbound;
mod inner;
mod nic;
mod nic_state;
mod open;
mod outbound;
mod quoted;
mod request;
mod resume;
mod sa;
mod seal;
mod table;

pub use esp_quote::EspQuote;
pub(super) use esp_quote::Reason;
pub(super) use open::Sealed;
pub(super) use quoted::Quoted;
pub(super) use request::SealRequest;
pub use request::Sealing;
pub(super) use resume::resume;
pub use sa::{Grant, Refused, SaNews, SaStatus};
pub(super) use seal::Sealer;
pub(super) use table::{Ipsec, other_opener};
