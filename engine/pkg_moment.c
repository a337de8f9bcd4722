/* pkg_moment.c - see pkg_moment.h.
 *
 * The generation of each array is loaded and mapped, and counts when neither metadata nor journal changed meanwhile. The bytes
 * come from the mappings, which keep files alive that a compact or a save-over replaces. */
#include "pkg_moment.h"
#include "guard.h"
#include "pkg.h"
#include "rows.h"
#include "writer.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRIES 200 /* to find the store at rest, a millisecond apart */

/* --- gathering ------------------------------------------------------------------------------------------------------- */

void npki_moment_fini(struct npki_moment *m)
{
	for (size_t i = 0; i < m->n; i++) {
		free(m->part[i].name);
		npk_gen_put(m->part[i].g);
	}
	free(m->part);
	npk_text_fini(&m->meta);
	*m = (struct npki_moment){0};
}

/* data_<name>.npkd and its like. */
/* Takes `name` over; NULL: there was no memory for it. */
static int add_part(struct npki_moment *m, char *name, struct npk_gen *g, uint64_t len, struct npk_err *err)
{
	m->part[m->n++] = (struct npki_part){.name = name, .len = len, .g = g ? npk_gen_ref(g) : NULL};
	m->bytes += len;
	if (!name)
		return npk_fail(err, ENOMEM, "no memory for a package's list of files");
	return strlen(name) <= NAME_MAX
		       ? 0
		       : npk_fail(err, EINVAL, "%.300s: a package cannot hold a name that is so long", name);
}

static int add_array(struct npki_moment *m, struct npk_array *a, struct npk_err *err)
{
	const struct npk_gen_info *info;
	struct npk_shape physical;
	struct npk_gen *g = NULL;
	char *file = NULL;
	int rc;

	if (strlen(a->name) > NAME_MAX - strlen("data_.npkd") || strchr(a->name, '/'))
		return npk_fail(err, EINVAL, "array '%.200s': a package cannot hold a name that %s", a->name,
			strchr(a->name, '/') ? "has a '/'" : "is so long");
	rc = npk_gen_get(&g, a, err);
	if (rc == 0)
		rc = npk_gen_map(g, err);
	if (rc == 0) {
		file = npki_data_file(a->name);
		rc = add_part(m, file, g, g->info.slots * g->info.row_bytes, err);
	}
	if (rc == 0 && g->live) {
		rc = add_part(m, npki_bitmap_file(a->name), g, 16 + (g->info.slots + 63) / 64 * 8, err);
		m->part[m->n - 1].bitmap = true;
	}
	if (rc == 0) {
		info = &g->info;
		physical = info->shape;
		if (physical.ndim)
			physical.dim[0] = info->slots;
		npki_meta_write_entry(&m->meta, a->name, a->name_len, info->dtype, &physical, file, info->mtime_us,
			info->slots * info->row_bytes);
	}
	npk_gen_put(g);
	return rc;
}

static int by_name(const void *x, const void *y)
{
	return strcmp(((const struct npki_part *)x)->name, ((const struct npki_part *)y)->name);
}

/* The metadata's head has the sum of the sizes, which comes after the entries. */
static int add_meta(struct npki_moment *m, uint64_t data_bytes, uint32_t narrays, struct npk_err *err)
{
	struct npk_text t = {0};

	npki_meta_write_head(&t, data_bytes, narrays);
	npk_text_add(&t, m->meta.p, m->meta.len);
	t.bad |= m->meta.bad;
	npk_text_fini(&m->meta);
	m->meta = t;
	return t.bad ? npk_fail(err, ENOMEM, "no memory for a package's metadata")
		     : add_part(m, strdup(NPKI_META_FILE), NULL, t.len, err);
}

static int gather(struct npk_store *s, struct npki_moment *m, struct npk_err *err)
{
	struct npk_array **list;
	uint64_t data_bytes = 0;
	size_t n;
	int rc = npk_store_list(s, &list, &n, err);

	if (rc != 0)
		return rc;
	m->part = calloc(2 * n + 1, sizeof(*m->part));
	if (!m->part)
		rc = npk_fail(err, ENOMEM, "no memory for a package's list of files");
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = add_array(m, list[i], err);
	for (size_t i = 0; i < m->n; i++)
		data_bytes += m->part[i].bitmap ? 0 : m->part[i].len;
	if (rc == 0)
		rc = add_meta(m, data_bytes, (uint32_t)n, err);
	if (rc == 0)
		qsort(m->part, m->n, sizeof(*m->part), by_name);
	npk_store_list_free(list, n);
	return rc;
}

/* Whether the disk still says what the table was made of. Records that were added to the journal meanwhile are of a later
 * moment: they matter (`exactly`) only to who could not load what the earlier ones say. */
static bool at_rest(struct npk_store *s, bool exactly)
{
	struct npki_file_id meta, journal;
	bool same;

	if (npki_stat_file(s->dirfd, NPKI_META_FILE, &meta, NULL) != 0 ||
		npki_stat_file(s->dirfd, NPKI_JOURNAL, &journal, NULL) != 0)
		return false;
	pthread_rwlock_rdlock(&s->table_lock);
	if (exactly || !s->journal_id.exists || !journal.exists)
		same = npki_file_id_same(&journal, &s->journal_id);
	else
		same = journal.ino == s->journal_id.ino && journal.dev == s->journal_id.dev;
	same = same && npki_file_id_same(&meta, &s->meta_id);
	pthread_rwlock_unlock(&s->table_lock);
	return same;
}

