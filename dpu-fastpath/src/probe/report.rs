//! The report: lines for people, JSON for programs.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use serde_json::{Value, json};

use super::{
    ask::{Answer, rules},
    questions::Question,
};
use fallback_sw::node::engine_host::{AboutNic, AboutPort};

/// Answers as they come.
pub(super) struct Report {
    json: bool,
    verbose: bool,
    created: usize,
    refused: usize,
    /// Questions that the profile does not ask, by its reason.
    unsupported: BTreeMap<String, usize>,
}

impl Report {
    pub(super) const fn new(json: bool, verbose: bool) -> Self {
        Self { json, verbose, created: 0, refused: 0, unsupported: BTreeMap::new() }
    }

    /// The NIC that is asked.
    pub(super) fn begin(&self, profile: &str, nic: &AboutNic) {
        let AboutNic { driver, dpdk, layout, engine, ports, findings, abilities } = nic;
        if self.json {
            let ports: BTreeMap<_, _> = ports
                .iter()
                .map(|AboutPort { device, ethdev, facts }| {
                    (device, json!({"ethdev": ethdev, "role": facts.role.to_string()}))
                })
                .collect();
            return print_json(&json!({
                "profile": profile, "driver": driver, "dpdk": dpdk, "layout": layout, "engine": engine, "ports": ports,
                "findings": findings, "abilities": abilities,
            }));
        }
        line(&format!("profile {profile}, driver {driver}, DPDK {dpdk}, layout {layout}, rules {engine}"));
        line(&format!("by its profile the NIC {abilities}"));
        for AboutPort { device, ethdev, facts } in ports {
            line(&format!("port {device}: {ethdev}, {}", facts.role));
        }
        for finding in findings {
            line(finding);
        }
    }

    /// The driver is asked next: what it does from here on is about this.
    pub(super) fn asks(&self, question: &Question) {
        if let (true, Ok(chain)) = (self.json, &question.chain) {
            let rules: Vec<String> = rules(chain).map(ToString::to_string).collect();
            print_json(&json!({"asks": question.name, "rules": rules}));
        }
    }

    /// What it said.
    pub(super) fn answer(&mut self, question: &Question, answer: &Answer) {
        match answer {
            Answer::Unsupported(reason) => *self.unsupported.entry(reason.to_string()).or_default() += 1,
            Answer::Created => self.created += 1,
            Answer::Refused { .. } => self.refused += 1,
        }
        if self.json {
            return print_json(&as_json(&question.name, answer));
        }
        match answer {
            Answer::Unsupported(reason) if self.verbose => line(&format!("unsupported  {}: {reason}", question.name)),
            Answer::Created if self.verbose => line(&format!("created      {}", question.name)),
            Answer::Refused { rule, step, failure } => {
                line(&format!("REFUSED      {}", question.name));
                line(&format!("             {}: {failure}", step.name()));
                if let Ok(chain) = &question.chain
                    && let Some(rule) = rules(chain).nth(*rule)
                {
                    line(&format!("             {rule}"));
                }
            }
            Answer::Unsupported(_) | Answer::Created => {}
        }
    }

    /// The sum. How many were refused.
    pub(super) fn end(&self) -> usize {
        let unsupported: usize = self.unsupported.values().sum();
        if self.json {
            print_json(&json!({"created": self.created, "refused": self.refused, "unsupported": unsupported}));
        } else {
            for (reason, count) in &self.unsupported {
                line(&format!("{count:5} not asked: {reason}"));
            }
            line(&format!("{} created, {} refused, {unsupported} not asked", self.created, self.refused));
        }
        self.refused
    }
}

fn as_json(name: &str, answer: &Answer) -> Value {
    match answer {
        Answer::Unsupported(reason) => json!({"answer": name, "verdict": "unsupported", "why": reason.to_string()}),
        Answer::Created => json!({"answer": name, "verdict": "created"}),
        Answer::Refused { rule, step, failure } => json!({
            "answer": name,
            "verdict": "refused",
            "rule": rule,
            "step": step.name(),
            "errno": failure.errno,
            "why": failure.message,
        }),
    }
}

fn print_json(value: &Value) {
    line(&value.to_string());
}

/// At once, so that lines stand where they belong in a file that others write to as well. A closed pipe is not an error.
fn line(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
