/* staged.c - the table of staged files. */
#include "staged.h"
#include "dir.h"
#include "fs.h"
#include "log.h"
#include "names.h"
#include "process.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PENDING_SECONDS 2 /* the kernel comes back at once */

bool npkfs_is_array_component(const char *name)
{
	size_t len;

	return name[0] != '.' && npkfs_name_strip(name, ".npy", &len);
}

void npkfs_staging_init(struct npkfs_staging *t)
{
	memset(t, 0, sizeof(*t));
	pthread_mutex_init(&t->lock, NULL);
}

/* --- one file ------------------------------------------------------------------------------------------------------------ */

void npkfs_staged_put(struct npkfs_staged *st)
{
	if (st == NULL || atomic_fetch_sub(&st->refs, 1) != 1)
		return;
	npkfs_payload_fini(&st->payload);
	npkfs_space_put(st->space);
	pthread_mutex_destroy(&st->lock);
	free(st->name);
	free(st);
}

struct npkfs_staged *npkfs_node_staged(struct npkfs_node *node)
{
	struct npkfs_staged *st;

	pthread_mutex_lock(&node->lock);
	st = node->staged;
	if (st != NULL)
		atomic_fetch_add(&st->refs, 1);
	pthread_mutex_unlock(&node->lock);
	return st;
}

/* As in any directory: where it passes its group on, new files have that. */
static gid_t group_of(struct npkfs_session *s, const struct npkfs_caller *who)
{
	struct stat dir;

	return fstat(npk_store_dirfd(s->store), &dir) == 0 && (dir.st_mode & S_ISGID) ? dir.st_gid : who->gid;
}

