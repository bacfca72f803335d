//! `iperf3` over TCP and UDP.

use std::time::Duration;

use super::{Host, LabError, Process, wait};

/// A server that takes one test after the other.
#[derive(Debug)]
pub struct IperfServer {
    process: Process,
    port: u16,
}

/// What the client measured.
#[derive(Debug, Clone)]
pub struct IperfReport {
    /// Goodput at the receiver, bits per second.
    pub bits_per_second: f64,
    /// Octets that the receiver got.
    pub octets: u64,
    /// TCP segments sent again.
    pub retransmits: u64,
    /// TCP connections.
    pub streams: usize,
}

/// What the receiver of numbered UDP datagrams measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IperfDatagrams {
    /// At the receiver, bits per second.
    pub bits_per_second: f64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Of these, how many did not arrive.
    pub lost: u64,
    /// How many came after one with a higher number.
    pub out_of_order: u64,
}

/// A stream of UDP datagrams.
#[derive(Debug, Clone, Copy)]
pub struct DatagramLoad {
    /// Mbit/s.
    pub megabits: u32,
    /// Octets of a datagram.
    pub octets: u32,
}

impl IperfServer {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(host: &Host, port: u16) -> Result<Self, LabError> {
        let process = host.namespace().spawn("iperf3", &["--server", "--port", &port.to_string()])?;
        let mut server = Self { process, port };
        listening(&mut server.process, port)?;
        Ok(server)
    }

    /// Runs a client against it for some seconds. `reverse`: the server sends.
    ///
    /// # Errors
    /// When the test fails.
    pub fn test(
        &self,
        client: &Host,
        server: &str,
        seconds: u32,
        streams: u32,
        reverse: bool,
    ) -> Result<IperfReport, LabError> {
        let running = self.spawn(client, server, seconds, streams, reverse)?;
        Self::finish(running, seconds)
    }

    /// Starts such a client; [`IperfServer::finish`] waits for it.
    ///
    /// # Errors
    /// As for [`Process::spawn`].
    pub fn spawn(
        &self,
        client: &Host,
        server: &str,
        seconds: u32,
        streams: u32,
        reverse: bool,
    ) -> Result<Process, LabError> {
        let mut command = client.namespace().command("iperf3");
        command.args(["--client", server, "--port", &self.port.to_string(), "--json", "--connect-timeout", "5000"]);
        command.args(["--time", &seconds.to_string(), "--parallel", &streams.to_string()]);
        if reverse {
            command.arg("--reverse");
        }
        Process::spawn(command)
    }

    /// Starts a client that sends numbered UDP datagrams; [`IperfServer::finish_datagrams`]
    /// waits for it. `reverse`: the server sends.
    ///
    /// # Errors
    /// As for [`Process::spawn`].
    pub fn spawn_datagrams(
        &self,
        client: &Host,
        server: &str,
        seconds: u32,
        load: DatagramLoad,
        reverse: bool,
    ) -> Result<Process, LabError> {
        let DatagramLoad { megabits, octets } = load;
        let mut command = client.namespace().command("iperf3");
        command.args(["--client", server, "--port", &self.port.to_string(), "--json", "--connect-timeout", "5000"]);
        command.args(["--udp", "--bitrate", &format!("{megabits}M"), "--length", &octets.to_string()]);
        command.args(["--time", &seconds.to_string(), "--get-server-output"]);
        if reverse {
            command.arg("--reverse");
        }
        Process::spawn(command)
    }

    /// Waits for such a client and reads what the receiver measured.
    ///
    /// # Errors
    /// When the test failed.
    pub fn finish_datagrams(client: Process, seconds: u32) -> Result<IperfDatagrams, LabError> {
        let output = client.wait(Duration::from_secs(u64::from(seconds) + 20))?;
        let command = output.command.clone();
        let text = output.success()?;
        let unexpected =
            || LabError::Unexpected { command: command.clone(), expected: "sums in JSON", output: text.clone() };
        let json: serde_json::Value = serde_json::from_str(&text).map_err(|_| unexpected())?;
        let number = |path: &str| json.pointer(path).and_then(serde_json::Value::as_u64).ok_or_else(unexpected);
        let rate = json.pointer("/end/streams/0/udp/bits_per_second").and_then(serde_json::Value::as_f64);
        Ok(IperfDatagrams {
            bits_per_second: rate.ok_or_else(unexpected)?,
            datagrams: number("/end/streams/0/udp/packets")?,
            lost: number("/end/streams/0/udp/lost_packets")?,
            out_of_order: number("/end/streams/0/udp/out_of_order")?,
        })
    }

    /// Waits for a client and reads its report.
    ///
    /// # Errors
    /// When the test failed.
    pub fn finish(client: Process, seconds: u32) -> Result<IperfReport, LabError> {
        let output = client.wait(Duration::from_secs(u64::from(seconds) + 20))?;
        let command = output.command.clone();
        let text = output.success()?;
        let unexpected =
            || LabError::Unexpected { command: command.clone(), expected: "sums in JSON", output: text.clone() };
        let json: serde_json::Value = serde_json::from_str(&text).map_err(|_| unexpected())?;
        let at = |path: &str| json.pointer(path);
        Ok(IperfReport {
            bits_per_second: at("/end/sum_received/bits_per_second").and_then(|v| v.as_f64()).ok_or_else(unexpected)?,
            octets: at("/end/sum_received/bytes").and_then(serde_json::Value::as_u64).ok_or_else(unexpected)?,
            retransmits: at("/end/sum_sent/retransmits").and_then(serde_json::Value::as_u64).unwrap_or(0),
            streams: at("/end/streams").and_then(|v| v.as_array()).map_or(0, Vec::len),
        })
    }
}

impl std::fmt::Display for IperfReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let megabits = self.bits_per_second / 1e6;
        write!(
            f,
            "{megabits:.0} Mbit/s, {} octets, {} retransmits, {} connections",
            self.octets, self.retransmits, self.streams
        )
    }
}

impl std::fmt::Display for IperfDatagrams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bits_per_second, datagrams, lost, out_of_order } = self;
        write!(
            f,
            "{:.0} Mbit/s, {datagrams} datagrams, {lost} lost, {out_of_order} out of order",
            bits_per_second / 1e6
        )
    }
}

/// Waits until a server's process has a TCP socket that listens on the port, and fails with its output when it ends before.
pub(crate) fn listening(process: &mut Process, port: u16) -> Result<(), LabError> {
    let what = format!("`{}` to listen on port {port}", process.command());
    wait::until(&what, Duration::from_secs(10), || {
        if let Some(status) = process.ended()? {
            let output = format!("{}{}", process.stdout(), process.stderr());
            return Err(LabError::Command { command: process.command().to_owned(), status, output });
        }
        // The table of the process's own namespace: local address, and state 0A for LISTEN.
        let suffix = format!(":{port:04X}");
        let listens = ["tcp", "tcp6"].iter().any(|table| {
            let text = std::fs::read_to_string(format!("/proc/{}/net/{table}", process.pid())).unwrap_or_default();
            text.lines().skip(1).any(|line| {
                let mut columns = line.split_whitespace().skip(1);
                columns.next().is_some_and(|local| local.ends_with(&suffix)) && columns.nth(1) == Some("0A")
            })
        });
        Ok(listens.then_some(()))
    })
}
