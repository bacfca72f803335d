//! SAs in the NIC: sessions and their rules, in the right order.

use std::ops::Range;

use offload_rules::{
    SaId,
    forwarding::{
        DfPolicy, IoDriver, IpsecTunnel, Lifetime, PortConfig, SaDirection, SaKey, State, Vif, VifFlags, VifKind, Vrf,
    },
    lower::FailureClass,
};

use super::{fake::Fake, *};
use crate::protocol::{OfferId, SaMode};

const TUNNEL: u32 = 11;
const WAN: u32 = 1;

fn a_vif(number: u32, kind: VifKind, vrf: u32) -> Vif {
    Vif {
        id: vif(number),
        name: format!("vif{number}"),
        kind,
        mac: None,
        vrf: VrfId::new(vrf).unwrap(),
        addresses: Vec::new(),
        mtu: 1500,
        enc_mss: 0,
        flags: VifFlags::default(),
        nexthop: None,
        ingress_acls: Vec::new(),
        egress_acls: Vec::new(),
        service_acls: Vec::new(),
        nat_pool: Vec::new(),
        vn: 0,
    }
}

/// A node with one tunnel; its SAs come with the offers.
fn snapshot() -> Snapshot {
    let wan = VrfId::new(2).unwrap();
    let tunnel = IpsecTunnel {
        source: Ipv4Addr::new(192, 0, 2, 1),
        destination: Ipv4Addr::new(198, 51, 100, 1),
        nat_t: None,
        outbound: Vec::new(),
        inbound: Vec::new(),
        vrf: wan,
        df: DfPolicy::Copy,
        dscp: None,
        ike: false,
    };
    let port = PortConfig { device: "wan".to_owned(), driver: IoDriver::Auto };
    let state = State {
        generation: 1,
        node: "ce".to_owned(),
        vrfs: [2, 8].map(|id| Vrf { id: VrfId::new(id).unwrap(), name: format!("vrf{id}") }).into(),
        vifs: vec![a_vif(WAN, VifKind::Physical { port }, 2), a_vif(TUNNEL, VifKind::Tunnel(Box::new(tunnel)), 8)],
        ..State::default()
    };
    Snapshot::empty().with_state(state).unwrap()
}

fn sa(number: u32, direction: SaDirection) -> Arc<Sa> {
    Arc::new(Sa {
        id: SaId::new(number).unwrap(),
        spi: 0x1000 + number,
        direction,
        key: SaKey::new(vec![number as u8; 20].into()),
        esn: true,
        window: 1024,
        soft: Lifetime::default(),
        hard: Lifetime::default(),
        first: 1,
        worker: 0,
    })
}

fn offer(serial: u32) -> OfferId {
    OfferId { worker: 0, serial }
}

fn ask(serial: u32, direction: SaDirection, numbers: Range<u64>) -> Request {
    Request::Offer {
        offer: offer(serial),
        sa: sa(serial, direction),
        vif: vif(TUNNEL),
        numbers,
        left: Lifetime::default(),
    }
}

fn outbound(serial: u32) -> Request {
    ask(serial, SaDirection::Outbound, 100..200)
}

fn inbound(serial: u32) -> Request {
    ask(serial, SaDirection::Inbound, 1..u64::MAX)
}

fn bed(kinds: &[SessionKind]) -> Bed {
    let (fake, nic) = Fake::new();
    nic.lock().unwrap().kinds = kinds.to_vec();
    let toy = Toy::default();
    toy.underlay.lock().unwrap().insert(vif(TUNNEL), vif(WAN));
    let mut bed = Bed::over(Config { workers: 2, ..Config::default() }, toy, fake, nic, snapshot());
    bed.settle();
    bed
}

fn protocol() -> Bed {
    bed(&[SessionKind::InlineProtocol])
}

fn sessions(bed: &Bed) -> usize {
    bed.nic.lock().unwrap().sessions.len()
}

/// Rules that apply a session, as many as there are.
fn security_rules(bed: &Bed) -> Vec<Rule> {
    let nic = bed.nic.lock().unwrap();
    let applies = |rule: &Rule| rule.actions.iter().any(|action| matches!(action, Action::Security(_)));
    nic.rules.values().map(|held| held.rule.clone()).filter(applies).collect()
}

fn told(bed: &mut Bed) -> Vec<Report> {
    std::mem::take(&mut bed.told)
}

/// In force, with its rule.
fn in_force(bed: &mut Bed, serial: u32) {
    bed.ask(outbound(serial));
    bed.settle();
    bed.ask(Request::Confirm { offer: offer(serial) });
    bed.settle();
}

