/* repair.c - npk_repair(): the journal first, then the list of arrays, each array, and what lies about. */
#include "repair.h"
#include "text.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- the plan --------------------------------------------------------------------------------------------------------- */

int npki_r_no_memory(struct npki_repair *r)
{
	return npk_fail(r->err, ENOMEM, "no memory");
}

static int tell(struct npki_repair *r, bool left, const char *array, const char *file, uint64_t byte, const char *what,
	const char *old_value, const char *new_value)
{
	struct npki_rtold *more, *t;

	if ((r->ntold & (r->ntold - 1)) == 0) {
		more = realloc(r->told, (r->ntold ? 2 * r->ntold : 1) * sizeof(*more));
		if (!more)
			return npki_r_no_memory(r);
		r->told = more;
	}
	t = &r->told[r->ntold++];
	*t = (struct npki_rtold){left, array ? strdup(array) : NULL, strdup(file), strdup(what),
		old_value ? strdup(old_value) : NULL, new_value ? strdup(new_value) : NULL, byte};
	return (array && !t->array) || !t->file || !t->what || (old_value && !t->old_value) ||
			       (new_value && !t->new_value)
		       ? npki_r_no_memory(r)
		       : 0;
}

int npki_r_tell(struct npki_repair *r, const char *array, const char *file, uint64_t byte, const char *what,
	const char *old_value, const char *new_value)
{
	return tell(r, false, array, file, byte, what, old_value, new_value);
}

int npki_r_tell_u64(struct npki_repair *r, const char *array, const char *file, uint64_t byte, const char *what,
	uint64_t old_value, uint64_t new_value)
{
	char a[24], b[24];

	snprintf(a, sizeof(a), "%" PRIu64, old_value);
	snprintf(b, sizeof(b), "%" PRIu64, new_value);
	return tell(r, false, array, file, byte, what, a, b);
}

