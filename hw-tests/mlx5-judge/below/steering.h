/* Objects of software steering, and what rdma-core refuses of them. */
#ifndef STEERING_H
#define STEERING_H

#include "handles.h"

/* Octets of fte_match_param. */
enum { MATCH = 512 };

/* Kinds of action, as far as order and domain are about them. */
enum kind { NOTHING, COUNTER, TAG, METER, DECAP, ENCAP, MODIFY, POP, PUSH, DROP, MISS, TABLE, VPORT, QUEUE, OTHER, KINDS };

struct mlx5dv_dr_domain {
	uint32_t id;
	int pf;
	enum mlx5dv_dr_domain_type type;
};
struct mlx5dv_dr_table {
	uint32_t id, level;
	struct mlx5dv_dr_domain *domain;
};
struct mlx5dv_dr_matcher {
	uint32_t id;
	struct mlx5dv_dr_table *table;
	uint8_t criteria;
	uint8_t mask[MATCH];
};
struct mlx5dv_dr_rule {
	uint32_t id;
};
struct mlx5dv_dr_action {
	uint32_t id;
	enum kind kind;
	struct mlx5dv_dr_domain *domain;	/* NULL: of any */
	uint32_t level;				/* of the table that it leads to */
	bool placed, root;			/* made for some level; for level 0 */
};

/* A switch has a half for packets from the wire, and one for packets from functions. */
enum side { RX, TX };

/* Why rdma-core refuses something, and its error. */
struct refusal {
	const char *why;	/* NULL: not refused */
	int error;
};
struct refusal refuse_matcher(const struct mlx5dv_dr_matcher *matcher);
struct refusal refuse_value(const struct mlx5dv_dr_matcher *matcher, const uint8_t *value);
struct refusal refuse_actions(const struct mlx5dv_dr_matcher *matcher, const uint8_t *value, struct mlx5dv_dr_action *actions[], size_t count);
struct refusal refuse_reformat(const struct mlx5dv_dr_domain *domain, enum mlx5dv_flow_action_packet_reformat_type type, size_t n,
			       const void *data, bool root);
struct refusal refuse_modify(const struct mlx5dv_dr_domain *domain, size_t n, const uint8_t *commands);

/* What the device itself refuses, by a fault. */
struct refusal refuse_by_fault(enum fault kind);

/* Notes a refusal in the record, sets errno. Whether there is one. */
bool refused(const char *what, struct refusal refusal);

#endif