#[test]
fn an_inbound_sa_is_held_once_its_rule_is_in_and_outlives_the_rule() {
    let mut bed = protocol();
    bed.nic.lock().unwrap().delay = 50;
    bed.ask(inbound(1));
    bed.poll(0);
    assert_eq!((sessions(&bed), told(&mut bed)), (1, vec![]), "the session is first, and says nothing yet");
    bed.poll(60);
    bed.poll(0);
    let Report::SaHeld { mode: SaMode::Protocol, port, .. } = told(&mut bed)[0] else { panic!() };
    assert_eq!(port, vif(WAN));
    {
        let nic = bed.nic.lock().unwrap();
        let spec = &nic.sessions.values().next().unwrap().0;
        assert_eq!((spec.first, spec.told), (1, Meta::Opened(vif(TUNNEL)).bits()));
    }
    assert_eq!(security_rules(&bed)[0].items[1], Item::Esp { spi: 0x1001 });
    bed.assert_healthy();
    // The fake panics when a session goes before its rule.
    bed.ask(Request::Return { offer: offer(1), at_once: false });
    bed.run(200);
    assert_eq!((sessions(&bed), security_rules(&bed).len()), (0, 0));
    assert_eq!(told(&mut bed), [Report::SaGone { offer: offer(1), reason: NotHeld::Pending }]);
}

#[test]
fn an_outbound_sa_seals_flows_once_its_worker_uses_it_within_numbers() {
    let mut bed = protocol();
    bed.ask(outbound(1));
    bed.settle();
    assert!(matches!(told(&mut bed)[..], [Report::SaHeld { .. }]));
    assert!(security_rules(&bed).is_empty());
    {
        let nic = bed.nic.lock().unwrap();
        let spec = &nic.sessions.values().next().unwrap().0;
        assert_eq!((spec.first, spec.most.packets), (100, 100));
    }
    bed.ask(Request::Confirm { offer: offer(1) });
    bed.settle();
    assert_eq!(security_rules(&bed)[0].items, [Item::Meta(Meta::ToSeal(vif(TUNNEL)))]);
    bed.poll(1);
    let sealed = |worker| Report::Tunnel { worker, vif: vif(TUNNEL), sealed: true };
    assert_eq!(told(&mut bed), [sealed(0), sealed(1)], "every worker is told");
    bed.assert_healthy();
}

#[test]
fn at_a_rekey_the_old_session_seals_until_the_new_ones_rule_is_in() {
    let mut bed = protocol();
    in_force(&mut bed, 1);
    bed.nic.lock().unwrap().delay = 50;
    bed.ask(Request::Return { offer: offer(1), at_once: false });
    bed.ask(outbound(2));
    for _ in 0..4 {
        bed.poll(10);
        assert!(!security_rules(&bed).is_empty(), "never without");
    }
    bed.ask(Request::Confirm { offer: offer(2) });
    for _ in 0..60 {
        bed.poll(5);
        assert!(!security_rules(&bed).is_empty(), "never without");
    }
    bed.settle();
    assert_eq!((sessions(&bed), security_rules(&bed).len()), (1, 1));
    let changes = told(&mut bed).into_iter().filter(|report| matches!(report, Report::Tunnel { sealed: false, .. }));
    assert_eq!(changes.count(), 0);
    bed.assert_healthy();
}

#[test]
fn an_expired_sa_leaves_at_once_and_one_without_successor_later() {
    let mut bed = protocol();
    in_force(&mut bed, 1);
    told(&mut bed);
    bed.ask(Request::Return { offer: offer(1), at_once: true });
    bed.settle();
    bed.poll(0);
    assert_eq!((sessions(&bed), security_rules(&bed).len()), (0, 0));
    assert!(told(&mut bed).contains(&Report::Tunnel { worker: 1, vif: vif(TUNNEL), sealed: false }));
    in_force(&mut bed, 2);
    bed.ask(Request::Return { offer: offer(2), at_once: false });
    bed.settle();
    assert_eq!(sessions(&bed), 1);
    bed.run(1000);
    assert_eq!(sessions(&bed), 0);
}

#[test]
fn counts_are_told_as_differences_and_the_last_ones_before_the_end() {
    let mut bed = protocol();
    in_force(&mut bed, 1);
    told(&mut bed);
    let count = |bed: &mut Bed, packets, refused| {
        for (_, counts) in bed.nic.lock().unwrap().sessions.values_mut() {
            *counts = crate::SessionCounts { packets, bytes: packets * 100, refused };
        }
    };
    count(&mut bed, 5, 1);
    bed.run(300);
    count(&mut bed, 7, 1);
    bed.ask(Request::Return { offer: offer(1), at_once: true });
    bed.settle();
    let counted = |packets, refused| Report::SaCounted { offer: offer(1), packets, bytes: packets * 100, refused };
    let all: Vec<_> = told(&mut bed).into_iter().filter(|report| !matches!(report, Report::Tunnel { .. })).collect();
    assert_eq!(all, [counted(5, 1), counted(2, 0), Report::SaGone { offer: offer(1), reason: NotHeld::Pending }]);
}

