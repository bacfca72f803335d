//! `fte_match_param` by name: what a matcher's mask and a rule's value say.
//!
//! The layout is the PRM's, as DPDK (`drivers/common/mlx5/mlx5_prm.h`, `mlx5_ifc_fte_match_param_bits`) has it: blocks of 64
//! octets, bits counted from the highest of the first octet.

/// Octets of an `fte_match_param`.
pub const PARAM: usize = 512;

/// A named run of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Field {
    /// Its name, as `block.field`.
    pub name: &'static str,
    /// Its first bit, counted from the beginning.
    pub at: u16,
    /// Bits: 1..=128.
    pub width: u8,
}

const BLOCK: u16 = 512;

macro_rules! layer {
    ($block:literal, $base:expr) => {
        [
            Field { name: concat!($block, ".smac"), at: $base, width: 48 },
            Field { name: concat!($block, ".ethertype"), at: $base + 48, width: 16 },
            Field { name: concat!($block, ".dmac"), at: $base + 64, width: 48 },
            Field { name: concat!($block, ".first_prio"), at: $base + 112, width: 3 },
            Field { name: concat!($block, ".first_cfi"), at: $base + 115, width: 1 },
            Field { name: concat!($block, ".first_vid"), at: $base + 116, width: 12 },
            Field { name: concat!($block, ".ip_protocol"), at: $base + 128, width: 8 },
            Field { name: concat!($block, ".ip_dscp"), at: $base + 136, width: 6 },
            Field { name: concat!($block, ".ip_ecn"), at: $base + 142, width: 2 },
            Field { name: concat!($block, ".cvlan_tag"), at: $base + 144, width: 1 },
            Field { name: concat!($block, ".svlan_tag"), at: $base + 145, width: 1 },
            Field { name: concat!($block, ".frag"), at: $base + 146, width: 1 },
            Field { name: concat!($block, ".ip_version"), at: $base + 147, width: 4 },
            Field { name: concat!($block, ".tcp_flags"), at: $base + 151, width: 9 },
            Field { name: concat!($block, ".tcp_sport"), at: $base + 160, width: 16 },
            Field { name: concat!($block, ".tcp_dport"), at: $base + 176, width: 16 },
            Field { name: concat!($block, ".ipv4_ihl"), at: $base + 208, width: 4 },
            Field { name: concat!($block, ".l3_ok"), at: $base + 212, width: 1 },
            Field { name: concat!($block, ".l4_ok"), at: $base + 213, width: 1 },
            Field { name: concat!($block, ".ipv4_checksum_ok"), at: $base + 214, width: 1 },
            Field { name: concat!($block, ".l4_checksum_ok"), at: $base + 215, width: 1 },
            Field { name: concat!($block, ".ip_ttl_hoplimit"), at: $base + 216, width: 8 },
            Field { name: concat!($block, ".udp_sport"), at: $base + 224, width: 16 },
            Field { name: concat!($block, ".udp_dport"), at: $base + 240, width: 16 },
            // An IPv4 address is the last 32 bits.
            Field { name: concat!($block, ".src_ip"), at: $base + 256, width: 128 },
            Field { name: concat!($block, ".dst_ip"), at: $base + 384, width: 128 },
        ]
    };
}

const LAYER: usize = 26;
const OUTER: [Field; LAYER] = layer!("outer", 0);
const INNER: [Field; LAYER] = layer!("inner", 2 * BLOCK);

const fn misc(name: &'static str, at: u16, width: u8) -> Field {
    Field { name, at: BLOCK + at, width }
}

const fn misc2(name: &'static str, at: u16, width: u8) -> Field {
    Field { name, at: 3 * BLOCK + at, width }
}

const fn misc3(name: &'static str, at: u16, width: u8) -> Field {
    Field { name, at: 4 * BLOCK + at, width }
}

