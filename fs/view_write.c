/* view_write.c - see view_write.h.
 *
 * With O_TRUNC (np.save, cp, `>`) the bytes are a new .npy of the selection's shape: they are staged, and replace the elements
 * in the write that completes them. The kernel would cut the pages of the node that readers have mapped, so the writer gets a
 * node of its own, in the way that file.c describes. They are replaced in one change; a selection that lies in very many
 * pieces (a column of millions of rows), and one of an array that is gone, is overwritten piece by piece. Without O_TRUNC
 * elements are overwritten as they come. */
#include "view_write.h"
#include "changed.h"
#include "convert.h"
#include "file.h"
#include "npyfile.h"
#include "out.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define COPY_BYTES ((size_t)1 << 20)
#define PIECES_MAX 100000 /* of a change: 20 MB of memory */

struct view_writer {
	struct npkfs_handle h;
	pthread_mutex_t lock;         /* one write at a time; outermost */
	bool staged;                  /* opened with O_TRUNC */
	struct npkfs_payload payload; /* lock: when staged, until it is complete */
	bool done;                    /* lock */
	int sticky;                   /* lock */
	size_t header_len;
	char header[NPK_NPY_HEADER_MAX];
};

/* --- private nodes ---------------------------------------------------------------------------------------------------------- */

struct npkfs_node *npkfs_view_private(
	struct npkfs_session *s, const struct npkfs_key *shown, const struct npkfs_caller *who)
{
	struct npkfs_key key = *shown;

	key.number = 0; /* whatever generation it was asked for: the array may change before the kernel comes back */
	key.detail = NPKFS_VIEW_PRIVATE | (uint64_t)who->pid;
	return who->pid != 0 ? npkfs_node_by_key(&s->inodes, &key) : NULL;
}

/* From now on the name leads this thread to the view again. */
static void take(struct npkfs_session *s, struct npkfs_node *node)
{
	if ((node->number & NPKFS_STAGED_NUMBER) != 0)
		return;
	npkfs_node_rekey(&s->inodes, node, NPKFS_STAGED_NUMBER | atomic_fetch_add(&s->staging.next_number, 1));
	npkfs_node_put(&s->inodes, node);
}

/* The reference that publishing gives is kept until the thread opens the node. */
static int mint(
	struct npkfs_session *s, const struct npkfs_node *node, const struct npkfs_caller *who, struct npk_err *err)
{
	struct npkfs_key key = {.type = &npkfs_view_type,
		.space = node->space,
		.detail = NPKFS_VIEW_PRIVATE | (uint64_t)who->pid,
		.name = node->name,
		.name_len = node->name_len,
		.sel = node->sel};
	struct npkfs_node *fresh = npkfs_view_private(s, &key, who);
	int rc;

	if (fresh != NULL) { /* asked for before, and never opened */
		take(s, fresh);
		npkfs_node_put(&s->inodes, fresh);
	}
	rc = npkfs_node_new(&fresh, &key, err);
	if (rc != 0)
		return rc;
	fresh->gen = npk_gen_ref(node->gen);
	fresh->header_len = node->header_len;
	rc = npkfs_node_view(fresh, node->sel, err);
	if (rc != 0) {
		npkfs_node_discard(fresh);
		return rc;
	}
	npkfs_node_publish(&s->inodes, fresh);
	return -ESTALE;
}

/* --- writing ----------------------------------------------------------------------------------------------------------------- */

static int overwrite(struct view_writer *w, uint64_t off, const void *buf, size_t len, struct npk_err *err)
{
	struct npk_array *a = NULL;
	struct npk_err why = {0};
	int rc = npkfs_node_array(w->h.s, w->h.node, &a, &why);

	if (rc != 0 && !npkfs_is_left(w->h.node, rc))
		return npk_fail(err, -rc, "%s", why.msg);
	rc = npk_view_pwrite(atomic_load(&w->h.node->view), a, off, buf, len, err); /* a NULL: the array is gone */
	npk_array_put(a);
	return rc;
}

