/* export.c - export/store.safetensors. One image of the store serves all lookups until the store changes; who opened an
 * older one keeps it. What a transaction sees has an image of its own. */
#include "export.h"
#include "dir.h"
#include "npyfile.h"
#include "out.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FILE_NAME "store.safetensors"

struct npkfs_export {
	struct npk_tensors *tensors;
	_Atomic unsigned refs;
	uint64_t epoch; /* of the store, before the image was made */
	mode_t mode;    /* what everybody may do with every array in it */
};

static const struct npkfs_type file_type;

void npkfs_export_put(struct npkfs_export *e)
{
	if (e == NULL || atomic_fetch_sub(&e->refs, 1) != 1)
		return;
	npk_tensors_close(e->tensors);
	free(e);
}

/* The file shows every array, so only who may read each of them may read it. An array of another owner or group is
 * judged by what it lets others do. */
static int common_mode(struct npkfs_session *s, struct npkfs_space *sp, mode_t *out, struct npk_err *err)
{
	struct npk_array **list;
	struct npk_gen *g;
	struct stat dir;
	mode_t mode = 0444;
	size_t n;
	int rc = npkfs_arrays(s, sp, &list, &n, err);

	if (rc != 0)
		return rc;
	if (fstat(npk_store_dirfd(s->store), &dir) != 0)
		rc = npk_fail(err, errno, "%s: %s", npk_store_path(s->store), strerror(errno));
	for (size_t i = 0; i < n && rc == 0; i++) {
		if (npk_gen_get(&g, list[i], NULL) != 0)
			continue; /* damaged: not in the file */
		const struct npk_gen_info *info = npk_gen_info(g);
		mode_t others = info->mode & 04;

		mode &= (info->uid == dir.st_uid ? info->mode & 0400 : others << 6) |
			(info->gid == dir.st_gid ? info->mode & 040 : others << 3) | others;
		npk_gen_put(g);
	}
	npk_store_list_free(list, n);
	if (rc == 0)
		*out = mode;
	return rc;
}

static int open_tensors(struct npkfs_session *s, struct npkfs_space *sp, struct npk_tensors **out, struct npk_err *err)
{
	struct npk_store *store;
	int rc = npkfs_space_enter(s, sp, &store, err);

	if (rc != 0)
		return rc;
	rc = npk_tensors_open(out, store, err);
	npkfs_space_leave(sp);
	return rc;
}

static int make(struct npkfs_session *s, struct npkfs_space *sp, struct npkfs_export **out, struct npk_err *err)
{
	struct npkfs_export *e = calloc(1, sizeof(*e));
	int rc;

	if (e == NULL)
		return npk_fail(err, ENOMEM, "no memory for an export");
	atomic_init(&e->refs, 1);
	e->epoch = atomic_load(&s->epoch);
	rc = common_mode(s, sp, &e->mode, err);
	if (rc == 0)
		rc = open_tensors(s, sp, &e->tensors, err);
	if (rc != 0) {
		npkfs_export_put(e);
		return rc;
	}
	*out = e;
	return 0;
}

/* The image of the store as it is now, with a reference. */
static int get(struct npkfs_session *s, struct npkfs_export **out, struct npk_err *err)
{
	struct npkfs_export *e = NULL, *old = NULL;
	int rc = 0;

	pthread_mutex_lock(&s->export_lock);
	if (s->export != NULL && s->export->epoch == atomic_load(&s->epoch)) {
		e = s->export;
	} else if ((rc = make(s, NULL, &e, err)) == 0) {
		old = s->export;
		s->export = e;
	}
	if (rc == 0)
		atomic_fetch_add(&e->refs, 1);
	pthread_mutex_unlock(&s->export_lock);
	npkfs_export_put(old);
	if (rc == 0)
		*out = e;
	return rc;
}

