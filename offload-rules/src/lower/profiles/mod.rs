//! The profiles, a maker each; where drivers differ from release to release, by DPDK's version.
//!
//! In a source, "22.11" and "24.11" before a file of a driver are DPDK 22.11.11 and 24.11.6, as are the lines; "offload" is what DPDK's
//! guides and drivers from 22.11 to 26.07 say in more than one place. No profile has been run on the NIC that it describes.

mod broadcom;
mod intel;
mod marvell;
mod mlx5;
mod netronome;
mod solarflare;
mod twin;

use broadcom::bnxt;
use intel::{iavf, ice, ixgbe, txgbe};
use marvell::cnxk;
use mlx5::{mlx5_hws, mlx5_sws};
use netronome::nfp;
use solarflare::sfc;
use twin::twin;

use super::{DpdkVersion, NicProfile};

impl NicProfile {
    /// Names that [`Self::by_name`] knows.
    pub const NAMES: [&'static str; 11] =
        ["mlx5-hws", "mlx5-sws", "bnxt", "sfc", "nfp", "cnxk", "ice", "iavf", "ixgbe", "txgbe", "twin"];

    /// The profile with this name, of the oldest DPDK that is supported.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::of_version(name, DpdkVersion::V22_11)
    }

    /// The profile with this name, as the driver of this DPDK has it.
    #[must_use]
    pub fn of_version(name: &str, version: DpdkVersion) -> Option<Self> {
        let profile = match name {
            "mlx5-hws" => mlx5_hws(version),
            "mlx5-sws" => mlx5_sws(),
            "bnxt" => bnxt(version),
            "sfc" => sfc(version),
            "nfp" => nfp(version),
            "cnxk" => cnxk(),
            "ice" => ice(),
            "iavf" => iavf(),
            "ixgbe" => ixgbe(version),
            "txgbe" => txgbe(),
            "twin" => twin(),
            _ => return None,
        };
        Some(Self { version, ..profile })
    }
}
