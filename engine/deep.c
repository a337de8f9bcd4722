/* deep.c - see deep.h. */
#include "deep.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK ((size_t)1 << 20)
#define SECTOR ((size_t)4096) /* the least that is read alone, to find out which bytes are bad */

/* --- every byte ------------------------------------------------------------------------------------------------------- */

struct reading {
	struct npki_notes *notes;
	const struct npk_verify *how;
	uint8_t *block;
	uint64_t done, all;
	const char *path;
	uint64_t bad_from, bad_to; /* bytes that could not be read, not told yet */
	int bad_code;
};

static void tell_bad(struct reading *r)
{
	if (r->bad_to > r->bad_from)
		npki_note(r->notes, NPK_DAMAGE, "%.300s: byte %" PRIu64 ": cannot be read, %" PRIu64 " bytes: %s",
			r->path, r->bad_from, r->bad_to - r->bad_from, strerror(r->bad_code));
	r->bad_from = r->bad_to = 0;
}

static void add_bad(struct reading *r, uint64_t at, uint64_t len, int code)
{
	if (r->bad_to != at || r->bad_code != code) {
		tell_bad(r);
		r->bad_from = at;
	}
	r->bad_to = at + len;
	r->bad_code = code;
}

/* Block by block; one that fails is read again in small pieces. Returns 1 at the end of a file that became shorter. */
static int read_piece(struct reading *r, int fd, uint64_t at, size_t len)
{
	ssize_t n;

	for (size_t got = 0; got < len; got += (size_t)n) {
		n = npki_pread_some(fd, r->block, len - got, at + got, r->path);
		if (n == 0) {
			npki_note(r->notes, NPK_WARNING, "%.300s: byte %" PRIu64 ": the file became shorter", r->path,
				at + got);
			return 1;
		}
		if (n > 0)
			continue;
		if (len - got <= SECTOR) {
			add_bad(r, at + got, len - got, (int)-n);
			return 0;
		}
		for (size_t i = got; i < len; i += SECTOR)
			if (read_piece(r, fd, at + i, len - i < SECTOR ? len - i : SECTOR) != 0)
				return 1;
		return 0;
	}
	return 0;
}

static int go_on(struct reading *r, struct npk_err *err)
{
	if (r->how->progress && !r->how->progress(r->how->ctx, r->done < r->all ? r->done : r->all, r->all))
		return npk_fail(err, ECANCELED, "the check was ended");
	return 0;
}

static int read_file(struct reading *r, int dirfd, struct npk_err *err)
{
	struct stat st;
	int fd, rc = npki_open_file(dirfd, r->path, &fd, &st, err), over = 0;

	if (rc == -ENOENT || rc == -EUCLEAN) /* whoever needs this file has said so */
		return 0;
	if (rc != 0)
		return rc;
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); /* what is in memory says nothing of the device */
	posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	for (uint64_t at = 0; rc == 0 && !over && at < (uint64_t)st.st_size; at += BLOCK) {
		size_t n = (uint64_t)st.st_size - at < BLOCK ? (size_t)((uint64_t)st.st_size - at) : BLOCK;

		over = read_piece(r, fd, at, n);
		r->done += n;
		rc = go_on(r, err);
	}
	tell_bad(r);
	close(fd);
	return rc;
}

int npki_deep_read(int dirfd, const struct npki_names *files, const struct npk_verify *how, struct npki_notes *notes,
	struct npk_err *err)
{
	struct reading r = {.notes = notes, .how = how, .block = malloc(BLOCK)};
	struct npki_file_id id;
	int rc = r.block ? 0 : npk_fail(err, ENOMEM, "no memory");

	for (size_t i = 0; i < files->n; i++)
		if (npki_stat_file(dirfd, files->path[i], &id, NULL) == 0)
			r.all += id.size;
	if (rc == 0)
		rc = go_on(&r, err);
	for (size_t i = 0; i < files->n && rc == 0; i++) {
		r.path = files->path[i];
		rc = read_file(&r, dirfd, err);
	}
	free(r.block);
	return rc;
}

