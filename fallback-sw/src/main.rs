//! The daemon of a customer edge, and its replay.

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode, thread::available_parallelism};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use fallback_sw::{
    node::{
        runtime::{Config, Runtime},
        service::{self, NodeService},
    },
    replay,
};
use offload_rules::forwarding::Snapshot;
use proto::v1::node_server::NodeServer;
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
    Replay(replay::Args),
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

/// Octets of the largest message: a state with a million routes.
const MAX_MESSAGE: usize = 512 << 20;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe on help text is nobody's concern.
            let _ = error.print();
            // As everywhere: 1 is an error, wrong usage too.
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let outcome = match cli.command {
        Command::Run(args) => run(args),
        Command::Check(args) => check(&args),
        Command::Replay(args) => args.run().map_err(Into::into),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fallback-sw: {}", told_once(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, without those that it tells itself.
fn told_once(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn run(args: RunArgs) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    // Colours are for people: not in a file, not in the journal.
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
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
        let config = Config { workers, last_state: args.last_state.clone(), offload: None };
        let runtime = Runtime::start(config, snapshot).context("starting the node")?;
        tracing::info!(socket = %args.socket.display(), workers, "node running");
        let serve = tonic::transport::Server::builder()
            .add_service(NodeServer::new(NodeService::new(runtime.handle())).max_decoding_message_size(MAX_MESSAGE))
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
