/* recover.c - what a dead writer left: its last checkpoint is finished, the records behind it are verified and applied,
 * and a checkpoint of its own makes that the state on disk. Cut anywhere and run again it gives the same result. */
#include "writer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct recovery {
	struct npk_store *s;
	struct npki_jfile old, next; /* the journal, and the one that goes on behind it */
	struct npki_jrec *rec;       /* of both, in order */
	size_t nrecs, from;          /* from: the first behind the last checkpoint */
	uint64_t sealed;
	struct npki_names known;  /* files that records name: ours, or to be removed */
	struct npki_names tails;  /* arrays that may have bytes behind their last row */
	struct npki_names synced; /* files that the state relies on */
	uint64_t applied;         /* the last record that holds */
	bool stopped;             /* there was one that does not */
	struct npk_err *err;
};

/* --- walking a record ------------------------------------------------------------------------------------------------- */

struct fact {
	uint8_t tag;
	const char *name, *file; /* borrowed; either may be NULL */
	size_t name_len, file_len;
	uint64_t off, len;
	uint32_t crc;
	struct npki_writes writes;
	const char *source; /* of a copy */
	size_t source_len;
	uint64_t source_off;
};

/* The next item of an operation's payload; false at its end or when it makes no sense. */
static bool take_fact(struct npki_rd *r, struct fact *f)
{
	if (r->p >= r->end || r->bad)
		return false;
	*f = (struct fact){.tag = npki_rd_u8(r)};
	if (strchr("OEZWP", f->tag))
		f->file = npki_take_bytes(r, &f->file_len);
	else
		f->name = npki_take_bytes(r, &f->name_len);
	switch (f->tag) {
	case NPKI_J_SET:
		npki_rd_u8(r);
		npki_rd_take(r, 8 * (uint64_t)npki_rd_u32(r));
		f->file = npki_take_bytes(r, &f->file_len);
		npki_rd_u64(r);
		break;
	case NPKI_J_CLEAR:
		npki_rd_u64(r);
		npki_rd_take(r, 16 * (npki_rd_u64(r) & (UINT64_MAX >> 4)));
		break;
	case NPKI_J_GROW:
		npki_rd_take(r, 16);
		f->file = npki_take_bytes(r, &f->file_len);
		break;
	case NPKI_J_FILE:
		f->file = npki_take_bytes(r, &f->file_len);
		break;
	case NPKI_J_MOVE:
		f->name = npki_take_bytes(r, &f->name_len);
		break;
	case NPKI_J_TIME:
		npki_rd_u64(r);
		break;
	case NPKI_J_EXTENT:
		f->off = npki_rd_u64(r);
		f->len = npki_rd_u64(r);
		f->crc = npki_rd_u32(r);
		break;
	case NPKI_J_ZERO:
		f->len = npki_rd_u64(r);
		break;
	case NPKI_J_WRITE:
		f->writes = npki_take_writes(r);
		break;
	case NPKI_J_COPY:
		f->off = npki_rd_u64(r);
		f->len = npki_rd_u64(r);
		f->source = npki_take_bytes(r, &f->source_len);
		f->source_off = npki_rd_u64(r);
		break;
	default:
		break;
	}
	return !r->bad;
}

static int add_name(struct npki_names *l, const char *p, size_t len)
{
	char *copy;
	int rc;

	if (!p || memchr(p, 0, len))
		return -EUCLEAN;
	copy = strndup(p, len);
	rc = copy ? npki_names_add(l, copy) : -ENOMEM;
	free(copy);
	return rc;
}

/* --- verifying -------------------------------------------------------------------------------------------------------- */

