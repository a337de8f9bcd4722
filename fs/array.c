/* array.c - <name>.npy: a node per generation. A reader keeps the layout that it opened, for ever; who opens the name
 * after a change gets another node with pages of its own. */
#include "changed.h"
#include "names.h"
#include "file.h"
#include "layout.h"
#include "npyfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

int npkfs_refuse_writing(int flags, struct npk_err *err)
{
	if ((flags & O_ACCMODE) == O_RDONLY && !(flags & O_TRUNC))
		return 0;
	return npk_fail(err, EROFS, "opened for writing, but this mount is read-only");
}

/* An array without a usable generation: it is listed and has size 0, and opening it tells why. */
static int damaged_node(struct npkfs_session *s, struct npkfs_space *sp, struct npk_array *a, struct npkfs_node **out,
	struct npk_err *err)
{
	struct npkfs_key key = {.type = &npkfs_array_type, .space = sp};

	key.name = npk_array_name(a, &key.name_len);
	return npkfs_plain_node(s, &key, out, err);
}

static int new_node(struct npkfs_session *s, const struct npkfs_key *key, struct npk_array *a, struct npk_gen *g,
	struct npkfs_node **out, struct npk_err *err)
{
	struct npkfs_node *node = NULL;
	const char *name;
	size_t len;
	int rc = npkfs_node_new(&node, key, err);

	if (rc != 0)
		return rc;
	rc = npkfs_layout_new(&node->layout, s, g, NULL, 0, err);
	if (rc == 0) {
		name = npk_array_name(a, &len);
		npkfs_node_call(node, name, len);
	}
	if (rc == 0 && node->called == NULL)
		rc = npk_fail(err, ENOMEM, "no memory for a node");
	if (rc != 0) {
		npkfs_node_discard(node);
		return rc;
	}
	*out = npkfs_node_publish(&s->inodes, node);
	return 0;
}

char *npkfs_node_called(struct npkfs_node *node, size_t *len)
{
	const char *name;
	char *copy;

	pthread_mutex_lock(&node->lock);
	name = node->called != NULL ? node->called : node->name;
	*len = node->called != NULL ? node->called_len : node->name_len;
	copy = malloc(*len + 1);
	if (copy != NULL)
		memcpy(copy, name, *len + 1);
	pthread_mutex_unlock(&node->lock);
	return copy;
}

void npkfs_node_call(struct npkfs_node *node, const char *name, size_t len)
{
	char *copy = malloc(len + 1), *old;

	if (copy == NULL)
		return; /* messages will tell the old one, writing fails with ENOENT */
	memcpy(copy, name, len);
	copy[len] = '\0';
	pthread_mutex_lock(&node->lock);
	old = node->called;
	node->called = copy;
	node->called_len = len;
	pthread_mutex_unlock(&node->lock);
	free(old);
}

/* A lookup may come between a change and its announcement. Of what another process changed there is no other one, and whoever
 * asks is to have it at once. */
static int take_newer(struct npkfs_session *s, struct npkfs_node *node, struct npk_gen *g, struct npk_err *err)
{
	bool newer;
	int rc = npkfs_node_update(s, node, g, err);

	if (rc != 0)
		return rc;
	pthread_mutex_lock(&node->lock);
	newer = node->shown != NULL && !node->publishing;
	pthread_mutex_unlock(&node->lock);
	if (!s->rw)
		npkfs_node_show_size(node, NULL);
	return newer ? npkfs_tell_grown(s, node, err) : 0;
}

int npkfs_array_node(struct npkfs_session *s, struct npkfs_space *sp, struct npk_array *a, struct npkfs_node **out,
	struct npk_err *err)
{
	struct npkfs_key key = {.type = &npkfs_array_type, .space = sp};
	struct npkfs_node *node = NULL;
	struct npk_gen *g;
	struct npk_err why;
	int rc = npk_gen_get(&g, a, &why);

	if (rc == -ENOENT)
		return rc;
	if (rc == -ENOMEM) {
		if (err != NULL)
			*err = why;
		return rc;
	}
	if (rc != 0)
		return damaged_node(s, sp, a, out, err);
	key.number = npk_gen_info(g)->number; /* unique: the name may change */
	node = npkfs_node_by_key(&s->inodes, &key);
	if (node != NULL)
		rc = take_newer(s, node, g, err);
	else
		rc = new_node(s, &key, a, g, &node, err);
	npk_gen_put(g);
	if (rc != 0)
		npkfs_node_put(&s->inodes, node);
	else
		*out = node;
	return rc;
}

/* The node is that of a damaged array. When the array became usable meanwhile, ESTALE makes the kernel look it up again. */
int npkfs_open_damaged(struct npkfs_session *s, struct npkfs_node *node, struct npk_err *err)
{
	struct npk_array *a;
	struct npk_gen *g;
	int rc = npkfs_node_array(s, node, &a, err);

	if (rc != 0)
		return rc;
	rc = npk_gen_get(&g, a, err);
	npk_array_put(a);
	if (rc != 0)
		return rc;
	npk_gen_put(g);
	return -ESTALE;
}

static void path_array(const struct npkfs_node *node, struct npk_text *out)
{
	struct npkfs_staged *st = npkfs_node_staged((struct npkfs_node *)node);
	size_t len = 0;
	char *called = npkfs_node_called((struct npkfs_node *)node, &len);
	char part[NPKFS_NAME_MAX + 1];

	npkfs_space_path(node->space, out);
	if (st != NULL && len == 0)
		npk_text_printf(out, "%s", st->name);
	else if (called != NULL && npkfs_name_escape(part, called, len, ".npy"))
		npk_text_printf(out, "%s", part);
	npkfs_staged_put(st);
	free(called);
}

const struct npkfs_type npkfs_array_type = {
	.kind = S_IFREG,
	.name_ttl = true,
	.attr_ttl = true,
	.path = path_array,
	.stat = npkfs_stat_array,
	.open = npkfs_file_open,
};