const MISC: [Field; 27] = [
    misc("misc.gre_c_present", 0, 1),
    misc("misc.gre_k_present", 2, 1),
    misc("misc.gre_s_present", 3, 1),
    misc("misc.source_vhca_port", 4, 4),
    misc("misc.source_sqn", 8, 24),
    misc("misc.source_eswitch_owner_vhca_id", 32, 16),
    misc("misc.source_port", 48, 16),
    misc("misc.outer_second_prio", 64, 3),
    misc("misc.outer_second_cfi", 67, 1),
    misc("misc.outer_second_vid", 68, 12),
    misc("misc.inner_second_prio", 80, 3),
    misc("misc.inner_second_cfi", 83, 1),
    misc("misc.inner_second_vid", 84, 12),
    misc("misc.outer_second_cvlan_tag", 96, 1),
    misc("misc.inner_second_cvlan_tag", 97, 1),
    misc("misc.outer_second_svlan_tag", 98, 1),
    misc("misc.inner_second_svlan_tag", 99, 1),
    misc("misc.gre_protocol", 112, 16),
    misc("misc.gre_key_h", 128, 24),
    misc("misc.gre_key_l", 152, 8),
    misc("misc.vxlan_vni", 160, 24),
    misc("misc.bth_opcode", 184, 8),
    misc("misc.outer_ipv6_flow_label", 236, 20),
    misc("misc.inner_ipv6_flow_label", 268, 20),
    misc("misc.bth_dst_qp", 328, 24),
    misc("misc.inner_esp_spi", 352, 32),
    misc("misc.outer_esp_spi", 384, 32),
];

const MISC2: [Field; 26] = [
    misc2("misc2.outer_first_mpls_label", 0, 20),
    misc2("misc2.outer_first_mpls_exp", 20, 3),
    misc2("misc2.outer_first_mpls_s_bos", 23, 1),
    misc2("misc2.outer_first_mpls_ttl", 24, 8),
    misc2("misc2.inner_first_mpls_label", 32, 20),
    misc2("misc2.inner_first_mpls_exp", 52, 3),
    misc2("misc2.inner_first_mpls_s_bos", 55, 1),
    misc2("misc2.inner_first_mpls_ttl", 56, 8),
    misc2("misc2.mpls_over_gre_label", 64, 20),
    misc2("misc2.mpls_over_gre_exp", 84, 3),
    misc2("misc2.mpls_over_gre_s_bos", 87, 1),
    misc2("misc2.mpls_over_gre_ttl", 88, 8),
    misc2("misc2.mpls_over_udp_label", 96, 20),
    misc2("misc2.mpls_over_udp_exp", 116, 3),
    misc2("misc2.mpls_over_udp_s_bos", 119, 1),
    misc2("misc2.mpls_over_udp_ttl", 120, 8),
    misc2("misc2.metadata_reg_c_7", 128, 32),
    misc2("misc2.metadata_reg_c_6", 160, 32),
    misc2("misc2.metadata_reg_c_5", 192, 32),
    misc2("misc2.metadata_reg_c_4", 224, 32),
    misc2("misc2.metadata_reg_c_3", 256, 32),
    misc2("misc2.metadata_reg_c_2", 288, 32),
    misc2("misc2.metadata_reg_c_1", 320, 32),
    misc2("misc2.metadata_reg_c_0", 352, 32),
    misc2("misc2.metadata_reg_a", 384, 32),
    misc2("misc2.metadata_reg_b", 416, 32),
];

const MISC3: [Field; 10] = [
    misc3("misc3.inner_tcp_seq_num", 0, 32),
    misc3("misc3.outer_tcp_seq_num", 32, 32),
    misc3("misc3.inner_tcp_ack_num", 64, 32),
    misc3("misc3.outer_tcp_ack_num", 96, 32),
    misc3("misc3.icmp_header_data", 192, 32),
    misc3("misc3.icmpv6_header_data", 224, 32),
    misc3("misc3.icmp_type", 256, 8),
    misc3("misc3.icmp_code", 264, 8),
    misc3("misc3.icmpv6_type", 272, 8),
    misc3("misc3.icmpv6_code", 280, 8),
];

/// Every field that has a name here, in the order of the PRM.
pub fn all() -> impl Iterator<Item = Field> {
    OUTER.into_iter().chain(MISC).chain(INNER).chain(MISC2).chain(MISC3)
}

/// The field of that name.
#[must_use]
pub fn named(name: &str) -> Option<Field> {
    all().find(|field| field.name == name)
}

/// A bit is set that no field here has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bit {bit} of fte_match_param has no name")]
pub struct Nameless {
    /// Counted from the beginning.
    pub bit: usize,
}

/// Not the octets of an `fte_match_param`, in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {PARAM} octets in hexadecimal")]
pub struct NotAParam;

/// A mask, a value, or what a packet shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Param([u8; PARAM]);

impl Default for Param {
    fn default() -> Self {
        Self([0; PARAM])
    }
}

impl std::fmt::Debug for Param {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(all().map(|field| (field.name, self.get(field))).filter(|(_, value)| *value != 0))
            .finish()
    }
}

