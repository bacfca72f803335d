//! `fte_match_param` of the PRM: the fields that steering matches, seven blocks of 64 octets.

/// Octets of all blocks.
const SIZE: usize = 512;
/// First bits of the blocks.
const OUTER: u16 = 0;
const MISC: u16 = 512;
const INNER: u16 = 1024;
const MISC2: u16 = 1536;

/// A field: its first bit, big endian as the PRM counts, and its bits (1 to 32).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    at: u16,
    width: u16,
}

/// Fields of `fte_match_set_lyr_2_4`, outer or inner.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layer {
    pub(super) smac: [Field; 2],
    pub(super) ethertype: Field,
    pub(super) dmac: [Field; 2],
    pub(super) vlan: Tag,
    pub(super) protocol: Field,
    pub(super) dscp: Field,
    pub(super) ecn: Field,
    pub(super) fragment: Field,
    pub(super) version: Field,
    pub(super) tcp_flags: Field,
    pub(super) tcp_ports: [Field; 2],
    pub(super) ihl: Field,
    pub(super) l3_ok: Field,
    pub(super) l4_ok: Field,
    pub(super) ipv4_checksum_ok: Field,
    pub(super) l4_checksum_ok: Field,
    pub(super) ttl: Field,
    pub(super) udp_ports: [Field; 2],
    /// The last word is IPv4's.
    pub(super) source: [Field; 4],
    pub(super) destination: [Field; 4],
}

/// Fields of a tag.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tag {
    pub(super) pcp: Field,
    pub(super) dei: Field,
    pub(super) vid: Field,
    pub(super) cvlan: Field,
    pub(super) svlan: Field,
}

const fn layer(base: u16) -> Layer {
    const fn words(base: u16) -> [Field; 4] {
        [field(base, 32), field(base + 32, 32), field(base + 64, 32), field(base + 96, 32)]
    }
    Layer {
        smac: [field(base, 32), field(base + 32, 16)],
        ethertype: field(base + 48, 16),
        dmac: [field(base + 64, 32), field(base + 96, 16)],
        vlan: Tag {
            pcp: field(base + 112, 3),
            dei: field(base + 115, 1),
            vid: field(base + 116, 12),
            cvlan: field(base + 144, 1),
            svlan: field(base + 145, 1),
        },
        protocol: field(base + 128, 8),
        dscp: field(base + 136, 6),
        ecn: field(base + 142, 2),
        fragment: field(base + 146, 1),
        version: field(base + 147, 4),
        tcp_flags: field(base + 151, 9),
        tcp_ports: [field(base + 160, 16), field(base + 176, 16)],
        ihl: field(base + 208, 4),
        l3_ok: field(base + 212, 1),
        l4_ok: field(base + 213, 1),
        ipv4_checksum_ok: field(base + 214, 1),
        l4_checksum_ok: field(base + 215, 1),
        ttl: field(base + 216, 8),
        udp_ports: [field(base + 224, 16), field(base + 240, 16)],
        source: words(base + 256),
        destination: words(base + 384),
    }
}

const fn field(at: u16, width: u16) -> Field {
    Field { at, width }
}

pub(super) const OUTER_LAYER: Layer = layer(OUTER);
pub(super) const INNER_LAYER: Layer = layer(INNER);
/// `source_sqn` of misc.
pub(super) const SOURCE_SQN: Field = field(MISC + 8, 24);
/// `source_port` of misc: the port of the switch that a packet came by.
pub(super) const SOURCE_PORT: Field = field(MISC + 48, 16);
/// The second tag, in misc.
pub(super) const SECOND_TAG: Tag = Tag {
    pcp: field(MISC + 64, 3),
    dei: field(MISC + 67, 1),
    vid: field(MISC + 68, 12),
    cvlan: field(MISC + 96, 1),
    svlan: field(MISC + 98, 1),
};
/// `outer_first_mpls_over_udp` of misc2: label, traffic class, S bit, TTL.
pub(super) const MPLS_OVER_UDP: Field = field(MISC2 + 96, 32);
/// Registers C7 to C0, then A and B, of misc2.
pub(super) const REGISTERS_C: [Field; 8] = {
    let mut all = [field(0, 32); 8];
    let mut i = 0;
    while i < 8 {
        all[i] = field(MISC2 + 128 + 32 * (7 - i as u16), 32);
        i += 1;
    }
    all
};
pub(super) const REGISTER_A: Field = field(MISC2 + 384, 32);
pub(super) const REGISTER_B: Field = field(MISC2 + 416, 32);

