/* layout.c - see layout.h. */
#include "layout.h"
#include "fs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int npkfs_layout_new(struct npkfs_layout **out, struct npkfs_session *s, struct npk_gen *g, const char *header,
	size_t header_len, struct npk_err *err)
{
	const struct npk_gen_info *info = npk_gen_info(g);
	char own[NPK_NPY_HEADER_MAX];
	struct npkfs_layout *l;
	struct npk_view *v;
	int rc = npk_view_open(&v, g, NULL, err);

	if (rc != 0)
		return rc;
	if (header == NULL) {
		header_len = npk_npy_header(own, info->dtype, &info->shape, s->config->header);
		header = own;
	}
	l = calloc(1, sizeof(*l) + header_len);
	if (l == NULL) {
		npk_view_close(v);
		return npk_fail(err, ENOMEM, "no memory for a layout");
	}
	atomic_init(&l->refs, 1);
	l->gen = npk_gen_ref(g);
	l->view = v;
	l->bytes = info->rows * info->row_bytes;
	l->header_len = header_len;
	memcpy(l->header, header, header_len);
	*out = l;
	return 0;
}

void npkfs_layout_put(struct npkfs_layout *l)
{
	if (l == NULL || atomic_fetch_sub(&l->refs, 1) != 1)
		return;
	npk_view_close(l->view);
	npk_gen_put(l->gen);
	free(l);
}

struct npkfs_layout *npkfs_node_layout(struct npkfs_node *node)
{
	struct npkfs_layout *l;

	pthread_mutex_lock(&node->lock);
	l = node->layout;
	if (l != NULL)
		atomic_fetch_add(&l->refs, 1);
	pthread_mutex_unlock(&node->lock);
	return l;
}

void npkfs_node_set_layout(struct npkfs_node *node, struct npkfs_layout *l)
{
	struct npkfs_layout *old, *shown;

	pthread_mutex_lock(&node->lock);
	old = node->layout;
	shown = node->shown;
	node->layout = l;
	node->shown = NULL;
	pthread_mutex_unlock(&node->lock);
	npkfs_layout_put(old);
	npkfs_layout_put(shown);
}

struct npkfs_layout *npkfs_node_shown(struct npkfs_node *node, uint64_t *bytes)
{
	struct npkfs_layout *l;

	pthread_mutex_lock(&node->lock);
	l = node->shown != NULL ? node->shown : node->layout;
	if (l != NULL) {
		atomic_fetch_add(&l->refs, 1);
		*bytes = node->shown != NULL ? node->shown_bytes : l->bytes;
	}
	pthread_mutex_unlock(&node->lock);
	return l;
}

struct npkfs_layout *npkfs_node_layouts(struct npkfs_node *node, struct npkfs_layout **shown)
{
	struct npkfs_layout *l;

	pthread_mutex_lock(&node->lock);
	l = node->layout;
	*shown = node->shown != NULL ? node->shown : l;
	if (l != NULL) {
		atomic_fetch_add(&l->refs, 1);
		atomic_fetch_add(&(*shown)->refs, 1);
	}
	pthread_mutex_unlock(&node->lock);
	return l;
}

void npkfs_node_show_size(struct npkfs_node *node, const struct npkfs_layout *l)
{
	pthread_mutex_lock(&node->lock);
	if (l == NULL)
		l = node->layout;
	if (node->shown != NULL && l != NULL && l->bytes > node->shown_bytes)
		node->shown_bytes = l->bytes;
	pthread_mutex_unlock(&node->lock);
}

/* When the node shows another generation meanwhile, there is nothing to do. */
void npkfs_node_show_header(struct npkfs_node *node, struct npkfs_layout *l)
{
	struct npkfs_layout *old = NULL;

	pthread_mutex_lock(&node->lock);
	if (node->shown != NULL && npk_gen_info(node->shown->gen)->number == npk_gen_info(l->gen)->number) {
		old = node->shown;
		node->shown = NULL;
		if (node->layout != l) {
			node->shown = l;
			atomic_fetch_add(&l->refs, 1);
		}
	}
	pthread_mutex_unlock(&node->lock);
	npkfs_layout_put(old);
}

/* Two threads may come with two moments of one generation. */
static bool is_newer(const struct npk_gen *a, const struct npk_gen *b)
{
	const struct npk_gen_info *x = npk_gen_info(a), *y = npk_gen_info(b);

	return x->number == y->number && x->moment > y->moment;
}

int npkfs_node_update(struct npkfs_session *s, struct npkfs_node *node, struct npk_gen *g, struct npk_err *err)
{
	struct npkfs_layout *now = npkfs_node_layout(node), *l = NULL, *old = NULL;
	int rc = 0;

	if (now == NULL || !is_newer(g, now->gen)) {
		npkfs_layout_put(now);
		return 0;
	}
	rc = npkfs_layout_new(&l, s, g, NULL, 0, err);
	npkfs_layout_put(now);
	if (rc != 0)
		return rc;
	/* Who has the node open may read it when the files have no name any more. What cannot be mapped now is no error
	 * here: the read tries again, and says why. */
	if (atomic_load(&node->handles) > 0)
		npk_gen_map(g, NULL);
	pthread_mutex_lock(&node->lock);
	if (node->layout != NULL && is_newer(g, node->layout->gen)) {
		if (node->shown == NULL) {
			node->shown = node->layout;
			node->shown_bytes = node->layout->bytes;
		} else {
			old = node->layout;
		}
		node->layout = l;
		l = NULL;
	}
	pthread_mutex_unlock(&node->lock);
	npkfs_layout_put(old);
	npkfs_layout_put(l);
	return 0;
}