#[test]
fn what_the_nic_cannot_or_does_not_take_is_said_with_its_reason() {
    let gone = |bed: &mut Bed| match told(bed)[..] {
        [Report::SaGone { reason, .. }] => reason,
        ref other => panic!("{other:?}"),
    };
    let mut none = bed(&[]);
    none.ask(outbound(1));
    none.settle();
    assert_eq!(gone(&mut none), NotHeld::Unsupported);
    let mut elsewhere = protocol();
    elsewhere.toy.underlay.lock().unwrap().clear();
    elsewhere.ask(inbound(1));
    elsewhere.settle();
    assert_eq!(gone(&mut elsewhere), NotHeld::Underlay);
    let mut full = protocol();
    full.nic.lock().unwrap().no_session.push_back(libc::ENOSPC);
    full.ask(outbound(1));
    full.settle();
    assert_eq!(gone(&mut full), NotHeld::Failed(FailureClass::Capacity));
    // A rule that is refused takes its session with it.
    let mut refused = protocol();
    refused.nic.lock().unwrap().refuse.push_back(libc::ENOTSUP);
    refused.ask(inbound(1));
    refused.settle();
    assert!(matches!(gone(&mut refused), NotHeld::Failed(_)));
    assert_eq!(sessions(&refused), 0);
}

#[test]
fn with_inline_crypto_the_worker_goes_on_building_esp_and_no_rule_seals() {
    let mut bed = bed(&[SessionKind::InlineCrypto]);
    bed.ask(outbound(1));
    bed.settle();
    assert_eq!(told(&mut bed), [Report::SaGone { offer: offer(1), reason: NotHeld::Unsupported }], "with ESN");
    for (serial, direction) in [(1, SaDirection::Outbound), (2, SaDirection::Inbound)] {
        let Request::Offer { offer, sa, vif, numbers, left } = ask(serial, direction, 1..1000) else { panic!() };
        let sa = Arc::new(Sa { esn: false, ..(*sa).clone() });
        bed.ask(Request::Offer { offer, sa, vif, numbers, left });
    }
    bed.settle();
    let modes: Vec<_> = told(&mut bed)
        .into_iter()
        .filter_map(|report| if let Report::SaHeld { mode, .. } = report { Some(mode) } else { None })
        .collect();
    assert_eq!(modes, [SaMode::Crypto; 2]);
    assert_eq!(security_rules(&bed).len(), 1, "what is received is deciphered by rule");
}

#[test]
fn switched_off_reset_and_moved_the_sas_come_back() {
    let mut bed = protocol();
    in_force(&mut bed, 1);
    told(&mut bed);
    bed.engine.set_enabled(false, bed.now);
    bed.settle();
    assert_eq!(told(&mut bed), [Report::SaLeave { offer: offer(1) }]);
    bed.ask(Request::Return { offer: offer(1), at_once: false });
    bed.run(1000);
    assert!(told(&mut bed).contains(&Report::SaGone { offer: offer(1), reason: NotHeld::Off }));
    bed.ask(outbound(2));
    bed.settle();
    assert_eq!(told(&mut bed), [Report::SaGone { offer: offer(2), reason: NotHeld::Off }]);
    bed.engine.set_enabled(true, bed.now);
    bed.settle();
    in_force(&mut bed, 3);
    told(&mut bed);
    bed.nic.lock().unwrap().reset();
    bed.settle();
    assert!(told(&mut bed).contains(&Report::SaGone { offer: offer(3), reason: NotHeld::Lost }));
    in_force(&mut bed, 4);
    told(&mut bed);
    // The tunnel's packets take another port.
    bed.toy.underlay.lock().unwrap().insert(vif(TUNNEL), vif(2));
    let (snapshot, now) = (Arc::new(snapshot()), bed.now);
    bed.engine.adopt(&snapshot, now);
    bed.settle();
    assert_eq!(told(&mut bed), [Report::SaLeave { offer: offer(4) }]);
}

/// Numbers of the sessions that workers were told of.
fn numbers(bed: &mut Bed) -> Vec<u32> {
    told(bed)
        .into_iter()
        .filter_map(|report| match report {
            Report::SaHeld { session, .. } => Some(session),
            _ => None,
        })
        .collect()
}

#[test]
fn after_a_reset_no_number_means_another_session_than_before() {
    let mut bed = protocol();
    in_force(&mut bed, 1);
    let before = numbers(&mut bed);
    bed.nic.lock().unwrap().reset();
    bed.settle();
    told(&mut bed);
    in_force(&mut bed, 2);
    let after = numbers(&mut bed);
    assert_eq!((before.len(), after.len()), (1, 1));
    assert_ne!(before, after, "a worker may still send with the old one");
}
