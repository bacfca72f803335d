//! Rules for transit: packets without flows, by prefix.
//!
//! ```text
//! tenant, tunnel ──(source in a prefix)──► table transit ──(destination in a prefix)──► the way on
//!                                            │
//!                                            └─(TTL at its end, or no prefix)──► software
//! ```
//!
//! What a flow's rule matches exactly in one place is matched in two: up to the source by the rule that admits a packet, the destination by the one
//! that forwards it. Both hold for any packet of their prefixes, so that what a flow's sample has shown is not there to be matched:
//!
//! | field | the rule |
//! |---|---|
//! | TTL | any but 0 and 1, which guards in table transit leave to software; exact where it is written into an outer header |
//! | type of service | any; exact where it is written into an outer header |
//! | priority and drop eligibility of a tag | 0, except out of tunnels |
//! | TCP flags | no SYN, whose MSS may be clamped |
//! | label TTL | any but 0, where the NIC can tell; else any, as of a flow |
//! | protocol | TCP or UDP: others, ICMP among them, stay in software |

use super::{
    Action, Chain, Field, Item, L4, Layout, NicProfile, Rule, Table, TtlRewrite, Unsupported, edits, flow_rule,
    pattern::{self, Kept, any_ip, bare, is_header},
    priority,
    stages::Stages,
};
use crate::{
    MacAddr,
    classify::Side,
    flow::Family,
    forwarding::VlanTag,
    lower::Arrival,
    transit::{Admission, Departure, Scope, TransitRule, family},
};

/// No SYN.
const NO_SYN: Field<u8> = Field { spec: 0, mask: 0x02 };

/// The rule for transit, with what it needs.
///
/// # Errors
/// [`Unsupported`].
pub fn transit(rule: &TransitRule, profile: &NicProfile) -> Result<Chain, Unsupported> {
    if !profile.does.jump.value {
        return Err(Unsupported::Match);
    }
    match rule {
        TransitRule::Source(admission) => admit(admission, profile),
        TransitRule::Destination(departure) => depart(departure, profile),
    }
}

/// What both kinds of rules have of one way in: the match of what its packets have in common, up to the IP header, and the stage that
/// stands for it in table transit.
struct Gate {
    stages: Stages,
    /// Headers up to the (inner) IP header, whatever is in them: items that a pattern must begin with.
    outside: Vec<Item>,
    /// The rule that leaves to software what has a label whose TTL is at its end.
    label: Option<Rule>,
}

impl Gate {
    /// `by`: what else a packet is admitted by, its source.
    fn new(arrival: &Arrival, of: Family, profile: &NicProfile, by: Option<Item>) -> Result<Self, Unsupported> {
        let can = &profile.matches;
        if arrival.eth_dst == MacAddr::default() || !can.ttl.value {
            return Err(Unsupported::Match);
        }
        // The priority is kept on the tag that leaves: that of most packets is 0. Out of tunnels nothing is kept of it.
        let tagged = matches!(arrival.tags, [Some(VlanTag { .. }), _]) && arrival.tunnel.is_none();
        let kept = if tagged { Kept::All } else { Kept::None };
        let mut stages = pattern::outside(arrival, of, flow_rule::table(arrival, profile), profile, kept)?;
        let mut label = None;
        for item in &mut stages.items {
            if let Item::Mpls { ttl, .. } = item {
                label = ttl.take();
            }
        }
        let label = label.map(|_| Rule {
            table: stages.table,
            priority: priority::TERMINATION,
            items: stages.items.iter().filter(|item| !matches!(item, Item::Integrity { .. })).map(last_label).collect(),
            actions: stages.to_software(),
        });
        let outside: Vec<Item> = stages.items.iter().filter(|item| is_header(item)).map(bare).collect();
        let mut ip = any_ip(of);
        match &mut ip {
            Item::Ipv4 { no_options, whole, .. } => (*no_options, *whole) = (true, true),
            Item::Ipv6 { whole, .. } => *whole = can.whole6.value,
            _ => {}
        }
        stages.items.push(ip);
        stages.admit(Table::Transit, by);
        Ok(Self { stages, outside, label })
    }

    /// The beginning of a pattern in table transit.
    fn items(&self) -> Vec<Item> {
        self.stages.items.iter().chain(&self.outside).cloned().collect()
    }

