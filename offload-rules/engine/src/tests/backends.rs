//! What the engine asks of backends: counters in batches, sessions only of a NIC that has them, and nothing for a snapshot that
//! changes nothing.

use super::{fake::Fake, *};
use crate::protocol::OfferId;
use offload_rules::{
    SaId,
    forwarding::{Lifetime, SaDirection, SaKey, State, Vrf},
};

fn offer() -> Request {
    let sa = Sa {
        id: SaId::new(1).unwrap(),
        spi: 0x1001,
        direction: SaDirection::Outbound,
        key: SaKey::new(vec![1; 20].into()),
        esn: true,
        window: 1024,
        soft: Lifetime::default(),
        hard: Lifetime::default(),
        first: 1,
        worker: 0,
    };
    let offer = OfferId { worker: 0, serial: 1 };
    Request::Offer { offer, sa: Arc::new(sa), vif: vif(11), numbers: 1..100, left: Lifetime::default() }
}

#[test]
fn counters_that_are_due_are_read_in_one_call() {
    let mut bed = Bed::with(Config { queries_per_poll: 8, ..Config::default() }, Toy::default());
    (1..=10).for_each(|flow| bed.ask(install(id(flow))));
    bed.settle();
    let before = bed.nic.lock().unwrap().batches;
    (1..=10).for_each(|flow| bed.hit(flow, false, u64::from(flow)));
    bed.now += 500;
    for polls in 1..=3 {
        bed.poll(0);
        assert_eq!(bed.nic.lock().unwrap().batches - before, polls, "20 counters, 8 in a poll");
    }
    bed.poll(0);
    assert_eq!(bed.nic.lock().unwrap().batches - before, 3, "nothing is due");
    assert!((1..=10).all(|flow| bed.counted(id(flow)) == [u64::from(flow), 0]));
}

#[test]
fn a_nic_without_sessions_answers_that_it_holds_no_sa() {
    let (fake, nic) = Fake::new();
    let backend = NicBackend::without_sessions(fake);
    let toy = Toy::default();
    toy.underlay.lock().unwrap().insert(vif(11), vif(1));
    let mut engine = Engine::new(Config::default(), toy, backend, Arc::new(Snapshot::empty()));
    let mut told = Vec::new();
    engine.poll(0, &mut told);
    engine.request(offer(), 1);
    engine.request(install(id(1)), 1);
    (0..10).for_each(|_| engine.poll(1, &mut told));
    let gone = Report::SaGone { offer: OfferId { worker: 0, serial: 1 }, reason: NotHeld::Unsupported };
    assert!(told.contains(&gone), "{told:?}");
    assert!(told.contains(&Report::State { id: id(1), tier: Tier::Hardware, reason: None }), "flows need no sessions");
    assert_eq!(nic.lock().unwrap().rules.len(), 2);
}

#[test]
fn nobody_sends_by_sessions_while_rules_may_be_left() {
    let mut bed = Bed::new();
    bed.settle();
    assert_eq!(bed.nic.lock().unwrap().suspended, 0);
    {
        let mut nic = bed.nic.lock().unwrap();
        nic.flush_fails = 2;
        nic.reset();
    }
    bed.run(2_000);
    let nic = bed.nic.lock().unwrap();
    assert_eq!((nic.suspended, nic.flush_fails), (2, 0), "each flush that fails");
}

#[test]
fn a_snapshot_that_changes_no_vif_plans_nothing_and_moves_no_rule() {
    let toy = Toy::default();
    toy.steering.lock().unwrap().push(steering(1));
    let mut bed = Bed::with(Config::default(), toy);
    (1..=5).for_each(|flow| bed.ask(install(id(flow))));
    bed.settle();
    let plans = bed.toy.plans.load(Ordering::Relaxed);
    let created = bed.nic.lock().unwrap().created;
    for generation in 1..=20 {
        let vrfs = vec![Vrf { id: VrfId::new(7).unwrap(), name: format!("vrf{generation}") }];
        let state = State { generation, node: "ce".to_owned(), vrfs, ..State::default() };
        let snapshot = Arc::new(Snapshot::empty().with_state(state).unwrap());
        bed.engine.adopt(&snapshot, bed.now);
        assert!(bed.engine.idle(), "no work is queued");
        bed.poll(1);
    }
    assert_eq!(bed.toy.plans.load(Ordering::Relaxed), plans, "steering is not planned anew");
    assert_eq!(bed.nic.lock().unwrap().created, created);
    bed.toy.steering.lock().unwrap().push(steering(2));
    let snapshot = Arc::new(Snapshot::empty());
    bed.engine.adopt(&snapshot, bed.now);
    bed.settle();
    assert_eq!(bed.toy.plans.load(Ordering::Relaxed), plans + 1, "a change of the NIC's ports is seen");
    assert_eq!(bed.nic.lock().unwrap().created, created + 1);
    bed.assert_healthy();
}
