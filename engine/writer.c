/* writer.c - becoming the store's one writer, and a change from its first byte to its record. */
#include "txn.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define LOCK_TIMEOUT_MS 10000
#define LIMIT_BYTES ((uint64_t)16 << 20)
#define LIMIT_S 60

/* --- the writer ------------------------------------------------------------------------------------------------------- */

int npki_writer_new(struct npk_store *s, struct npk_err *err)
{
	struct npki_writer *w = calloc(1, sizeof(*w));

	if (!w)
		return npk_fail(err, ENOMEM, "%.300s: no memory", s->path);
	pthread_mutex_init(&w->name_lock, NULL);
	pthread_mutex_init(&w->sync_lock, NULL);
	pthread_mutex_init(&w->lock, NULL);
	w->lock_fd = w->jfd = w->prev_fd = -1;
	w->round = 1;
	w->lock_timeout_ms = LOCK_TIMEOUT_MS;
	w->limit_bytes = w->due_bytes = LIMIT_BYTES;
	w->limit_s = LIMIT_S;
	s->writer = w;
	return 0;
}

void npki_writer_free(struct npk_store *s)
{
	struct npki_writer *w = s->writer;

	if (!w)
		return;
	if (w->jfd >= 0)
		close(w->jfd);
	if (w->prev_fd >= 0)
		close(w->prev_fd);
	npki_release_lock(w);
	for (size_t i = 0; i < NPKI_OPEN_FILES; i++)
		npki_file_put(w->open_file[i]);
	npki_extents_fini(w->unsealed, w->nunsealed);
	npki_redo_fini(w->redo, w->nredo);
	npki_names_fini(&w->dirty);
	npki_names_fini(&w->retired);
	npki_touched_fini(&w->touched);
	pthread_mutex_destroy(&w->name_lock);
	pthread_mutex_destroy(&w->sync_lock);
	pthread_mutex_destroy(&w->lock);
	free(w->owner);
	free(w->past);
	free(w);
	s->writer = NULL;
}

int npki_fail_store(struct npki_writer *w, int rc, const struct npk_err *err)
{
	if (!w->failed) {
		w->failed = true;
		snprintf(w->why, sizeof(w->why), "the store is read-only since a change failed half-way: %.400s",
			err->msg);
	}
	return rc;
}

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

int64_t npki_now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return t.tv_sec;
}

uint64_t npki_tick(struct npki_writer *w)
{
	uint64_t now = now_us();

	w->clock_us = now > w->clock_us ? now : w->clock_us + 1;
	return w->clock_us;
}

/* --- the lock file ---------------------------------------------------------------------------------------------------- */

static int take_lock(struct npk_store *s, struct npk_err *err)
{
	struct npki_writer *w = s->writer;

	return npki_lock_dir(s->dirfd, s->path, w->owner, w->lock_timeout_ms, &w->lock_fd, err);
}

/* A forked child has the same open file, and with it the lock: closing alone would leave the lock to the child. */
void npki_release_lock(struct npki_writer *w)
{
	if (w->lock_fd < 0)
		return;
	npki_unlock_dir(w->lock_fd);
	w->lock_fd = -1;
}

int npki_recover_at_open(struct npk_store *s, struct npk_err *err)
{
	struct npki_writer *w = s->writer;
	struct npki_file_id old, next;
	int timeout = w->lock_timeout_ms, rc = npki_stat_file(s->dirfd, NPKI_JOURNAL, &old, err);

	if (rc == 0)
		rc = npki_stat_file(s->dirfd, NPKI_JOURNAL_NEXT, &next, err);
	if (rc != 0 || (!old.exists && !next.exists))
		return rc;
	w->lock_timeout_ms = 0;
	rc = take_lock(s, err);
	w->lock_timeout_ms = timeout;
	if (rc == -EBUSY)
		return 0;
	if (rc == 0) {
		rc = npki_recover(s, err);
		if (rc == 0)
			rc = npki_reload_metadata(s, err);
		npki_release_lock(w);
	}
	return rc;
}

