//! The mlx5 driver judges the product's own rules: `dpu-fastpath probe` asks it about every shape and every proactive rule, in each
//! engine and layout, on the DPDK that this machine has and on the next one. What the driver refuses stands in a list, with its words;
//! what it takes is held against the rule, field by field, in the device's own format.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod claims;
mod masks;
mod refusals;
mod run;

use std::{io::Write as _, path::Path, process::Command};

use mlx5_judge::{Card, Engine, Fault};

use run::{Run, Setup, Verdict};

/// Engines and layouts that are asked about.
fn setups() -> Vec<Setup> {
    let switchdev = |engine| Setup { engine, layout: "switchdev", card: Card::switchdev(2) };
    let hairpin = |engine| Setup { engine, layout: "hairpin", card: Card::hairpin(2) };
    [Engine::Software, Engine::Hardware].into_iter().flat_map(|engine| [switchdev(engine), hairpin(engine)]).collect()
}

/// A line of the table, past the capture of tests that pass.
fn row(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

#[test]
fn every_rule_that_a_profile_allows_is_created_or_refused_as_listed() {
    let mut wrong = Vec::new();
    row(&format!(
        "judge: {:<10} {:<10} {:<14} {:<28} {:>7} {:>7} {:>9}",
        "engine", "layout", "DPDK", "rules", "created", "refused", "not asked"
    ));
    for setup in setups() {
        let run = Run::probe(&setup, &[]);
        for (kind, count) in run.by_kind() {
            row(&format!(
                "judge: {:<10} {:<10} {:<14} {:<28} {:>7} {:>7} {:>9}",
                setup.engine_name(),
                setup.layout,
                run.dpdk,
                kind,
                count.created,
                count.refused,
                count.unsupported
            ));
        }
        let list = refusals::of(&setup, &run.dpdk);
        wrong.extend(list.differences(&run.answers).into_iter().map(|line| format!("{}: {line}", setup.name())));
    }
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}

/// The record has the masks in the format of the device: a field that the rule claims to match and the driver has dropped would let
/// packets through that software has not decided on.
#[test]
fn no_rule_of_software_steering_is_looser_than_asked() {
    for setup in setups().into_iter().filter(|setup| setup.engine == Engine::Software) {
        let run = Run::probe(&setup, &[]);
        let looser = masks::looser(&setup, &run);
        assert!(run.answers.iter().any(|answer| answer.verdict == Verdict::Created), "nothing was created");
        let listed = refusals::looser(&setup, &run.dpdk);
        let wrong = listed.differences(&looser);
        assert!(wrong.is_empty(), "{}: {} differences\n{}", setup.name(), wrong.len(), wrong.join("\n"));
    }
}

/// What each engine is asked beside its own rules: those of the other one, and those of a NIC that takes everything.
const FOREIGN: [&str; 3] = ["mlx5-sws", "mlx5-hws", "twin"];

/// The twin's profile refuses what the driver refuses, and takes what it takes.
#[test]
fn the_twin_of_an_engine_answers_as_the_driver_does() {
    let mut wrong = Vec::new();
    let (mut taken, mut refused) = (0, 0);
    for setup in setups() {
        for profile in FOREIGN {
            let arguments = ["--rules-of", profile];
            let (driver, twin) = (Run::probe(&setup, &arguments), Run::probe_twin(&setup, &arguments));
            assert_eq!(driver.answers.len(), twin.answers.len(), "{}, rules of {profile}", setup.name());
            for (driver, twin) in driver.answers.iter().zip(&twin.answers) {
                assert_eq!(driver.question, twin.question, "{}, rules of {profile}", setup.name());
                let is_refused = |verdict: &Verdict| matches!(verdict, Verdict::Refused { .. });
                taken += usize::from(driver.verdict == Verdict::Created);
                refused += usize::from(is_refused(&driver.verdict));
                if is_refused(&driver.verdict) != is_refused(&twin.verdict) {
                    let (asked, name) = (&driver.question, setup.name());
                    wrong.push(format!(
                        "{name}, rules of {profile}: {asked}: {:?}, the twin: {:?}",
                        driver.verdict, twin.verdict
                    ));
                }
            }
        }
    }
    row(&format!(
        "judge: the same questions to driver and twin: {taken} taken, {refused} refused, {} answered otherwise",
        wrong.len()
    ));
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
    assert!(taken > 500 && refused > 200, "questions that tell: {taken} taken, {refused} refused");
}

/// The same on DPDK 24.11, in the Debian 13 that `make test` makes below `target`.
#[test]
fn the_next_dpdk_answers_as_listed() {
    // It is the one here; or `make test` asks it behind this.
    if std::env::var_os("SLUICEGATE_NEWER_DPDK").is_some() {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("debian-13.sh");
    let output = Command::new("bash").arg(script).arg("judge").output().unwrap();
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    said.lines().filter(|line| line.starts_with("judge: ")).for_each(row);
    match output.status.code() {
        Some(0) => {}
        Some(3) => row(&format!("judge: SKIPPED: {}", why.lines().last().unwrap_or_default())),
        _ => panic!("{}\n{said}\n{why}", output.status),
    }
}

#[test]
fn a_fault_of_the_card_is_told_as_the_driver_tells_it() {
    for engine in [Engine::Software, Engine::Hardware] {
        let sound = Setup { engine, layout: "switchdev", card: Card::switchdev(2) };
        let run = Run::probe(&sound, &["--typical"]);
        // The driver has rules of its own, from the start of its ports on.
        let first = run.written_before_questions() + 1;
        let fault = match engine {
            Engine::Software => Fault::Rule(first),
            Engine::Hardware => Fault::Entry(first),
        };
        let broken = Setup { card: Card { faults: vec![fault], ..Card::switchdev(2) }, ..sound.clone() };
        let answers = Run::probe(&broken, &["--typical"]).answers;
        let failed: Vec<_> =
            run.answers.iter().zip(&answers).filter(|(sound, broken)| sound.verdict != broken.verdict).collect();
        assert_eq!(failed.len(), 1, "{}: one rule meets {fault:?}, {failed:?}", sound.name());
        let (_, failed) = failed[0];
        assert!(matches!(&failed.verdict, Verdict::Refused { step, .. } if step == "create"), "{failed:?}");
    }
}
