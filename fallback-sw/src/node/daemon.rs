//! What the daemons share: command line, log, initial state, start and orderly end.

use std::{
    any::Any, io::IsTerminal as _, path::PathBuf, process::ExitCode, thread::available_parallelism, time::Instant,
};

use anyhow::Context as _;
use clap::{Args, Parser, ValueEnum};
use nix::sys::{
    prctl,
    resource::{Resource, setrlimit},
};
use offload_rules::forwarding::Snapshot;
use proto::v1::node_server::NodeServer;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::Routes;

pub use super::attachment::Attachment;
use super::{
    engine_host::OffloadLink,
    ike,
    initial_state::InitialState,
    runtime::{Config, OnWorkerStart, Runtime},
    service::{self, NodeService},
    signals::Signals,
};
use crate::{
    esp::Provider,
    io::{KernelPorts, OpenPorts},
    replay,
};

/// Octets of the largest message: a state with a million routes.
const MAX_MESSAGE: usize = 512 << 20;

/// How a daemon runs.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Forwarding state to begin with: protobuf JSON of sluicegate.v1.ForwardingState. Without it the node waits for one.
    #[arg(long, value_name = "STATE.json")]
    pub state: Option<PathBuf>,
    /// Unix socket of the introspection API.
    #[arg(long, value_name = "PATH", default_value = "/run/sluicegate/node.sock", env = "SLUICEGATE_SOCKET")]
    pub socket: PathBuf,
    /// Unix socket for charon's kernel plugin (IKE with strongSwan); off unless given.
    #[arg(long, value_name = "PATH")]
    pub ike_socket: Option<PathBuf>,
    /// Worker threads; 0: one for each processor.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub workers: usize,
    /// File that keeps the state in force across restarts, of this node alone. When it is there and newer than --state, the
    /// node begins with it. Its folder has to be there.
    #[arg(long, value_name = "FILE")]
    pub last_state: Option<PathBuf>,
    /// Log as JSON.
    #[arg(long)]
    pub log_json: bool,
    /// Who does the AES-GCM of ESP. Without it fallback-sw takes graviola, and dpu-fastpath what auto finds.
    #[arg(long, value_name = "WHO")]
    pub aead: Option<AeadChoice>,
}

/// Who does the AES-GCM of ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AeadChoice {
    /// intel-ipsec-mb where it is installed and works on this processor, else graviola.
    Auto,
    /// The crate graviola, which is part of the program.
    Graviola,
    /// Intel's Multi-Buffer Crypto for IPsec Library, libIPSec_MB.so.1: it has to be installed.
    IpsecMb,
}

impl AeadChoice {
    /// All SAs from now on are ciphered by it.
    ///
    /// # Errors
    /// It was asked for by its name, and is not to be had.
    fn put_in_force(self) -> anyhow::Result<()> {
        let provider = match self {
            Self::Graviola => Provider::GRAVIOLA,
            Self::IpsecMb => Provider::ipsec_mb().context("--aead ipsec-mb")?,
            Self::Auto => Provider::ipsec_mb().unwrap_or_else(|error| {
                tracing::debug!(%error, "no intel-ipsec-mb");
                Provider::GRAVIOLA
            }),
        };
        provider.use_for_the_process();
        tracing::info!(provider = provider.name(), detail = provider.detail(), "AES-GCM of ESP");
        Ok(())
    }
}

/// What is checked.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Forwarding state: protobuf JSON of sluicegate.v1.ForwardingState.
    #[arg(long, value_name = "STATE.json")]
    pub state: PathBuf,
}

/// The environment of a node besides its state: ports, threads, offload engine.
pub struct Equipment {
    /// What opens the devices of vifs.
    pub ports: Box<dyn OpenPorts>,
    /// Called by each worker's thread as it starts.
    pub on_worker_start: Option<OnWorkerStart>,
    /// The offload engine, if there is one.
    pub offload: Option<OffloadLink>,
    /// What else belongs to the node while it runs.
    pub attachment: Option<Box<dyn Attachment>>,
    /// Who does AES-GCM when the command line does not say.
    pub aead: AeadChoice,
    /// Zero of the node's clock.
    pub epoch: Instant,
    /// Dropped when all threads of the node have ended.
    pub keep: Box<dyn Any>,
}

