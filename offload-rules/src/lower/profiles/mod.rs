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

pub(super) use broadcom::bnxt;
pub(super) use intel::{iavf, ice, ixgbe, txgbe};
pub(super) use marvell::cnxk;
pub(super) use mlx5::{mlx5_hws, mlx5_sws};
pub(super) use netronome::nfp;
pub(super) use solarflare::sfc;
pub(super) use twin::twin;

use super::profile::Fact;

/// A fact, short.
const fn fact<T>(value: T, source: &'static str) -> Fact<T> {
    Fact::new(value, source)
}