    /// What keeps packets from being forwarded whose TTL is at its end.
    fn guards(&self, of: Family) -> impl Iterator<Item = Rule> {
        [0, 1].into_iter().map(move |last| {
            let mut ip = any_ip(of);
            if let Item::Ipv4 { ttl, .. } | Item::Ipv6 { ttl, .. } = &mut ip {
                *ttl = Some(last);
            }
            let items = self.items().into_iter().chain([ip]).collect();
            Rule { table: Table::Transit, priority: priority::TERMINATION, items, actions: self.stages.to_software() }
        })
    }
}

/// The same item for packets of any tunnel whose label is at the end of its TTL.
fn last_label(item: &Item) -> Item {
    let mut item = item.clone();
    match &mut item {
        Item::Mpls { ttl, .. } => *ttl = Some(0),
        Item::Ipv4 { src, tos, .. } => (*src, *tos) = (None, Field { spec: 0, mask: 0 }),
        _ => {}
    }
    item
}

/// The rule that admits packets by their source.
fn admit(Admission { arrival, net }: &Admission, profile: &NicProfile) -> Result<Chain, Unsupported> {
    let of = family(net);
    let mut gate = Gate::new(arrival, of, profile, Some(Item::Prefix { of: Side::Source, net: *net }))?;
    let rule = gate.stages.needs.pop().ok_or(Unsupported::Match)?;
    let mut needs: Vec<Rule> = gate.guards(of).collect();
    needs.extend(gate.label);
    needs.append(&mut gate.stages.needs);
    Ok(Chain { needs, rule })
}

/// The rule that forwards packets by their destination.
fn depart(departure: &Departure, profile: &NicProfile) -> Result<Chain, Unsupported> {
    let Departure { net, direction, scope } = departure;
    let (of, l4) = (direction.key.family(), L4::of(&direction.key));
    flow_rule::check_arrival(direction)?;
    let mut rewrite = flow_rule::rewrite(direction)?;
    flow_rule::check_way(direction, &rewrite, profile)?;
    match (scope, rewrite.ttl, profile.does.ttl.value) {
        (Scope::Exact, ..) => flow_rule::check_ttl(&rewrite, direction, profile)?,
        // An outer header has the TTL in it.
        (Scope::Any, ..) if rewrite.encap.is_some() => return Err(Unsupported::Ttl),
        (Scope::Any, 0, _) => {}
        (Scope::Any, 1, TtlRewrite::Decrement | TtlRewrite::SetOrDecrement) => rewrite.decrement = true,
        (Scope::Any, ..) => return Err(Unsupported::Ttl),
    }
    if rewrite.seal.is_some() || profile.layout == Layout::Receive {
        return Err(Unsupported::Ipsec);
    }
    let edits = edits::edits(direction, &rewrite, profile)?;
    let needs = flow_rule::needs(direction, &rewrite, edits.kept, profile);
    pattern::check_exact(direction, profile, &needs)?;
    let mut gate = Gate::new(&direction.arrival, of, profile, None)?;
    // The last one is an admission of packets of any source, which is nobody's.
    gate.stages.needs.pop();
    let exact = (*scope == Scope::Exact).then_some(direction.arrival);
    let mut ip = any_ip(of);
    match &mut ip {
        Item::Ipv4 { proto, tos, ttl, max_len, .. } | Item::Ipv6 { proto, tos, ttl, max_len, .. } => {
            *proto = Some(l4.proto());
            if let Some(arrival) = exact {
                (*tos, *ttl) = (Field { spec: arrival.tos, mask: 0xff }, Some(arrival.ttl));
            }
            let header = if of == Family::Inet { 0 } else { 40 };
            *max_len = needs.max_len.map(|len| len.saturating_sub(header));
        }
        _ => {}
    }
    let transport = match l4 {
        L4::Tcp => Item::Tcp { sport: None, dport: None, flags: NO_SYN },
        L4::Udp => Item::Udp { sport: None, dport: None, no_checksum: false },
        L4::Sctp | L4::Other => return Err(Unsupported::Protocol),
    };
    let items = gate.items().into_iter();
    let items = items.chain([ip, Item::Prefix { of: Side::Destination, net: *net }, transport]).collect();
    let rule = Rule { table: Table::Transit, priority: priority::FLOW, items, actions: edits.actions };
    debug_assert!(rule.actions.contains(&Action::Count));
    // With the stages that have taken a tag off: by them `Chain::uncounted` knows what the rule's counter does not see.
    let needs = edits.before.into_iter().chain(gate.stages.needs).collect();
    Ok(Chain { needs, rule })
}
