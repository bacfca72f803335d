//! Rules as the parsers of drivers other than mlx5's read them.

use offload_rules::lower::Session;

use super::*;

fn style_of(name: &str) -> Style {
    Style::of(&NicProfile::by_name(name).unwrap())
}

/// What ixgbe's Flow Director matches: addresses and ports.
fn marked() -> Rule {
    let any = Field { spec: 0, mask: 0 };
    Rule {
        table: Table::Flows,
        priority: 0,
        items: vec![
            Item::Port(vif(3)),
            Item::Eth { dst: None, has_vlan: None },
            Item::Ipv4 {
                src: Some([10, 1, 2, 3].into()),
                dst: Some([192, 0, 2, 9].into()),
                proto: None,
                tos: any,
                ttl: None,
                no_options: false,
                whole: false,
                max_len: None,
            },
            Item::Udp { sport: Some(53), dport: Some(5353), no_checksum: false },
        ],
        actions: vec![Action::Mark(7), Action::Queue(1)],
    }
}

/// ixgbe_flow.c (DPDK 22.11.11): an ETH item with a mask, whatever is in it, is the mode of MAC and VLAN (1723), and the first action is
/// QUEUE (1429), the second MARK (1455).
#[test]
fn ixgbe_gets_an_unmasked_ethernet_item_and_the_mark_after_the_queue() {
    let rule = translate(&marked(), style_of("ixgbe")).unwrap();
    let items = rule.pattern.raw();
    assert_eq!(items[0].type_, kind::RTE_FLOW_ITEM_TYPE_ETH);
    assert!(items[0].spec.is_null() && items[0].mask.is_null() && items[0].last.is_null());
    assert!(!items[1].spec.is_null() && !items[1].mask.is_null());
    let kinds = |rule: &Translation| rule.actions.entries().iter().map(|entry| entry.kind).collect::<Vec<_>>();
    let (mark, queue) = (act::RTE_FLOW_ACTION_TYPE_MARK, act::RTE_FLOW_ACTION_TYPE_QUEUE);
    assert_eq!(kinds(&rule), [queue, mark]);
    assert_eq!(kinds(&translate(&marked(), style_of("ice")).unwrap()), [mark, queue]);
}

/// nfp_flow.c: the port is a PORT_ID (723), and a rule without `ingress` is refused (3654 of 22.11); REPRESENTED_PORT as an action came
/// with 23.11.
#[test]
fn a_rule_of_nfps_switch_says_ingress_and_names_its_port_the_old_way() {
    let drop = Rule { actions: vec![Action::Count, Action::Drop], ..to_tunnel() };
    let rule = translate(&drop, style_of("nfp")).unwrap();
    assert_eq!(rule.place.domain, Domain::Transfer);
    let attr = rule.place.attr();
    assert_eq!((attr.transfer(), attr.ingress(), attr.egress()), (0, 1, 0));
    assert_matches(find(&rule.pattern, kind::RTE_FLOW_ITEM_TYPE_PORT_ID, 0), &[(0, &5_u32.to_ne_bytes(), &[0xff; 4])]);
    let version = |year, month| offload_rules::lower::DpdkVersion::new(year, month);
    let action = |version| Style::of(&NicProfile::of_version("nfp", version).unwrap()).port_action;
    assert_eq!(action(version(22, 11)), PortStyle::PortId);
    assert_eq!(action(version(24, 11)), PortStyle::Represented);
}

/// roc_npc.c:756: a rule says ingress or egress; items that cnxk's driver does not know are none to it.
#[test]
fn a_rule_of_cnxk_is_one_of_its_port() {
    let drop = Rule { actions: vec![Action::Count, Action::Drop], ..to_tunnel() };
    let rule = translate(&drop, style_of("cnxk")).unwrap();
    let attr = rule.place.attr();
    assert_eq!((attr.transfer(), attr.ingress()), (0, 1));
    assert!(rule.pattern.entries().iter().all(|entry| entry.kind != kind::RTE_FLOW_ITEM_TYPE_REPRESENTED_PORT));
}

/// iavf_ipsec_crypto.c:1721: {SECURITY; END}.
#[test]
fn a_rule_that_ends_with_security_has_end_behind_it() {
    static PLACE: u64 = 1;
    let sessions = Sessions::default();
    sessions.pretend(Session(1), 0x0106, std::ptr::NonNull::from(&PLACE).cast());
    let rule = Rule {
        table: Table::Flows,
        priority: 0,
        items: vec![Item::Port(vif(4)), Item::Eth { dst: None, has_vlan: Some(false) }, Item::Esp { spi: 7 }],
        actions: vec![Action::Security(Session(1))],
    };
    let rule = translate_with(&rule, style_of("iavf"), &sessions).unwrap();
    let raw = rule.actions.raw();
    let [security, end] = raw.array() else { panic!("two actions") };
    assert_eq!(security.type_, act::RTE_FLOW_ACTION_TYPE_SECURITY);
    assert_eq!(end.type_, act::RTE_FLOW_ACTION_TYPE_END);
    assert_eq!((rule.place.attr().ingress(), rule.place.attr().transfer()), (1, 0));
}