/* Whether the bytes that a record relies on are there. */
static bool extent_holds(struct npk_store *s, const struct fact *f)
{
	char *path = strndup(f->file, f->file_len);
	uint8_t buf[65536];
	uint32_t crc = 0;
	uint64_t at = 0;
	int fd = -1;
	bool ok =
		path && npki_is_plain_path(path, strlen(path)) && npki_open_file(s->dirfd, path, &fd, NULL, NULL) == 0;

	while (ok && at < f->len) {
		size_t n = f->len - at < sizeof(buf) ? (size_t)(f->len - at) : sizeof(buf);

		ok = npki_pread_all(fd, buf, n, f->off + at, path, NULL) == 0;
		crc = ok ? npki_crc32c(crc, buf, n) : crc;
		at += n;
	}
	if (fd >= 0)
		close(fd);
	free(path);
	return ok && crc == f->crc;
}

/* A file that was grown has its length, or it is given it: its bytes are zeros either way. */
static bool zero_holds(struct npk_store *s, const struct fact *f)
{
	char *path = strndup(f->file, f->file_len);
	struct npki_file_id id = {0};
	bool ok = path && npki_is_plain_path(path, strlen(path)) && npki_stat_file(s->dirfd, path, &id, NULL) == 0 &&
		  id.exists && id.size >= f->len;

	free(path);
	return ok;
}

bool npki_jrec_holds(struct npk_store *s, const struct npki_jrec *rec)
{
	struct npki_rd rd = npki_rd_init(rec->payload, rec->len);
	struct fact f;

	while (take_fact(&rd, &f))
		if ((f.tag == NPKI_J_EXTENT && !extent_holds(s, &f)) || (f.tag == NPKI_J_ZERO && !zero_holds(s, &f)))
			return false;
	return !rd.bad;
}

static bool record_holds(const struct recovery *r, const struct npki_jrec *rec)
{
	return rec->seq <= r->sealed || npki_jrec_holds(r->s, rec);
}

/* What a record names, whether it is applied or not. */
static int note_names(struct recovery *r, const struct npki_jrec *rec, bool applied)
{
	struct npki_rd rd = npki_rd_init(rec->payload, rec->len);
	struct fact f;
	int rc = 0;

	while (rc == 0 && take_fact(&rd, &f)) {
		if (f.file && f.tag != NPKI_J_WRITE && f.tag != NPKI_J_COPY && f.tag != NPKI_J_GROW)
			rc = add_name(&r->known, f.file, f.file_len);
		if (rc == 0 && f.file && applied)
			rc = add_name(&r->synced, f.file, f.file_len);
		if (rc == 0 && f.name && f.tag != NPKI_J_DEL)
			rc = add_name(&r->tails, f.name, f.name_len);
	}
	return rc;
}

/* --- the records ------------------------------------------------------------------------------------------------------ */

static int join(struct recovery *r)
{
	bool goes_on = r->next.exists && (!r->old.exists || r->next.head.prev_chain == r->old.tail_chain);
	size_t n = r->old.nrecs + (goes_on ? r->next.nrecs : 0);

	r->rec = malloc((n + 1) * sizeof(*r->rec));
	if (!r->rec)
		return -ENOMEM;
	if (r->old.nrecs)
		memcpy(r->rec, r->old.rec, r->old.nrecs * sizeof(*r->rec));
	if (goes_on && r->next.nrecs)
		memcpy(r->rec + r->old.nrecs, r->next.rec, r->next.nrecs * sizeof(*r->rec));
	r->nrecs = n;
	r->from = goes_on && r->next.from ? r->old.nrecs + r->next.from : r->old.from;
	r->sealed = goes_on && r->next.sealed > r->old.sealed ? r->next.sealed : r->old.sealed;
	return 0;
}

struct hash_sum {
	uint64_t hash;
};

static int add_hash(void *ctx, const struct npki_ameta *m, struct npk_err *err)
{
	struct hash_sum *h = ctx;
	struct npki_entry *e = npki_entry_new(m);

	if (!e)
		return npk_fail(err, ENOMEM, "no memory");
	h->hash ^= npki_entry_hash(m->name, m->name_len, e);
	npki_entry_put(e);
	return 0;
}

