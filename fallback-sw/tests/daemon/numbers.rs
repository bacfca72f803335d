//! No sequence number is used twice under one key, whatever becomes of the files (RFC 4106 §2).

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use proto::v1::SaState;

use crate::process::{Daemon, refusal, until, write};

const BLOCK: u64 = 1 << 22;

/// A tunnel with one SA out, whose devices are not there.
fn state(generation: u64, key: &str) -> String {
    format!(
        r#"{{"generation": {generation}, "vrfs": [{{"id": 2, "name": "out"}}],
        "vifs": [{{"id": 1, "name": "wan-of-test", "type": "PHYSICAL", "mac": "02:00:00:00:00:c1", "vrf": 2, "addresses": ["192.0.2.1/24"]}},
          {{"id": 9, "name": "tunnel", "type": "TUNNEL", "vrf": 2, "mtu": 1400,
            "tunnel": {{"source": "192.0.2.1", "destination": "192.0.2.2", "vrf": 2, "outboundSas": [17], "inboundSas": []}}}}],
        "sas": [{{"id": 17, "spi": 4113, "direction": "OUTBOUND", "key": "{key}", "esn": true}}]}}"#
    )
}

fn key(n: u32) -> String {
    format!("{n:08x}").repeat(5)
}

/// A delta that gives the SA another key.
fn rekey(base: u64, n: u32) -> String {
    let (next, key) = (base + 1, key(n));
    format!(
        r#"{{"baseGeneration": {base}, "generation": {next},
        "sas": [{{"id": 17, "spi": {}, "direction": "OUTBOUND", "key": "{key}", "esn": true}}]}}"#,
        5000 + n
    )
}

struct Bed {
    folder: tempfile::TempDir,
    state: String,
    last: String,
    numbers: String,
}

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = write(folder.path(), "state.json", &state(1, &key(1)));
        let last = folder.path().join("last.json").display().to_string();
        let numbers = format!("{last}.sequences");
        Self { folder, state, last, numbers }
    }

    fn start(&self) -> Daemon {
        self.start_with(&["--state", &self.state, "--last-state", &self.last])
    }

    fn start_with(&self, arguments: &[&str]) -> Daemon {
        let node = Daemon::start(self.folder.path(), "node", arguments);
        // Whatever it keeps of its beginning is there.
        let last = arguments.last().unwrap();
        until("it keeps its state", || Path::new(last).exists().then_some(()));
        node
    }

    /// A life of the node, killed at its end; returns the first number that the life did not reserve.
    fn live(&self) -> u64 {
        let node = self.start();
        let until = reserved(&node);
        node.end_by(Signal::SIGKILL);
        until
    }

    fn copy(&self, from: &str, to: &str) {
        fs::copy(self.folder.path().join(from), self.folder.path().join(to)).unwrap();
    }
}

/// Waits until numbers are reserved.
fn reserved(node: &Daemon) -> u64 {
    until("numbers are reserved", || Some(node.sa(17)).map(|sa| sa.reserved_until).filter(|until| *until > 0))
}

