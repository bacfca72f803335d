//! Rules for people, in the words of testpmd's `flow create` where it has some. Ports are named by vif: that is what operators
//! know, and the numbers of DPDK's ports differ from start to start.

use std::fmt::{Display, Write as _};

use offload_rules::{
    VifId,
    classify::Side,
    lower::{Action, Field, Item, Rule, Table},
};

/// `table tenant priority 2 pattern eth … / end actions count / … / end`.
#[must_use]
pub fn rule(rule: &Rule) -> String {
    let mut text = format!("table {} priority {} pattern ", table(rule.table), rule.priority);
    for part in rule.items.iter().map(item) {
        text.push_str(&part);
        text.push_str(" / ");
    }
    text.push_str("end actions ");
    for part in rule.actions.iter().map(action) {
        text.push_str(&part);
        text.push_str(" / ");
    }
    text.push_str("end");
    text
}

/// The port that a rule is for.
pub(super) fn port(rule: &Rule) -> Option<VifId> {
    rule.items.iter().find_map(|item| if let Item::Port(vif) = item { Some(*vif) } else { None })
}

/// Name of a table.
pub(super) const fn table(table: Table) -> &'static str {
    match table {
        Table::Steering => "steering",
        Table::Tenant => "tenant",
        Table::Tunnel => "tunnel",
        Table::Flows => "flows",
        Table::Opened => "opened",
        Table::Seal => "seal",
        Table::Untagged => "untagged",
        Table::Inner => "inner",
        Table::Source6 => "source6",
        Table::Transit => "transit",
        Table::Software => "software",
        Table::EgressFirst => "egress first",
        Table::Egress => "egress",
    }
}

/// One item.
#[must_use]
pub fn item(item: &Item) -> String {
    match item {
        Item::Port(vif) => format!("represented_port vif is {vif}"),
        Item::Eth { dst, has_vlan } => Text::new("eth").is("dst", dst).is("has_vlan", &has_vlan.map(u8::from)).0,
        Item::Vlan { tpid, tci, has_more } => {
            let text = Text::new("vlan").is("tpid", &Some(format!("{tpid:#06x}"))).masked("tci", tci);
            text.is("has_more_vlan", &has_more.map(u8::from)).0
        }
        Item::Ipv4 { src, dst, proto, tos, ttl, no_options, whole, max_len } => {
            let text =
                Text::new("ipv4").is("src", src).is("dst", dst).is("proto", proto).masked("tos", tos).is("ttl", ttl);
            let text = if *no_options { text.is("version_ihl", &Some("0x45")) } else { text };
            let text = if *whole { text.masked("fragment_offset", &Field { spec: 0_u16, mask: 0x3fff }) } else { text };
            text.up_to("length", max_len).0
        }
        Item::Ipv6 { src, dst, proto, tos, ttl, whole, max_len } => {
            let text = Text::new("ipv6").is("src", src).is("dst", dst).is("proto", proto).masked("tc", tos);
            text.is("has_frag_ext", &whole.then_some(0)).is("hop", ttl).up_to("payload_length", max_len).0
        }
        Item::Prefix { of: Side::Source, net } => format!("src prefix {net}"),
        Item::Prefix { of: Side::Destination, net } => format!("dst prefix {net}"),
        Item::Udp { sport, dport, no_checksum } => {
            let text = Text::new("udp").is("src", sport).is("dst", dport);
            if *no_checksum { text.is("checksum", &Some(0)).0 } else { text.0 }
        }
        Item::Tcp { sport, dport, flags } => {
            Text::new("tcp").is("src", sport).is("dst", dport).masked("flags", flags).0
        }
        Item::Sctp { sport, dport } => Text::new("sctp").is("src", sport).is("dst", dport).0,
        Item::Mpls { label, bottom, ttl } => {
            let text = Text::new("mpls").is("label", &Some(label));
            if *bottom { text.is("s", &Some(1)) } else { text }.is("ttl", ttl).0
        }
        Item::Esp { spi } => Text::new("esp").is("spi", &Some(format!("{spi:#x}"))).0,
        Item::Meta(meta) => Text::new("meta").is("data", &Some(meta)).0,
        Item::Tag(stage) => Text::new("tag").is("data", &Some(stage)).0,
        Item::ToSend(stage) => Text::new("meta").is("data", &Some(stage)).0,
        Item::AnyToSend => "meta data spec 0x80000000 data mask 0x80000000".to_owned(),
        Item::Integrity { level, ipv4_checksum_ok, l3_ok } => {
            let text = Text::new("integrity").is("level", &Some(level));
            text.flag("ipv4_csum_ok", *ipv4_checksum_ok).flag("l3_ok", *l3_ok).0
        }
    }
}