static int disk_hash(struct npk_store *s, uint64_t *hash, struct npki_file_id *id, struct npk_err *err)
{
	struct hash_sum sum = {0};
	struct npki_meta meta;
	uint8_t *buf = NULL;
	size_t len;
	int rc = npki_read_metadata(s->dirfd, &buf, &len, id, err);

	if (rc == 0 && buf)
		rc = npki_meta_parse(buf, len, &meta, add_hash, &sum, NULL, err);
	free(buf);
	if (rc == 0)
		*hash = sum.hash;
	return rc;
}

int npki_disk_hash(struct npk_store *s, uint64_t *hash, struct npk_err *err)
{
	struct npki_file_id id;

	return disk_hash(s, hash, &id, err);
}

/* The metadata must be one that our journal knows; else somebody else wrote meanwhile. */
static int check_base(struct recovery *r, uint64_t hash)
{
	const struct npki_jrec *ck = r->from ? &r->rec[r->from - 1] : NULL;
	struct npki_rd rd;

	if (!ck && hash == r->old.head.base_hash)
		return 0;
	if (ck) {
		rd = npki_rd_init(ck->payload, ck->len);
		while (rd.p < rd.end && !rd.bad) {
			uint8_t step = npki_rd_u8(&rd);

			if (step == NPKI_C_HASH) {
				if (npki_rd_u64(&rd) == hash && !rd.bad)
					return 0;
				continue;
			}
			npki_rd_take(&rd, npki_rd_u32(&rd));
			if (step == NPKI_C_MOVE) {
				npki_rd_take(&rd, npki_rd_u32(&rd));
				npki_rd_u32(&rd);
			}
		}
	}
	return npk_fail(r->err, EBUSY,
		NPKI_META_FILE ": was changed by another program since " NPKI_JOURNAL
			       " was written: npk repair --discard-journal keeps its "
			       "changes and loses ours, npk repair --replay goes back to " NPKI_BASE " and to ours");
}

/* Applies what holds, in order, up to the first record that does not. */
static int apply_records(struct recovery *r)
{
	bool stop = false;
	int rc = 0;

	for (size_t i = r->from; i < r->nrecs && rc == 0; i++) {
		const struct npki_jrec *rec = &r->rec[i];

		if (rec->kind != NPKI_JOP)
			continue;
		stop = stop || !record_holds(r, rec);
		if (!stop)
			rc = npki_apply(r->s, rec->payload, rec->len, r->err);
		if (rc == 0 && note_names(r, rec, !stop) == -ENOMEM)
			rc = npk_fail(r->err, ENOMEM, "no memory for recovery");
		if (!stop) /* the rest is only looked through for names */
			r->applied = rec->seq;
	}
	r->stopped = stop;
	return rc;
}

static int sync_list(struct recovery *r, struct npki_names *l)
{
	int rc = 0;

	npki_names_sort(l);
	for (size_t i = 0; i < l->n && rc == 0; i++)
		rc = npki_sync_file(r->s->dirfd, l->path[i], r->err);
	return rc;
}

/* A path from a record, as a string. -EUCLEAN: it cannot be one. */
static int take_redo_path(const char *p, size_t len, char path[4096])
{
	if (!p || len >= 4096 || !npki_is_plain_path(p, len))
		return -EUCLEAN;
	memcpy(path, p, len);
	path[len] = 0;
	return 0;
}

/* The bytes of a copy lie in a file that the record's checksum has covered. */
static int redo_copy(struct recovery *r, const struct fact *f, int fd, const char *path)
{
	char source[4096];
	uint8_t buf[65536];
	int from, rc = take_redo_path(f->source, f->source_len, source);

	if (rc == 0)
		rc = npki_open_file(r->s->dirfd, source, &from, NULL, r->err);
	if (rc != 0)
		return rc == -EUCLEAN ? npk_fail(r->err, EUCLEAN, NPKI_JOURNAL ": a copy has no source") : rc;
	for (uint64_t at = 0; at < f->len && rc == 0;) {
		size_t n = f->len - at < sizeof(buf) ? (size_t)(f->len - at) : sizeof(buf);

		rc = npki_pread_all(from, buf, n, f->source_off + at, source, r->err);
		if (rc == 0)
			rc = npki_pwrite_all(fd, buf, n, f->off + at, path, r->err);
		at += n;
	}
	close(from);
	return rc;
}