/// Bits that say together what a tag is: the first, the second, and that of the inner header.
pub const VLAN_KINDS: [&[Field]; 3] = [
    &[OUTER_LAYER.vlan.cvlan, OUTER_LAYER.vlan.svlan],
    &[SECOND_TAG.cvlan, SECOND_TAG.svlan],
    &[INNER_LAYER.vlan.cvlan, INNER_LAYER.vlan.svlan],
];
/// Versions of IP, outer and inner.
pub const VERSIONS: [&[Field]; 2] = [&[OUTER_LAYER.version], &[INNER_LAYER.version]];

/// The fields of a packet, or a mask of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params(Vec<u8>);

impl Default for Params {
    fn default() -> Self {
        Self(vec![0; SIZE])
    }
}

impl Params {
    /// Of these octets; what is not there is 0.
    #[must_use]
    pub fn new(octets: &[u8]) -> Self {
        let mut all = octets.to_vec();
        all.resize(SIZE, 0);
        Self(all)
    }

    /// The octets.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// A field.
    #[must_use]
    pub fn get(&self, field: Field) -> u64 {
        bits(&self.0, field.at.into(), field.width.into()).unwrap_or(0)
    }

    /// Sets a field to the low bits of a value.
    pub fn set(&mut self, field: Field, value: u64) {
        // Invariant: every field is within the seven blocks.
        let _ = set_bits(&mut self.0, field.at.into(), field.width.into(), value);
    }
}

/// `width` bits (at most 64) at bit `at` of octets, bit 0 the highest of the first; `None`: there are not as many.
pub(super) fn bits(octets: &[u8], at: usize, width: usize) -> Option<u64> {
    (at..at + width).try_fold(0, |value: u64, bit| {
        let octet = octets.get(bit / 8)?;
        Some(value << 1 | u64::from(octet >> (7 - bit % 8) & 1))
    })
}

