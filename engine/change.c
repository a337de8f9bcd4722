/* change.c - changes of rows, of one array or of several at once.
 *
 * Everything is looked up and checked before the first byte is written: a step that cannot be leaves all arrays as they
 * were. Then appended bytes go behind the last rows, one record says it all, and replaced bytes follow it in place. */
#include "change.h"
#include "dict.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int npki_rows_of(struct npk_array *a, struct npk_gen **g, struct npk_err *err)
{
	int rc = npk_gen_get(g, a, err);

	if (rc == 0 && (*g)->info.shape.ndim == 0) {
		npk_gen_put(*g);
		*g = NULL;
		rc = npk_fail(err, EINVAL, "array '%.200s' is a scalar: it has no rows to change", a->name);
	}
	return rc;
}

int npki_begin(struct npki_tx *tx, struct npk_array *a, struct npk_gen **g, struct npk_err *err)
{
	int rc = npki_tx_begin(tx, a->store, err);

	if (rc != 0)
		return rc;
	rc = npki_rows_of(a, g, err);
	if (rc != 0)
		npki_tx_abort(tx);
	return rc;
}

int npki_resolve(const struct npk_gen *g, int64_t row, uint64_t *out, struct npk_err *err)
{
	uint64_t r = (uint64_t)(row < 0 ? row + (int64_t)g->info.rows : row);

	if (r >= g->info.rows)
		return npk_fail(err, ERANGE, "array '%.200s': row %" PRId64 " of %" PRIu64, g->name, row, g->info.rows);
	*out = r;
	return 0;
}

/* --- steps ------------------------------------------------------------------------------------------------------------ */

static void part_fini(struct npki_ready *p)
{
	npk_gen_put(p->g);
	free(p->runs.run);
	free(p->pieces.p);
	free(p->pieces.at);
	*p = (struct npki_ready){0};
}

/* Without this the checkpoint could not be carried out that brings the deleted rows to the disk, and no open after it. */
static int check_bitmap_place(const struct npk_array *a, struct npk_err *err)
{
	char *file = npki_bitmap_file(a->name);
	struct npk_err why = {0};
	int rc = file ? npki_check_place(a->store->dirfd, file, &why) : npk_fail(&why, ENOMEM, "no memory");

	free(file);
	if (rc == -ENOENT || rc == -EUCLEAN || rc == -ENAMETOOLONG)
		return npk_fail(err, EINVAL, "array '%.100s': no row of it can be deleted: %.350s", a->name, why.msg);
	return rc ? npk_fail(err, why.code, "%s", why.msg) : 0;
}

static int prepare_drop(struct npk_step *st, struct npki_ready *p, struct npk_err *err)
{
	int rc = st->sel ? npki_runs_of_sel(&p->runs, p->g, st->sel, &st->done, err)
			 : npki_runs_of_rows(&p->runs, p->g, st->rows, st->nrows, &st->done, err);

	return rc == 0 && p->runs.n ? check_bitmap_place(st->array, err) : rc;
}

static int prepare(struct npk_step *st, struct npki_ready *p, struct npk_err *err)
{
	uint64_t bytes;
	int rc = npki_rows_of(st->array, &p->g, err);

	st->done = 0;
	if (rc != 0)
		return rc;
	switch (st->verb) {
	case NPK_APPEND:
		st->done = st->nrows;
		return npki_check_growth(st->array, p->g, st->nrows, &bytes, err);
	case NPK_DROP:
		return prepare_drop(st, p, err);
	case NPK_REPLACE:
		st->done = st->nrows;
		return npki_pieces_of(&p->pieces, p->g, st->rows, st->first, st->nrows, st->data, err);
	}
	return npk_fail(err, EINVAL, "change: verb %u makes no sense", (unsigned)st->verb);
}

/* Into the record; appended bytes are written. */
static int log_step(struct npki_tx *tx, const struct npk_step *st, struct npki_ready *p, struct npk_err *err)
{
	struct npk_array *a = st->array;
	int rc = 0;

	if (st->verb == NPK_APPEND && st->nrows)
		return npki_append_rows(tx, a, p->g, st->data, st->nrows, npki_tick(tx->s->writer), err);
	if (p->runs.n)
		npki_tx_clear(tx, a->name, a->name_len, p->runs.run, p->runs.n, npki_tick(tx->s->writer));
	if (p->pieces.n) {
		rc = npki_log_pieces(tx, p->g, &p->pieces, err);
		npki_tx_time(tx, a->name, a->name_len, npki_tick(tx->s->writer));
	}
	return rc;
}

