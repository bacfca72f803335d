/* ibv_*: one device for each PF, with as many ports as it has uplink and representors. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include "handles.h"

static struct ibv_device devices[MAX_PFS];
/* The first context of each. */
static struct ibv_context *opened[MAX_PFS];
/* Contexts that have a fatal event to tell: the driver opens one a device, and another for itself from 24.11 on. */
enum { MAX_CONTEXTS = 8 };
static struct {
	struct ibv_context *context;
	bool fatal;
} contexts[MAX_CONTEXTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

int device_number(const struct ibv_context *context)
{
	return context->device - devices;
}

struct ibv_device **ibv_get_device_list(int *count)
{
	struct ibv_device **list = calloc(MAX_PFS + 1, sizeof(*list));

	for (int pf = 0; pf < judge.pfs; pf++) {
		struct ibv_device *device = &devices[pf];

		device->node_type = IBV_NODE_CA;
		device->transport_type = IBV_TRANSPORT_IB;
		snprintf(device->name, sizeof(device->name), "mlx5_%d", pf);
		snprintf(device->dev_name, sizeof(device->dev_name), "uverbs%d", pf);
		snprintf(device->dev_path, sizeof(device->dev_path), "/sys/class/infiniband_verbs/uverbs%d", pf);
		snprintf(device->ibdev_path, sizeof(device->ibdev_path), "/sys/class/infiniband/mlx5_%d", pf);
		list[pf] = device;
	}
	if (count)
		*count = judge.pfs;
	return list;
}

void ibv_free_device_list(struct ibv_device **list)
{
	free(list);
}

const char *ibv_get_device_name(struct ibv_device *device)
{
	return device->name;
}

int ibv_fork_init(void)
{
	return 0;
}

enum ibv_fork_status ibv_is_fork_initialized(void)
{
	return IBV_FORK_UNNEEDED;
}

const char *ibv_port_state_str(enum ibv_port_state state)
{
	return state == IBV_PORT_ACTIVE ? "active" : "not active";
}

static int query_device_ex(struct ibv_context *context, const struct ibv_query_device_ex_input *input,
			   struct ibv_device_attr_ex *attr, size_t size)
{
	struct ibv_device_attr_ex all = { .comp_mask = 0 };

	(void)context, (void)input;
	if (is_dead())
		return EIO;
	strcpy(all.orig_attr.fw_ver, "22.43.1014");
	all.orig_attr.vendor_id = 0x15b3;
	all.orig_attr.vendor_part_id = 0x101d;
	all.orig_attr.max_qp = 1 << 17;
	all.orig_attr.max_qp_wr = 1 << 15;
	all.orig_attr.max_sge = 30;
	all.orig_attr.max_cq = 1 << 24;
	all.orig_attr.max_cqe = (1 << 22) - 1;
	all.orig_attr.max_mr = 1 << 24;
	all.orig_attr.max_pd = 1 << 23;
	all.orig_attr.phys_port_cnt = 1;
	all.device_cap_flags_ex = IBV_DEVICE_RAW_IP_CSUM | IBV_DEVICE_PCI_WRITE_END_PADDING;
	all.tso_caps.max_tso = 1 << 18;
	all.tso_caps.supported_qpts = 1 << IBV_QPT_RAW_PACKET;
	all.rss_caps.supported_qpts = 1 << IBV_QPT_RAW_PACKET;
	all.rss_caps.max_rwq_indirection_table_size = 2048;
	all.rss_caps.max_rwq_indirection_tables = 1 << 20;
	all.max_wq_type_rq = 1 << 23;
	all.raw_packet_caps = IBV_RAW_PACKET_CAP_CVLAN_STRIPPING | IBV_RAW_PACKET_CAP_SCATTER_FCS | IBV_RAW_PACKET_CAP_IP_CSUM;
	all.phys_port_cnt_ex = 1 + judge.vfs;
	memcpy(attr, &all, size < sizeof(all) ? size : sizeof(all));
	return 0;
}

int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *attr)
{
	struct ibv_device_attr_ex all;
	int error = query_device_ex(context, NULL, &all, sizeof(all));

	if (!error)
		*attr = all.orig_attr;
	return error;
}

static int port(struct ibv_context *context, uint8_t number, struct ibv_port_attr *attr, size_t size)
{
	struct ibv_port_attr all = {
		.state = IBV_PORT_ACTIVE, .max_mtu = IBV_MTU_4096, .active_mtu = IBV_MTU_1024, .gid_tbl_len = 256,
		.link_layer = IBV_LINK_LAYER_ETHERNET, .active_speed = 64, .active_width = 2, .phys_state = 5,
	};

	(void)context;
	if (number < 1 || number > 1 + judge.vfs)
		return EINVAL;
	memcpy(attr, &all, size < sizeof(all) ? size : sizeof(all));
	return 0;
}

