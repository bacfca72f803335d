//! A node with strongSwan's charon beside it, and a stock strongSwan at the other end: docs/examples/ike, with real IKE between them.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use prost_reflect::ReflectMessage;
use proto::v1;

use super::{
    End, Lab, LabError, Namespace, Node, NodeConfig, Ping, PingReport, Process, Sequence, Veth, process, tools, wait,
};

const TIME: Duration = Duration::from_secs(20);
const PORT: u16 = 7000;
const DAEMON: &str = "charon-systemd";
const CONNECTION: &str = "peer";
const CHILD: &str = "net";
const HOST: &str = "192.168.100.100";
const FAR: &str = "192.168.1.100";

/// A charon that runs.
#[derive(Debug)]
pub struct Charon {
    process: Process,
    vici: PathBuf,
    /// Of both programs: `swanctl` wants one, too, and a machine into which strongSwan is not installed has none.
    conf: PathBuf,
}

impl Charon {
    fn start(lab: &Path, namespace: &Namespace, name: &str, plugin: Option<&Path>) -> Result<Self, LabError> {
        let vici = lab.join(format!("{name}.vici"));
        let conf = lab.join(format!("{name}.strongswan.conf"));
        let mut command = namespace.command("env");
        command.arg(format!("STRONGSWAN_CONF={}", conf.display()));
        if let Some(plugin) = plugin {
            // charon looks for a plugin among what is loaded before it looks into its folder: nothing is installed for a test.
            command.arg(format!("{}={}", tools::preload_variable(DAEMON), plugin.display()));
        }
        command.args(tools::launcher(DAEMON.as_ref())).arg(DAEMON);
        let _ = fs::remove_file(&vici);
        let mut charon = Self { process: Process::spawn(command)?, vici, conf };
        wait::until(&format!("charon of {name} to answer"), TIME, || {
            if let Some(status) = charon.process.ended()? {
                let output = format!("{}{}", charon.process.stdout(), charon.process.stderr());
                return Err(LabError::Command { command: charon.process.command().to_owned(), status, output });
            }
            Ok(charon.swanctl(&["--version"]).ok().filter(|_| charon.swanctl(&["--stats"]).is_ok()).map(drop))
        })?;
        let file = lab.join(format!("{name}.swanctl.conf"));
        charon.swanctl(&["--load-all", "--file", &file.display().to_string()])?;
        Ok(charon)
    }

    /// What `swanctl` prints.
    ///
    /// # Errors
    /// [`LabError::Command`].
    pub fn swanctl(&self, arguments: &[&str]) -> Result<String, LabError> {
        let mut command = tools::command("swanctl");
        command.env("STRONGSWAN_CONF", &self.conf);
        let (verb, rest) = arguments.split_at(1);
        command.args(verb).arg("--uri").arg(format!("unix://{}", self.vici.display())).args(rest);
        process::run(command, TIME)?.success()
    }

    /// Begins to negotiate.
    ///
    /// # Errors
    /// What `swanctl` says.
    pub fn initiate(&self) -> Result<String, LabError> {
        self.swanctl(&["--initiate", "--child", CHILD, "--timeout", "10"])
    }

    /// New keys for ESP.
    ///
    /// # Errors
    /// What `swanctl` says.
    pub fn rekey_child(&self) -> Result<String, LabError> {
        self.swanctl(&["--rekey", "--child", CHILD])
    }

    /// New keys for IKE.
    ///
    /// # Errors
    /// What `swanctl` says.
    pub fn rekey_ike(&self) -> Result<String, LabError> {
        self.swanctl(&["--rekey", "--ike", CONNECTION])
    }

    /// As a crash would.
    ///
    /// # Errors
    /// [`LabError::Timeout`] when it does not go.
    pub fn kill(&mut self) -> Result<(), LabError> {
        self.process.signal(nix::sys::signal::Signal::SIGKILL)?;
        wait::until("charon to be gone", TIME, || Ok(self.process.ended()?.map(drop)))
    }
}

/// The two ends. Fields end in this order.
#[derive(Debug)]
pub struct IkeLab {
    charon: Charon,
    peer: Charon,
    node: Node,
    config: NodeConfig,
    plugin: PathBuf,
    host: Namespace,
    ours: Namespace,
    theirs: Namespace,
    lab: Lab,
}

