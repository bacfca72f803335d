//! Lists of what is known: what a driver refuses, and what it makes looser than asked. A list is neither more nor less than what
//! happens: a line that nothing fits any more is wrong, too.
//!
//! `QUESTION | STEP | WORDS` a line; `*` in a question stands for anything, `#` begins a comment.

use std::{collections::BTreeSet, fs, path::Path};

use super::run::{Answer, Setup, Verdict};

/// A line of a list.
struct Line {
    question: String,
    rest: String,
}

/// A list.
pub(crate) struct List {
    lines: Vec<Line>,
}

/// What the driver refuses in this setup, on this version.
pub(crate) fn of(setup: &Setup, dpdk: &str) -> List {
    List::read("refusals", setup, dpdk)
}

/// Where a created rule matches less than it claims.
pub(crate) fn looser(setup: &Setup, dpdk: &str) -> List {
    List::read("looser", setup, dpdk)
}

impl List {
    /// `refusals-software-switchdev-22.11.txt`; no file: nothing is expected.
    fn read(kind: &str, setup: &Setup, dpdk: &str) -> Self {
        let version: Vec<&str> = dpdk.split('.').take(2).collect();
        let name = format!("{kind}-{}-{}-{}.txt", setup.engine_name(), setup.layout, version.join("."));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mlx5_judge").join(name);
        Self::parse(&fs::read_to_string(path).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let split = |line: &str| {
            let (question, rest) = line.split_once(" | ").expect("QUESTION | STEP | WORDS");
            Line { question: question.trim().to_owned(), rest: rest.trim().to_owned() }
        };
        Self { lines: lines.map(split).collect() }
    }

    /// Refusals that are not listed, and lines that say what has not happened: to each question that a line fits, it has.
    pub(crate) fn differences(&self, answers: &[Answer]) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut used = BTreeSet::new();
        for answer in answers {
            let listed = self.lines.iter().enumerate().find(|(_, line)| fits(&line.question, &answer.question));
            match (&answer.verdict, listed) {
                (Verdict::Refused { step, words }, Some((index, line))) => {
                    used.insert(index);
                    if line.rest != format!("{step} | {words}") {
                        wrong.push(format!("refused in other words: {} | {step} | {words}", answer.question));
                    }
                }
                (Verdict::Refused { step, words }, None) => {
                    wrong.push(format!("refused: {} | {step} | {words}", answer.question));
                }
                (Verdict::Created, Some((_, line))) => {
                    wrong.push(format!("created, and listed as refused: {} ({})", answer.question, line.question));
                }
                (Verdict::Created, None) | (Verdict::Unsupported(_), _) => {}
            }
        }
        let idle = self.lines.iter().enumerate().filter(|(index, _)| !used.contains(index));
        wrong.extend(idle.map(|(_, line)| format!("listed, and never refused: {} | {}", line.question, line.rest)));
        wrong
    }
}

/// Whether a text is of a pattern in which `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut rest = rest;
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    match last {
        None => rest.is_empty(),
        Some(last) => rest.is_empty() || text.ends_with(last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(question: &str, verdict: Verdict) -> Answer {
        Answer { question: question.to_owned(), verdict }
    }

    fn refused(question: &str, words: &str) -> Answer {
        answer(question, Verdict::Refused { step: "create".to_owned(), words: words.to_owned() })
    }

    #[test]
    fn a_star_stands_for_anything() {
        assert!(fits("tenant to *: IPv4 *, 1 tag in, * out", "tenant to tunnel: IPv4 TCP, 1 tag in, 0 out"));
        assert!(!fits("tenant to *: IPv4 *, 1 tag in", "tenant to tunnel: IPv4 TCP, 1 tag in, 0 out"));
        assert!(!fits("tenant to tunnel: IPv4 TCP", "tenant to tunnel: IPv4 TCP, 1 tag in, 0 out"));
        assert!(fits("*", "anything"));
    }

    #[test]
    fn a_list_is_neither_more_nor_less_than_what_happens() {
        let list = List::parse("# known\na * | create | no room\nb | create | no\n");
        assert_eq!(list.differences(&[refused("a 1", "no room"), refused("b", "no")]), Vec::<String>::new());
        let other = list.differences(&[refused("a 1", "too wide"), refused("c", "no"), answer("b", Verdict::Created)]);
        assert_eq!(
            other,
            [
                "refused in other words: a 1 | create | too wide",
                "refused: c | create | no",
                "created, and listed as refused: b (b)",
                "listed, and never refused: b | create | no",
            ]
        );
    }
}
