use std::net::IpAddr;

use offload_rules::{MacAddr, VifId};

use super::*;
use crate::{
    node::neighbours::Limits,
    worker::{GiveUp, NeighbourClaim},
};

const LIMITS: Limits = Limits { known: 100, asked: 100 };
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfe]);
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfd]);

fn key(host: u8) -> NeighbourKey {
    (VifId::new(2).unwrap(), IpAddr::from([198, 51, 100, host]))
}

fn answer(mac: MacAddr) -> NeighbourClaim {
    NeighbourClaim::Advertisement { mac: Some(mac), solicited: true, replace: true }
}

fn announcement(mac: MacAddr) -> NeighbourClaim {
    NeighbourClaim::Advertisement { mac: Some(mac), solicited: false, replace: true }
}

/// A cache with its gateways, and what they ask and find out, with the time.
#[derive(Default)]
struct Bed {
    cache: Neighbours,
    gateways: Gateways,
    now: u64,
    asked: Vec<(u64, NeighbourKey, Question)>,
    news: Vec<(u64, NeighbourKey, GatewayState)>,
}

impl Bed {
    fn with(hosts: &[u8]) -> Self {
        let mut bed = Self::default();
        let wanted: BTreeSet<_> = hosts.iter().map(|host| key(*host)).collect();
        let effects = bed.cache.keep(&wanted, LIMITS, 0);
        bed.asked.extend(effects.ask.iter().map(|(key, question)| (0, *key, *question)));
        assert_eq!(bed.gateways.watch(&wanted, 0), []);
        bed
    }

    /// Lets time pass; a gateway that `answers` does so at once.
    fn run(&mut self, until: u64, answers: impl Fn(NeighbourKey) -> Option<MacAddr>) {
        while self.now < until {
            self.now += 100;
            let effects = self.cache.tick(LIMITS, self.now);
            let mut ask = effects.ask;
            let mut news = Vec::new();
            for (key, why) in effects.give_up {
                assert_eq!(why, GiveUp::Unresolved);
                news.extend(self.gateways.lost(key));
            }
            news.extend(self.gateways.tick(&mut self.cache, self.now, &mut ask));
            for (key, question) in ask {
                self.asked.push((self.now, key, question));
                let heard = answers(key).filter(|mac| question == Question::All || question == Question::Station(*mac));
                if let Some(mac) = heard {
                    news.extend(self.tell(key, answer(mac)));
                }
            }
            self.news.extend(news.into_iter().map(|(key, state)| (self.now, key, state)));
        }
    }

    fn tell(&mut self, key: NeighbourKey, told: NeighbourClaim) -> Option<GatewayChange> {
        self.cache.told(key, told, LIMITS, self.now);
        self.gateways.told(key, &self.cache, self.now)
    }

    /// When a gateway was asked, and how.
    fn asked(&self, host: u8) -> Vec<(u64, Question)> {
        self.asked.iter().filter(|(_, to, _)| *to == key(host)).map(|(at, _, question)| (*at, *question)).collect()
    }

    fn news(&self) -> Vec<(u64, GatewayState)> {
        self.news.iter().map(|(at, _, state)| (*at, *state)).collect()
    }
}

#[test]
fn a_gateway_that_answers_is_asked_at_its_mac_every_three_seconds() {
    let mut bed = Bed::with(&[1]);
    assert_eq!(bed.tell(key(1), answer(MAC)), None);
    bed.run(10_000, |_| Some(MAC));
    let station = Question::Station(MAC);
    assert_eq!(bed.asked(1), [(0, Question::All), (3000, station), (6000, station), (9000, station)]);
    assert_eq!(bed.news(), []);
}

#[test]
fn a_gateway_is_dead_after_three_questions_and_keeps_its_cached_mac() {
    let mut bed = Bed::with(&[1]);
    bed.tell(key(1), answer(MAC));
    bed.run(6500, |_| None);
    let station = Question::Station(MAC);
    assert_eq!(
        bed.asked(1),
        [(0, Question::All), (3000, station), (4000, station), (5000, station), (6000, Question::All)]
    );
    assert_eq!(bed.news(), [(6000, GatewayState::Dead)]);
    assert!(bed.cache.state(key(1)).is_some_and(State::has_mac));
    bed.run(34_000, |_| None);
    assert_eq!(bed.cache.state(key(1)), Some(State::Unreachable));
    // Said once.
    assert_eq!(bed.news(), [(6000, GatewayState::Dead)]);
}