impl IkeLab {
    /// Builds it, with this ESP proposal; nothing is negotiated yet.
    ///
    /// # Errors
    /// No strongSwan, and what namespaces, node and charon fail with.
    pub fn new(esp: &str) -> Result<Self, LabError> {
        Self::with(esp, |_| ())
    }

    /// Like [`IkeLab::new`], with a tunnel whose other end is whoever authenticates.
    ///
    /// # Errors
    /// As for [`IkeLab::new`].
    pub fn with_any_peer(esp: &str) -> Result<Self, LabError> {
        Self::with(esp, |state| {
            for tunnel in state.vifs.iter_mut().filter_map(|vif| vif.tunnel.as_mut()) {
                tunnel.destination.clear();
            }
        })
    }

    fn with(esp: &str, change: impl FnOnce(&mut v1::ForwardingState)) -> Result<Self, LabError> {
        let plugin = plugin()?;
        let lab = Lab::new()?;
        let [ours, theirs, host] = ["ours", "theirs", "host"].map(|role| lab.namespace(role));
        let (ours, theirs, host) = (ours?, theirs?, host?);
        for namespace in [&ours, &theirs, &host] {
            namespace.silence_ipv6()?;
        }
        let end = |namespace, device, mac| End { namespace, device, mac };
        Veth::plug(end(&ours, "wan", "02:00:00:00:01:01"), end(&theirs, "wan", "02:00:00:00:01:02"), 1500)?;
        Veth::plug(end(&ours, "lan", "02:00:00:00:02:01"), end(&host, "lan", "02:00:00:00:02:02"), 1500)?;
        theirs.ip("addr add 10.9.0.2/24 dev wan")?;
        theirs.ip(&format!("addr add {FAR}/32 dev lo"))?;
        host.ip(&format!("addr add {HOST}/24 dev lan"))?;
        host.ip("route add default via 192.168.100.1")?;
        // charon has the tunnel's source, whether the node's device is there or not.
        ours.ip("addr add 10.9.0.1/32 dev lo")?;
        // AF_PACKET leaves the kernel its copy of each frame; what is for charon must come over the Host vif only.
        for device in ["all", "wan", "lan"] {
            ours.sysctl(&format!("ipv4/conf/{device}/rp_filter"), "1")?;
        }
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/ike");
        let read = |name: &str| {
            let path = example.join(name);
            fs::read_to_string(&path).map_err(LabError::io(format!("read {}", path.display())))
        };
        let folder = lab.directory();
        let write = |name: String, text: String| {
            fs::write(folder.join(&name), text).map_err(LabError::io(format!("write {name}")))
        };
        let socket = folder.join("us.ike.sock").display().to_string();
        for (name, prefix) in [("us", ""), ("peer", "peer-")] {
            let conf = read(&format!("{prefix}strongswan.conf"))?.replace("/run/sluicegate/ike.sock", &socket);
            let vici = folder.join(format!("{name}.vici")).display().to_string();
            let conf = conf.replace("/run/charon.vici", &vici).replace("/run/peer.vici", &vici);
            write(format!("{name}.strongswan.conf"), conf)?;
            let text = read(&format!("{prefix}swanctl.conf"))?;
            write(
                format!("{name}.swanctl.conf"),
                text.replace("esp_proposals = aes256gcm16", &format!("esp_proposals = {esp}")),
            )?;
        }
        let mut state = state(&read("node.json")?)?;
        change(&mut state);
        let config = NodeConfig { state, workers: 2, last_state: None, nic: None };
        let node = Node::start(&lab, &ours, &config)?;
        host_device(&ours)?;
        let charon = Charon::start(folder, &ours, "us", Some(&plugin))?;
        let peer = Charon::start(folder, &theirs, "peer", None)?;
        Ok(Self { charon, peer, node, config, plugin, host, ours, theirs, lab })
    }

    /// Our charon.
    #[must_use]
    pub const fn charon(&self) -> &Charon {
        &self.charon
    }

