/* sync.c - from the journal to a store that any version of NumPack reads: fsync, sync, and the end of a store. */
#include "txn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void npk_store_lock_timeout(struct npk_store *s, unsigned ms)
{
	if (!s->writer)
		return;
	pthread_mutex_lock(&s->writer->lock);
	s->writer->lock_timeout_ms = ms > INT32_MAX ? INT32_MAX : (int)ms;
	pthread_mutex_unlock(&s->writer->lock);
}

int npk_store_set_owner(struct npk_store *s, const char *text, struct npk_err *err)
{
	char *copy = strdup(text);
	int rc = 0;

	if (!copy || !s->writer) {
		free(copy);
		return s->writer ? npk_fail(err, ENOMEM, "no memory")
				 : npk_fail(err, EROFS, "%.300s: was opened to read", s->path);
	}
	pthread_mutex_lock(&s->writer->lock);
	free(s->writer->owner);
	s->writer->owner = copy;
	if (s->writer->lock_fd >= 0)
		rc = npki_write_owner(s->writer->lock_fd, copy, err);
	pthread_mutex_unlock(&s->writer->lock);
	return rc;
}

int npk_store_set_checkpoints(struct npk_store *s, uint64_t bytes, unsigned seconds, struct npk_err *err)
{
	struct npki_writer *w = s->writer;

	if (!w)
		return npk_fail(err, EROFS, "%.300s: was opened to read", s->path);
	if (bytes == 0)
		return npk_fail(err, EINVAL, "%.300s: a checkpoint after 0 bytes makes no sense", s->path);
	pthread_mutex_lock(&w->lock);
	w->limit_bytes = w->due_bytes = bytes;
	w->limit_s = seconds;
	pthread_mutex_unlock(&w->lock);
	return 0;
}

int npk_store_lock(struct npk_store *s, struct npk_err *err)
{
	struct npki_tx tx;
	int rc = npki_tx_begin(&tx, s, err);

	if (rc == 0)
		npki_tx_abort(&tx);
	return rc;
}

int npk_store_fsync(struct npk_store *s, struct npk_err *err)
{
	return s->writer ? npki_seal(s->base ? s->base : s, err) : 0;
}

/* --- names ------------------------------------------------------------------------------------------------------------ */

/* An array whose file should have another name. */
struct naming {
	char *name, *from, *to;
	size_t name_len;
};

struct namings {
	struct naming *l;
	size_t n, blocked; /* blocked: those whose name another array's file has */
};

static void namings_fini(struct namings *w)
{
	for (size_t i = 0; i < w->n; i++) {
		free(w->l[i].name);
		free(w->l[i].from);
		free(w->l[i].to);
	}
	free(w->l);
	*w = (struct namings){0};
}

