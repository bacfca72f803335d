/*
 * What rdma-core's software steering refuses to match, by its own rules (rdma-core, providers/mlx5, release 64; the same in 44, 56): a
 * field of the mask that no lookup of an STE takes up is EOPNOTSUPP (dr_matcher.c, dr_matcher_set_ste_builders). The driver doesn't know;
 * whatever the error was, it tells ENOMEM, "cannot create matcher" (mlx5_flow_dv.c, flow_dv_matcher_create_cb).
 * Level 0 is the kernel's and firmware's, and is not asked here.
 */
#include <errno.h>
#include <string.h>
#include "steering.h"

/* Bits of fte_match_param from `at` on; 0 wide: the end of a list. */
struct field {
	uint16_t at, width;
};

enum { BLOCK = 512, OUTER = 0, MISC = BLOCK, INNER = 2 * BLOCK, MISC2 = 3 * BLOCK, MISC3 = 4 * BLOCK };

/* In a layer: outer or inner headers. */
static const struct field smac[] = { { 0, 48 }, { 0 } }, dmac[] = { { 64, 48 }, { 0 } };
static const struct field ethertype = { 48, 16 }, version = { 147, 4 }, frag = { 146, 1 }, qualifiers = { 144, 2 }, tci = { 112, 16 };
static const struct field protocol = { 128, 8 }, tos = { 136, 8 }, tcp_flags = { 151, 9 }, tcp_ports = { 160, 32 }, udp_ports = { 224, 32 };
static const struct field ihl = { 208, 4 }, oks = { 212, 4 }, ttl = { 216, 8 };
static const struct field source = { 256, 128 }, destination = { 384, 128 }, source4 = { 352, 32 }, destination4 = { 480, 32 };
/* In misc. */
static const struct field source_sqn = { MISC + 8, 24 }, source_port = { MISC + 48, 16 };
static const struct field second_tag[] = { { MISC + 64, 16 }, { MISC + 80, 16 } };
static const struct field second_cvlan[] = { { MISC + 96, 1 }, { MISC + 97, 1 } }, second_svlan[] = { { MISC + 98, 1 }, { MISC + 99, 1 } };
static const struct field flow_label[] = { { MISC + 236, 20 }, { MISC + 268, 20 } };
/* In misc2: labels behind Ethernet of either layer, behind UDP; registers from c7 down to c0, and a. */
static const struct field mpls[] = { { MISC2 + 0, 32 }, { MISC2 + 32, 32 } }, mpls_udp = { MISC2 + 96, 32 };
static const struct field c4_to_c7 = { MISC2 + 128, 128 }, c0_to_c3 = { MISC2 + 256, 128 }, c0_and_c1 = { MISC2 + 320, 64 };
static const struct field reg_a = { MISC2 + 384, 32 };
/* In misc3. */
static const struct field tcp_numbers[] = { { MISC3 + 32, 32 }, { MISC3 + 96, 32 } }, inner_numbers[] = { { MISC3 + 0, 32 }, { MISC3 + 64, 32 } };
static const struct field icmp4[] = { { MISC3 + 192, 32 }, { MISC3 + 256, 16 } }, icmp6[] = { { MISC3 + 224, 32 }, { MISC3 + 272, 16 } };

static bool any(const uint8_t *mask, uint16_t base, struct field field)
{
	for (uint16_t i = 0; i < field.width; i += 32) {
		uint16_t width = field.width - i < 32 ? field.width - i : 32;

		if (get_bits(mask, base + field.at + i, width))
			return true;
	}
	return false;
}

static void take(uint8_t *mask, uint16_t base, struct field field)
{
	for (uint16_t i = 0; i < field.width; i += 32)
		set_bits(mask, base + field.at + i, field.width - i < 32 ? field.width - i : 32, 0);
}

/* Whether nothing of what is to be matched is left. */
static bool taken_up(const uint8_t *mask, uint8_t criteria)
{
	for (int block = 0; block < 7; block++)
		for (int i = 0; criteria >> block & 1 && i < BLOCK / 8; i++)
			if (mask[block * BLOCK / 8 + i])
				return false;
	return true;
}

/* ---- Fixed definers: the only lookups that have integrity (dr_ste_v1.c, build_def0_tag, build_def2_tag) ---- */