    /// That of the other end.
    #[must_use]
    pub const fn peer(&self) -> &Charon {
        &self.peer
    }

    /// The node.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// Kills our charon, does something without it, and starts it again.
    ///
    /// # Errors
    /// As for starting it, and what `without` fails with.
    pub fn restart_charon(&mut self, without: impl FnOnce(&Self) -> Result<(), LabError>) -> Result<(), LabError> {
        self.charon.kill()?;
        without(self)?;
        self.charon = Charon::start(self.lab.directory(), &self.ours, "us", Some(&self.plugin))?;
        Ok(())
    }

    /// Kills the other end's charon and starts it again: it knows nothing any more.
    ///
    /// # Errors
    /// As for starting it.
    pub fn restart_peer(&mut self) -> Result<(), LabError> {
        self.peer.kill()?;
        self.peer = Charon::start(self.lab.directory(), &self.theirs, "peer", None)?;
        Ok(())
    }

    /// Kills the node and starts it again.
    ///
    /// # Errors
    /// As for starting it.
    pub fn restart_node(&mut self) -> Result<(), LabError> {
        self.node.kill()?;
        self.node = Node::start(&self.lab, &self.ours, &self.config)?;
        host_device(&self.ours)
    }

    /// From the host to the one behind the other end.
    ///
    /// # Errors
    /// Not every packet is answered.
    pub fn ping(&self) -> Result<(), LabError> {
        let ping = Ping::to(FAR);
        PingReport::from_output(ping.spawn(&self.host)?.wait(ping.limit())?)?.all_answered().map(drop)
    }

    /// Waits until a packet goes there and back.
    ///
    /// # Errors
    /// [`LabError::Timeout`].
    pub fn until_it_works(&self) -> Result<(), LabError> {
        wait::until("traffic through the tunnel", Duration::from_secs(40), || {
            let output = self.host.run("ping", &["-c", "1", "-W", "1", FAR], TIME)?;
            Ok(output.status.success().then_some(()))
        })
    }

    /// Numbered datagrams, each sent back.
    ///
    /// # Errors
    /// No sockets.
    pub fn sequence(&self) -> Result<Sequence, LabError> {
        let near = SocketAddr::from(([192, 168, 100, 100], PORT));
        let far = SocketAddr::from(([192, 168, 1, 100], PORT));
        Sequence::between((&self.host, near), (&self.theirs, far), Duration::from_millis(1))
    }

    /// SAs of the node: inbound and outbound, with the indices of those that send.
    ///
    /// # Errors
    /// The node does not answer.
    pub fn sas(&self) -> Result<Vec<v1::SaInfo>, LabError> {
        self.node.client().sas()
    }
}

/// The TAP device that the node has made: toward charon.
fn host_device(ours: &Namespace) -> Result<(), LabError> {
    wait::until("the node's TAP device", TIME, || Ok(ours.ip("link show sg-host").ok()))?;
    ours.ip("link set sg-host address 02:00:00:00:00:50")?;
    ours.sysctl("ipv4/conf/sg-host/rp_filter", "1")?;
    ours.ip("addr add 169.254.1.2/30 dev sg-host")?;
    ours.ip("link set sg-host up")?;
    ours.ip("route add default via 169.254.1.1 src 10.9.0.1").map(drop)
}

fn state(text: &str) -> Result<v1::ForwardingState, LabError> {
    let bad = |error: String| LabError::Violated(format!("docs/examples/ike/node.json: {error}"));
    let mut reader = serde_json::Deserializer::from_str(text);
    let message = prost_reflect::DynamicMessage::deserialize(v1::ForwardingState::default().descriptor(), &mut reader);
    message.map_err(|e| bad(e.to_string()))?.transcode_to().map_err(|e| bad(e.to_string()))
}

/// Builds charon's plugin where it is out of date.
fn plugin() -> Result<PathBuf, LabError> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("charon-plugin/build.sh");
    let mut command = Command::new(script);
    if !tools::launcher(DAEMON.as_ref()).is_empty() {
        command.arg("--tools");
    }
    let output = process::run(command, Duration::from_secs(60))?.success()?;
    Ok(PathBuf::from(output.trim()))
}