impl Default for Equipment {
    /// The kernel's devices.
    fn default() -> Self {
        Self {
            ports: Box::new(KernelPorts),
            on_worker_start: None,
            offload: None,
            attachment: None,
            aead: AeadChoice::Graviola,
            epoch: Instant::now(),
            keep: Box::new(()),
        }
    }
}

/// Parses the command line, does what it says and reports how that ended: 1 is an error, wrong usage too.
pub fn start<C: Parser>(carry_out: impl FnOnce(C) -> anyhow::Result<()>) -> ExitCode {
    let cli = match C::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe on help text is not an error.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match super::processor::check().and_then(|()| carry_out(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {}", C::command().get_name(), told_once(&error));
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

/// Runs a node until it is told to stop. `equip` is told the number of workers and the first state, after the socket is taken and before anything
/// is touched.
///
/// # Errors
/// A state that cannot be read, a socket that is in use, no equipment, no threads.
pub fn run(args: &RunArgs, equip: impl FnOnce(usize, &Snapshot) -> anyhow::Result<Equipment>) -> anyhow::Result<()> {
    begin_log(args.log_json);
    keep_memory_private();
    if let Some(choice) = args.aead {
        choice.put_in_force()?;
    }
    let InitialState { snapshot, last_state } = InitialState::load(args.state.as_deref(), args.last_state.as_deref())?;
    let workers = if args.workers == 0 { available_parallelism().map_or(1, usize::from) } else { args.workers };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut signals = Signals::new().context("signal handlers")?;
        // The socket comes first: a second node must not touch any interface.
        let listener = service::listen(&args.socket).await?;
        let _remove = RemoveOnDrop(args.socket.clone());
        let ike = match &args.ike_socket {
            Some(path) => Some((ike::listen(path).await?, RemoveOnDrop(path.clone()))),
            None => None,
        };
        let Equipment { ports, on_worker_start, offload, mut attachment, aead, epoch, keep } =
            equip(workers, &snapshot)?;
        if args.aead.is_none() {
            aead.put_in_force()?;
        }
        let config = Config { workers, last_state, ports, on_worker_start, offload, epoch };
        let runtime = Runtime::start(config, snapshot).context("starting the node")?;
        tracing::info!(socket = %args.socket.display(), workers, "node running");
        let _remove_ike = ike.map(|(listener, remove)| {
            tokio::spawn(ike::serve(listener, runtime.handle()));
            remove
        });
        let node = NodeServer::new(NodeService::new(runtime.handle())).max_decoding_message_size(MAX_MESSAGE);
        let mut routes = Routes::new(node);
        if let Some(attachment) = &mut attachment {
            routes = attachment.attach(&runtime.handle(), routes);
        }
        let serve = tonic::transport::Server::builder()
            .add_routes(routes)
            .serve_with_incoming(UnixListenerStream::new(listener));
        let ended = tokio::select! {
            served = serve => served.context("introspection API"),
            name = signals.end() => {
                tracing::info!("{name}");
                Ok(())
            }
        };
        if let Some(attachment) = &mut attachment {
            attachment.detach();
        }
        runtime.stop();
        drop(keep);
        ended
    })
}

/// The memory holds keys: it is written to no core file, and only root can read it.
fn keep_memory_private() {
    let limited = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    if let Err(error) = limited.and_then(|()| prctl::set_dumpable(false)) {
        tracing::warn!(%error, "core dumps could not be switched off: a crash may write keys to disk");
    }
}

fn begin_log(json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    // Colours are for people: not in a file, not in the journal.
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    if json { log.json().init() } else { log.init() }
}

struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Says whether a forwarding state is consistent, and on standard error what of it is consistent but deserves a second look.
///
/// # Errors
/// Everything that is wrong with it, or the file cannot be read.
pub fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let snapshot = replay::load_state(&args.state)?;
    for advice in offload_rules::classify::advice(&snapshot) {
        eprintln!("{}: warning: {advice}", args.state.display());
    }
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
