//! A NIC as the daemon drives it: its profile, its ports as they open, lowering for what they carry, and the backend that its
//! driver wants.

mod drivers;
mod identity;
mod port_lowering;
mod ports;

use offload_engine::{Failure, NicBackend, RuleBackend};
use offload_rules::lower::NicProfile;

pub use drivers::{by_templates, of_driver};
pub use identity::{Identity, Seen, WrongEngine, identify};
pub use port_lowering::NicLowering;
pub use ports::NicPorts;

use crate::{
    port::eal,
    rte_flow::{Asynchronous, Gated, Style, Synchronous},
    security::PortSessions,
};

/// Operations of a synchronous driver in one round of the engine.
const SYNCHRONOUS_DEPTH: usize = 256;

/// No profile has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no NIC profile '{name}'; there are: {}", NicProfile::NAMES.join(", "))]
pub struct UnknownProfile {
    /// What was asked for.
    pub name: String,
}

/// The profile with this name, for the DPDK that is running.
///
/// # Errors
/// [`UnknownProfile`].
pub fn profile(name: &str) -> Result<NicProfile, UnknownProfile> {
    NicProfile::of_version(name, eal::version()).ok_or_else(|| UnknownProfile { name: name.to_owned() })
}

/// What drives a NIC of this profile: its rules and its sessions.
///
/// # Errors
/// No port of the NIC is open.
pub fn connect(profile: &NicProfile, ports: &NicPorts) -> Result<NicBackend<Box<dyn RuleBackend>>, Failure> {
    let style = Style::of(profile);
    let (registry, sessions) = (ports.registry().clone(), ports.sessions());
    let gate = registry.gate();
    let rules: Box<dyn RuleBackend> = match ports.opened() {
        None => return Err(Failure::from_errno(libc::EAGAIN, "no port of the NIC is open yet")),
        Some(Some(sizes)) => {
            let backend = Asynchronous::new(registry.clone(), style, sizes).with_sessions(sessions.clone());
            Box::new(Gated::new(backend, gate))
        }
        Some(None) => {
            let backend = Synchronous::new(registry.clone(), style, SYNCHRONOUS_DEPTH).with_sessions(sessions.clone());
            Box::new(Gated::new(backend, gate))
        }
    };
    Ok(NicBackend::with_sessions(rules, PortSessions::new(registry, sessions)))
}
