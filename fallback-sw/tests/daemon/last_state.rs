//! What is kept for the next start, what is said when it cannot be, and which state a node begins with.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;

use crate::process::{Daemon, refusal, until, write};

const STATE: &str = r#"{"generation": 1, "vrfs": [{"id": 1, "name": "one"}]}"#;

fn delta(base: u64) -> String {
    let (next, vrf) = (base + 1, base + 100);
    format!(r#"{{"baseGeneration": {base}, "generation": {next}, "vrfs": [{{"id": {vrf}, "name": "vrf{vrf}"}}]}}"#)
}

#[test]
fn case_10_a_folder_that_is_not_there_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let state = write(folder.path(), "state.json", STATE);
    let last = folder.path().join("absent/last.json").display().to_string();
    let told = refusal(folder.path(), &["--state", &state, "--last-state", &last]);
    let absent = folder.path().join("absent").display().to_string();
    assert_eq!(
        told,
        format!("fallback-sw: --last-state {last}: there is no folder {absent}: make it (install -d -m 700 {absent})")
    );
    assert!(!folder.path().join("absent").exists());
}

#[test]
fn case_10_a_place_that_nothing_can_be_kept_in_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let last = folder.path().display().to_string();
    let told = refusal(folder.path(), &["--last-state", &last]);
    assert!(told.contains("not a regular file"), "{told}");
    // A device is not replaced by a file.
    let told = refusal(folder.path(), &["--last-state", "/dev/full"]);
    assert!(told.contains("/dev/full") && told.contains("not a regular file"), "{told}");
    // No process writes into it, root's neither.
    let told = refusal(folder.path(), &["--last-state", "/proc/sys/last.json"]);
    assert!(told.starts_with("fallback-sw: --last-state /proc/sys/last.json: "), "{told}");
}

#[test]
fn case_10_a_state_that_cannot_be_saved_is_reported_and_saved_later() {
    let folder = tempfile::tempdir().unwrap();
    let state = write(folder.path(), "state.json", STATE);
    let last = folder.path().join("last.json");
    let name = last.display().to_string();
    let node = Daemon::start(folder.path(), "node", &["--state", &state, "--last-state", &name]);
    until("the first state is kept", || last.exists().then_some(()));
    assert_eq!(node.change(&delta(1)).unwrap().warnings, Vec::<String>::new());
    // What the node writes first is in the way: a folder, which it cannot remove.
    let obstacle = folder.path().join("last.json.new");
    fs::create_dir(&obstacle).unwrap();
    fs::write(obstacle.join("x"), "").unwrap();
    let applied = node.change(&delta(2)).unwrap();
    assert_eq!(applied.generation, 3);
    let [warning] = applied.warnings.as_slice() else { panic!("{:?}", applied.warnings) };
    assert!(warning.starts_with(&format!("{name}: ")) && warning.contains("could not be kept"), "{warning}");
    assert!(node.log().contains(warning.as_str()), "the log names the file");
    assert!(fs::read_to_string(&last).unwrap().contains("\"2\""), "the one kept before stays whole");
    fs::remove_dir_all(&obstacle).unwrap();
    until("it is kept again", || fs::read_to_string(&last).unwrap().contains("\"3\"").then_some(()));
    node.wait_for_log("kept again");
    assert_eq!(node.change(&delta(3)).unwrap().warnings, Vec::<String>::new());
    assert_eq!(node.log().matches("could not be kept").count(), 1, "once, not with each attempt");
}