static int copy_save(struct view_writer *w, struct npk_save *from, uint64_t bytes, struct npk_err *err)
{
	char *buf = malloc(COPY_BYTES);
	int rc = buf != NULL ? 0 : npk_fail(err, ENOMEM, "no memory to copy");
	size_t n;

	for (uint64_t at = 0; at < bytes && rc == 0; at += n) {
		n = bytes - at < COPY_BYTES ? (size_t)(bytes - at) : COPY_BYTES;
		rc = npk_save_pread(from, at, buf, n, err);
		if (rc == 0)
			rc = overwrite(w, at, buf, n, err);
	}
	free(buf);
	return rc;
}

static int check_shape(const struct view_writer *w, const struct npk_npy *npy, struct npk_err *err)
{
	const struct npk_view_info *info = npk_view_info(atomic_load(&w->h.node->view));
	bool same = npy->dtype == info->dtype && npy->shape.ndim == info->shape.ndim;

	for (unsigned i = 0; i < info->shape.ndim && same; i++)
		same = npy->shape.dim[i] == info->shape.dim[i];
	return same ? 0 : npk_fail(err, EINVAL, "the selection has another shape or dtype than what is written");
}

/* The array, when its present generation has the slots of the view's, and they lie in few pieces; else NULL. */
static struct npk_array *replaceable(struct view_writer *w)
{
	struct npk_view *v = atomic_load(&w->h.node->view);
	struct npk_array *a;
	struct npk_gen *g;
	bool shares;

	if (w->h.node->space != NULL && atomic_load(&w->h.node->space->ended))
		return NULL;
	if (npk_view_pieces(v, PIECES_MAX + 1) > PIECES_MAX || npkfs_node_array(w->h.s, w->h.node, &a, NULL) != 0)
		return NULL;
	shares = npk_gen_get(&g, a, NULL) == 0;
	if (shares) {
		shares = npk_gen_shares(g, w->h.node->gen);
		npk_gen_put(g);
	}
	if (shares)
		return a;
	npk_array_put(a);
	return NULL;
}

/* The save ends. */
static int replace(struct view_writer *w, struct npk_save *save, struct npk_err *err)
{
	struct npk_array *a = replaceable(w);
	int rc;

	if (a == NULL) {
		rc = copy_save(w, save, w->payload.npy.data_len, err);
		npk_save_abort(save);
		return rc;
	}
	rc = npk_save_replace(save, atomic_load(&w->h.node->view), a, 0, err);
	npk_array_put(a);
	return rc;
}

/* The elements get their new values, the payload goes. */
static int commit(struct view_writer *w, struct npk_err *err)
{
	const struct npk_npy *npy = &w->payload.npy;
	struct npk_save *plain = NULL;
	int rc = npk_save_truncate(w->payload.save, npy->data_len, err);

	if (rc == 0 && (npy->fortran_order || npy->big_endian)) {
		rc = npkfs_save_open(w->h.s, w->h.node->space, npy->dtype, &npy->shape, &plain, err);
		if (rc == 0)
			rc = npkfs_convert(w->payload.save, npy, plain, err);
	}
	if (rc != 0) {
		npk_save_abort(plain);
		return rc;
	}
	if (plain == NULL)
		plain = npkfs_payload_take(&w->payload);
	rc = replace(w, plain, err);
	if (rc == 0)
		w->done = true;
	return rc;
}

static int write_staged(struct view_writer *w, const struct npkfs_write *q, struct npk_err *err)
{
	int rc = npkfs_payload_write(&w->payload, q->off, q->buf, q->len, err);

	if (rc == 0 && w->payload.fd >= 0)
		rc = npk_fail(err, EOPNOTSUPP, "a view is written from its start on");
	if (rc == 0 && w->payload.parsed)
		rc = check_shape(w, &w->payload.npy, err);
	if (rc == 0 && npkfs_payload_complete(&w->payload))
		rc = commit(w, err);
	return rc;
}

