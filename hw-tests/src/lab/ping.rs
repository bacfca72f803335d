//! `ping` and what it reports.

use std::time::Duration;

use super::{LabError, Namespace, Output, Process, process};

/// Which pings to send.
#[derive(Debug, Clone, Copy)]
pub struct Ping<'a> {
    /// Address of either family.
    pub destination: &'a str,
    /// Number of requests.
    pub count: u32,
    /// Between two requests; root may go below 2 ms.
    pub interval: Duration,
    /// Octets of ICMP data; the packet is 28 (v4) or 48 (v6) longer.
    pub size: u16,
    /// Set DF and do not fragment here, whatever MTU is known (`-M probe`), or heed the learnt MTU (`-M do`).
    pub fragment: Fragment,
    /// Initial TTL or hop limit.
    pub ttl: Option<u8>,
    /// Up to 16 octets that the data repeats.
    pub pattern: Option<&'a [u8]>,
}

/// What `ping -M` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// DF clear: fragmented where needed.
    Allowed,
    /// DF set; larger than the known path MTU is refused by the host.
    Forbidden,
}

impl<'a> Ping<'a> {
    /// Three small pings, fast.
    #[must_use]
    pub const fn to(destination: &'a str) -> Self {
        Self {
            destination,
            count: 3,
            interval: Duration::from_millis(50),
            size: 56,
            fragment: Fragment::Allowed,
            ttl: None,
            pattern: None,
        }
    }

    /// With this number of requests.
    #[must_use]
    pub const fn count(self, count: u32) -> Self {
        Self { count, ..self }
    }

    /// With this pause between two requests.
    #[must_use]
    pub const fn interval(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// With this many octets of data.
    #[must_use]
    pub const fn size(self, size: u16) -> Self {
        Self { size, ..self }
    }

    /// With DF set.
    #[must_use]
    pub const fn do_not_fragment(self) -> Self {
        Self { fragment: Fragment::Forbidden, ..self }
    }

    /// With this TTL or hop limit.
    #[must_use]
    pub const fn ttl(self, ttl: u8) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    /// With data that repeats these octets, at most 16.
    #[must_use]
    pub const fn pattern(self, pattern: &'a [u8]) -> Self {
        Self { pattern: Some(pattern), ..self }
    }

    /// Starts it; [`PingReport::from_output`] reads what it leaves.
    ///
    /// # Errors
    /// As for [`Process::spawn`].
    pub fn spawn(&self, namespace: &Namespace) -> Result<Process, LabError> {
        let mut command = namespace.command("ping");
        command.args(["-n", "-W", "1"]);
        command.args(["-c", &self.count.to_string(), "-i", &format!("{:.4}", self.interval.as_secs_f64())]);
        command.args(["-s", &self.size.to_string()]);
        command.args(["-M", if self.fragment == Fragment::Forbidden { "do" } else { "dont" }]);
        if let Some(ttl) = self.ttl {
            command.args(["-t", &ttl.to_string()]);
        }
        if let Some(pattern) = self.pattern {
            let digits: String = pattern.iter().map(|octet| format!("{octet:02x}")).collect();
            command.args(["-p", &digits]);
        }
        Process::spawn({
            command.arg(self.destination);
            command
        })
    }

    /// How long it may take.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.interval * self.count + Duration::from_secs(10)
    }

    /// Runs it to its end in a namespace.
    ///
    /// # Errors
    /// When `ping` cannot run.
    pub fn run(&self, namespace: &Namespace) -> Result<PingReport, LabError> {
        PingReport::from_output(self.spawn(namespace)?.wait(self.limit())?)
    }

    /// The command line as one would type it on the host.
    #[must_use]
    pub fn command_line(&self) -> String {
        let mut command = std::process::Command::new("ping");
        command.args(["-c", &self.count.to_string(), "-s", &self.size.to_string(), self.destination]);
        process::command_line(&command)
    }
}

/// What `ping` saw.
#[derive(Debug, Clone)]
pub struct PingReport {
    /// Requests sent.
    pub sent: u32,
    /// Replies received.
    pub received: u32,
    /// Replies received more than once.
    pub duplicates: u32,
    /// Requests that an ICMP error answered, or that the host itself refused to send.
    pub errors: u32,
    /// All that it printed.
    pub text: String,
}

impl PingReport {
    /// Reads the summary.
    ///
    /// # Errors
    /// [`LabError::Unexpected`] when there is none.
    pub fn from_output(output: Output) -> Result<Self, LabError> {
        let text = format!("{}{}", output.stdout, output.stderr);
        let summary = text.lines().find(|line| line.contains("packets transmitted"));
        let number = |what: &str| {
            let before = summary?.split(", ").find(|part| part.contains(what))?;
            before.trim_start_matches('+').split_whitespace().next()?.parse().ok()
        };
        match (number("packets transmitted"), number("received")) {
            (Some(sent), Some(received)) => Ok(Self {
                sent,
                received,
                duplicates: number("duplicates").unwrap_or(0),
                errors: number("errors").unwrap_or(0),
                text,
            }),
            _ => Err(LabError::Unexpected { command: output.command, expected: "a summary of packets", output: text }),
        }
    }

    /// The two lines at the end: counts and round-trip times.
    #[must_use]
    pub fn summary(&self) -> String {
        let wanted = |line: &&str| line.contains("packets transmitted") || line.starts_with("rtt");
        self.text.lines().filter(wanted).collect::<Vec<_>>().join("; ")
    }

    /// Every request was answered exactly once.
    ///
    /// # Errors
    /// [`LabError::Violated`] with all that ping printed.
    pub fn all_answered(self) -> Result<Self, LabError> {
        if self.sent > 0 && self.sent == self.received && self.duplicates == 0 && self.errors == 0 {
            return Ok(self);
        }
        Err(LabError::Violated(format!("not every ping was answered once:\n{}", self.text)))
    }

    /// No request was answered.
    ///
    /// # Errors
    /// [`LabError::Violated`] with all that ping printed.
    pub fn none_answered(self) -> Result<Self, LabError> {
        if self.sent > 0 && self.received == 0 {
            return Ok(self);
        }
        Err(LabError::Violated(format!("pings were answered that must not be:\n{}", self.text)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn report(text: &str) -> PingReport {
        let output = Output {
            command: "ping".to_owned(),
            status: std::process::ExitStatus::from_raw(0),
            stdout: text.to_owned(),
            stderr: String::new(),
        };
        PingReport::from_output(output).unwrap()
    }

    #[test]
    fn the_summary_of_ping_is_read_with_and_without_errors() {
        let clean = report(
            "3 packets transmitted, 3 received, 0% packet loss, time 102ms\nrtt min/avg/max/mdev = 1/2/3/0 ms\n",
        );
        assert_eq!((clean.sent, clean.received, clean.errors), (3, 3, 0));
        let errors = report("5 packets transmitted, 1 received, +2 duplicates, +4 errors, 80% packet loss, time 1ms\n");
        assert_eq!((errors.sent, errors.received, errors.duplicates, errors.errors), (5, 1, 2, 4));
        assert!(errors.all_answered().is_err());
    }
}