static int change_outside(
	struct npki_tx *tx, struct npk_step *st, struct npki_ready *part, size_t n, bool atomic, struct npk_err *err)
{
	struct npk_err why;
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++)
		rc = log_step(tx, &st[i], &part[i], err);
	if (rc != 0 || tx->payload.len == 0)
		return rc;
	rc = npki_tx_log(tx, err);
	if (rc == 0 && atomic && tx->nredo) /* the record comes to the disk before the bytes */
		rc = npki_tx_sync(tx, err);
	if (rc != 0)
		return rc;
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = npki_write_pieces(tx, part[i].g, &part[i].pieces, &why);
	if (rc == 0)
		return 0;
	npki_fail_store(tx->s->writer, rc, &why);
	return npk_fail(err, EIO, "%.500s", tx->s->writer->why);
}

/* In a transaction bytes go into the array's own copy, which nobody else sees: no record has to come first. */
static int replace_inside(struct npki_tx *tx, struct npk_step *st, struct npki_ready *p, struct npk_err *err)
{
	int rc = 0;

	if (p->pieces.n && npki_txn_has_tail(st->array)) { /* they will lie in other files */
		rc = npki_own_files(tx, st->array, &p->g, err);
		p->pieces.n = p->pieces.nat = 0;
		if (rc == 0)
			rc = npki_pieces_of(&p->pieces, p->g, st->rows, st->first, st->nrows, st->data, err);
	}
	if (rc == 0)
		rc = npki_write_pieces(tx, p->g, &p->pieces, err);
	if (rc == 0 && p->pieces.n)
		npki_tx_time(tx, st->array->name, st->array->name_len, npki_tick(tx->s->writer));
	return rc;
}

static int change_inside(
	struct npki_tx *tx, struct npk_step *st, struct npki_ready *part, size_t n, struct npk_err *err)
{
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++) {
		if (st[i].verb == NPK_APPEND && st[i].nrows && npki_txn_has_tail(st[i].array))
			rc = npki_txn_append(tx, st[i].array, part[i].g, st[i].data, st[i].nrows, err);
		else if (st[i].verb == NPK_REPLACE)
			rc = replace_inside(tx, &st[i], &part[i], err);
		else
			rc = log_step(tx, &st[i], &part[i], err);
		if (rc == 0 && tx->payload.len)
			rc = npki_tx_log(tx, err);
	}
	return rc;
}

/* --- changes ---------------------------------------------------------------------------------------------------------- */

#define UNSEALED_MAX 4096  /* looked through for every piece that is written: a seal now costs less */
#define REDO_MAX (1 << 20) /* places; 16 MiB to remember */

/* Bytes whose checksum a recovery needs are sealed before they are written over, and for an atomic replace everything
 * that its record stands on. */
static bool needs_seal(const struct npk_store *s, const struct npki_ready *part, size_t n, bool atomic)
{
	bool unsealed = false, any = false;

	for (size_t i = 0; i < n && !s->base; i++) {
		any |= part[i].pieces.n > 0;
		unsealed |= npki_any_unsealed(s->writer, part[i].g, &part[i].pieces);
	}
	return unsealed || (any && (s->writer->nunsealed > UNSEALED_MAX || s->writer->redo_spans > REDO_MAX ||
					   (atomic && s->writer->nunsealed > 0)));
}

/* Others may add what must be sealed while a seal runs, and may change the arrays. */
static int change(
	struct npk_store *s, struct npk_step *st, struct npki_ready *part, size_t n, bool atomic, struct npk_err *err)
{
	struct npki_tx tx;
	bool again = false;
	int rc;