/// The SA is refused and says why, in this life and in the next; then another key is taken.
#[track_caller]
fn is_refused(bed: &Bed, arguments: &[&str], why: &str) {
    let mut generation = 0;
    for life in 1..=2 {
        let node = bed.start_with(arguments);
        let sa = node.sa(17);
        assert_eq!((sa.state(), sa.reserved_until), (SaState::SaRefused, 0), "life {life}: {sa:?}");
        assert!(sa.refused_reason.contains(why), "life {life}: {}", sa.refused_reason);
        let log = node.log();
        assert!(log.lines().any(|line| line.contains("ERROR") && line.contains(why) && line.contains("17")), "{log}");
        generation = node.generation();
        node.end_by(Signal::SIGTERM);
    }
    let node = bed.start_with(arguments);
    // Who changes something else is told as well, and what is applied is in force.
    let other = format!(
        r#"{{"baseGeneration": {generation}, "generation": {}, "vrfs": [{{"id": 3, "name": "more"}}]}}"#,
        generation + 1
    );
    let applied = node.change(&other).unwrap();
    let [warning] = applied.warnings.as_slice() else { panic!("{:?}", applied.warnings) };
    assert!(warning.starts_with("sa 17 is refused") && warning.contains(why), "{warning}");
    // Under another number it is the same key.
    let again = format!(
        r#"{{"baseGeneration": {}, "generation": {}, "removeSas": [17],
        "vifs": [{{"id": 9, "name": "tunnel", "type": "TUNNEL", "vrf": 2, "mtu": 1400,
          "tunnel": {{"source": "192.0.2.1", "destination": "192.0.2.2", "vrf": 2, "outboundSas": [18], "inboundSas": []}}}}],
        "sas": [{{"id": 18, "spi": 4999, "direction": "OUTBOUND", "key": "{}", "esn": true}}]}}"#,
        generation + 1,
        generation + 2,
        key(1)
    );
    assert!(node.change(&again).unwrap().warnings.iter().any(|warning| warning.starts_with("sa 18 is refused")));
    assert_eq!((node.sa(18).state(), node.sa(18).reserved_until), (SaState::SaRefused, 0));
    let fresh = format!(
        r#"{{"baseGeneration": {}, "generation": {},
        "sas": [{{"id": 18, "spi": 5000, "direction": "OUTBOUND", "key": "{}", "esn": true}}]}}"#,
        generation + 2,
        generation + 3,
        key(99)
    );
    assert_eq!(node.change(&fresh).unwrap().warnings, Vec::<String>::new());
    until("numbers are reserved", || (node.sa(18).reserved_until == 1 + BLOCK).then_some(()));
    assert_eq!(node.sa(18).state(), SaState::SaActive);
}

#[test]
fn each_life_passes_over_what_an_earlier_one_has_reserved() {
    let bed = Bed::new();
    assert_eq!([bed.live(), bed.live(), bed.live()], [1 + BLOCK, 1 + 2 * BLOCK, 1 + 3 * BLOCK]);
}

#[test]
fn a_node_killed_at_any_moment_of_its_start_finds_its_files_whole() {
    let bed = Bed::new();
    let arguments = ["--state", &bed.state, "--last-state", &bed.last];
    let mut last = 0;
    for life in 0..24_u32 {
        let begun = Instant::now();
        let node = Daemon::spawn(bed.folder.path(), "killed", &arguments);
        // The moment is the test's input, from before anything is written to after all is.
        while begun.elapsed() < Duration::from_millis(8) * life {
            std::thread::yield_now();
        }
        node.end_by(Signal::SIGKILL);
        if life % 6 == 5 {
            let until = bed.live();
            assert!(until > last, "{until} after {last}");
            last = until;
        }
    }
    assert_eq!(bed.start().sa(17).state(), SaState::SaActive);
}

#[test]
fn a_kept_state_without_its_ledger_seals_nothing_before_new_keys() {
    for with_state in [true, false] {
        let bed = Bed::new();
        bed.live();
        fs::remove_file(&bed.numbers).unwrap();
        let arguments = ["--state", &bed.state, "--last-state", &bed.last];
        is_refused(&bed, if with_state { &arguments } else { &arguments[2..] }, "without its file");
    }
}

#[test]
fn a_backup_put_back_after_more_was_sealed_seals_nothing() {
    let bed = Bed::new();
    bed.live();
    bed.copy("last.json", "backup.json");
    bed.copy("last.json.sequences", "backup.sequences");
    bed.live();
    bed.copy("backup.json", "last.json");
    // Over the file that is there, and as a file of its own.
    bed.copy("backup.sequences", "last.json.sequences");
    is_refused(&bed, &["--state", &bed.state, "--last-state", &bed.last], "copy");
}

#[test]
fn a_backup_that_keeps_all_attributes_is_a_copy_too() {
    for tool in [&["cp", "-a"][..], &["cp", "-a", "--remove-destination"]] {
        let bed = Bed::new();
        bed.live();
        let run = |from: &str, to: &str| {
            let done = Command::new(tool[0]).args(&tool[1..]).arg(from).arg(to).current_dir(bed.folder.path()).status();
            assert!(done.unwrap().success());
        };
        run("last.json.sequences", "backup");
        bed.live();
        run("backup", "last.json.sequences");
        is_refused(&bed, &["--state", &bed.state, "--last-state", &bed.last], "copy");
    }
}

#[test]
fn a_state_put_back_beside_its_own_file_of_numbers_goes_on() {
    let bed = Bed::new();
    bed.live();
    bed.copy("last.json", "backup.json");
    bed.live();
    bed.copy("backup.json", "last.json");
    assert_eq!(bed.live(), 1 + 3 * BLOCK);
}

