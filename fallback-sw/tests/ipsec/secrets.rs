//! Keys are where they have to be and nowhere else.

use std::os::unix::fs::PermissionsExt as _;

use fallback_sw::{
    node::{
        decode, encode,
        persist::{self, LastState},
        runtime::{Config, Runtime},
        sa_view,
    },
    replay,
    worker::Worker,
};
use offload_rules::forwarding::{Snapshot, State};
use proto::json::{self, Defaults};

use crate::{
    common::{packets::udp, snapshot},
    net::{CE1_DOWN, CE1_UP, CLIENT, Net, Pair, SERVER, ce1},
};

fn keys() -> impl Iterator<Item = String> {
    CE1_UP.into_iter().chain(CE1_DOWN).map(Pair::key)
}

/// No key in hexadecimal, whole or by its words, nor as a list of numbers as Debug prints octets.
#[track_caller]
fn holds_no_key(what: &str, text: &str) {
    for key in keys() {
        let octets: Vec<String> = crate::common::hex(&key).iter().map(ToString::to_string).collect();
        for shape in [key.clone(), key[..16].to_owned(), octets[..8].join(", ")] {
            assert!(!text.contains(&shape), "{what} tells a key");
        }
    }
}

#[test]
fn what_the_node_shows_of_itself_holds_no_key() {
    let mut net = Net::default();
    net.to_server(&udp(CLIENT, SERVER, 5000, 53, b"x").ip());
    let control = net.ce1.machine.control();
    let state: State = control.snapshot().to_state();
    holds_no_key("Debug of the state", &format!("{state:?}{:?}", control.snapshot()));
    let shown = encode::state(&state);
    holds_no_key("Debug of the message", &format!("{shown:#?}"));
    holds_no_key("GetState", &json::to_string(&shown, Defaults::Written).unwrap());
    let statuses: Vec<_> = net.ce1.machine.workers().iter().map(Worker::sas).collect();
    for info in sa_view::sas(control, &statuses) {
        assert_eq!(info.sa.as_ref().unwrap().key, "redacted");
        holds_no_key("ListSas", &json::to_string(&info, Defaults::Written).unwrap());
    }
}

#[test]
fn an_error_about_a_key_does_not_hold_it() {
    let message = ce1().replace(&CE1_UP[0].key(), &CE1_UP[0].key()[..30]);
    let state = decode::state(&json::parse(&message, "state.json").unwrap()).unwrap();
    let errors = Snapshot::empty().with_state(state).unwrap_err().to_string();
    assert!(errors.starts_with("sa 17: key: has 15 octets"), "{errors}");
    holds_no_key("the refusal", &errors);
}

#[test]
fn the_kept_state_has_the_keys_and_only_its_owner_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("last.json");
    let state = snapshot(&ce1()).to_state();
    persist::save(&file, &state).unwrap();
    let net = Net::default();
    let numbers = persist::sequences_file(&file);
    let mut last = LastState::open(&file).unwrap();
    last.save_sequences(net.ce1.machine.control().sequences()).unwrap();
    for file in [&file, &numbers] {
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // A node that is started again has its SAs.
    assert_eq!(replay::load_state(&file).unwrap().to_state(), state);
    assert_eq!(&last.load().unwrap().unwrap().to_state(), &state);
    assert_eq!(&last.sequences().unwrap(), net.ce1.machine.control().sequences());
    holds_no_key("the file of reserved numbers", &std::fs::read_to_string(&numbers).unwrap());
}

#[test]
fn without_a_file_to_reserve_numbers_in_nothing_is_sealed() {
    let started = Runtime::start(Config::default(), (*snapshot(&ce1())).clone());
    let Err(error) = started else { panic!("it has started") };
    assert!(error.to_string().contains("--last-state"), "{error}");
}

#[test]
fn a_damaged_file_of_reserved_numbers_stops_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("last.json");
    std::fs::write(persist::sequences_file(&file), "0 1\n").unwrap();
    let config = Config { last_state: Some(LastState::open(&file).unwrap()), ..Config::default() };
    let Err(error) = Runtime::start(config, Snapshot::empty()) else { panic!("it has started") };
    assert!(error.to_string().contains("line 1"), "{error}");
}
