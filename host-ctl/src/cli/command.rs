//! What each command asks the node, and which text or JSON becomes of the answer.

mod engine;

use std::{
    fmt::{self, Write as _},
    io::{self, Read as _, Write as _},
    path::Path,
    time::Duration,
};

use clap::CommandFactory as _;
use proto::{
    ReflectMessage,
    json::{self, Defaults},
    v1::{
        AddressFamily, FlowAction, FlowTier, ForwardingDelta, ForwardingState, GetDropsRequest, GetFlowRequest,
        GetHitRateRequest, GetRouteRequest, GetStateRequest, GetStatusRequest, ListAclsRequest, ListFlowsRequest,
        ListLabelsRequest, ListNeighboursRequest, ListNexthopsRequest, ListRoutesRequest, ListSasRequest,
        ListVifsRequest, ListVrfsRequest, node_client::NodeClient, offload_client::OffloadClient,
    },
};
use tonic::{Response, Status, transport::Channel};

use super::{
    Error, Exit, acl,
    args::{self, Cli, Command},
    client, drops, flow, mpls, neigh, nh, rt, sa, stats, status, vif, vrf,
};

/// Carries out a command; the answer goes to `out`.
///
/// # Errors
/// Everything that [`Error`] names. Part of the answer may have been written before.
pub fn run(cli: Cli, out: &mut impl io::Write) -> Result<Exit, Error> {
    match cli.command {
        Command::Completion { shell } => {
            // clap_complete panics when its writer fails: a pipe may be closed, memory may not.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "host-ctl", &mut script);
            out.write_all(&script)?;
            Ok(Exit::Ok)
        }
        Command::Man { dir } => man(dir.as_deref(), out),
        _ => {
            // The file is read first: what is wrong with it can be told without a node.
            let change = change(&cli.command)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let timeout = Duration::from_secs(cli.timeout);
                let client::Client { node, offload } = client::connect(&cli.socket, timeout).await?;
                let mut session = Session { node, offload, json: cli.json, seconds: cli.timeout, out };
                session.run(cli.command, change).await
            })
        }
    }
}

fn man(dir: Option<&Path>, out: &mut impl io::Write) -> Result<Exit, Error> {
    if let Some(dir) = dir {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", dir.display()));
        std::fs::create_dir_all(dir).map_err(named)?;
        clap_mangen::generate_to(Cli::command(), dir).map_err(named)?;
    } else {
        clap_mangen::Man::new(Cli::command()).render(out)?;
    }
    Ok(Exit::Ok)
}

/// What `state` has read from a file, and the file's name.
enum Change {
    None,
    State(String, Box<ForwardingState>),
    Delta(String, Box<ForwardingDelta>),
}

fn change(command: &Command) -> Result<Change, Error> {
    let Command::State(state) = command else { return Ok(Change::None) };
    Ok(match &state.what {
        args::StateWhat::Get => Change::None,
        args::StateWhat::Apply { file } => {
            let (name, text) = read(file)?;
            let state = Box::new(json::parse(&text, &name)?);
            Change::State(name, state)
        }
        args::StateWhat::Delta { file } => {
            let (name, text) = read(file)?;
            let delta = Box::new(json::parse(&text, &name)?);
            Change::Delta(name, delta)
        }
    })
}

fn read(file: &Path) -> Result<(String, String), Error> {
    let stdin = file == Path::new("-");
    let name = if stdin { "standard input".to_owned() } else { file.display().to_string() };
    let mut text = String::new();
    let read = if stdin {
        io::stdin().lock().read_to_string(&mut text).map(|_| ())
    } else {
        std::fs::read_to_string(file).map(|read| text = read)
    };
    match read {
        Ok(()) => Ok((name, text)),
        Err(source) => Err(Error::File { path: name, source }),
    }
}

/// A connection and where the answers go.
struct Session<'a, W> {
    node: NodeClient<Channel>,
    offload: OffloadClient<Channel>,
    json: bool,
    seconds: u64,
    out: &'a mut W,
}