#[test]
fn case_10_a_full_disk_is_told_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let state = write(folder.path(), "state.json", STATE);
    let last = folder.path().join("last.json").display().to_string();
    // No file may grow beyond 4096 octets: SIGXFSZ is sent, and the write fails as on a full disk.
    let node = Daemon::under(
        "ulimit -f 8; exec \"$@\" 2>/dev/null",
        folder.path(),
        "node",
        &["--state", &state, "--last-state", &last],
    );
    until("it answers", || node.socket.exists().then_some(()));
    until("the first state is kept", || std::path::Path::new(&last).exists().then_some(()));
    let vrfs: Vec<_> = (100..400).map(|id| format!(r#"{{"id": {id}, "name": "vrf{id}"}}"#)).collect();
    let much = format!(r#"{{"baseGeneration": 1, "generation": 2, "vrfs": [{}]}}"#, vrfs.join(","));
    let applied = node.change(&much).unwrap();
    assert!(applied.warnings.iter().any(|warning| warning.contains(&last)), "{:?}", applied.warnings);
    assert_eq!(node.generation(), 2);
}

#[test]
fn case_10_the_log_says_which_state_the_node_begins_with_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let state = write(folder.path(), "state.json", STATE);
    let last = folder.path().join("last.json").display().to_string();
    let arguments = ["--state", &state, "--last-state", &last];
    let node = Daemon::start(folder.path(), "node", &arguments);
    assert!(node.log().contains(&format!("beginning with --state {state}, generation 1\n")), "{}", node.log());
    node.change(&delta(1)).unwrap();
    node.end_by(Signal::SIGKILL);
    let node = Daemon::start(folder.path(), "node", &arguments);
    let line = format!(
        "INFO fallback_sw::node::initial_state: beginning with the kept state {last}, generation 2; --state {state} has 1\n"
    );
    assert!(node.log().contains(&line), "{}", node.log());
    assert_eq!(node.generation(), 2);
    node.end_by(Signal::SIGTERM);
    write(folder.path(), "state.json", &STATE.replace(": 1,", ": 5,"));
    let node = Daemon::start(folder.path(), "node", &arguments);
    let line = format!("beginning with --state {state}, generation 5; the kept state {last} has 2\n");
    assert!(node.log().contains(&line), "{}", node.log());
    assert_eq!(node.generation(), 5);
    node.end_by(Signal::SIGTERM);
    let node = Daemon::start(folder.path(), "node", &["--last-state", &last]);
    assert!(node.log().contains(&format!("beginning with the kept state {last}, generation 5\n")), "{}", node.log());
}

#[test]
fn two_nodes_do_not_share_a_last_state() {
    let folder = tempfile::tempdir().unwrap();
    let last = folder.path().join("last.json").display().to_string();
    let first = Daemon::start(folder.path(), "first", &["--last-state", &last]);
    let told = refusal(folder.path(), &["--last-state", &last]);
    assert!(told.contains(&last) && told.contains("another node"), "{told}");
    // The lock ends with the process, however it ends.
    first.end_by(Signal::SIGKILL);
    Daemon::start(folder.path(), "second", &["--last-state", &last]);
}

/// A folder to keep a last state in, and a file with a state to begin with.
fn place_and_state(folder: &Path) -> (PathBuf, String) {
    let place = folder.join("kept");
    fs::create_dir(&place).unwrap();
    (place, write(folder, "state.json", STATE))
}

#[test]
fn a_folder_that_is_made_again_is_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let (place, state) = place_and_state(folder.path());
    let last = place.join("last.json");
    let name = last.display().to_string();
    let node = Daemon::start(folder.path(), "node", &["--state", &state, "--last-state", &name]);
    until("the first state is kept", || last.exists().then_some(()));
    fs::remove_dir_all(&place).unwrap();
    let applied = node.change(&delta(1)).unwrap();
    assert!(matches!(applied.warnings.as_slice(), [warning] if warning.contains("could not be kept")), "{applied:?}");
    fs::create_dir(&place).unwrap();
    until("it is kept again", || last.exists().then_some(()));
    // With its numbers, without which a next start would refuse all keys, and with the lock.
    assert!(place.join("last.json.sequences").exists());
    let told = refusal(folder.path(), &["--last-state", &name]);
    assert!(told.contains(&name) && told.contains("another node"), "{told}");
    assert_eq!(node.change(&delta(2)).unwrap().warnings, Vec::<String>::new());
}

#[test]
fn a_folder_that_another_node_has_taken_is_left_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let (place, state) = place_and_state(folder.path());
    let last = place.join("last.json");
    let name = last.display().to_string();
    let node = Daemon::start(folder.path(), "first", &["--state", &state, "--last-state", &name]);
    until("the first state is kept", || last.exists().then_some(()));
    fs::rename(&place, folder.path().join("away")).unwrap();
    fs::create_dir(&place).unwrap();
    let second = Daemon::start(folder.path(), "second", &["--state", &state, "--last-state", &name]);
    until("the second node keeps its state", || last.exists().then_some(()));
    let applied = node.change(&delta(1)).unwrap();
    assert!(matches!(applied.warnings.as_slice(), [warning] if warning.contains("another node")), "{applied:?}");
    assert_eq!(second.change(&delta(1)).unwrap().warnings, Vec::<String>::new());
    assert!(fs::read_to_string(&last).unwrap().contains("\"2\""));
}

#[test]
fn a_half_written_file_is_removed_and_a_link_there_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let victim = write(folder.path(), "victim", "mine");
    for name in ["last.json.new", "last.json.4711.new", "last.json.sequences.new", "last.json.sequences.12.new"] {
        symlink(&victim, folder.path().join(name)).unwrap();
    }
    write(folder.path(), "last.json.other.new", "somebody else's");
    let state = write(folder.path(), "state.json", STATE);
    let last = folder.path().join("last.json");
    let node = Daemon::start(folder.path(), "node", &["--state", &state, "--last-state", &last.display().to_string()]);
    until("the state is kept", || last.exists().then_some(()));
    symlink(&victim, folder.path().join("last.json.new")).unwrap();
    assert_eq!(node.change(&delta(1)).unwrap().warnings, Vec::<String>::new());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    let found = fs::symlink_metadata(&last).unwrap();
    assert_eq!((found.is_file(), found.permissions().mode() & 0o777, found.nlink()), (true, 0o600, 1));
    let mut left: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.retain(|name| name.ends_with(".new"));
    assert_eq!(left, ["last.json.other.new"]);
}
