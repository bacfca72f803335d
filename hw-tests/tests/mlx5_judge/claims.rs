//! What a rule claims to match, as fields of the device's format: read from the rule's text, word by word.

use std::net::{Ipv4Addr, Ipv6Addr};

use mlx5_judge::fields::{Field, named};

/// Something that the rule matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The item and field of the rule.
    pub(crate) of: String,
    /// How the device can match it, any of these; none: not at all.
    pub(crate) any_of: Vec<FieldMatch>,
    /// It is about the port of this vif. Where there is no switch, the rule is in a table of that port alone.
    pub(crate) port: Option<u128>,
}

/// Bits that must be in the mask, with this value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FieldMatch {
    pub(crate) field: Field,
    pub(crate) value: u128,
    /// 0: any bits, with any value.
    pub(crate) mask: u128,
}

/// Registers that carry what an earlier rule has written.
const REGISTERS: [&str; 9] = [
    "misc2.metadata_reg_a",
    "misc2.metadata_reg_c_1",
    "misc2.metadata_reg_c_2",
    "misc2.metadata_reg_c_3",
    "misc2.metadata_reg_c_4",
    "misc2.metadata_reg_c_5",
    "misc2.metadata_reg_c_6",
    "misc2.metadata_reg_c_7",
    "misc2.metadata_reg_b",
];

/// The claims of a rule's text: `transfer group 1 priority 2 pattern ITEM / ITEM / end actions …`.
///
/// # Panics
/// For a word that it doesn't know: whatever a rule claims is looked at.
pub(crate) fn of(rule: &str) -> Vec<Claim> {
    let pattern = rule.split_once(" pattern ").and_then(|(_, rest)| rest.split_once("end actions")).expect("a rule").0;
    let mut reader = Reader::default();
    for item in items(pattern) {
        reader.item(&plain(item));
    }
    reader.claims
}