impl<W: io::Write> Session<'_, W> {
    async fn run(&mut self, command: Command, change: Change) -> Result<Exit, Error> {
        match command {
            Command::Vif(args) => {
                let request = ListVifsRequest { ids: ids(args.get) };
                let answer = self.node.list_vifs(request).await;
                let response = self.answer(&named("vif", args.get), answer)?;
                self.show(&response, |out| vif::render(&response, out))
            }
            Command::Vrf(args) => {
                let request = ListVrfsRequest { ids: ids(args.get) };
                let answer = self.node.list_vrfs(request).await;
                let response = self.answer(&named("vrf", args.get), answer)?;
                self.show(&response, |out| vrf::render(&response, out))
            }
            Command::Vrfstats(args) => {
                let request = ListVrfsRequest { ids: ids(args.get) };
                let answer = self.node.list_vrfs(request).await;
                let response = self.answer(&named("vrf", args.get), answer)?;
                self.show(&response, |out| vrf::render_stats(&response, out))
            }
            Command::Rt(args) => self.routes(args).await,
            Command::Nh(args) => {
                let request = ListNexthopsRequest { ids: ids(args.get), follow: args.get.is_some() };
                let answer = self.node.list_nexthops(request).await;
                let response = self.answer(&named("nexthop", args.get), answer)?;
                self.show(&response, |out| nh::render(&response, out))
            }
            Command::Mpls(args) => {
                let request = ListLabelsRequest { labels: ids(args.get) };
                let answer = self.node.list_labels(request).await;
                let response = self.answer(&named("label", args.get), answer)?;
                self.show(&response, |out| mpls::render(&response, out))
            }
            Command::Flow(args) => self.flows(args).await,
            Command::Drops(args) => {
                let answer = self.node.get_drops(GetDropsRequest {}).await;
                let mut response = self.answer("drops", answer)?;
                if args.nonzero {
                    response.drops.retain(|drop| drop.packets > 0);
                }
                self.show(&response, |out| drops::render(&response, out))
            }
            Command::Neigh => {
                let answer = self.node.list_neighbours(ListNeighboursRequest {}).await;
                let response = self.answer("neighbours", answer)?;
                self.show(&response, |out| neigh::render(&response, out))
            }
            Command::Acl(args) => {
                let request = ListAclsRequest { ids: ids(args.get) };
                let answer = self.node.list_acls(request).await;
                let response = self.answer(&named("acl", args.get), answer)?;
                self.show(&response, |out| acl::render(&response, out))
            }
            Command::Sa(args) => {
                let request = ListSasRequest { ids: ids(args.get) };
                let answer = self.node.list_sas(request).await;
                let response = self.answer(&named("security association", args.get), answer)?;
                self.show(&response, |out| sa::render(&response, args.get.is_some(), out))
            }
            Command::Offload(args) => self.offload(args.what).await,
            Command::Stats(args::Stats { what: args::StatsWhat::HitRate }) => {
                let answer = self.node.get_hit_rate(GetHitRateRequest {}).await;
                let response = self.answer("hit rate", answer)?;
                self.show(&response, |out| stats::render(&response, out))
            }
            Command::Status => {
                let answer = self.node.get_status(GetStatusRequest {}).await;
                let response = self.answer("status", answer)?;
                self.show(&response, |out| status::render(&response, out))
            }
            Command::State(_) => self.state(change).await,
            // Carried out without a node.
            Command::Completion { .. } | Command::Man { .. } => Ok(Exit::Ok),
        }
    }

    async fn routes(&mut self, args: args::Rt) -> Result<Exit, Error> {
        if let (Some(prefix), Some(vrf)) = (args.what.get, args.vrf) {
            let answer = self.node.get_route(GetRouteRequest { vrf, prefix: prefix.clone() }).await;
            let what = format!("route to {prefix} in vrf {vrf}");
            return match self.answer(&what, answer) {
                Ok(response) if response.routes.is_empty() => {
                    let message = "no such route".to_owned();
                    self.no_route(Error::NotFound { what, message }, |out| rt::render_match_heading(&prefix, vrf, out))
                }
                Ok(response) => self.show(&response, |out| rt::render_match(&prefix, vrf, &response, out)),
                Err(error) => self.no_route(error, |out| rt::render_match_heading(&prefix, vrf, out)),
            };
        }
        let vrf = args.what.dump.unwrap_or_default();
        let family = match args.family {
            args::Family::Inet => AddressFamily::Inet,
            args::Family::Inet6 => AddressFamily::Inet6,
        };
        let answer = self.node.list_routes(ListRoutesRequest { vrf, family: family.into() }).await;
        match self.answer(&format!("routes of vrf {vrf}"), answer) {
            Ok(response) => self.show(&response, |out| rt::render(vrf, family, &response, out)),
            Err(error) => self.no_route(error, |out| rt::render_heading(vrf, family, out)),
        }
    }

    /// ENOENT is part of the dump: it stands under the heading. A script gets it as an error.
    fn no_route(&mut self, error: Error, heading: impl FnOnce(&mut String) -> fmt::Result) -> Result<Exit, Error> {
        if self.json || !matches!(error, Error::NotFound { .. }) {
            return Err(error);
        }
        let mut text = String::new();
        formatted(heading(&mut text).and_then(|()| rt::render_not_found(&mut text)))?;
        self.out.write_all(text.as_bytes())?;
        Ok(Exit::NotFound)
    }

    async fn flows(&mut self, args: args::Flow) -> Result<Exit, Error> {
        if let Some(index) = args.what.get {
            let what = format!("flow {index}");
            let answer = self.node.get_flow(GetFlowRequest { index }).await;
            let response = self.answer(&what, answer)?;
            if response.forward.is_none() && response.reverse.is_none() {
                return Err(Error::Incomplete { what, part: "flow" });
            }
            return self.show(&response, |out| flow::render(index, &response, out));
        }
        let filter = args.filter;
        let action = match filter.action {
            None => FlowAction::Unspecified,
            Some(args::Action::Forward) => FlowAction::Forward,
            Some(args::Action::Drop) => FlowAction::Drop,
            Some(args::Action::Nat) => FlowAction::Nat,
        };
        let tier = match filter.offload {
            None => FlowTier::Unspecified,
            Some(args::Tier::Hw) => FlowTier::Hardware,
            Some(args::Tier::Sw) => FlowTier::Software,
            Some(args::Tier::Partial) => FlowTier::Partial,
            Some(args::Tier::Pending) => FlowTier::Pending,
        };
        let request = ListFlowsRequest {
            vrf: filter.vrf,
            vif: filter.vif,
            proto: filter.proto,
            source: filter.src.unwrap_or_default(),
            destination: filter.dst.unwrap_or_default(),
            source_port: filter.sport.map(Into::into),
            destination_port: filter.dport.map(Into::into),
            action: action.into(),
            limit: filter.limit,
            pairs: filter.match_pairs,
            tier: tier.into(),
        };
        let answer = self.node.list_flows(request).await;
        let mut stream = self.answer("flows", answer)?;
        // Flows are written as they come: there may be millions.
        let mut text = String::new();
        if self.json {
            text.push_str("{\n  \"flows\": [");
        } else {
            formatted(flow::render_heading(&mut text))?;
        }
        let mut first = true;
        loop {
            self.out.write_all(text.as_bytes())?;
            text.clear();
            let next = stream.message().await.map_err(|status| Error::of_call("flows", &status, self.seconds))?;
            let Some(flow) = next else { break };
            if self.json {
                text.push_str(if first { "\n" } else { ",\n" });
                let indented = json::to_string(&flow, Defaults::Written)?.trim_end().replace('\n', "\n    ");
                text.push_str("    ");
                text.push_str(&indented);
            } else {
                formatted(flow::render_line(&flow, &mut text))?;
            }
            first = false;
        }
        if self.json {
            self.out.write_all(if first { b"]\n}\n" } else { b"\n  ]\n}\n" })?;
        }
        Ok(Exit::Ok)
    }

    async fn state(&mut self, change: Change) -> Result<Exit, Error> {
        let (name, answer) = match change {
            Change::None => {
                let answer = self.node.get_state(GetStateRequest {}).await;
                let state = self.answer("state", answer)?;
                let defaults = if self.json { Defaults::Written } else { Defaults::Skipped };
                json::write(&state, defaults, &mut *self.out)?;
                return Ok(Exit::Ok);
            }
            Change::State(name, state) => (name, self.node.apply_state(*state).await),
            Change::Delta(name, delta) => (name, self.node.apply_delta(*delta).await),
        };
        let result = answer.map_err(|status| Error::of_change(&name, &status, self.seconds))?.into_inner();
        for warning in &result.warnings {
            // It is in force all the same: no failure.
            let _ = writeln!(io::stderr(), "host-ctl: warning: {warning}");
        }
        self.show(&result, |out| writeln!(out, "Generation {} is in force", result.generation))
    }

    fn answer<T>(&self, what: &str, answer: Result<Response<T>, Status>) -> Result<T, Error> {
        answer.map(Response::into_inner).map_err(|status| Error::of_call(what, &status, self.seconds))
    }

    fn show<M: ReflectMessage>(
        &mut self,
        response: &M,
        render: impl FnOnce(&mut String) -> fmt::Result,
    ) -> Result<Exit, Error> {
        if self.json {
            json::write(response, Defaults::Written, &mut *self.out)?;
        } else {
            let mut text = String::new();
            formatted(render(&mut text))?;
            self.out.write_all(text.as_bytes())?;
        }
        Ok(Exit::Ok)
    }
}

/// A string takes everything; should it not, that is an output error.
fn formatted(result: fmt::Result) -> Result<(), Error> {
    result.map_err(|error| Error::Output(io::Error::other(error)))
}

fn ids(id: Option<u32>) -> Vec<u32> {
    id.into_iter().collect()
}

/// `vif 4113`, or `vifs` for all.
fn named(kind: &str, id: Option<u32>) -> String {
    id.map_or_else(|| format!("{kind}s"), |id| format!("{kind} {id}"))
}
