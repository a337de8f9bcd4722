/* repair_do.c - carries a plan out: what will go is made durable in a directory of its own first, then files are cut, replaced by
 * rename, and moved away, in an order in which every prefix is a store that is no worse and gives the same plan again. */
#include "repair.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 65536

static int sync_path(struct npki_repair *r, const char *path)
{
	int fd = openat(r->s->dirfd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc;

	if (fd < 0)
		return npk_fail(r->err, errno, "%.300s: %s", path, strerror(errno));
	rc = npki_sync_dir(fd, r->err);
	close(fd);
	return rc;
}

int npki_r_keep_dir(struct npki_repair *r)
{
	time_t now = time(NULL);
	struct tm tm;

	if (r->kept[0])
		return 0;
	gmtime_r(&now, &tm);
	for (int i = 0; i < 1000; i++) {
		char stamp[32];

		strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%SZ", &tm);
		snprintf(r->kept, sizeof(r->kept), NPKI_REPAIRED "%s", stamp);
		if (i > 0)
			snprintf(r->kept + strlen(r->kept), sizeof(r->kept) - strlen(r->kept), "-%d", i);
		if (mkdirat(r->s->dirfd, r->kept, 0777) == 0)
			return npki_sync_dir(r->s->dirfd, r->err);
		if (errno != EEXIST)
			break;
	}
	r->kept[0] = 0;
	return npk_fail(r->err, errno, NPKI_REPAIRED "*: cannot be made: %s", strerror(errno));
}

/* The name of a file among the kept things; its directories are made. NULL: r->err says why. */
static char *kept_name(struct npki_repair *r, const char *file, const char *suffix)
{
	char *path;

	if (asprintf(&path, "%s/%s%s", r->kept, file, suffix) < 0) {
		npk_fail(r->err, ENOMEM, "no memory");
		return NULL;
	}
	for (char *p = strchr(path + strlen(r->kept) + 1, '/'); p; p = strchr(p + 1, '/')) {
		int bad;

		*p = 0;
		bad = mkdirat(r->s->dirfd, path, 0777) != 0 && errno != EEXIST;
		if (bad) {
			npk_fail(r->err, errno, "%.300s: cannot be made: %s", path, strerror(errno));
			free(path);
			return NULL;
		}
		*p = '/';
	}
	return path;
}

/* Bytes [from, size) of a file to a new one. */
static int copy_bytes(struct npki_repair *r, const char *file, uint64_t from, const char *to)
{
	uint8_t buf[BLOCK];
	struct stat st;
	int in, out, rc = npki_open_file(r->s->dirfd, file, &in, &st, r->err);

	if (rc != 0)
		return rc;
	rc = npki_create(r->s->dirfd, to, &out, r->err);
	if (rc != 0) {
		close(in);
		return rc;
	}
	for (uint64_t at = from; rc == 0 && at < (uint64_t)st.st_size;) {
		size_t n = (uint64_t)st.st_size - at < BLOCK ? (size_t)((uint64_t)st.st_size - at) : BLOCK;

		rc = npki_pread_all(in, buf, n, at, file, r->err);
		if (rc == 0)
			rc = npki_pwrite_all(out, buf, n, at - from, to, r->err);
		at += n;
	}
	if (rc == 0)
		rc = npki_sync_fd(out, to, r->err);
	close(in);
	close(out);
	return rc;
}

int npki_r_keep(struct npki_repair *r, const char *file)
{
	struct npki_file_id id;
	struct npk_err why;
	char *to;
	int rc = npki_stat_file(r->s->dirfd, file, &id, r->err);

	if (rc != 0 || !id.exists)
		return rc;
	to = kept_name(r, file, "");
	if (!to)
		return -r->err->code;
	rc = npki_link(r->s->dirfd, file, to, &why);
	if (rc == -EPERM || rc == -EOPNOTSUPP || rc == -EMLINK)
		rc = copy_bytes(r, file, 0, to);
	else if (rc != 0)
		npk_fail(r->err, why.code, "%s", why.msg);
	free(to);
	return rc;
}

/* --- preparing -------------------------------------------------------------------------------------------------------- */

/* Bytes [at, at + n) of a bitmap's words: the bits that are there, ones for rows without, zeros behind the last row. */
static int bitmap_block(
	const struct npki_repair *r, const struct npki_rstep *st, int in, uint64_t at, uint8_t *buf, size_t n)
{
	uint64_t old_bytes = st->have / 8 + (st->have % 8 != 0);
	size_t have = old_bytes <= at ? 0 : old_bytes - at < n ? (size_t)(old_bytes - at) : n;
	int rc = have ? npki_pread_all(in, buf, have, st->words_at + at, st->file, r->err) : 0;

	memset(buf + have, 0xFF, n - have);
	if (have && (at + have) * 8 > st->have)
		buf[have - 1] |= (uint8_t)(0xFF << st->have % 8);
	for (size_t i = n; i-- > 0 && (at + i + 1) * 8 > st->rows;)
		buf[i] &= (uint8_t)((at + i) * 8 >= st->rows ? 0 : (1u << st->rows % 8) - 1);
	return rc;
}

static int write_bitmap(struct npki_repair *r, const struct npki_rstep *st, int out, const char *path)
{
	uint64_t bytes = (st->rows / 64 + (st->rows % 64 != 0)) * 8;
	uint8_t head[16], buf[BLOCK];
	int in, rc = npki_open_file(r->s->dirfd, st->file, &in, NULL, r->err);

	if (rc != 0)
		return rc;
	npki_set_le(head, st->rows, 8);
	npki_set_le(head + 8, st->deleted, 8);
	rc = npki_pwrite_all(out, head, sizeof(head), 0, path, r->err);
	for (uint64_t at = 0; at < bytes && rc == 0; at += BLOCK) {
		size_t n = bytes - at < BLOCK ? (size_t)(bytes - at) : BLOCK;

		rc = bitmap_block(r, st, in, at, buf, n);
		if (rc == 0)
			rc = npki_pwrite_all(out, buf, n, sizeof(head) + at, path, r->err);
	}
	close(in);
	return rc;
}

/* Mode and owner go over to the file that takes the place. */
static int same_owner(struct npki_repair *r, const char *file, int out, const char *path)
{
	struct stat st;
	int in, rc = npki_open_file(r->s->dirfd, file, &in, &st, r->err);

	if (rc == -ENOENT)
		return 0;
	if (rc != 0)
		return rc;
	close(in);
	if (fchown(out, st.st_uid, st.st_gid) != 0 && errno != EPERM) /* only root may give files away */
		return npk_fail(r->err, errno, "%.300s: cannot change the owner: %s", path, strerror(errno));
	return fchmod(out, st.st_mode & 07777) == 0
		       ? 0
		       : npk_fail(r->err, errno, "%.300s: cannot change the mode: %s", path, strerror(errno));
}

static int write_image(struct npki_repair *r, const struct npki_rstep *st)
{
	char *path = kept_name(r, st->file, ".new");
	int fd, rc;

	if (!path)
		return -r->err->code;
	rc = npki_create(r->s->dirfd, path, &fd, r->err);
	if (rc == 0) {
		rc = st->bitmap ? write_bitmap(r, st, fd, path)
				: npki_pwrite_all(fd, st->image.p, st->image.len, 0, path, r->err);
		if (rc == 0)
			rc = same_owner(r, st->file, fd, path);
		if (rc == 0)
			rc = npki_sync_fd(fd, path, r->err);
		close(fd);
	}
	free(path);
	return rc;
}

static int keep_tail(struct npki_repair *r, const struct npki_rstep *st)
{
	char suffix[40], *path;
	int rc;

	snprintf(suffix, sizeof(suffix), ".from-%" PRIu64, st->len);
	path = kept_name(r, st->file, suffix);
	if (!path)
		return -r->err->code;
	rc = copy_bytes(r, st->file, st->len, path);
	free(path);
	return rc;
}

/* What will be done, for whoever finds the directory. */
static int write_list(struct npki_repair *r)
{
	struct npk_text t = {0};
	char *path = kept_name(r, "CHANGES", "");
	int fd, rc = path ? 0 : -r->err->code;

	for (size_t i = 0; i < r->ntold; i++)
		if (!r->told[i].left)
			npk_text_printf(&t, "%s: byte %" PRIu64 ": %s%s%s: %s -> %s\n", r->told[i].file,
				r->told[i].byte, r->told[i].array ? r->told[i].array : "", r->told[i].array ? ": " : "",
				r->told[i].what, r->told[i].old_value, r->told[i].new_value);
	if (rc == 0 && t.bad)
		rc = npk_fail(r->err, ENOMEM, "no memory");
	if (rc == 0)
		rc = npki_create(r->s->dirfd, path, &fd, r->err);
	if (rc == -EEXIST) /* of the journal, in the same run: its list stays, this one goes on behind it */
		rc = npki_open_rw(r->s->dirfd, path, &fd, r->err);
	if (rc == 0) {
		struct stat st = {0};

		rc = fstat(fd, &st) == 0 ? npki_pwrite_all(fd, t.p, t.len, (uint64_t)st.st_size, path, r->err)
					 : npk_fail(r->err, errno, "%.300s: %s", path, strerror(errno));
		if (rc == 0)
			rc = npki_sync_fd(fd, path, r->err);
		close(fd);
	}
	npk_text_fini(&t);
	free(path);
	return rc;
}

static int prepare(struct npki_repair *r, const struct npki_rstep *st)
{
	int rc = 0;

	if (st->action == NPKI_R_REPLACE) {
		rc = write_image(r, st);
		if (rc == 0)
			rc = npki_r_keep(r, st->file);
	} else if (st->action == NPKI_R_CUT) {
		rc = keep_tail(r, st);
	}
	return rc;
}

/* --- doing ------------------------------------------------------------------------------------------------------------ */

static int cut(struct npki_repair *r, const struct npki_rstep *st)
{
	int fd, rc = npki_open_rw(r->s->dirfd, st->file, &fd, r->err);

	if (rc != 0)
		return rc;
	rc = npki_truncate(fd, st->len, st->file, r->err);
	if (rc == 0)
		rc = npki_sync_fd(fd, st->file, r->err);
	close(fd);
	return rc;
}

static int rename_step(struct npki_repair *r, const struct npki_rstep *st)
{
	char *path = kept_name(r, st->file, st->action == NPKI_R_REPLACE ? ".new" : "");
	int rc;

	if (!path)
		return -r->err->code;
	rc = st->action == NPKI_R_REPLACE ? npki_rename(r->s->dirfd, path, st->file, r->err)
					  : npki_rename(r->s->dirfd, st->file, path, r->err);
	free(path);
	return rc;
}

/* The directories in the one of kept things that got a name in them. */
static int sync_kept(struct npki_repair *r)
{
	int rc = 0;

	for (size_t i = 0; i < r->nsteps && rc == 0; i++) {
		char *path, *slash = strrchr(r->step[i].file, '/');

		if (!slash || r->step[i].action == NPKI_R_MOVE)
			continue;
		if (asprintf(&path, "%s/%.*s", r->kept, (int)(slash - r->step[i].file), r->step[i].file) < 0)
			return npk_fail(r->err, ENOMEM, "no memory");
		rc = sync_path(r, path);
		free(path);
	}
	return rc == 0 ? sync_path(r, r->kept) : rc;
}

static bool is_metadata(const struct npki_rstep *st)
{
	return strcmp(st->file, NPKI_META_FILE) == 0;
}

/* Data first, then bitmaps and lists of segments, and last the metadata, which makes all of it count; only then what nobody
 * needs any more goes. */
int npki_r_apply(struct npki_repair *r)
{
	int rc = r->nsteps ? npki_r_keep_dir(r) : 0;

	if (rc == 0 && r->nsteps)
		rc = write_list(r);
	for (size_t i = 0; i < r->nsteps && rc == 0; i++)
		rc = prepare(r, &r->step[i]);
	if (rc == 0 && r->nsteps)
		rc = sync_kept(r);
	for (size_t i = 0; i < r->nsteps && rc == 0; i++)
		if (r->step[i].action == NPKI_R_CUT)
			rc = cut(r, &r->step[i]);
	for (int pass = 0; pass < 3 && rc == 0 && r->nsteps; pass++) {
		for (size_t i = 0; i < r->nsteps && rc == 0; i++) {
			const struct npki_rstep *st = &r->step[i];
			bool leftover = st->action == NPKI_R_MOVE && strncmp(st->file, "deleted_", 8) != 0;

			if (st->action != NPKI_R_CUT && (leftover ? 2 : is_metadata(st)) == pass)
				rc = rename_step(r, st);
		}
		if (rc == 0)
			rc = npki_sync_dir(r->s->dirfd, r->err);
	}
	if (rc == 0 && r->nsteps)
		rc = sync_path(r, r->kept);
	return rc;
}
