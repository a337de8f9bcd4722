/* attr.c - what stat(2) shows: owners and permissions come from the backing files.
 *
 * A conversation that only reads may be used by whoever may read the array: its write bits are the array's read bits. What
 * cannot be written at all has no write bits, so the kernel answers EACCES; but a read-only mount shows the owner's: the
 * daemon then answers EROFS, as a filesystem does that is mounted read-only. */
#include "control.h"
#include "layout.h"
#include "names.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define INO_OTHERS (1ull << 48) /* below: generations; above: everything else. JavaScript's numbers hold both. */
#define WRITE_BITS 0222

/* Owner, mode and times of the store's directory. */
static void stat_store(struct npkfs_session *s, struct stat *st)
{
	struct stat dir;

	if (fstat(npk_store_dirfd(s->store), &dir) != 0) {
		/* Cannot happen to an open descriptor of a local directory; the network's may fail. */
		memset(&dir, 0, sizeof(dir));
		dir.st_uid = getuid();
		dir.st_gid = getgid();
		dir.st_mode = 0700;
	}
	st->st_uid = dir.st_uid;
	st->st_gid = dir.st_gid;
	st->st_mode = dir.st_mode & 0777;
	if (npk_store_is_package(s->store)) /* who may read the file may look into it */
		st->st_mode |= (dir.st_mode & 0444) >> 2;
	st->st_mtim = st->st_ctim = st->st_atim = dir.st_mtim;
}

void npkfs_stat_dir(struct npkfs_session *s, const struct npkfs_node *node, struct stat *st)
{
	(void)node;
	stat_store(s, st);
}

void npkfs_stat_text(struct npkfs_session *s, const struct npkfs_node *node, struct stat *st)
{
	stat_store(s, st);
	st->st_mode &= 0444;
	st->st_mtim = st->st_ctim = st->st_atim = (struct timespec){.tv_sec = s->started};
	if (node->control != NULL && node->control->owner_only) {
		st->st_uid = getuid();
		st->st_gid = getgid();
		st->st_mode = 0400;
	}
}

static struct timespec from_us(uint64_t us)
{
	return (struct timespec){.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000 * 1000)};
}

static void fill_gen(const struct npk_gen_info *info, struct stat *st)
{
	st->st_uid = info->uid;
	st->st_gid = info->gid;
	st->st_mode = info->mode & 0777;
	st->st_mtim = st->st_ctim = st->st_atim = from_us(info->mtime_us);
}

/* A view, or the list of deleted rows. */
void npkfs_stat_gen(struct npkfs_session *s, const struct npkfs_node *node, struct stat *st)
{
	(void)s;
	fill_gen(npk_gen_info(node->gen), st);
	st->st_size = (off_t)(node->header_len + node->bytes);
	st->st_blocks = (st->st_size + 511) / 512;
}

static void fill_staged(const struct npkfs_staged *f, struct stat *st)
{
	st->st_uid = f->uid;
	st->st_gid = f->gid;
	st->st_mode = f->mode;
	st->st_mtim = st->st_ctim = st->st_atim = from_us(atomic_load(&f->mtime_us));
	st->st_size = (off_t)atomic_load(&f->size);
	st->st_blocks = (st->st_size + 511) / 512;
}

void npkfs_stat_array(struct npkfs_session *s, const struct npkfs_node *node, struct stat *st)
{
	uint64_t bytes = 0;
	struct npkfs_layout *l = npkfs_node_shown((struct npkfs_node *)node, &bytes);
	struct npkfs_layout *now = npkfs_node_layout((struct npkfs_node *)node);
	struct npkfs_staged *f = l == NULL ? npkfs_node_staged((struct npkfs_node *)node) : NULL;

	if (l != NULL && now != NULL) { /* time, mode and owner never wait for what the kernel is told of the size */
		fill_gen(npk_gen_info(now->gen), st);
		st->st_size = (off_t)(l->header_len + bytes);
		st->st_blocks = (blkcnt_t)npk_gen_info(now->gen)->blocks;
	} else if (f != NULL) {
		fill_staged(f, st);
	} else { /* damaged */
		stat_store(s, st);
		st->st_mode &= 0444;
	}
	npkfs_staged_put(f);
	npkfs_layout_put(now);
	npkfs_layout_put(l);
}

/* A text made from an array's rows: whoever may read the array. */
void npkfs_stat_array_text(struct npkfs_session *s, const struct npkfs_node *node, struct stat *st)
{
	struct npk_array *a = NULL;
	struct npk_gen *g = NULL;

	stat_store(s, st);
	if (npkfs_node_array(s, node, &a, NULL) == 0 && npk_gen_get(&g, a, NULL) == 0)
		fill_gen(npk_gen_info(g), st);
	st->st_mode &= 0444;
	npk_gen_put(g);
	npk_array_put(a);
}

void npkfs_stat_query(struct npkfs_session *s, const struct npkfs_node *node, struct stat *st)
{
	if (node->control->changes) { /* whoever may write to the array, or to the store */
		stat_store(s, st);
		st->st_mode &= 0666;
		return;
	}
	npkfs_stat_array_text(s, node, st);
	st->st_mode |= (st->st_mode & 0444) >> 1;
}

/* What its owner may write to; the directories are those where names are made. */
static bool is_writable(const struct npkfs_node *node)
{
	return node->type == &npkfs_array_type || node->type == &npkfs_view_type || npkfs_is_root(node) ||
	       node->type == &npkfs_batch_dir_type || node->type == &npkfs_view_dir_type ||
	       (node->control != NULL && node->control->changes);
}

/* The write bits of a file that is not written to: see above. */
static mode_t never_written(const struct npkfs_session *s, mode_t mode)
{
	mode &= ~(mode_t)WRITE_BITS;
	return s->rw ? mode : mode | (mode & 0400) >> 1;
}

void npkfs_stat(struct npkfs_session *s, const struct npkfs_node *node, struct stat *st)
{
	const struct npkfs_config *c = s->config;
	bool dir = node->type->kind == S_IFDIR, query = node->control != NULL && node->control->run != NULL;

	memset(st, 0, sizeof(*st));
	node->type->stat(s, node, st);
	if (c->set_umask) {
		st->st_mode = (dir ? 0777 : is_writable(node) ? 0666 : 0444) & ~c->umask;
		if (query)
			st->st_mode |= (st->st_mode & 0444) >> 1;
	}
	if (!query && !is_writable(node))
		st->st_mode = dir && !s->rw ? st->st_mode : never_written(s, st->st_mode);
	st->st_mode |= node->type->kind;
	if (c->set_uid)
		st->st_uid = c->uid;
	if (c->set_gid)
		st->st_gid = c->gid;
	st->st_ino =
		node->type == &npkfs_array_type && node->space == NULL && node->number != 0 && node->number < INO_OTHERS
			? node->number
			: INO_OTHERS | node->id;
	st->st_nlink = dir ? 2 : 1;
	st->st_blksize = 1 << 20;
}
