//! docs/offload.md says of NICs what the profiles say.

use std::fmt::Write as _;

use offload_rules::lower::{FactText, NicProfile};

const DOCUMENT: &str = include_str!("../../../docs/offload.md");
const BEGIN: &str = "<!-- profiles -->\n";
const END: &str = "<!-- end of profiles -->";

fn text() -> String {
    let profiles = NicProfile::NAMES.map(|name| NicProfile::by_name(name).unwrap().facts());
    let mut text = format!("| fact | {} |\n|---|{}\n", NicProfile::NAMES.join(" | "), "---|".repeat(profiles.len()));
    for (i, FactText { name: fact, .. }) in profiles[0].iter().enumerate() {
        let values: Vec<String> = profiles.iter().map(|facts| plain(&facts[i].value)).collect();
        _ = writeln!(text, "| {fact} | {} |", values.join(" | "));
    }
    text.push_str("\nWhere it is written:\n");
    for (name, facts) in NicProfile::NAMES.iter().zip(&profiles) {
        _ = writeln!(text, "\n**{name}**");
        let mut sources: Vec<(&str, Vec<&str>)> = Vec::new();
        for FactText { name: fact, value: _, source } in facts {
            match sources.iter_mut().find(|(known, _)| known == source) {
                Some((_, facts)) => facts.push(fact),
                None => sources.push((source, vec![fact])),
            }
        }
        for (source, facts) in sources {
            _ = writeln!(text, "- {}: *{source}*", facts.join(", "));
        }
    }
    text
}

fn plain(value: &str) -> String {
    match value {
        "true" => "yes".into(),
        "false" | "None" | "[]" => "-".into(),
        other => other.trim_start_matches("Some(").trim_matches([')', '[', ']']).into(),
    }
}

#[test]
fn the_document_has_the_facts_of_the_profiles() {
    let (_, rest) = DOCUMENT.split_once(BEGIN).unwrap();
    let (found, _) = rest.split_once(END).unwrap();
    assert!(found.trim() == text().trim(), "between the marks there should be:\n{}", text());
}
