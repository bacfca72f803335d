/* mlx5dv_*: what the device says of itself, and things that only have to exist. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "handles.h"

struct ibv_context *mlx5dv_open_device(struct ibv_device *device, struct mlx5dv_context_attr *attr)
{
	(void)attr;
	return ibv_open_device(device);
}

int mlx5dv_set_context_attr(struct ibv_context *context, enum mlx5dv_set_ctx_attr_type type, void *attr)
{
	(void)context, (void)type, (void)attr;
	return 0;
}

int mlx5dv_query_device(struct ibv_context *context, struct mlx5dv_context *answer)
{
	uint64_t asked = answer->comp_mask;

	(void)context;
	answer->version = 0;
	answer->flags = MLX5DV_CONTEXT_FLAGS_CQE_V1 | MLX5DV_CONTEXT_FLAGS_MPW_ALLOWED | MLX5DV_CONTEXT_FLAGS_ENHANCED_MPW;
	answer->comp_mask = 0;
	if (asked & MLX5DV_CONTEXT_MASK_SWP) {
		answer->sw_parsing_caps.sw_parsing_offloads = 7;
		answer->sw_parsing_caps.supported_qpts = 1 << IBV_QPT_RAW_PACKET;
		answer->comp_mask |= MLX5DV_CONTEXT_MASK_SWP;
	}
	if (asked & MLX5DV_CONTEXT_MASK_STRIDING_RQ) {
		answer->striding_rq_caps = (struct mlx5dv_striding_rq_caps){ 6, 13, 9, 16, 1 << IBV_QPT_RAW_PACKET };
		answer->comp_mask |= MLX5DV_CONTEXT_MASK_STRIDING_RQ;
	}
	if (asked & MLX5DV_CONTEXT_MASK_TUNNEL_OFFLOADS) {
		answer->tunnel_offloads_caps = MLX5DV_RAW_PACKET_CAP_TUNNELED_OFFLOAD_VXLAN | MLX5DV_RAW_PACKET_CAP_TUNNELED_OFFLOAD_GRE |
			MLX5DV_RAW_PACKET_CAP_TUNNELED_OFFLOAD_GENEVE;
		if (judge.mpls)
			answer->tunnel_offloads_caps |= MLX5DV_RAW_PACKET_CAP_TUNNELED_OFFLOAD_CW_MPLS_OVER_GRE |
				MLX5DV_RAW_PACKET_CAP_TUNNELED_OFFLOAD_CW_MPLS_OVER_UDP;
		answer->comp_mask |= MLX5DV_CONTEXT_MASK_TUNNEL_OFFLOADS;
	}
	return 0;
}

int mlx5dv_init_obj(struct mlx5dv_obj *what, uint64_t type)
{
	if (type & MLX5DV_OBJ_PD)
		what->pd.out->pdn = what->pd.in->handle & 0xffffff;
	if (type & MLX5DV_OBJ_CQ) {
		struct judged_cq *cq = (void *)what->cq.in;
		static uint64_t page[512];

		*what->cq.out = (struct mlx5dv_cq){
			.buf = cq->cqes, .dbrec = (void *)cq->doorbell, .cqe_cnt = 1U << cq->log_size, .cqe_size = 64,
			.cq_uar = page, .cqn = cq->number,
		};
	}
	if (type & MLX5DV_OBJ_QP)
		memset(what->qp.out, 0, sizeof(*what->qp.out));
	return 0;
}

/* A PF's uplink is port 1, its representors follow. */
int _mlx5dv_query_port(struct ibv_context *context, uint32_t port, struct mlx5dv_port *answer, size_t room)
{
	int pf = device_number(context);
	struct mlx5dv_port all = { .flags = 0 };

	if (!judge.vfs || port < 1 || port > 1U + judge.vfs)
		return EOPNOTSUPP;
	all.flags = MLX5DV_QUERY_PORT_VPORT | MLX5DV_QUERY_PORT_VPORT_VHCA_ID | MLX5DV_QUERY_PORT_ESW_OWNER_VHCA_ID |
		MLX5DV_QUERY_PORT_VPORT_REG_C0;
	all.vport = port == 1 ? UPLINK_VPORT : port - 1;
	all.vport_vhca_id = pf * 16 + port;
	all.esw_owner_vhca_id = pf + 1;
	all.reg_c0.value = (pf << 12 | port) << 16;
	all.reg_c0.mask = 0xffff0000;
	memcpy(answer, &all, room < sizeof(all) ? room : sizeof(all));
	return 0;
}

int mlx5dv_devx_query_eqn(struct ibv_context *context, uint32_t vector, uint32_t *eqn)
{
	(void)context, (void)vector;
	*eqn = 1;
	return 0;
}

struct mlx5dv_devx_uar *mlx5dv_devx_alloc_uar(struct ibv_context *context, uint32_t flags)
{
	struct mlx5dv_devx_uar *uar = calloc(1, sizeof(*uar));

	(void)context, (void)flags;
	uar->base_addr = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uar->reg_addr = (uint8_t *)uar->base_addr + 0x800;
	uar->page_id = next_id();
	uar->mmap_off = (off_t)uar->page_id << 12;
	return uar;
}

void mlx5dv_devx_free_uar(struct mlx5dv_devx_uar *uar)
{
	munmap(uar->base_addr, 4096);
	free(uar);
}

struct mlx5dv_var *mlx5dv_alloc_var(struct ibv_context *context, uint32_t flags)
{
	(void)context, (void)flags;
	errno = EOPNOTSUPP;
	return NULL;
}

void mlx5dv_free_var(struct mlx5dv_var *var)
{
	(void)var;
}

struct mlx5dv_pp *mlx5dv_pp_alloc(struct ibv_context *context, size_t size, const void *what, uint32_t flags)
{
	(void)context, (void)size, (void)what, (void)flags;
	errno = EOPNOTSUPP;
	return NULL;
}

void mlx5dv_pp_free(struct mlx5dv_pp *pp)
{
	(void)pp;
}