/* --- becoming the writer ---------------------------------------------------------------------------------------------- */

/* What the counters start from, once the table is what is on disk. */
static int count_state(struct npk_store *s, struct npk_err *err)
{
	struct npki_writer *w = s->writer;
	struct npk_array **list;
	size_t n;
	int rc = npk_store_list(s, &list, &n, err);

	if (rc != 0)
		return rc;
	w->hash = 0;
	for (size_t i = 0; i < n; i++) {
		w->hash ^= npki_entry_hash(list[i]->name, list[i]->name_len, list[i]->entry);
		if (list[i]->entry->mtime_us > w->clock_us && list[i]->entry->mtime_us < UINT64_MAX / 2)
			w->clock_us = list[i]->entry->mtime_us;
	}
	w->disk_hash = w->hash;
	npki_remember(w, w->hash);
	npk_store_list_free(list, n);
	return 0;
}

/* The header is durable before any file of ours is made: it says by its nonce which names are ours. */
static int make_journal(struct npk_store *s, struct npk_err *err)
{
	struct npki_writer *w = s->writer;
	uint8_t head[NPKI_JHEAD_LEN];
	int fd, rc;

	if (getrandom(&w->nonce, sizeof(w->nonce), 0) != (ssize_t)sizeof(w->nonce))
		return npk_fail(err, errno, NPKI_JOURNAL ": no random number: %s", strerror(errno));
	w->nonce &= ((uint64_t)1 << 40) - 1;
	w->counter = 0;
	npki_jhead_write(head, &(struct npki_jhead){w->nonce, w->disk_hash, w->seq, 0}, &w->chain);
	rc = npki_keep_base(s, err);
	if (rc == 0)
		rc = npki_unlink(s->dirfd, NPKI_JOURNAL_NEW, err);
	if (rc == 0)
		rc = npki_create(s->dirfd, NPKI_JOURNAL_NEW, &fd, err);
	if (rc != 0)
		return rc;
	rc = npki_pwrite_all(fd, head, sizeof(head), 0, NPKI_JOURNAL_NEW, err);
	if (rc == 0)
		rc = npki_sync_fd(fd, NPKI_JOURNAL_NEW, err);
	if (rc == 0)
		rc = npki_rename(s->dirfd, NPKI_JOURNAL_NEW, NPKI_JOURNAL, err);
	if (rc == 0)
		rc = npki_sync_dir(s->dirfd, err);
	if (rc != 0) {
		close(fd);
		return rc;
	}
	w->jfd = fd;
	w->jpos = sizeof(head);
	w->records = 0;
	return 0;
}

/* A new store gets its empty metadata before any data: data files alone are what damage looks like. */
static int make_metadata(struct npk_store *s, struct npk_err *err)
{
	struct npk_text head = {0};
	struct npki_file_id id;
	int fd, rc = npki_stat_file(s->dirfd, NPKI_META_FILE, &id, err);

	if (rc != 0 || id.exists)
		return rc;
	npki_meta_write_head(&head, 0, 0);
	rc = head.bad ? npk_fail(err, ENOMEM, "no memory") : npki_unlink(s->dirfd, NPKI_META_FILE ".tmp.npk", err);
	if (rc == 0)
		rc = npki_create(s->dirfd, NPKI_META_FILE ".tmp.npk", &fd, err);
	if (rc == 0) {
		rc = npki_pwrite_all(fd, head.p, head.len, 0, NPKI_META_FILE, err);
		if (rc == 0)
			rc = npki_sync_fd(fd, NPKI_META_FILE, err);
		close(fd);
	}
	if (rc == 0)
		rc = npki_rename(s->dirfd, NPKI_META_FILE ".tmp.npk", NPKI_META_FILE, err);
	if (rc == 0)
		rc = npki_sync_dir(s->dirfd, err);
	npk_text_fini(&head);
	return rc == 0 ? npki_reload_metadata(s, err) : rc;
}

