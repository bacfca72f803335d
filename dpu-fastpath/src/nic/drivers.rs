//! The profile of a driver.

use offload_rules::lower::{Api, NicProfile};

use crate::port::eal;

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