/// One action.
#[must_use]
pub fn action(action: &Action) -> String {
    match action {
        Action::Mark(mark) => format!("mark id {mark}"),
        Action::Reformat { off, on } => format!("raw_decap {} raw_encap {}", hex(off), hex(on)),
        Action::PopVlan => "of_pop_vlan".to_owned(),
        Action::Count => "count".to_owned(),
        Action::PushVlan { tpid, tci } => format!("of_push_vlan ethertype {tpid:#06x} tci {tci:#06x}"),
        Action::SetVlan { tci } => format!("of_set_vlan tci {tci:#06x}"),
        Action::SetMacs { dst, src } => format!("set_mac_dst {dst} set_mac_src {src}"),
        Action::DecTtl => "dec_ttl".to_owned(),
        Action::SetTtl { version: 6, ttl } => format!("set_hop {ttl}"),
        Action::SetTtl { ttl, .. } => format!("set_ttl {ttl}"),
        Action::Security(session) => format!("security session {}", session.0),
        Action::SetMeta(meta) => format!("set_meta data {meta}"),
        Action::SetTag(stage) => format!("set_tag data {stage}"),
        Action::SetToSend(stage) => format!("set_meta data {stage}"),
        Action::Jump(to) => format!("jump table {}", table(*to)),
        Action::Drop => "drop".to_owned(),
        Action::Queue(queue) => format!("queue index {queue}"),
        Action::Rss => "rss".to_owned(),
        Action::Port(vif) => format!("represented_port vif {vif}"),
        Action::Hairpin(vif) => format!("queue hairpin to vif {vif}"),
    }
}

/// An item under way.
struct Text(String);

impl Text {
    fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    fn add(mut self, words: std::fmt::Arguments<'_>) -> Self {
        // Writing to a string does not fail.
        let _ = self.0.write_fmt(words);
        self
    }

    fn is(self, field: &str, value: &Option<impl Display>) -> Self {
        match value {
            Some(value) => self.add(format_args!(" {field} is {value}")),
            None => self,
        }
    }

    fn flag(self, field: &str, set: bool) -> Self {
        self.add(format_args!(" {field} is {}", u8::from(set)))
    }

    fn up_to(self, field: &str, most: &Option<u16>) -> Self {
        match most {
            Some(most) => self.add(format_args!(" {field} spec 0 {field} last {most}")),
            None => self,
        }
    }

    fn masked<T: Bits>(self, field: &str, value: &Field<T>) -> Self {
        if value.mask == T::default() {
            return self;
        }
        let Field { spec, mask } = value;
        if *mask == T::ALL {
            return self.add(format_args!(" {field} is {spec:#x}"));
        }
        self.add(format_args!(" {field} spec {spec:#x} {field} mask {mask:#x}"))
    }
}

/// An unsigned number.
trait Bits: PartialEq + Default + std::fmt::LowerHex {
    const ALL: Self;
}

impl Bits for u8 {
    const ALL: Self = Self::MAX;
}

impl Bits for u16 {
    const ALL: Self = Self::MAX;
}

fn hex(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len() * 2);
    for octet in octets {
        // Writing to a string does not fail.
        let _ = write!(text, "{octet:02x}");
    }
    text
}
