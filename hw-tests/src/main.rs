//! `hw-tests`: the demo, a lab to look around in, and the kernel I/O benchmark.

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use hw_tests::{
    bench_io, demo, demo_offload,
    lab::{EdgeOptions, INTERRUPTED_EXIT_CODE, LabError, Nic, Options, sweep},
};
use proto::v1::IoDriver;

/// Labs of network namespaces for Sluicegate.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Two tenants between two sites through a regional edge: ping, curl, iperf3, rekeys, and the dumps of the nodes; then two sites
    /// with a NIC under CE1. Ends with "demo: ok".
    Demo {
        #[command(flatten)]
        lab: LabArguments,
        /// Profile of the NIC in the second part.
        #[arg(long, default_value = "twin")]
        nic: String,
    },
    /// Build the demo's topology and keep it until Ctrl-C.
    Lab {
        #[command(flatten)]
        lab: LabArguments,
        /// Two transit paths in the clear instead of a regional edge.
        #[arg(long)]
        plain: bool,
        /// The regional edge drives the twin of a NIC of this profile.
        #[arg(long, value_name = "PROFILE", conflicts_with_all = ["without_nodes", "plain"])]
        edge_nic: Option<String>,
        /// Only hosts, links and transit: no nodes.
        #[arg(long)]
        without_nodes: bool,
        /// CE1 drives the twin of a NIC of this profile.
        #[arg(long, value_name = "PROFILE", conflicts_with = "without_nodes")]
        nic: Option<String>,
    },
    /// Remove what labs that were killed have left.
    Sweep,
    /// Kernel I/O of a node on veth beside dpdk-testpmd on the same veth.
    BenchIo {
        /// Seconds of each measurement.
        #[arg(long, default_value_t = 3)]
        seconds: u32,
    },
}

#[derive(Debug, clap::Args)]
struct LabArguments {
    /// Worker threads of each node.
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// How the nodes read and write their devices.
    #[arg(long, value_enum, default_value_t = Driver::Auto)]
    driver: Driver,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Driver {
    /// AF_XDP where the device takes it.
    Auto,
    AfXdp,
    AfPacket,
}

impl LabArguments {
    fn options(&self, nodes: bool) -> Options {
        let driver = match self.driver {
            Driver::Auto => IoDriver::Auto,
            Driver::AfXdp => IoDriver::AfXdp,
            Driver::AfPacket => IoDriver::AfPacket,
        };
        Options { workers: self.workers, driver, nodes, ..Options::default() }
    }
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo { lab, nic } => {
            let options = lab.options(true);
            let result = demo::run(&options).and_then(|()| demo_offload::run(&options, &nic));
            match &result {
                Ok(()) => println!("demo: ok"),
                Err(error) => println!("demo: FAILED: {error}"),
            }
            result
        }
        Command::Lab { lab, plain, edge_nic, without_nodes, nic } => {
            let nic = nic.as_deref().map(Nic::of);
            let edge =
                (!plain).then(|| EdgeOptions { nic: edge_nic.as_deref().map(Nic::of), ..EdgeOptions::default() });
            demo::hold(&Options { nic, edge, ..lab.options(!without_nodes) })
        }
        Command::Sweep => sweep().map(|removed| removed.iter().for_each(|what| println!("removed {what}"))),
        Command::BenchIo { seconds } => bench_io::run(seconds),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(LabError::Interrupted) => ExitCode::from(INTERRUPTED_EXIT_CODE),
        Err(error) => {
            eprintln!("hw-tests: {error}");
            ExitCode::FAILURE
        }
    }
}
