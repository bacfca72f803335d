//! What charon's plugin may ask of a node, and what comes of what it should not: each refusal typed, and nothing lost by it.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::{collections::BTreeSet, sync::Arc};

use fallback_sw::{
    node::{
        control::Control,
        decode,
        ike::{Event, Refused, Request},
    },
    worker::{Event as WorkerEvent, SaNews},
};
use offload_rules::{DropReason, SaId, forwarding::Snapshot};

const KEYS: [&str; 3] = [
    "000102030405060708090a0b0c0d0e0f10111213",
    "100102030405060708090a0b0c0d0e0f10111213",
    "200102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223",
];

/// Two tunnels from 10.9.0.1: vif 7 to 10.9.0.2, vif 8 to whoever authenticates.
fn control() -> Control {
    let tunnel = |id: u32, destination: &str| {
        format!(
            r#"{{"id": {id}, "name": "t{id}", "type": "TUNNEL", "vrf": 2, "mtu": 1400, "tunnel": {{"source": "10.9.0.1", {destination} "vrf": 2, "ike": {{}}}}}}"#
        )
    };
    let text = format!(
        r#"{{"generation": "1", "node": "n", "vrfs": [{{"id": 2, "name": "wan"}}], "vifs": [{}, {}]}}"#,
        tunnel(7, r#""destination": "10.9.0.2","#),
        tunnel(8, "")
    );
    let state = decode::state(&proto::json::parse(&text, "ike").unwrap()).unwrap();
    Control::new(Arc::new(Snapshot::empty().with_state(state).unwrap()))
}

fn ask(control: &mut Control, now: u64, line: &str) -> Result<String, Refused> {
    control.ike(Request::parse(line.as_bytes())?, now).0
}

fn add(direction: &str, peer: &str, spi: u32, key: &str, more: &str) -> String {
    let (src, dst) = if direction == "in" { (peer, "10.9.0.1") } else { ("10.9.0.1", peer) };
    format!("add-sa dir={direction} src={src} dst={dst} spi={spi:x} key={key} esn=0 encap=0{more}")
}

#[test]
fn an_sa_finds_its_tunnel_by_number_or_by_its_two_ends() {
    let mut control = control();
    let vif_of = |control: &Control| control.snapshot().ike_sas().map(|sa| sa.vif.get()).collect::<Vec<_>>();
    ask(&mut control, 0, &add("out", "10.9.0.2", 0x1000, KEYS[0], "")).unwrap();
    ask(&mut control, 0, &add("out", "10.9.0.3", 0x1001, KEYS[1], "")).unwrap();
    assert_eq!(vif_of(&control), [7, 8]);
    let wrong = ask(&mut control, 0, &add("out", "10.9.0.3", 0x1002, KEYS[2], " if_id=7")).unwrap_err();
    assert!(matches!(wrong, Refused::NoTunnel(_)), "{wrong}");
    ask(&mut control, 0, &add("out", "10.9.0.2", 0x1002, KEYS[2], " if_id=8")).unwrap();
    assert_eq!(vif_of(&control), [7, 8, 8]);
    // Each has numbers to seal with.
    assert_eq!(control.take_grants().len(), 3);
}

#[test]
fn what_is_refused_leaves_everything_as_it_was() {
    let mut control = control();
    ask(&mut control, 0, &add("in", "10.9.0.2", 0x1000, KEYS[0], "")).unwrap();
    let before = control.snapshot().version();
    for line in [
        add("in", "10.9.0.2", 0x1000, KEYS[1], ""),
        add("in", "10.9.0.3", 0x1000, KEYS[1], ""),
        add("in", "10.9.0.2", 0x1001, KEYS[0], ""),
        add("in", "10.9.0.2", 255, KEYS[1], ""),
        add("in", "10.9.0.2", 0x1001, "00", ""),
        add("in", "10.9.0.2", 0x1001, KEYS[1], " if_id=9"),
        "del-sa spi=1001 dst=10.9.0.1".to_owned(),
        "del-sa spi=1000 dst=10.9.0.2".to_owned(),
        "query-sa spi=1001 dst=10.9.0.1".to_owned(),
        "update-sa spi=1000 dst=10.9.0.1 new_src=10.9.0.2 new_dst=10.9.0.9 encap=0".to_owned(),
    ] {
        assert!(ask(&mut control, 0, &line).is_err(), "{line}");
    }
    assert_eq!(control.snapshot().version(), before);
    ask(&mut control, 0, "del-sa spi=1000 dst=10.9.0.1").unwrap();
    assert_eq!(control.snapshot().ike_sas().count(), 0);
}

#[test]
fn indices_are_given_once() {
    let mut control = control();
    let mut given: Vec<_> = (0..1000).map(|_| ask(&mut control, 0, "get-spi").unwrap()).collect();
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), 1000);
}

