/* lasterr.c - a ring of errors, printed as JSON lines. */
#include "lasterr.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void npkfs_lasterr_init(struct npkfs_lasterr *l)
{
	memset(l, 0, sizeof(*l));
	pthread_mutex_init(&l->lock, NULL);
}

void npkfs_lasterr_fini(struct npkfs_lasterr *l)
{
	for (size_t i = 0; i < NPKFS_LASTERR_COUNT; i++) {
		free(l->ring[i].path);
		free(l->ring[i].message);
	}
	pthread_mutex_destroy(&l->lock);
}

void npkfs_lasterr_add(struct npkfs_lasterr *l, uid_t uid, pid_t pid, int code, const char *path, const char *message)
{
	struct npkfs_lasterr_entry e = {.uid = uid, .pid = pid, .code = code}, old;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	e.time_us = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
	e.path = strdup(path);
	e.message = strdup(message);
	if (e.path == NULL || e.message == NULL) {
		free(e.path);
		free(e.message);
		return;
	}
	pthread_mutex_lock(&l->lock);
	old = l->ring[l->n % NPKFS_LASTERR_COUNT];
	l->ring[l->n++ % NPKFS_LASTERR_COUNT] = e;
	pthread_mutex_unlock(&l->lock);
	free(old.path);
	free(old.message);
}

static void print_entry(const struct npkfs_lasterr_entry *e, struct npk_text *out)
{
	time_t seconds = (time_t)(e->time_us / 1000000);
	const char *name = strerrorname_np(e->code);
	char when[32];
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
	npk_text_printf(out, "{\"time\": \"%s.%06dZ\", \"uid\": %u, \"pid\": %d, \"path\": ", when,
		(int)(e->time_us % 1000000), e->uid, (int)e->pid);
	npk_text_json(out, e->path, strlen(e->path));
	npk_text_printf(out, ", \"errno\": \"%s\", \"message\": ", name ? name : "?");
	npk_text_json(out, e->message, strlen(e->message));
	npk_text_add(out, "}\n", 2);
}

void npkfs_lasterr_print(struct npkfs_lasterr *l, uid_t uid, struct npk_text *out)
{
	pthread_mutex_lock(&l->lock);
	for (uint64_t i = l->n > NPKFS_LASTERR_COUNT ? l->n - NPKFS_LASTERR_COUNT : 0; i < l->n; i++) {
		const struct npkfs_lasterr_entry *e = &l->ring[i % NPKFS_LASTERR_COUNT];

		if (uid == 0 || uid == e->uid)
			print_entry(e, out);
	}
	pthread_mutex_unlock(&l->lock);
}