	do {
		rc = npki_tx_begin(&tx, s, err);
		if (rc != 0)
			return rc;
		for (size_t i = 0; i < n && rc == 0; i++)
			rc = prepare(&st[i], &part[i], err);
		if (rc == 0 && needs_seal(s, part, n, atomic))
			rc = -EAGAIN;
		else if (rc == 0)
			rc = s->base ? change_inside(&tx, st, part, n, err)
				     : change_outside(&tx, st, part, n, atomic, err);
		npki_tx_abort(&tx); /* after a commit there is nothing left to undo */
		for (size_t i = 0; i < n; i++)
			part_fini(&part[i]);
		if (rc == -EAGAIN && (rc = npki_seal(s, err)) == 0)
			rc = -EAGAIN;
		else if (!again && !s->base && npki_make_room(s, rc, err)) {
			again = true;
			rc = -EAGAIN;
		}
	} while (rc == -EAGAIN);
	return rc;
}

static int check_steps(struct npk_store *s, const struct npk_step *st, size_t n, struct npk_err *err)
{
	struct npki_dict seen = {0};
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++) {
		const struct npk_array *a = st[i].array;

		if (a->store != s)
			rc = npk_fail(err, EINVAL, "array '%.200s' is of another store", a->name);
		else if (npki_dict_get(&seen, a->name, a->name_len, NULL))
			rc = npk_fail(err, EINVAL, "array '%.200s' is named twice", a->name);
		else if (npki_dict_put(&seen, a->name, a->name_len, 0) != 0)
			rc = npk_fail(err, ENOMEM, "no memory");
	}
	npki_dict_fini(&seen);
	return rc;
}

int npk_store_change(struct npk_store *s, struct npk_step *st, size_t n, unsigned flags, struct npk_err *err)
{
	struct npki_ready *part;
	int rc;

	if (flags & ~NPK_REPLACE_ATOMIC)
		return npk_fail(err, EINVAL, "change: flags 0x%x make no sense", flags);
	rc = check_steps(s, st, n, err);
	if (rc != 0)
		return rc;
	part = calloc(n + 1, sizeof(*part));
	if (!part)
		return npk_fail(err, ENOMEM, "no memory");
	rc = change(s, st, part, n, flags & NPK_REPLACE_ATOMIC, err);
	free(part);
	return rc;
}

static int change_one(struct npk_step *st, unsigned flags, struct npk_err *err)
{
	struct npki_ready part = {0};

	if (flags & ~NPK_REPLACE_ATOMIC)
		return npk_fail(err, EINVAL, "replace: flags 0x%x make no sense", flags);
	return change(st->array->store, st, &part, 1, flags & NPK_REPLACE_ATOMIC, err);
}

/* Rows count from the moment their record is whole: nobody looks behind the last row before. */
int npk_array_append(struct npk_array *a, const void *rows, uint64_t nrows, struct npk_err *err)
{
	return change_one(&(struct npk_step){.verb = NPK_APPEND, .array = a, .data = rows, .nrows = nrows}, 0, err);
}

int npk_array_drop(struct npk_array *a, const char *sel, uint64_t *dropped, struct npk_err *err)
{
	struct npk_step st = {.verb = NPK_DROP, .array = a, .sel = sel};
	int rc = change_one(&st, 0, err);

	if (rc == 0 && dropped)
		*dropped = st.done;
	return rc;
}

int npk_array_drop_rows(struct npk_array *a, const int64_t *rows, size_t n, uint64_t *dropped, struct npk_err *err)
{
	struct npk_step st = {.verb = NPK_DROP, .array = a, .rows = rows, .nrows = n};
	int rc = change_one(&st, 0, err);

	if (rc == 0 && dropped)
		*dropped = st.done;
	return rc;
}

int npk_array_replace(
	struct npk_array *a, const int64_t *rows, size_t n, const void *data, unsigned flags, struct npk_err *err)
{
	static const int64_t none;

	return change_one(
		&(struct npk_step){
			.verb = NPK_REPLACE, .array = a, .rows = rows ? rows : &none, .nrows = n, .data = data},
		flags, err);
}

int npk_array_replace_range(
	struct npk_array *a, uint64_t first, uint64_t nrows, const void *data, unsigned flags, struct npk_err *err)
{
	return change_one(
		&(struct npk_step){.verb = NPK_REPLACE, .array = a, .first = first, .nrows = nrows, .data = data},
		flags, err);
}
