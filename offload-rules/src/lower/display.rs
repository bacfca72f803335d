//! Rules as text, in the manner of testpmd's `flow create`, with ports named by their vif.

use std::fmt::{Display, Formatter, Result};

use super::{Action, Field, Item, L4, Meta, Origin, Outcome, Rule, Shape, Stage, Table};
use crate::{classify::Side, flow::Family};

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Self::Steering | Self::Flows => "group 0",
            Self::Tenant => "group 1",
            Self::Tunnel => "group 2",
            Self::Opened => "group 3",
            Self::Seal => "group 4",
            Self::Untagged => "group 5",
            Self::Inner => "group 6",
            Self::Source6 => "group 7",
            Self::Transit => "group 8",
            Self::Software => "group 9",
            Self::EgressFirst => "group 0",
            Self::Egress => "group 1",
        })
    }
}

impl Display for Meta {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (what, vif) = match self {
            Self::Opened(vif) => ("opened", vif),
            Self::ToSeal(vif) => ("to seal", vif),
        };
        write!(f, "{:#x} ({what}, vif {vif})", self.bits())
    }
}

impl Display for Stage {
    /// In words: the number is of those who keep the NIC's books.
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Matched(items) => {
                f.write_str("(matched: ")?;
                items.iter().try_for_each(|item| write!(f, "{item} / "))?;
            }
            Self::ToSend(actions) => {
                f.write_str("(to be done: ")?;
                actions.iter().try_for_each(|action| write!(f, "{action} / "))?;
            }
        }
        f.write_str("end)")
    }
}

/// ` name is 0` or 1, where it is matched.
fn flag(f: &mut Formatter<'_>, name: &str, value: Option<bool>) -> Result {
    is(f, name, value.map(u8::from).as_ref())
}

/// ` name is value`, where the field is matched.
fn is<T: Display>(f: &mut Formatter<'_>, name: &str, value: Option<&T>) -> Result {
    value.map_or(Ok(()), |value| write!(f, " {name} is {value}"))
}

/// ` name spec … name mask …`, where a bit counts.
fn masked(f: &mut Formatter<'_>, name: &str, spec: u32, mask: u32) -> Result {
    if mask == 0 { Ok(()) } else { write!(f, " {name} spec {spec:#x} {name} mask {mask:#x}") }
}

fn octet(f: &mut Formatter<'_>, name: &str, field: &Field<u8>) -> Result {
    masked(f, name, field.spec.into(), field.mask.into())
}

