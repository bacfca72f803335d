use std::net::IpAddr;

use super::*;

const LIMITS: Limits = Limits { known: 8, asked: 4 };
const NOW: u64 = 5000;

fn vif(id: u32) -> VifId {
    VifId::new(id).unwrap()
}

/// Neighbour `host` on a vif.
fn key(on: u32, host: u8) -> NeighbourKey {
    (vif(on), IpAddr::from([10, on as u8, 0, host]))
}

fn mac(host: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, host])
}

fn request(host: u8) -> NeighbourClaim {
    NeighbourClaim::Request { mac: mac(host) }
}

fn answer(host: u8) -> NeighbourClaim {
    NeighbourClaim::Advertisement { mac: Some(mac(host)), solicited: true, replace: true }
}

fn tenant(id: u32) -> Tenant {
    Tenant::Vif(vif(id))
}

#[test]
fn a_scan_gives_up_its_own_questions_and_everybody_is_asked_for() {
    let mut cache = Neighbours::default();
    for host in 1..=20 {
        let effects = cache.need(key(2, host), tenant(1), LIMITS, NOW);
        assert_eq!(effects.ask, [(key(2, host), Question::All)]);
        let over = (host > 4).then(|| (key(2, host - 4), GiveUp::QueueFull));
        assert_eq!(effects.give_up, Vec::from_iter(over));
    }
    let effects = cache.need(key(4, 1), tenant(3), LIMITS, NOW);
    assert_eq!(effects.ask, [(key(4, 1), Question::All)]);
    // The scan goes on: the other tenant's stays.
    (30..50).for_each(|host| _ = cache.need(key(2, host), tenant(1), LIMITS, NOW));
    assert_eq!(cache.state(key(4, 1)), Some(State::Incomplete));
    assert_eq!((cache.asked.len(), cache.due.len()), (4, 4));
}

#[test]
fn a_vif_that_fills_the_table_gives_way_to_another_one_but_not_to_itself() {
    let mut cache = Neighbours::default();
    (1..=8).for_each(|host| _ = cache.told(key(1, host), request(host), LIMITS, NOW));
    assert_eq!(cache.told(key(1, 9), request(9), LIMITS, NOW), Effects::default(), "those known stay");
    let effects = cache.told(key(2, 1), request(1), LIMITS, NOW);
    assert_eq!(effects.macs, [(key(1, 1), None), (key(2, 1), Some(mac(1)))], "the oldest of the largest");
    // An equal share is nobody's to take.
    (2..=4).for_each(|host| _ = cache.told(key(2, host), request(host), LIMITS, NOW));
    assert_eq!(cache.told(key(2, 5), request(5), LIMITS, NOW), Effects::default());
    assert_eq!(cache.iter().filter(|(key, _)| key.0 == vif(1)).count(), 4);
}

#[test]
fn what_does_not_answer_gives_way_to_a_neighbour_of_the_same_vif() {
    let mut cache = Neighbours::default();
    (1..=8).for_each(|host| _ = cache.told(key(1, host), request(host), LIMITS, NOW));
    // One is announced with another MAC, and in doubt.
    cache.told(
        key(1, 5),
        NeighbourClaim::Advertisement { mac: Some(mac(77)), solicited: false, replace: true },
        LIMITS,
        NOW,
    );
    let effects = cache.told(key(1, 9), request(9), LIMITS, NOW);
    assert_eq!(effects.macs, [(key(1, 5), None), (key(1, 9), Some(mac(9)))]);
}

#[test]
fn an_answer_that_finds_no_room_gives_its_packets_up() {
    let mut cache = Neighbours::default();
    (1..=8).for_each(|host| _ = cache.told(key(1, host), request(host), LIMITS, NOW));
    cache.need(key(1, 9), tenant(3), LIMITS, NOW);
    let effects = cache.told(key(1, 9), answer(9), LIMITS, NOW);
    assert_eq!((effects.give_up, effects.macs), (vec![(key(1, 9), GiveUp::TableFull)], vec![]));
    assert_eq!((cache.state(key(1, 9)), cache.asked.len()), (None, 0));
}