static int by_file(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int add_naming(struct namings *w, const struct npk_array *a, char *to)
{
	struct naming *more = realloc(w->l, (w->n + 1) * sizeof(*more));

	if (more)
		w->l = more;
	if (!more || !to)
		return -ENOMEM;
	more[w->n] = (struct naming){malloc(a->name_len + 1), strdup(a->entry->file), to, a->name_len};
	if (!more[w->n].name || !more[w->n].from) {
		free(more[w->n].name);
		free(more[w->n].from);
		return -ENOMEM;
	}
	memcpy(more[w->n++].name, a->name, a->name_len + 1);
	return 0;
}

/* *to: the name that NumPack would give to the array's file, when it has another; NULL: it has that, or no such file can be. */
static int wants_name(struct npk_store *s, const struct npk_array *a, char **to)
{
	const struct npki_entry *e = a->entry;

	*to = NULL;
	if (e->damage || npki_is_manifest(e->file) || strchr(a->name, '/'))
		return 0;
	*to = npki_data_file(a->name);
	if (!*to)
		return -ENOMEM;
	if (strcmp(*to, e->file) == 0 || npki_check_place(s->dirfd, *to, NULL) != 0) {
		free(*to);
		*to = NULL;
	}
	return 0;
}

/* Arrays with a name of ours that NumPack's own name is free for; where all are blocked (an exchange), they first go to
 * fresh names. A retired file is still what the metadata on disk says, or what a transaction shows: its name waits. Under
 * w->sync_lock, for a checkpoint under way has taken the list of the retired along, and w->lock. */
static int find_namings(struct npk_store *s, struct namings *out, struct npk_err *err)
{
	struct npki_names *old = &s->writer->retired;
	struct npk_array **list;
	const char **used;
	char *to;
	size_t n;
	int rc = npk_store_list(s, &list, &n, err);

	if (rc != 0)
		return rc;
	npki_names_sort(old);
	used = malloc((n + 1) * sizeof(char *));
	rc = used ? 0 : -ENOMEM;
	for (size_t i = 0; i < n && rc == 0; i++)
		used[i] = list[i]->entry->file;
	if (rc == 0)
		qsort(used, n, sizeof(char *), by_file);
	for (size_t i = 0; i < n && rc == 0; i++) {
		rc = wants_name(s, list[i], &to);
		if (rc != 0 || !to)
			continue;
		if (npki_names_has(old, to)) {
			free(to);
		} else if (bsearch(&to, used, n, sizeof(char *), by_file)) {
			free(to);
			out->blocked++;
		} else if (add_naming(out, list[i], to) != 0) {
			free(to);
			rc = -ENOMEM;
		}
	}
	free(used);
	npk_store_list_free(list, n);
	return rc ? npk_fail(err, ENOMEM, "no memory") : 0;
}

/* Blocked ones to fresh names, so that the next round finds theirs free. */
static int find_fresh(struct npk_store *s, struct namings *out, struct npk_err *err)
{
	struct npk_array **list = NULL;
	char path[64], *to, *canonical;
	size_t n = 0;
	int rc = npk_store_list(s, &list, &n, err);

	for (size_t i = 0; rc == 0 && i < n; i++) {
		rc = wants_name(s, list[i], &canonical);
		if (rc != 0 || !canonical)
			continue;
		free(canonical);
		npki_fresh_name(s->writer, ".npkd", path);
		to = strdup(path);
		rc = add_naming(out, list[i], to);
		if (rc != 0)
			free(to);
	}
	if (list)
		npk_store_list_free(list, n);
	return rc ? npk_fail(err, ENOMEM, "no memory") : 0;
}

/* The new name beside the old one. Renaming two links of one file onto each other would do nothing, so the link comes to
 * a name of its own first. */
static int link_name(struct npk_store *s, const struct naming *x, struct npk_err *err)
{
	char temp[64];
	int rc;

	npki_temp_name(s->writer, temp);
	rc = npki_link(s->dirfd, x->from, temp, err);
	return rc == 0 ? npki_rename(s->dirfd, temp, x->to, err) : rc;
}

/* The names are recorded as ours and synced before they are taken, so that a crash leaks none. */
static int own_names(struct npki_tx *tx, const struct namings *w, struct npk_err *err)
{
	for (size_t i = 0; i < w->n; i++) {
		npki_put_u8(&tx->payload, NPKI_J_OWN);
		npki_put_bytes(&tx->payload, w->l[i].to, strlen(w->l[i].to));
	}
	return npki_tx_commit(tx, err);
}

/* One that was changed meanwhile keeps the name it has got. Under w->lock. */
static bool is_current(struct npk_store *s, const struct naming *x)
{
	struct npk_array *a = npki_table_find(s, x->name, x->name_len);
	bool current = a && strcmp(a->entry->file, x->from) == 0;

	npk_array_put(a);
	return current;
}

static int take_names(struct npk_store *s, const struct namings *w, struct npk_err *err)
{
	struct npki_tx tx;
	size_t taken = 0;
	int rc = npki_tx_begin(&tx, s, err);

	if (rc != 0)
		return rc;
	for (size_t i = 0; i < w->n && rc == 0; i++) {
		if (!is_current(s, &w->l[i]))
			continue;
		rc = link_name(s, &w->l[i], err);
		npki_tx_file(&tx, w->l[i].name, w->l[i].name_len, w->l[i].to);
		taken++;
	}
	if (rc == 0 && taken > 0)
		rc = npki_sync_dir(s->dirfd, err);
	if (rc == 0 && taken > 0)
		return npki_tx_commit(&tx, err);
	npki_tx_abort(&tx);
	return rc;
}

/* Under w->sync_lock. */
static int own_free_names(struct npk_store *s, struct namings *w, struct npk_err *err)
{
	struct npki_tx tx;
	int rc = npki_tx_begin(&tx, s, err);

	if (rc != 0)
		return rc;
	rc = find_namings(s, w, err);
	if (rc == 0 && w->n == 0 && w->blocked)
		rc = find_fresh(s, w, err);
	if (rc == 0 && w->n > 0)
		return own_names(&tx, w, err);
	npki_tx_abort(&tx);
	return rc;
}

/* One round: find, own, link, record, checkpoint. *more: there is another one to do. */
static int name_round(struct npk_store *s, bool *more, struct npk_err *err)
{
	struct namings w = {0};
	int rc;

	pthread_mutex_lock(&s->writer->sync_lock);
	rc = own_free_names(s, &w, err);
	pthread_mutex_unlock(&s->writer->sync_lock);
	*more = rc == 0 && w.n > 0;
	if (rc == 0 && *more)
		rc = npki_seal(s, err);
	if (rc == 0 && *more)
		rc = take_names(s, &w, err);
	if (rc == 0 && *more)
		rc = npki_checkpoint(s, err);
	namings_fini(&w);
	return rc;
}

#define ROUNDS 8 /* an exchange needs three; changes of other threads may ask for more, at the next sync */

int npk_store_sync(struct npk_store *s, struct npk_err *err)
{
	bool more = true;
	int rc = 0;

	if (s->base)
		s = s->base;
	if (!s->writer || s->writer->lock_fd < 0)
		return 0;
	pthread_mutex_lock(&s->writer->name_lock);
	rc = npki_checkpoint(s, err);
	for (int i = 0; i < ROUNDS && more && rc == 0; i++)
		rc = name_round(s, &more, err);
	pthread_mutex_unlock(&s->writer->name_lock);
	return rc;
}

/* --- the end ---------------------------------------------------------------------------------------------------------- */

static int remove_journal(struct npk_store *s, struct npk_err *err)
{
	struct npki_writer *w = s->writer;
	int rc = 0;

	pthread_mutex_lock(&w->lock);
	if (w->jfd >= 0 && !w->failed) {
		rc = npki_unlink(s->dirfd, NPKI_JOURNAL, err);
		if (rc == 0)
			rc = npki_unlink(s->dirfd, NPKI_BASE, err);
		if (rc == 0)
			rc = npki_sync_dir(s->dirfd, err);
		close(w->jfd);
		w->jfd = -1;
	}
	pthread_mutex_unlock(&w->lock);
	return rc;
}

/* Nobody can ask for it later: what another program changed is taken over now, unless both changed one array. */
static int sync_at_end(struct npk_store *s, struct npk_err *err)
{
	struct npki_writer *w = s->writer;
	struct npk_err why;
	bool foreign;
	int rc = npk_store_sync(s, &why);

	pthread_mutex_lock(&w->lock);
	foreign = w->foreign;
	pthread_mutex_unlock(&w->lock);
	if (foreign)
		rc = npk_store_refresh(s, NULL, NULL, &why);
	if (foreign && rc == 0)
		rc = npk_store_sync(s, &why);
	return rc == 0 ? 0 : npk_fail(err, -rc, "%s", why.msg);
}

int npki_finish(struct npk_store *s, struct npk_err *err)
{
	struct npki_writer *w = s->writer;
	int rc = 0;

	if (!w || w->closed)
		return 0;
	npki_txn_end_all(s);
	if (w->lock_fd >= 0 && w->failed)
		rc = npk_fail(err, EIO, "%.500s", w->why);
	else if (w->lock_fd >= 0)
		rc = sync_at_end(s, err);
	if (rc == 0 && w->lock_fd >= 0)
		rc = remove_journal(s, err);
	pthread_mutex_lock(&w->lock);
	w->closed = true;
	npki_release_lock(w);
	pthread_mutex_unlock(&w->lock);
	return rc;
}

int npk_store_finish(struct npk_store *s, struct npk_err *err)
{
	int rc = npki_finish(s, err);

	npk_store_close(s); /* which does not try again */
	return rc;
}
