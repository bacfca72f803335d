//! A NIC as the daemon drives it: its profile, its ports as they open, lowering for what they carry, and the backend that its
//! driver wants.

mod attachment;
mod lowering;
mod ports;

use offload_rules::lower::{Api, NicProfile};

pub use attachment::{Offload, Start};
pub use lowering::NicLowering;
pub use ports::NicPorts;

use crate::{
    offload::{Backend, Failure},
    rte_flow::{Asynchronous, Style, Synchronous},
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

/// The profile with this name.
///
/// # Errors
/// [`UnknownProfile`].
pub fn profile(name: &str) -> Result<NicProfile, UnknownProfile> {
    NicProfile::by_name(name).ok_or_else(|| UnknownProfile { name: name.to_owned() })
}

/// The profile for a driver, as DPDK names it; `None`: a device that takes no rules, or of which nothing is known.
#[must_use]
pub fn of_driver(driver: &str) -> Option<NicProfile> {
    NicProfile::by_name(match driver {
        // Hardware steering is asked for by the device argument dv_flow_en=2, which the driver does not tell: name it by --nic.
        "mlx5_pci" | "mlx5_auxiliary" | "mlx5_eth" => "mlx5-sws",
        "net_bnxt" => "bnxt",
        "net_sfc_efx" | "net_sfc" => "sfc",
        "net_nfp_pf" | "net_nfp_vf" | "net_nfp" => "nfp",
        "net_cn9k" | "net_cn10k" | "net_cn20k" => "cnxk",
        "net_ice" | "net_ice_dcf" => "ice",
        "net_ixgbe" | "net_ixgbe_vf" => "ixgbe",
        "net_twin" => "twin",
        _ => return None,
    })
}

/// Whether rules go to the driver by templates.
#[must_use]
pub fn by_templates(profile: &NicProfile) -> bool {
    profile.limits.api.value == Api::Template
}

/// The backend that a NIC of this profile wants.
///
/// # Errors
/// No port of the NIC is open.
pub fn connect(profile: &NicProfile, ports: &NicPorts) -> Result<Box<dyn Backend>, Failure> {
    let style = Style::of(profile);
    let (map, sessions) = (ports.map(), ports.sessions());
    match ports.opened() {
        None => Err(Failure::from_errno(libc::EAGAIN, "no port of the NIC is open yet")),
        Some(Some(sizes)) => Ok(Box::new(Asynchronous::new(map, style, sizes).with_sessions(sessions))),
        Some(None) => Ok(Box::new(Synchronous::new(map, style, SYNCHRONOUS_DEPTH).with_sessions(sessions))),
    }
}