/* --- the journal ------------------------------------------------------------------------------------------------------ */

/* What follows the last whole record. */
static void check_tail(const struct npki_jfile *f, const char *path, struct npki_notes *notes)
{
	size_t behind = npki_jfile_behind(f);

	if (f->end.pos == f->len)
		return;
	if (behind)
		npki_note(notes, NPK_DAMAGE,
			"%s: byte %" PRIu64 ": the record behind change %" PRIu64
			" does not fit its checksum, %zu whole "
			"records follow it",
			path, f->end.pos, f->seq, behind);
	else
		npki_note(notes, NPK_WARNING,
			"%s: byte %" PRIu64 ": %" PRIu64 " bytes behind change %" PRIu64
			" are no whole record: a change "
			"was interrupted",
			path, f->end.pos, f->len - f->end.pos, f->seq);
}

static int check_file(struct npk_store *s, const char *path, struct npki_jfile *f, struct npki_notes *notes, bool next,
	struct npk_err *err)
{
	int rc = npki_jfile_read(s->dirfd, path, f, err);

	if (rc != 0 || !f->buf)
		return rc;
	if (f->exists)
		check_tail(f, path, notes);
	else if (!next || f->len > NPKI_JHEAD_LEN) /* the next one is made in place: a crash may cut its header */
		npki_note(notes, NPK_DAMAGE, "%s: byte 0: the header, %" PRIu64 " bytes are there, is none", path,
			f->len < NPKI_JHEAD_LEN ? f->len : NPKI_JHEAD_LEN);
	return 0;
}

/* Records that no seal covers rely on bytes that may not have reached the disk; recovery stops at the first of them. */
static void check_data(
	struct npk_store *s, const struct npki_jfile *f, uint64_t sealed, const char *path, struct npki_notes *notes)
{
	for (size_t i = f->from; i < f->nrecs; i++)
		if (f->rec[i].kind == NPKI_JOP && f->rec[i].seq > sealed && !npki_jrec_holds(s, &f->rec[i])) {
			npki_note(notes, NPK_WARNING,
				"%s: byte %zu: the data of change %" PRIu64 " is not on the disk: it and what follows "
				"was lost in a crash",
				path, (size_t)(f->rec[i].payload - f->buf) - 13, f->rec[i].seq);
			return;
		}
}

int npki_deep_journal(struct npk_store *s, struct npki_notes *notes, struct npk_err *err)
{
	struct npki_jfile old = {0}, next = {0};
	char owner[NPK_OWNER_MAX];
	struct npk_err why;
	int rc = npki_lock_owner(s->dirfd, owner, err);

	if (rc == 1) {
		npki_note(
			notes, NPK_NOTE, NPKI_JOURNAL ": is not checked while the store is being written by %s", owner);
		return 0;
	}
	if (rc == 0)
		rc = check_file(s, NPKI_JOURNAL, &old, notes, false, err);
	if (rc == 0)
		rc = check_file(s, NPKI_JOURNAL_NEXT, &next, notes, true, err);
	if (rc == 0 && (old.exists || next.exists) && npki_journal_fits(s, &why) == -EBUSY)
		npki_note(notes, NPK_DAMAGE, "%s", why.msg);
	if (rc == 0 && old.exists) {
		uint64_t sealed = next.sealed > old.sealed ? next.sealed : old.sealed;

		if (next.exists && next.head.prev_chain != old.tail_chain)
			npki_note(notes, NPK_DAMAGE,
				NPKI_JOURNAL_NEXT ": byte 40: does not go on where " NPKI_JOURNAL " ends");
		check_data(s, &old, sealed, NPKI_JOURNAL, notes);
		check_data(s, &next, sealed, NPKI_JOURNAL_NEXT, notes);
		npki_note(notes, NPK_NOTE,
			NPKI_JOURNAL ": %zu records up to change %" PRIu64 " wait for the next open for writing",
			old.nrecs + next.nrecs, next.exists ? next.seq : old.seq);
	}
	npki_jfile_fini(&old);
	npki_jfile_fini(&next);
	return rc;
}
