use super::{
    super::{
        Delta, SaKey, State,
        testing::{ipsec, route, sa, sa_id, vif, vif_id, vrf},
    },
    *,
};

const LOCAL: Ipv4Addr = Ipv4Addr::new(172, 28, 13, 36);
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);

/// Vif 9 is a tunnel whose other end is whoever authenticates.
fn state() -> State {
    let VifKind::Tunnel(tunnel) = ipsec(&[], &[], 8) else { panic!() };
    let tunnel = IpsecTunnel { ike: true, destination: Ipv4Addr::UNSPECIFIED, ..*tunnel };
    State {
        generation: 1,
        vrfs: vec![vrf(8)],
        vifs: vec![vif(9, VifKind::Tunnel(Box::new(tunnel)), 8, &[])],
        ..State::default()
    }
}

fn begun() -> Snapshot {
    Snapshot::empty().with_state(state()).unwrap()
}

fn negotiated(number: u32, direction: SaDirection) -> IkeSa {
    let spi = IKE_SPIS.start() + number;
    let id = SaId::new(IKE_SAS.start() + number).unwrap();
    let sa = Sa { id, spi, ..sa(number, direction) };
    IkeSa { sa: Arc::new(sa), vif: vif_id(9), local: LOCAL, peer: PEER, udp: Some((4500, 1024)) }
}

fn tunnel(snapshot: &Snapshot) -> IpsecTunnel {
    snapshot.vif(vif_id(9)).unwrap().kind.tunnel().unwrap().clone()
}

#[test]
fn the_newest_sa_sends_and_gives_the_tunnel_its_other_end() {
    let mut snapshot = begun();
    for (number, direction) in
        [(1, SaDirection::Inbound), (2, SaDirection::Outbound), (3, SaDirection::Inbound), (4, SaDirection::Outbound)]
    {
        snapshot = snapshot.with_ike_sa(negotiated(number, direction)).unwrap();
    }
    let id = |number: u32| SaId::new(IKE_SAS.start() + number).unwrap();
    let now = tunnel(&snapshot);
    assert_eq!((now.outbound, now.inbound), (vec![id(4), id(2)], vec![id(3), id(1)]));
    assert_eq!(now.destination, PEER);
    assert_eq!(now.nat_t.map(|nat| (nat.source_port, nat.destination_port)), Some((4500, 1024)));
    let moved = snapshot.with_ike_peer(id(4), LOCAL, None);
    assert_eq!((tunnel(&moved).destination, tunnel(&moved).nat_t), (LOCAL, None));
    assert_eq!(moved.sa(id(4)), snapshot.sa(id(4)));
    let ended = snapshot.with_sa_ended(id(4), crate::DropReason::SaExpired);
    assert!(!ended.is_sa_usable(id(4)) && ended.is_sa_usable(id(2)));
    let gone = snapshot.without_ike_sas(&[id(1), id(2), id(3), id(4)]);
    assert_eq!(tunnel(&gone), tunnel(&begun()));
}

#[test]
fn a_change_of_the_state_neither_loses_nor_shows_what_ike_has_negotiated() {
    let snapshot = begun().with_ike_sa(negotiated(2, SaDirection::Outbound)).unwrap();
    assert_eq!(snapshot.to_state(), state());
    let delta =
        Delta { base_generation: 1, generation: 2, routes: vec![route(8, "10.0.0.0/8", 0, None)], ..Delta::default() };
    let with_nexthop = snapshot.with_delta(Delta { routes: Vec::new(), ..delta }).unwrap();
    assert_eq!(tunnel(&with_nexthop), tunnel(&snapshot));
    let again = with_nexthop.with_state(State { generation: 3, vrfs: vec![vrf(8), vrf(18)], ..state() }).unwrap();
    assert_eq!(tunnel(&again), tunnel(&snapshot));
    // The tunnel itself has gone: its SAs with it.
    let remove = Delta { base_generation: 3, generation: 4, remove_vifs: vec![vif_id(9)], ..Delta::default() };
    assert_eq!(again.with_delta(remove).unwrap().ike_sas().count(), 0);
}

#[test]
fn what_cannot_be_an_sa_is_refused_and_changes_nothing() {
    let good = negotiated(1, SaDirection::Inbound);
    let with = |change: &dyn Fn(&mut Sa)| {
        let mut sa = (*negotiated(2, SaDirection::Inbound).sa).clone();
        change(&mut sa);
        IkeSa { sa: Arc::new(sa), ..good.clone() }
    };
    let snapshot = begun().with_ike_sa(good.clone()).unwrap();
    let refused = |sa: IkeSa| snapshot.with_ike_sa(sa).unwrap_err();
    assert_eq!(refused(good.clone()), IkeSaError::SpiTaken(good.sa.spi));
    assert_eq!(refused(with(&|sa| sa.spi = good.sa.spi)), IkeSaError::SpiTaken(good.sa.spi));
    assert_eq!(refused(with(&|sa| sa.id = sa_id(5))), IkeSaError::SpiTaken(IKE_SPIS.start() + 2));
    assert_eq!(refused(with(&|sa| sa.spi = 255)), IkeSaError::SpiReserved(255));
    assert_eq!(refused(with(&|sa| sa.key = good.sa.key.clone())), IkeSaError::KeyTaken);
    assert_eq!(refused(with(&|sa| sa.key = SaKey::new([7; 16].into()))), IkeSaError::KeyLength(16));
    assert_eq!(refused(with(&|sa| sa.window = 100)), IkeSaError::Window(100));
    assert_eq!(refused(IkeSa { vif: vif_id(8), ..with(&|_| ()) }), IkeSaError::NoTunnel(vif_id(8), LOCAL));
    assert_eq!(refused(IkeSa { local: PEER, ..with(&|_| ()) }), IkeSaError::NoTunnel(vif_id(9), PEER));
}

#[test]
fn the_state_keeps_out_of_what_is_kept_for_ike() {
    let refused = |sas: Vec<Sa>| begun().with_state(State { generation: 2, sas, ..state() }).unwrap_err().to_string();
    let taken = Sa { spi: *IKE_SPIS.start(), ..sa(1, SaDirection::Inbound) };
    assert!(refused(vec![taken]).contains("kept for IKE"));
    assert!(refused(vec![sa(*IKE_SAS.start(), SaDirection::Outbound)]).contains("kept for SAs that IKE negotiates"));
}