#[test]
fn a_dead_gateway_is_alive_with_its_first_answer_whatever_its_mac() {
    for mac in [MAC, OTHER] {
        let mut bed = Bed::with(&[1]);
        bed.tell(key(1), answer(MAC));
        bed.run(7000, |_| None);
        bed.run(9000, |_| Some(mac));
        assert_eq!(bed.news(), [(6000, GatewayState::Dead), (8000, GatewayState::Alive)]);
        // From then on it is polled there.
        bed.run(12_000, |_| Some(mac));
        assert_eq!(bed.asked(1).last(), Some(&(11_000, Question::Station(mac))));
    }
}

#[test]
fn a_mac_that_changes_without_a_word_is_found_within_six_seconds() {
    let mut bed = Bed::with(&[1]);
    bed.tell(key(1), answer(MAC));
    bed.run(6100, |_| Some(OTHER));
    assert_eq!(bed.news(), [(6000, GatewayState::Dead), (6000, GatewayState::Alive)]);
}

#[test]
fn a_dead_gateways_announcement_has_it_asked_and_is_no_answer() {
    let mut bed = Bed::with(&[1]);
    bed.tell(key(1), answer(MAC));
    bed.run(7500, |_| None);
    assert_eq!(bed.tell(key(1), announcement(OTHER)), None);
    assert_eq!(bed.news(), [(6000, GatewayState::Dead)]);
    bed.run(7600, |_| Some(OTHER));
    assert_eq!(bed.news().last(), Some(&(7600, GatewayState::Alive)));
}

#[test]
fn announcements_do_not_make_the_node_ask_more_than_once_a_second() {
    let mut bed = Bed::with(&[1]);
    bed.tell(key(1), answer(MAC));
    bed.run(6000, |_| None);
    for _ in 0..40 {
        bed.tell(key(1), announcement(MAC));
        let next = bed.now + 100;
        bed.run(next, |_| None);
    }
    let late = bed.asked(1).iter().filter(|(at, _)| *at > 6000).count();
    assert!(late <= 4, "{late} questions in four seconds");
}

#[test]
fn a_gateway_that_never_answers_is_dead_after_three_and_still_asked() {
    let mut bed = Bed::with(&[1, 2]);
    bed.tell(key(2), answer(MAC));
    bed.run(3000, |to| (to == key(2)).then_some(MAC));
    assert_eq!(bed.news, [(3000, key(1), GatewayState::Dead)]);
    assert_eq!(bed.asked(1).len(), 3);
    bed.run(40_000, |to| (to == key(2)).then_some(MAC));
    let later: Vec<u64> = bed.asked(1).iter().map(|(at, _)| *at).filter(|at| *at > 3000).collect();
    assert!(later.windows(2).all(|pair| (1000..=8000).contains(&(pair[1] - pair[0]))), "{later:?}");
    assert!(later.last().is_some_and(|at| *at > 30_000), "{later:?}");
    bed.run(50_000, |_| Some(MAC));
    assert_eq!(bed.news.last().map(|(_, key, state)| (*key, *state)), Some((key(1), GatewayState::Alive)));
}

#[test]
fn one_that_is_not_named_any_more_is_not_watched_and_not_dead() {
    let mut bed = Bed::with(&[1, 2]);
    bed.run(4000, |_| None);
    let left = BTreeSet::from([key(2)]);
    bed.cache.keep(&left, LIMITS, bed.now);
    assert_eq!(bed.gateways.watch(&left, bed.now), [(key(1), GatewayState::Alive), (key(2), GatewayState::Dead)]);
    let before = bed.asked(1).len();
    bed.run(20_000, |_| None);
    assert_eq!(bed.asked(1).len(), before);
    assert_eq!((bed.gateways.watches.len(), bed.gateways.due.len()), (1, 1));
}

#[test]
fn many_gateways_are_asked_a_few_at_a_time() {
    let hosts: Vec<u8> = (1..=200).collect();
    let mut bed = Bed::with(&hosts);
    hosts.iter().for_each(|host| _ = bed.tell(key(*host), answer(MAC)));
    bed.run(6000, |_| Some(MAC));
    for at in (0..6000).step_by(100).skip(1) {
        let now = bed.asked.iter().filter(|(when, ..)| *when == at).count();
        assert!(now <= 64, "{now} questions at {at}");
    }
    assert!(hosts.iter().all(|host| bed.asked(*host).len() >= 2));
    assert_eq!(bed.news(), []);
}
