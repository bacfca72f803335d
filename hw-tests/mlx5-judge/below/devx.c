/* mlx5dv_devx_*: commands to firmware. Objects get numbers; queues get memory to work on; everything else is answered with zeros. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "handles.h"

enum opcode {
	QUERY_HCA_CAP = 0x100, CREATE_MKEY = 0x200, CREATE_CQ = 0x400, QUERY_NIC_VPORT_CONTEXT = 0x754, ALLOC_Q_COUNTER = 0x771,
	CREATE_SQ = 0x904, ALLOC_FLOW_COUNTER = 0x939, QUERY_FLOW_COUNTER = 0x93b, CREATE_GENERAL_OBJECT = 0xa00,
};

/* ---- Memory ---- */

struct umem {
	struct mlx5dv_devx_umem base;
	uint8_t *address;
	size_t size;
	struct umem *next;
};
static struct umem *umems;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

struct mlx5dv_devx_umem *mlx5dv_devx_umem_reg(struct ibv_context *context, void *address, size_t size, uint32_t access)
{
	struct umem *umem = calloc(1, sizeof(*umem));

	(void)context, (void)access;
	umem->base.umem_id = next_id();
	umem->address = address;
	umem->size = size;
	pthread_mutex_lock(&lock);
	umem->next = umems;
	umems = umem;
	pthread_mutex_unlock(&lock);
	return &umem->base;
}

int mlx5dv_devx_umem_dereg(struct mlx5dv_devx_umem *base)
{
	pthread_mutex_lock(&lock);
	for (struct umem **at = &umems; *at; at = &(*at)->next)
		if (&(*at)->base == base) {
			struct umem *gone = *at;

			*at = gone->next;
			free(gone);
			break;
		}
	pthread_mutex_unlock(&lock);
	return 0;
}

static uint8_t *memory(uint32_t id, uint64_t offset, size_t n)
{
	uint8_t *address = NULL;

	pthread_mutex_lock(&lock);
	for (struct umem *umem = umems; umem; umem = umem->next)
		if (umem->base.umem_id == id && offset + n <= umem->size)
			address = umem->address + offset;
	pthread_mutex_unlock(&lock);
	return address;
}

/* ---- Objects ---- */

static uint32_t number_for(uint16_t opcode, uint16_t type, uint32_t count)
{
	static uint32_t by_type[256], counters = 1 << 20;

	/* The driver reads counters by fours. */
	if (opcode == ALLOC_FLOW_COUNTER)
		return __atomic_fetch_add(&counters, (count + 3) / 4 * 4, __ATOMIC_RELAXED);
	if (opcode != CREATE_GENERAL_OBJECT || type > 255)
		return next_id();
	return __atomic_fetch_add(&by_type[type], count, __ATOMIC_RELAXED) + 0x1000;
}

static int create_queue(const uint8_t *in, uint16_t opcode, uint32_t id)
{
	if (opcode == CREATE_CQ) {
		const uint8_t *context = in + 128 / 8;
		uint32_t log_size = get_bits(context, 0x63, 5);
		uint8_t *cqes = memory(get_bits(in, 0x2c0, 32), get_bits(in, 0x280, 64), 64UL << log_size);

		if (!cqes)
			return EINVAL;
		cq_new(id, cqes, log_size, false);
	}
	if (opcode == CREATE_SQ) {
		const uint8_t *context = in + 256 / 8, *queue = context + 0x180 / 8;
		uint32_t log_size = get_bits(queue, 0x11b, 5);
		uint8_t *wqes = memory(get_bits(queue, 0x160, 32), get_bits(queue, 0x180, 64), 64UL << log_size);
		uint32_t *doorbell = (void *)memory(get_bits(queue, 0x140, 32), get_bits(queue, 0x80, 64), 8);

		/* Hairpin queues have none. */
		if (wqes && doorbell)
			sq_new(id, wqes, log_size, doorbell + 1, get_bits(context, 0x48, 24));
	}
	return 0;
}