static int lookup_export(struct npkfs_session *s, struct npkfs_node *dir, const char *name,
	const struct npkfs_caller *who, struct npkfs_node **out, struct npk_err *err)
{
	struct npkfs_key key = {.type = &file_type, .space = dir->space};
	struct npkfs_export *e;
	struct npkfs_node *node;
	int rc;

	(void)who;
	if (strcmp(name, FILE_NAME) != 0)
		return -ENOENT;
	rc = dir->space == NULL ? get(s, &e, err) : make(s, dir->space, &e, err);
	if (rc != 0)
		return rc;
	key.number = e->epoch;
	node = npkfs_node_by_key(&s->inodes, &key);
	if (node == NULL && (rc = npkfs_node_new(&node, &key, err)) == 0) {
		node->export = e;
		node->bytes = npk_tensors_size(e->tensors);
		node = npkfs_node_publish(&s->inodes, node);
	} else {
		npkfs_export_put(e);
	}
	if (rc == 0)
		*out = node;
	return rc;
}

static int list_export(struct npkfs_session *s, struct npkfs_node *dir, struct npk_text *names, struct npk_err *err)
{
	(void)s;
	(void)dir;
	(void)err;
	npkfs_dir_add(names, FILE_NAME, S_IFREG);
	return 0;
}

static void path_export_dir(const struct npkfs_node *node, struct npk_text *out)
{
	npkfs_space_path(node->space, out);
	npk_text_printf(out, ".numpack/export");
}

const struct npkfs_type npkfs_export_dir_type = {
	.kind = S_IFDIR,
	.name_ttl = true,
	.attr_ttl = true,
	.path = path_export_dir,
	.stat = npkfs_stat_dir,
	.lookup = lookup_export,
	.list = list_export,
};

/* --- the file -------------------------------------------------------------------------------------------------------- */

static size_t borrow(void *tensors, uint64_t off, const void **out)
{
	return npk_tensors_borrow(tensors, off, out);
}

static int copy(void *tensors, uint64_t off, void *buf, size_t len, struct npk_err *err)
{
	return npk_tensors_read(tensors, off, buf, len, err);
}

static int read_export(struct npkfs_handle *h, uint64_t off, size_t len, struct npkfs_out *out, struct npk_err *err)
{
	const struct npkfs_source src = {h->node->export->tensors, h->node->bytes, borrow, copy};

	return npkfs_out_source(out, &src, off, len, err);
}

static void close_export(struct npkfs_handle *h)
{
	free(h);
}

static const struct npkfs_handle_ops handle_ops = {.read = read_export, .close = close_export};

static int open_export(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_open *o,
	struct npkfs_handle **out, struct npk_err *err)
{
	struct npkfs_handle *h;
	int rc = npkfs_refuse_writing(o->flags, err);

	if (rc == 0) /* what is saved over or removed later is to be there for who reads it later */
		rc = npkfs_refresh_if_stale(s, npk_tensors_map(node->export->tensors, err));
	if (rc != 0)
		return rc;
	h = calloc(1, sizeof(*h));
	if (h == NULL)
		return npk_fail(err, ENOMEM, "no memory for an open file");
	*h = (struct npkfs_handle){.ops = &handle_ops, .s = s, .node = node};
	o->keep_cache = true;
	*out = h;
	return 0;
}

static void stat_export(struct npkfs_session *s, const struct npkfs_node *node, struct stat *st)
{
	npkfs_stat_dir(s, node, st);
	st->st_mode = node->export->mode;
	st->st_size = (off_t)node->bytes;
	st->st_blocks = (st->st_size + 511) / 512;
}

static void path_export(const struct npkfs_node *node, struct npk_text *out)
{
	npkfs_space_path(node->space, out);
	npk_text_printf(out, ".numpack/export/" FILE_NAME);
}

static const struct npkfs_type file_type = {
	.kind = S_IFREG,
	.attr_ttl = true,
	.path = path_export,
	.stat = stat_export,
	.open = open_export,
};
