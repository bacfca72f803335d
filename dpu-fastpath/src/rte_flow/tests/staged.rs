//! Stages, hairpins and the side of sending as drivers read them.

use offload_rules::lower::Stage;

use super::*;
use crate::port::Hairpins;

/// A rule of the side of sending, and one that leads to it.
#[test]
fn stages_are_numbers_in_tag_and_metadata() {
    let matched = Stage::Matched([Item::Port(vif(3))].into());
    let to_send = Stage::ToSend([Action::PopVlan].into());
    let first = Rule {
        table: Table::Tenant,
        actions: vec![
            Action::SetTag(matched.clone()),
            Action::SetToSend(to_send.clone()),
            Action::Jump(Table::Untagged),
        ],
        ..to_tunnel()
    };
    let last = Rule {
        table: Table::Egress,
        priority: 0,
        items: vec![Item::Port(vif(4)), Item::Tag(matched), Item::ToSend(to_send), Item::AnyToSend],
        actions: vec![Action::Drop],
    };
    let mut stages = Stages::default();
    for rule in [&first, &last] {
        let held = stages.prepare(rule);
        stages.hold(held);
    }
    let sessions = Sessions::default();
    let map = ports();
    let translate = |rule: &Rule, field| {
        let style = Style { field, ..Style::default() };
        map.with(|ports| Translation::new(rule, style, NameTables { ports, sessions: &sessions, stages: &stages }))
            .unwrap()
    };
    let said = translate(&first, FieldStyle::Set);
    assert_eq!(said.place.group, 1);
    let raw = said.actions.raw();
    let [tag, meta, ..] = raw.array() else { panic!("no actions") };
    assert_eq!(tag.type_, act::RTE_FLOW_ACTION_TYPE_SET_TAG);
    // SAFETY: the types are those of the actions, and `raw` and `said` are alive.
    let (tag, meta) = unsafe {
        (
            &*tag.conf.cast::<dpdk_sys::rte_flow_action_set_tag>(),
            &*meta.conf.cast::<dpdk_sys::rte_flow_action_set_meta>(),
        )
    };
    assert_eq!((tag.data, tag.mask, tag.index), (1, u32::MAX, 0));
    assert_eq!((meta.data, meta.mask), (0x8000_0002, u32::MAX));
    let modified = translate(&first, FieldStyle::Modify);
    let raw = modified.actions.raw();
    // SAFETY: the first action is MODIFY_FIELD then, and `raw` and `modified` are alive; the source is a value.
    unsafe {
        let modify = &*raw.array()[0].conf.cast::<dpdk_sys::rte_flow_action_modify_field>();
        assert_eq!((modify.dst.field, modify.width), (field::RTE_FLOW_FIELD_TAG, 32));
        assert_eq!(modify.src.__bindgen_anon_1.value[..4], 1_u32.to_ne_bytes());
    }
    let said = translate(&last, FieldStyle::Set);
    let attr = said.place.attr();
    assert_eq!((attr.group, attr.egress(), attr.ingress(), attr.transfer()), (1, 1, 0, 0));
    assert_eq!(said.port.ethdev, 0x0106, "of the port that it leaves on");
    let tag = find(&said.pattern, kind::RTE_FLOW_ITEM_TYPE_TAG, 0);
    assert_matches(tag, &[(0, &1_u32.to_ne_bytes(), &[0xff; 4]), (4, &[0], &[0xff])]);
    let meta = find(&said.pattern, kind::RTE_FLOW_ITEM_TYPE_META, 0);
    assert_matches(meta, &[(0, &0x8000_0002_u32.to_ne_bytes(), &[0xff; 4])]);
    let any = find(&said.pattern, kind::RTE_FLOW_ITEM_TYPE_META, 1);
    let top = 0x8000_0000_u32.to_ne_bytes();
    assert_matches(any, &[(0, &top, &top)]);
}

#[test]
fn a_hairpin_is_the_queue_that_leads_to_the_port() {
    let rule = Rule { actions: vec![Action::Count, Action::Hairpin(vif(4))], ..to_tunnel() };
    let (sessions, stages) = (Sessions::default(), Stages::default());
    let map = ports();
    let translate = || {
        map.with(|ports| {
            Translation::new(
                &rule,
                Style { transfer: false, ..Style::default() },
                NameTables { ports, sessions: &sessions, stages: &stages },
            )
        })
    };
    let failure = translate().unwrap_err();
    assert!(failure.message.contains("hairpin"), "{failure}");
    map.connect(Hairpins::pretend([((5, 0x0106), 9), ((0x0106, 5), 8)]));
    let said = translate().unwrap();
    assert_eq!(said.place.domain, Domain::Ingress);
    let raw = said.actions.raw();
    assert_eq!(raw.array()[1].type_, act::RTE_FLOW_ACTION_TYPE_QUEUE);
    // SAFETY: the second action is QUEUE, and `raw` and `said` are alive.
    assert_eq!(unsafe { *raw.array()[1].conf.cast::<u16>() }, 9);
}
