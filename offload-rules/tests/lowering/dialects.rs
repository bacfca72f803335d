//! Rules as each driver's parser takes them, and what a NIC can do at all. The oracle is the drivers' sources, as the profiles cite them.

use offload_rules::lower::{
    Abilities, Ability, Action, DpdkVersion, Field, Item, NicProfile, OpenRule, Unsupported, lower, partial,
};

use crate::flow::{Flow, To};

fn at(name: &str, version: DpdkVersion) -> NicProfile {
    NicProfile::of_version(name, version).unwrap()
}

fn profile(name: &str) -> NicProfile {
    at(name, DpdkVersion::V22_11)
}

#[test]
fn of_all_nics_mlx5_and_the_twin_forward_ipv4() {
    for version in [DpdkVersion::V22_11, DpdkVersion::V24_11] {
        for name in NicProfile::NAMES {
            let forwards = lower(&Flow::plain().tcp().direction(), &at(name, version), false).is_ok();
            assert_eq!(forwards, name.starts_with("mlx5") || name == "twin", "{name} {version}");
        }
    }
}

#[test]
fn a_nic_says_what_it_can_do_before_there_are_flows() {
    let can = |name: &str| {
        let abilities = Abilities::of(&profile(name));
        [Ability::Forwards, Ability::Drops, Ability::Marks].map(|ability| abilities.can(ability))
    };
    assert_eq!(can("twin"), [true; 3]);
    assert_eq!(can("mlx5-sws"), [true; 3]);
    // Class templates of TruFlow have addresses and ports; QUEUE came with 23.07.
    assert_eq!(can("bnxt"), [false, true, false]);
    assert!(Abilities::of(&at("bnxt", DpdkVersion::V24_11)).can(Ability::Marks));
    // Filters of receive match no has_vlan.
    assert_eq!(can("sfc"), [false, true, false]);
    // Nothing says that no second tag follows, and there is no table to look again: a rule would hit another tenant's.
    assert_eq!(can("nfp"), [false; 3]);
    assert_eq!(can("cnxk"), [false, false, true]);
    // Nothing tells tagged packets from others: a rule that drops would hit another tenant's.
    for name in ["ice", "iavf", "ixgbe"] {
        assert_eq!(can(name), [false, false, true], "{name}");
    }
    assert_eq!(can("txgbe"), [false; 3], "its Flow Director has no marks");
    let told = Abilities::of(&profile("nfp")).to_string();
    assert!(told.starts_with("forwards nothing (the NIC does not match a field"), "{told}");
    assert!(told.contains("drops nothing"), "{told}");
    assert!(told.ends_with("marks nothing"), "{told}");
}

#[test]
fn a_rule_of_a_driver_with_few_priorities_stays_within_them() {
    // ixgbe, ice, iavf: Flow Director has priority 0; nfp's driver ignores it; cnxk has three unless flow_max_priority says more.
    let dropped = Flow::plain().tagged(300).to(To::Drop).direction();
    for (name, priorities) in [("twin", [2, 3]), ("bnxt", [2, 3]), ("sfc", [0, 1])] {
        let got = [false, true].map(|alternate| lower(&dropped, &profile(name), alternate).unwrap().rule.priority);
        assert_eq!(got, priorities, "{name}");
    }
}

fn proto(items: &[Item]) -> Option<u8> {
    items.iter().rev().find_map(|item| match item {
        Item::Ipv4 { proto, .. } | Item::Ipv6 { proto, .. } => Some(*proto),
        _ => None,
    })?
}

#[test]
fn ports_alone_imply_the_protocol_where_the_driver_refuses_its_number() {
    let marked = |name: &str, flow: &Flow| partial(&flow.direction(), 7, 0, &profile(name)).map(|rule| rule.items);
    let udp = Flow::plain();
    let gre = Flow { proto: 47, ..Flow::plain() };
    // iavf_fdir.c: IAVF_FDIR_INSET_ETH_IPV4 has the protocol, with ports there is none.
    assert_eq!(proto(&marked("iavf", &udp).unwrap()), None);
    assert_eq!(proto(&marked("iavf", &gre).unwrap()), Some(47));
    // ixgbe_flow.c refuses next_proto_id.
    assert_eq!(proto(&marked("ixgbe", &udp).unwrap()), None);
    assert_eq!(marked("ixgbe", &gre), Err(Unsupported::Protocol));
    // ice_fdir_filter.c: ICE_FDIR_INSET_ETH_IPV4_UDP has it.
    assert_eq!(proto(&marked("ice", &udp).unwrap()), Some(17));
}

#[test]
fn marks_of_ixgbe_match_addresses_and_ports_and_nothing_else() {
    let rule = partial(&Flow::plain().direction(), 7, 3, &profile("ixgbe")).unwrap();
    let items = &rule.items;
    assert_eq!(items[1], Item::Eth { dst: None, has_vlan: None }, "{items:?}");
    let Item::Ipv4 { src: Some(_), dst: Some(_), proto: None, tos, ttl: None, no_options, whole, max_len: None } =
        items[2]
    else {
        panic!("{items:?}")
    };
    assert_eq!((tos, no_options, whole), (Field { spec: 0, mask: 0 }, false, false));
    assert!(matches!(items[3], Item::Udp { sport: Some(_), dport: Some(_), no_checksum: false }));
    assert_eq!(rule.actions, [Action::Mark(7), Action::Queue(3)]);
    assert!(profile("ixgbe").dialect.mark_last.value, "and the encoder turns them round");
}

#[test]
fn what_follows_security_is_what_the_driver_takes() {
    for (name, open) in [
        ("twin", OpenRule::Steered),
        ("cnxk", OpenRule::Terminating),
        ("ixgbe", OpenRule::Table),
        ("txgbe", OpenRule::Table),
        ("iavf", OpenRule::Table),
    ] {
        assert_eq!(profile(name).dialect.open.value, open, "{name}");
    }
    // rte_flow_destroy of such a rule: ixgbe_flow.c and txgbe_flow.c know no type of it, iavf's does.
    let ends = ["ixgbe", "txgbe", "iavf", "cnxk"].map(|name| profile(name).dialect.open_ends_with_session.value);
    assert_eq!(ends, [true, true, false, false]);
}

#[test]
fn facts_are_those_of_the_driver_that_runs() {
    let (old, new) = (DpdkVersion::V22_11, DpdkVersion::V24_11);
    let bnxt = [old, new].map(|version| at("bnxt", version));
    assert_eq!(bnxt.each_ref().map(|bnxt| bnxt.matches.ttl.value), [false, true]);
    assert_eq!(bnxt.each_ref().map(|bnxt| bnxt.does.set_macs.value), [false, true]);
    assert_eq!([old, new].map(|version| at("sfc", version).matches.whole.value), [false, true]);
    assert_eq!([old, new].map(|version| at("nfp", version).does.mark.value > 0), [false, true]);
    for name in NicProfile::NAMES {
        assert_eq!(at(name, new).version, new, "{name}");
    }
}
