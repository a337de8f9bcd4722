/* staged_commit.c - staged files become arrays: when they are complete, or by a rename. */
#include "changed.h"
#include "file_parts.h"
#include "npyfile.h"

#include <errno.h>
#include <string.h>
#include <time.h>

int npkfs_component_array(const char *component, char name[NPKFS_NAME_MAX + 1], struct npk_err *err)
{
	size_t len;

	if (!npkfs_is_array_component(component) || !npkfs_name_strip(component, ".npy", &len) ||
		!npkfs_name_unescape(name, &len, component, len))
		return npk_fail(err, EINVAL, "%.200s: not the name of an array", component);
	return strlen(name) == len ? 0 : npk_fail(err, EINVAL, "%.200s: NumPack has no such names", component);
}

/* The node goes on as the array's. With the canonical header it is the array's node for everybody; else only for those who
 * have it open. */
int npkfs_show_array(struct npkfs_session *s, struct npkfs_node *node, const char *name, const struct npk_text *head,
	bool same, struct npk_err *err)
{
	struct npkfs_layout *l = NULL;
	struct npk_array *a = NULL;
	struct npk_gen *g = NULL;
	const struct npk_gen_info *info;
	bool usual = false;
	int rc = npkfs_array_get(s, node->space, name, strlen(name), &a, err);

	if (rc == 0)
		rc = npk_gen_get(&g, a, err);
	if (rc == 0) {
		info = npk_gen_info(g);
		usual = same && head->len == npkfs_npy_header_len(s, info->dtype, &info->shape);
		rc = same && !usual ? npkfs_layout_new(&l, s, g, head->p, head->len, err)
				    : npkfs_layout_new(&l, s, g, NULL, 0, err);
	}
	if (rc == 0) {
		npkfs_node_call(node, name, strlen(name));
		atomic_store(&node->converted, !same);
		npkfs_node_set_layout(node, l);
		if (usual && npkfs_node_rekey(&s->inodes, node, npk_gen_info(g)->number))
			npkfs_inval_range(&s->inval, node->id, 0, head->len);
	}
	npk_gen_put(g);
	npk_array_put(a);
	return rc;
}

static bool has_array(struct npkfs_session *s, struct npkfs_space *sp, const char *name)
{
	struct npk_array *a;

	if (npkfs_array_get(s, sp, name, strlen(name), &a, NULL) != 0)
		return false;
	npk_array_put(a);
	return true;
}

int npkfs_staged_commit(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_staged *st,
	const char *component, bool renamed, struct npk_err *err)
{
	const struct npkfs_owner own = {st->mode, st->uid, st->gid};
	char name[NPKFS_NAME_MAX + 1];
	bool same;
	int rc = npkfs_component_array(component, name, err);

	if (rc == 0)
		rc = npkfs_payload_commit(
			&st->payload, name, renamed || !has_array(s, node->space, name) ? &own : NULL, &same, err);
	if (rc == 0)
		rc = npkfs_show_array(s, node, name, &st->payload.head, same, err);
	if (rc != 0)
		return rc;
	st->committed = true;
	npkfs_staged_unlist(s, st);
	npkfs_announce(s, node->space, name, strlen(name), NPK_APPEARED);
	return npkfs_sync_change(s, err);
}

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

int npkfs_staged_changed(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_staged *st, struct npk_err *err)
{
	atomic_store(&st->size, st->payload.size);
	atomic_store(&st->mtime_us, now_us());
	if (st->scratch || !st->listed || !npkfs_payload_complete(&st->payload))
		return 0;
	return npkfs_staged_commit(s, node, st, st->name, false, err);
}
