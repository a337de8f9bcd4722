/* dir.c - READDIR and READDIRPLUS.
 *
 * A listing is a packed text, "<d or f><name>\0" each; the cookie of an entry is 2 + where the next one begins, 1 and 2
 * follow "." and "..". It is taken anew at cookie 0 (rewinddir). Directories whose names can be counted off (batches)
 * have no listing; their cookies count. */
#include "dir.h"
#include "names.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNKNOWN_INO 0xffffffffu /* readdir(3) has a number to show, and everybody calls stat anyway */

struct npkfs_dir {
	struct npkfs_session *s;
	struct npkfs_node *node;       /* a reference */
	struct npkfs_dir *prev, *next; /* of the session's list */
	pthread_mutex_t lock;          /* the kernel reads one directory handle from several threads */
	struct npk_text names;         /* lock */
	bool listed;                   /* lock */
	uint64_t epoch;                /* lock: before the listing was taken */
	bool finished;                 /* lock */
};

void npkfs_dir_add(struct npk_text *names, const char *name, mode_t kind)
{
	npk_text_add(names, kind == S_IFDIR ? "d" : "f", 1);
	npk_text_add(names, name, strlen(name) + 1);
}

int npkfs_dir_open(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_dir **out, struct npk_err *err)
{
	struct npkfs_dir *d = calloc(1, sizeof(*d));

	if (d == NULL)
		return npk_fail(err, ENOMEM, "no memory for a directory handle");
	d->s = s;
	d->node = npkfs_node_ref(&s->inodes, node);
	pthread_mutex_init(&d->lock, NULL);
	pthread_mutex_lock(&s->open_lock);
	d->next = s->open_dirs;
	if (d->next != NULL)
		d->next->prev = d;
	s->open_dirs = d;
	pthread_mutex_unlock(&s->open_lock);
	*out = d;
	return 0;
}