/* The header may be written again, as it is. */
static int write_plain(struct view_writer *w, const struct npkfs_write *q, struct npk_err *err)
{
	const struct npk_view_info *info = npk_view_info(atomic_load(&w->h.node->view));
	size_t head = q->off < w->header_len ? w->header_len - (size_t)q->off : 0;

	head = head < q->len ? head : q->len;
	if (head > 0 && memcmp(w->header + q->off, q->buf, head) != 0)
		return npk_fail(err, EINVAL, "this header is not the selection's");
	if (head == q->len)
		return 0;
	if (q->off + q->len > w->header_len + info->bytes)
		return npk_fail(err, EFBIG, "a view cannot grow");
	return overwrite(w, q->off + head - w->header_len, q->buf + head, q->len - head, err);
}

static int write_view(struct npkfs_handle *h, struct npkfs_write *q, size_t *taken, struct npk_err *err)
{
	struct view_writer *w = (struct view_writer *)h;
	struct npk_array *a;
	int rc;

	pthread_mutex_lock(&w->lock);
	rc = w->staged && !w->done ? write_staged(w, q, err) : write_plain(w, q, err);
	if (rc != 0)
		w->sticky = rc;
	pthread_mutex_unlock(&w->lock);
	npkfs_announce_written(h->s, NULL, h->node->name, h->node->name_len);
	if (npkfs_node_array(h->s, h->node, &a, NULL) == 0) {
		npkfs_announce_grown(h->s, h->node->space, a, NULL); /* its time */
		npk_array_put(a);
	}
	q->announced = true;
	if (rc == 0)
		rc = npkfs_sync_change(h->s, err);
	*taken = rc == 0 ? q->len : 0;
	return rc;
}

/* --- the other requests -------------------------------------------------------------------------------------------------------- */

static int read_view(struct npkfs_handle *h, uint64_t off, size_t len, struct npkfs_out *out, struct npk_err *err)
{
	struct view_writer *w = (struct view_writer *)h;

	return npkfs_npy_read(w->header, w->header_len, atomic_load(&h->node->view), off, len, out, err);
}

static int flush_view(struct npkfs_handle *h, uint64_t owner, struct npkfs_caller who, struct npk_err *err)
{
	struct view_writer *w = (struct view_writer *)h;
	int rc;

	(void)owner, (void)who, (void)err;
	pthread_mutex_lock(&w->lock);
	rc = w->sticky;
	pthread_mutex_unlock(&w->lock);
	return rc;
}

static void close_view(struct npkfs_handle *h)
{
	struct view_writer *w = (struct view_writer *)h;
	struct npk_text path = {0};

	if (w->staged && !w->done && w->payload.size > 0) {
		h->node->type->path(h->node, &path);
		npkfs_lasterr_add(&h->s->lasterr, 0, 0, ECANCELED, path.p ? path.p : "",
			"an incomplete .npy was dropped: the array is as it was");
		npk_text_fini(&path);
	}
	npkfs_payload_fini(&w->payload);
	npk_gen_unkeep(h->node->gen);
	atomic_fetch_sub(&h->node->writers, 1);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

static const struct npkfs_handle_ops handle_ops = {
	.read = read_view,
	.write = write_view,
	.flush = flush_view,
	.close = close_view,
};

int npkfs_view_open_write(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_open *o,
	struct npkfs_handle **out, struct npk_err *err)
{
	const struct npk_view_info *info = npk_view_info(atomic_load(&node->view));
	bool private = (node->detail & NPKFS_VIEW_PRIVATE) != 0;
	struct view_writer *w;

	if (o->flags & O_APPEND)
		return npk_fail(err, EOPNOTSUPP, "a view cannot grow");
	if ((o->flags & O_TRUNC) && !private)
		return mint(s, node, &o->who, err);
	w = calloc(1, sizeof(*w));
	if (w == NULL)
		return npk_fail(err, ENOMEM, "no memory for an open file");
	if (private)
		take(s, node);
	w->h = (struct npkfs_handle){.ops = &handle_ops, .s = s, .node = node, .direct = true};
	w->staged = private;
	w->header_len = npk_npy_header(w->header, info->dtype, &info->shape, s->config->header);
	npkfs_payload_init(&w->payload, s, node->space, false);
	pthread_mutex_init(&w->lock, NULL);
	npk_gen_keep(node->gen);
	atomic_fetch_add(&node->writers, 1);
	o->direct_io = true; /* and with that no shared map */
	*out = &w->h;
	return 0;
}
