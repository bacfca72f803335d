//! "No looser than asked", as the driver wrote it: each claim of a rule is in the mask that the driver gave the device.

use std::collections::HashMap;

use mlx5_judge::fields::Param;
use serde_json::Value;

use super::{
    claims::{self, Claim, FieldMatch},
    run::{Answer, Run, Setup, Verdict},
};

/// A rule as the device has it.
struct Recorded {
    mask: Param,
    value: Param,
    /// The physical function whose table it is in, where there is no switch.
    own: Option<u64>,
}

impl Recorded {
    fn holds(&self, claim: &Claim) -> bool {
        let own = claim.port.is_some_and(|vif| self.own.is_some_and(|pf| u128::from(pf) + 1 == vif));
        own || claim.any_of.iter().any(|way| self.has(way))
    }

    fn has(&self, way: &FieldMatch) -> bool {
        let (mask, value) = (self.mask.get(way.field), self.value.get(way.field));
        if way.mask == 0 {
            return mask != 0;
        }
        mask & way.mask == way.mask && value & way.mask == way.value
    }

    fn lacks(&self, claims: &[Claim]) -> Vec<String> {
        claims.iter().filter(|claim| !self.holds(claim)).map(|claim| claim.of.clone()).collect()
    }
}

/// For each rule that was created: what it claims to match, and the device does not; as a refusal by the mask.
pub(crate) fn looser(setup: &Setup, run: &Run) -> Vec<Answer> {
    let mut device = Device { switch: setup.card.vfs > 0, ..Device::default() };
    let mut asked: Vec<String> = Vec::new();
    let mut recorded = Vec::new();
    let mut found = Vec::new();
    for line in &run.lines {
        if let Some(rules) = line.get("rules").and_then(Value::as_array) {
            asked = rules.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            recorded.clear();
        } else if let Some(question) = line.get("answer").and_then(Value::as_str) {
            if line.get("verdict").and_then(Value::as_str) == Some("created") {
                let verdict = judge(setup, question, &asked, &recorded);
                found.push(Answer { question: question.to_owned(), verdict });
            }
        } else {
            recorded.extend(device.hear(line));
        }
    }
    found
}

/// What the record has told of matchers, and where they are.
#[derive(Default)]
struct Device {
    /// Its tables are of several ports.
    switch: bool,
    /// Physical function of each domain without a switch.
    domains: HashMap<u64, u64>,
    /// Domain of each table.
    tables: HashMap<u64, u64>,
    /// Mask and table of each matcher.
    matchers: HashMap<u64, (Param, u64)>,
}

impl Device {
    /// Takes note of a line; a rule is returned.
    fn hear(&mut self, line: &Value) -> Option<Recorded> {
        let number = |name: &str| line.get(name).and_then(Value::as_u64);
        let id = number("id")?;
        match line.get("e").and_then(Value::as_str)? {
            "domain" if line.get("type").and_then(Value::as_str) != Some("fdb") => {
                self.domains.insert(id, number("pf").unwrap());
            }
            "table" => _ = self.tables.insert(id, number("domain").unwrap()),
            "matcher" => _ = self.matchers.insert(id, (param(line, "mask").unwrap(), number("table").unwrap())),
            "rule" => {
                let (mask, table) = &self.matchers[&number("matcher").unwrap()];
                let own = self.tables.get(table).and_then(|domain| self.domains.get(domain)).copied();
                let own = own.filter(|_| !self.switch);
                return Some(Recorded { mask: mask.clone(), value: param(line, "value").unwrap(), own });
            }
            _ => {}
        }
        None
    }
}

fn param(line: &Value, name: &str) -> Option<Param> {
    Param::from_hex(line.get(name)?.as_str()?).ok()
}

/// The driver may need further rules for one of ours: one of them must have all that ours claims.
fn judge(setup: &Setup, question: &str, asked: &[String], recorded: &[Recorded]) -> Verdict {
    let mut missing = Vec::new();
    for rule in asked {
        let claims = claims::of(rule);
        let closest = recorded.iter().map(|recorded| recorded.lacks(&claims)).min_by_key(Vec::len);
        match closest {
            Some(lacks) => missing.extend(lacks),
            None => panic!("{}: {question}: nothing is recorded of\n{rule}", setup.name()),
        }
    }
    missing.dedup();
    if missing.is_empty() {
        Verdict::Created
    } else {
        Verdict::Refused { step: "mask".to_owned(), words: missing.join(", ") }
    }
}
