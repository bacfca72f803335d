//! Two nodes to which the same happens: one keeps decisions for packets without flows, one walks for each packet.

use std::collections::BTreeMap;

use fallback_sw::{
    node::machine::Sent,
    worker::{Account, Counters, Traffic},
};
use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_oneof},
    test_runner::Config,
};

use super::world::{Event, FrameChoice, PORTS, RouteChoice, state};
use crate::{
    common::{Node, vif},
    neighbours::sent_octets,
};

pub(super) fn route() -> impl Strategy<Value = RouteChoice> {
    any::<(u8, u8, u8, u8)>().prop_map(|(vrf, base, len, nexthop)| RouteChoice { vrf, base, len, nexthop })
}

fn frame() -> impl Strategy<Value = FrameChoice> {
    let len = prop_oneof![6 => Just(0), 1 => 1300_u16..1520];
    (any::<(u8, u8, u8, u8, u8, u8)>(), len, 0..8_u8).prop_map(
        |((port, source, destination, kind, ttl, outer), len, sport)| FrameChoice {
            port,
            source,
            destination,
            kind,
            ttl,
            len,
            outer,
            sport,
        },
    )
}

/// Frames of one device in one burst. Half of the bursts are what a router sees most: one kind, one source, that the routes of the
/// beginning lead back to.
fn burst() -> impl Strategy<Value = Event> {
    let anything = vec(frame(), 1..4);
    let transit = (frame(), vec((any::<u8>(), 0..8_u8, 0..2_u8), 2..12)).prop_map(|(like, varied)| {
        let port = [0, 0, 4][usize::from(like.port % 3)];
        let vary = |(destination, sport, source)| {
            let (kind, ttl) = ([1, 4, 4, 8][usize::from(like.kind % 4)], 3 + like.ttl % 5);
            let outer = if like.outer % 4 > 1 { 2 * (like.outer / 4 % 8) * 4 } else { like.outer };
            let source = if port == 4 { 3 } else { source };
            FrameChoice { port, source, destination, sport, kind, ttl, outer, ..like }
        };
        varied.into_iter().map(vary).collect()
    });
    let one_port = |mut frames: Vec<FrameChoice>| {
        let port = frames.first().map_or(0, |frame| frame.port);
        frames.iter_mut().for_each(|frame| frame.port = port);
        Event::Frames(frames)
    };
    prop_oneof![anything, transit].prop_map(one_port)
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        30 => burst(),
        2 => route().prop_map(Event::PutRoute),
        1 => route().prop_map(Event::DropRoute),
        1 => any::<u8>().prop_map(Event::Nexthops),
        1 => any::<(u8, u8)>().prop_map(|(label, nexthop)| Event::Label(label, nexthop)),
        2 => any::<(u8, u8)>().prop_map(|(who, mac)| Event::Arp(who, mac)),
        1 => any::<(u8, bool)>().prop_map(|(port, up)| Event::Link(port, up)),
        1 => (any::<u8>(), 1280..1500_u16).prop_map(|(port, mtu)| Event::Mtu(port, mtu)),
        1 => any::<bool>().prop_map(Event::List),
        1 => Just(Event::Wait),
    ]
}

/// The account, whichever of the two ways packets went.
pub(super) fn account(node: &Node) -> Account {
    let account = node.machine.account();
    Account { slow_path: account.slow_path + account.routed, routed: 0, ..account }
}

/// All counters but where packets ran.
pub(super) fn counted(counters: &Counters) -> impl PartialEq + std::fmt::Debug + use<> {
    let vifs = PORTS.map(|port| (counters.of_vif(vif(port)), counters.of_port(vif(port))));
    let tiers: BTreeMap<_, _> = counters
        .tiers
        .iter()
        .map(|(vrf, tiers)| {
            let mut walked = tiers.slow_path;
            walked.add(tiers.routed);
            (*vrf, [walked, tiers.software, tiers.punt])
        })
        .filter(|(_, tiers)| tiers.iter().any(|tier| *tier != Traffic::default()))
        .collect();
    let vrfs: BTreeMap<_, _> =
        counters.vrfs.iter().filter(|(_, counts)| counts.iter().any(|n| *n > 0)).map(|(v, c)| (*v, *c)).collect();
    (vifs, vrfs, tiers)
}

/// What was sent, in an order that does not depend on which packets went ahead of others, and without the identifications of IPv4 headers
/// (and their checksums), which are given in that order.
pub(super) fn unordered(sent: &[Sent]) -> Vec<(u32, Vec<u8>)> {
    let mut frames = sent_octets(sent);
    for (_, frame) in &mut frames {
        let l3 = if frame.get(12..14) == Some(&[0x81, 0]) { 18 } else { 14 };
        if frame.get(l3).is_some_and(|octet| octet >> 4 == 4) {
            for at in [4, 5, 10, 11] {
                frame[l3 + at] = 0;
            }
        }
    }
    frames.sort();
    frames
}

/// Runs both; how many packets were routed.
fn compare(routes: &[RouteChoice], events: &[Event]) -> u64 {
    let json = state(routes);
    let (mut kept, mut walked) = (Node::new(&json), Node::new(&json));
    walked.machine.walk_each_packet();
    walked.machine.leave_the_lane();
    kept.machine.stay_in_the_lane();
    for (n, event) in events.iter().enumerate() {
        assert_eq!(event.happen(&mut kept), event.happen(&mut walked), "event {n}");
        let (ours, theirs) = (kept.machine.take_sent(), walked.machine.take_sent());
        assert_eq!(unordered(&ours), unordered(&theirs), "frames of event {n}: {event:?}");
        assert_eq!(account(&kept), account(&walked), "account after event {n}: {event:?}");
    }
    assert_eq!(counted(&kept.machine.counters().0), counted(&walked.machine.counters().0));
    kept.check_account();
    kept.machine.account().routed
}

#[test]
fn kept_decisions_and_a_walk_for_each_packet_are_the_same() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(150);
    let mut runner =
        proptest::test_runner::TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let strategy = (vec(route(), 0..16), vec(event(), 1..100));
    let total = std::cell::Cell::new(0_u64);
    runner
        .run(&strategy, |(routes, events)| {
            total.set(total.get() + compare(&routes, &events));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    let routed = total.get();
    // Enough of them were routed for the comparison to mean something.
    assert!(routed > u64::from(cases) * 3, "{routed} packets were routed in {cases} cases");
}
