/* entry.c - what the metadata says of one array: made once, shared, never changed. */
#include "store.h"
#include "wire.h"

#include <stdlib.h>
#include <string.h>

static struct npki_entry *entry_alloc(
	const char *file, size_t file_len, const char *why, const void *raw, size_t raw_len)
{
	size_t why_len = strlen(why);
	struct npki_entry *e = calloc(1, sizeof(*e) + file_len + why_len + 2 + raw_len);
	char *text = (char *)(e + 1);

	if (!e)
		return NULL;
	e->refs = 1;
	e->file = text;
	memcpy(text, file, file_len);
	text += file_len + 1;
	e->why = text;
	memcpy(text, why, why_len);
	if (raw_len) {
		e->raw = (const uint8_t *)text + why_len + 1;
		e->raw_len = raw_len;
		memcpy(text + why_len + 1, raw, raw_len);
	}
	return e;
}

struct npki_entry *npki_entry_new(const struct npki_ameta *m)
{
	struct npki_entry *e =
		entry_alloc(m->file, m->file_len, m->damage ? m->why : "", m->raw, m->damage ? m->len : 0);

	if (!e)
		return NULL;
	e->dtype = m->dtype;
	e->mtime_us = m->mtime_us;
	e->damage = m->damage;
	if (m->ndim <= NPK_MAX_NDIM) {
		e->shape.ndim = m->ndim;
		for (unsigned i = 0; i < m->ndim; i++)
			e->shape.dim[i] = npki_le(m->dims + 8 * (size_t)i, 8);
	}
	return e;
}

struct npki_entry *npki_entry_make(
	unsigned dtype, const struct npk_shape *shape, const char *file, size_t file_len, uint64_t mtime_us)
{
	struct npki_entry *e = entry_alloc(file, file_len, "", NULL, 0);

	if (!e)
		return NULL;
	e->dtype = (uint8_t)dtype;
	e->shape = *shape;
	e->mtime_us = mtime_us;
	return e;
}

struct npki_entry *npki_entry_with(
	const struct npki_entry *e, const struct npk_shape *shape, const char *file, uint64_t mtime_us)
{
	if (!file)
		file = e->file;
	return npki_entry_make(e->dtype, shape ? shape : &e->shape, file, strlen(file), mtime_us);
}

struct npki_entry *npki_entry_ref(struct npki_entry *e)
{
	if (e)
		atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
	return e;
}

void npki_entry_put(struct npki_entry *e)
{
	if (e && atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) == 1)
		free(e);
}

bool npki_entry_same(const struct npki_entry *a, const struct npki_entry *b)
{
	return a->dtype == b->dtype && a->mtime_us == b->mtime_us && a->damage == b->damage &&
	       strcmp(a->file, b->file) == 0 && strcmp(a->why, b->why) == 0 && a->shape.ndim == b->shape.ndim &&
	       memcmp(a->shape.dim, b->shape.dim, a->shape.ndim * sizeof(a->shape.dim[0])) == 0;
}