/* Of a store that this process writes: no change begins while the lock is held. */
static int gather_ours(struct npk_store *s, struct npki_moment *m, bool *ours, struct npk_err *err)
{
	int rc = 0;

	*ours = false;
	if (!s->writer)
		return 0;
	pthread_mutex_lock(&s->writer->lock);
	*ours = s->writer->jfd >= 0;
	if (*ours)
		rc = gather(s, m, err);
	pthread_mutex_unlock(&s->writer->lock);
	return rc;
}

/* Another look at the directory: what this process knows of it may be older, and stays as it is. */
static int open_again(struct npk_store *s, struct npk_store **out, struct npk_err *err)
{
	struct stat here, there;
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", s->dirfd); /* when its name has become another's */
	if (fstat(s->dirfd, &here) != 0)
		return npk_fail(err, errno, "%.300s: %s", s->path, strerror(errno));
	if (stat(s->path, &there) == 0 && there.st_ino == here.st_ino && there.st_dev == here.st_dev)
		return npk_store_open(out, s->path, NPK_RDONLY, err);
	return npk_store_open(out, path, NPK_RDONLY, err);
}

/* What is not in a damaged list of arrays would be lost. */
static int gather_all(struct npk_store *s, struct npki_moment *m, struct npk_err *err)
{
	struct npk_store_info info;

	npk_store_info(s, &info);
	if (info.read_only)
		return npk_fail(err, EUCLEAN, "%.200s: the list of arrays is damaged: %.250s", s->path, info.why);
	return gather(s, m, err);
}

int npki_moment_take(struct npk_store *s, struct npki_moment *m, struct npk_err *err)
{
	struct npk_store *again;
	bool ours, rest = false;
	int rc = gather_ours(s, m, &ours, err);

	for (int i = 0; i < TRIES && !ours && !rest; i++) {
		if (i > 0)
			usleep(1000);
		npki_moment_fini(m);
		rc = open_again(s, &again, err);
		if (rc != 0)
			continue;
		rc = gather_all(again, m, err);
		rest = again->packed || at_rest(again, rc != 0);
		npk_store_close(again); /* generations live on */
	}
	if (rc == 0 && !ours && !rest)
		rc = npk_fail(err, EBUSY, "%.300s: changes faster than it can be read", s->path);
	if (rc != 0)
		npki_moment_fini(m);
	return rc;
}

/* --- reading a part --------------------------------------------------------------------------------------------------- */

struct data_read {
	const struct npk_gen *g;
	uint64_t off;
	uint8_t *out;
	size_t len;
};

/* Pages that were read are let go: a store larger than the memory passes through, and is counted to nobody. */
static void let_go(const uint8_t *from, size_t len)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = (uintptr_t)from & -page;

	madvise((void *)first, ((uintptr_t)from + len) / page * page - first, MADV_DONTNEED); /* a hint */
}

static void copy_data(void *ctx)
{
	struct data_read *r = ctx;
	uint64_t row_bytes = r->g->info.row_bytes;

	while (r->len > 0) {
		uint64_t together, in_slot = r->off % row_bytes;
		const uint8_t *from = npki_slot_at(r->g, r->off / row_bytes, &together) + in_slot;
		size_t n = together * row_bytes - in_slot < r->len ? (size_t)(together * row_bytes - in_slot) : r->len;

		memcpy(r->out, from, n);
		let_go(from, n);
		r->out += n;
		r->off += n;
		r->len -= n;
	}
}

static void copy_bitmap(const struct npki_rowmap *live, uint64_t off, uint8_t *out, size_t len)
{
	uint64_t head[2] = {live->nslots, live->nslots - live->nlive};

	while (len > 0) {
		const uint8_t *from = (const uint8_t *)head + off;
		size_t n = off < sizeof(head) ? sizeof(head) - (size_t)off : 0, nwords;

		if (off >= sizeof(head)) {
			uint64_t at = off - sizeof(head), in_chunk = at % (NPKI_CHUNK_BITS / 8);

			from = (const uint8_t *)npki_rowmap_words(live, (size_t)(at / (NPKI_CHUNK_BITS / 8)), &nwords) +
			       in_chunk;
			n = nwords * 8 - (size_t)in_chunk;
		}
		if (n > len)
			n = len;
		memcpy(out, from, n);
		out += n;
		off += n;
		len -= n;
	}
}

int npki_part_read(const struct npki_moment *m, const struct npki_part *p, uint64_t off, uint8_t *out, size_t len,
	struct npk_err *err)
{
	struct data_read r = {p->g, off, out, len};

	if (!p->g)
		memcpy(out, m->meta.p + off, len);
	else if (p->bitmap)
		copy_bitmap(p->g->live, off, out, len);
	else if (npki_guarded(copy_data, &r) != 0)
		return npki_shrank(p->g, err);
	return 0;
}