#undef ibv_query_port
int ibv_query_port(struct ibv_context *context, uint8_t number, struct _compat_ibv_port_attr *attr)
{
	return port(context, number, (struct ibv_port_attr *)attr, offsetof(struct ibv_port_attr, port_cap_flags2));
}

static int none(void)
{
	return 0;
}

/* Queues and tables that only have to exist. */
static void *thing(struct ibv_context *context)
{
	struct ibv_context **any = calloc(1, 1024);

	*any = context;
	return any;
}

static int forget(void *any)
{
	free(any);
	return 0;
}

static struct ibv_wq *create_wq(struct ibv_context *context, struct ibv_wq_init_attr *attr)
{
	struct ibv_wq *wq = thing(context);

	wq->wq_num = next_id();
	wq->pd = attr->pd;
	wq->cq = attr->cq;
	return wq;
}

static struct ibv_rwq_ind_table *create_rwq_ind_table(struct ibv_context *context, struct ibv_rwq_ind_table_init_attr *attr)
{
	struct ibv_rwq_ind_table *table = thing(context);

	(void)attr;
	table->ind_tbl_num = next_id();
	return table;
}

static struct ibv_qp *qp_of(struct ibv_context *context, struct ibv_pd *pd)
{
	struct ibv_qp *qp = thing(context);

	qp->pd = pd;
	qp->qp_num = next_id();
	return qp;
}

static struct ibv_qp *create_qp_ex(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr)
{
	return qp_of(context, attr->pd);
}

struct ibv_qp *mlx5dv_create_qp(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr, struct mlx5dv_qp_init_attr *more)
{
	(void)more;
	return qp_of(context, attr->pd);
}

struct ibv_wq *mlx5dv_create_wq(struct ibv_context *context, struct ibv_wq_init_attr *attr, struct mlx5dv_wq_init_attr *more)
{
	(void)more;
	return create_wq(context, attr);
}

struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
	(void)attr;
	return qp_of(pd->context, pd);
}

int ibv_destroy_qp(struct ibv_qp *qp)
{
	return forget(qp);
}

int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	(void)qp, (void)attr, (void)mask;
	return 0;
}

static struct ibv_mr *alloc_null_mr(struct ibv_pd *pd)
{
	struct ibv_mr *mr = thing(pd->context);

	mr->pd = pd;
	mr->lkey = mr->rkey = next_id();
	return mr;
}

static int query_rt_values(struct ibv_context *context, struct ibv_values_ex *values)
{
	(void)context;
	clock_gettime(CLOCK_MONOTONIC, &values->raw_clock);
	return 0;
}

/* ---- Contexts, and the one event that they have ---- */

static void enter(struct ibv_context *context)
{
	pthread_mutex_lock(&lock);
	if (!opened[device_number(context)])
		opened[device_number(context)] = context;
	for (int i = 0; i < MAX_CONTEXTS; i++)
		if (!contexts[i].context) {
			contexts[i].context = context;
			contexts[i].fatal = false;
			break;
		}
	pthread_mutex_unlock(&lock);
}

static void leave(struct ibv_context *context)
{
	pthread_mutex_lock(&lock);
	if (opened[device_number(context)] == context)
		opened[device_number(context)] = NULL;
	for (int i = 0; i < MAX_CONTEXTS; i++)
		if (contexts[i].context == context)
			contexts[i].context = NULL;
	pthread_mutex_unlock(&lock);
}

void device_fatal(void)
{
	pthread_mutex_lock(&lock);
	for (int i = 0; i < MAX_CONTEXTS; i++)
		if (contexts[i].context) {
			contexts[i].fatal = true;
			eventfd_write(contexts[i].context->async_fd, 1);
		}
	pthread_mutex_unlock(&lock);
	record("{\"e\": \"fault\", \"of\": \"device\"}");
}

int ibv_get_async_event(struct ibv_context *context, struct ibv_async_event *event)
{
	bool any = false;
	eventfd_t drained;

	pthread_mutex_lock(&lock);
	for (int i = 0; i < MAX_CONTEXTS; i++)
		if (contexts[i].context == context && contexts[i].fatal) {
			contexts[i].fatal = false;
			any = true;
		}
	pthread_mutex_unlock(&lock);
	eventfd_read(context->async_fd, &drained);
	if (any) {
		*event = (struct ibv_async_event){ .event_type = IBV_EVENT_DEVICE_FATAL };
		return 0;
	}
	errno = EAGAIN;
	return -1;
}

void ibv_ack_async_event(struct ibv_async_event *event)
{
	(void)event;
}

