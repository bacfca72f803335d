//! IPsec sessions of NICs (rte_security): opened and closed by the engine's thread, sent with by every worker.
//!
//! - **Capabilities.** What a port can do is asked of its driver before a session is made: ESP in tunnel mode, AES-GCM, the key's length, ESN,
//!   the window, UDP, DSCP and DF (`capability`).
//! - **Sessions by number.** Whoever opens a session gives it a number. Workers find it by that number without a lock ([`Sessions`]),
//!   and rules name it by that number.
//! - **Keys.** A driver reads key and salt during the call that makes a session; ixgbe's keeps a pointer to them and reads the key when
//!   the rule is made. So they stay where they are until the session has ended, the salt right behind the key, where that driver looks for
//!   it. What this crate copies is overwritten after the call, and so is the memory of a session that has ended, which held the driver's
//!   copy.
//! - **Sequence numbers.** `esn.value` of an outbound session is the number of its first packet; of an inbound one the lowest that the
//!   window takes. Drivers without that field (cnxk's begins with 1) must not be given an SA that has been used: rte_security has no
//!   way to ask, so a profile has to know.

mod backend;
mod capability;
mod conf;
mod constants;
mod pool;
mod sessions;

#[cfg(test)]
mod tests;

pub use backend::PortSessions;
pub use sessions::Sessions;