/* Others may have written since the store was read. */
static int become_writer(struct npk_store *s, struct npk_err *err)
{
	struct npk_store_info info;
	int rc = take_lock(s, err);

	if (rc != 0)
		return rc;
	rc = npki_recover(s, err);
	if (rc == 0)
		rc = npk_store_refresh(s, NULL, NULL, err);
	if (rc == 0)
		rc = make_metadata(s, err);
	if (rc == 0)
		rc = count_state(s, err);
	npk_store_info(s, &info);
	if (rc == 0 && info.read_only)
		rc = npk_fail(err, EROFS, "%.200s: is read-only: %.250s", s->path, info.why);
	if (rc != 0)
		npki_release_lock(s->writer);
	else
		atomic_store(&s->writer->writing, true);
	return rc;
}

int npki_tx_begin(struct npki_tx *tx, struct npk_store *s, struct npk_err *err)
{
	struct npki_writer *w = s->writer;
	int rc = 0;

	*tx = (struct npki_tx){0};
	if (!w)
		return npk_fail(err, EROFS, "%.300s: was opened to read", s->path);
	pthread_mutex_lock(&w->lock);
	if (w->closed)
		rc = npk_fail(err, ESTALE, "%.300s: was closed", s->path);
	else if (w->failed)
		rc = npk_fail(err, EROFS, "%.500s", w->why);
	else if (w->foreign)
		rc = npk_fail(err, EBUSY, "%.500s", w->why);
	if (rc == 0 && s->base)
		rc = npki_txn_may_change(s->txn, err);
	if (rc == 0 && w->lock_fd < 0)
		rc = become_writer(s, err);
	if (rc == 0 && w->jfd < 0)
		rc = make_journal(s, err);
	if (rc != 0) {
		pthread_mutex_unlock(&w->lock);
		return rc;
	}
	tx->s = s;
	return 0;
}

void npki_extents_fini(struct npki_extent *ext, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(ext[i].path);
	free(ext);
}

void npki_redo_fini(struct npki_redo *redo, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(redo[i].path);
		free(redo[i].at);
	}
	free(redo);
}

static void tx_fini(struct npki_tx *tx)
{
	struct npk_store *s;
	bool due;

	npki_extents_fini(tx->ext, tx->next);
	npki_redo_fini(tx->redo, tx->nredo);
	npki_names_fini(&tx->created);
	npk_text_fini(&tx->payload);
	s = tx->s;
	due = tx->logged && npki_is_due(s);
	tx->s = NULL;
	pthread_mutex_unlock(&s->writer->lock);
	if (due)
		npki_checkpoint_if_due(s);
}

void npki_tx_abort(struct npki_tx *tx)
{
	struct npk_err err;

	if (!tx->s)
		return;
	for (size_t i = 0; i < tx->created.n; i++)
		if (npki_unlink(tx->s->dirfd, tx->created.path[i], &err) !=
			0) /* the next recovery or checkpoint takes it */
			npki_names_add(&tx->s->writer->retired, tx->created.path[i]);
	tx_fini(tx);
}

int npki_mark_dirty(struct npki_writer *w, const char *path)
{
	if (w->dirty.n > 2 * w->dirty_sorted + 1024) { /* bounded by the files, not by the changes */
		npki_names_sort(&w->dirty);
		w->dirty_sorted = w->dirty.n;
	}
	return npki_names_add(&w->dirty, path);
}

void npki_temp_name(struct npki_writer *w, char path[64])
{
	snprintf(path, 64, ".npk-%010" PRIx64 "%06x.tmp", w->nonce, w->counter++ & 0xFFFFFF);
}

void npki_fresh_name(struct npki_writer *w, const char *suffix, char path[64])
{
	snprintf(path, 64, "data_.npk-%010" PRIx64 "%06x%s", w->nonce, w->counter++ & 0xFFFFFF, suffix);
}