static void take_definer_0(uint8_t *mask)
{
	take(mask, 0, c0_and_c1);
	take(mask, OUTER, *dmac);
	take(mask, OUTER, *smac);
	take(mask, OUTER, ethertype);
	take(mask, OUTER, frag);
	take(mask, OUTER, version);
	take(mask, OUTER, qualifiers);
	take(mask, OUTER, tci);
	take(mask, OUTER, oks);
	take(mask, INNER, oks);
	/* All but NS. */
	take(mask, OUTER, (struct field){ tcp_flags.at + 1, 8 });
}

static void take_definer_2(uint8_t *mask)
{
	const struct field fields[] = { version, ihl, tos, ttl, protocol, tcp_ports, udp_ports, frag, tcp_flags, oks };

	take(mask, 0, reg_a);
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		take(mask, OUTER, fields[i]);
	take(mask, INNER, oks);
}

static bool fits_definer(const uint8_t *mask, uint8_t criteria)
{
	uint8_t left[MATCH];

	if (judge.definers & 1 << 0) {
		memcpy(left, mask, MATCH);
		take_definer_0(left);
		if (taken_up(left, criteria))
			return true;
	}
	if (judge.definers & 1 << 2) {
		memcpy(left, mask, MATCH);
		take_definer_2(left);
		if (taken_up(left, criteria))
			return true;
	}
	return false;
}

/* ---- Lookups by kind of header ---- */

static bool is_any(const uint8_t *mask, uint16_t base, const struct field fields[], size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (any(mask, base, fields[i]))
			return true;
	return false;
}

static bool take_link(uint8_t *mask, bool inner)
{
	uint16_t base = inner ? INNER : OUTER;
	const struct field first[] = { *dmac, ethertype, version, qualifiers, tci };
	const struct field second[] = { second_tag[inner], second_cvlan[inner], second_svlan[inner] };
	bool found = any(mask, base, *smac) || is_any(mask, base, first, 5) || is_any(mask, 0, second, 3);

	if (!found)
		return false;
	take(mask, base, *smac);
	for (int i = 0; i < 5; i++)
		take(mask, base, first[i]);
	for (int i = 0; i < 3; i++)
		take(mask, 0, second[i]);
	take(mask, base, frag);
	return true;
}

static bool take_network(uint8_t *mask, bool inner)
{
	uint16_t base = inner ? INNER : OUTER;
	unsigned ip = get_bits(mask, base + version.at, version.width);
	const struct field l4[] = { protocol, frag, tcp_flags, tos, tcp_ports, udp_ports };
	const struct field of4[] = { ttl, ihl, source4, destination4 }, of6[] = { source, destination, ttl };
	bool found;

	if (ip != 4 && ip != 6)
		return false;
	found = is_any(mask, base, l4, 6) || (ip == 4 ? is_any(mask, base, of4, 4) : is_any(mask, base, of6, 3) || any(mask, 0, flow_label[inner]));
	for (int i = 0; i < 6; i++)
		take(mask, base, l4[i]);
	for (int i = 0; ip == 4 && i < 4; i++)
		take(mask, base, of4[i]);
	for (int i = 0; ip == 6 && i < 3; i++)
		take(mask, base, of6[i]);
	if (ip == 6)
		take(mask, 0, flow_label[inner]);
	return found;
}

static bool take_one(uint8_t *mask, struct field field)
{
	bool found = any(mask, 0, field);

	take(mask, 0, field);
	return found;
}

