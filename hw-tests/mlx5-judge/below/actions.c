/* mlx5dv_dr_action_*: actions of software steering, recorded by number and with what they do. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "steering.h"

/* `format`: members of the record's object. */
__attribute__((format(printf, 3, 4))) static struct mlx5dv_dr_action *
action(enum kind kind, struct mlx5dv_dr_domain *domain, const char *format, ...)
{
	struct mlx5dv_dr_action *made;
	char *text = NULL;
	va_list arguments;

	if (refused("action", refuse_by_fault(FAULT_ACTION)))
		return NULL;
	made = calloc(1, sizeof(*made));
	*made = (struct mlx5dv_dr_action){ .id = next_id(), .kind = kind, .domain = domain };
	va_start(arguments, format);
	if (vasprintf(&text, format, arguments) >= 0) {
		record("{\"e\": \"action\", \"id\": %u, %s}", made->id, text);
		free(text);
	}
	va_end(arguments);
	return made;
}

/* One that is made for the root table, or for any other. */
static struct mlx5dv_dr_action *placed(struct mlx5dv_dr_action *made, uint32_t flags)
{
	if (made) {
		made->placed = true;
		made->root = flags & MLX5DV_DR_ACTION_FLAGS_ROOT_LEVEL;
	}
	return made;
}

int mlx5dv_dr_action_destroy(struct mlx5dv_dr_action *gone)
{
	record("{\"e\": \"gone\", \"id\": %u}", gone->id);
	free(gone);
	return 0;
}

/* ---- Destinations ---- */

struct mlx5dv_dr_action *mlx5dv_dr_action_create_dest_ibv_qp(struct ibv_qp *qp)
{
	return action(QUEUE, NULL, "\"kind\": \"qp\", \"qp\": %u", qp->qp_num);
}

struct mlx5dv_dr_action *mlx5dv_dr_action_create_dest_table(struct mlx5dv_dr_table *table)
{
	struct mlx5dv_dr_action *made = action(TABLE, table->domain, "\"kind\": \"table\", \"table\": %u", table->id);

	if (made)
		made->level = table->level;
	return made;
}

struct mlx5dv_dr_action *mlx5dv_dr_action_create_dest_root_table(struct mlx5dv_dr_table *table, uint16_t priority)
{
	return action(TABLE, table->domain, "\"kind\": \"table\", \"table\": %u, \"priority\": %u", table->id, priority);
}

struct mlx5dv_dr_action *mlx5dv_dr_action_create_dest_vport(struct mlx5dv_dr_domain *domain, uint32_t vport)
{
	return action(VPORT, domain, "\"kind\": \"vport\", \"vport\": %u", vport);
}

struct mlx5dv_dr_action *mlx5dv_dr_action_create_dest_ib_port(struct mlx5dv_dr_domain *domain, uint32_t port)
{
	if (port < 1 || port > 1U + judge.vfs) {
		errno = EINVAL;
		return NULL;
	}
	return action(VPORT, domain, "\"kind\": \"vport\", \"vport\": %u", port == 1 ? UPLINK_VPORT : port - 1);
}

struct mlx5dv_dr_action *mlx5dv_dr_action_create_dest_devx_tir(struct mlx5dv_devx_obj *tir)
{
	return action(QUEUE, NULL, "\"kind\": \"tir\", \"tir\": %u", tir->id);
}

struct mlx5dv_dr_action *mlx5dv_dr_action_create_dest_array(struct mlx5dv_dr_domain *domain, size_t count, struct mlx5dv_dr_action_dest_attr *to[])
{
	(void)to;
	return action(OTHER, domain, "\"kind\": \"destinations\", \"count\": %zu", count);
}

struct mlx5dv_dr_action *mlx5dv_dr_action_create_drop(void)
{
	return action(DROP, NULL, "\"kind\": \"drop\"");
}

struct mlx5dv_dr_action *mlx5dv_dr_action_create_default_miss(void)
{
	return action(MISS, NULL, "\"kind\": \"miss\"");
}

/* ---- What is done on the way ---- */

