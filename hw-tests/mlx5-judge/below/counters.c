/*
 * Flow counters. Nothing passes through this device: whoever executes the record says what a counter has counted. The driver asks for one
 * count by a command, for many by a command or a work queue entry that have them written to its memory.
 */
#include <stdlib.h>
#include <string.h>
#include "judge.h"

struct count {
	uint64_t packets, octets;
};

/* By number, in pages that exist once that something in them has counted. */
enum { PAGE = 4096, PAGES = 1 << 20 };
static struct count *pages[PAGES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void judge_count(uint32_t counter, uint32_t offset, uint64_t packets, uint64_t octets)
{
	uint32_t number = counter + offset;
	struct count **page = &pages[number / PAGE];

	pthread_mutex_lock(&lock);
	if (!*page)
		*page = calloc(PAGE, sizeof(**page));
	if (*page) {
		(*page)[number % PAGE].packets += packets;
		(*page)[number % PAGE].octets += octets;
	}
	pthread_mutex_unlock(&lock);
}

void write_counts(uint32_t counter, uint32_t n, void *to)
{
	uint64_t *out = to;

	pthread_mutex_lock(&lock);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t number = counter + i;
		const struct count *page = pages[number / PAGE];

		out[i * 2] = page ? htobe64(page[number % PAGE].packets) : 0;
		out[i * 2 + 1] = page ? htobe64(page[number % PAGE].octets) : 0;
	}
	pthread_mutex_unlock(&lock);
}