/* Every command that makes or changes an object: hardware steering is made of nothing else, and queues of both engines. */
static void tell(int pf, const uint8_t *in, size_t n, uint16_t opcode, uint16_t type, uint32_t id, uint32_t count)
{
	char *text;

	/* Registered memory is of no concern to what happens to a packet. */
	if (!recording() || opcode == CREATE_MKEY)
		return;
	text = hex(in, n);
	record("{\"e\": \"devx\", \"opcode\": %u, \"type\": %u, \"id\": %u, \"count\": %u, \"pf\": %d, \"in\": \"%s\"}", opcode, type, id,
	       count, pf, text);
	free(text);
}

/* Counters come in ranges: of 128 times the sum of the bits that are set, or of a power of two (PRM, ALLOC_FLOW_COUNTER). */
static uint32_t count_of(const uint8_t *in, uint16_t opcode)
{
	if (opcode == CREATE_GENERAL_OBJECT)
		return 1U << get_bits(in, 0x63, 5);
	if (opcode == ALLOC_FLOW_COUNTER && get_bits(in, 0x78, 8))
		return 128 * get_bits(in, 0x78, 8);
	if (opcode == ALLOC_FLOW_COUNTER)
		return 1U << get_bits(in, 0x73, 5);
	return 1;
}

struct mlx5dv_devx_obj *mlx5dv_devx_obj_create(struct ibv_context *context, const void *in, size_t n, void *out, size_t room)
{
	struct mlx5dv_devx_obj *object;
	uint16_t opcode = get_bits(in, 0, 16);
	uint16_t type = opcode == CREATE_GENERAL_OBJECT ? get_bits(in, 0x30, 16) : 0;
	uint32_t count = count_of(in, opcode);
	uint32_t id = number_for(opcode, type, count);
	int error = is_dead() ? EIO : opcode == ALLOC_FLOW_COUNTER ? fault(FAULT_COUNTER) : create_queue(in, opcode, id);

	if (error) {
		errno = error;
		return NULL;
	}
	if (room >= 12) {
		if (opcode == ALLOC_Q_COUNTER)
			set_bits(out, 0x58, 8, id & 0x7f ? id & 0x7f : 1);
		else if (opcode == CREATE_GENERAL_OBJECT || opcode == ALLOC_FLOW_COUNTER)
			set_bits(out, 0x40, 32, id);
		else
			set_bits(out, 0x48, 24, id);
	}
	tell(device_number(context), in, n, opcode, type, id, count);
	object = calloc(1, sizeof(*object));
	*object = (struct mlx5dv_devx_obj){ id, count, opcode, type, device_number(context) };
	return object;
}

int mlx5dv_devx_obj_destroy(struct mlx5dv_devx_obj *object)
{
	if (object->opcode == CREATE_CQ)
		cq_gone(object->id);
	if (object->opcode == CREATE_SQ)
		sq_gone(object->id);
	if (object->opcode != CREATE_MKEY)
		record("{\"e\": \"devx gone\", \"opcode\": %u, \"type\": %u, \"id\": %u}", object->opcode, object->type, object->id);
	free(object);
	return 0;
}

int mlx5dv_devx_obj_modify(struct mlx5dv_devx_obj *object, const void *in, size_t n, void *out, size_t room)
{
	(void)out, (void)room;
	tell(object->pf, in, n, get_bits(in, 0, 16), object->type, object->id, object->count);
	return 0;
}

/* QUERY_FLOW_COUNTER: one count into the answer, or many into the driver's memory. */
static void query_counters(const uint8_t *in, uint8_t *out, size_t room)
{
	uint32_t n = get_bits(in, 0xc2, 30), counter = get_bits(in, 0xe0, 32);

	if (get_bits(in, 0xc1, 1))
		write_counts(counter, n, (void *)(uintptr_t)get_bits(in, 0x80, 64));
	else if (out && room >= 16 + 16)
		write_counts(counter, 1, out + 16);
}

int mlx5dv_devx_obj_query(struct mlx5dv_devx_obj *object, const void *in, size_t n, void *out, size_t room)
{
	(void)object, (void)n;
	memset(out, 0, room);
	if (is_dead())
		return EIO;
	if (get_bits(in, 0, 16) == QUERY_FLOW_COUNTER)
		query_counters(in, out, room);
	return 0;
}

int mlx5dv_devx_qp_query(struct ibv_qp *qp, const void *in, size_t n, void *out, size_t room)
{
	(void)qp, (void)in, (void)n;
	memset(out, 0, room);
	return 0;
}

