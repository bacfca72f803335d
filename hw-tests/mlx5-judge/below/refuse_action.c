/*
 * What rdma-core's software steering refuses to do, on a ConnectX-6 Dx (rdma-core, providers/mlx5, release 64: dr_action.c, dr_ste.c; the
 * orders are the same in 44 and 56, but for connection tracking behind a pushed tag). The driver leaves this to it: what it validates may
 * still be refused here. From the wire to the wire is not refused but dropped in silence (dr_action.c:877): whoever executes the record
 * has to know. Level 0 is the kernel's and firmware's: they have an order of their own for each packet, and no state.
 */
#include <errno.h>
#include "steering.h"

#define CAN(kind) (1U << (kind))

/* What may come first or behind, of what changes a packet (next_action_state). Counters and tags have no place of their own. */
static unsigned behind(enum kind last, enum side side)
{
	const unsigned first = CAN(MODIFY) | CAN(POP) | CAN(PUSH) | CAN(METER) | CAN(ENCAP);

	switch (last) {
	case NOTHING:
		return first | (side == RX ? CAN(DECAP) : 0);
	case DECAP:
		return first;
	case METER:
		return side == RX ? CAN(METER) : CAN(METER) | CAN(MODIFY) | CAN(PUSH) | CAN(ENCAP);
	case MODIFY:
		return CAN(ENCAP) | CAN(PUSH) | (side == RX ? CAN(METER) : 0);
	case POP:
		return CAN(POP) | CAN(MODIFY) | CAN(ENCAP) | (side == RX ? CAN(METER) : CAN(PUSH));
	case PUSH:
		return CAN(PUSH) | CAN(ENCAP);
	default:
		return 0;
	}
}

/* Where a rule of a domain may lead, and whether it may mark. */
static unsigned ends(enum mlx5dv_dr_domain_type domain)
{
	const unsigned any = CAN(TABLE) | CAN(DROP) | CAN(MISS) | CAN(OTHER);

	switch (domain) {
	case MLX5DV_DR_DOMAIN_TYPE_NIC_RX:
		return any | CAN(QUEUE) | CAN(TAG);
	case MLX5DV_DR_DOMAIN_TYPE_NIC_TX:
		return any;
	default:
		return any | CAN(VPORT);
	}
}

static const char *out_of_order(enum side side, const struct mlx5dv_dr_matcher *matcher, struct mlx5dv_dr_action *actions[], size_t count)
{
	unsigned allowed = ends(matcher->table->domain->type);
	enum kind last = NOTHING;
	unsigned seen[KINDS] = { 0 };
	bool ended = false;

	for (size_t i = 0; i < count; i++) {
		const struct mlx5dv_dr_action *next = actions[i];
		unsigned most = next->kind == POP || next->kind == PUSH ? 2 : 1;

		if (next->domain && next->domain != matcher->table->domain)
			return "an action of another domain";
		if (next->placed && next->root)
			return "an action that is made for the root table";
		if (next->level && next->level <= matcher->table->level)
			return "a table that is not behind this one";
		if (++seen[next->kind] > most)
			return "an action too often";
		if (next->kind == COUNTER)
			continue;
		if (ended)
			return "an action behind the end";
		switch (next->kind) {
		case TAG:
			if (!(allowed & CAN(TAG)))
				return "a mark outside of the receive side";
			break;
		case DROP:
		case MISS:
			/* A changed packet is not dropped. */
			if (last != NOTHING)
				return "order of actions";
			ended = true;
			break;
		case TABLE:
		case VPORT:
		case QUEUE:
		case OTHER:
			if (!(allowed & CAN(next->kind)))
				return "a destination that this domain doesn't have";
			ended = true;
			break;
		default:
			if (!(behind(last, side) & CAN(next->kind)))
				return "order of actions";
			last = next->kind;
		}
	}
	return NULL;
}

/* A rule of the switch is in both halves, unless it tells which it is of: packets from the wire, or from functions (dr_rule_skip). */
static bool on_side(enum side side, const struct mlx5dv_dr_matcher *matcher, const uint8_t *value)
{
	enum { SOURCE_PORT = 512 + 48, REG_C0 = 3 * 512 + 11 * 32 };
	const struct mlx5dv_dr_domain *domain = matcher->table->domain;
	uint32_t wire = (domain->pf << 12 | 1) << 16;

	if (domain->type != MLX5DV_DR_DOMAIN_TYPE_FDB)
		return (side == RX) == (domain->type == MLX5DV_DR_DOMAIN_TYPE_NIC_RX);
	if (get_bits(matcher->mask, SOURCE_PORT, 16) && (get_bits(value, SOURCE_PORT, 16) == UPLINK_VPORT) != (side == RX))
		return false;
	if (get_bits(matcher->mask, REG_C0, 32) & 0xffff0000)
		return ((get_bits(value, REG_C0, 32) & 0xffff0000) == wire) == (side == RX);
	return true;
}

struct refusal refuse_actions(const struct mlx5dv_dr_matcher *matcher, const uint8_t *value, struct mlx5dv_dr_action *actions[], size_t count)
{
	const char *why = NULL;

	for (enum side side = RX; side <= TX && judge.rdma && matcher->table->level && !why; side++)
		if (on_side(side, matcher, value))
			why = out_of_order(side, matcher, actions, count);
	return (struct refusal){ why, EOPNOTSUPP };
}

