//! A NIC as the daemon drives it: its profile, its ports as they open, lowering for what they carry, and the backend that its
//! driver wants.

mod identity;
mod port_lowering;
mod ports;

use offload_engine::{Failure, NicBackend, RuleBackend};
use offload_rules::lower::{Api, NicProfile};

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

/// The profile for a driver, as DPDK names it; `None`: a device that takes no rules, or of which nothing is known.
#[must_use]
pub fn of_driver(driver: &str) -> Option<NicProfile> {
    let name = match driver {
        // With the device argument dv_flow_en=2 it is mlx5-hws: `identify` asks.
        "mlx5_pci" | "mlx5_auxiliary" | "mlx5_eth" => "mlx5-sws",
        "net_bnxt" => "bnxt",
        "net_sfc_efx" | "net_sfc" => "sfc",
        // Virtual functions of nfp, ixgbe and txgbe take no rules, and ice's DCF has no Flow Director.
        "net_nfp_pf" | "net_nfp" => "nfp",
        "net_cn9k" | "net_cn10k" | "net_cn20k" => "cnxk",
        "net_ice" => "ice",
        "net_iavf" => "iavf",
        "net_ixgbe" => "ixgbe",
        "net_txgbe" => "txgbe",
        "net_twin" => "twin",
        _ => return None,
    };
    NicProfile::of_version(name, eal::version())
}

/// Whether rules go to the driver by templates.
#[must_use]
pub fn by_templates(profile: &NicProfile) -> bool {
    profile.limits.api.value == Api::Template
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_known_by_the_names_that_they_register() {
        for (driver, name) in [
            ("net_iavf", Some("iavf")),
            ("net_txgbe", Some("txgbe")),
            ("net_ixgbe", Some("ixgbe")),
            ("net_cn10k", Some("cnxk")),
            // ixgbe_ethdev.c and txgbe_ethdev_vf.c give their virtual functions no rte_flow.
            ("net_ixgbe_vf", None),
            ("net_txgbe_vf", None),
            ("net_null", None),
        ] {
            assert_eq!(of_driver(driver).map(|profile| profile.name), name, "{driver}");
        }
        assert_eq!(of_driver("net_bnxt").map(|profile| profile.version), Some(eal::version()));
    }
}
