/* A ConnectX-6 Dx that isn't there: what the mlx5 driver of DPDK sees below itself. */
#ifndef JUDGE_H
#define JUDGE_H

#include <endian.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <infiniband/verbs.h>
#include <infiniband/mlx5dv.h>

/* A network device's name has room for this. */
enum { MAX_PFS = 2, MAX_VFS = 14, UPLINK_VPORT = 0xffff };

/* The card, from the environment, set once before main. */
struct judge {
	int pfs;		/* JUDGE_PFS, 1: ports of the card, each with an E-Switch of its own */
	int vfs;		/* JUDGE_VFS, 0: representors of each PF; none: no switchdev */
	bool ihl;		/* JUDGE_IHL, 1: matches IHL */
	bool mpls;		/* JUDGE_MPLS, 1: FLEX_PARSER_PROFILE_ENABLE=1 */
	bool full_jumbo;	/* JUDGE_FULL_JUMBO, 0: DW selectors 6 to 8 reach every DW */
	bool range;		/* JUDGE_RANGE, 0: STE format for ranges */
	bool counters_dump;	/* JUDGE_COUNTERS_DUMP, 1: writes counters in batches; else the driver asks for each */
	bool rdma;		/* JUDGE_RDMA, 1: refuses what rdma-core's software steering refuses */
	uint64_t definers;	/* JUDGE_DEFINERS, 5: fixed definers that software steering finds, a bit each */
	char root[64];		/* the tree that stands for /sys */
};
extern struct judge judge;

uint32_t next_id(void);

/* Bits as the PRM counts them: big endian, bit 0 is the highest of the first octet. */
uint64_t get_bits(const void *base, size_t offset, size_t width);
void set_bits(void *base, size_t offset, size_t width, uint64_t value);

/*
 * record.c: JSON, one object a line, in the order of events. JUDGE_RECORD is a file that they are appended to; judge_on_record sets a
 * function of this process that is called with each, while the driver waits.
 */
bool recording(void);
void record(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* `n` octets as hexadecimal; the caller frees. */
char *hex(const void *octets, size_t n);
void judge_on_record(void (*hear)(void *state, const char *line, size_t length), void *state);
void judge_mark(const char *text);

/* capabilities.c */
void answer_hca_cap(unsigned op_mod, void *capability);

/* netdev.c: the network devices. -1: none of ours; else the PF, and in *vf the VF, or -1 for the uplink. */
int pf_ifindex(int pf);
int rep_ifindex(int pf, int vf);
int which_index(int index, int *vf);
void name_of(int pf, int vf, char name[]);

/* queues.c */
struct completion_queue {
	uint8_t *cqes;
	uint32_t log_size;
	uint32_t produced;
};
struct completion_queue *cq_new(uint32_t cqn, void *cqes, uint32_t log_size, bool ours);
void cq_gone(uint32_t cqn);
void sq_new(uint32_t sqn, void *wqes, uint32_t log_size, const uint32_t *doorbell, uint32_t cqn);
void sq_gone(uint32_t sqn);

/* counters.c: counts by number: the number of the object plus the offset in it. */
void judge_count(uint32_t counter, uint32_t offset, uint64_t packets, uint64_t octets);
/* Writes `n` counts as the PRM has them (traffic_counter), from `counter` on. */
void write_counts(uint32_t counter, uint32_t n, void *to);

/* faults.c */
enum fault { FAULT_TABLE, FAULT_MATCHER, FAULT_ACTION, FAULT_RULE, FAULT_COUNTER, FAULT_ENTRY, FAULTS };
/* The error that this one ends in; 0: none. */
int fault(enum fault kind);
/* The device has told that it is dead. */
bool is_dead(void);
/* Milliseconds by which completions are late. */
uint32_t completions_late(void);
/* Begins faults, as JUDGE_FAULTS does: see faults.c. 0, or EINVAL for words that it doesn't know. */
int judge_fault(const char *words);
void faults_from_environment(void);

/* verbs.c: every open device says that it is dead. */
void device_fatal(void);

#endif