static struct npkfs_staged *make(struct npkfs_session *s, struct npkfs_space *sp, const char *name,
	const struct npkfs_caller *who, bool pending, mode_t mode)
{
	struct npkfs_staged *st = calloc(1, sizeof(*st));
	struct timespec now;

	if (st == NULL)
		return NULL;
	st->name = strdup(name);
	if (st->name == NULL) {
		free(st);
		return NULL;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	atomic_init(&st->refs, 1);
	pthread_mutex_init(&st->lock, NULL);
	st->scratch = !npkfs_is_array_component(name);
	st->space = npkfs_space_ref(sp);
	npkfs_payload_init(&st->payload, s, sp, st->scratch);
	st->mode = mode & 0777;
	st->uid = who->uid;
	st->gid = group_of(s, who);
	atomic_init(&st->mtime_us, (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
	st->pending = pending;
	st->tid = who->pid;
	if (!pending)
		npkfs_process_of(who->pid, &st->tgid, &st->started);
	clock_gettime(CLOCK_MONOTONIC, &st->minted);
	return st;
}

static void list(struct npkfs_session *s, struct npkfs_staged *st, struct npkfs_node *node)
{
	struct npkfs_staging *t = &s->staging;

	st->node = npkfs_node_ref(&s->inodes, node);
	pthread_mutex_lock(&t->lock);
	st->listed = true;
	st->next = t->first;
	t->first = st;
	atomic_fetch_add(&t->n, 1);
	pthread_mutex_unlock(&t->lock);
}

int npkfs_staged_new(struct npkfs_session *s, struct npkfs_space *sp, const char *name, const struct npkfs_caller *who,
	bool pending, mode_t mode, struct npkfs_node **out, struct npk_err *err)
{
	struct npkfs_key key = {.type = &npkfs_array_type, .space = sp};
	struct npkfs_staged *st = make(s, sp, name, who, pending, mode);
	struct npkfs_node *node;
	int rc;

	if (st == NULL)
		return npk_fail(err, ENOMEM, "no memory for a new file");
	key.number = NPKFS_STAGED_NUMBER | atomic_fetch_add(&s->staging.next_number, 1);
	rc = npkfs_node_new(&node, &key, err);
	if (rc != 0) {
		npkfs_staged_put(st);
		return rc;
	}
	node->staged = st;
	*out = npkfs_node_publish(&s->inodes, node);
	list(s, st, node);
	return 0;
}

/* --- the table ------------------------------------------------------------------------------------------------------------ */

/* Takes it out of the list; returns the node whose reference the caller puts after unlocking. Needs the lock. */
static struct npkfs_node *unlink_staged(struct npkfs_staging *t, struct npkfs_staged *st)
{
	struct npkfs_staged **p = &t->first;

	if (!st->listed)
		return NULL;
	while (*p != st)
		p = &(*p)->next;
	*p = st->next;
	st->listed = false;
	atomic_fetch_sub(&t->n, 1);
	return st->node;
}

void npkfs_staged_unlist(struct npkfs_session *s, struct npkfs_staged *st)
{
	struct npkfs_node *node;

	pthread_mutex_lock(&s->staging.lock);
	node = unlink_staged(&s->staging, st);
	pthread_mutex_unlock(&s->staging.lock);
	npkfs_node_put(&s->inodes, node);
}

void npkfs_staging_fini(struct npkfs_session *s)
{
	struct npkfs_node *node;

	while (s->staging.first != NULL) {
		node = unlink_staged(&s->staging, s->staging.first);
		npkfs_node_put(&s->inodes, node);
	}
	pthread_mutex_destroy(&s->staging.lock);
}

/* `tgid` is 0 when it is not known yet. Needs the lock. */
static bool is_mine(const struct npkfs_staged *st, const struct npkfs_caller *who, pid_t *tgid)
{
	uint64_t started;

	if (st->pending)
		return who->pid != 0 && st->tid == who->pid;
	if (*tgid == 0 && !npkfs_process_of(who->pid, tgid, &started))
		*tgid = -1;
	if (*tgid == -1 || st->tgid == 0)
		return st->uid == who->uid; /* another pid namespace */
	return st->tgid == *tgid;
}

bool npkfs_staged_is_mine(struct npkfs_session *s, struct npkfs_staged *st, const struct npkfs_caller *who)
{
	pid_t tgid = 0;
	bool mine;

	pthread_mutex_lock(&s->staging.lock);
	mine = is_mine(st, who, &tgid);
	pthread_mutex_unlock(&s->staging.lock);
	return mine;
}

struct npkfs_node *npkfs_staged_find(
	struct npkfs_session *s, struct npkfs_space *sp, const char *name, const struct npkfs_caller *who, bool anybody)
{
	struct npkfs_node *node = NULL;
	pid_t tgid = 0;

	if (atomic_load(&s->staging.n) == 0)
		return NULL;
	pthread_mutex_lock(&s->staging.lock);
	for (struct npkfs_staged *st = s->staging.first; st != NULL && node == NULL; st = st->next)
		if (st->space == sp && strcmp(st->name, name) == 0 &&
			(anybody ? !st->pending : is_mine(st, who, &tgid)))
			node = npkfs_node_ref(&s->inodes, st->node);
	pthread_mutex_unlock(&s->staging.lock);
	return node;
}

bool npkfs_staged_any(struct npkfs_session *s, struct npkfs_space *sp, const char *name)
{
	struct npkfs_staged *st;

	if (atomic_load(&s->staging.n) == 0)
		return false;
	pthread_mutex_lock(&s->staging.lock);
	for (st = s->staging.first; st != NULL && (st->space != sp || strcmp(st->name, name) != 0);)
		st = st->next;
	pthread_mutex_unlock(&s->staging.lock);
	return st != NULL;
}

void npkfs_staged_open(struct npkfs_session *s, struct npkfs_staged *st, const struct npkfs_caller *who)
{
	pid_t tgid = 0;
	uint64_t started = 0;

	npkfs_process_of(who->pid, &tgid, &started);
	pthread_mutex_lock(&s->staging.lock);
	if (st->pending) {
		st->pending = false;
		st->tgid = tgid;
		st->started = started;
	}
	pthread_mutex_unlock(&s->staging.lock);
}

int npkfs_staged_rename(struct npkfs_session *s, struct npkfs_staged *st, const char *name)
{
	char *copy = strdup(name), *old;

	if (copy == NULL)
		return -ENOMEM;
	pthread_mutex_lock(&s->staging.lock);
	old = st->name;
	st->name = copy;
	st->scratch = !npkfs_is_array_component(name);
	pthread_mutex_unlock(&s->staging.lock);
	free(old);
	return 0;
}

/* An array that is replaced is listed anyway. */
void npkfs_staged_list(struct npkfs_session *s, struct npkfs_space *sp, struct npk_text *names)
{
	struct npk_array *a;
	char name[NPKFS_NAME_MAX + 1];
	size_t len;

	pthread_mutex_lock(&s->staging.lock);
	for (struct npkfs_staged *st = s->staging.first; st != NULL; st = st->next) {
		if (st->pending || st->space != sp)
			continue;
		if (!st->scratch && npkfs_name_strip(st->name, ".npy", &len) &&
			npkfs_name_unescape(name, &len, st->name, len) &&
			npkfs_array_get(s, st->space, name, len, &a, NULL) == 0) {
			npk_array_put(a);
			continue;
		}
		npkfs_dir_add(names, st->name, S_IFREG);
	}
	pthread_mutex_unlock(&s->staging.lock);
}

/* --- the end of files ------------------------------------------------------------------------------------------------------- */

static void say_dropped(struct npkfs_session *s, const struct npkfs_staged *st, const char *why)
{
	npkfs_log(NPKFS_WARN, "%s: %s", st->name, why);
	npkfs_lasterr_add(&s->lasterr, st->uid, st->tgid, ECANCELED, st->name, why);
}

/* Why the file goes, or NULL. Needs the lock. */
static const char *expired(struct npkfs_session *s, const struct npkfs_staged *st, const struct timespec *now)
{
	int64_t age = now->tv_sec - st->minted.tv_sec;

	if (atomic_load(&st->node->handles) > 0)
		return NULL;
	if (st->pending)
		return age > PENDING_SECONDS ? "" : NULL;
	if (st->scratch)
		return NULL;
	if (st->tgid > 0 && !npkfs_process_lives(st->tgid, st->started)) {
		char name[NPKFS_NAME_MAX + 1];
		struct npk_array *a;
		size_t len;

		if (npkfs_name_strip(st->name, ".npy", &len) && npkfs_name_unescape(name, &len, st->name, len) &&
			npkfs_array_get(s, st->space, name, len, &a, NULL) == 0) {
			npk_array_put(a);
			return "an incomplete .npy file was dropped: its writer ended; the array is as it was";
		}
	}
	return age > (int64_t)s->config->staging_ttl ? "an incomplete .npy file was dropped after staging_ttl" : NULL;
}

void npkfs_staging_expire(struct npkfs_session *s)
{
	struct npkfs_staged *st, *next;
	struct npkfs_node *node;
	struct timespec now;
	const char *why;

	if (atomic_load(&s->staging.n) == 0)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	do {
		node = NULL;
		pthread_mutex_lock(&s->staging.lock);
		for (st = s->staging.first; st != NULL && node == NULL; st = next) {
			next = st->next;
			why = expired(s, st, &now);
			if (why == NULL)
				continue;
			if (*why != '\0')
				say_dropped(s, st, why);
			if (st->space == NULL)
				npkfs_inval_entry(&s->inval, NPKFS_ROOT_ID, st->name);
			node = unlink_staged(&s->staging, st);
		}
		pthread_mutex_unlock(&s->staging.lock);
		npkfs_node_put(&s->inodes, node);
	} while (node != NULL);
}

void npkfs_staging_drop(struct npkfs_session *s, struct npkfs_space *sp)
{
	struct npkfs_staged *st;
	struct npkfs_node *node;

	do {
		node = NULL;
		pthread_mutex_lock(&s->staging.lock);
		for (st = s->staging.first; st != NULL && st->space != sp;)
			st = st->next;
		if (st != NULL && !st->pending)
			say_dropped(s, st, "the transaction ended: a file that is no array was dropped");
		if (st != NULL)
			node = unlink_staged(&s->staging, st);
		pthread_mutex_unlock(&s->staging.lock);
		npkfs_node_put(&s->inodes, node);
	} while (node != NULL);
}

void npkfs_staging_end(struct npkfs_session *s)
{
	pthread_mutex_lock(&s->staging.lock);
	for (struct npkfs_staged *st = s->staging.first; st != NULL; st = st->next)
		if (!st->pending)
			say_dropped(s, st, "unmounted: a file that is no array was dropped");
	pthread_mutex_unlock(&s->staging.lock);
}