/// The items of a pattern. What stands in parentheses says in words what a number means, and may have items of its own.
fn items(pattern: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut depth, mut begin) = (0, 0);
    for (at, octet) in pattern.bytes().enumerate() {
        match octet {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b'/' if depth == 0 && pattern[..at].ends_with(' ') => {
                items.push(pattern[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    items.push(pattern[begin..].trim());
    items.retain(|item| !item.is_empty());
    items
}

#[derive(Default)]
struct Reader {
    claims: Vec<Claim>,
    /// Behind a label: about the inner packet.
    inner: bool,
    /// Tags so far.
    tags: usize,
}

/// A word of an item with its values: `ttl is 64`, `tos spec 0x0 tos mask 0x1`.
struct Word<'a> {
    name: &'a str,
    spec: &'a str,
    /// `None`: all bits.
    mask: Option<&'a str>,
}

/// An item without the words that say what a number means: `(matched: … / end)`.
fn plain(item: &str) -> String {
    match (item.find('('), item.rfind(')')) {
        (Some(begin), Some(end)) => {
            let number = if item[..begin].ends_with("is ") { "0" } else { "" };
            format!("{}{number}{}", &item[..begin], &item[end + 1..])
        }
        _ => item.to_owned(),
    }
}

fn words(item: &str) -> Vec<Word<'_>> {
    let tokens: Vec<&str> = item.split_whitespace().skip(1).filter(|token| *token != "vif").collect();
    let mut words = Vec::new();
    let mut rest = tokens.as_slice();
    loop {
        match rest {
            [] => return words,
            [name, "spec", spec, again, "mask", mask, tail @ ..] if name == again => {
                words.push(Word { name, spec, mask: Some(mask) });
                rest = tail;
            }
            // Of a port: `represented_port vif is 1`.
            ["is", spec, tail @ ..] => {
                words.push(Word { name: "vif", spec, mask: None });
                rest = tail;
            }
            [name, "is", spec, tail @ ..] => {
                words.push(Word { name, spec, mask: None });
                rest = tail;
            }
            other => panic!("words that are not known: {other:?} in {item}"),
        }
    }
}

fn number(text: &str) -> u128 {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u128::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("not a number: {text}"))
}

fn mac(text: &str) -> u128 {
    text.split(':').fold(0, |value, octet| value << 8 | u128::from_str_radix(octet, 16).expect("an octet"))
}

fn address(text: &str) -> (u128, u128) {
    match text.parse::<Ipv4Addr>() {
        Ok(v4) => (u32::from(v4).into(), u32::MAX.into()),
        Err(_) => (u128::from(text.parse::<Ipv6Addr>().expect("an address")), u128::MAX),
    }
}

impl Reader {
    fn layer(&self) -> &'static str {
        if self.inner { "inner" } else { "outer" }
    }

    fn claim(&mut self, of: &str, field: &str, value: u128, mask: u128) {
        self.one_of(of, &[(field, value, mask)]);
    }

    fn one_of(&mut self, of: &str, any_of: &[(&str, u128, u128)]) {
        let way = |(name, value, mask): &(&str, u128, u128)| {
            let field = named(name).unwrap_or_else(|| panic!("no field {name}"));
            FieldMatch { field, value: value & mask, mask: *mask }
        };
        let of = format!("{}{of}", if self.inner { "inner " } else { "" });
        self.claims.push(Claim { of, any_of: any_of.iter().map(way).collect(), port: None });
    }

    fn item(&mut self, item: &str) {
        let kind = item.split_whitespace().next().unwrap_or_default();
        if kind == "mpls" {
            self.inner = false;
        }
        match kind {
            "ipv4" => self.version(4),
            "ipv6" => self.version(6),
            _ => {}
        }
        let level = words(item).iter().find(|word| word.name == "level").map(|word| number(word.spec));
        for word in words(item) {
            self.word(kind, &word, level);
        }
        match kind {
            "mpls" => self.inner = true,
            "vlan" => self.tags += 1,
            _ => {}
        }
    }

    fn version(&mut self, version: u128) {
        let field = format!("{}.ip_version", self.layer());
        // In the device a version is compared as a whole, whatever the mask (rdma-core, dr_ste_build_pre_check).
        self.claim(&format!("IPv{version}"), &field, version, version);
    }

    fn word(&mut self, kind: &str, word: &Word<'_>, level: Option<u128>) {
        let Word { name, spec, mask } = *word;
        let of = format!("{kind} {name}");
        let layer = self.layer();
        let in_layer = |field: &str| format!("{layer}.{field}");
        let mask_of = |all: u128| mask.map_or(all, number);
        match (kind, name) {
            ("represented_port", _) => self.port(number(spec)),
            ("eth", "dst") => self.claim(&of, &in_layer("dmac"), mac(spec), 0xffff_ffff_ffff),
            // Both kinds are told apart from none, and from each other, by either bit.
            ("eth", "has_vlan") => self.tag(&of, &["cvlan_tag", "svlan_tag"].map(in_layer), number(spec)),
            ("vlan", "tpid") => self.tpid(&of, number(spec)),
            ("vlan", "tci") => self.tci(&of, number(spec), mask_of(0xffff)),
            ("vlan", "has_more_vlan") if self.tags == 0 => {
                let fields = ["cvlan", "svlan"].map(|tag| format!("misc.outer_second_{tag}_tag"));
                self.tag(&of, &fields, number(spec));
            }
            // The device's parser knows of two tags.
            ("vlan", "has_more_vlan") => self.one_of(&of, &[]),
            ("ipv4", "version_ihl") => self.claim(&of, &in_layer("ipv4_ihl"), number(spec), 0xf),
            ("ipv4", "tos") | ("ipv6", "tc") => self.tos(&of, number(spec), mask_of(0xff)),
            ("ipv4", "fragment_offset") => self.claim(&of, &in_layer("frag"), 0, 1),
            ("ipv6", "has_frag_ext") => self.claim(&of, &in_layer("frag"), number(spec), 1),
            ("ipv4", "ttl") | ("ipv6", "hop") => self.claim(&of, &in_layer("ip_ttl_hoplimit"), number(spec), 0xff),
            ("ipv4" | "ipv6", "proto") => self.claim(&of, &in_layer("ip_protocol"), number(spec), 0xff),
            ("ipv4" | "ipv6", "src" | "dst") => {
                let (value, mask) = address(spec);
                self.claim(&of, &in_layer(&format!("{name}_ip")), value, mask);
            }
            ("udp" | "tcp", "src") => self.claim(&of, &in_layer(&format!("{kind}_sport")), number(spec), 0xffff),
            ("udp" | "tcp", "dst") => self.claim(&of, &in_layer(&format!("{kind}_dport")), number(spec), 0xffff),
            ("tcp", "flags") => self.claim(&of, &in_layer("tcp_flags"), number(spec), mask_of(0xff)),
            ("mpls", "label") => self.claim(&of, "misc2.mpls_over_udp_label", number(spec), 0xf_ffff),
            ("mpls", "s") => self.claim(&of, "misc2.mpls_over_udp_s_bos", number(spec), 1),
            ("mpls", "ttl") => self.claim(&of, "misc2.mpls_over_udp_ttl", number(spec), 0xff),
            ("esp", "spi") => self.claim(&of, "misc.outer_esp_spi", number(spec), 0xffff_ffff),
            // Which register, and which number, is the driver's to choose.
            ("meta" | "tag", _) => self.one_of(&of, &REGISTERS.map(|name| (name, 0, 0))),
            ("integrity", "level") => {}
            ("integrity", _) => {
                let layer = if level == Some(2) { "inner" } else { "outer" };
                let field = if name == "l3_ok" { "l3_ok" } else { "ipv4_checksum_ok" };
                self.claim(&of, &format!("{layer}.{field}"), number(spec), 1);
            }
            // The device's format has no such field (ports of SCTP, the UDP checksum): whatever claims it is looser.
            ("sctp", _) | ("udp", "cksum") => self.one_of(&of, &[]),
            _ => panic!("a word that is not known: {of}"),
        }
    }

    /// By the number of its function, or of the E-Switch's port in the highest bits of a register. Vif 1 is on the uplink.
    fn port(&mut self, vif: u128) {
        let function = if vif == 1 { 0xffff } else { vif - 1 };
        let any_of = [("misc.source_port", function, 0xffff), ("misc2.metadata_reg_c_0", vif << 16, 0xffff_0000)];
        self.one_of("port", &any_of);
        if let Some(claim) = self.claims.last_mut() {
            claim.port = Some(vif);
        }
    }

    /// There is a tag, or none: `fields` are the bits of both kinds, and with either the device compares whether there is one, and of
    /// which kind.
    fn tag(&mut self, of: &str, fields: &[String; 2], is: u128) {
        self.one_of(of, &fields.each_ref().map(|field| (field.as_str(), is, 1)));
    }

    fn tpid(&mut self, of: &str, tpid: u128) {
        let kind = if tpid == 0x88a8 { "svlan" } else { "cvlan" };
        let field = match self.tags {
            0 => format!("{}.{kind}_tag", self.layer()),
            _ => format!("misc.outer_second_{kind}_tag"),
        };
        self.claim(of, &field, 1, 1);
    }

    fn tci(&mut self, of: &str, value: u128, mask: u128) {
        let prefix = if self.tags == 0 { format!("{}.first", self.layer()) } else { "misc.outer_second".to_owned() };
        for (part, shift, all) in [("prio", 13, 7), ("cfi", 12, 1), ("vid", 0, 0xfff)] {
            let bits = mask >> shift & all;
            if bits != 0 {
                self.claim(of, &format!("{prefix}_{part}"), value >> shift, bits);
            }
        }
    }

    fn tos(&mut self, of: &str, value: u128, mask: u128) {
        for (part, shift, all) in [("ip_dscp", 2, 0x3f), ("ip_ecn", 0, 3)] {
            let bits = mask >> shift & all;
            if bits != 0 {
                let field = format!("{}.{part}", self.layer());
                self.claim(of, &field, value >> shift, bits);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_claims_what_its_text_says() {
        let rule = "transfer group 2 priority 2 pattern represented_port vif is 1 / eth dst is 00:00:5e:00:53:01 has_vlan is 1 / \
                    vlan tpid is 0x88a8 tci spec 0xffd tci mask 0xfff has_more_vlan is 0 / \
                    ipv4 version_ihl is 0x45 tos spec 0x0 tos mask 0x1 proto is 17 / udp dst is 6635 / mpls label is 280 / \
                    ipv6 hop is 64 / tcp flags spec 0x10 flags mask 0x17 / end actions drop / end";
        let claims = of(rule);
        let names: Vec<&str> = claims.iter().map(|claim| claim.of.as_str()).collect();
        assert_eq!(
            names,
            [
                "port",
                "eth dst",
                "eth has_vlan",
                "vlan tpid",
                "vlan tci",
                "vlan has_more_vlan",
                "IPv4",
                "ipv4 version_ihl",
                "ipv4 tos",
                "ipv4 proto",
                "udp dst",
                "mpls label",
                "inner IPv6",
                "inner ipv6 hop",
                "inner tcp flags",
            ]
        );
        let way = |of: &str| claims.iter().find(|claim| claim.of == of).map(|claim| claim.any_of[0]).unwrap();
        assert_eq!((way("vlan tpid").field.name, way("vlan tpid").value), ("outer.svlan_tag", 1));
        assert_eq!(
            (way("vlan tci").field.name, way("vlan tci").value, way("vlan tci").mask),
            ("outer.first_vid", 0xffd, 0xfff)
        );
        assert_eq!((way("ipv4 tos").field.name, way("ipv4 tos").mask), ("outer.ip_ecn", 1));
        assert_eq!((way("inner tcp flags").field.name, way("inner tcp flags").value), ("inner.tcp_flags", 0x10));
    }

    #[test]
    fn what_a_number_means_in_words_is_no_claim() {
        let rule = "transfer group 5 priority 2 pattern tag data is (matched: represented_port vif is 1 / eth has_vlan is 1 / end) / \
                    eth has_vlan is 0 / meta data is 0x3 (opened, vif 3) / end actions drop / end";
        let names: Vec<String> = of(rule).into_iter().map(|claim| claim.of).collect();
        assert_eq!(names, ["tag data", "eth has_vlan", "meta data"]);
    }

    #[test]
    #[should_panic(expected = "a word that is not known")]
    fn a_word_that_is_not_known_is_not_passed_over() {
        of("transfer group 1 priority 2 pattern eth colour is 3 / end actions drop / end");
    }
}