int mlx5dv_devx_wq_query(struct ibv_wq *wq, const void *in, size_t n, void *out, size_t room)
{
	(void)wq, (void)in, (void)n;
	memset(out, 0, room);
	return 0;
}

int mlx5dv_devx_general_cmd(struct ibv_context *context, const void *in, size_t n, void *out, size_t room)
{
	uint16_t opcode = get_bits(in, 0, 16), op_mod = get_bits(in, 0x30, 16);

	(void)context;
	memset(out, 0, room);
	if (opcode == QUERY_HCA_CAP) {
		/* Answered in full, whatever room the caller has. */
		uint8_t all[16 + 4096] = { 0 };

		answer_hca_cap(op_mod, all + 16);
		memcpy(out, all, room < sizeof(all) ? room : sizeof(all));
		return 0;
	}
	if (opcode != QUERY_NIC_VPORT_CONTEXT)
		record("{\"e\": \"command\", \"opcode\": %u, \"mode\": %u, \"octets\": %zu}", opcode, op_mod, n);
	return 0;
}

/* ---- Asynchronous queries, events: a pipe each ---- */

struct channel {
	int fd, writer;
};

static struct channel *channel_new(void)
{
	struct channel *channel = calloc(1, sizeof(*channel));
	int ends[2];

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK)) {
		free(channel);
		return NULL;
	}
	channel->fd = ends[0];
	channel->writer = ends[1];
	return channel;
}

static void channel_gone(struct channel *channel)
{
	close(channel->fd);
	close(channel->writer);
	free(channel);
}

struct mlx5dv_devx_cmd_comp *mlx5dv_devx_create_cmd_comp(struct ibv_context *context)
{
	(void)context;
	return (void *)channel_new();
}

void mlx5dv_devx_destroy_cmd_comp(struct mlx5dv_devx_cmd_comp *channel)
{
	channel_gone((void *)channel);
}

int mlx5dv_devx_obj_query_async(struct mlx5dv_devx_obj *object, const void *in, size_t n, size_t room, uint64_t cookie,
				struct mlx5dv_devx_cmd_comp *to)
{
	(void)object, (void)n, (void)room;
	if (is_dead())
		return EIO;
	if (get_bits(in, 0, 16) == QUERY_FLOW_COUNTER)
		query_counters(in, NULL, 0);
	return write(((struct channel *)to)->writer, &cookie, sizeof(cookie)) == sizeof(cookie) ? 0 : EAGAIN;
}

int mlx5dv_devx_get_async_cmd_comp(struct mlx5dv_devx_cmd_comp *from, struct mlx5dv_devx_async_cmd_hdr *answer, size_t room)
{
	uint64_t cookie;

	if (read(from->fd, &cookie, sizeof(cookie)) != sizeof(cookie))
		return EAGAIN;
	memset(answer, 0, room);
	answer->wr_id = cookie;
	return 0;
}

struct mlx5dv_devx_event_channel *mlx5dv_devx_create_event_channel(struct ibv_context *context,
								    enum mlx5dv_devx_create_event_channel_flags flags)
{
	(void)context, (void)flags;
	return (void *)channel_new();
}

void mlx5dv_devx_destroy_event_channel(struct mlx5dv_devx_event_channel *channel)
{
	channel_gone((void *)channel);
}

int mlx5dv_devx_subscribe_devx_event(struct mlx5dv_devx_event_channel *channel, struct mlx5dv_devx_obj *object, uint16_t size,
				     uint16_t events[], uint64_t cookie)
{
	(void)channel, (void)object, (void)size, (void)events, (void)cookie;
	return 0;
}

int mlx5dv_devx_subscribe_devx_event_fd(struct mlx5dv_devx_event_channel *channel, int fd, struct mlx5dv_devx_obj *object, uint16_t event)
{
	(void)channel, (void)fd, (void)object, (void)event;
	return 0;
}

ssize_t mlx5dv_devx_get_event(struct mlx5dv_devx_event_channel *channel, struct mlx5dv_devx_async_event_hdr *event, size_t room)
{
	(void)channel, (void)event, (void)room;
	errno = EAGAIN;
	return -1;
}
