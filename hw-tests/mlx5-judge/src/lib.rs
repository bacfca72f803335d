//! The mlx5 judge: DPDK's own mlx5 driver, unmodified, on a ConnectX that isn't there.
//!
//! A library written in C (`below/`) stands below the driver for libibverbs, libmlx5, sysfs, netlink and interface ioctls; a
//! program gets it by `LD_PRELOAD` ([`Preload`]) and finds a [`Card`] as its environment describes it. It needs no root, no
//! hugepages and no kernel module. What the driver asks of the device is recorded, a JSON object a line; what rdma-core would
//! refuse is refused; whatever passes has been accepted by the driver's own code.
//!
//! What passes through the card passes through [`machine`], which executes what the driver made, in Rust: [`device`] has it follow the
//! record within the driver's process, and tells the driver by [`Below::count`] what counters say.

pub mod card;
pub mod device;
pub mod fields;
mod live;
pub mod machine;
mod preload;
pub mod record;

pub use card::{Card, Engine, Fault};
pub use device::abi::{mlx5_judge_begin, mlx5_judge_frame, mlx5_judge_passage};
pub use live::Below;
pub use preload::{Preload, PreloadError, mlx5_judge_preload};
