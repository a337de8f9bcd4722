/* room.c - a disk that gets full. Files that no array has any more keep their room until a checkpoint, for the metadata on disk
 * may name them: before there is none left, and when there is none left, one is made. It needs some room itself. */
#include "writer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define BLOCK ((uint64_t)4096)

/* Bytes that are left on the disk of the store; UINT64_MAX: it does not say. */
static uint64_t room_of(const struct npk_store *s)
{
	struct statvfs fs;

	if (fstatvfs(s->dirfd, &fs) != 0 || fs.f_blocks == 0)
		return UINT64_MAX;
	return (uint64_t)fs.f_bavail * fs.f_frsize;
}

bool npki_is_crowded(struct npk_store *s)
{
	struct npki_writer *w = s->writer;
	struct stat st;

	if (w->txns) /* what they show stays */
		return false;
	if (w->weighed < w->retired.n) {
		for (; w->weighed < w->retired.n; w->weighed++)
			if (fstatat(s->dirfd, w->retired.path[w->weighed], &st, AT_SYMLINK_NOFOLLOW) == 0)
				w->retired_bytes += (uint64_t)st.st_blocks * 512;
		w->crowded = w->retired_bytes > room_of(s);
	}
	return w->crowded;
}

void npki_crowded_no_more(struct npki_writer *w)
{
	w->weighed = 0;
	w->retired_bytes = 0;
	w->crowded = false;
}

/* Of the bitmap of a touched array, if it has one. */
static uint64_t bitmap_bytes(struct npk_store *s, const struct npki_touched *t)
{
	struct npk_array *a = npki_table_find(s, t->name, t->name_len);
	uint64_t bytes = 0;

	if (a) {
		pthread_mutex_lock(&a->lock);
		if (a->known && a->live)
			bytes = BLOCK + a->live->nslots / 8;
		pthread_mutex_unlock(&a->lock);
	}
	npk_array_put(a);
	return bytes;
}

int npki_checkpoint_has_room(struct npk_store *s, struct npk_err *err)
{
	const struct npki_writer *w = s->writer;
	uint64_t room = room_of(s), need;

	/* The new journal, the record in the old one, the metadata without and with the arrays whose rows are others. */
	pthread_rwlock_rdlock(&s->table_lock);
	need = 4 * BLOCK + 2 * s->meta_id.size;
	pthread_rwlock_unlock(&s->table_lock);
	need += (w->retired.n + 2 * w->touched.n) * 512;
	for (size_t i = 0; i < w->touched.n && need <= room; i++)
		need += bitmap_bytes(s, &w->touched.t[i]);
	if (need > room)
		return npk_fail(err, ENOSPC,
			"%.300s: a checkpoint may need %" PRIu64 " bytes, the disk has room for %" PRIu64, s->path,
			need, room);
	return 0;
}

bool npki_make_room(struct npk_store *s, int rc, struct npk_err *err)
{
	struct npk_store *base = s->base ? s->base : s;
	struct npki_writer *w = base->writer;
	bool any;

	if (rc != -ENOSPC && rc != -EDQUOT)
		return false;
	pthread_mutex_lock(&w->lock);
	any = w->retired.n > 0 && !w->txns && !w->failed;
	pthread_mutex_unlock(&w->lock);
	if (!any || npki_checkpoint(base, NULL) != 0)
		return false;
	if (err)
		*err = (struct npk_err){0};
	return true;
}
