/* journal.c - see journal.h. */
#include "journal.h"
#include "io.h"
#include "text.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static const char magic[8] = {'N', 'P', 'K', 'F', 'S', 'J', 0, 1};

#define JOURNAL_MAX ((size_t)1 << 36)
#define AROUND (4 + 8 + 1 + 4) /* of a record, beside its payload */

void npki_put_u8(struct npk_text *t, uint8_t v)
{
	npk_text_add(t, &v, 1);
}

void npki_put_u32(struct npk_text *t, uint32_t v)
{
	npki_text_le(t, v, 4);
}

void npki_put_u64(struct npk_text *t, uint64_t v)
{
	npki_text_le(t, v, 8);
}

void npki_put_bytes(struct npk_text *t, const void *p, size_t len)
{
	npki_text_le(t, len, 4);
	npk_text_add(t, p, len);
}

const char *npki_take_bytes(struct npki_rd *r, size_t *len)
{
	*len = npki_rd_u32(r);
	return (const char *)npki_rd_take(r, *len);
}

/* A hundred scattered rows are a hundred places: they are laid out at once, field by field they would cost more than the
 * write(2) of the record. */
void npki_put_spans(struct npk_text *t, const struct npki_span *at, size_t count, const void *bytes)
{
	uint64_t len = 0;
	uint8_t *p;

	for (size_t i = 0; i < count; i++)
		len += at[i].len;
	npki_put_u64(t, count);
	npki_put_u64(t, len);
	if (!npki_text_reserve(t, count * NPKI_SPAN_LEN + len))
		return;
	p = (uint8_t *)t->p + t->len;
	for (size_t i = 0; i < count; i++, p += NPKI_SPAN_LEN) {
		npki_set_le(p, at[i].off, 8);
		npki_set_le(p + 8, at[i].len, 4);
	}
	memcpy(p, bytes, len);
	t->len += count * NPKI_SPAN_LEN + len;
}

struct npki_span npki_span_at(const struct npki_writes *w, uint64_t i)
{
	const uint8_t *p = w->at + i * NPKI_SPAN_LEN;

	return (struct npki_span){npki_le(p, 8), npki_le(p + 8, 4)};
}

struct npki_writes npki_take_writes(struct npki_rd *r)
{
	struct npki_writes w = {.count = npki_rd_u64(r)};

	w.len = npki_rd_u64(r);
	w.at = w.count <= UINT64_MAX / NPKI_SPAN_LEN ? npki_rd_take(r, w.count * NPKI_SPAN_LEN) : NULL;
	w.bytes = w.at ? npki_rd_take(r, w.len) : NULL;
	if (w.bytes)
		return w;
	r->bad = true;
	return (struct npki_writes){0};
}

void npki_jhead_write(uint8_t out[NPKI_JHEAD_LEN], const struct npki_jhead *h, uint32_t *chain)
{
	memset(out, 0, NPKI_JHEAD_LEN);
	memcpy(out, magic, sizeof(magic));
	npki_set_le(out + 8, 1, 4); /* version */
	npki_set_le(out + 16, h->nonce, 8);
	npki_set_le(out + 24, h->base_hash, 8);
	npki_set_le(out + 32, h->seq, 8);
	npki_set_le(out + 40, h->prev_chain, 4);
	*chain = npki_crc32c(0, out, NPKI_JHEAD_LEN - 4);
	npki_set_le(out + NPKI_JHEAD_LEN - 4, *chain, 4);
}

static bool parse_head(const uint8_t *p, size_t len, struct npki_jhead *h, uint32_t *chain)
{
	if (len < NPKI_JHEAD_LEN || memcmp(p, magic, sizeof(magic)) != 0 || npki_le(p + 8, 4) != 1)
		return false;
	h->nonce = npki_le(p + 16, 8);
	h->base_hash = npki_le(p + 24, 8);
	h->seq = npki_le(p + 32, 8);
	h->prev_chain = (uint32_t)npki_le(p + 40, 4);
	*chain = npki_crc32c(0, p, NPKI_JHEAD_LEN - 4);
	return *chain == npki_le(p + NPKI_JHEAD_LEN - 4, 4);
}

void npki_jrec_write(
	struct npk_text *out, enum npki_jkind kind, uint64_t seq, const void *payload, size_t len, uint32_t *chain)
{
	size_t from = out->len;

	npki_text_reserve(out, len + AROUND);
	npki_put_u32(out, (uint32_t)len);
	npki_put_u64(out, seq);
	npki_put_u8(out, (uint8_t)kind);
	npk_text_add(out, payload, len);
	if (out->bad)
		return;
	*chain = npki_crc32c(*chain, out->p + from, out->len - from);
	npki_put_u32(out, *chain);
}

