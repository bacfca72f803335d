/* Behind handles of libibverbs and libmlx5. */
#ifndef HANDLES_H
#define HANDLES_H

#include "judge.h"

struct judged_cq {
	struct ibv_cq base;
	uint8_t room[512];	/* an ibv_cq_ex is larger */
	void *cqes;
	uint32_t doorbell[16];
	uint32_t number, log_size;
};

/* A kind, and what was asked for. */
struct mlx5dv_devx_obj {
	uint32_t id, count;
	uint16_t opcode, type;
	int pf;
};

int device_number(const struct ibv_context *context);

#endif