int npki_r_left(struct npki_repair *r, const char *array, const char *file, uint64_t byte, const char *fmt, ...)
{
	char text[NPK_ERR_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return tell(r, true, array, file, byte, text, NULL, NULL);
}

struct npki_rstep *npki_r_step(struct npki_repair *r, enum npki_raction action, const char *file)
{
	struct npki_rstep *more, *st;

	if ((r->nsteps & (r->nsteps - 1)) == 0) {
		more = realloc(r->step, (r->nsteps ? 2 * r->nsteps : 1) * sizeof(*more));
		if (!more)
			return NULL;
		r->step = more;
	}
	st = &r->step[r->nsteps];
	*st = (struct npki_rstep){.action = action, .file = strdup(file)};
	if (!st->file)
		return NULL;
	r->nsteps++;
	return st;
}

static void forget_steps(struct npki_repair *r)
{
	for (size_t i = 0; i < r->nsteps; i++) {
		free(r->step[i].file);
		npk_text_fini(&r->step[i].image);
	}
	free(r->step);
	r->step = NULL;
	r->nsteps = 0;
}

static void told_fini(struct npki_rtold *t)
{
	free(t->array);
	free(t->file);
	free(t->what);
	free(t->old_value);
	free(t->new_value);
}

static void forget_told(struct npki_repair *r)
{
	for (size_t i = 0; i < r->ntold; i++)
		told_fini(&r->told[i]);
	free(r->told);
	r->told = NULL;
	r->ntold = 0;
}

/* Changes that rest on a list of arrays which cannot be made: only what is missing for it stays said. */
static void forget_changes(struct npki_repair *r)
{
	size_t n = 0;

	for (size_t i = 0; i < r->ntold; i++)
		if (r->told[i].left)
			r->told[n++] = r->told[i];
		else
			told_fini(&r->told[i]);
	r->ntold = n;
	forget_steps(r);
}

static void say(struct npki_repair *r, npk_repair_fn *fn, void *ctx, struct npk_repair_result *result)
{
	for (size_t i = 0; i < r->ntold; i++) {
		const struct npki_rtold *t = &r->told[i];

		if (t->left)
			result->nleft++;
		else
			result->nchanges++;
		if (fn)
			fn(ctx, &(struct npk_repair_step){
					t->left, t->array, t->file, t->byte, t->what, t->old_value, t->new_value});
	}
}

/* --- the journal ------------------------------------------------------------------------------------------------------ */

static bool exists(struct npki_repair *r, const char *file)
{
	struct npki_file_id id;

	return npki_stat_file(r->s->dirfd, file, &id, NULL) == 0 && id.exists;
}

static int move_away(struct npki_repair *r, const char *file, const char *what)
{
	if (!npki_r_step(r, NPKI_R_MOVE, file))
		return npki_r_no_memory(r);
	return npki_r_tell(r, NULL, file, 0, what, "there", "put aside");
}

/* All that a recovery replaces, renames or removes gets a second name first. */
static int keep_for_replay(struct npki_repair *r)
{
	int rc = npki_r_keep_dir(r);

	for (size_t i = 0; i < r->files.n && rc == 0; i++) {
		const char *f = r->files.path[i];

		if (strncmp(f, "deleted_", 8) == 0 || strncmp(f, "data_", 5) == 0 || strncmp(f, ".npk-", 5) == 0 ||
			strcmp(f, NPKI_META_FILE) == 0 || strcmp(f, NPKI_BASE) == 0 ||
			strncmp(f, NPKI_JOURNAL, strlen(NPKI_JOURNAL)) == 0)
			if (exists(r, f))
				rc = npki_r_keep(r, f);
	}
	return rc;
}

static int replay(struct npki_repair *r)
{
	struct npk_store *s = NULL;
	int rc = keep_for_replay(r);

	if (rc == 0 && r->back_to_base)
		rc = npki_rename(r->s->dirfd, NPKI_BASE, NPKI_META_FILE, r->err);
	if (rc == 0)
		rc = npki_sync_dir(r->s->dirfd, r->err);
	if (rc == 0)
		rc = npki_store_bare(&s, r->s->path, r->err);
	if (rc == 0)
		rc = npki_reload_metadata(s, r->err);
	if (rc == 0)
		rc = npki_writer_new(s, r->err);
	if (rc == 0) {
		s->writer->replay_anyway = r->how->journal == NPK_JOURNAL_REPLAY;
		rc = npki_recover(s, r->err);
	}
	npk_store_close(s);
	return rc;
}

static int tell_replay(struct npki_repair *r, const struct npki_jfile *f, const char *path)
{
	char text[64], behind[96];
	size_t n = 0, lost = npki_jfile_behind(f);
	int rc;

	for (size_t i = 0; i < f->nrecs; i++)
		n += f->rec[i].kind == NPKI_JOP;
	snprintf(text, sizeof(text), "waiting, up to change %" PRIu64, f->seq);
	snprintf(behind, sizeof(behind), "%zu changes", n);
	rc = npki_r_tell(r, NULL, path, NPKI_JHEAD_LEN, behind, text, "carried out, as far as their data is there");
	if (rc != 0 || f->end.pos == f->len)
		return rc;
	snprintf(text, sizeof(text), "%" PRIu64 " bytes", f->len - f->end.pos);
	snprintf(behind, sizeof(behind), lost ? "none; %zu whole records in them are lost" : "none", lost);
	return npki_r_tell(r, NULL, path, f->end.pos, "bytes behind the last record that fits", text, behind);
}

static int discard(struct npki_repair *r)
{
	static const char *const journals[] = {NPKI_JOURNAL, NPKI_JOURNAL_NEXT, NPKI_JOURNAL_NEW, NPKI_BASE};
	int rc = 0;

	for (size_t i = 0; i < sizeof(journals) / sizeof(*journals) && rc == 0; i++)
		if (exists(r, journals[i]))
			rc = move_away(r, journals[i], "the journal, with the changes in it");
	return rc;
}

/* A journal without a header says nothing; whether it said something once, its length tells. */
static int headless(struct npki_repair *r, const struct npki_jfile *f, const char *path)
{
	if (f->len > NPKI_JHEAD_LEN)
		return npk_fail(r->err, EUCLEAN,
			"%s: byte 0: the header is damaged, and %" PRIu64 " bytes of changes follow it: "
			"--discard-journal puts it aside",
			path, f->len - NPKI_JHEAD_LEN);
	return move_away(r, path, "a journal that never began");
}

/* *waits: it is to be carried out before anything else can be looked at. */
static int look_at_journal(struct npki_repair *r, bool *waits)
{
	struct npki_jfile old = {0}, next = {0};
	struct npk_err why;
	int rc, fits = 0;

	*waits = false;
	if (r->how->journal == NPK_JOURNAL_DISCARD)
		return discard(r);
	rc = npki_jfile_read(r->s->dirfd, NPKI_JOURNAL, &old, r->err);
	if (rc == 0)
		rc = npki_jfile_read(r->s->dirfd, NPKI_JOURNAL_NEXT, &next, r->err);
	if (rc == 0 && old.buf && !old.exists)
		rc = headless(r, &old, NPKI_JOURNAL);
	if (rc == 0 && next.buf && !next.exists && !old.exists)
		rc = headless(r, &next, NPKI_JOURNAL_NEXT);
	if (rc == 0 && (old.exists || next.exists)) {
		fits = npki_journal_fits(r->s, &why);
		*waits = fits == 0 || (fits == -EBUSY && r->how->journal == NPK_JOURNAL_REPLAY);
		if (fits == -EUCLEAN)
			rc = npk_fail(r->err, EUCLEAN,
				"%.300s; a journal waits for it: --discard-journal puts that aside", why.msg);
		else if (!*waits)
			rc = npk_fail(r->err, fits == -EBUSY ? EUCLEAN : why.code, "%s", why.msg);
	}
	if (rc == 0 && *waits && fits == -EBUSY && exists(r, NPKI_BASE)) {
		r->back_to_base = true;
		rc = npki_r_tell(r, NULL, NPKI_META_FILE, 0, "the list of arrays", "another program's", NPKI_BASE);
	}
	if (rc == 0 && *waits && old.exists)
		rc = tell_replay(r, &old, NPKI_JOURNAL);
	if (rc == 0 && *waits && next.exists)
		rc = tell_replay(r, &next, NPKI_JOURNAL_NEXT);
	if (rc == 0 && !*waits && exists(r, NPKI_JOURNAL_NEW))
		rc = move_away(r, NPKI_JOURNAL_NEW, "a journal that never began");
	if (rc == 0 && !*waits && exists(r, NPKI_BASE))
		rc = move_away(r, NPKI_BASE, "the list of arrays that a journal was about, which is gone");
	npki_jfile_fini(&old);
	npki_jfile_fini(&next);
	return rc;
}

/* --- what lies about --------------------------------------------------------------------------------------------------- */

static bool owns(const struct npki_repair *r, const char *file)
{
	for (size_t i = 0; i < r->narrays; i++) {
		const struct npki_rarray *a = &r->array[i];

		if (!a->dropped && a->file && strcmp(a->file, file) == 0)
			return true;
		if (!a->dropped && strncmp(file, "deleted_", 8) == 0 && strncmp(file + 8, a->name, a->name_len) == 0 &&
			strcmp(file + 8 + a->name_len, ".npkb") == 0)
			return true;
	}
	return false;
}

static int look_about(struct npki_repair *r)
{
	int rc = 0;

	for (size_t i = 0; i < r->files.n && rc == 0; i++) {
		const char *f = r->files.path[i];

		if (!exists(r, f) || owns(r, f))
			continue;
		if (npki_is_leftover(f) || strncmp(f, ".npk-", 5) == 0 || strncmp(f, "data_.npk-", 10) == 0)
			rc = move_away(r, f, "left over from interrupted work");
		else if (strncmp(f, "deleted_", 8) == 0 && npki_is_store_file(f))
			rc = move_away(
				r, f, "a bitmap of no array, which would hide rows of the next one of that name");
	}
	return rc;
}

/* The lock file of a process that died says who it was; the lock itself died with it. */
static int look_at_lock(struct npki_repair *r)
{
	char text[NPK_OWNER_MAX] = "", host[128] = "", shown[NPKI_SHOW_MAX], on[128];
	int fd, pid;
	ssize_t n;

	if (!exists(r, NPKI_LOCK) || npki_open_file(r->s->dirfd, NPKI_LOCK, &fd, NULL, NULL) != 0)
		return 0;
	n = npki_pread_some(fd, text, sizeof(text) - 1, 0, NPKI_LOCK);
	close(fd);
	gethostname(host, sizeof(host) - 1);
	text[n > 0 ? n : 0] = 0;
	text[strcspn(text, "\n")] = 0;
	if (sscanf(text, "pid %d on %127[^,\n]", &pid, on) != 2 || strcmp(on, host) != 0 || pid == getpid() ||
		kill(pid, 0) == 0 || errno != ESRCH)
		return 0;
	return npki_r_tell(r, NULL, NPKI_LOCK, 0, "whose lock it is", npki_show(shown, text, strlen(text)),
		"nobody's: that process is dead");
}

/* --- one round -------------------------------------------------------------------------------------------------------- */

static int check_hints(struct npki_repair *r)
{
	for (size_t i = 0; i < r->how->narrays; i++)
		if (!r->hint_used[i])
			return npk_fail(r->err, EINVAL,
				"array '%.200s' needs no description: it is whole, or there is no file of it",
				r->how->array[i].name);
	return 0;
}

static int plan_arrays(struct npki_repair *r)
{
	int rc = npki_r_metadata(r);

	if (rc == 0 && r->foreign)
		r->lost = true;
	if (rc == 0 && !r->meta && r->narrays == 0 && !r->lost) {
		forget_changes(r);
		r->lost = true;
		rc = r->meta_bad
			     ? npki_r_left(r, NULL, NPKI_META_FILE, 0, "is damaged, and there is no file of an array")
			     : 0;
	}
	for (size_t i = 0; i < r->narrays && rc == 0 && !r->lost; i++)
		if (!r->array[i].dropped)
			rc = npki_r_array(r, &r->array[i]);
	if (rc == 0 && !r->lost)
		rc = npki_r_write_metadata(r);
	if (rc == 0)
		rc = check_hints(r);
	if (rc == 0 && r->lost) {
		forget_changes(r);
		return 0;
	}
	return rc == 0 ? look_about(r) : rc;
}

static void forget_arrays(struct npki_repair *r)
{
	npki_r_drop_entries(r, 0);
	free(r->array);
	free(r->meta);
	r->array = NULL;
	r->meta = NULL;
	r->meta_len = 0;
}

static int repair(struct npki_repair *r, npk_repair_fn *fn, void *ctx, struct npk_repair_result *result)
{
	bool waits;
	int rc = npki_list_dir(r->s->dirfd, ".", &r->files, r->err);

	if (rc == 0)
		rc = look_at_journal(r, &waits);
	if (rc != 0)
		return rc;
	if (waits) {
		uint64_t ndamage = 0;

		if (!r->how->apply && npk_store_verify(r->s->path, NULL, NULL, &ndamage, r->err) == 0 && ndamage)
			rc = npki_r_left(r, NULL, NPKI_JOURNAL, 0,
				"must be carried out before what else is damaged can be looked at: that is what "
				"--apply does first");
		say(r, fn, ctx, result);
		if (rc != 0 || !r->how->apply)
			return rc;
		rc = replay(r);
		forget_told(r);
		npki_names_fini(&r->files);
		if (rc == 0)
			rc = npki_list_dir(r->s->dirfd, ".", &r->files, r->err);
		if (rc != 0)
			return rc;
	}
	rc = plan_arrays(r);
	if (rc != 0)
		return rc;
	say(r, fn, ctx, result);
	return r->how->apply ? npki_r_apply(r) : 0;
}

/* --- the call --------------------------------------------------------------------------------------------------------- */

int npk_repair(const char *path, const struct npk_repair *how, npk_repair_fn *fn, void *ctx,
	struct npk_repair_result *result, struct npk_err *err)
{
	struct npk_err own;
	struct npki_repair r = {.how = how, .err = err ? err : &own};
	char owner[NPK_OWNER_MAX];
	int rc = npki_store_bare(&r.s, path, r.err), lock = -1;

	*result = (struct npk_repair_result){0};
	if (rc != 0)
		return rc;
	r.hint_used = calloc(how->narrays + 1, sizeof(*r.hint_used));
	rc = r.hint_used ? 0 : npki_r_no_memory(&r);
	if (rc == 0)
		rc = npki_lock_owner(r.s->dirfd, owner, r.err);
	if (rc == 1)
		rc = npk_fail(r.err, EBUSY, "is being written by %s", owner);
	if (rc == 0)
		rc = look_at_lock(&r);
	if (rc == 0 && how->apply)
		rc = npki_lock_dir(r.s->dirfd, path, "npk repair", 0, &lock, r.err);
	if (rc == 0)
		rc = repair(&r, fn, ctx, result);
	if (lock >= 0)
		npki_unlock_dir(lock);
	snprintf(result->kept, sizeof(result->kept), "%s", r.kept);
	forget_steps(&r);
	forget_told(&r);
	forget_arrays(&r);
	npki_names_fini(&r.files);
	free(r.hint_used);
	npk_store_close(r.s);
	return rc ? npk_err_context(r.err, rc, "%.300s", path) : 0;
}