impl From<[u8; PARAM]> for Param {
    fn from(octets: [u8; PARAM]) -> Self {
        Self(octets)
    }
}

impl Param {
    /// From hexadecimal, as the record has it.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn from_hex(text: &str) -> Result<Self, NotAParam> {
        let mut octets = [0; PARAM];
        let digits = text.as_bytes();
        if digits.len() != PARAM * 2 {
            return Err(NotAParam);
        }
        for (octet, pair) in octets.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| NotAParam)?;
            *octet = u8::from_str_radix(pair, 16).map_err(|_| NotAParam)?;
        }
        Ok(Self(octets))
    }

    /// The octets.
    #[must_use]
    pub fn octets(&self) -> &[u8; PARAM] {
        &self.0
    }

    /// A field's bits.
    #[must_use]
    pub fn get(&self, field: Field) -> u128 {
        bits(field).fold(0, |value, bit| value << 1 | u128::from(self.bit(bit)))
    }

    /// Sets a field's bits to the lowest of `value`.
    pub fn set(&mut self, field: Field, value: u128) {
        for (i, bit) in bits(field).rev().enumerate() {
            if let Some(octet) = self.0.get_mut(bit / 8) {
                let place = 7 - bit % 8;
                *octet = *octet & !(1 << place) | u8::from(value >> i & 1 == 1) << place;
            }
        }
    }

    fn bit(&self, bit: usize) -> bool {
        self.0.get(bit / 8).is_some_and(|octet| octet >> (7 - bit % 8) & 1 == 1)
    }

    /// Fields that are not zero.
    ///
    /// # Errors
    /// [`Nameless`] for a bit that no field has: whoever goes by names alone would miss it.
    pub fn fields(&self) -> Result<Vec<(Field, u128)>, Nameless> {
        let mut rest = self.clone();
        let found: Vec<_> = all().map(|field| (field, self.get(field))).filter(|(_, value)| *value != 0).collect();
        for (field, _) in &found {
            rest.set(*field, 0);
        }
        match (0..PARAM * 8).find(|bit| rest.bit(*bit)) {
            Some(bit) => Err(Nameless { bit }),
            None => Ok(found),
        }
    }
}

fn bits(field: Field) -> std::ops::Range<usize> {
    usize::from(field.at)..usize::from(field.at) + usize::from(field.width)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the PRM: the tag behind the destination address, the label behind UDP.
    #[test]
    fn fields_are_where_the_prm_has_them() {
        let mut octets = [0; PARAM];
        octets[8..14].copy_from_slice(&[2, 0, 0x5e, 0, 0, 1]);
        octets[14..16].copy_from_slice(&[0xa0, 0x64]);
        octets[60..64].copy_from_slice(&[192, 0, 2, 1]);
        octets[192 + 12..192 + 16].copy_from_slice(&[0x12, 0x34, 0x51, 64]);
        let param = Param::from(octets);
        let field = |name: &str| param.get(named(name).expect("a field"));
        assert_eq!(field("outer.dmac"), 0x0200_5e00_0001);
        assert_eq!((field("outer.first_prio"), field("outer.first_cfi"), field("outer.first_vid")), (5, 0, 100));
        assert_eq!(field("outer.dst_ip"), 0xc000_0201);
        assert_eq!(
            (field("misc2.mpls_over_udp_label"), field("misc2.mpls_over_udp_s_bos"), field("misc2.mpls_over_udp_ttl")),
            (0x12345, 1, 64)
        );
        assert_eq!(param.fields().expect("names").len(), 7);
    }

    #[test]
    fn no_two_fields_share_a_bit() {
        let mut seen = Param::default();
        for field in all() {
            assert_eq!(seen.get(field), 0, "{}", field.name);
            seen.set(field, u128::MAX);
        }
    }

    #[test]
    fn a_bit_without_a_name_is_not_passed_over() {
        let mut octets = [0; PARAM];
        octets[24] = 0x80;
        assert_eq!(Param::from(octets).fields(), Err(Nameless { bit: 192 }));
    }

    #[test]
    fn hexadecimal_comes_back_as_octets() {
        let mut param = Param::default();
        param.set(named("outer.src_ip").expect("a field"), 0x2001_0db8_0000_0000_0000_0000_0000_0001);
        let text: String = param.octets().iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(Param::from_hex(&text), Ok(param));
        assert_eq!(Param::from_hex("00"), Err(NotAParam));
    }
}
