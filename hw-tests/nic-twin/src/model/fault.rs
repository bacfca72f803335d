//! Faults and delays on demand: capacity, delay and failure are what breaks offload in the field. Everything is counted, nothing is
//! random.

use std::time::Duration;

use super::error::{EAGAIN, EBUSY, EEXIST, EINVAL, ENOENT, ENOMEM, ENOSPC, ENOSYS, ENOTSUP, Errno};

/// Why a fault is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// The key is none of the faults.
    #[error(
        "unknown fault {0:?}; known: fail, fail_every, fail_errno, dead, slow, rate, full_at, counters, refresh, reset_at, sa_full_at, no_floor, swallow"
    )]
    UnknownKey(String),
    /// The value is no number, or too large.
    #[error("{key}={value}: expected {expected}")]
    BadValue {
        /// The key.
        key: String,
        /// The value given.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A control line is neither a command nor `key=value`.
    #[error("unknown command {0:?}; known: reset, clear, KEY=VALUE")]
    UnknownCommand(String),
}

/// One fault; see the fields of [`Faults`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `fail=N`.
    Fail(u64),
    /// `fail_every=N`.
    FailEvery(u64),
    /// `fail_errno=ENOSPC` or a number.
    FailErrno(Errno),
    /// `dead=1`.
    Dead(bool),
    /// `slow=MS`.
    Slow(Duration),
    /// `rate=RULES_PER_SECOND`.
    Rate(u64),
    /// `full_at=N`.
    FullAt(u64),
    /// `counters=N`.
    Counters(u64),
    /// `refresh=MS`.
    Refresh(Duration),
    /// `reset_at=N`.
    ResetAt(u64),
    /// `sa_full_at=N`.
    SaFullAt(u64),
    /// `no_floor=1`.
    NoFloor(bool),
    /// `swallow=1`.
    Swallow(bool),
}

impl Fault {
    /// Parses a vdev argument or the two sides of a control line.
    ///
    /// # Errors
    /// Says which keys there are, or what the value should be.
    pub fn parse(key: &str, value: &str) -> Result<Fault, FaultError> {
        let bad = |expected| FaultError::BadValue { key: key.to_owned(), value: value.to_owned(), expected };
        let number = || value.parse::<u64>().map_err(|_| bad("a whole number"));
        let positive = || value.parse::<u64>().ok().filter(|&n| n > 0).ok_or_else(|| bad("a number above 0"));
        let millis =
            || value.parse::<u32>().map(|ms| Duration::from_millis(ms.into())).map_err(|_| bad("milliseconds"));
        let yes = || match value {
            "0" => Ok(false),
            "1" => Ok(true),
            _ => Err(bad("0 or 1")),
        };
        Ok(match key {
            "fail" => Fault::Fail(positive()?),
            "fail_every" => Fault::FailEvery(positive()?),
            "fail_errno" => Fault::FailErrno(errno(value).ok_or_else(|| bad("an errno, such as ENOSPC or 28"))?),
            "dead" => Fault::Dead(yes()?),
            "slow" => Fault::Slow(millis()?),
            "rate" => Fault::Rate(positive()?),
            "full_at" => Fault::FullAt(number()?),
            "counters" => Fault::Counters(number()?),
            "refresh" => Fault::Refresh(millis()?),
            "reset_at" => Fault::ResetAt(positive()?),
            "sa_full_at" => Fault::SaFullAt(number()?),
            "no_floor" => Fault::NoFloor(yes()?),
            "swallow" => Fault::Swallow(yes()?),
            _ => return Err(FaultError::UnknownKey(key.to_owned())),
        })
    }
}

fn errno(text: &str) -> Option<Errno> {
    let named = match text {
        "ENOENT" => ENOENT,
        "EIO" => 5,
        "EAGAIN" => EAGAIN,
        "ENOMEM" => ENOMEM,
        "EBUSY" => EBUSY,
        "EEXIST" => EEXIST,
        "EINVAL" => EINVAL,
        "ENOSPC" => ENOSPC,
        "ENOSYS" => ENOSYS,
        "ENOTSUP" => ENOTSUP,
        number => number.parse().ok()?,
    };
    (1..4096).contains(&named).then_some(named)
}

/// The faults in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Faults {
    /// This insert fails, counted from when the fault was set, the first being 1.
    pub fail: Option<u64>,
    /// Every insert whose number is a multiple of this fails.
    pub fail_every: Option<u64>,
    /// With this errno (ENOMEM unless told).
    pub fail_errno: Errno,
    /// Takes rules and ignores them.
    pub dead: bool,
    /// An insert takes effect so much later.
    pub slow: Duration,
    /// Inserts a second; more queue up.
    pub rate: Option<u64>,
    /// Rules that fit, in place of the profile's number.
    pub full_at: Option<u64>,
    /// Counters there are, in place of the profile's number.
    pub counters: Option<u64>,
    /// Interval in which counters are read, in place of the profile's.
    pub refresh: Option<Duration>,
    /// The NIC resets when it has seen this many packets since the fault was set.
    pub reset_at: Option<u64>,
    /// Sessions of IPsec that fit, each way, in place of the profile's number.
    pub sa_full_at: Option<u64>,
    /// A session that receives, opened from now on, takes numbers below its first one as far as its window reaches back.
    pub no_floor: bool,
    /// What rules forward is counted and dropped, as mlx5's switch does from wire to wire.
    pub swallow: bool,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            fail: None,
            fail_every: None,
            fail_errno: ENOMEM,
            dead: false,
            slow: Duration::ZERO,
            rate: None,
            full_at: None,
            counters: None,
            refresh: None,
            reset_at: None,
            sa_full_at: None,
            no_floor: false,
            swallow: false,
        }
    }
}