int npki_tx_create(struct npki_tx *tx, const char *suffix, char path[64], int *fd, struct npk_err *err)
{
	struct npki_writer *w = tx->s->writer;
	int rc;

	npki_fresh_name(w, suffix, path);
	rc = npki_create(tx->s->dirfd, path, fd, err);
	if (rc != 0)
		return rc;
	w->new_names = true;
	if (npki_names_add(&tx->created, path) == 0 && npki_mark_dirty(w, path) == 0)
		return 0;
	close(*fd);
	npki_unlink(tx->s->dirfd, path, NULL);
	return npk_fail(err, ENOMEM, "no memory");
}

/* --- the record ------------------------------------------------------------------------------------------------------- */

int npki_tx_set(struct npki_tx *tx, const void *name, size_t len, unsigned dtype, const struct npk_shape *shape,
	const char *file, uint64_t mtime_us)
{
	npki_put_u8(&tx->payload, NPKI_J_SET);
	npki_put_bytes(&tx->payload, name, len);
	npki_put_u8(&tx->payload, (uint8_t)dtype);
	npki_put_u32(&tx->payload, shape->ndim);
	for (unsigned i = 0; i < shape->ndim; i++)
		npki_put_u64(&tx->payload, shape->dim[i]);
	npki_put_bytes(&tx->payload, file, strlen(file));
	npki_put_u64(&tx->payload, mtime_us);
	return tx->payload.bad ? -ENOMEM : 0;
}

void npki_tx_del(struct npki_tx *tx, const void *name, size_t len)
{
	npki_put_u8(&tx->payload, NPKI_J_DEL);
	npki_put_bytes(&tx->payload, name, len);
}

void npki_tx_move(struct npki_tx *tx, const void *from, size_t from_len, const void *to, size_t to_len)
{
	npki_put_u8(&tx->payload, NPKI_J_MOVE);
	npki_put_bytes(&tx->payload, from, from_len);
	npki_put_bytes(&tx->payload, to, to_len);
}

void npki_tx_clear(
	struct npki_tx *tx, const void *name, size_t len, const struct npki_run *run, size_t nruns, uint64_t mtime_us)
{
	npki_put_u8(&tx->payload, NPKI_J_CLEAR);
	npki_put_bytes(&tx->payload, name, len);
	npki_put_u64(&tx->payload, mtime_us);
	npki_put_u64(&tx->payload, nruns);
	for (size_t i = 0; i < nruns; i++) {
		npki_put_u64(&tx->payload, run[i].slot);
		npki_put_u64(&tx->payload, run[i].n);
	}
}

void npki_tx_grow(
	struct npki_tx *tx, const void *name, size_t len, uint64_t nslots, uint64_t mtime_us, const char *file)
{
	npki_put_u8(&tx->payload, NPKI_J_GROW);
	npki_put_bytes(&tx->payload, name, len);
	npki_put_u64(&tx->payload, nslots);
	npki_put_u64(&tx->payload, mtime_us);
	npki_put_bytes(&tx->payload, file, strlen(file));
}

void npki_tx_file(struct npki_tx *tx, const void *name, size_t len, const char *file)
{
	npki_put_u8(&tx->payload, NPKI_J_FILE);
	npki_put_bytes(&tx->payload, name, len);
	npki_put_bytes(&tx->payload, file, strlen(file));
}

void npki_tx_time(struct npki_tx *tx, const void *name, size_t len, uint64_t mtime_us)
{
	npki_put_u8(&tx->payload, NPKI_J_TIME);
	npki_put_bytes(&tx->payload, name, len);
	npki_put_u64(&tx->payload, mtime_us);
}

