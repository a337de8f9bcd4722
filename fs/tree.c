/* tree.c - the directories: the root, .numpack, arrays/ and arrays/<name>/. */
#include "control.h"
#include "dir.h"
#include "names.h"

#include "root.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CONTROL_DIR ".numpack"

int npkfs_plain_node(struct npkfs_session *s, const struct npkfs_key *key, struct npkfs_node **out, struct npk_err *err)
{
	struct npkfs_node *node = npkfs_node_by_key(&s->inodes, key);
	int rc;

	if (node == NULL) {
		rc = npkfs_node_new(&node, key, err);
		if (rc != 0)
			return rc;
		node = npkfs_node_publish(&s->inodes, node);
	}
	*out = node;
	return 0;
}

int npkfs_tree_init(struct npkfs_session *s, struct npk_err *err)
{
	const struct npkfs_key key = {.type = &npkfs_root_type};
	struct npkfs_node *root;
	int rc = npkfs_plain_node(s, &key, &root, err);

	if (rc == 0)
		npkfs_node_put(&s->inodes, root);
	return rc;
}

/* The array that the component `part` of `len` bytes names. -ENOENT without a message: none. */
static int array_of(struct npkfs_session *s, struct npkfs_space *sp, const char *part, size_t len,
	struct npk_array **out, struct npk_err *err)
{
	char name[NPKFS_NAME_MAX + 1];
	struct npk_err mine;
	size_t name_len;
	int rc;

	if (len > NPKFS_NAME_MAX || !npkfs_name_unescape(name, &name_len, part, len))
		return -ENOENT;
	rc = npkfs_array_get(s, sp, name, name_len, out, &mine);
	if (rc != 0 && rc != -ENOENT && err != NULL)
		*err = mine;
	return rc;
}

int npkfs_node_array(
	struct npkfs_session *s, const struct npkfs_node *node, struct npk_array **out, struct npk_err *err)
{
	char *called;
	size_t len;
	int rc;

	if (node->type != &npkfs_array_type || node->called == NULL)
		return npkfs_array_get(s, node->space, node->name, node->name_len, out, err);
	called = npkfs_node_called((struct npkfs_node *)node, &len);
	if (called == NULL)
		return npk_fail(err, ENOMEM, "no memory for a name");
	rc = npkfs_array_get(s, node->space, called, len, out, err);
	free(called);
	return rc;
}

bool npkfs_is_left(const struct npkfs_node *node, int rc)
{
	return rc == -ENOENT || (rc == -ESTALE && node->space != NULL);
}

void npkfs_array_path(const struct npkfs_node *node, const char *tail, struct npk_text *out)
{
	char part[NPKFS_NAME_MAX + 1];

	npkfs_space_path(node->space, out);
	if (npkfs_name_escape(part, node->name, node->name_len, ""))
		npk_text_printf(out, CONTROL_DIR "/arrays/%s%s", part, tail);
}

/* The node of a table's row, or of nothing. */
static int control_node(struct npkfs_session *s, const struct npkfs_control *table, struct npkfs_node *dir,
	const char *name, struct npkfs_node **out, struct npk_err *err)
{
	const struct npkfs_control *row = npkfs_control_find(table, name);
	struct npkfs_key key = {.space = dir->space, .name = dir->name, .name_len = dir->name_len};

	if (row == NULL)
		return -ENOENT;
	key.type = row->type;
	key.control = row->type->kind == S_IFDIR ? NULL : row;
	return npkfs_plain_node(s, &key, out, err);
}

static int list_table(const struct npkfs_control *table, bool inside, struct npk_text *names)
{
	for (const struct npkfs_control *row = table; row->name != NULL; row++)
		if (!inside || row->inside)
			npkfs_dir_add(names, row->name, row->type->kind);
	return 0;
}

/* All arrays whose names can be shown, with `suffix`. */
static int list_arrays(struct npkfs_session *s, struct npkfs_space *sp, const char *suffix, mode_t kind,
	struct npk_text *names, struct npk_err *err)
{
	char part[NPKFS_NAME_MAX + 1];
	struct npk_array **list;
	const char *name;
	size_t n, len;
	int rc = npkfs_arrays(s, sp, &list, &n, err);

	if (rc != 0)
		return rc;
	for (size_t i = 0; i < n; i++) {
		name = npk_array_name(list[i], &len);
		/* Shown in arrays/ only if the root can show it as well, suffix included. */
		if (npkfs_name_escape(part, name, len, ".npy") && npkfs_name_escape(part, name, len, suffix))
			npkfs_dir_add(names, part, kind);
	}
	npk_store_list_free(list, n);
	return 0;
}

/* --- / -------------------------------------------------------------------------------------------------------------- */

static int lookup_root(struct npkfs_session *s, struct npkfs_node *dir, const char *name,
	const struct npkfs_caller *who, struct npkfs_node **out, struct npk_err *err)
{
	const struct npkfs_key control = {.type = &npkfs_control_dir_type, .space = dir->space};
	struct npk_array *a;
	size_t len;
	int rc = -ENOENT;

	(void)dir;
	if (strcmp(name, CONTROL_DIR) == 0)
		return npkfs_plain_node(s, &control, out, err);
	*out = npkfs_staged_find(s, dir->space, name, who, false);
	if (*out != NULL)
		return 0;
	if (npkfs_name_strip(name, ".npy", &len) && strlen(name) <= NPKFS_NAME_MAX)
		rc = array_of(s, dir->space, name, len, &a, err);
	if (rc == 0) {
		rc = npkfs_array_node(s, dir->space, a, out, err);
		npk_array_put(a);
	}
	if (rc == -ENOENT && (*out = npkfs_staged_find(s, dir->space, name, who, true)) != NULL)
		rc = 0;
	return rc;
}

