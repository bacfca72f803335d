/* The card, from the environment; bits; numbers for objects. */
#include <stdlib.h>
#include "judge.h"

struct judge judge;

static long setting(const char *name, long otherwise)
{
	const char *text = getenv(name);

	return text ? strtol(text, NULL, 0) : otherwise;
}

static int within(long value, long least, long most)
{
	return value < least ? least : value > most ? most : value;
}

__attribute__((constructor(101))) static void settings(void)
{
	judge.pfs = within(setting("JUDGE_PFS", 1), 1, MAX_PFS);
	judge.vfs = within(setting("JUDGE_VFS", 0), 0, MAX_VFS);
	judge.ihl = setting("JUDGE_IHL", 1);
	judge.mpls = setting("JUDGE_MPLS", 1);
	judge.full_jumbo = setting("JUDGE_FULL_JUMBO", 0);
	judge.range = setting("JUDGE_RANGE", 0);
	judge.counters_dump = setting("JUDGE_COUNTERS_DUMP", 1);
	judge.rdma = setting("JUDGE_RDMA", 1);
	judge.definers = setting("JUDGE_DEFINERS", 1 << 0 | 1 << 2);
	faults_from_environment();
}

uint64_t get_bits(const void *base, size_t offset, size_t width)
{
	const uint8_t *octets = base;
	uint64_t value = 0;

	for (size_t i = offset; i < offset + width; i++)
		value = value << 1 | (octets[i / 8] >> (7 - i % 8) & 1);
	return value;
}

void set_bits(void *base, size_t offset, size_t width, uint64_t value)
{
	uint8_t *octets = base;

	for (size_t i = offset + width; i-- > offset; value >>= 1) {
		uint8_t bit = 1 << (7 - i % 8);

		octets[i / 8] = value & 1 ? octets[i / 8] | bit : octets[i / 8] & ~bit;
	}
}

uint32_t next_id(void)
{
	static uint32_t id = 0x100;

	return __atomic_add_fetch(&id, 1, __ATOMIC_RELAXED);
}