static int redo_spans(const struct recovery *r, const struct npki_writes *w, int fd, const char *path)
{
	uint64_t done = 0;
	int rc = 0;

	for (uint64_t i = 0; i < w->count && rc == 0; i++) {
		struct npki_span at = npki_span_at(w, i);

		if (at.len > w->len - done)
			return npk_fail(r->err, EUCLEAN,
				NPKI_JOURNAL ": a record has %" PRIu64 " bytes to write, its places are more", w->len);
		rc = npki_pwrite_all(fd, w->bytes + done, at.len, at.off, path, r->err);
		done += at.len;
	}
	return rc;
}

/* One of them; a file that did not survive a later record is passed over. */
static int redo_write(struct recovery *r, const struct fact *f)
{
	char path[4096];
	int fd, rc = take_redo_path(f->file, f->file_len, path);

	if (rc != 0)
		return npk_fail(r->err, EUCLEAN, NPKI_JOURNAL ": a record names no file");
	rc = npki_open_rw(r->s->dirfd, path, &fd, r->err);
	if (rc != 0)
		return rc == -ENOENT ? 0 : rc;
	rc = f->tag == NPKI_J_WRITE ? redo_spans(r, &f->writes, fd, path) : redo_copy(r, f, fd, path);
	close(fd);
	if (rc == 0 && npki_names_add(&r->synced, path) != 0)
		rc = npk_fail(r->err, ENOMEM, "no memory for recovery");
	return rc;
}

/* Redos that no seal covered, again: what they write is in the records, or in a file that they name. */
static int redo_writes(struct recovery *r)
{
	struct npki_rd rd;
	struct fact f;
	int rc = 0;

	for (size_t i = r->from; i < r->nrecs && rc == 0; i++) {
		const struct npki_jrec *rec = &r->rec[i];

		if (rec->kind != NPKI_JOP || rec->seq <= r->sealed || rec->seq > r->applied)
			continue;
		rd = npki_rd_init(rec->payload, rec->len);
		while (rc == 0 && take_fact(&rd, &f))
			if (f.tag == NPKI_J_WRITE || f.tag == NPKI_J_COPY)
				rc = redo_write(r, &f);
	}
	return rc;
}

/* Bytes behind the last row of arrays that were being appended to. */
static int cut_tails(struct recovery *r)
{
	int rc = 0;

	npki_names_sort(&r->tails);
	for (size_t i = 0; i < r->tails.n && rc == 0; i++) {
		struct npk_array *a = npki_table_find(r->s, r->tails.path[i], strlen(r->tails.path[i]));
		struct npki_file_id id = {0};
		uint64_t row_bytes, bytes = 0;
		int fd;

		if (a && !a->entry->damage && !npki_is_manifest(a->entry->file) &&
			npki_shape_bytes(&a->entry->shape, npk_dtype_size(a->entry->dtype), &row_bytes, &bytes) == 0 &&
			npki_stat_file(r->s->dirfd, a->entry->file, &id, NULL) == 0 && id.size > bytes) {
			rc = npki_open_rw(r->s->dirfd, a->entry->file, &fd, r->err);
			if (rc == 0) {
				rc = npki_truncate(fd, bytes, a->entry->file, r->err);
				close(fd);
			}
			if (rc == 0 && npki_names_add(&r->synced, a->entry->file) != 0)
				rc = npk_fail(r->err, ENOMEM, "no memory for recovery");
		}
		npk_array_put(a);
	}
	return rc;
}

/* The page cache of a killed process is not durable yet, whatever it was told: one syncfs for all its in-place writes. */
static int sync_everything(struct recovery *r)
{
	struct npk_array **list;
	size_t n;
	int rc = npk_store_list(r->s, &list, &n, r->err);

	if (rc != 0)
		return rc;
	for (size_t i = 0; i < n && rc == 0; i++)
		if (!list[i]->entry->damage)
			rc = npki_names_add(&r->synced, list[i]->entry->file);
	npk_store_list_free(list, n);
	rc = rc ? npk_fail(r->err, ENOMEM, "no memory for recovery") : sync_list(r, &r->synced);
	return rc;
}

