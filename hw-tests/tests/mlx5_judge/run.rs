//! A run of `dpu-fastpath probe` under the judge, and what came out.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use hw_tests::lab::Programs;
use mlx5_judge::{Card, Engine, Preload};
use serde_json::Value;

/// How a card is set up, and by which engine of the driver.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) engine: Engine,
    pub(crate) layout: &'static str,
    pub(crate) card: Card,
}

impl Setup {
    pub(crate) fn engine_name(&self) -> &'static str {
        match self.engine {
            Engine::Software => "software",
            Engine::Hardware => "hardware",
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("{} steering, {}", self.engine_name(), self.layout)
    }

    pub(crate) const fn profile(&self) -> &'static str {
        match self.engine {
            Engine::Software => "mlx5-sws",
            Engine::Hardware => "mlx5-hws",
        }
    }

    /// Vif and device: the uplink, then the VFs.
    fn ports(&self) -> Vec<String> {
        let uplinks = self.card.addresses();
        let mut ports: Vec<_> = uplinks.iter().enumerate().map(|(i, address)| format!("wan{i}={address}")).collect();
        for address in &uplinks {
            ports.extend((0..self.card.vfs).map(|vf| format!("t{vf}={address}_representor_vf{vf}")));
        }
        ports
    }
}

/// What the driver said to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Created,
    Refused { step: String, words: String },
    Unsupported(String),
}

/// A question and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) question: String,
    pub(crate) verdict: Verdict,
}

/// What a kind of rule came to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) created: usize,
    pub(crate) refused: usize,
    pub(crate) unsupported: usize,
}

/// All that was said, in order.
pub(crate) struct Run {
    /// `22.11.11`.
    pub(crate) dpdk: String,
    pub(crate) answers: Vec<Answer>,
    /// The probe's lines and the judge's, as they came.
    pub(crate) lines: Vec<Value>,
}

impl Run {
    /// Runs the probe to its end. Its lines and the record go to one file: both append a line at a time, so that what the driver did
    /// for a question stands between that and its answer.
    pub(crate) fn probe(setup: &Setup, arguments: &[&str]) -> Self {
        let programs = Programs::find().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let told = folder.path().join("told");
        let log = folder.path().join("log");
        let append = |path: &Path| fs::File::options().create(true).append(true).open(path).unwrap();
        let preload = Preload::new().unwrap();
        let card = Card { record: Some(told.clone()), ..setup.card.clone() };
        let mut command = Command::new(&programs.dpu_fastpath);
        command.args(["probe", "--json", "--nic", setup.profile(), "--no-huge", "1024"]).args(arguments);
        for port in setup.ports() {
            command.args(["--port", &port]);
        }
        for device in card.devices(setup.engine) {
            command.args(["--pci", &device]);
        }
        // The tree that stands for /sys goes with the folder, should the program crash.
        command.envs(card.environment()).envs([preload.variable()]).env("TMPDIR", folder.path());
        let status = command.stdout(append(&told)).stderr(append(&log)).status().unwrap();
        let log = fs::read_to_string(&log).unwrap();
        let text = fs::read_to_string(&told).unwrap();
        Self::read(&text, || format!("{}: {status}\n{log}", setup.name()))
    }

    /// The same questions to the twin of the card, by `arguments` beside.
    pub(crate) fn probe_twin(setup: &Setup, arguments: &[&str]) -> Self {
        let programs = Programs::find().unwrap();
        let mut command = Command::new(&programs.dpu_fastpath);
        command.args(["probe", "--json", "--nic", setup.profile(), "--no-huge", "512"]).args(arguments);
        command.arg("--driver").arg(programs.nic_twin().unwrap());
        if setup.layout == "hairpin" {
            command.arg("--hairpin");
        }
        for (number, port) in setup.ports().iter().enumerate() {
            let name = port.split_once('=').unwrap().0;
            command.args(["--port", &format!("{name}=net_twin{number}")]);
            let place = match (setup.card.vfs, name.starts_with("wan")) {
                (0, _) => "",
                (_, true) => ",role=wire,domain=1",
                (_, false) => ",role=function,domain=1",
            };
            command.args(["--vdev", &format!("net_twin{number},loop=1,profile={}{place}", setup.profile())]);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        Self::read(&said, || {
            format!("twin, {}: {}\n{}", setup.name(), output.status, String::from_utf8_lossy(&output.stderr))
        })
    }

    fn read(text: &str, about: impl FnOnce() -> String) -> Self {
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let ended = lines.iter().any(|line| line.get("created").is_some());
        assert!(ended, "the probe has ended early: {}", about());
        let dpdk = lines.iter().find_map(|line| line.get("dpdk")?.as_str()).unwrap().to_owned();
        let answers = lines.iter().filter_map(answer).collect();
        Self { dpdk, answers, lines }
    }

    /// Rules, or entries of hardware steering, that the driver wrote before it was asked anything.
    pub(crate) fn written_before_questions(&self) -> u32 {
        let before = self.lines.iter().take_while(|line| line.get("asks").is_none());
        u32::try_from(before.filter(|line| is_rule(line)).count()).unwrap()
    }

    /// Counts by origin and outcome, proactive rules apart.
    pub(crate) fn by_kind(&self) -> BTreeMap<String, Count> {
        let mut counts = BTreeMap::<String, Count>::new();
        for answer in &self.answers {
            let kind = match answer.question.split_once(':') {
                Some((way, rest)) => format!("{way}, {}", rest.trim().split(' ').next().unwrap_or_default()),
                None => "proactive".to_owned(),
            };
            let count = counts.entry(kind).or_default();
            match answer.verdict {
                Verdict::Created => count.created += 1,
                Verdict::Refused { .. } => count.refused += 1,
                Verdict::Unsupported(_) => count.unsupported += 1,
            }
        }
        counts
    }
}

/// A rule of software steering, or a work request that writes an entry (DPDK, mlx5dr_send.h): opcode 0x2c, mode 0, activate.
fn is_rule(line: &Value) -> bool {
    let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default();
    match text("e") {
        "rule" => true,
        "wqe" => {
            let octets = text("octets");
            (octets.get(..2), octets.get(6..8), octets.get(32..33)) == (Some("00"), Some("2c"), Some("0"))
        }
        _ => false,
    }
}

fn answer(line: &Value) -> Option<Answer> {
    let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let question = line.get("answer")?.as_str()?.to_owned();
    let verdict = match text("verdict").as_str() {
        "created" => Verdict::Created,
        "refused" => Verdict::Refused { step: text("step"), words: text("why") },
        _ => Verdict::Unsupported(text("why")),
    };
    Some(Answer { question, verdict })
}
