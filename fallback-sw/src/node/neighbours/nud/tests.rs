//! The rows of the state machine of RFC 4861 appendix C, and the timers of §7.2.2 and §7.3.3.

use super::*;

const OLD: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const NEW: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const NOW: u64 = 1_000_000;

/// A cell in a state, with the MAC `OLD` where the state has one.
fn cell(state: State) -> Cell {
    let mac = state.has_mac().then_some(OLD);
    let asked = u8::from(state.is_asking());
    let asked_at = state.is_asking().then_some(NOW);
    Cell { state, mac, asked, asked_at, confirmed: NOW, due: NOW + 1000 }
}

fn advertisement(mac: Option<MacAddr>, solicited: bool, replace: bool) -> Input {
    Input::Claim(NeighbourClaim::Advertisement { mac, solicited, replace })
}

/// What an input makes of a cell: state and MAC.
fn after(state: State, input: Input) -> (State, Option<MacAddr>) {
    let mut cell = cell(state);
    let step = cell.step(input, NOW);
    assert_eq!(step.mac_changed, cell.mac() != state.has_mac().then_some(OLD), "{state:?} {input:?}");
    assert!(!step.failed && step.ask.is_none(), "{state:?} {input:?}");
    (cell.state(), cell.mac())
}

const DOUBTFUL: [State; 3] = [State::Stale, State::Delay, State::Probe];
const WITH_MAC: [State; 4] = [State::Reachable, State::Stale, State::Delay, State::Probe];
const BOTH: [bool; 2] = [false, true];

#[test]
fn any_advertisement_completes_an_incomplete_entry() {
    for replace in BOTH {
        let solicited = after(State::Incomplete, advertisement(Some(NEW), true, replace));
        assert_eq!(solicited, (State::Reachable, Some(NEW)));
        let unsolicited = after(State::Incomplete, advertisement(Some(NEW), false, replace));
        assert_eq!(unsolicited, (State::Stale, Some(NEW)));
    }
}

#[test]
fn an_advertisement_without_address_completes_nothing() {
    for solicited in BOTH {
        let stays = after(State::Incomplete, advertisement(None, solicited, true));
        assert_eq!(stays, (State::Incomplete, None));
    }
}

#[test]
fn a_solicited_advertisement_with_the_same_address_or_none_confirms() {
    for mac in [Some(OLD), None] {
        for replace in BOTH {
            assert_eq!(after(State::Probe, advertisement(mac, true, replace)), (State::Reachable, Some(OLD)));
        }
    }
}

#[test]
fn without_override_a_new_mac_only_makes_reachable_stale() {
    for solicited in BOTH {
        let told = advertisement(Some(NEW), solicited, false);
        assert_eq!(after(State::Reachable, told), (State::Stale, Some(OLD)));
        for state in DOUBTFUL {
            assert_eq!(after(state, told), (state, Some(OLD)));
        }
    }
}

#[test]
fn with_override_a_new_mac_is_recorded_and_reachable_if_solicited() {
    for state in WITH_MAC {
        assert_eq!(after(state, advertisement(Some(NEW), false, true)), (State::Stale, Some(NEW)), "{state:?}");
    }
    assert_eq!(after(State::Probe, advertisement(Some(NEW), true, true)), (State::Reachable, Some(NEW)));
}

#[test]
fn an_unsolicited_advertisement_of_the_known_address_changes_nothing() {
    for state in WITH_MAC {
        for replace in BOTH {
            for mac in [Some(OLD), None] {
                assert_eq!(after(state, advertisement(mac, false, replace)), (state, Some(OLD)));
            }
        }
    }
}

#[test]
fn a_solicited_flag_that_answers_no_question_is_not_believed() {
    for state in [State::Reachable, State::Stale, State::Delay] {
        assert_eq!(after(state, advertisement(Some(NEW), true, true)), (State::Stale, Some(NEW)), "{state:?}");
    }
    for state in [State::Stale, State::Delay] {
        assert_eq!(after(state, advertisement(Some(OLD), true, true)), (state, Some(OLD)), "{state:?}");
    }
    // An answer to the last question may still be on its way when the first one has come.
    let mut asked = Cell { asked_at: Some(NOW), ..cell(State::Reachable) };
    asked.step(advertisement(Some(NEW), true, true), NOW + RETRANS_MS - 1);
    assert_eq!((asked.state(), asked.mac()), (State::Reachable, Some(NEW)));
    let mut late = Cell { asked_at: Some(NOW), ..cell(State::Reachable) };
    late.step(advertisement(Some(OLD), true, true), NOW + RETRANS_MS);
    late.step(advertisement(Some(NEW), true, true), NOW + RETRANS_MS);
    assert_eq!((late.state(), late.mac()), (State::Stale, Some(NEW)));
}