int npkfs_list_arrays(struct npkfs_session *s, struct npkfs_space *sp, struct npk_text *names, struct npk_err *err)
{
	return list_arrays(s, sp, ".npy", S_IFREG, names, err);
}

bool npkfs_is_root(const struct npkfs_node *node)
{
	return node->type == &npkfs_root_type || node->type == &npkfs_batch_type;
}

static int list_root(struct npkfs_session *s, struct npkfs_node *dir, struct npk_text *names, struct npk_err *err)
{
	(void)dir;
	if (s->config->show_control)
		npkfs_dir_add(names, CONTROL_DIR, S_IFDIR);
	npkfs_staged_list(s, dir->space, names);
	return list_arrays(s, dir->space, ".npy", S_IFREG, names, err);
}

static void path_root(const struct npkfs_node *node, struct npk_text *out)
{
	(void)node;
	(void)out;
}

const struct npkfs_type npkfs_root_type = {
	.kind = S_IFDIR,
	.name_ttl = true,
	.attr_ttl = true,
	.plus = true,
	.path = path_root,
	.stat = npkfs_stat_dir,
	.lookup = lookup_root,
	.list = list_root,
	.create = npkfs_root_create,
	.unlink = npkfs_root_unlink,
};

/* --- /.numpack ------------------------------------------------------------------------------------------------------ */

static int lookup_control(struct npkfs_session *s, struct npkfs_node *dir, const char *name,
	const struct npkfs_caller *who, struct npkfs_node **out, struct npk_err *err)
{
	const struct npkfs_control *row = npkfs_control_find(npkfs_store_controls, name);

	(void)who;
	if (row != NULL && dir->space != NULL && !row->inside)
		return -ENOENT;
	return control_node(s, npkfs_store_controls, dir, name, out, err);
}

int npkfs_control_lookup(
	struct npkfs_session *s, struct npkfs_node *dir, const char *name, struct npkfs_node **out, struct npk_err *err)
{
	return control_node(s, npkfs_store_controls, dir, name, out, err);
}

static int list_control(struct npkfs_session *s, struct npkfs_node *dir, struct npk_text *names, struct npk_err *err)
{
	(void)s;
	(void)err;
	return list_table(npkfs_store_controls, dir->space != NULL, names);
}

static void path_control(const struct npkfs_node *node, struct npk_text *out)
{
	npkfs_space_path(node->space, out);
	npk_text_printf(out, CONTROL_DIR);
}

const struct npkfs_type npkfs_control_dir_type = {
	.kind = S_IFDIR,
	.name_ttl = true,
	.attr_ttl = true,
	.path = path_control,
	.stat = npkfs_stat_dir,
	.lookup = lookup_control,
	.list = list_control,
};

/* --- /.numpack/arrays ------------------------------------------------------------------------------------------------ */

static int lookup_arrays(struct npkfs_session *s, struct npkfs_node *dir, const char *name,
	const struct npkfs_caller *who, struct npkfs_node **out, struct npk_err *err)
{
	struct npkfs_key key = {.type = &npkfs_array_dir_type, .space = dir->space};
	struct npk_array *a;
	int rc = array_of(s, dir->space, name, strlen(name), &a, err);

	(void)who;
	(void)dir;
	if (rc != 0)
		return rc;
	key.name = npk_array_name(a, &key.name_len);
	rc = npkfs_plain_node(s, &key, out, err);
	npk_array_put(a);
	return rc;
}

static int list_arrays_dir(struct npkfs_session *s, struct npkfs_node *dir, struct npk_text *names, struct npk_err *err)
{
	(void)dir;
	return list_arrays(s, dir->space, "", S_IFDIR, names, err);
}

static void path_arrays(const struct npkfs_node *node, struct npk_text *out)
{
	npkfs_space_path(node->space, out);
	npk_text_printf(out, CONTROL_DIR "/arrays");
}

const struct npkfs_type npkfs_arrays_dir_type = {
	.kind = S_IFDIR,
	.name_ttl = true,
	.attr_ttl = true,
	.path = path_arrays,
	.stat = npkfs_stat_dir,
	.lookup = lookup_arrays,
	.list = list_arrays_dir,
};

/* --- /.numpack/arrays/<name> ----------------------------------------------------------------------------------------- */

static int lookup_array_dir(struct npkfs_session *s, struct npkfs_node *dir, const char *name,
	const struct npkfs_caller *who, struct npkfs_node **out, struct npk_err *err)
{
	const struct npkfs_control *row = npkfs_control_find(npkfs_array_controls, name);
	struct npk_array *a;
	int rc;

	(void)who;
	if (row == NULL)
		return -ENOENT;
	if (row->type != &npkfs_deleted_type)
		return control_node(s, npkfs_array_controls, dir, name, out, err);
	rc = npkfs_node_array(s, dir, &a, err);
	if (rc == 0) {
		rc = npkfs_deleted_node(s, dir->space, a, out, err);
		npk_array_put(a);
	}
	return rc;
}

static int list_array_dir(struct npkfs_session *s, struct npkfs_node *dir, struct npk_text *names, struct npk_err *err)
{
	(void)s;
	(void)dir;
	(void)err;
	return list_table(npkfs_array_controls, false, names);
}

static void path_array_dir(const struct npkfs_node *node, struct npk_text *out)
{
	npkfs_array_path(node, "", out);
}

const struct npkfs_type npkfs_array_dir_type = {
	.kind = S_IFDIR,
	.name_ttl = true,
	.attr_ttl = true,
	.path = path_array_dir,
	.stat = npkfs_stat_dir,
	.lookup = lookup_array_dir,
	.list = list_array_dir,
};