/* Takes what some lookup takes up; whether there is one at all. */
static bool take_headers(uint8_t *mask, enum mlx5dv_dr_domain_type domain)
{
	bool found = take_one(mask, reg_a);

	found |= take_one(mask, c0_to_c3);
	found |= take_one(mask, c4_to_c7);
	/* Where a packet comes from is not known on its way out of a NIC. */
	if (domain != MLX5DV_DR_DOMAIN_TYPE_NIC_TX) {
		found |= take_one(mask, source_port);
		found |= take_one(mask, source_sqn);
	}
	for (int inner = 0; inner <= 1; inner++) {
		/* The version decides which headers there are, and is the link layer's to match: the network layer is looked at first. */
		bool network = take_network(mask, inner);

		found |= network | take_link(mask, inner);
		found |= take_one(mask, mpls[inner]);
	}
	if (judge.mpls)
		found |= take_one(mask, mpls_udp);
	for (int i = 0; i < 2; i++) {
		found |= take_one(mask, tcp_numbers[i]);
		found |= take_one(mask, inner_numbers[i]);
	}
	/* One of them, not both. */
	if (is_any(mask, 0, icmp4, 2)) {
		take(mask, 0, icmp4[0]);
		take(mask, 0, icmp4[1]);
		found = true;
	} else {
		found |= take_one(mask, icmp6[0]);
		found |= take_one(mask, icmp6[1]);
	}
	return found;
}

static struct refusal refuse_side(const struct mlx5dv_dr_matcher *matcher, enum side side)
{
	enum mlx5dv_dr_domain_type domain = matcher->table->domain->type;
	uint8_t mask[MATCH];
	bool from_wire = false, found;

	memcpy(mask, matcher->mask, MATCH);
	/* All that is received in a switch is from the wire: it isn't asked again. */
	if (domain == MLX5DV_DR_DOMAIN_TYPE_FDB && side == RX && any(mask, 0, source_port)) {
		take(mask, 0, source_port);
		from_wire = matcher->criteria & 2;
	}
	if (fits_definer(mask, matcher->criteria))
		return (struct refusal){ 0 };
	found = take_headers(mask, domain);
	if (!found && !from_wire && matcher->criteria)
		return (struct refusal){ "nothing to match", EINVAL };
	if (taken_up(mask, matcher->criteria))
		return (struct refusal){ 0 };
	if (any(mask, OUTER, oks) || any(mask, INNER, oks))
		return (struct refusal){ "integrity beside what its definers (0, 2) don't have", EOPNOTSUPP };
	return (struct refusal){ "a field that no lookup has", EOPNOTSUPP };
}

struct refusal refuse_matcher(const struct mlx5dv_dr_matcher *matcher)
{
	enum mlx5dv_dr_domain_type domain = matcher->table->domain->type;
	struct refusal refusal = { 0 };

	if (!judge.rdma || !matcher->table->level)
		return refusal;
	/* dr_ste_build_pre_check. */
	for (int inner = 0; inner <= 1; inner++) {
		unsigned ip = get_bits(matcher->mask, (inner ? INNER : OUTER) + version.at, version.width);

		if (matcher->criteria >> (inner ? 2 : 0) & 1 && ip && ip != 4 && ip != 6)
			return (struct refusal){ "a mask of IP version that is neither 4 nor 6", EOPNOTSUPP };
	}
	if (matcher->criteria & 2 && any(matcher->mask, 0, source_port) && get_bits(matcher->mask, source_port.at, 16) != 0xffff)
		return (struct refusal){ "a part of the source port", ENOTSUP };
	if (domain != MLX5DV_DR_DOMAIN_TYPE_NIC_TX)
		refusal = refuse_side(matcher, RX);
	if (!refusal.why && domain != MLX5DV_DR_DOMAIN_TYPE_NIC_RX)
		refusal = refuse_side(matcher, TX);
	return refusal;
}

/* dr_rule_verify, dr_ste_build_pre_check. */
struct refusal refuse_value(const struct mlx5dv_dr_matcher *matcher, const uint8_t *value)
{
	if (!judge.rdma || !matcher->table->level)
		return (struct refusal){ 0 };
	for (int block = 0; block < 7; block++)
		for (int i = block * BLOCK / 8; matcher->criteria >> block & 1 && i < (block + 1) * BLOCK / 8; i++)
			if (value[i] & ~matcher->mask[i])
				return (struct refusal){ "a value outside of the mask", EINVAL };
	for (int inner = 0; inner <= 1; inner++) {
		unsigned at = (inner ? INNER : OUTER) + version.at, ip = get_bits(matcher->mask, at, version.width);

		if (matcher->criteria >> (inner ? 2 : 0) & 1 && ip && get_bits(value, at, version.width) != ip)
			return (struct refusal){ "an IP version that is not its mask", EOPNOTSUPP };
	}
	return (struct refusal){ 0 };
}