static int add_rec(struct npki_jfile *f, const struct npki_jrec *rec)
{
	struct npki_jrec *more;

	if ((f->nrecs & (f->nrecs - 1)) == 0) {
		more = realloc(f->rec, (f->nrecs ? 2 * f->nrecs : 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		f->rec = more;
	}
	f->rec[f->nrecs++] = *rec;
	return 0;
}

/* One record; false where the chain ends: cut short, another checksum, or a sequence that does not go on. */
static bool take_record(struct npki_rd *r, const struct npki_jfile *f, uint32_t *chain, struct npki_jrec *out)
{
	const uint8_t *from = r->p;
	uint32_t len = npki_rd_u32(r), crc;

	out->seq = npki_rd_u64(r);
	out->kind = npki_rd_u8(r);
	out->payload = npki_rd_take(r, len);
	out->len = len;
	if (r->bad)
		return false;
	crc = npki_crc32c(*chain, from, (size_t)(r->p - from));
	if (npki_rd_u32(r) != crc || r->bad || (out->kind == NPKI_JOP && out->seq != f->seq + 1))
		return false;
	*chain = crc;
	return true;
}

/* All that follow in `r`, which begins at f->end. */
static int take_records(struct npki_jfile *f, struct npki_rd *r, const char *path, struct npk_err *err)
{
	const uint8_t *begin = r->p;
	uint64_t pos = f->end.pos;
	uint32_t chain = f->end.chain;
	struct npki_jrec rec;
	int rc = 0;

	f->tail_chain = chain;
	while (rc == 0 && take_record(r, f, &chain, &rec)) {
		rc = add_rec(f, &rec);
		if (rec.kind == NPKI_JOP)
			f->seq = rec.seq;
		if (rec.kind == NPKI_JCKPT)
			f->from = f->nrecs;
		else
			f->tail_chain = chain;
		if (rec.kind == NPKI_JSEAL && rec.len == 8 && npki_le(rec.payload, 8) > f->sealed)
			f->sealed = npki_le(rec.payload, 8);
		f->end.pos = pos + (uint64_t)(r->p - begin);
	}
	f->end.chain = chain;
	f->end.seq = f->seq;
	if (rc == 0)
		return 0;
	npki_jfile_fini(f);
	return npk_fail(err, ENOMEM, "%s: no memory", path);
}

int npki_jfile_read(int dirfd, const char *path, struct npki_jfile *out, struct npk_err *err)
{
	struct npki_jfile f = {0};
	struct npki_file_id id;
	struct npki_rd r;
	size_t len;
	int rc = npki_read_file(dirfd, path, JOURNAL_MAX, &f.buf, &len, &id, err);

	*out = f;
	if (rc != 0)
		return rc == -ENOENT ? 0 : rc;
	f.exists = parse_head(f.buf, len, &f.head, &f.end.chain);
	f.seq = f.head.seq;
	f.tail_chain = f.end.chain;
	if (f.exists) {
		f.end.dev = id.dev;
		f.end.ino = id.ino;
		f.end.pos = NPKI_JHEAD_LEN;
		r = npki_rd_init(f.buf, len);
		npki_rd_take(&r, NPKI_JHEAD_LEN);
		rc = take_records(&f, &r, path, err);
	}
	f.len = len;
	*out = f;
	return rc;
}

int npki_jfile_read_on(
	int dirfd, const char *path, const struct npki_jplace *from, struct npki_jfile *out, struct npk_err *err)
{
	struct npki_jfile f = {.end = *from, .seq = from->seq};
	struct npki_rd r;
	struct stat st;
	size_t len = 0;
	int fd, rc = npki_open_file(dirfd, path, &fd, &st, err);

	*out = (struct npki_jfile){0};
	if (rc != 0)
		return rc == -ENOENT ? 0 : rc;
	f.exists = st.st_ino == from->ino && st.st_dev == from->dev && (uint64_t)st.st_size >= from->pos &&
		   (uint64_t)st.st_size <= JOURNAL_MAX;
	if (f.exists) {
		len = (size_t)((uint64_t)st.st_size - from->pos);
		f.buf = malloc(len + 1);
		rc = f.buf ? npki_pread_all(fd, f.buf, len, from->pos, path, err)
			   : npk_fail(err, ENOMEM, "%s: no memory", path);
	}
	close(fd);
	if (rc == 0 && f.exists) {
		r = npki_rd_init(f.buf, len);
		rc = take_records(&f, &r, path, err);
	}
	if (rc != 0)
		npki_jfile_fini(&f);
	*out = f;
	return rc;
}

/* A record says in its own bytes where it ends and how the chain goes on: what a crash tears has nothing whole behind it. */
size_t npki_jfile_behind(const struct npki_jfile *f)
{
	struct npki_rd r = npki_rd_init(f->buf, (size_t)f->len);
	struct npki_jfile before = {0};
	struct npki_jrec rec;
	uint32_t chain;
	size_t n = 0;

	npki_rd_take(&r, f->end.pos);
	npki_rd_take(&r, (uint64_t)npki_rd_u32(&r) + 9);
	chain = npki_rd_u32(&r);
	while (f->exists && !r.bad && r.end - r.p >= 12) {
		before.seq = npki_le(r.p + 4, 8) - 1; /* any will do: the checksum says enough */
		if (!take_record(&r, &before, &chain, &rec))
			break;
		n++;
	}
	return n;
}

void npki_jfile_fini(struct npki_jfile *f)
{
	free(f->buf);
	free(f->rec);
	*f = (struct npki_jfile){0};
}
