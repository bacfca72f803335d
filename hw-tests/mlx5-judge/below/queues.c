/*
 * Send queues are emptied by one thread, which is the device: entries of hardware steering are recorded, flow counters are read, and
 * whoever asked for a completion gets one.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "judge.h"

enum { MAX_QUEUES = 512, WQEBB = 64, CQE = 64 };
/* Work requests: a counter or another ASO object is read; a rule is written. */
enum { ACCESS_ASO = 0x2d, TABLE_ACCESS = 0x2c };

struct cq_entry {
	uint32_t cqn;
	struct completion_queue *queue;
};
struct sq_entry {
	uint32_t sqn, cqn, log_size;
	uint8_t *wqes;
	const uint32_t *doorbell;
	uint16_t consumed;
	uint64_t due;	/* when completions that are late come */
};

static struct cq_entry cqs[MAX_QUEUES];
static struct sq_entry sqs[MAX_QUEUES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool running;

struct completion_queue *cq_new(uint32_t cqn, void *cqes, uint32_t log_size, bool ours)
{
	struct completion_queue *queue = calloc(1, sizeof(*queue));

	queue->cqes = cqes;
	queue->log_size = log_size;
	if (ours)
		for (uint32_t i = 0; i < 1U << log_size; i++)
			queue->cqes[i * CQE + CQE - 1] = 0xf1;
	pthread_mutex_lock(&lock);
	for (int i = 0; i < MAX_QUEUES; i++)
		if (!cqs[i].queue) {
			cqs[i] = (struct cq_entry){ cqn, queue };
			break;
		}
	pthread_mutex_unlock(&lock);
	return queue;
}

void cq_gone(uint32_t cqn)
{
	pthread_mutex_lock(&lock);
	for (int i = 0; i < MAX_QUEUES; i++)
		if (cqs[i].queue && cqs[i].cqn == cqn) {
			free(cqs[i].queue);
			cqs[i].queue = NULL;
		}
	pthread_mutex_unlock(&lock);
}

static void complete(uint32_t cqn, uint32_t sqn, uint16_t wqe, bool refused)
{
	for (int i = 0; i < MAX_QUEUES; i++) {
		struct completion_queue *queue = cqs[i].queue;
		uint8_t *cqe;
		uint16_t counter = htobe16(wqe);
		uint32_t number = htobe32(sqn);

		if (!queue || cqs[i].cqn != cqn)
			continue;
		cqe = queue->cqes + (queue->produced & ((1U << queue->log_size) - 1)) * CQE;
		memset(cqe, 0, CQE - 8);
		/* The highest bit of byte_cnt: the entry was not written (mlx5dr_send.c). */
		if (refused)
			cqe[44] = 0x80;
		memcpy(cqe + 56, &number, 4);
		memcpy(cqe + 60, &counter, 2);
		__atomic_store_n(cqe + 63, queue->produced >> queue->log_size & 1, __ATOMIC_RELEASE);
		queue->produced++;
	}
}

/* Four counters a work request, to the address in its ASO segment (mlx5_flow_aso.c). */
static void read_counters(const uint8_t *wqe)
{
	uint32_t quad = get_bits(wqe + 12, 0, 32);
	uint64_t address = get_bits(wqe + 16, 0, 64);

	if (address & 1)
		write_counts(quad * 4, 4, (void *)(uintptr_t)(address & ~1ULL));
}

/* An entry wraps round at the end of its queue. */
static void tell(const struct sq_entry *sq, unsigned blocks)
{
	uint8_t whole[16 * WQEBB];
	char *text;

	if (!recording() || blocks > 16)
		return;
	for (unsigned i = 0; i < blocks; i++)
		memcpy(whole + i * WQEBB, sq->wqes + ((sq->consumed + i) & ((1U << sq->log_size) - 1)) * WQEBB, WQEBB);
	text = hex(whole, blocks * WQEBB);
	record("{\"e\": \"wqe\", \"sq\": %u, \"at\": %u, \"octets\": \"%s\"}", sq->sqn, sq->consumed, text);
	free(text);
}

static uint64_t milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ULL + now.tv_nsec / 1000000;
}

static bool consume(struct sq_entry *sq)
{
	uint16_t posted = be32toh(__atomic_load_n(sq->doorbell, __ATOMIC_ACQUIRE));
	bool any = sq->consumed != posted;

	if (any && completions_late()) {
		if (!sq->due) {
			sq->due = milliseconds() + completions_late();
			record("{\"e\": \"fault\", \"of\": \"late\"}");
		}
		if (milliseconds() < sq->due)
			return false;
		sq->due = 0;
	}
	while (sq->consumed != posted) {
		const uint8_t *wqe = sq->wqes + (sq->consumed & ((1U << sq->log_size) - 1)) * WQEBB;
		unsigned octets = (wqe[7] & 0x3f) * 16;
		unsigned blocks = octets ? (octets + WQEBB - 1) / WQEBB : 1;
		/* An entry that a rule is written to: not one that it is removed from, nor an argument (mlx5dr_send.h). */
		bool written = wqe[3] == TABLE_ACCESS && wqe[0] == 0 && wqe[16] >> 4 == 0;
		bool refused = written && fault(FAULT_ENTRY);

		/* Counters are read all the time: they are no part of the record. */
		if (wqe[3] == ACCESS_ASO && wqe[0] == 0)
			read_counters(wqe);
		else
			tell(sq, blocks);
		/*
		 * Completion mode: 2 always, 0 and 1 for an error (mlx5_prm.h, MLX5_COMP_*). Of entries in a row the driver asks for the
		 * completion of the last one, and believes in the others unless it hears of an error (mlx5dr_send_engine_poll_cq).
		 */
		if (wqe[11] & 0x08 || refused)
			complete(sq->cqn, sq->sqn, sq->consumed, refused);
		sq->consumed += blocks;
	}
	return any;
}

static void *device(void *unused)
{
	(void)unused;
	for (;;) {
		bool any = false;

		pthread_mutex_lock(&lock);
		for (int i = 0; i < MAX_QUEUES; i++)
			if (sqs[i].wqes)
				any |= consume(&sqs[i]);
		pthread_mutex_unlock(&lock);
		if (!any)
			nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
	}
	return NULL;
}

void sq_new(uint32_t sqn, void *wqes, uint32_t log_size, const uint32_t *doorbell, uint32_t cqn)
{
	pthread_mutex_lock(&lock);
	for (int i = 0; i < MAX_QUEUES; i++)
		if (!sqs[i].wqes) {
			sqs[i] = (struct sq_entry){ .sqn = sqn, .cqn = cqn, .log_size = log_size, .wqes = wqes, .doorbell = doorbell };
			break;
		}
	if (!running) {
		pthread_t thread;
		cpu_set_t all;

		running = true;
		memset(&all, 0xff, sizeof(all));
		if (!pthread_create(&thread, NULL, device, NULL)) {
			pthread_setaffinity_np(thread, sizeof(all), &all);
			pthread_setname_np(thread, "judge-device");
			pthread_detach(thread);
		}
	}
	pthread_mutex_unlock(&lock);
}

void sq_gone(uint32_t sqn)
{
	pthread_mutex_lock(&lock);
	for (int i = 0; i < MAX_QUEUES; i++)
		if (sqs[i].wqes && sqs[i].sqn == sqn)
			sqs[i].wqes = NULL;
	pthread_mutex_unlock(&lock);
}
