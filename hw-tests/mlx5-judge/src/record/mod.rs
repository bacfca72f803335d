//! What the driver has given the device, as the library below it tells: an event for each object, in the order of the calls.
//!
//! [`Record`] is the state after the events so far: the objects of software steering as `mlx5dv_dr_*` made them, and the DevX
//! commands that say which queue a rule leads to.

mod event;
mod tables;

use std::collections::HashMap;

pub use event::{Action, Command, Counter, DomainKind, Event, Hex, ReformatKind};
pub use tables::{Key, Matcher, Place, Rule, TableRules};

/// Number of an object; the library below gives each a number of its own.
pub type Id = u32;

/// Why a line is not an event of a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not the JSON of an event.
    #[error("not an event of the judge's record: {0}")]
    Json(#[from] serde_json::Error),
    /// An object names another that is not there.
    #[error("{what} {id} is not in the record")]
    Missing {
        /// What kind of object.
        what: &'static str,
        /// Its number.
        id: Id,
    },
}

/// DevX commands that make and change TIRs, queues and tables of queues (PRM: CREATE_TIR to DESTROY_RQT).
const RECEIVE_SIDE: std::ops::RangeInclusive<u16> = 0x900..=0x918;

fn missing(what: &'static str, id: Id) -> RecordError {
    RecordError::Missing { what, id }
}

/// A steering domain: the tables of one direction of one function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Domain {
    /// The physical function.
    pub pf: i32,
    /// Which packets come there.
    pub kind: DomainKind,
}

/// What changed with an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A rule is in the device.
    Rule(Id),
    /// A rule has left the device.
    RuleGone(Id),
    /// Something failed because it was told to: of this kind.
    Fault(String),
    /// The program's own words about what follows.
    Mark(String),
    /// Anything that changes the way of no packet.
    Other,
}

/// The objects that are in the device.
#[derive(Debug, Default)]
pub struct Record {
    domains: HashMap<Id, Domain>,
    tables: HashMap<Id, Place>,
    matchers: HashMap<Id, Matcher>,
    rules: HashMap<Id, Rule>,
    actions: HashMap<Id, Action>,
    commands: HashMap<Id, Vec<Command>>,
    by_place: HashMap<Place, TableRules>,
    /// Level-0 tables by function and kind of domain.
    roots: HashMap<(i32, DomainKind), Place>,
}

impl Record {
    /// An empty device.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a line of the record, as the library below writes it.
    ///
    /// # Errors
    /// [`RecordError`]; the record is as before.
    pub fn line(&mut self, line: &str) -> Result<Change, RecordError> {
        self.event(serde_json::from_str(line)?)
    }

    /// Takes an event.
    ///
    /// # Errors
    /// [`RecordError::Missing`]; the record is as before.
    pub fn event(&mut self, event: Event) -> Result<Change, RecordError> {
        match event {
            Event::Domain { id, pf, kind } => {
                self.domains.insert(id, Domain { pf, kind });
            }
            Event::Table { id, domain, level } => {
                let Domain { pf, kind } = *self.domains.get(&domain).ok_or_else(|| missing("domain", domain))?;
                // Objects for level 0 of a domain are all of one table: the kernel's.
                let place = if level == 0 { Place::Root(domain) } else { Place::Table(id) };
                if level == 0 {
                    self.roots.insert((pf, kind), place);
                }
                self.tables.insert(id, place);
            }
            Event::Matcher { id, table, priority, criteria, mask } => {
                let place = *self.tables.get(&table).ok_or_else(|| missing("table", table))?;
                let matcher = Matcher::new(place, priority, criteria, &mask.0);
                self.by_place.entry(place).or_default().enter(id, &matcher);
                self.matchers.insert(id, matcher);
            }
            Event::Rule { id, matcher, value, actions } => {
                let on = self.matchers.get(&matcher).ok_or_else(|| missing("matcher", matcher))?;
                if let Some(action) = actions.iter().find(|action| !self.actions.contains_key(action)) {
                    return Err(missing("action", *action));
                }
                let key = on.key(&value.0);
                self.by_place.entry(on.place).or_default().add(matcher, key.clone(), id);
                self.rules.insert(id, Rule { matcher, key, actions });
                return Ok(Change::Rule(id));
            }
            Event::Action { id, action } => {
                self.actions.insert(id, action);
            }
            // Other objects have numbers of their own.
            Event::Devx { id, command } if RECEIVE_SIDE.contains(&command.opcode) => {
                self.commands.entry(id).or_default().push(command);
            }
            Event::DevxGone { id, opcode } if RECEIVE_SIDE.contains(&opcode) => drop(self.commands.remove(&id)),
            Event::Gone { id } => return Ok(self.gone(id)),
            Event::Fault { of } => return Ok(Change::Fault(of)),
            Event::Mark { text } => return Ok(Change::Mark(text)),
            Event::Devx { .. } | Event::DevxGone { .. } | Event::Other => {}
        }
        Ok(Change::Other)
    }