static int add_extent(struct npki_tx *tx, const char *file, const struct npki_extent *x, struct npk_err *err)
{
	struct npki_extent *more;

	if ((tx->next & (tx->next - 1)) == 0) {
		more = realloc(tx->ext, (tx->next ? 2 * tx->next : 1) * sizeof(*more));
		if (!more)
			return npk_fail(err, ENOMEM, "no memory");
		tx->ext = more;
	}
	tx->ext[tx->next] = *x;
	tx->ext[tx->next].path = strdup(file);
	if (!tx->ext[tx->next].path || npki_mark_dirty(tx->s->writer, file) != 0) {
		free(tx->ext[tx->next].path);
		return npk_fail(err, ENOMEM, "no memory");
	}
	tx->next++;
	return 0;
}

/* A transaction keeps its extents apart: what is written in place later has another checksum. */
int npki_tx_extent(struct npki_tx *tx, const char *file, uint64_t off, uint64_t len, uint32_t crc, struct npk_err *err)
{
	const struct npki_extent x = {.off = off, .len = len, .crc = crc};

	if (tx->s->base)
		return add_extent(tx, file, &x, err);
	npki_put_u8(&tx->payload, NPKI_J_EXTENT);
	npki_put_bytes(&tx->payload, file, strlen(file));
	npki_put_u64(&tx->payload, off);
	npki_put_u64(&tx->payload, len);
	npki_put_u32(&tx->payload, crc);
	return add_extent(tx, file, &x, err);
}

int npki_tx_zero(struct npki_tx *tx, const char *file, uint64_t len, struct npk_err *err)
{
	if (tx->s->base)
		return add_extent(tx, file, &(struct npki_extent){.len = len, .zero = true}, err);
	npki_put_u8(&tx->payload, NPKI_J_ZERO);
	npki_put_bytes(&tx->payload, file, strlen(file));
	npki_put_u64(&tx->payload, len);
	return npki_mark_dirty(tx->s->writer, file) == 0 ? 0 : npk_fail(err, ENOMEM, "no memory");
}

