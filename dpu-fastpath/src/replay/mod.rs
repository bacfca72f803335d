//! `dpu-fastpath replay --nic PROFILE`: a replay with a NIC that isn't there in front of the node, behind DPDK's own interface.
//!
//! Each device of the forwarding state is a port of the NIC, if it has as many. The engine, the rte_flow backend and the driver are those of the daemon;
//! only time and threads are missing, so the outcome is the same each time. The NIC is a twin, which executes the rules themselves; or
//! the vendor's own mlx5 driver on a card that isn't there, where what the driver made of the rules is executed.

mod front;
pub mod mlx5;
mod twin;

use std::path::{Path, PathBuf};

use clap::Args;
use fallback_sw::replay::{self, Front};

pub use front::NicFront;

use crate::nic;

/// Where packages put libraries of ours.
const INSTALLED: &str = "/usr/lib/sluicegate";

/// What is replayed, and behind which NIC.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Put the twin of this NIC in front: mlx5-hws, mlx5-sws, bnxt, sfc, nfp, cnxk, ice, iavf, ixgbe, txgbe, twin; or DPDK's own
    /// mlx5 driver with software steering, on a ConnectX that isn't there: mlx5-judge, in switchdev mode, or mlx5-judge-hairpin, without a
    /// switch, with one port or two. Without it the outcome is that of `fallback-sw replay`.
    #[arg(long, value_name = "PROFILE")]
    pub nic: Option<String>,
    /// The twin's driver; by default libnic_twin.so beside this program, or in /usr/lib/sluicegate.
    #[arg(long, value_name = "LIB.so", env = "SLUICEGATE_NIC_TWIN")]
    pub twin: Option<PathBuf>,
    /// What stands below the mlx5 driver; by default libmlx5_judge.so beside this program, or in /usr/lib/sluicegate.
    #[arg(long, value_name = "LIB.so", env = "SLUICEGATE_MLX5_JUDGE")]
    pub judge: Option<PathBuf>,
    /// A fault of the twin, as its device arguments name it: fail_every=2, full_at=10, dead=1; or of the judged card: rule=3, counter=1+.
    /// May be repeated.
    #[arg(long, value_name = "KEY=VALUE", requires = "nic")]
    pub fault: Vec<String>,
    /// As for every replay.
    #[command(flatten)]
    pub replay: replay::Args,
}

/// Replays.
///
/// # Errors
/// As for every replay; no such profile, no driver, DPDK that does not start.
pub fn run(args: ReplayArgs) -> anyhow::Result<()> {
    let Some(name) = &args.nic else { return Ok(args.replay.run()?) };
    let faults = args.fault;
    if let Some(profile) = mlx5::profile(name) {
        let (mode, profile) = profile?;
        let library = found(args.judge, mlx5::LIBRARY, "mlx5-judge", "--judge")?;
        let snapshot = replay::load_state(&args.replay.state)?;
        let card = mlx5::Card::of(&snapshot, mode, &faults);
        if !mlx5::is_below() {
            return Err(mlx5::start_again(&library, &card)?.into());
        }
        return Ok(args.replay.run_behind(|snapshot| {
            let front = NicFront::mlx5(snapshot, profile, &library, &card).map_err(|error| error.to_string())?;
            Ok(Some(Box::new(front) as Box<dyn Front>))
        })?);
    }
    let profile = nic::profile(name)?;
    let driver = found(args.twin, twin::DRIVER, "nic-twin", "--twin")?;
    Ok(args.replay.run_behind(|snapshot| {
        let front = NicFront::twin(snapshot, profile, &driver, &faults).map_err(|error| error.to_string())?;
        Ok(Some(Box::new(front) as Box<dyn Front>))
    })?)
}

/// The file of a library of ours: the one that is named, or one beside this program.
fn found(named: Option<PathBuf>, library: &str, package: &str, option: &str) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        return Ok(named);
    }
    let own = std::env::current_exe()?;
    let beside = own.parent().unwrap_or(Path::new(".")).to_owned();
    let folders = [beside.clone(), beside.join(".."), PathBuf::from(INSTALLED)];
    let file = folders.iter().map(|folder| folder.join(library)).find(|file| file.is_file());
    file.ok_or_else(|| {
        anyhow::anyhow!(
            "{library} is not there: it is looked for in {} and {INSTALLED}; build it with \
             `cargo build -p {package}`, or name it by {option}",
            beside.display()
        )
    })
}