    fn gone(&mut self, id: Id) -> Change {
        if let Some(rule) = self.rules.remove(&id) {
            let place = self.matchers.get(&rule.matcher).map(|matcher| matcher.place);
            if let Some(rules) = place.and_then(|place| self.by_place.get_mut(&place)) {
                rules.remove(rule.matcher, &rule.key, id);
            }
            return Change::RuleGone(id);
        }
        if let Some(matcher) = self.matchers.remove(&id)
            && let Some(rules) = self.by_place.get_mut(&matcher.place)
        {
            rules.leave(id);
        }
        self.actions.remove(&id);
        self.tables.remove(&id);
        Change::Other
    }

    /// Where packets of a function enter a kind of domain; `None`: the driver has made nothing there.
    #[must_use]
    pub fn root(&self, pf: i32, kind: DomainKind) -> Option<Place> {
        self.roots.get(&(pf, kind)).copied()
    }

    /// Is there a switch with rules for this function?
    #[must_use]
    pub fn has_switch(&self, pf: i32) -> bool {
        self.root(pf, DomainKind::Fdb).is_some()
    }

    /// The table that an action leads to.
    #[must_use]
    pub fn table(&self, id: Id) -> Option<Place> {
        self.tables.get(&id).copied()
    }

    /// The rules at a place, if it has any.
    #[must_use]
    pub fn rules_at(&self, place: Place) -> Option<&TableRules> {
        self.by_place.get(&place)
    }

    /// A matcher.
    #[must_use]
    pub fn matcher(&self, id: Id) -> Option<&Matcher> {
        self.matchers.get(&id)
    }

    /// A rule.
    #[must_use]
    pub fn rule(&self, id: Id) -> Option<&Rule> {
        self.rules.get(&id)
    }

    /// An action.
    #[must_use]
    pub fn action(&self, id: Id) -> Option<&Action> {
        self.actions.get(&id)
    }

    /// DevX commands that made or changed an object, the oldest first.
    #[must_use]
    pub fn commands(&self, id: Id) -> &[Command] {
        self.commands.get(&id).map_or(&[], Vec::as_slice)
    }

    /// How many rules are in the device.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.rules.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECTS: [&str; 4] = [
        r#"{"e": "domain", "id": 1, "pf": 0, "type": "fdb"}"#,
        r#"{"e": "table", "id": 2, "domain": 1, "level": 0}"#,
        r#"{"e": "matcher", "id": 3, "table": 2, "priority": 1, "criteria": 0, "mask": "00"}"#,
        r#"{"e": "action", "id": 4, "kind": "drop"}"#,
    ];

    fn record() -> Record {
        let mut record = Record::new();
        for line in OBJECTS {
            assert_eq!(record.line(line).unwrap(), Change::Other);
        }
        record
    }

    #[test]
    fn a_rule_comes_and_goes() {
        let mut record = record();
        let rule = r#"{"e": "rule", "id": 5, "matcher": 3, "value": "00", "actions": [4]}"#;
        assert_eq!(record.line(rule).unwrap(), Change::Rule(5));
        assert_eq!((record.rules(), record.has_switch(0), record.has_switch(1)), (1, true, false));
        assert_eq!(record.line(r#"{"e": "gone", "id": 5}"#).unwrap(), Change::RuleGone(5));
        assert_eq!(record.rules(), 0);
    }

    #[test]
    fn what_names_an_object_that_is_not_there_is_refused() {
        let mut record = record();
        let rule = r#"{"e": "rule", "id": 5, "matcher": 3, "value": "00", "actions": [9]}"#;
        assert_eq!(record.line(rule).unwrap_err().to_string(), "action 9 is not in the record");
        let rule = r#"{"e": "rule", "id": 5, "matcher": 8, "value": "00", "actions": [4]}"#;
        assert_eq!(record.line(rule).unwrap_err().to_string(), "matcher 8 is not in the record");
        assert_eq!(record.rules(), 0);
    }

    #[test]
    fn other_kinds_of_events_are_skipped_and_what_is_no_event_is_refused() {
        let mut record = record();
        assert_eq!(record.line(r#"{"e": "definer", "id": 77, "dws": [1, 2]}"#).unwrap(), Change::Other);
        assert!(record.line("rule 5").is_err());
        let mark = r#"{"e": "mark", "text": "created: tag-none"}"#;
        assert_eq!(record.line(mark).unwrap(), Change::Mark("created: tag-none".to_owned()));
    }
}
