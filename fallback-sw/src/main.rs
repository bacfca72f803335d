//! The daemon of a customer edge, and its replay.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode, thread::available_parallelism};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use fallback_sw::{
    node::{
        machine::MachineConfig,
        runtime::{Config, Runtime},
        service::{self, NodeService},
    },
    replay::{self, ClockMode, Request},
};
use offload_rules::forwarding::Snapshot;
use proto::v1::{self as pb, node_server::NodeServer};
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::UnixListenerStream;

/// Sluicegate's software dataplane.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Forward packets until told to stop.
    Run(RunArgs),
    /// Say whether a forwarding state is consistent; change nothing.
    Check(CheckArgs),
    /// Run captures through a node: no root, no sockets, the same outcome each time.
    Replay(ReplayArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Forwarding state to begin with: protobuf JSON of sluicegate.v1.ForwardingState. Without it the node waits for one.
    #[arg(long, value_name = "STATE.json")]
    state: Option<PathBuf>,
    /// Unix socket of the introspection API.
    #[arg(long, value_name = "PATH", default_value = "/run/sluicegate/node.sock", env = "SLUICEGATE_SOCKET")]
    socket: PathBuf,
    /// Worker threads; 0: one for each processor.
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: usize,
    /// File that keeps the state in force across restarts. When it is there and newer than --state, the node begins with it.
    #[arg(long, value_name = "FILE")]
    last_state: Option<PathBuf>,
    /// Log as JSON.
    #[arg(long)]
    log_json: bool,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// Forwarding state: protobuf JSON of sluicegate.v1.ForwardingState.
    #[arg(long, value_name = "STATE.json")]
    state: PathBuf,
}

#[derive(Debug, Args)]
struct ReplayArgs {
    /// Forwarding state: protobuf JSON of sluicegate.v1.ForwardingState.
    #[arg(long, value_name = "STATE.json")]
    state: PathBuf,
    /// A capture (pcap or pcapng) and the vif that receives it, by number or name. Frames for a sub-interface carry its tag.
    #[arg(long = "in", value_name = "VIF=FILE", value_parser = input, required = true)]
    inputs: Vec<(String, PathBuf)>,
    /// Folder for one capture for each egress vif (vifN.pcap) and report.json; made when missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What the node's clock follows.
    #[arg(long, value_enum, default_value_t = ClockArg::Steady)]
    clock: ClockArg,
    /// Seconds that pass after the last frame, so that held packets time out and flows age.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    drain: u32,
    /// Workers; flows are shared out among them.
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: usize,
    /// First IPv4 identification of outer headers.
    #[arg(long, value_name = "ID", default_value_t = 1)]
    ip_id: u16,
    /// UDP source port of all tunnels, instead of 49152 + 14 bits of the flow's hash.
    #[arg(long, value_name = "PORT")]
    entropy: Option<u16>,
    /// Print the whole report as JSON instead of a summary.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ClockArg {
    /// One millisecond a frame: nothing ages.
    Steady,
    /// The captures' timestamps.
    Pcap,
}

fn input(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((vif, file)) if !vif.is_empty() && !file.is_empty() => Ok((vif.to_owned(), file.into())),
        _ => Err("write it as VIF=FILE, for example 4121=tenant.pcap".to_owned()),
    }
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => run(args),
        Command::Check(args) => check(&args),
        Command::Replay(args) => replay_captures(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fallback-sw: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: RunArgs) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if args.log_json {
        log.json().init()
    } else {
        log.init()
    }
    let snapshot = first_state(&args)?;
    let workers = if args.workers == 0 { available_parallelism().map_or(1, usize::from) } else { args.workers };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        // The socket comes first: a second node must not touch any interface.
        let listener = service::listen(&args.socket).await?;
        let _remove = RemoveOnDrop(args.socket.clone());
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let config = Config { workers, last_state: args.last_state.clone() };
        let runtime = Runtime::start(config, snapshot).context("starting the node")?;
        tracing::info!(socket = %args.socket.display(), workers, "node running");
        let serve = tonic::transport::Server::builder()
            .add_service(NodeServer::new(NodeService::new(runtime.handle())))
            .serve_with_incoming(UnixListenerStream::new(listener));
        tokio::select! {
            served = serve => served.context("introspection API")?,
            _ = terminate.recv() => tracing::info!("SIGTERM"),
            _ = interrupt.recv() => tracing::info!("SIGINT"),
        }
        runtime.stop();
        Ok(())
    })
}

/// The state to begin with: the newer one of those given and kept.
fn first_state(args: &RunArgs) -> anyhow::Result<Snapshot> {
    let given = args.state.as_deref().map(replay::load_state).transpose()?;
    let kept = match &args.last_state {
        Some(file) if file.exists() => match replay::load_state(file) {
            Ok(kept) => Some(kept),
            Err(error) if given.is_some() => {
                tracing::warn!(%error, "the kept state is of no use, beginning with --state");
                None
            }
            Err(error) => return Err(error.into()),
        },
        _ => None,
    };
    Ok(match (given, kept) {
        (Some(given), Some(kept)) if kept.generation() > given.generation() => kept,
        (Some(given), _) => given,
        (None, Some(kept)) => kept,
        (None, None) => Snapshot::empty(),
    })
}

struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let snapshot = replay::load_state(&args.state)?;
    println!(
        "{}: generation {}, {} vifs, {} VRFs, {} nexthops: consistent",
        args.state.display(),
        snapshot.generation(),
        snapshot.vifs().count(),
        snapshot.vrfs().count(),
        snapshot.nexthops().count()
    );
    Ok(())
}

fn replay_captures(args: ReplayArgs) -> anyhow::Result<()> {
    let request = Request {
        state: args.state,
        inputs: args.inputs,
        out: args.out,
        clock: match args.clock {
            ClockArg::Steady => ClockMode::Steady,
            ClockArg::Pcap => ClockMode::Pcap,
        },
        machine: MachineConfig {
            workers: args.workers.max(1),
            ip_id: args.ip_id,
            entropy: args.entropy,
            ..MachineConfig::default()
        },
        drain_secs: args.drain,
    };
    let report = replay::run(&request)?;
    if args.json {
        println!("{}", proto::json::to_string(&report, proto::json::Defaults::Written)?);
    } else {
        print!("{}", summary(&report)?);
    }
    let unaccounted = report.packets.map_or(0, |packets| packets.unaccounted);
    anyhow::ensure!(unaccounted == 0, "{unaccounted} packets are unaccounted for");
    Ok(())
}

fn summary(report: &pb::ReplayReport) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let p = report.packets.unwrap_or_default();
    writeln!(
        text,
        "received {} = forwarded {} + punted {} + consumed {} + dropped {} + held {}; unaccounted {}; originated {}",
        p.received, p.forwarded, p.punted, p.consumed, p.dropped, p.held, p.unaccounted, p.originated
    )?;
    for drop in report.drops.iter().filter(|drop| drop.packets > 0) {
        writeln!(text, "dropped: {} {}", drop.reason, drop.packets)?;
    }
    for output in &report.outputs {
        writeln!(text, "vif {}: {} packets in {}", output.vif, output.packets, output.file)?;
    }
    writeln!(text, "flows: {}; details in report.json", report.flows.len())?;
    Ok(text)
}