void npkfs_dir_close(struct npkfs_dir *d)
{
	pthread_mutex_lock(&d->s->open_lock);
	if (d->prev != NULL)
		d->prev->next = d->next;
	else
		d->s->open_dirs = d->next;
	if (d->next != NULL)
		d->next->prev = d->prev;
	pthread_mutex_unlock(&d->s->open_lock);
	npkfs_node_put(&d->s->inodes, d->node);
	npk_text_fini(&d->names);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

void npkfs_dirs_end(struct npkfs_session *s)
{
	for (struct npkfs_dir *d = s->open_dirs, *next; d != NULL; d = next) {
		next = d->next;
		npkfs_dir_close(d);
	}
}

/* A damaged array may be repaired behind our back; everything else changes by ways that we hear of. */
static bool is_settled(const struct npkfs_node *node)
{
	return node->type != &npkfs_array_type || (node->number != 0 && (node->number & NPKFS_STAGED_NUMBER) == 0);
}

double npkfs_attr_timeout(struct npkfs_session *s, const struct npkfs_node *node)
{
	return node->type->attr_ttl && node->space == NULL && is_settled(node) ? s->config->attr_ttl : 0;
}

static bool is_ambiguous(struct npkfs_session *s, const struct npkfs_node *node)
{
	return node->type == &npkfs_array_type && atomic_load(&s->staging.n) > 0;
}

void npkfs_entry_fill(struct npkfs_session *s, struct npkfs_node *node, struct fuse_entry_param *e)
{
	memset(e, 0, sizeof(*e));
	e->ino = node->id;
	e->generation = 1;
	npkfs_stat(s, node, &e->attr);
	/* While names may lead different processes to different files, each must ask for itself. */
	e->entry_timeout = node->type->name_ttl && node->space == NULL && is_settled(node) && !is_ambiguous(s, node)
				   ? s->config->attr_ttl
				   : 0;
	/* A size that changes before the kernel has made its inode of this answer cannot be told: it must ask once more. */
	if (!s->rw || node->type != &npkfs_array_type || atomic_load(&node->known))
		e->attr_timeout = npkfs_attr_timeout(s, node);
	npkfs_node_remember(&s->inodes, node);
}

/* --- one entry ------------------------------------------------------------------------------------------------------ */

struct entry {
	char name[NPKFS_NAME_MAX + 1];
	mode_t kind;
	uint64_t next; /* the cookie behind it */
};

/* The entry at cookie `at`; false after the last one. Needs the lock. */
static bool entry_at(struct npkfs_dir *d, uint64_t at, struct entry *e)
{
	const char *p;

	e->kind = S_IFDIR;
	e->next = at + 1;
	if (at < 2) {
		strcpy(e->name, at == 0 ? "." : "..");
		return true;
	}
	if (d->node->type->nth != NULL) {
		e->kind = S_IFREG;
		return d->node->type->nth(d->node, at - 2, e->name);
	}
	if (at - 2 >= d->names.len)
		return false;
	p = d->names.p + (at - 2);
	e->kind = *p == 'd' ? S_IFDIR : S_IFREG;
	e->next = at + strlen(p) + 1;
	snprintf(e->name, sizeof(e->name), "%s", p + 1);
	return true;
}

/* A cookie that we did not give out would point into the middle of a name. */
static bool is_cookie(const struct npkfs_dir *d, uint64_t at)
{
	return at < 3 || d->node->type->nth != NULL || (at - 2 <= d->names.len && d->names.p[at - 3] == '\0');
}

static int take_listing(struct npkfs_dir *d, struct npk_err *err)
{
	struct npk_text names = {0};
	uint64_t epoch = atomic_load(&d->s->epoch);
	int rc = d->node->type->list ? d->node->type->list(d->s, d->node, &names, err) : 0;

	if (rc == 0 && names.bad)
		rc = npk_fail(err, ENOMEM, "no memory for a directory listing");
	if (rc != 0) {
		npk_text_fini(&names);
		return rc;
	}
	npk_text_fini(&d->names);
	d->names = names;
	d->epoch = epoch;
	d->listed = true;
	d->finished = false;
	return 0;
}

/* Adds the entry with its node. A name that is gone or cannot be looked up now is listed without one; the kernel then
 * asks for it by name. */
static size_t add_plus(struct npkfs_dir *d, fuse_req_t req, char *buf, size_t size, const struct entry *e)
{
	struct fuse_entry_param param = {.attr = {.st_ino = UNKNOWN_INO, .st_mode = e->kind}};
	size_t need = fuse_add_direntry_plus(req, NULL, 0, e->name, NULL, 0);
	const struct npkfs_caller who = {.uid = fuse_req_ctx(req)->uid, .pid = fuse_req_ctx(req)->pid};
	struct npkfs_node *node = NULL;

	if (need > size)
		return need;
	if (d->node->type->plus && strcmp(e->name, ".") != 0 && strcmp(e->name, "..") != 0 &&
		d->node->type->lookup(d->s, d->node, e->name, &who, &node, NULL) == 0)
		npkfs_entry_fill(d->s, node, &param);
	fuse_add_direntry_plus(req, buf, size, e->name, &param, (off_t)e->next);
	npkfs_node_put(&d->s->inodes, node);
	return need;
}

static size_t add_plain(fuse_req_t req, char *buf, size_t size, const struct entry *e)
{
	struct stat st = {.st_ino = UNKNOWN_INO, .st_mode = e->kind};

	return fuse_add_direntry(req, buf, size, e->name, &st, (off_t)e->next);
}

int npkfs_dir_read(struct npkfs_dir *d, fuse_req_t req, char *buf, size_t size, uint64_t off, bool plus, size_t *used,
	struct npk_err *err)
{
	struct entry e;
	size_t n, at = 0;
	bool more = false;
	int rc = 0;

	pthread_mutex_lock(&d->lock);
	if (off == 0 || !d->listed)
		rc = take_listing(d, err);
	if (rc == 0 && !is_cookie(d, off))
		rc = npk_fail(err, EINVAL, "no directory entry begins at offset %llu", (unsigned long long)off);
	while (rc == 0 && (more = entry_at(d, off, &e))) {
		n = plus ? add_plus(d, req, buf + at, size - at, &e) : add_plain(req, buf + at, size - at, &e);
		if (n > size - at)
			break;
		at += n;
		off = e.next;
	}
	d->finished = d->finished || (rc == 0 && !more);
	pthread_mutex_unlock(&d->lock);
	if (rc == 0)
		*used = at;
	return rc;
}

uint64_t npkfs_dir_finished(struct npkfs_dir *d)
{
	uint64_t epoch;

	pthread_mutex_lock(&d->lock);
	epoch = d->finished ? d->epoch : 0;
	pthread_mutex_unlock(&d->lock);
	return epoch;
}