impl Faults {
    /// Parses and sets one fault.
    ///
    /// # Errors
    /// See [`Fault::parse`].
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), FaultError> {
        self.apply(Fault::parse(key, value)?);
        Ok(())
    }

    /// Sets one fault.
    pub fn apply(&mut self, fault: Fault) {
        match fault {
            Fault::Fail(n) => self.fail = Some(n),
            Fault::FailEvery(n) => self.fail_every = Some(n),
            Fault::FailErrno(errno) => self.fail_errno = errno,
            Fault::Dead(dead) => self.dead = dead,
            Fault::Slow(delay) => self.slow = delay,
            Fault::Rate(rate) => self.rate = Some(rate),
            Fault::FullAt(rules) => self.full_at = Some(rules),
            Fault::Counters(counters) => self.counters = Some(counters),
            Fault::Refresh(interval) => self.refresh = Some(interval),
            Fault::ResetAt(packets) => self.reset_at = Some(packets),
            Fault::SaFullAt(sessions) => self.sa_full_at = Some(sessions),
            Fault::NoFloor(none) => self.no_floor = none,
            Fault::Swallow(swallow) => self.swallow = swallow,
        }
    }

    /// Does the insert of this number fail?
    pub(crate) fn fails(&self, number: u64) -> bool {
        self.fail == Some(number) || self.fail_every.is_some_and(|every| number.is_multiple_of(every))
    }
}

/// A line of the control file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `KEY=VALUE`: set a fault.
    Set(Fault),
    /// `reset`: the NIC resets now; all rules are lost.
    Reset,
    /// `clear`: no faults from here on.
    Clear,
}

impl Command {
    /// Parses a line; `None` for an empty one or a comment (`#`).
    ///
    /// # Errors
    /// As [`Fault::parse`], and for unknown words.
    pub fn parse(line: &str) -> Result<Option<Command>, FaultError> {
        match line.trim() {
            "" => Ok(None),
            line if line.starts_with('#') => Ok(None),
            "reset" => Ok(Some(Command::Reset)),
            "clear" => Ok(Some(Command::Clear)),
            line => match line.split_once('=') {
                Some((key, value)) => Fault::parse(key.trim(), value.trim()).map(|fault| Some(Command::Set(fault))),
                None => Err(FaultError::UnknownCommand(line.to_owned())),
            },
        }
    }
}

/// Reads a control file like a log: a line counts once, when it is complete. Appending (`echo reset >> FILE`) is the way to use it;
/// a file that became shorter is read from its beginning.
#[derive(Debug, Clone, Default)]
pub struct ControlLog {
    read: usize,
}

impl ControlLog {
    /// The commands that are new in this content of the file.
    pub fn commands(&mut self, content: &[u8]) -> Vec<Result<Command, FaultError>> {
        if content.len() < self.read {
            self.read = 0;
        }
        let fresh = content.get(self.read..).unwrap_or_default();
        let Some(end) = fresh.iter().rposition(|&octet| octet == b'\n') else { return Vec::new() };
        self.read += end + 1;
        let text = String::from_utf8_lossy(fresh.get(..end).unwrap_or_default());
        text.lines().filter_map(|line| Command::parse(line).transpose()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_line_counts_once_and_only_when_complete() {
        let mut log = ControlLog::default();
        assert_eq!(log.commands(b"full_at=100\nres"), [Ok(Command::Set(Fault::FullAt(100)))]);
        assert_eq!(log.commands(b"full_at=100\nres"), []);
        assert_eq!(log.commands(b"full_at=100\nreset\n# why\n\nclear\n"), [Ok(Command::Reset), Ok(Command::Clear)]);
        assert_eq!(log.commands(b"reset\n"), [Ok(Command::Reset)]);
    }

    #[test]
    fn errors_name_what_would_be_right() {
        assert_eq!(Fault::parse("slow", "soon").unwrap_err().to_string(), "slow=soon: expected milliseconds");
        assert!(Fault::parse("slwo", "1").unwrap_err().to_string().contains("slow"));
        assert!(Fault::parse("fail_every", "0").is_err());
        assert!(Fault::parse("fail_errno", "EWHAT").is_err());
        assert_eq!(Fault::parse("fail_errno", "EAGAIN"), Ok(Fault::FailErrno(EAGAIN)));
        assert_eq!(Command::parse("explode"), Err(FaultError::UnknownCommand("explode".into())));
    }
}
