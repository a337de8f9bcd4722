/* csv.c - data.csv: the rows of the current generation as text, made while it is read. */
#include "fs.h"
#include "out.h"

#include <errno.h>
#include <stdlib.h>

struct csv_handle {
	struct npkfs_handle h;
	struct npk_gen *gen;
	pthread_mutex_t lock; /* no handle lock is held across a reply */
	struct npk_csv *csv;  /* lock */
	uint64_t at;          /* lock: the offset that csv gives next */
};

/* The text of number i is known only after all numbers before it: going back means starting again. Needs the lock. */
static int seek_to(struct csv_handle *h, uint64_t off, char *scratch, struct npk_err *err)
{
	ssize_t n = 1;
	int rc = 0;

	if (off < h->at) {
		npk_csv_close(h->csv);
		h->csv = NULL;
		h->at = 0;
	}
	if (h->csv == NULL)
		rc = npk_csv_open(&h->csv, h->gen, err);
	while (rc == 0 && n > 0 && h->at < off) {
		n = npk_csv_read(
			h->csv, scratch, off - h->at < NPKFS_READ_MAX ? (size_t)(off - h->at) : NPKFS_READ_MAX, err);
		if (n > 0)
			h->at += (uint64_t)n;
		rc = n < 0 ? (int)n : 0;
	}
	return rc;
}

static int read_csv(struct npkfs_handle *handle, uint64_t off, size_t len, struct npkfs_out *out, struct npk_err *err)
{
	struct csv_handle *h = (struct csv_handle *)handle;
	size_t got = 0;
	ssize_t n = 1;
	int rc;

	pthread_mutex_lock(&h->lock);
	rc = seek_to(h, off, out->room, err);
	while (rc == 0 && h->at == off + got && n > 0 && got < len) {
		n = npk_csv_read(h->csv, out->room + got, len - got, err);
		if (n > 0) {
			got += (size_t)n;
			h->at += (uint64_t)n;
		}
		rc = n < 0 ? (int)n : 0;
	}
	pthread_mutex_unlock(&h->lock);
	if (rc == 0 && got > 0)
		npkfs_out_room(out, got); /* the bytes are there already, at its start */
	return rc;
}

static void close_csv(struct npkfs_handle *handle)
{
	struct csv_handle *h = (struct csv_handle *)handle;

	npk_csv_close(h->csv);
	npk_gen_put(h->gen);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

static const struct npkfs_handle_ops handle_ops = {.read = read_csv, .close = close_csv};

static int open_csv(struct npkfs_session *s, struct npkfs_node *node, struct npkfs_open *o, struct npkfs_handle **out,
	struct npk_err *err)
{
	struct csv_handle *h;
	struct npk_array *a = NULL;
	struct npk_gen *g = NULL;
	int rc = npkfs_refuse_writing(o->flags, err);

	if (rc == 0)
		rc = npkfs_node_array(s, node, &a, err);
	if (rc == 0)
		rc = npk_gen_get(&g, a, err);
	if (rc == 0)
		rc = npk_gen_map(g, err);
	npk_array_put(a);
	if (rc == 0 && (h = calloc(1, sizeof(*h))) != NULL) {
		h->h = (struct npkfs_handle){.ops = &handle_ops, .s = s, .node = node};
		h->gen = g;
		pthread_mutex_init(&h->lock, NULL);
		o->direct_io = true;
		*out = &h->h;
		return 0;
	}
	npk_gen_put(g);
	return rc != 0 ? npkfs_refresh_if_stale(s, rc) : npk_fail(err, ENOMEM, "no memory for an open file");
}

static void path_csv(const struct npkfs_node *node, struct npk_text *out)
{
	npkfs_array_path(node, "/data.csv", out);
}

const struct npkfs_type npkfs_csv_type = {
	.kind = S_IFREG,
	.path = path_csv,
	.stat = npkfs_stat_array_text,
	.open = open_csv,
};
