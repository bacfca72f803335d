/*
 * Faults of card and firmware. JUDGE_FAULTS or judge_fault: words with commas between them.
 *
 *   table=N matcher=N action=N rule=N counter=N
 *           the N-th from now on is refused for want of memory (software steering; counters in both engines)
 *   entry=N the N-th entry that hardware steering writes completes with an error
 *   KIND=N+ that one and all that follow;  KIND=N-M  that one up to the M-th;  KIND=0  none any more
 *   late=MS completions come MS milliseconds late (hardware steering)
 *   fatal   the device reports that it is dead (IBV_EVENT_DEVICE_FATAL), and is: whatever is asked of it ends in EIO. What is destroyed
 *           goes, as with a kernel that has taken the device away.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "judge.h"

static const char *const names[FAULTS] = { "table", "matcher", "action", "rule", "counter", "entry" };
enum { ALL = -1U };
static struct {
	uint32_t left;	/* 0: none will fail; 1: the next one */
	uint32_t more;	/* so will so many that follow; ALL */
} plans[FAULTS];
static uint32_t late;
static bool dead;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

bool is_dead(void)
{
	return __atomic_load_n(&dead, __ATOMIC_RELAXED);
}

int fault(enum fault kind)
{
	int error = is_dead() ? EIO : 0;

	pthread_mutex_lock(&lock);
	if (!error && plans[kind].left == 1)
		error = ENOMEM;
	if (plans[kind].left > 1 || (plans[kind].left == 1 && !plans[kind].more))
		plans[kind].left--;
	else if (plans[kind].left == 1 && plans[kind].more != ALL)
		plans[kind].more--;
	pthread_mutex_unlock(&lock);
	if (error)
		record("{\"e\": \"fault\", \"of\": \"%s\"}", names[kind]);
	return error;
}

uint32_t completions_late(void)
{
	return __atomic_load_n(&late, __ATOMIC_RELAXED);
}

static int begin(const char *word, size_t length)
{
	const char *equals = memchr(word, '=', length);
	size_t name = equals ? (size_t)(equals - word) : length;
	char *end;
	unsigned long n;

	if (!equals) {
		if (length != strlen("fatal") || strncmp(word, "fatal", length))
			return EINVAL;
		__atomic_store_n(&dead, true, __ATOMIC_RELAXED);
		device_fatal();
		return 0;
	}
	n = strtoul(equals + 1, &end, 10);
	if (end == equals + 1)
		return EINVAL;
	if (name == strlen("late") && !strncmp(word, "late", name)) {
		__atomic_store_n(&late, n, __ATOMIC_RELAXED);
		return 0;
	}
	for (int i = 0; i < FAULTS; i++)
		if (name == strlen(names[i]) && !strncmp(word, names[i], name)) {
			pthread_mutex_lock(&lock);
			plans[i].left = n;
			plans[i].more = *end == '+' ? ALL : *end == '-' ? strtoul(end + 1, NULL, 10) - n : 0;
			pthread_mutex_unlock(&lock);
			return 0;
		}
	return EINVAL;
}

int judge_fault(const char *words)
{
	int error = 0;

	while (*words && !error) {
		size_t length = strcspn(words, ",");

		error = begin(words, length);
		words += length;
		words += *words == ',';
	}
	return error;
}

/* Words that it doesn't know end the program: a test that believes in a fault would prove nothing. */
void faults_from_environment(void)
{
	const char *words = getenv("JUDGE_FAULTS");

	if (words && judge_fault(words))
		abort();
}
