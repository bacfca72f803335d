//! Measuring: CPU time per packet on one pinned core, repeated, beside what is aimed at.
//!
//! CPU time and not wall time, because the machine is shared. Cycles are TSC cycles: CPU time times the TSC's frequency, as
//! the kernel has calibrated it, so that they compare with what DPDK and VPP report.

use std::{fmt::Write as _, fs, hint::black_box, time::Duration};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

/// CPU time of this thread.
pub(crate) fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).expect("the thread's CPU clock is readable")
}

/// Octets of memory that the process holds.
pub(crate) fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0);
    pages * 4096
}

/// Pins this thread to one core.
pub(crate) fn pin(core: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// What this runs on, for one line above a table.
pub(crate) struct Machine {
    model: String,
    kernel: String,
    huge_pages: String,
    /// TSC frequency.
    pub(crate) tsc_ghz: f64,
}

impl Machine {
    /// This machine.
    pub(crate) fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let word = |path: &str| fs::read_to_string(path).map_or_else(|_| "?".into(), |text| text.trim().to_owned());
        let huge = word("/sys/kernel/mm/transparent_hugepage/enabled");
        // Linux calibrates its delay loop on x86 from the TSC: two "bogus instructions" a cycle.
        let bogomips = field("bogomips").and_then(|value| value.parse::<f64>().ok()).unwrap_or(f64::NAN);
        Self {
            model: field("model name").unwrap_or_else(|| "unknown CPU".into()),
            kernel: word("/proc/sys/kernel/osrelease"),
            huge_pages: huge.split(['[', ']']).nth(1).unwrap_or("?").to_owned(),
            tsc_ghz: bogomips / 2000.0,
        }
    }

    /// One line.
    pub(crate) fn line(&self, core: usize) -> String {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        format!(
            "{}, TSC {:.3} GHz, Linux {}, transparent huge pages: {}, pinned to core {core}, load {}",
            self.model,
            self.tsc_ghz,
            self.kernel,
            self.huge_pages,
            load.split(' ').next().unwrap_or("?"),
        )
    }
}

/// How much to measure.
pub(crate) struct Effort {
    /// Runs of which the median counts.
    pub(crate) repeats: usize,
    /// Least CPU time of one run.
    pub(crate) run: Duration,
    /// Leave out what takes long to set up.
    pub(crate) quick: bool,
    /// Part of the names of the rows that are wanted; `None`: all are.
    pub(crate) row: Option<String>,
}

/// Nanoseconds of CPU time per item.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Sample {
    pub(crate) fn of(mut runs: Vec<f64>) -> Self {
        runs.sort_by(f64::total_cmp);
        let at = |i: usize| runs.get(i).copied().unwrap_or(f64::NAN);
        Self { median: at(runs.len() / 2), min: at(0), max: at(runs.len().saturating_sub(1)) }
    }

    /// Without what the generator of the packets costs.
    pub(crate) fn less(self, generator: Self) -> Self {
        let net = |value: f64| (value - generator.median).max(0.0);
        Self { median: net(self.median), min: net(self.min), max: net(self.max) }
    }
}

impl Effort {
    /// Is this row to be measured? With `$` behind it, the text that is wanted is the end of the name.
    pub(crate) fn wants(&self, row: &str) -> bool {
        self.row.as_ref().is_none_or(|wanted| match wanted.strip_suffix('$') {
            Some(end) => row.ends_with(end),
            None => row.contains(wanted.as_str()),
        })
    }

    /// Measures `work`, which handles some items and says how many: CPU time per item.
    pub(crate) fn measure(&self, mut work: impl FnMut() -> u64) -> Sample {
        black_box(work());
        let runs = (0..self.repeats).map(|_| {
            let start = cpu_time();
            let mut items = 0;
            loop {
                items += black_box(work());
                let spent = cpu_time() - start;
                if spent >= self.run {
                    return spent.as_nanos() as f64 / items as f64;
                }
            }
        });
        Sample::of(runs.collect())
    }

    /// Measures `work` on something that is used up: `set_up` makes it anew for each run and is not measured.
    pub(crate) fn measure_once_each<T>(
        &self,
        mut set_up: impl FnMut() -> T,
        mut work: impl FnMut(&mut T) -> u64,
    ) -> Sample {
        let runs = (0..self.repeats).map(|_| {
            let mut subject = set_up();
            let start = cpu_time();
            let items = work(&mut subject);
            (cpu_time() - start).as_nanos() as f64 / items as f64
        });
        Sample::of(runs.collect())
    }
}

