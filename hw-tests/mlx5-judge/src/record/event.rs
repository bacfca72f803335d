//! An event of the record, as its line of JSON says it.

use serde::{Deserialize, Deserializer, de};

use super::Id;

/// An object that is made, changed or gone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "e", rename_all = "lowercase")]
pub enum Event {
    /// `mlx5dv_dr_domain_create`.
    Domain {
        /// Number.
        id: Id,
        /// The function's number, from 0.
        pf: i32,
        /// Its packets.
        #[serde(rename = "type")]
        kind: DomainKind,
    },
    /// `mlx5dv_dr_table_create`.
    Table {
        /// Number.
        id: Id,
        /// Of this domain.
        domain: Id,
        /// 0: the kernel's.
        level: u32,
    },
    /// `mlx5dv_dr_matcher_create`.
    Matcher {
        /// Number.
        id: Id,
        /// Of this table.
        table: Id,
        /// The lowest is looked at first.
        priority: u16,
        /// Blocks of the mask that count, by bit: outer, misc, inner, misc2 to misc5.
        criteria: u8,
        /// `fte_match_param`.
        mask: Hex,
    },
    /// `mlx5dv_dr_rule_create`.
    Rule {
        /// Number.
        id: Id,
        /// Of this matcher.
        matcher: Id,
        /// `fte_match_param`.
        value: Hex,
        /// In this order.
        actions: Vec<Id>,
    },
    /// `mlx5dv_dr_action_create_*`.
    Action {
        /// Number.
        id: Id,
        /// What it does.
        #[serde(flatten)]
        action: Action,
    },
    /// A DevX command that makes or changes a queue, or what leads to one.
    Devx {
        /// Number of the object.
        id: Id,
        /// The command.
        #[serde(flatten)]
        command: Command,
    },
    /// A DevX object is destroyed.
    #[serde(rename = "devx gone")]
    DevxGone {
        /// Its number.
        id: Id,
        /// The command that made it.
        opcode: u16,
    },
    /// An object of steering is destroyed.
    Gone {
        /// Its number.
        id: Id,
    },
    /// Something fails because it was told to.
    Fault {
        /// What: a table, matcher, action, rule, counter, entry; late completions; or the device.
        of: String,
    },
    /// The program's own words about what follows.
    Mark {
        /// The words.
        text: String,
    },
    /// Not of software steering.
    #[serde(other)]
    Other,
}

/// Which packets come to a domain (`enum mlx5dv_dr_domain_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DomainKind {
    /// What the function receives.
    Rx,
    /// What the function sends.
    Tx,
    /// What crosses the switch.
    Fdb,
}

/// What a rule does to a packet (`mlx5dv_dr_action_create_*`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Action {
    /// Counts, at a flow counter.
    Count {
        /// Which.
        #[serde(flatten)]
        counter: Counter,
    },
    /// Modify-header commands, eight octets each.
    Modify {
        /// As the PRM lays them out.
        commands: Hex,
    },
    /// Takes headers off, or puts headers on.
    Reformat {
        /// Which of both.
        #[serde(rename = "type")]
        reformat: ReformatKind,
        /// What is put on.
        data: Hex,
    },
    /// Takes the outer tag off.
    Pop,
    /// Puts a tag on.
    Push {
        /// TPID and TCI.
        tag: u32,
    },
    /// Sets the mark that software sees.
    Tag {
        /// 24 bits.
        tag: u32,
    },
    /// Drops.
    Drop,
    /// Goes the way of a packet that no rule matches.
    Miss,
    /// Goes on in another table.
    Table {
        /// Which.
        table: Id,
    },
    /// Leaves by a port of the switch.
    Vport {
        /// Its number; 0xffff is the uplink.
        vport: u32,
    },
    /// Goes to a receive queue by a TIR.
    Tir {
        /// The DevX object.
        tir: Id,
    },
    /// Goes to a queue pair.
    Qp {
        /// Its number.
        qp: u32,
    },
    /// What no rule of ours uses: meters, samplers, several destinations.
    #[serde(other)]
    Unknown,
}

/// Kinds of packet reformat (`enum mlx5dv_flow_action_packet_reformat_type`), as the record names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ReformatKind {
    /// Takes a tunnel with an Ethernet header in it off.
    #[serde(rename = "L2 tunnel to L2")]
    L2TunnelToL2,
    /// Puts headers before the Ethernet header.
    #[serde(rename = "L2 to L2 tunnel")]
    L2ToL2Tunnel,
    /// Takes everything before the inner IP header off, and puts an Ethernet header on.
    #[serde(rename = "L3 tunnel to L2")]
    L3TunnelToL2,
    /// Takes the Ethernet header off, and puts headers before the IP header.
    #[serde(rename = "L2 to L3 tunnel")]
    L2ToL3Tunnel,
    /// None of these.
    #[serde(other)]
    Unknown,
}

/// A DevX command.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Command {
    /// As the PRM numbers them.
    pub opcode: u16,
    /// The function.
    pub pf: i32,
    /// The command's input.
    #[serde(rename = "in")]
    pub input: Hex,
}

/// A flow counter: a DevX object, and the place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub struct Counter {
    /// The object.
    #[serde(rename = "counter")]
    pub base: u32,
    /// The place.
    pub offset: u32,
}

/// Octets in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hex(pub Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let digit = |octet: u8| char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let octets = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
        match octets.collect::<Option<Vec<u8>>>() {
            Some(octets) if rest.is_empty() => Ok(Self(octets)),
            _ => Err(de::Error::custom("octets are pairs of hexadecimal digits")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_of_the_record_is_read() {
        let read = |text: &str| match serde_json::from_str(&format!(r#"{{"e": "action", "id": 7, {text}}}"#)).unwrap() {
            Event::Action { id: 7, action } => action,
            other => panic!("{other:?}"),
        };
        let counter = Counter { base: 0x26e, offset: 3 };
        assert_eq!(read(r#""kind": "count", "counter": 622, "offset": 3"#), Action::Count { counter });
        assert_eq!(
            read(r#""kind": "reformat", "type": "L2 to L3 tunnel", "data": "00fF""#),
            Action::Reformat { reformat: ReformatKind::L2ToL3Tunnel, data: Hex(vec![0, 0xff]) }
        );
        assert_eq!(read(r#""kind": "vport", "vport": 65535"#), Action::Vport { vport: 0xffff });
        assert_eq!(read(r#""kind": "sampler""#), Action::Unknown);
    }

    #[test]
    fn odd_digits_and_odd_counters_are_refused() {
        for text in [
            r#""kind": "modify", "commands": "123""#,
            r#""kind": "modify", "commands": "zz""#,
            r#""kind": "count", "counter": "5""#,
        ] {
            assert!(
                serde_json::from_str::<Event>(&format!(r#"{{"e": "action", "id": 7, {text}}}"#)).is_err(),
                "{text}"
            );
        }
    }
}
