//! The profiles, a maker each. "offload" in a source is what DPDK's guides and drivers from 22.11 to 26.07 say in more than one
//! place; a file name is that of DPDK 22.11. No profile has been run on the NIC that it describes.

mod broadcom;
mod intel;
mod marvell;
mod mlx5;
mod netronome;
mod solarflare;
mod twin;

pub(super) use broadcom::bnxt;
pub(super) use intel::{ice, ixgbe};
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