/* dr_action_verify_reformat_params, dr_ste_set_action_decap_l3_list. */
struct refusal refuse_reformat(const struct mlx5dv_dr_domain *domain, enum mlx5dv_flow_action_packet_reformat_type type, size_t n,
			       const void *data, bool root)
{
	bool off = type == MLX5DV_FLOW_ACTION_PACKET_REFORMAT_TYPE_L2_TUNNEL_TO_L2 || type == MLX5DV_FLOW_ACTION_PACKET_REFORMAT_TYPE_L3_TUNNEL_TO_L2;

	if ((unsigned)type > MLX5DV_FLOW_ACTION_PACKET_REFORMAT_TYPE_L2_TO_L3_TUNNEL)
		return (struct refusal){ "an unknown reformat", EINVAL };
	if (!judge.rdma)
		return (struct refusal){ 0 };
	if (!data != !n)
		return (struct refusal){ "reformat data without size or the other way round", EINVAL };
	if (domain->type == MLX5DV_DR_DOMAIN_TYPE_NIC_RX && !off)
		return (struct refusal){ "encapsulation on the receive side", EINVAL };
	if (domain->type == MLX5DV_DR_DOMAIN_TYPE_NIC_TX && off)
		return (struct refusal){ "decapsulation on the transmit side", EINVAL };
	/* An Ethernet header, with a tag or without. */
	if (!root && type == MLX5DV_FLOW_ACTION_PACKET_REFORMAT_TYPE_L3_TUNNEL_TO_L2 && n != 14 && n != 18)
		return (struct refusal){ "an Ethernet header that is neither 14 nor 18 octets", EINVAL };
	return (struct refusal){ 0 };
}

/* ---- Modify header ---- */

/* PRM: numbers of fields. */
enum { SMAC_47_16 = 0x01, FLAGS = 0x07, TCP_SPORT = 0x08, TCP_DPORT = 0x09, TTL = 0x0a, UDP_SPORT = 0x0b, UDP_DPORT = 0x0c, SIPV6 = 0x0d,
       DIPV6_31_0 = 0x14, SIPV4 = 0x15, DIPV4 = 0x16, FIRST_VID = 0x17, HOP_LIMIT = 0x47, REG_A = 0x49, REG_B = 0x50, REG_C0 = 0x51,
       REG_C5 = 0x56, SEQUENCE = 0x59, ACKNOWLEDGEMENT = 0x5b };

/* Bits of a field, 0 for one that can't be changed, such as any of inner headers (dr_ste_v1_action_modify_field_arr). */
static unsigned width_of(unsigned field)
{
	static const uint8_t widths[] = { 0, 32, 16, 16, 32, 16, 6, 9, 16, 16, 8, 16, 16, 32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 16 };

	if (field < sizeof(widths))
		return widths[field];
	if (field == HOP_LIMIT)
		return 8;
	return field == REG_A || (field >= REG_B && field <= REG_C5) || field == SEQUENCE || field == ACKNOWLEDGEMENT ? 32 : 0;
}

/* 4, 6: of that IP version; 0: of any. */
static unsigned network_of(unsigned field)
{
	if (field == TTL || field == SIPV4 || field == DIPV4)
		return 4;
	return field == HOP_LIMIT || (field >= SIPV6 && field <= DIPV6_31_0) ? 6 : 0;
}

/* 6, 17: of that protocol; 0: of any. */
static unsigned transport_of(unsigned field)
{
	if (field == FLAGS || field == TCP_SPORT || field == TCP_DPORT)
		return 6;
	return field == UDP_SPORT || field == UDP_DPORT ? 17 : 0;
}

static const char *refuse_field(enum mlx5dv_dr_domain_type domain, unsigned field, unsigned offset, unsigned length)
{
	if (!width_of(field) || offset + length > width_of(field))
		return "a field that can't be changed, or not that wide";
	if (field == REG_A && domain != MLX5DV_DR_DOMAIN_TYPE_NIC_TX)
		return "register A outside of the transmit side";
	if (field == REG_B && domain != MLX5DV_DR_DOMAIN_TYPE_NIC_RX)
		return "register B outside of the receive side";
	return NULL;
}

/* dr_actions_convert_modify_header. */
struct refusal refuse_modify(const struct mlx5dv_dr_domain *domain, size_t n, const uint8_t *commands)
{
	enum { SET = 1, ADD = 2, COPY = 3 };
	unsigned network = 0, transport = 0;

	if (!judge.rdma)
		return (struct refusal){ 0 };
	if (!n || n % 8)
		return (struct refusal){ "no command, or a part of one", EINVAL };
	for (const uint8_t *at = commands; at < commands + n; at += 8) {
		unsigned kind = get_bits(at, 0, 4), field = get_bits(at, 4, 12), offset = get_bits(at, 19, 5), length = get_bits(at, 27, 5);
		const char *why;

		length = length ? length : 32;
		if (kind != SET && kind != ADD && kind != COPY)
			return (struct refusal){ "a command that is not known", EOPNOTSUPP };
		if (kind == ADD && field != TTL && field != HOP_LIMIT && field != SEQUENCE && field != ACKNOWLEDGEMENT)
			return (struct refusal){ "a field that nothing is added to", EINVAL };
		why = refuse_field(domain->type, field, kind == ADD ? 0 : offset, kind == ADD ? width_of(field) : length);
		if (!why && kind == COPY) {
			field = get_bits(at, 36, 12);
			why = refuse_field(domain->type, field, get_bits(at, 51, 5), length);
		}
		if (why)
			return (struct refusal){ why, EINVAL };
		/* The field that is changed is of one version and one protocol, in all commands. */
		if (network && network_of(field) && network_of(field) != network)
			return (struct refusal){ "fields of IPv4 and of IPv6", ENOTSUP };
		if (transport && transport_of(field) && transport_of(field) != transport)
			return (struct refusal){ "fields of TCP and of UDP", EINVAL };
		network = network_of(field) ? network_of(field) : network;
		transport = transport_of(field) ? transport_of(field) : transport;
	}
	return (struct refusal){ 0 };
}
