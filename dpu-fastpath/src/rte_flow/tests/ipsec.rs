//! Rules of IPsec as drivers read them: the index, metadata, sessions.

use offload_rules::lower::{Meta, Session};

use super::*;

/// Opens what comes to a tunnel by a session.
fn open(session: u32) -> Rule {
    Rule {
        table: Table::Steering,
        priority: 1,
        items: vec![
            Item::Port(vif(4)),
            Item::Eth { dst: Some(ROUTER), has_vlan: Some(false) },
            Item::Udp { sport: None, dport: Some(4500), no_checksum: false },
            Item::Esp { spi: 0xc0ff_ee01 },
        ],
        actions: vec![
            Action::SetMeta(Meta::Opened(vif(7))),
            Action::Security(Session(session)),
            Action::Jump(Table::Opened),
        ],
    }
}

/// Seals what is marked for a tunnel.
fn seal(tunnel: u32, session: u32) -> Rule {
    Rule {
        table: Table::Seal,
        priority: 0,
        items: vec![Item::Meta(Meta::ToSeal(vif(tunnel)))],
        actions: vec![Action::Security(Session(session)), Action::Port(vif(4))],
    }
}

/// Two sessions, and where the driver has them.
fn sessions() -> (Sessions, [u64; 2]) {
    static PLACES: [u64; 2] = [1, 2];
    let sessions = Sessions::default();
    let places = [1, 2].map(|number: u32| {
        let place = std::ptr::NonNull::from(&PLACES[number as usize - 1]).cast();
        sessions.pretend(Session(number), 0x0106, place);
        place.addr().get() as u64
    });
    (sessions, places)
}

#[test]
fn an_spi_and_metadata_are_where_drivers_read_them() {
    let (sessions, _) = sessions();
    let rule = translate_with(&open(1), Style::default(), &sessions).unwrap();
    let esp = find(&rule.pattern, kind::RTE_FLOW_ITEM_TYPE_ESP, 0);
    assert_matches(esp, &[(0, &[0xc0, 0xff, 0xee, 0x01], &[0xff; 4])]);
    let rule = translate_with(&seal(7, 1), Style::default(), &sessions).unwrap();
    assert_eq!(rule.place.group, 4);
    let meta = find(&rule.pattern, kind::RTE_FLOW_ITEM_TYPE_META, 0);
    assert_matches(meta, &[(0, &Meta::ToSeal(vif(7)).bits().to_ne_bytes(), &[0xff; 4])]);
}

#[test]
fn a_session_is_a_pointer_and_metadata_a_number_with_its_mask() {
    let (sessions, places) = sessions();
    let rule = translate_with(&open(2), Style::default(), &sessions).unwrap();
    assert_eq!(rule.session, Some(Session(2)));
    let raw = rule.actions.raw();
    let [set, security, jump, _] = raw.array() else { panic!("not three actions") };
    assert_eq!(set.type_, act::RTE_FLOW_ACTION_TYPE_SET_META);
    assert_eq!(security.type_, act::RTE_FLOW_ACTION_TYPE_SECURITY);
    // SAFETY: the types are those that were just seen, and `raw` and `rule` are alive; JUMP is what the rule has third.
    let (meta, security, jump) = unsafe {
        (
            &*set.conf.cast::<dpdk_sys::rte_flow_action_set_meta>(),
            &*security.conf.cast::<dpdk_sys::rte_flow_action_security>(),
            &*jump.conf.cast::<dpdk_sys::rte_flow_action_jump>(),
        )
    };
    assert_eq!((meta.data, meta.mask), (Meta::Opened(vif(7)).bits(), u32::MAX));
    assert_eq!(security.security_session.addr() as u64, places[1]);
    assert_eq!(jump.group, 3);
}

#[test]
fn metadata_is_a_field_where_a_driver_wants_that() {
    let (sessions, _) = sessions();
    let style = Style { field: FieldStyle::Modify, ..Style::default() };
    let rule = translate_with(&open(1), style, &sessions).unwrap();
    let raw = rule.actions.raw();
    assert_eq!(raw.array()[0].type_, act::RTE_FLOW_ACTION_TYPE_MODIFY_FIELD);
    // SAFETY: the action is MODIFY_FIELD, and `raw` and `rule` are alive; the source is a value.
    unsafe {
        let modify = &*raw.array()[0].conf.cast::<dpdk_sys::rte_flow_action_modify_field>();
        assert_eq!((modify.dst.field, modify.width), (field::RTE_FLOW_FIELD_META, 32));
        assert_eq!(modify.src.__bindgen_anon_1.value[..4], Meta::Opened(vif(7)).bits().to_ne_bytes());
    }
}

#[test]
fn sessions_and_metadata_differ_from_rule_to_rule_of_a_template() {
    let (sessions, _) = sessions();
    for field in [FieldStyle::Set, FieldStyle::Modify] {
        let style = Style { field, ..Style::default() };
        let shape = |rule: &Rule| translate_with(rule, style, &sessions).unwrap().shape();
        assert_eq!(shape(&open(1)), shape(&open(2)));
        assert_eq!(shape(&seal(7, 1)), shape(&seal(8, 2)), "another tunnel, another session");
        let mut other = open(1);
        other.actions.remove(1);
        assert_ne!(shape(&open(1)), shape(&other));
    }
    let rule = translate_with(&open(1), Style::default(), &sessions).unwrap();
    let masks = rule.actions.raw_masks();
    assert!(masks.array()[..2].iter().all(|mask| mask.conf.is_null()), "the values are the rule's");
}

#[test]
fn a_rule_whose_session_is_not_open_is_refused() {
    let (sessions, _) = sessions();
    for number in [0, 3, (1 << 16) + 1] {
        let failure = translate_with(&open(number), Style::default(), &sessions).unwrap_err();
        assert_eq!(failure.errno, libc::ENOENT, "{number}");
        assert!(failure.message.contains(&number.to_string()), "{failure}");
    }
}

#[test]
fn rules_of_ipsec_are_the_ports_own_when_they_give_packets_to_software() {
    let (sessions, _) = sessions();
    let mut rule = open(1);
    rule.actions = vec![Action::Security(Session(1)), Action::Rss];
    let domain = |rule: &Rule| translate_with(rule, Style::default(), &sessions).unwrap().place.domain;
    assert_eq!(domain(&rule), Domain::Ingress);
    assert_eq!([domain(&open(1)), domain(&seal(7, 1))], [Domain::Transfer; 2]);
}