#[test]
fn a_solicitation_makes_or_changes_an_entry_and_leaves_it_stale() {
    let told = Input::Claim(NeighbourClaim::Solicitation { mac: NEW });
    assert_eq!(after(State::Incomplete, told), (State::Stale, Some(NEW)));
    for state in WITH_MAC {
        assert_eq!(after(state, told), (State::Stale, Some(NEW)), "{state:?}");
        let same = Input::Claim(NeighbourClaim::Solicitation { mac: OLD });
        assert_eq!(after(state, same), (state, Some(OLD)), "{state:?}");
    }
    let (made, step) = Cell::introduced(NeighbourClaim::Solicitation { mac: NEW }, NOW).unwrap();
    assert_eq!((made.state(), made.mac(), step.mac_changed), (State::Stale, Some(NEW), true));
}

#[test]
fn an_advertisement_makes_no_entry() {
    for solicited in BOTH {
        let told = NeighbourClaim::Advertisement { mac: Some(NEW), solicited, replace: true };
        assert_eq!(Cell::introduced(told, NOW), None);
    }
}

#[test]
fn an_arp_request_makes_an_entry_and_a_changed_mac_makes_it_stale() {
    let (made, _) = Cell::introduced(NeighbourClaim::Request { mac: NEW }, NOW).unwrap();
    assert_eq!((made.state(), made.mac()), (State::Reachable, Some(NEW)));
    for state in WITH_MAC {
        let changed = after(state, Input::Claim(NeighbourClaim::Request { mac: NEW }));
        assert_eq!(changed, (State::Stale, Some(NEW)), "{state:?}");
        let heard = after(state, Input::Claim(NeighbourClaim::Request { mac: OLD }));
        assert_eq!(heard, (State::Reachable, Some(OLD)), "{state:?}");
    }
}

/// Milliseconds from `NOW`, and the question, until the cell fails.
fn life(mut cell: Cell) -> (Vec<(u64, Question)>, u64) {
    let mut asked = Vec::new();
    loop {
        let at = cell.due();
        assert_ne!(at, u64::MAX, "{cell:?}");
        let step = cell.step(Input::Timeout, at);
        asked.extend(step.ask.map(|question| (at - NOW, question)));
        if cell.state() == State::Stale {
            cell.step(Input::Used, at);
        }
        if step.failed {
            return (asked, at - NOW);
        }
    }
}

#[test]
fn an_incomplete_entry_fails_a_second_after_three_questions() {
    let (cell, step) = Cell::wanted(NOW);
    assert_eq!(step, Step { ask: Some(Question::All), mac_changed: false, failed: false });
    assert_eq!(life(cell), (vec![(1000, Question::All), (2000, Question::All)], 3000));
}

#[test]
fn a_stale_entry_in_use_is_probed_by_unicast_after_the_delay() {
    let (mut cell, _) = Cell::introduced(NeighbourClaim::Solicitation { mac: OLD }, NOW).unwrap();
    assert_eq!((cell.due(), cell.step(Input::Timeout, NOW + 1_000_000)), (u64::MAX, Step::default()));
    cell.step(Input::Used, NOW);
    assert_eq!((cell.state(), cell.due()), (State::Delay, NOW + 5000));
    let station = Question::Station(OLD);
    assert_eq!(life(cell), (vec![(5000, station), (6000, station), (7000, station)], 8000));
}

#[test]
fn a_reachable_entry_is_stale_25_seconds_after_its_confirmation() {
    let (mut cell, _) = Cell::introduced(NeighbourClaim::Request { mac: OLD }, NOW).unwrap();
    cell.step(Input::Claim(NeighbourClaim::Request { mac: OLD }), NOW + 10_000);
    let (asked, gone) = life(cell);
    assert_eq!((asked.first(), gone), (Some(&(40_000, Question::Station(OLD))), 43_000));
}

#[test]
fn a_failed_probe_takes_the_address_away() {
    let mut cell = Cell { asked: UNICAST_SOLICITS, due: NOW, ..cell(State::Probe) };
    let step = cell.step(Input::Timeout, NOW);
    assert_eq!((step.failed, step.mac_changed, cell.mac()), (true, true, None));
}

#[test]
fn one_that_is_kept_is_asked_for_on_and_on_more_and_more_seldom() {
    let mut cell = Cell { asked: UNICAST_SOLICITS, due: NOW, ..cell(State::Probe) };
    assert!(cell.step(Input::Timeout, NOW).failed);
    cell.keep(NOW);
    let times = (0..6).map(|_| {
        let at = cell.due();
        assert_eq!(cell.step(Input::Timeout, at).ask, Some(Question::All));
        at - NOW
    });
    assert_eq!(times.collect::<Vec<_>>(), [1000, 3000, 7000, 15_000, 23_000, 31_000]);
    assert_eq!(cell.state(), State::Unreachable);
    cell.step(advertisement(Some(NEW), true, true), NOW + 32_000);
    assert_eq!((cell.state(), cell.mac()), (State::Reachable, Some(NEW)));
}
