/* mlx5dv_dr_*: domains, tables, matchers, rules. What the driver's translation made of a rule is recorded, and refused where rdma-core does. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "steering.h"

static const char *const domains[] = { "rx", "tx", "fdb" };

struct refusal refuse_by_fault(enum fault kind)
{
	int error = fault(kind);

	return (struct refusal){ !error ? NULL : error == EIO ? "the device is dead" : "no room in the device", error };
}

bool refused(const char *what, struct refusal refusal)
{
	if (!refusal.why)
		return false;
	record("{\"e\": \"refused\", \"what\": \"%s\", \"why\": \"%s\"}", what, refusal.why);
	errno = refusal.error;
	return true;
}

static void gone(uint32_t id)
{
	record("{\"e\": \"gone\", \"id\": %u}", id);
}

struct mlx5dv_dr_domain *mlx5dv_dr_domain_create(struct ibv_context *context, enum mlx5dv_dr_domain_type type)
{
	struct mlx5dv_dr_domain *domain = calloc(1, sizeof(*domain));

	*domain = (struct mlx5dv_dr_domain){ next_id(), device_number(context), type };
	record("{\"e\": \"domain\", \"id\": %u, \"pf\": %d, \"type\": \"%s\"}", domain->id, domain->pf, domains[type]);
	return domain;
}

int mlx5dv_dr_domain_destroy(struct mlx5dv_dr_domain *domain)
{
	gone(domain->id);
	free(domain);
	return 0;
}

int mlx5dv_dr_domain_sync(struct mlx5dv_dr_domain *domain, uint32_t flags)
{
	(void)domain, (void)flags;
	return 0;
}

void mlx5dv_dr_domain_set_reclaim_device_memory(struct mlx5dv_dr_domain *domain, bool enable)
{
	(void)domain, (void)enable;
}

void mlx5dv_dr_domain_allow_duplicate_rules(struct mlx5dv_dr_domain *domain, bool allow)
{
	(void)domain, (void)allow;
}

struct mlx5dv_dr_table *mlx5dv_dr_table_create(struct mlx5dv_dr_domain *domain, uint32_t level)
{
	struct mlx5dv_dr_table *table;

	if (refused("table", refuse_by_fault(FAULT_TABLE)))
		return NULL;
	table = calloc(1, sizeof(*table));
	*table = (struct mlx5dv_dr_table){ next_id(), level, domain };
	record("{\"e\": \"table\", \"id\": %u, \"domain\": %u, \"level\": %u}", table->id, domain->id, level);
	return table;
}

int mlx5dv_dr_table_destroy(struct mlx5dv_dr_table *table)
{
	gone(table->id);
	free(table);
	return 0;
}

static void whole(uint8_t to[MATCH], const struct mlx5dv_flow_match_parameters *from)
{
	memset(to, 0, MATCH);
	memcpy(to, from->match_buf, from->match_sz < MATCH ? from->match_sz : MATCH);
}

struct mlx5dv_dr_matcher *mlx5dv_dr_matcher_create(struct mlx5dv_dr_table *table, uint16_t priority, uint8_t criteria,
						   struct mlx5dv_flow_match_parameters *mask)
{
	struct mlx5dv_dr_matcher *matcher = calloc(1, sizeof(*matcher));
	char *text;

	matcher->table = table;
	matcher->criteria = criteria;
	whole(matcher->mask, mask);
	if (refused("matcher", refuse_by_fault(FAULT_MATCHER)) || refused("matcher", refuse_matcher(matcher))) {
		free(matcher);
		return NULL;
	}
	matcher->id = next_id();
	text = hex(matcher->mask, MATCH);
	record("{\"e\": \"matcher\", \"id\": %u, \"table\": %u, \"priority\": %u, \"criteria\": %u, \"mask\": \"%s\"}", matcher->id, table->id,
	       priority, criteria, text);
	free(text);
	return matcher;
}

int mlx5dv_dr_matcher_destroy(struct mlx5dv_dr_matcher *matcher)
{
	gone(matcher->id);
	free(matcher);
	return 0;
}

/* "1, 2, 3". */
static char *list_of(struct mlx5dv_dr_action *actions[], size_t count)
{
	char *list = NULL;
	size_t length;
	FILE *to = open_memstream(&list, &length);

	for (size_t i = 0; i < count; i++)
		fprintf(to, "%s%u", i ? ", " : "", actions[i]->id);
	fclose(to);
	return list;
}

struct mlx5dv_dr_rule *mlx5dv_dr_rule_create(struct mlx5dv_dr_matcher *matcher, struct mlx5dv_flow_match_parameters *value,
					     size_t count, struct mlx5dv_dr_action *actions[])
{
	struct mlx5dv_dr_rule *rule;
	uint8_t match[MATCH];
	char *text, *list;

	whole(match, value);
	if (refused("rule", refuse_by_fault(FAULT_RULE)) || refused("rule", refuse_value(matcher, match)) ||
	    refused("rule", refuse_actions(matcher, match, actions, count)))
		return NULL;
	rule = calloc(1, sizeof(*rule));
	rule->id = next_id();
	text = hex(match, MATCH);
	list = list_of(actions, count);
	record("{\"e\": \"rule\", \"id\": %u, \"matcher\": %u, \"value\": \"%s\", \"actions\": [%s]}", rule->id, matcher->id, text, list);
	free(text);
	free(list);
	return rule;
}

int mlx5dv_dr_rule_destroy(struct mlx5dv_dr_rule *rule)
{
	gone(rule->id);
	free(rule);
	return 0;
}

int mlx5dv_dump_dr_domain(FILE *to, struct mlx5dv_dr_domain *domain)
{
	return fprintf(to, "domain %s\n", domains[domain->type]) < 0;
}

int mlx5dv_dump_dr_rule(FILE *to, struct mlx5dv_dr_rule *rule)
{
	return fprintf(to, "rule %#x\n", rule->id) < 0;
}