struct mlx5dv_dr_action *mlx5dv_dr_action_create_tag(uint32_t tag)
{
	return action(TAG, NULL, "\"kind\": \"tag\", \"tag\": %u", tag & 0xffffff);
}

struct mlx5dv_dr_action *mlx5dv_dr_action_create_flow_counter(struct mlx5dv_devx_obj *counter, uint32_t offset)
{
	return action(COUNTER, NULL, "\"kind\": \"count\", \"counter\": %u, \"offset\": %u", counter->id, offset);
}

struct mlx5dv_dr_action *mlx5dv_dr_action_create_aso(struct mlx5dv_dr_domain *domain, struct mlx5dv_devx_obj *object, uint32_t offset,
						     uint32_t flags, uint8_t return_reg)
{
	return action(METER, domain, "\"kind\": \"aso\", \"object\": %u, \"offset\": %u, \"flags\": %u, \"register\": %u", object->id, offset, flags,
		      return_reg);
}

struct mlx5dv_dr_action *mlx5dv_dr_action_create_packet_reformat(struct mlx5dv_dr_domain *domain, uint32_t flags,
								 enum mlx5dv_flow_action_packet_reformat_type type, size_t n, void *data)
{
	static const char *const types[] = { "L2 tunnel to L2", "L2 to L2 tunnel", "L3 tunnel to L2", "L2 to L3 tunnel" };
	bool off = type == MLX5DV_FLOW_ACTION_PACKET_REFORMAT_TYPE_L2_TUNNEL_TO_L2 || type == MLX5DV_FLOW_ACTION_PACKET_REFORMAT_TYPE_L3_TUNNEL_TO_L2;
	struct mlx5dv_dr_action *made;
	char *text;

	if (refused("action", refuse_reformat(domain, type, n, data, flags & MLX5DV_DR_ACTION_FLAGS_ROOT_LEVEL)))
		return NULL;
	text = hex(data, data ? n : 0);
	made = action(off ? DECAP : ENCAP, domain, "\"kind\": \"reformat\", \"type\": \"%s\", \"data\": \"%s\"", types[type], text);
	free(text);
	return placed(made, flags);
}

struct mlx5dv_dr_action *mlx5dv_dr_action_create_modify_header(struct mlx5dv_dr_domain *domain, uint32_t flags, size_t n, __be64 list[])
{
	struct mlx5dv_dr_action *made;
	char *text;

	/* At level 0 it is the firmware's. */
	if (!(flags & MLX5DV_DR_ACTION_FLAGS_ROOT_LEVEL) && refused("action", refuse_modify(domain, n, (const uint8_t *)list)))
		return NULL;
	text = hex(list, n);
	made = action(MODIFY, domain, "\"kind\": \"modify\", \"commands\": \"%s\"", text);
	free(text);
	return placed(made, flags);
}

struct mlx5dv_dr_action *mlx5dv_dr_action_create_flow_meter(struct mlx5dv_dr_flow_meter_attr *attr)
{
	(void)attr;
	return action(OTHER, NULL, "\"kind\": \"meter\"");
}

int mlx5dv_dr_action_modify_flow_meter(struct mlx5dv_dr_action *meter, struct mlx5dv_dr_flow_meter_attr *attr, __be64 bits)
{
	(void)meter, (void)attr, (void)bits;
	return 0;
}

struct mlx5dv_dr_action *mlx5dv_dr_action_create_flow_sampler(struct mlx5dv_dr_flow_sampler_attr *attr)
{
	(void)attr;
	return action(OTHER, NULL, "\"kind\": \"sampler\"");
}

struct mlx5dv_dr_action *mlx5dv_dr_action_create_pop_vlan(void)
{
	return action(POP, NULL, "\"kind\": \"pop\"");
}

struct mlx5dv_dr_action *mlx5dv_dr_action_create_push_vlan(struct mlx5dv_dr_domain *domain, __be32 header)
{
	uint32_t tag = be32toh(header);

	if (tag >> 16 != 0x8100 && tag >> 16 != 0x88a8) {
		errno = EINVAL;
		return NULL;
	}
	return action(PUSH, domain, "\"kind\": \"push\", \"tag\": %u", tag);
}