#[test]
fn files_copied_to_another_node_seal_nothing_there_and_moved_ones_go_on() {
    let bed = Bed::new();
    bed.live();
    let there = bed.folder.path().join("there");
    fs::create_dir(&there).unwrap();
    bed.copy("last.json", "there/last.json");
    bed.copy("last.json.sequences", "there/last.json.sequences");
    let copied = there.join("last.json").display().to_string();
    is_refused(&bed, &["--last-state", &copied], "copy");
    // Renamed, it is the same file.
    fs::rename(&bed.last, bed.folder.path().join("moved.json")).unwrap();
    fs::rename(&bed.numbers, bed.folder.path().join("moved.json.sequences")).unwrap();
    let moved = bed.folder.path().join("moved.json").display().to_string();
    let node = bed.start_with(&["--last-state", &moved]);
    assert_eq!(reserved(&node), 1 + 2 * BLOCK);
}

#[test]
fn another_name_of_the_ledger_is_emptied_when_a_newer_one_replaces_it() {
    let bed = Bed::new();
    bed.live();
    fs::hard_link(&bed.numbers, bed.folder.path().join("backup")).unwrap();
    bed.live();
    assert_eq!(fs::read_to_string(bed.folder.path().join("backup")).unwrap(), "");
    fs::rename(bed.folder.path().join("backup"), &bed.numbers).unwrap();
    let told = refusal(bed.folder.path(), &["--state", &bed.state, "--last-state", &bed.last]);
    assert!(told.contains(&bed.numbers) && told.contains("Remove the file"), "{told}");
}

#[test]
fn a_truncated_or_damaged_ledger_stops_the_start_and_says_what_to_do() {
    let bed = Bed::new();
    bed.live();
    bed.live();
    let whole = fs::read_to_string(&bed.numbers).unwrap();
    let lines: Vec<_> = whole.lines().collect();
    assert_eq!(lines.len(), 3, "{whole}");
    let less = whole.replace(&format!(" {}\n", 1 + 2 * BLOCK), &format!(" {}\n", 1 + BLOCK));
    assert_ne!(less, whole);
    let cut: Vec<String> = (0..whole.len()).step_by(7).map(|end| whole[..end].to_owned()).collect();
    let without_key = format!("{}\n{}\n", lines[0], lines[2]);
    for damaged in cut.into_iter().step_by(4).chain([less, without_key]) {
        fs::write(&bed.numbers, &damaged).unwrap();
        let told = refusal(bed.folder.path(), &["--state", &bed.state, "--last-state", &bed.last]);
        assert!(told.contains(&bed.numbers) && told.contains("Remove the file"), "{damaged:?}: {told}");
    }
    fs::remove_file(&bed.numbers).unwrap();
    is_refused(&bed, &["--state", &bed.state, "--last-state", &bed.last], "without its file");
}

#[test]
fn a_ledger_without_its_own_identity_is_taken_for_a_copy() {
    let bed = Bed::new();
    bed.live();
    let whole = fs::read_to_string(&bed.numbers).unwrap();
    fs::write(&bed.numbers, format!("{}\n", whole.lines().nth(1).unwrap())).unwrap();
    is_refused(&bed, &["--state", &bed.state, "--last-state", &bed.last], "copy");
}

#[test]
fn a_new_sa_begins_with_its_first_number_and_the_log_says_so() {
    let bed = Bed::new();
    let node = bed.start();
    assert_eq!(reserved(&node), 1 + BLOCK);
    let log = node.log();
    assert!(log.lines().any(|line| line.contains(&bed.numbers) && line.contains("must not be among them")), "{log}");
    node.end_by(Signal::SIGTERM);
    assert!(!bed.start().log().contains("must not be among them"));
}

#[test]
fn a_key_that_the_state_file_brings_back_after_the_loss_is_refused_too() {
    let bed = Bed::new();
    let node = bed.start();
    reserved(&node);
    assert_eq!(node.change(&rekey(1, 2)).unwrap().warnings, Vec::<String>::new());
    node.end_by(Signal::SIGKILL);
    // The first key, of the state file, was in use once; it is newer than the kept state now.
    fs::remove_file(&bed.numbers).unwrap();
    write(bed.folder.path(), "state.json", &state(9, &key(1)));
    is_refused(&bed, &["--state", &bed.state, "--last-state", &bed.last], "without its file");
}