impl Display for Item {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Port(vif) => write!(f, "represented_port vif is {vif}"),
            Self::Eth { dst, has_vlan } => {
                f.write_str("eth")?;
                is(f, "dst", dst.as_ref())?;
                flag(f, "has_vlan", *has_vlan)
            }
            Self::Vlan { tpid, tci, has_more } => {
                write!(f, "vlan tpid is {tpid:#06x}")?;
                masked(f, "tci", tci.spec.into(), tci.mask.into())?;
                flag(f, "has_more_vlan", *has_more)
            }
            Self::Ipv4 { src, dst, proto, tos, ttl, no_options, whole, max_len } => {
                f.write_str("ipv4")?;
                if *no_options {
                    f.write_str(" version_ihl is 0x45")?;
                }
                octet(f, "tos", tos)?;
                if let Some(most) = max_len {
                    write!(f, " length last {most}")?;
                }
                if *whole {
                    f.write_str(" fragment_offset spec 0 fragment_offset mask 0x3fff")?;
                }
                is(f, "ttl", ttl.as_ref())?;
                is(f, "proto", proto.as_ref())?;
                is(f, "src", src.as_ref())?;
                is(f, "dst", dst.as_ref())
            }
            Self::Ipv6 { src, dst, proto, tos, ttl, whole, max_len } => {
                f.write_str("ipv6")?;
                octet(f, "tc", tos)?;
                flag(f, "has_frag_ext", whole.then_some(false))?;
                if let Some(most) = max_len {
                    write!(f, " payload_len last {most}")?;
                }
                is(f, "proto", proto.as_ref())?;
                is(f, "hop", ttl.as_ref())?;
                is(f, "src", src.as_ref())?;
                is(f, "dst", dst.as_ref())
            }
            Self::Prefix { of, net } => {
                let name = if *of == Side::Source { "src" } else { "dst" };
                write!(f, "{name} prefix {net}")
            }
            Self::Udp { sport, dport, no_checksum } => {
                f.write_str("udp")?;
                is(f, "src", sport.as_ref())?;
                is(f, "dst", dport.as_ref())?;
                if *no_checksum { f.write_str(" cksum is 0") } else { Ok(()) }
            }
            Self::Tcp { sport, dport, flags } => {
                f.write_str("tcp")?;
                is(f, "src", sport.as_ref())?;
                is(f, "dst", dport.as_ref())?;
                octet(f, "flags", flags)
            }
            Self::Sctp { sport, dport } => {
                f.write_str("sctp")?;
                is(f, "src", sport.as_ref())?;
                is(f, "dst", dport.as_ref())
            }
            Self::Mpls { label, bottom, ttl } => {
                write!(f, "mpls label is {label}")?;
                if *bottom {
                    f.write_str(" s is 1")?;
                }
                is(f, "ttl", ttl.as_ref())
            }
            Self::Esp { spi } => write!(f, "esp spi is {spi:#x}"),
            Self::Meta(meta) => write!(f, "meta data is {meta}"),
            Self::Tag(stage) => write!(f, "tag data is {stage}"),
            Self::ToSend(stage) => write!(f, "meta data is {stage}"),
            Self::AnyToSend => f.write_str("meta data spec 0x80000000 data mask 0x80000000"),
            Self::Integrity { level, ipv4_checksum_ok, l3_ok } => {
                write!(f, "integrity level is {level}")?;
                if *ipv4_checksum_ok {
                    f.write_str(" ipv4_csum_ok is 1")?;
                }
                if *l3_ok { f.write_str(" l3_ok is 1") } else { Ok(()) }
            }
        }
    }
}

fn hex(f: &mut Formatter<'_>, octets: &[u8]) -> Result {
    octets.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Mark(mark) => write!(f, "mark id {mark}"),
            Self::Reformat { off, on } => {
                f.write_str("raw_decap data ")?;
                hex(f, off)?;
                f.write_str(" / raw_encap data ")?;
                hex(f, on)
            }
            Self::PopVlan => f.write_str("of_pop_vlan"),
            Self::Count => f.write_str("count"),
            Self::PushVlan { tpid, tci } => {
                write!(f, "of_push_vlan ethertype {tpid:#06x} / of_set_vlan_vid vlan_vid {}", tci & 0x0fff)?;
                write!(f, " / of_set_vlan_pcp vlan_pcp {}", tci >> 13)
            }
            Self::SetVlan { tci } => {
                write!(f, "of_set_vlan_vid vlan_vid {} / of_set_vlan_pcp vlan_pcp {}", tci & 0x0fff, tci >> 13)
            }
            Self::SetMacs { dst, src } => write!(f, "set_mac_dst mac_addr {dst} / set_mac_src mac_addr {src}"),
            Self::SetTtl { version: _, ttl } => write!(f, "set_ttl ttl_value {ttl}"),
            Self::DecTtl => f.write_str("dec_ttl"),
            Self::Security(session) => write!(f, "security session {}", session.0),
            Self::SetMeta(meta) => write!(f, "set_meta data {meta}"),
            Self::SetTag(stage) => write!(f, "set_tag data {stage}"),
            Self::SetToSend(stage) => write!(f, "set_meta data {stage}"),
            Self::Jump(table) => write!(f, "jump {table}"),
            Self::Drop => f.write_str("drop"),
            Self::Queue(queue) => write!(f, "queue index {queue}"),
            Self::Rss => f.write_str("rss"),
            Self::Port(vif) => write!(f, "represented_port vif {vif}"),
            Self::Hairpin(vif) => write!(f, "queue hairpin to vif {vif}"),
        }
    }
}

