/* Root tables of hardware steering: rules by verbs, kept by kernel and firmware. All are taken. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "handles.h"

struct mlx5dv_flow_matcher {
	uint32_t id;
	struct ibv_context *context;
};

/* What the driver knows, and our number behind it. */
struct judged_flow {
	struct ibv_flow base;
	uint32_t id;
};
struct judged_flow_action {
	struct ibv_flow_action base;
	uint32_t id;
};

struct mlx5dv_flow_matcher *mlx5dv_create_flow_matcher(struct ibv_context *context, struct mlx5dv_flow_matcher_attr *attr)
{
	struct mlx5dv_flow_matcher *matcher = calloc(1, sizeof(*matcher));
	char *mask = hex(attr->match_mask->match_buf, attr->match_mask->match_sz);

	matcher->id = next_id();
	matcher->context = context;
	record("{\"e\": \"root matcher\", \"id\": %u, \"pf\": %d, \"type\": %u, \"priority\": %u, \"criteria\": %u, \"mask\": \"%s\"}", matcher->id,
	       device_number(context), attr->ft_type, attr->priority, attr->match_criteria_enable, mask);
	free(mask);
	return matcher;
}

int mlx5dv_destroy_flow_matcher(struct mlx5dv_flow_matcher *matcher)
{
	record("{\"e\": \"gone\", \"id\": %u}", matcher->id);
	free(matcher);
	return 0;
}

static int flow_gone(struct ibv_flow *flow)
{
	record("{\"e\": \"gone\", \"id\": %u}", ((struct judged_flow *)flow)->id);
	free(flow);
	return 0;
}

struct ibv_flow *mlx5dv_create_flow(struct mlx5dv_flow_matcher *matcher, struct mlx5dv_flow_match_parameters *value, size_t count,
				    struct mlx5dv_flow_action_attr actions[])
{
	struct judged_flow *flow;
	char *text, *list = NULL;
	size_t length;
	int error;
	FILE *to;

	error = fault(FAULT_RULE);
	if (error) {
		errno = error;
		return NULL;
	}
	flow = calloc(1, sizeof(*flow));
	text = hex(value->match_buf, value->match_sz);
	to = open_memstream(&list, &length);
	flow->id = next_id();
	flow->base.context = matcher->context;
	verbs_get_ctx(matcher->context)->ibv_destroy_flow = flow_gone;
	for (size_t i = 0; i < count; i++) {
		const struct mlx5dv_flow_action_attr *action = &actions[i];

		fprintf(to, "%s{\"type\": %u", i ? ", " : "", action->type);
		if (action->type == MLX5DV_FLOW_ACTION_DEST_DEVX || action->type == MLX5DV_FLOW_ACTION_COUNTERS_DEVX)
			fprintf(to, ", \"id\": %u", action->obj->id);
		if (action->type == MLX5DV_FLOW_ACTION_IBV_FLOW_ACTION)
			fprintf(to, ", \"action\": %u", ((struct judged_flow_action *)action->action)->id);
		if (action->type == MLX5DV_FLOW_ACTION_TAG)
			fprintf(to, ", \"tag\": %u", action->tag_value);
		fputc('}', to);
	}
	fclose(to);
	record("{\"e\": \"root rule\", \"id\": %u, \"matcher\": %u, \"value\": \"%s\", \"actions\": [%s]}", flow->id, matcher->id, text, list);
	free(text);
	free(list);
	return &flow->base;
}

static int flow_action_gone(struct ibv_flow_action *action)
{
	record("{\"e\": \"gone\", \"id\": %u}", ((struct judged_flow_action *)action)->id);
	free(action);
	return 0;
}

/* `what`: members of the record's object that say what it does to a packet; `octets` belong to the last of them. */
static struct ibv_flow_action *flow_action(struct ibv_context *context, const char *what, const void *octets, size_t n)
{
	struct judged_flow_action *made = calloc(1, sizeof(*made));
	char *text = hex(octets, octets ? n : 0);

	made->id = next_id();
	made->base.context = context;
	verbs_get_ctx(context)->destroy_flow_action = flow_action_gone;
	record("{\"e\": \"root action\", \"id\": %u, %s: \"%s\"}", made->id, what, text);
	free(text);
	return &made->base;
}

struct ibv_flow_action *mlx5dv_create_flow_action_modify_header(struct ibv_context *context, size_t n, uint64_t list[],
								enum mlx5dv_flow_table_type type)
{
	(void)type;
	return flow_action(context, "\"kind\": \"modify\", \"commands\"", list, n);
}

struct ibv_flow_action *mlx5dv_create_flow_action_packet_reformat(struct ibv_context *context, size_t n, void *data,
								  enum mlx5dv_flow_action_packet_reformat_type type,
								  enum mlx5dv_flow_table_type table)
{
	char what[64];

	(void)table;
	snprintf(what, sizeof(what), "\"kind\": \"reformat\", \"type\": %u, \"data\"", type);
	return flow_action(context, what, data, n);
}

struct mlx5dv_steering_anchor *mlx5dv_create_steering_anchor(struct ibv_context *context, struct mlx5dv_steering_anchor_attr *attr)
{
	struct mlx5dv_steering_anchor *anchor = calloc(1, sizeof(*anchor));

	(void)context, (void)attr;
	anchor->id = next_id();
	return anchor;
}

int mlx5dv_destroy_steering_anchor(struct mlx5dv_steering_anchor *anchor)
{
	free(anchor);
	return 0;
}
