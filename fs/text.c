/* text.c - control files that are read: the content is made at open, so every read of a handle sees one moment. */
#include "text.h"
#include "control.h"
#include "out.h"

#include <errno.h>
#include <stdlib.h>

struct text_handle {
	struct npkfs_handle h;
	struct npk_text text;
};

static int read_text(struct npkfs_handle *handle, uint64_t off, size_t len, struct npkfs_out *out, struct npk_err *err)
{
	const struct text_handle *h = (const struct text_handle *)handle;

	(void)err;
	if (off >= h->text.len)
		return 0;
	npkfs_out_borrow(out, h->text.p + off, len < h->text.len - off ? len : (size_t)(h->text.len - off));
	return 0;
}

static void close_text(struct npkfs_handle *handle)
{
	struct text_handle *h = (struct text_handle *)handle;

	npk_text_fini(&h->text);
	free(h);
}

static const struct npkfs_handle_ops handle_ops = {.read = read_text, .close = close_text};

int npkfs_text_handle(struct npkfs_session *s, struct npkfs_node *node, struct npk_text *t, struct npkfs_handle **out,
	struct npk_err *err)
{
	struct text_handle *h = t->bad ? NULL : calloc(1, sizeof(*h));

	if (h == NULL) {
		npk_text_fini(t);
		return npk_fail(err, ENOMEM, "no memory for the text");
	}
	h->h = (struct npkfs_handle){.ops = &handle_ops, .s = s, .node = node};
	h->text = *t;
	*out = &h->h;
	return 0;
}

static int open_text(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_open *o, struct npkfs_handle **out,
	struct npk_err *err)
{
	struct npk_text t = {0};
	int rc = npkfs_refuse_writing(o->flags, err);

	if (rc == 0)
		rc = node->control->render(s, node, &o->who, &t, err);
	if (rc != 0) {
		npk_text_fini(&t);
		return rc;
	}
	o->direct_io = true;
	return npkfs_text_handle(s, node, &t, out, err);
}

void npkfs_control_path(const struct npkfs_node *node, struct npk_text *out)
{
	if (npkfs_control_find(npkfs_store_controls, node->control->name) == node->control) {
		npkfs_space_path(node->space, out);
		npk_text_printf(out, ".numpack/%s", node->control->name);
		return;
	}
	npkfs_array_path(node, "/", out);
	npk_text_printf(out, "%s", node->control->name);
}

const struct npkfs_type npkfs_text_type = {
	.kind = S_IFREG,
	.path = npkfs_control_path,
	.stat = npkfs_stat_text,
	.open = open_text,
};
