/* The record: what the driver asked of the device, told in the order of events. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "judge.h"

static FILE *file;
/* Who executes the record, and who looks on. */
static struct {
	void (*hear)(void *state, const char *line, size_t length);
	void *state;
} listeners[4];
static unsigned listening;
/* Recursive: who hears of an event may mark the record. */
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

__attribute__((constructor(102))) static void open_file(void)
{
	const char *path = getenv("JUDGE_RECORD");

	if (path)
		file = fopen(path, "ae");
	if (file)
		setvbuf(file, NULL, _IOLBF, 0);
}

void judge_on_record(void (*hear)(void *state, const char *line, size_t length), void *state)
{
	unsigned at;

	pthread_mutex_lock(&lock);
	at = listening;
	if (hear && at < sizeof(listeners) / sizeof(listeners[0])) {
		listeners[at].hear = hear;
		listeners[at].state = state;
		__atomic_store_n(&listening, at + 1, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&lock);
}

bool recording(void)
{
	return file || __atomic_load_n(&listening, __ATOMIC_RELAXED);
}

void record(const char *format, ...)
{
	va_list arguments;
	char *line = NULL;
	int length;

	if (!recording())
		return;
	va_start(arguments, format);
	length = vasprintf(&line, format, arguments);
	va_end(arguments);
	if (length < 0)
		return;
	pthread_mutex_lock(&lock);
	if (file)
		fprintf(file, "%s\n", line);
	for (unsigned i = 0; i < listening; i++)
		listeners[i].hear(listeners[i].state, line, length);
	pthread_mutex_unlock(&lock);
	free(line);
}

char *hex(const void *octets, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *from = octets;
	char *text = malloc(n * 2 + 1);

	if (!text)
		abort();
	for (size_t i = 0; i < n; i++) {
		text[i * 2] = digits[from[i] >> 4];
		text[i * 2 + 1] = digits[from[i] & 15];
	}
	text[n * 2] = 0;
	return text;
}

/* For the program: what happens from here on is about this. */
void judge_mark(const char *text)
{
	size_t n = strlen(text), at = 0;
	char *quoted = malloc(n * 2 + 1);

	if (!quoted)
		return;
	for (size_t i = 0; i < n; i++) {
		if ((uint8_t)text[i] < ' ')
			continue;
		if (text[i] == '"' || text[i] == '\\')
			quoted[at++] = '\\';
		quoted[at++] = text[i];
	}
	quoted[at] = 0;
	record("{\"e\": \"mark\", \"text\": \"%s\"}", quoted);
	free(quoted);
}
