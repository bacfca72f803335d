//! What a NIC is asked: proactive rules, and a rule of every shape between ports of each pair of roles.

use offload_engine::Lowering as _;
use offload_rules::{
    forwarding::Snapshot,
    lower::{Action, Chain, Item, Rule, Shape, Unsupported, priority},
};

use crate::nic::NicLowering;

/// A rule with those that it needs, or why the profile refuses it by itself.
pub(super) struct Question {
    /// What it is about; two rules that differ in values alone may have the same.
    pub(super) name: String,
    pub(super) chain: Result<Chain, Unsupported>,
}

/// All questions, or one shape for each origin, outcome and family.
pub(super) fn all(snapshot: &Snapshot, lowering: &NicLowering, typical: bool) -> Vec<Question> {
    let proactive = lowering
        .proactive(snapshot)
        .into_iter()
        .map(|rule| Question { name: proactive_name(snapshot, &rule), chain: Ok(rule.into()) });
    let samples = if typical {
        lowering.samples(snapshot, Shape::representatives)
    } else {
        lowering.samples(snapshot, Shape::all)
    };
    let shapes = samples.into_iter().flat_map(|(shape, chain)| {
        let name = shape.to_string();
        let alternate = chain.as_ref().ok().and_then(at_the_alternate_priority);
        let alternate = alternate.map(|chain| Question { name: name.clone(), chain: Ok(chain) });
        [Some(Question { name, chain }), alternate].into_iter().flatten()
    });
    proactive.chain(shapes).collect()
}

/// The same flow where it stands while it replaces what it was; `None`: the profile has one priority for flows.
fn at_the_alternate_priority(chain: &Chain) -> Option<Chain> {
    let mut chain = chain.clone();
    if chain.rule.priority != priority::FLOW {
        return None;
    }
    chain.rule.priority = priority::FLOW_ALTERNATE;
    Some(chain)
}

/// `proactive, group 0 to group 2, on wan`.
fn proactive_name(snapshot: &Snapshot, rule: &Rule) -> String {
    let to = match rule.actions.last() {
        Some(Action::Jump(table)) => table.to_string(),
        Some(Action::Drop) => "nowhere".to_owned(),
        _ => "software".to_owned(),
    };
    let port = rule.items.iter().find_map(|item| if let Item::Port(vif) = item { snapshot.vif(*vif) } else { None });
    let on = port.map_or_else(String::new, |vif| format!(", on {}", vif.name));
    let tags = match rule.items.iter().filter(|item| matches!(item, Item::Vlan { .. })).count() {
        0 => "",
        1 => ", a tag",
        _ => ", two tags",
    };
    let transport = rule.items.iter().find_map(|item| match item {
        Item::Udp { dport: Some(port), .. } => Some(format!(", UDP {port}")),
        _ => None,
    });
    format!("proactive, {} to {to}{on}{tags}{}", rule.table, transport.unwrap_or_default())
}