/// What was measured.
pub(crate) enum Value {
    /// Time per packet.
    PerPacket(Sample),
    /// Time per new flow, shown as a rate.
    Rate(Sample),
    /// Octets.
    Octets(f64),
    /// How many times as much.
    Times(Sample),
    /// Time as a whole.
    Whole(Sample),
}

/// What is aimed at.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// TSC cycles per packet, at most.
    Cycles(f64),
    /// Nanoseconds per packet, at most.
    Nanoseconds(f64),
    /// Milliseconds as a whole, at most.
    Milliseconds(f64),
    /// Millions a second, at least.
    MillionsPerSecond(f64),
    /// At most.
    Octets(f64),
    /// At least.
    Times(f64),
    /// At most.
    #[allow(dead_code, reason = "shared with the benches of dpu-fastpath")]
    AtMostTimes(f64),
    /// No target: what another one needs in the same run, nanoseconds per packet.
    Beside {
        /// Whose it is.
        name: &'static str,
        /// Nanoseconds.
        nanoseconds: f64,
    },
}

/// One row of the table.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) value: Value,
    pub(crate) target: Option<Target>,
    /// Where the target is from, and what others need.
    pub(crate) against: &'static str,
}

impl Row {
    fn print(&self, tsc_ghz: f64) -> String {
        let rate = |ns: f64| 1000.0 / ns;
        let measured = match &self.value {
            Value::PerPacket(s) => format!(
                "{:7.1} ns {:6.0} cyc {:7.2} M/s  [{:.1} .. {:.1}]",
                s.median,
                s.median * tsc_ghz,
                rate(s.median),
                s.min,
                s.max
            ),
            Value::Rate(s) => format!(
                "{:7.1} ns {:6.0} cyc {:7.2} M/s  [{:.1} .. {:.1}]",
                s.median,
                s.median * tsc_ghz,
                rate(s.median),
                s.min,
                s.max
            ),
            Value::Octets(octets) if *octets >= 1e6 => format!("{:7.1} MiB", octets / 1_048_576.0),
            Value::Octets(octets) => format!("{octets:7.1} B"),
            Value::Whole(s) => {
                format!("{:7.2} ms  [{:.2} .. {:.2} ms]", s.median / 1e6, s.min / 1e6, s.max / 1e6)
            }
            Value::Times(s) => format!("{:7.2} x  [{:.2} .. {:.2}]", s.median, s.min, s.max),
        };
        // Below 1 is better than the target, whichever way round it is stated.
        let (target, ratio) = match (self.target, &self.value) {
            (Some(Target::Cycles(c)), Value::PerPacket(s)) => (format!("<= {c} cyc"), s.median * tsc_ghz / c),
            (Some(Target::Nanoseconds(ns)), Value::PerPacket(s)) => (format!("<= {ns} ns"), s.median / ns),
            (Some(Target::Milliseconds(ms)), Value::Whole(s)) => (format!("<= {ms} ms"), s.median / 1e6 / ms),
            (Some(Target::MillionsPerSecond(m)), Value::Rate(s)) => (format!(">= {m} M/s"), m / rate(s.median)),
            (Some(Target::Octets(most)), Value::Octets(octets)) if most >= 1e6 => {
                (format!("<= {} MiB", most / 1_048_576.0), octets / most)
            }
            (Some(Target::Octets(most)), Value::Octets(octets)) => (format!("<= {most} B"), octets / most),
            (Some(Target::Beside { name, nanoseconds }), Value::PerPacket(s)) => {
                (format!("x {name}"), s.median / nanoseconds)
            }
            (Some(Target::AtMostTimes(most)), Value::Times(s)) => (format!("<= {most} x"), s.median / most),
            (Some(Target::Times(least)), Value::Times(s)) => (format!(">= {least} x"), least / s.median),
            _ => (String::new(), f64::NAN),
        };
        let ratio = if ratio.is_nan() { String::new() } else { format!("{ratio:.2}") };
        format!("{:<52} {measured:<54} {target:<12} {ratio:>5}  {}", self.name, self.against)
    }
}

/// The table.
pub(crate) fn table(rows: &[Row], machine: &Machine) -> String {
    let mut text = format!(
        "{:<52} {:<54} {:<12} {:>5}  against\n",
        "what", "CPU time, median [least .. most ns]", "target", "ratio"
    );
    for row in rows {
        let _ = writeln!(text, "{}", row.print(machine.tsc_ghz));
    }
    text
}