struct dead {
	uint64_t nonce[2];
	struct npki_names *names;
};

static int add_dead(void *ctx, int fd, const char *name, struct npk_err *err)
{
	const struct dead *d = ctx;
	char data[32], temp[32];

	(void)fd;
	for (int i = 0; i < 2; i++) {
		snprintf(data, sizeof(data), "data_.npk-%010" PRIx64, d->nonce[i]);
		snprintf(temp, sizeof(temp), ".npk-%010" PRIx64, d->nonce[i]);
		if (strncmp(name, data, strlen(data)) == 0 || strncmp(name, temp, strlen(temp)) == 0)
			return npki_names_add(d->names, name) == 0 ? 0
								   : npk_fail(err, ENOMEM, "no memory for recovery");
	}
	return 0;
}

/* Files that carry a nonce of ours, and files that records name, but that no array has. */
static int find_dead(struct recovery *r, struct npki_names *dead)
{
	const uint64_t nonce = r->old.head.nonce;
	struct dead d = {{nonce, r->next.exists ? r->next.head.nonce : nonce}, dead};
	int rc = npki_each_name(r->s->dirfd, ".", add_dead, &d, r->err);

	for (size_t i = 0; i < r->known.n && rc == 0; i++)
		if (npki_names_add(dead, r->known.path[i]) != 0)
			rc = npk_fail(r->err, ENOMEM, "no memory for recovery");
	return rc;
}

/* A CHECKPOINT in a fresh journal that replaces the old one by rename: nothing is appended behind a damaged tail. */
static int finish(struct recovery *r)
{
	struct npk_store *s = r->s;
	struct npki_writer *w = s->writer;
	struct npki_snapshot n = {0};
	struct npk_text payload = {0}, rec = {0};
	uint8_t head[NPKI_JHEAD_LEN];
	uint32_t chain;
	int fd = -1, rc = find_dead(r, &w->retired);

	w->seq = r->next.exists && r->next.seq > r->old.seq ? r->next.seq : r->old.seq;
	w->nonce = r->old.head.nonce;
	w->counter = (uint32_t)(0x800000 | (w->clock_us & 0x7FFFFF));
	if (rc == 0)
		rc = npki_snapshot_take(s, &n, r->err);
	if (rc == 0)
		rc = npki_images(s, &n, &payload, r->err);
	if (rc == 0) {
		npki_jhead_write(head, &(struct npki_jhead){w->nonce, n.old_hash, w->seq, 0}, &chain);
		npki_jrec_write(&rec, NPKI_JCKPT, w->seq, payload.p, payload.len, &chain);
		rc = rec.bad ? npk_fail(r->err, ENOMEM, "no memory for recovery")
			     : npki_unlink(s->dirfd, NPKI_JOURNAL_NEW, r->err);
	}
	if (rc == 0)
		rc = npki_create(s->dirfd, NPKI_JOURNAL_NEW, &fd, r->err);
	if (rc == 0)
		rc = npki_pwrite_all(fd, head, sizeof(head), 0, NPKI_JOURNAL_NEW, r->err);
	if (rc == 0)
		rc = npki_pwrite_all(fd, rec.p, rec.len, sizeof(head), NPKI_JOURNAL_NEW, r->err);
	if (rc == 0)
		rc = npki_sync_fd(fd, NPKI_JOURNAL_NEW, r->err);
	if (fd >= 0)
		close(fd);
	if (rc == 0)
		rc = npki_rename(s->dirfd, NPKI_JOURNAL_NEW, NPKI_JOURNAL, r->err);
	if (rc == 0)
		rc = npki_sync_dir(s->dirfd, r->err);
	if (rc == 0)
		rc = npki_redo_checkpoint(s, payload.p, payload.len, r->err);
	npki_snapshot_fini(&n);
	npk_text_fini(&payload);
	npk_text_fini(&rec);
	return rc;
}

