//! What the rules of one shape have in common: patterns without values, actions without numbers.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use offload_rules::{
    Label, MacAddr, VifId,
    lower::{Action, Field, Item, Meta, Rule, Session, Stage, Table},
};

/// A rule without its values. Rules with the same template may share a template table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Template {
    /// Where.
    pub(crate) table: Table,
    /// Priority: it belongs to a template table.
    pub(crate) priority: u32,
    /// Items: what is matched is there with the value 0, masks as they are; tag types keep their value.
    pub(crate) items: Vec<Item>,
    /// Actions: what differs from rule to rule is 0; what is put on keeps its length. Constant: what is taken off, tag types,
    /// [`Action::Jump`].
    pub(crate) actions: Vec<Action>,
}

impl Template {
    /// The template of this rule.
    pub(crate) fn of(rule: &Rule) -> Self {
        Self {
            table: rule.table,
            priority: rule.priority,
            items: rule.items.iter().map(item).collect(),
            actions: rule.actions.iter().map(action).collect(),
        }
    }
}

const fn zero<T: Copy>(field: &Field<T>, spec: T) -> Field<T> {
    Field { spec, mask: field.mask }
}

fn item(item: &Item) -> Item {
    const V4: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
    const V6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
    match item {
        Item::Port(_) => Item::Port(VifId::TUNNEL),
        Item::Eth { dst, has_vlan } => Item::Eth { dst: dst.map(|_| MacAddr::default()), has_vlan: *has_vlan },
        Item::Vlan { tpid, tci, has_more } => Item::Vlan { tpid: *tpid, tci: zero(tci, 0), has_more: *has_more },
        Item::Ipv4 { src, dst, proto, tos, ttl, no_options, whole, max_len } => Item::Ipv4 {
            src: src.map(|_| V4),
            dst: dst.map(|_| V4),
            proto: proto.map(|_| 0),
            tos: zero(tos, 0),
            ttl: ttl.map(|_| 0),
            no_options: *no_options,
            whole: *whole,
            max_len: max_len.map(|_| 0),
        },
        Item::Ipv6 { src, dst, proto, tos, ttl, whole, max_len } => Item::Ipv6 {
            src: src.map(|_| V6),
            dst: dst.map(|_| V6),
            proto: proto.map(|_| 0),
            tos: zero(tos, 0),
            ttl: ttl.map(|_| 0),
            whole: *whole,
            max_len: max_len.map(|_| 0),
        },
        Item::Prefix { of, net } => Item::Prefix { of: *of, net: of_length(net) },
        Item::Udp { sport, dport, no_checksum } => {
            Item::Udp { sport: sport.map(|_| 0), dport: dport.map(|_| 0), no_checksum: *no_checksum }
        }
        Item::Tcp { sport, dport, flags } => {
            Item::Tcp { sport: sport.map(|_| 0), dport: dport.map(|_| 0), flags: zero(flags, 0) }
        }
        Item::Sctp { sport, dport } => Item::Sctp { sport: sport.map(|_| 0), dport: dport.map(|_| 0) },
        Item::Mpls { bottom, ttl, .. } => Item::Mpls { label: Label::default(), bottom: *bottom, ttl: ttl.map(|_| 0) },
        Item::Esp { .. } => Item::Esp { spi: 0 },
        Item::Meta(meta) => Item::Meta(blank(*meta)),
        Item::Tag(_) => Item::Tag(no_stage()),
        Item::ToSend(_) => Item::ToSend(no_stage()),
        Item::Integrity { .. } | Item::AnyToSend => item.clone(),
    }
}

/// The prefix of this length and family without its bits.
fn of_length(net: &IpNet) -> IpNet {
    let zero = match net {
        IpNet::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpNet::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    IpNet::new(zero, net.prefix_len()).unwrap_or(*net)
}

const fn blank(meta: Meta) -> Meta {
    match meta {
        Meta::Opened(_) => Meta::Opened(VifId::TUNNEL),
        Meta::ToSeal(_) => Meta::ToSeal(VifId::TUNNEL),
    }
}

fn no_stage() -> Stage {
    Stage::Matched([].into())
}

fn action(action: &Action) -> Action {
    match action {
        Action::Mark(_) => Action::Mark(0),
        Action::PushVlan { tpid, .. } => Action::PushVlan { tpid: *tpid, tci: 0 },
        Action::SetVlan { .. } => Action::SetVlan { tci: 0 },
        Action::SetMacs { .. } => Action::SetMacs { dst: MacAddr::default(), src: MacAddr::default() },
        Action::SetTtl { version, .. } => Action::SetTtl { version: *version, ttl: 0 },
        Action::Reformat { off, on } => Action::Reformat { off: off.clone(), on: vec![0; on.len()] },
        Action::SetTag(_) => Action::SetTag(no_stage()),
        Action::SetToSend(_) => Action::SetToSend(no_stage()),
        Action::Hairpin(_) => Action::Hairpin(VifId::TUNNEL),
        Action::Queue(_) => Action::Queue(0),
        Action::Port(_) => Action::Port(VifId::TUNNEL),
        Action::Security(_) => Action::Security(Session(0)),
        Action::SetMeta(meta) => Action::SetMeta(blank(*meta)),
        Action::PopVlan | Action::Count | Action::DecTtl | Action::Jump(_) | Action::Drop | Action::Rss => {
            action.clone()
        }
    }
}