#[test]
fn a_rekeyed_sa_is_opened_by_the_worker_of_the_one_before() {
    let mut control = control();
    let spi = |control: &mut Control, words: &str| {
        let answer = ask(control, 0, &format!("get-spi{words}")).unwrap();
        u32::from_str_radix(answer.strip_prefix("spi=").unwrap(), 16).unwrap()
    };
    let first = spi(&mut control, " src=10.9.0.2 dst=10.9.0.1");
    ask(&mut control, 0, &add("in", "10.9.0.2", first, KEYS[0], "")).unwrap();
    let (mut same, mut others) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..64 {
        let next = spi(&mut control, " src=10.9.0.2 dst=10.9.0.1");
        assert_ne!(next, first);
        same.insert(next & 0xff);
        others.insert(spi(&mut control, " src=10.9.0.3 dst=10.9.0.1") & 0xff);
        others.insert(spi(&mut control, "") & 0xff);
        others.insert(spi(&mut control, " src=2001:db8::2 dst=10.9.0.1") & 0xff);
    }
    assert_eq!(same, BTreeSet::from([first & 0xff]));
    // Other tunnels are spread.
    assert!(others.len() > 16, "{others:?}");
}

#[test]
fn an_earlier_charons_sas_go_when_replaced_or_after_three_minutes() {
    let mut control = control();
    ask(&mut control, 0, "hello version=1 charon=1 events=0").unwrap();
    ask(&mut control, 0, &add("out", "10.9.0.2", 0x1000, KEYS[0], "")).unwrap();
    ask(&mut control, 0, &add("out", "10.9.0.3", 0x1001, KEYS[1], "")).unwrap();
    // The same life again: a connection was lost, nothing else.
    ask(&mut control, 1000, "hello version=1 charon=1 events=0").unwrap();
    control.tick(1_000_000);
    assert_eq!(control.snapshot().ike_sas().count(), 2);
    ask(&mut control, 1_000_000, "hello version=1 charon=2 events=0").unwrap();
    ask(&mut control, 1_000_000, &add("out", "10.9.0.2", 0x1002, KEYS[2], "")).unwrap();
    let left = |control: &Control| control.snapshot().ike_sas().map(|sa| sa.sa.spi).collect::<Vec<_>>();
    control.tick(1_009_999);
    assert_eq!(left(&control), [0x1000, 0x1001, 0x1002]);
    control.tick(1_010_000);
    assert_eq!(left(&control), [0x1001, 0x1002]);
    control.tick(1_180_000);
    assert_eq!(left(&control), [0x1002]);
    assert_eq!(control.take_ike_events(), []);
}

#[test]
fn charon_is_told_of_lifetimes_and_of_tunnels_that_go() {
    let mut control = control();
    ask(&mut control, 0, &add("in", "10.9.0.2", 0x1000, KEYS[0], "")).unwrap();
    let sa = SaId::new(1 << 31).unwrap();
    control.handle([WorkerEvent::Sa { sa, news: SaNews::Expiring }], 0);
    control.handle([WorkerEvent::Sa { sa, news: SaNews::Ended(DropReason::SaExpired) }], 0);
    let event = |hard| Event::Expire { spi: 0x1000, destination: [10, 9, 0, 1].into(), hard };
    assert_eq!(control.take_ike_events(), [event(false), event(true)]);
    let mut state = control.snapshot().to_state();
    state.generation = 2;
    state.vifs.clear();
    control.apply_state(state).unwrap();
    assert_eq!(control.take_ike_events(), [event(true)]);
}