/// Writes the low bits of a value; `None`: there are not as many, and nothing is written.
pub(super) fn set_bits(octets: &mut [u8], at: usize, width: usize, value: u64) -> Option<()> {
    if (at + width).div_ceil(8) > octets.len() {
        return None;
    }
    for (i, bit) in (at..at + width).rev().enumerate() {
        let octet = octets.get_mut(bit / 8)?;
        let one = 1 << (7 - bit % 8);
        *octet = if value >> i & 1 == 1 { *octet | one } else { *octet & !one };
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `mlx5_prm.h` of DPDK, `mlx5_ifc_fte_match_set_lyr_2_4_bits`, `..._misc_bits`, `..._misc2_bits`: octets counted by hand.
    #[test]
    fn fields_are_where_the_prm_has_them() {
        let octet = |field: Field| usize::from(field.at) / 8;
        assert_eq!(octet(OUTER_LAYER.dmac[0]), 0x08);
        assert_eq!(octet(OUTER_LAYER.protocol), 0x10);
        assert_eq!(octet(OUTER_LAYER.tcp_ports[0]), 0x14);
        assert_eq!(octet(OUTER_LAYER.ttl), 0x1b);
        assert_eq!(octet(OUTER_LAYER.udp_ports[1]), 0x1e);
        assert_eq!(octet(OUTER_LAYER.source[3]), 0x2c);
        assert_eq!(octet(OUTER_LAYER.destination[3]), 0x3c);
        assert_eq!(octet(SOURCE_SQN), 0x41);
        assert_eq!(octet(SOURCE_PORT), 0x46);
        assert_eq!(octet(INNER_LAYER.smac[0]), 0x80);
        assert_eq!(octet(MPLS_OVER_UDP), 0xcc);
        assert_eq!(octet(REGISTERS_C[7]), 0xd0);
        assert_eq!(octet(REGISTERS_C[0]), 0xec);
        assert_eq!(octet(REGISTER_A), 0xf0);
        assert_eq!(octet(REGISTER_B), 0xf4);
    }

    /// Both tables were written from the PRM; this one by hand, for the machine.
    #[test]
    fn fields_are_where_the_decoder_has_them() {
        let layers = [("outer", OUTER_LAYER), ("inner", INNER_LAYER)].map(|(block, layer)| {
            [
                ("ethertype", layer.ethertype),
                ("first_vid", layer.vlan.vid),
                ("first_prio", layer.vlan.pcp),
                ("first_cfi", layer.vlan.dei),
                ("cvlan_tag", layer.vlan.cvlan),
                ("svlan_tag", layer.vlan.svlan),
                ("ip_protocol", layer.protocol),
                ("ip_dscp", layer.dscp),
                ("ip_ecn", layer.ecn),
                ("frag", layer.fragment),
                ("ip_version", layer.version),
                ("tcp_flags", layer.tcp_flags),
                ("tcp_sport", layer.tcp_ports[0]),
                ("tcp_dport", layer.tcp_ports[1]),
                ("ipv4_ihl", layer.ihl),
                ("l3_ok", layer.l3_ok),
                ("l4_ok", layer.l4_ok),
                ("ipv4_checksum_ok", layer.ipv4_checksum_ok),
                ("l4_checksum_ok", layer.l4_checksum_ok),
                ("ip_ttl_hoplimit", layer.ttl),
                ("udp_sport", layer.udp_ports[0]),
                ("udp_dport", layer.udp_ports[1]),
            ]
            .map(|(name, field)| (format!("{block}.{name}"), field))
        });
        let misc = [
            ("misc.source_port", SOURCE_PORT),
            ("misc.source_sqn", SOURCE_SQN),
            ("misc.outer_second_prio", SECOND_TAG.pcp),
            ("misc.outer_second_cfi", SECOND_TAG.dei),
            ("misc.outer_second_vid", SECOND_TAG.vid),
            ("misc.outer_second_cvlan_tag", SECOND_TAG.cvlan),
            ("misc.outer_second_svlan_tag", SECOND_TAG.svlan),
            ("misc2.metadata_reg_a", REGISTER_A),
            ("misc2.metadata_reg_b", REGISTER_B),
        ];
        let misc = misc.map(|(name, field)| (name.to_owned(), field));
        let registers = (0..).zip(REGISTERS_C).map(|(i, field)| (format!("misc2.metadata_reg_c_{i}"), field));
        for (name, field) in layers.into_iter().flatten().chain(misc).chain(registers) {
            let known = crate::fields::named(&name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!((field.at, field.width), (known.at, known.width.into()), "{name}");
        }
        // What the one has in parts, or in more of them than the other.
        let (outer, inner) = (OUTER_LAYER, INNER_LAYER);
        let split = [
            (&outer.smac[..], &["outer.smac"][..]),
            (&outer.dmac, &["outer.dmac"]),
            (&outer.source, &["outer.src_ip"]),
            (&outer.destination, &["outer.dst_ip"]),
            (&inner.smac, &["inner.smac"]),
            (&inner.dmac, &["inner.dmac"]),
            (&inner.source, &["inner.src_ip"]),
            (&inner.destination, &["inner.dst_ip"]),
            (
                &[MPLS_OVER_UDP],
                &[
                    "misc2.mpls_over_udp_label",
                    "misc2.mpls_over_udp_exp",
                    "misc2.mpls_over_udp_s_bos",
                    "misc2.mpls_over_udp_ttl",
                ],
            ),
        ];
        for (fields, names) in split {
            let known: Vec<_> =
                names.iter().map(|name| crate::fields::named(name).unwrap_or_else(|| panic!("{name}"))).collect();
            let bits = |at: u16, width: u16| at..at + width;
            let here: Vec<u16> = fields.iter().flat_map(|field| bits(field.at, field.width)).collect();
            let there: Vec<u16> = known.iter().flat_map(|field| bits(field.at, field.width.into())).collect();
            assert_eq!(here, there, "{known:?}");
        }
    }

    #[test]
    fn bits_are_written_where_they_are_read() {
        let mut octets = [0xff; 4];
        assert_eq!(set_bits(&mut octets, 5, 12, 0xabc), Some(()));
        assert_eq!(bits(&octets, 5, 12), Some(0xabc));
        assert_eq!(octets, [0b1111_1101, 0b0101_1110, 0b0111_1111, 0xff]);
        assert_eq!(set_bits(&mut octets, 30, 3, 0), None);
        assert_eq!(bits(&octets, 30, 3), None);
    }
}
