/* owner.c - mode and owner of an array: those of its data files. */
#include "change.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEEP_UID ((uid_t)-1)
#define KEEP_GID ((gid_t)-1)
#define KEEP_MODE ((mode_t)-1)

static int set_fd(int fd, const char *path, mode_t mode, uid_t uid, gid_t gid, struct npk_err *err)
{
	if ((uid != KEEP_UID || gid != KEEP_GID) && fchown(fd, uid, gid) != 0)
		return npk_fail(err, errno, "%.300s: cannot change the owner: %s", path, strerror(errno));
	if (mode != KEEP_MODE && fchmod(fd, mode & 07777) != 0) /* after chown, which takes set-id bits away */
		return npk_fail(err, errno, "%.300s: cannot change the mode: %s", path, strerror(errno));
	return 0;
}

static int set_file(
	struct npk_store *s, const char *path, mode_t mode, uid_t uid, gid_t gid, struct stat *st, struct npk_err *err)
{
	int fd, rc = npki_open_file(s->dirfd, path, &fd, NULL, err);

	if (rc != 0)
		return rc;
	rc = set_fd(fd, path, mode, uid, gid, err);
	if (rc == 0 && fstat(fd, st) != 0)
		rc = npk_fail(err, errno, "%.300s: %s", path, strerror(errno));
	close(fd);
	return rc;
}

/* The same generation, which tells the new mode and owner. */
static int tell(struct npk_array *a, struct npk_gen *g, const struct stat *st, struct npk_err *err)
{
	struct npki_entry *e = npki_entry_ref(a->entry);
	struct npki_rowmap *live = npki_rowmap_ref(g->live);
	struct npk_gen *next = npki_gen_derive(g, &(struct npki_layout){e, live, true}, true);

	if (!next) {
		npki_entry_put(e);
		npki_rowmap_put(live);
		return npk_fail(err, ENOMEM, "no memory");
	}
	next->info.mode = st->st_mode & 07777;
	next->info.uid = st->st_uid;
	next->info.gid = st->st_gid;
	return npki_table_put(a->store, a->name, a->name_len, e, live, next);
}

static int set(struct npk_array *a, mode_t mode, uid_t uid, gid_t gid, struct npk_err *err)
{
	struct npk_gen *g = NULL;
	struct npki_tx tx;
	struct stat st;
	int rc = npki_tx_begin(&tx, a->store, err);

	if (rc != 0)
		return rc;
	rc = npk_gen_get(&g, a, err);
	if (rc == 0 && a->store->base) /* outside, the files stay as they are */
		rc = npki_own_files(&tx, a, &g, err);
	for (size_t i = 0; rc == 0 && i < g->nsegs; i++)
		rc = set_file(a->store, g->seg[i].file->path, mode, uid, gid, &st, err);
	if (rc == 0 && g->nsegs)
		rc = tell(a, g, &st, err);
	npk_gen_put(g);
	npki_tx_abort(&tx); /* there is no record: it is the files' own */
	return rc;
}

int npk_array_set_mode(struct npk_array *a, mode_t mode, struct npk_err *err)
{
	return set(a, mode & 07777, KEEP_UID, KEEP_GID, err);
}

int npk_array_set_owner(struct npk_array *a, uid_t uid, gid_t gid, struct npk_err *err)
{
	return set(a, KEEP_MODE, uid, gid, err);
}

/* Only root may give files away: for others the new files stay their own. */
int npki_same_owner_fd(int fd, const char *path, const struct npk_gen_info *as, struct npk_err *err)
{
	struct stat st;
	int rc = 0;

	if (fstat(fd, &st) != 0)
		return npk_fail(err, errno, "%.300s: %s", path, strerror(errno));
	if (st.st_uid != as->uid || st.st_gid != as->gid)
		rc = set_fd(fd, path, KEEP_MODE, as->uid, as->gid, err);
	if (rc == 0 || rc == -EPERM)
		rc = (st.st_mode & 07777) == as->mode ? 0 : set_fd(fd, path, as->mode, KEEP_UID, KEEP_GID, err);
	return rc;
}

int npki_same_owner(struct npki_tx *tx, size_t from, const struct npk_gen_info *as, struct npk_err *err)
{
	int fd, rc = 0;

	for (size_t i = from; i < tx->created.n && rc == 0; i++) {
		rc = npki_open_file(tx->s->dirfd, tx->created.path[i], &fd, NULL, err);
		if (rc != 0)
			break;
		rc = npki_same_owner_fd(fd, tx->created.path[i], as, err);
		close(fd);
	}
	return rc;
}
