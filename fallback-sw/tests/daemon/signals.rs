//! Signals that a daemon is sent.

use std::os::unix::process::ExitStatusExt as _;

use nix::sys::signal::Signal;

use crate::process::{Daemon, write};

const STATE: &str = r#"{"generation": 1, "vrfs": [{"id": 1, "name": "one"}]}"#;

#[test]
fn case_09_hangup_and_user_signals_end_nothing_and_are_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let state = write(folder.path(), "state.json", STATE);
    let mut node = Daemon::start(folder.path(), "node", &["--state", &state]);
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM, Signal::SIGIO] {
        node.signal(signal);
        node.wait_for_log(&format!("{signal}: ignored"));
    }
    node.signal(Signal::SIGPIPE);
    // Each is one line, and the node answers.
    assert_eq!(node.log().lines().filter(|line| line.contains("ignored")).count(), 5, "{}", node.log());
    assert!(node.log().lines().any(|line| line.contains("SIGHUP") && line.contains("host-ctl state")));
    assert_eq!(node.generation(), 1);
    assert!(node.is_running() && node.socket.exists());
}

#[test]
fn case_09_what_ends_the_daemon_ends_it_in_order_without_its_socket() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let folder = tempfile::tempdir().unwrap();
        let node = Daemon::start(folder.path(), "node", &[]);
        let socket = node.socket.clone();
        assert!(socket.exists());
        let (status, log) = node.end_by(signal);
        assert_eq!((status.code(), status.signal()), (Some(0), None), "{log}");
        assert!(log.contains(signal.as_str()), "{log}");
        assert!(!socket.exists(), "{signal} leaves the socket behind");
    }
}