/* Takes `x` over when it succeeds. */
static int push_redo(struct npki_redo **list, size_t *n, const struct npki_redo *x)
{
	struct npki_redo *more;

	if ((*n & (*n - 1)) == 0) {
		more = realloc(*list, (*n ? 2 * *n : 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		*list = more;
	}
	(*list)[(*n)++] = *x;
	return 0;
}

int npki_tx_redo(struct npki_tx *tx, const char *file, const struct npki_span *at, size_t n, const void *bytes,
	struct npk_err *err)
{
	struct npki_redo x = {.path = strdup(file), .at = malloc(n * sizeof(*at)), .n = n, .from = UINT64_MAX};

	for (size_t i = 0; x.at && i < n; i++) {
		x.at[i] = at[i];
		x.from = at[i].off < x.from ? at[i].off : x.from;
		x.to = at[i].off + at[i].len > x.to ? at[i].off + at[i].len : x.to;
	}
	npki_put_u8(&tx->payload, NPKI_J_WRITE);
	npki_put_bytes(&tx->payload, file, strlen(file));
	npki_put_spans(&tx->payload, at, n, bytes);
	if (x.path && x.at && npki_mark_dirty(tx->s->writer, file) == 0 && push_redo(&tx->redo, &tx->nredo, &x) == 0)
		return 0;
	free(x.path);
	free(x.at);
	return npk_fail(err, ENOMEM, "no memory");
}

int npki_tx_copy(struct npki_tx *tx, const char *file, uint64_t off, uint64_t len, const char *source, uint64_t from,
	struct npk_err *err)
{
	npki_put_u8(&tx->payload, NPKI_J_COPY);
	npki_put_bytes(&tx->payload, file, strlen(file));
	npki_put_u64(&tx->payload, off);
	npki_put_u64(&tx->payload, len);
	npki_put_bytes(&tx->payload, source, strlen(source));
	npki_put_u64(&tx->payload, from);
	return add_extent(tx, file, &(struct npki_extent){.off = off, .len = len}, err);
}

/* One write(2) for the record. What of it got to the disk before an error is cut off again; if that fails too, nobody
 * knows what recovery will find. */
static int write_record(struct npk_store *s, enum npki_jkind kind, const void *payload, size_t len, struct npk_err *err)
{
	struct npki_writer *w = s->writer;
	uint64_t seq = w->seq + (kind == NPKI_JOP);
	struct npk_text rec = {0};
	uint32_t chain = w->chain;
	struct npk_err again;
	int rc;

	npki_jrec_write(&rec, kind, seq, payload, len, &chain);
	if (rec.bad || len > UINT32_MAX) {
		npk_text_fini(&rec);
		return npk_fail(err, rec.bad ? ENOMEM : E2BIG, NPKI_JOURNAL ": a record of %zu bytes is too big", len);
	}
	rc = npki_pwrite_all(w->jfd, rec.p, rec.len, w->jpos, NPKI_JOURNAL, err);
	if (rc == 0) {
		w->jpos += rec.len;
		w->chain = chain;
		w->seq = seq;
		if (w->records++ == 0)
			w->begun_s = npki_now_s();
	} else if (npki_truncate(w->jfd, w->jpos, NPKI_JOURNAL, &again) != 0) {
		npki_fail_store(w, rc, &again);
	}
	npk_text_fini(&rec);
	return rc;
}

int npki_own_retired(struct npk_store *s, struct npk_err *err)
{
	struct npki_writer *w = s->writer;
	struct npk_text p = {0};
	int rc = 0;

	for (size_t i = 0; i < w->retired.n; i++) {
		npki_put_u8(&p, NPKI_J_OWN);
		npki_put_bytes(&p, w->retired.path[i], strlen(w->retired.path[i]));
	}
	if (p.bad)
		rc = npk_fail(err, ENOMEM, "no memory");
	else if (p.len)
		rc = write_record(s, NPKI_JOP, p.p, p.len, err);
	npk_text_fini(&p);
	return rc;
}

int npki_tx_intent(struct npki_tx *tx, const void *name, size_t len, struct npk_err *err)
{
	struct npki_writer *w = tx->s->writer;
	struct npk_text p = {0};
	struct npk_array *a = tx->s->base ? NULL : npki_table_find(tx->s, name, len);
	int rc = 0;

	if (a && a->intent_round != w->round) {
		npki_put_u8(&p, NPKI_J_INTENT);
		npki_put_bytes(&p, name, len);
		rc = p.bad ? npk_fail(err, ENOMEM, "no memory") : write_record(tx->s, NPKI_JOP, p.p, p.len, err);
		if (rc == 0)
			a->intent_round = w->round;
		npk_text_fini(&p);
	}
	npk_array_put(a);
	return rc;
}

/* Neighbours in one file become one. */
static int keep_extent(struct npki_extent **list, size_t *n, struct npki_extent *x)
{
	struct npki_extent *last = *n ? &(*list)[*n - 1] : NULL, *more;

	if (last && last->off + last->len == x->off && strcmp(last->path, x->path) == 0) {
		last->len += x->len;
		last->seq = x->seq;
		return 0;
	}
	if ((*n & (*n - 1)) == 0) {
		more = realloc(*list, (*n ? 2 * *n : 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		*list = more;
	}
	(*list)[(*n)++] = *x;
	x->path = NULL;
	return 0;
}

/* Takes the extents over. */
static int keep_extents(struct npki_tx *tx)
{
	struct npki_writer *w = tx->s->writer;
	int rc = 0;

	for (size_t i = 0; i < tx->next && rc == 0; i++) {
		struct npki_extent *x = &tx->ext[i];

		x->seq = w->seq;
		rc = keep_extent(&w->unsealed, &w->nunsealed, x);
	}
	for (size_t i = 0; i < tx->nredo && rc == 0; i++) {
		tx->redo[i].seq = w->seq;
		rc = push_redo(&w->redo, &w->nredo, &tx->redo[i]);
		if (rc == 0) {
			w->redo_spans += tx->redo[i].n;
			tx->redo[i] = (struct npki_redo){0};
		}
	}
	return rc;
}

int npki_tx_log(struct npki_tx *tx, struct npk_err *err)
{
	struct npki_writer *w = tx->s->writer;
	struct npk_err why;
	int rc;

	if (tx->payload.bad)
		return npk_fail(err, ENOMEM, "no memory for a record");
	if (tx->s->base)
		return npki_txn_log(tx, err);
	rc = write_record(tx->s, NPKI_JOP, tx->payload.p, tx->payload.len, err);
	if (rc != 0)
		return rc;
	tx->logged = true;
	npki_names_fini(&tx->created); /* they belong to the state now */
	rc = npki_apply(tx->s, tx->payload.p, tx->payload.len, &why);
	if (rc == 0 && keep_extents(tx) != 0)
		rc = npk_fail(&why, ENOMEM, "no memory");
	if (rc != 0) { /* the record stands, the memory does not: what is on disk is right */
		npki_fail_store(w, rc, &why);
		return npk_fail(err, EIO, "%.500s", w->why);
	}
	return 0;
}

int npki_tx_sync(struct npki_tx *tx, struct npk_err *err)
{
	struct npki_writer *w = tx->s->writer;
	struct npk_err why = {0};
	int rc = w->prev_fd >= 0 ? npki_sync_fd(w->prev_fd, NPKI_JOURNAL, &why) : 0;

	if (rc == 0)
		rc = npki_sync_fd(w->jfd, NPKI_JOURNAL, &why);
	if (rc == 0)
		return 0;
	npki_fail_store(w, rc, &why);
	return npk_fail(err, EIO, "%.500s", w->why);
}

void npki_tx_end(struct npki_tx *tx)
{
	if (tx->s)
		tx_fini(tx);
}

int npki_tx_commit(struct npki_tx *tx, struct npk_err *err)
{
	int rc = npki_tx_log(tx, err);

	if (rc != 0)
		npki_tx_abort(tx);
	else
		npki_tx_end(tx);
	return rc;
}

int npki_use_fd(struct npki_writer *w, struct npki_file *f, int *fd, struct npk_err *err)
{
	struct npki_file **slot = &w->open_file[w->open_next];
	int rc;

	if (w->open_file[(w->open_next + NPKI_OPEN_FILES - 1) % NPKI_OPEN_FILES] == f)
		return npki_file_fd(f, fd, err);
	for (size_t i = 0; i < NPKI_OPEN_FILES; i++)
		if (w->open_file[i] == f)
			return npki_file_fd(f, fd, err);
	rc = npki_file_fd(f, fd, err);
	if (rc != 0)
		return rc;
	if (*slot) {
		npki_file_close_fd(*slot);
		npki_file_put(*slot);
	}
	*slot = npki_file_ref(f);
	w->open_next = (w->open_next + 1) % NPKI_OPEN_FILES;
	return 0;
}

static bool overlap(uint64_t off, uint64_t len, uint64_t other, uint64_t other_len)
{
	return off < other + other_len && other < off + len;
}

bool npki_is_unsealed(const struct npki_writer *w, const char *path, uint64_t off, uint64_t len)
{
	for (size_t i = 0; i < w->nunsealed; i++) {
		const struct npki_extent *x = &w->unsealed[i];

		if (overlap(off, len, x->off, x->len) && strcmp(x->path, path) == 0)
			return true;
	}
	return false;
}

bool npki_is_redone(const struct npki_writer *w, const char *path, uint64_t off, uint64_t len)
{
	for (size_t i = 0; i < w->nredo; i++) {
		const struct npki_redo *x = &w->redo[i];

		if (!overlap(off, len, x->from, x->to - x->from) || strcmp(x->path, path) != 0)
			continue;
		for (size_t k = 0; k < x->n; k++)
			if (overlap(off, len, x->at[k].off, x->at[k].len))
				return true;
	}
	return false;
}

/* --- seal ------------------------------------------------------------------------------------------------------------- */

static int sync_names(struct npk_store *s, struct npki_names *dirty, struct npk_err *err)
{
	npki_names_sort(dirty);
	return npki_sync_files(s->dirfd, dirty->path, dirty->n, err);
}

/* Under w->lock. */
void npki_drop_sealed(struct npki_writer *w, uint64_t upto)
{
	size_t kept = 0;

	for (size_t i = 0; i < w->nunsealed; i++)
		if (w->unsealed[i].seq <= upto)
			free(w->unsealed[i].path);
		else
			w->unsealed[kept++] = w->unsealed[i];
	w->nunsealed = kept;
	kept = w->redo_spans = 0;
	for (size_t i = 0; i < w->nredo; i++)
		if (w->redo[i].seq <= upto) {
			free(w->redo[i].path);
			free(w->redo[i].at);
		} else {
			w->redo_spans += w->redo[i].n;
			w->redo[kept++] = w->redo[i];
		}
	w->nredo = kept;
}

/* What is dirty now, taken out of the writer; everything up to *upto relies on it. Under w->lock. */
void npki_take_dirty(struct npki_writer *w, struct npki_names *dirty, bool *new_names, uint64_t *upto)
{
	*dirty = w->dirty;
	w->dirty = (struct npki_names){0};
	w->dirty_sorted = 0;
	*new_names = w->new_names;
	w->new_names = false;
	*upto = w->seq;
}

int npki_sync_dirty(struct npk_store *s, struct npki_names *dirty, bool new_names, struct npk_err *err)
{
	int rc = sync_names(s, dirty, err);

	if (rc == 0 && new_names)
		rc = npki_sync_dir(s->dirfd, err);
	return rc;
}

static int seal(struct npk_store *s, struct npk_err *err)
{
	struct npki_writer *w = s->writer;
	struct npki_names dirty;
	struct npk_text p = {0};
	uint64_t upto;
	bool new_names;
	int rc = 0, jfd, prev;

	pthread_mutex_lock(&w->lock);
	if (w->failed)
		rc = npk_fail(err, EIO, "%.500s", w->why);
	if (rc != 0 || w->jfd < 0) {
		pthread_mutex_unlock(&w->lock);
		return rc;
	}
	npki_take_dirty(w, &dirty, &new_names, &upto);
	pthread_mutex_unlock(&w->lock);
	rc = npki_sync_dirty(s, &dirty, new_names, err);
	npki_names_fini(&dirty);
	pthread_mutex_lock(&w->lock);
	npki_put_u64(&p, upto);
	if (rc == 0)
		rc = p.bad ? npk_fail(err, ENOMEM, "no memory") : write_record(s, NPKI_JSEAL, p.p, p.len, err);
	jfd = w->jfd;
	prev = w->prev_fd;
	pthread_mutex_unlock(&w->lock);
	if (rc == 0 && prev >= 0)
		rc = npki_sync_fd(prev, NPKI_JOURNAL, err);
	if (rc == 0)
		rc = npki_sync_fd(jfd, NPKI_JOURNAL, err);
	pthread_mutex_lock(&w->lock);
	if (rc == 0)
		npki_drop_sealed(w, upto);
	else
		npki_fail_store(w, rc, err ? err : &(struct npk_err){EIO, "a sync failed"});
	pthread_mutex_unlock(&w->lock);
	npk_text_fini(&p);
	return rc;
}

int npki_seal(struct npk_store *s, struct npk_err *err)
{
	struct npk_err why = {0};
	int rc;

	pthread_mutex_lock(&s->writer->sync_lock);
	rc = seal(s, &why);
	pthread_mutex_unlock(&s->writer->sync_lock);
	return rc ? npk_fail(err, why.code, "%s", why.msg) : 0;
}