#[test]
fn a_key_that_the_file_of_numbers_does_not_list_is_refused() {
    let bed = Bed::new();
    bed.live();
    // As an administrator may do, who edits what is kept.
    let kept = fs::read_to_string(&bed.last).unwrap().replace(&key(1), &key(7));
    fs::write(&bed.last, kept).unwrap();
    let node = bed.start_with(&["--last-state", &bed.last]);
    assert_eq!(node.sa(17).state(), SaState::SaRefused);
    assert!(node.sa(17).refused_reason.contains("does not know"));
}

#[test]
fn rekeys_reserve_numbers_by_key_and_each_restart_uses_the_last_key() {
    let bed = Bed::new();
    let node = bed.start();
    reserved(&node);
    for n in 2..8 {
        assert_eq!(node.change(&rekey(u64::from(n) - 1, n)).unwrap().warnings, Vec::<String>::new());
        until("numbers for the new key", || (node.sa(17).reserved_until == 1 + BLOCK).then_some(()));
    }
    node.end_by(Signal::SIGKILL);
    let node = bed.start();
    assert_eq!((node.generation(), reserved(&node)), (7, 1 + 2 * BLOCK));
}

#[test]
fn who_applies_is_told_when_numbers_could_not_be_reserved() {
    let bed = Bed::new();
    let node = bed.start();
    reserved(&node);
    let obstacle = bed.folder.path().join("last.json.sequences.new");
    fs::create_dir(&obstacle).unwrap();
    fs::write(obstacle.join("x"), "").unwrap();
    let applied = node.change(&rekey(1, 2)).unwrap();
    let [warning] = applied.warnings.as_slice() else { panic!("{:?}", applied.warnings) };
    assert!(warning.starts_with(&bed.numbers), "{warning}");
    assert!(warning.contains("a restart would not begin with it"), "the state waits for its numbers: {warning}");
    assert_eq!(node.sa(17).reserved_until, 0, "no number that is not on disk");
    fs::remove_dir_all(&obstacle).unwrap();
    until("numbers are reserved", || (node.sa(17).reserved_until == 1 + BLOCK).then_some(()));
}

#[test]
fn sas_of_ike_have_fresh_keys_and_go_on_whatever_has_become_of_the_files() {
    let bed = Bed::new();
    bed.live();
    fs::remove_file(&bed.numbers).unwrap();
    // A tunnel by IKE beside the one whose static SA is refused now.
    let ike = r#"{"id": 10, "name": "ike", "type": "TUNNEL", "vrf": 2, "mtu": 1400, "tunnel": {"source": "192.0.2.1", "destination": "192.0.2.3", "vrf": 2, "ike": {}}}"#;
    write(bed.folder.path(), "state.json", &state(5, &key(1)).replace("\"vifs\": [", &format!("\"vifs\": [{ike},")));
    let socket = bed.folder.path().join("ike.sock");
    let arguments = ["--ike-socket", &socket.display().to_string(), "--state", &bed.state, "--last-state", &bed.last];
    let node = bed.start_with(&arguments);
    assert_eq!(node.sa(17).state(), SaState::SaRefused);
    // No number can be reserved on disk from now on.
    let obstacle = bed.folder.path().join("last.json.sequences.new");
    fs::create_dir(&obstacle).unwrap();
    fs::write(obstacle.join("x"), "").unwrap();
    let mut line = BufReader::new(UnixStream::connect(&socket).unwrap());
    for (asked, want) in [
        ("hello version=1 charon=1 events=0".to_owned(), "ok version=1"),
        (
            format!("add-sa dir=out src=192.0.2.1 dst=192.0.2.3 spi=c0000001 key={} esn=0 encap=0 if_id=10", key(50)),
            "ok",
        ),
    ] {
        line.get_mut().write_all(format!("{asked}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        line.read_line(&mut answer).unwrap();
        assert_eq!(answer.trim_end(), want);
    }
    until("numbers for the SA of IKE", || (node.sa(0x8000_0000).reserved_until == 1 + BLOCK).then_some(()));
    assert_eq!(node.sa(0x8000_0000).state(), SaState::SaActive);
}