/* Journals that have nothing to say any more. */
static int remove_journals(struct recovery *r)
{
	int dirfd = r->s->dirfd, rc = npki_unlink(dirfd, NPKI_JOURNAL_NEXT, r->err);

	if (rc == 0)
		rc = npki_unlink(dirfd, NPKI_JOURNAL_NEW, r->err);
	if (rc == 0)
		rc = npki_sync_dir(dirfd, r->err);
	if (rc == 0)
		rc = npki_unlink(dirfd, NPKI_JOURNAL, r->err);
	if (rc == 0)
		rc = npki_unlink(dirfd, NPKI_BASE, r->err);
	return rc == 0 ? npki_sync_dir(dirfd, r->err) : rc;
}

/* There is no journal, or one that was cut while it was made: nothing has changed yet. */
static int remove_leftovers(struct recovery *r)
{
	int rc;

	if (r->old.buf || r->next.buf)
		return remove_journals(r);
	rc = npki_unlink(r->s->dirfd, NPKI_JOURNAL_NEW, r->err);
	return rc == 0 ? npki_unlink(r->s->dirfd, NPKI_BASE, r->err) : rc;
}

/* What was read may lie in the page cache of a killed process only: durable before anything rests on it. */
static int sync_journals(struct recovery *r)
{
	int rc = npki_sync_file(r->s->dirfd, NPKI_JOURNAL, r->err);

	if (rc == 0)
		rc = npki_sync_file(r->s->dirfd, NPKI_JOURNAL_NEXT, r->err);
	return rc == 0 ? npki_sync_dir(r->s->dirfd, r->err) : rc;
}

static int read_journals(struct recovery *r)
{
	int rc = npki_jfile_read(r->s->dirfd, NPKI_JOURNAL, &r->old, r->err);

	if (rc == 0 && !r->old.exists &&
		r->old.len > NPKI_JHEAD_LEN) /* a header is durable before a record is written */
		rc = npk_fail(r->err, EUCLEAN,
			NPKI_JOURNAL ": byte 0: its header is damaged, and %" PRIu64
				     " bytes of records follow: npk repair --discard-journal goes on without them",
			r->old.len - NPKI_JHEAD_LEN);
	if (rc == 0)
		rc = npki_jfile_read(r->s->dirfd, NPKI_JOURNAL_NEXT, &r->next, r->err);
	if (rc == 0 && !r->old.exists && r->next.exists &&
		!r->old.buf) { /* the last rename came before the power went */
		r->old = r->next;
		r->next = (struct npki_jfile){0};
	}
	if (rc == 0 && r->old.exists && join(r) != 0)
		rc = npk_fail(r->err, ENOMEM, "no memory for recovery");
	return rc;
}

static void recovery_fini(struct recovery *r)
{
	npki_jfile_fini(&r->old);
	npki_jfile_fini(&r->next);
	npki_names_fini(&r->known);
	npki_names_fini(&r->tails);
	npki_names_fini(&r->synced);
	free(r->rec);
}

static int reread(struct recovery *r)
{
	int rc = npki_reload_metadata(r->s, r->err);

	if (rc == 0)
		rc = npki_disk_hash(r->s, &r->s->writer->disk_hash, r->err);
	r->s->writer->hash = r->s->writer->disk_hash;
	return rc;
}

static int recover(struct recovery *r)
{
	uint64_t hash = 0;
	int rc = sync_journals(r);

	if (rc == 0)
		rc = npki_disk_hash(r->s, &hash, r->err);
	if (rc == 0 && !r->s->writer->replay_anyway)
		rc = check_base(r, hash);
	if (rc == 0 && r->from)
		rc = npki_redo_checkpoint(r->s, r->rec[r->from - 1].payload, r->rec[r->from - 1].len, r->err);
	if (rc == 0)
		rc = reread(r);
	if (rc == 0)
		rc = apply_records(r);
	if (rc == 0)
		rc = sync_list(r, &r->synced); /* what lets replay reach a redo, before the redo */
	if (rc == 0)
		rc = redo_writes(r);
	if (rc == 0)
		rc = cut_tails(r);
	if (rc == 0)
		rc = sync_everything(r);
	if (rc == 0)
		rc = finish(r);
	return rc == 0 ? remove_journals(r) : rc;
}