impl Display for Rule {
    /// `transfer group 1 priority 2 pattern … / … / end actions … / … / end`. Rules that end in a queue are rules of receive:
    /// `ingress`.
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let receive =
            self.actions.iter().any(|action| matches!(action, Action::Queue(_) | Action::Rss | Action::Hairpin(_)));
        f.write_str(match receive {
            _ if self.table.is_egress() => "egress",
            true => "ingress",
            false => "transfer",
        })?;
        write!(f, " {} priority {} pattern ", self.table, self.priority)?;
        self.items.iter().try_for_each(|item| write!(f, "{item} / "))?;
        f.write_str("end actions ")?;
        self.actions.iter().try_for_each(|action| write!(f, "{action} / "))?;
        f.write_str("end")
    }
}

impl Display for Shape {
    /// `tenant to tunnel: IPv4 TCP, 1 tag in, 0 out, function to wire`.
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let from = match self.from {
            Origin::Tenant => "tenant",
            Origin::Tunnel => "tunnel",
        };
        let to = match self.to {
            Outcome::Tenant => "tenant",
            Outcome::Tunnel => "tunnel",
            Outcome::Drop => "drop",
            Outcome::Mark => "mark",
        };
        let family = match self.family {
            Family::Inet => "IPv4",
            Family::Inet6 => "IPv6",
        };
        let l4 = match self.l4 {
            L4::Tcp => "TCP",
            L4::Udp => "UDP",
            L4::Sctp => "SCTP",
            L4::Other => "other",
        };
        let tags = if self.tags_in == 1 { "tag" } else { "tags" };
        write!(f, "{from} to {to}: {family} {l4}, {} {tags} in, {} out", self.tags_in, self.tags_out)?;
        if self.length {
            f.write_str(", length matched")?;
        }
        if self.opened {
            f.write_str(", opened")?;
        }
        if self.sealed {
            f.write_str(", sealed")?;
        }
        match (self.to, self.pair) {
            (Outcome::Drop | Outcome::Mark, (ingress, _)) => write!(f, ", from a {ingress}"),
            (Outcome::Tenant | Outcome::Tunnel, (ingress, egress)) => write!(f, ", {ingress} to {egress}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{MacAddr, VifId, lower::Role};

    #[test]
    fn a_rule_reads_like_a_line_of_testpmd() {
        let vif = |id| VifId::new(id).unwrap();
        let rule = Rule {
            table: Table::Tenant,
            priority: 2,
            items: vec![
                Item::Port(vif(3)),
                Item::Eth { dst: Some(MacAddr([0, 0, 0x5e, 0, 0x53, 1])), has_vlan: Some(false) },
                Item::Ipv4 {
                    src: Some(Ipv4Addr::new(192, 0, 2, 1)),
                    dst: Some(Ipv4Addr::new(198, 51, 100, 1)),
                    proto: Some(6),
                    tos: Field { spec: 0, mask: 0 },
                    ttl: Some(64),
                    no_options: true,
                    whole: true,
                    max_len: Some(1400),
                },
                Item::Tcp { sport: Some(1024), dport: Some(443), flags: Field { spec: 0x10, mask: 0x17 } },
            ],
            actions: vec![
                Action::Count,
                Action::SetTtl { version: 4, ttl: 63 },
                Action::Reformat { off: vec![0xca, 0xfe], on: vec![0xde, 0xad] },
                Action::Port(vif(4)),
            ],
        };
        assert_eq!(
            rule.to_string(),
            "transfer group 1 priority 2 pattern represented_port vif is 3 / eth dst is 00:00:5e:00:53:01 has_vlan is 0 / \
             ipv4 version_ihl is 0x45 length last 1400 fragment_offset spec 0 fragment_offset mask 0x3fff ttl is 64 proto is 6 \
             src is 192.0.2.1 dst is 198.51.100.1 / tcp src is 1024 dst is 443 flags spec 0x10 flags mask 0x17 / end actions \
             count / set_ttl ttl_value 63 / raw_decap data cafe / raw_encap data dead / represented_port vif 4 / end"
        );
    }

    #[test]
    fn no_two_shapes_read_the_same() {
        let roles = [Role::Wire, Role::Function];
        let pairs = roles.into_iter().flat_map(|ingress| roles.map(|egress| (ingress, egress)));
        let shapes: std::collections::BTreeSet<Shape> =
            pairs.flat_map(|(ingress, egress)| Shape::all().map(move |shape| shape.between(ingress, egress))).collect();
        let texts: std::collections::BTreeSet<String> = shapes.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), shapes.len());
    }
}