#[test]
fn a_neighbour_that_is_watched_is_asked_for_until_it_answers() {
    let mut cache = Neighbours::default();
    let gateway = key(1, 254);
    let wanted = BTreeSet::from([gateway]);
    assert_eq!(cache.keep(&wanted, LIMITS, NOW).ask, [(gateway, Question::All)]);
    assert_eq!(cache.keep(&wanted, LIMITS, NOW), Effects::default(), "once");
    assert_eq!(cache.tick(LIMITS, NOW + 1000).ask.len() + cache.tick(LIMITS, NOW + 2000).ask.len(), 2);
    assert_eq!(cache.tick(LIMITS, NOW + 3000).give_up, [(gateway, GiveUp::Unresolved)]);
    assert_eq!(cache.state(gateway), Some(State::Unreachable));
    assert_eq!(cache.tick(LIMITS, NOW + 4000).ask, [(gateway, Question::All)]);
    assert_eq!(cache.told(gateway, answer(254), LIMITS, NOW + 4001).macs, [(gateway, Some(mac(254)))]);
    // No flood takes its place; when nobody needs it any more it is one of many.
    (1..=40).for_each(|host| _ = cache.told(key(1, host), request(host), LIMITS, NOW));
    assert_eq!((cache.state(gateway), cache.known.len()), (Some(State::Reachable), 7));
    assert_eq!(cache.keep(&BTreeSet::new(), LIMITS, NOW), Effects::default());
    assert_eq!((cache.state(gateway), cache.known.len(), cache.kept), (Some(State::Reachable), 8, 0));
}

#[test]
fn a_link_down_removes_neighbours_and_link_up_asks_for_watched_ones() {
    let mut cache = Neighbours::default();
    let gateway = key(1, 254);
    cache.keep(&BTreeSet::from([gateway]), LIMITS, NOW);
    for neighbour in [gateway, key(1, 1), key(2, 1)] {
        cache.told(neighbour, answer(1), LIMITS, NOW);
        cache.told(neighbour, request(1), LIMITS, NOW);
    }
    cache.need(key(1, 2), tenant(3), LIMITS, NOW);
    let effects = cache.forget(|(on, _)| on == vif(1));
    assert_eq!(effects.macs, [(key(1, 1), None), (gateway, None)]);
    let left: Vec<_> = cache.iter().collect();
    assert_eq!(left, [(gateway, State::Unreachable), (key(2, 1), State::Reachable)]);
    assert_eq!(cache.ask_again(|on| on == vif(1), NOW + 50).ask, [(gateway, Question::All)]);
    assert_eq!((cache.asked.len(), cache.due.len()), (0, 2));
}

#[test]
fn timers_and_shares_are_those_of_the_entries() {
    let mut cache = Neighbours::default();
    let limits = Limits { known: 5, asked: 3 };
    let mut seed = 7u32;
    for now in 0..20_000u64 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (on, host) = (seed >> 20 & 3, (seed >> 24 & 7) as u8);
        let neighbour = key(on + 1, host);
        match seed >> 8 & 7 {
            0 | 1 => _ = cache.need(neighbour, tenant(on + 1), limits, now),
            2 => _ = cache.told(neighbour, answer(host), limits, now),
            3 => _ = cache.told(neighbour, request(host), limits, now),
            4 => _ = cache.told(neighbour, NeighbourClaim::Solicitation { mac: mac(host) }, limits, now),
            5 if host == 0 => _ = cache.forget(|key| key.0 == neighbour.0),
            6 if host < 2 => _ = cache.keep(&BTreeSet::from([neighbour]), limits, now),
            _ => _ = cache.tick(limits, now * 10),
        }
        let with_timer = cache.entries.values().filter(|entry| entry.cell.due() != u64::MAX).count();
        assert_eq!((cache.due.len(), cache.kept), (with_timer, usize::from(cache.kept > 0)));
        assert_eq!(cache.known.len() + cache.asked.len() + cache.kept, cache.entries.len());
        assert!(cache.known.len() <= 5 && cache.asked.len() <= 3);
        let in_place = |entry: &Entry| entry.cell.mac().is_some() == matches!(entry.share, Share::Known(_));
        assert!(cache.entries.values().all(|entry| matches!(entry.share, Share::Kept) || in_place(entry)));
    }
}
