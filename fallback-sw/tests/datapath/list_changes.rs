//! A changed access list derives the flows anew that its changed entries cover, and no others.

use proptest::prelude::*;

use crate::{
    common::{
        packets::{VRRP, eth, udp},
        walk_a::{CLIENT_MAC, LAN1, UNDERLAYS},
    },
    history::{Bed, derived, flows, list_change, world},
};

/// Flows from hosts of the LAN to 40 servers, permitted by list 5 but for the last server.
fn bed(offload: bool) -> Bed {
    let mut bed = Bed::with_engine(&world(), offload);
    let deny = r#"{"id": 9, "action": "DENY", "proto": 17, "destination": "192.168.1.40/32"}"#;
    assert!(bed.delta(&format!(r#"{{"acls": [{{"id": 5, "entries": [{deny}, {REST}]}}]}}"#)));
    bed.adopt();
    let mut frames = Vec::new();
    for server in 1..=40 {
        let there = udp("192.168.100.100", &format!("192.168.1.{server}"), 1000, 53, b"x");
        frames.push((LAN1, eth(VRRP, CLIENT_MAC, &there.ip())));
    }
    bed.traffic(&frames);
    bed
}

const REST: &str = r#"{"id": 10, "action": "PERMIT"}"#;
const DENY_40: &str = r#"{"id": 9, "action": "DENY", "proto": 17, "destination": "192.168.1.40/32"}"#;

fn list(entries: &[&str]) -> String {
    format!(r#"{{"acls": [{{"id": 5, "entries": [{}]}}]}}"#, entries.join(", "))
}

#[test]
fn entries_that_cover_no_flow_derive_none() {
    let mut bed = bed(false);
    assert_eq!(bed.worker.flows().len(), 79);
    let others = [
        r#"{"id": 1, "action": "DENY", "destination": "192.168.7.0/24"}"#,
        r#"{"id": 2, "action": "DENY", "source": "192.168.7.0/24"}"#,
        r#"{"id": 3, "action": "DENY", "proto": 6, "destination": "192.168.1.0/24"}"#,
        r#"{"id": 4, "action": "DENY", "proto": 17, "destinationPorts": {"first": 54, "last": 99}}"#,
        r#"{"id": 5, "action": "DENY", "proto": 17, "sourcePorts": {"first": 1, "last": 52}}"#,
        r#"{"id": 6, "action": "DENY", "source": "2001:db8::/32"}"#,
    ];
    for other in others {
        assert_eq!(derived(&mut bed, &list(&[other, DENY_40, REST])), 0, "{other} comes");
        assert_eq!(derived(&mut bed, &list(&[DENY_40, REST, other])), 0, "{other} moves");
        assert_eq!(derived(&mut bed, &list(&[DENY_40, REST])), 0, "{other} goes");
    }
    assert_eq!(bed.worker.flows().len(), 79, "the denied one is still known as denied");
    bed.check().unwrap();
}

#[test]
fn an_entry_derives_the_flows_that_it_covers_in_both_directions() {
    let mut bed = bed(false);
    for (entry, flows) in [
        (r#"{"id": 1, "action": "DENY", "destination": "192.168.1.7/32"}"#, 1),
        (r#"{"id": 1, "action": "PERMIT", "destination": "192.168.1.8/30"}"#, 4),
        (r#"{"id": 1, "action": "PERMIT", "source": "192.168.100.100/32", "destination": "192.168.1.16/29"}"#, 8),
    ] {
        assert_eq!(derived(&mut bed, &list(&[entry, DENY_40, REST])), 2 * flows, "{entry} comes");
        bed.check().unwrap();
        assert_eq!(derived(&mut bed, &list(&[DENY_40, REST])), 2 * flows, "{entry} goes");
        bed.check().unwrap();
    }
    // All that were permitted; the denied one is forgotten, as any denial that may hold no more.
    let from_all = r#"{"id": 1, "action": "PERMIT", "source": "192.168.100.100/32"}"#;
    assert_eq!(derived(&mut bed, &list(&[DENY_40, from_all, REST])), 2 * 39);
    assert_eq!(bed.worker.flows().len(), 78);
    bed.check().unwrap();
}

#[test]
fn a_denial_is_found_by_its_source_and_by_its_destination() {
    for lifted in [r#""source": "192.168.100.100/32""#, r#""destination": "192.168.1.40/32""#] {
        let mut bed = bed(false);
        let permit = format!(
            r#"{{"id": 1, "action": "PERMIT", "proto": 17, "sourcePorts": {{"first": 999, "last": 1001}}, {lifted}}}"#
        );
        assert_eq!(bed.worker.flows().len(), 79);
        derived(&mut bed, &list(&[&permit, DENY_40, REST]));
        assert_eq!(bed.worker.flows().len(), 78, "{lifted}: the denial is gone");
        bed.check().unwrap();
    }
}

#[test]
fn what_is_too_much_to_look_at_or_to_tell_derives_all_flows_of_the_list() {
    let mut bed = Bed::new(&world());
    let mut frames = Vec::new();
    for sport in 0..2100 {
        frames
            .push((LAN1, eth(VRRP, CLIENT_MAC, &udp("192.168.100.100", "192.168.1.100", 1000 + sport, 53, b"x").ip())));
    }
    bed.traffic(&frames);
    let narrow = r#"{"id": 1, "action": "DENY", "proto": 17, "sourcePorts": {"first": 1000, "last": 1000}}"#;
    // Nothing but a look at every record would tell which: all are derived.
    assert_eq!(derived(&mut bed, &list(&[narrow, REST])), 4200);
    bed.check().unwrap();
    let entries: Vec<String> = (0..65)
        .map(|net| format!(r#"{{"id": {}, "action": "DENY", "destination": "10.0.{net}.0/24"}}"#, 100 + net))
        .chain([narrow.to_owned(), REST.to_owned()])
        .collect();
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    assert_eq!(derived(&mut bed, &list(&entries)), 4200);
    bed.check().unwrap();
}

#[test]
fn entries_that_cover_no_offloaded_flow_ask_nothing_of_the_engine() {
    let mut bed = bed(true);
    let mut frames = Vec::new();
    for server in 1..40 {
        let there = udp("192.168.100.100", &format!("192.168.1.{server}"), 1000, 53, b"x");
        frames.push((LAN1, eth(VRRP, CLIENT_MAC, &there.ip())));
        let back = udp(&format!("192.168.1.{server}"), "192.168.100.100", 53, 1000, b"x");
        frames.push((UNDERLAYS[0], crate::common::records::out_of_tunnel_on(UNDERLAYS[0], &back)));
    }
    for _ in 0..4 {
        bed.traffic(&frames);
        bed.ticks(150);
    }
    let count = bed.in_hardware.len();
    assert!(count >= 39, "{count} flows in hardware");
    let before = bed.worker.derivations();
    let known: Vec<_> = bed.in_hardware.keys().copied().collect();
    let other = r#"{"id": 1, "action": "DENY", "destination": "192.168.7.0/24"}"#;
    assert!(bed.delta(&list(&[other, DENY_40, REST])));
    bed.adopt();
    bed.ticks(10);
    assert_eq!(bed.worker.derivations(), before);
    assert_eq!(bed.in_hardware.keys().copied().collect::<Vec<_>>(), known);
    // One that covers a flow takes its rules back before any packet.
    let denied = r#"{"id": 2, "action": "DENY", "destination": "192.168.1.3/32"}"#;
    assert!(bed.delta(&list(&[other, denied, DENY_40, REST])));
    bed.adopt();
    let is_denied = |direction: &offload_rules::lower::Direction| {
        direction.key.destination() == std::net::Ipv4Addr::new(192, 168, 1, 3) && direction.program.drops().is_none()
    };
    let forwarded = bed.in_hardware.values().flatten().flatten().filter(|direction| is_denied(direction)).count();
    assert_eq!(forwarded, 0);
    assert_eq!(bed.worker.derivations(), before + 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// As the property of all changes, with nothing but lists: those that a step leaves alone have to be right all the same.
    #[test]
    fn after_any_history_of_lists_flows_forward_as_a_fresh_walk_says(
        history in prop::collection::vec((list_change(), any::<bool>(), any::<bool>()), 1..12)
    ) {
        let mut bed = Bed::new(&world());
        bed.traffic(&flows());
        for (change, adopted, traffic) in &history {
            assert!(bed.delta(change), "{change}");
            if *adopted {
                bed.adopt();
            }
            if *traffic {
                bed.traffic(&flows());
            }
        }
        bed.adopt();
        bed.worker.sweep_all(bed.now);
        bed.check()?;
        bed.traffic(&flows());
        bed.check()?;
    }
}
