/* npyfile.c - a file that is a .npy header and then data: open handles, and READ as few pieces as possible. */
#include "npyfile.h"
#include "out.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Shorter runs are copied: the kernel's bookkeeping for a piece costs about as much as copying this many bytes. */
#define LONG_RUN (16u << 10)

uint32_t npkfs_npy_header_len(struct npkfs_session *s, unsigned dtype, const struct npk_shape *shape)
{
	char header[NPK_NPY_HEADER_MAX];

	return (uint32_t)npk_npy_header(header, dtype, shape, s->config->header);
}

int npkfs_npy_open(struct npkfs_session *s, struct npkfs_node *node, unsigned dtype, const struct npk_shape *shape,
	const struct npkfs_handle_ops *ops, struct npkfs_handle **out, struct npk_err *err)
{
	char header[NPK_NPY_HEADER_MAX];
	size_t len = npk_npy_header(header, dtype, shape, s->config->header);
	struct npkfs_npy_handle *h = calloc(1, sizeof(*h) + len);

	if (h == NULL)
		return npk_fail(err, ENOMEM, "no memory for an open file");
	h->h.ops = ops;
	h->h.s = s;
	h->h.node = node;
	h->header_len = len;
	memcpy(h->header, header, len);
	*out = &h->h;
	return 0;
}

void npkfs_npy_close(struct npkfs_handle *h)
{
	free(h);
}

size_t npkfs_npy_head(const char *header, size_t header_len, uint64_t off, size_t len, struct npkfs_out *out)
{
	size_t n;

	if (off >= header_len)
		return 0;
	n = header_len - (size_t)off;
	if (n > len)
		n = len;
	npkfs_out_copy(out, header + off, n);
	return n;
}

int npkfs_out_source(
	struct npkfs_out *out, const struct npkfs_source *src, uint64_t off, size_t len, struct npk_err *err)
{
	const void *p;
	size_t n;

	if (off >= src->bytes)
		return 0;
	if (len > src->bytes - off)
		len = (size_t)(src->bytes - off);
	while (len > 0 && !npkfs_out_full(out)) {
		n = src->borrow(src->from, off, &p);
		if (n > len)
			n = len;
		if (n < len && n < LONG_RUN)
			break;
		npkfs_out_borrow(out, p, n);
		off += n;
		len -= n;
	}
	return len == 0 ? 0 : src->read(src->from, off, npkfs_out_room(out, len), len, err);
}

static size_t borrow_view(void *view, uint64_t off, const void **out)
{
	return npk_view_borrow(view, off, out);
}

static int read_view(void *view, uint64_t off, void *buf, size_t len, struct npk_err *err)
{
	return npk_view_read(view, off, buf, len, err);
}

int npkfs_npy_read(const char *header, size_t header_len, struct npk_view *v, uint64_t off, size_t len,
	struct npkfs_out *out, struct npk_err *err)
{
	const struct npkfs_source src = {v, npk_view_info(v)->bytes, borrow_view, read_view};
	size_t n = npkfs_npy_head(header, header_len, off, len, out);

	return n == len ? 0 : npkfs_out_source(out, &src, off + n - header_len, len - n, err);
}

static int read_handle(
	struct npkfs_handle *handle, uint64_t off, size_t len, struct npkfs_out *out, struct npk_err *err)
{
	const struct npkfs_npy_handle *h = (const struct npkfs_npy_handle *)handle;

	return npkfs_npy_read(h->header, h->header_len, atomic_load(&handle->node->view), off, len, out, err);
}

const struct npkfs_handle_ops npkfs_view_handle_ops = {.read = read_handle, .close = npkfs_npy_close};

/* Two first opens may both make the view; one of them wins. */
int npkfs_node_view(struct npkfs_node *node, const char *sel, struct npk_err *err)
{
	struct npk_view *v, *none = NULL;
	int rc;

	if (atomic_load(&node->view) != NULL)
		return 0;
	rc = npk_view_open(&v, node->gen, sel, err);
	if (rc == 0 && !atomic_compare_exchange_strong(&node->view, &none, v))
		npk_view_close(v);
	return rc;
}