int npki_journal_fits(struct npk_store *s, struct npk_err *err)
{
	struct recovery r = {.s = s, .err = err};
	uint64_t hash = 0;
	int rc = read_journals(&r);

	if (rc == 0 && r.old.exists) {
		rc = npki_disk_hash(s, &hash, err);
		if (rc == 0)
			rc = check_base(&r, hash);
	}
	recovery_fini(&r);
	return rc;
}

int npki_recover(struct npk_store *s, struct npk_err *err)
{
	struct recovery r = {.s = s, .err = err};
	int rc = read_journals(&r);

	if (rc == 0 && !r.old.exists)
		rc = remove_leftovers(&r);
	else if (rc == 0)
		rc = recover(&r);
	recovery_fini(&r);
	if (rc == 0) {
		npki_touched_fini(&s->writer->touched);
		s->writer->round++;
	}
	return rc;
}

/* --- reading beside a writer ------------------------------------------------------------------------------------------ */

#define READ_TRIES 500
#define READ_WAIT_US 10000

/* The state that the journal gives, once. -EAGAIN: a checkpoint is under way, or the table is of another metadata than the
 * one on disk, which the journal changes. */
static int replay_once(struct npk_store *s, struct npk_err *err)
{
	struct recovery r = {.s = s, .err = err};
	struct npki_file_id id;
	uint64_t hash = 0;
	int rc = read_journals(&r);

	if (rc == 0 && r.old.exists) {
		rc = disk_hash(s, &hash, &id, err);
		if (rc == 0 && (r.from || hash != r.old.head.base_hash || !npki_file_id_same(&id, &s->meta_id)))
			rc = npk_fail(err, EAGAIN,
				NPKI_JOURNAL ": a checkpoint is not finished: the store must be opened for "
					     "writing once");
		if (rc == 0)
			rc = apply_records(&r);
		if (rc == 0 && !r.stopped && !r.next.exists)
			s->followed = r.old.end;
	}
	recovery_fini(&r);
	return rc;
}

/* The metadata must be what it was. A checkpoint that has begun, or is in the journal, ends it. */
int npki_follow_journal(struct npk_store *s, struct npk_err *err)
{
	struct recovery r = {.s = s, .err = err};
	struct npki_file_id next;
	int rc = 0;

	if (s->followed.ino == 0)
		return 0;
	rc = npki_jfile_read_on(s->dirfd, NPKI_JOURNAL, &s->followed, &r.old, err);
	if (rc == 0)
		rc = npki_stat_file(s->dirfd, NPKI_JOURNAL_NEXT, &next, err);
	if (rc == 0 && r.old.exists && !next.exists) {
		rc = join(&r) == 0 ? 0 : npk_fail(err, ENOMEM, "no memory for the journal");
		if (rc == 0 && r.from == 0)
			rc = apply_records(&r) == 0 && !r.stopped;
	}
	s->followed = rc > 0 ? r.old.end : (struct npki_jplace){0};
	recovery_fini(&r);
	return rc;
}

int npki_replay_readonly(struct npk_store *s, struct npk_err *err)
{
	int rc = -EAGAIN;

	s->followed = (struct npki_jplace){0};
	for (int i = 0; i < READ_TRIES && rc == -EAGAIN; i++) {
		if (i > 0) {
			usleep(READ_WAIT_US);
			rc = npki_reload_metadata(s, err);
			if (rc != 0)
				return rc;
		}
		rc = replay_once(s, err);
	}
	return rc == -EAGAIN ? npk_fail(err, EBUSY,
				       "%.300s: " NPKI_JOURNAL " holds an unfinished checkpoint: open the store for "
				       "writing once",
				       s->path)
			     : rc;
}