struct ibv_context *ibv_open_device(struct ibv_device *device)
{
	struct verbs_context *verbs = calloc(1, sizeof(*verbs));
	int command[2];

	verbs->sz = sizeof(*verbs);
	verbs->query_port = port;
	verbs->query_device_ex = query_device_ex;
	verbs->create_wq = create_wq;
	verbs->destroy_wq = (void *)forget;
	verbs->modify_wq = (void *)none;
	verbs->create_rwq_ind_table = create_rwq_ind_table;
	verbs->destroy_rwq_ind_table = (void *)forget;
	verbs->create_qp_ex = create_qp_ex;
	verbs->alloc_null_mr = alloc_null_mr;
	verbs->query_rt_values = query_rt_values;
	verbs->context.device = device;
	/* A pipe, as each has an inode of its own. */
	if (pipe2(command, O_CLOEXEC | O_NONBLOCK))
		abort();
	close(command[1]);
	verbs->context.cmd_fd = command[0];
	verbs->context.async_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	verbs->context.num_comp_vectors = 1;
	verbs->context.abi_compat = (void *)UINTPTR_MAX;
	verbs->context.ops.req_notify_cq = (void *)none;
	verbs->context.ops.poll_cq = (void *)none;
	verbs->context.ops.post_send = (void *)none;
	verbs->context.ops.post_recv = (void *)none;
	enter(&verbs->context);
	return &verbs->context;
}

int ibv_close_device(struct ibv_context *context)
{
	leave(context);
	close(context->cmd_fd);
	close(context->async_fd);
	free((uint8_t *)context - offsetof(struct verbs_context, context));
	return 0;
}

/* By the descriptor of a context, or a copy of it: another context of the same device (24.11 has one for itself). */
struct ibv_context *ibv_import_device(int fd)
{
	struct stat wanted, have;

	for (int pf = 0; pf < judge.pfs; pf++)
		if (opened[pf] && !fstat(fd, &wanted) && !fstat(opened[pf]->cmd_fd, &have) && wanted.st_ino == have.st_ino)
			return ibv_open_device(&devices[pf]);
	errno = EINVAL;
	return NULL;
}

struct ibv_pd *ibv_import_pd(struct ibv_context *context, uint32_t handle)
{
	struct ibv_pd *pd = thing(context);

	pd->handle = handle;
	return pd;
}

void ibv_unimport_pd(struct ibv_pd *pd)
{
	forget(pd);
}

struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
	struct ibv_pd *pd = thing(context);

	pd->handle = next_id();
	return pd;
}

int ibv_dealloc_pd(struct ibv_pd *pd)
{
	return forget(pd);
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *address, size_t length, uint64_t iova, unsigned access)
{
	struct ibv_mr *mr = alloc_null_mr(pd);

	(void)iova, (void)access;
	mr->addr = address;
	mr->length = length;
	return mr;
}

int ibv_dereg_mr(struct ibv_mr *mr)
{
	return forget(mr);
}

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context)
{
	struct ibv_comp_channel *channel = thing(context);

	channel->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return channel;
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *channel)
{
	close(channel->fd);
	return forget(channel);
}

int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **context)
{
	(void)channel, (void)cq, (void)context;
	errno = EAGAIN;
	return -1;
}

void ibv_ack_cq_events(struct ibv_cq *cq, unsigned count)
{
	(void)cq, (void)count;
}

struct ibv_cq *ibv_create_cq(struct ibv_context *context, int entries, void *cookie, struct ibv_comp_channel *channel, int vector)
{
	struct judged_cq *cq = calloc(1, sizeof(*cq));
	uint32_t log_size = 0;

	(void)vector;
	while (1U << log_size < (uint32_t)entries + 1)
		log_size++;
	cq->number = next_id();
	cq->log_size = log_size;
	if (posix_memalign(&cq->cqes, 4096, 64UL << log_size)) {
		free(cq);
		return NULL;
	}
	memset(cq->cqes, 0, 64UL << log_size);
	cq_new(cq->number, cq->cqes, log_size, true);
	cq->base.context = context;
	cq->base.channel = channel;
	cq->base.cq_context = cookie;
	cq->base.cqe = (1 << log_size) - 1;
	return &cq->base;
}

struct ibv_cq_ex *mlx5dv_create_cq(struct ibv_context *context, struct ibv_cq_init_attr_ex *attr, struct mlx5dv_cq_init_attr *more)
{
	(void)more;
	return (struct ibv_cq_ex *)ibv_create_cq(context, attr->cqe, attr->cq_context, attr->channel, 0);
}

int ibv_destroy_cq(struct ibv_cq *base)
{
	struct judged_cq *cq = (void *)base;

	cq_gone(cq->number);
	free(cq->cqes);
	return forget(cq);
}
