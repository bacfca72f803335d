//! The line to the agent in a machine (`vm/init`): a virtio-serial port there, a unix socket here.

use std::{
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use crate::lab::{LabError, Process, interrupt, wait};

/// Between two looks at the deadline.
const TICK: Duration = Duration::from_millis(50);
/// More than any script prints here.
const LONGEST_ANSWER: usize = 16 << 20;

/// A connection whose agent is ready.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    version: String,
    /// Received, and not used yet.
    pending: Vec<u8>,
    /// An answer is still to come that nobody waits for any more.
    broken: bool,
}

impl Channel {
    /// Connects as soon as QEMU listens, which starts the machine, and waits for the agent.
    pub(super) fn open(socket: &Path, machine: &mut Process, limit: Duration) -> Result<Self, LabError> {
        let deadline = Instant::now() + limit;
        let stream = wait::until("QEMU to listen for the lab", limit, || match UnixStream::connect(socket) {
            Ok(stream) => Ok(Some(stream)),
            Err(_) => alive(machine).map(|()| None),
        })?;
        stream.set_read_timeout(Some(TICK)).map_err(LabError::io("set a timeout on the agent's socket"))?;
        stream.set_write_timeout(Some(TICK)).map_err(LabError::io("set a timeout on the agent's socket"))?;
        let mut channel = Self { stream, version: String::new(), pending: Vec::new(), broken: false };
        let first = channel.line(machine, deadline)?;
        match first.strip_prefix("ready ") {
            Some(version) => channel.version = version.to_owned(),
            None => return Err(LabError::Violated(format!("the agent's first line is no greeting: {first}"))),
        }
        Ok(channel)
    }

    /// Release of the machine's kernel.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Has a script run: its exit status and what it printed.
    pub(super) fn ask(
        &mut self,
        script: &str,
        machine: &mut Process,
        limit: Duration,
    ) -> Result<(i32, String), LabError> {
        if self.broken {
            return Err(LabError::Violated(
                "the machine's agent owes an answer: an earlier script did not end".to_owned(),
            ));
        }
        let answer = self.exchange(script, machine, Instant::now() + limit);
        self.broken = answer.is_err();
        answer
    }

    fn exchange(&mut self, script: &str, machine: &mut Process, deadline: Instant) -> Result<(i32, String), LabError> {
        self.send(format!("{}\n{script}", script.len()).as_bytes(), machine, deadline)?;
        let head = self.line(machine, deadline)?;
        let parsed = head.split_once(' ').and_then(|(status, octets)| {
            let octets = octets.parse().ok().filter(|octets| *octets <= LONGEST_ANSWER)?;
            Some((status.parse().ok()?, octets))
        });
        let Some((status, octets)) = parsed else {
            return Err(LabError::Violated(format!(
                "the agent's answer begins with `{head}`, not with status and length"
            )));
        };
        while self.pending.len() < octets {
            self.fill(machine, deadline)?;
        }
        let text = self.pending.drain(..octets).collect::<Vec<_>>();
        Ok((status, String::from_utf8_lossy(&text).into_owned()))
    }

    fn send(&mut self, mut octets: &[u8], machine: &mut Process, deadline: Instant) -> Result<(), LabError> {
        while !octets.is_empty() {
            match self.stream.write(octets) {
                Ok(sent) => octets = octets.get(sent..).unwrap_or_default(),
                Err(error) if again(&error) => check(machine, deadline)?,
                Err(error) => return Err(LabError::io("write to the machine's agent")(error)),
            }
        }
        Ok(())
    }

    fn line(&mut self, machine: &mut Process, deadline: Instant) -> Result<String, LabError> {
        loop {
            if let Some(end) = self.pending.iter().position(|octet| *octet == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            self.fill(machine, deadline)?;
        }
    }

    fn fill(&mut self, machine: &mut Process, deadline: Instant) -> Result<(), LabError> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(LabError::Violated("the machine has ended".to_owned())),
            Ok(read) => {
                self.pending.extend_from_slice(buffer.get(..read).unwrap_or_default());
                Ok(())
            }
            Err(error) if again(&error) => check(machine, deadline),
            Err(error) => Err(LabError::io("read from the machine's agent")(error)),
        }
    }
}

fn again(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn check(machine: &mut Process, deadline: Instant) -> Result<(), LabError> {
    interrupt::check()?;
    alive(machine)?;
    match Instant::now() < deadline {
        true => Ok(()),
        false => Err(LabError::Violated("the machine's agent did not answer in time".to_owned())),
    }
}

fn alive(machine: &mut Process) -> Result<(), LabError> {
    match machine.ended()? {
        None => Ok(()),
        Some(status) => Err(LabError::Violated(format!("the machine has ended with {status}"))),
    }
}
