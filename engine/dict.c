/* dict.c - see dict.h. Open addressing, at most half full; nothing is ever removed. */
#include "dict.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t hash_of(const void *key, size_t len)
{
	const uint8_t *p = key;
	uint64_t h = 14695981039346656037u; /* FNV-1a, 64 bits */

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 1099511628211u;
	return h ^ h >> 32;
}

static struct npki_dict_entry *find(const struct npki_dict *d, const void *key, size_t len, uint64_t hash)
{
	for (size_t i = hash & (d->nslots - 1); d->nslots && d->slot[i]; i = (i + 1) & (d->nslots - 1)) {
		struct npki_dict_entry *e = &d->entry[d->slot[i] - 1];

		if (e->hash == hash && e->len == len && memcmp(e->key, key, len) == 0)
			return e;
	}
	return NULL;
}

bool npki_dict_get(const struct npki_dict *d, const void *key, size_t len, size_t *value)
{
	const struct npki_dict_entry *e = find(d, key, len, hash_of(key, len));

	if (e && value)
		*value = e->value;
	return e != NULL;
}

static void place(struct npki_dict *d, size_t at)
{
	size_t i = d->entry[at].hash & (d->nslots - 1);

	while (d->slot[i])
		i = (i + 1) & (d->nslots - 1);
	d->slot[i] = (uint32_t)at + 1;
}

static int grow(struct npki_dict *d)
{
	size_t nslots = d->nslots ? 2 * d->nslots : 16;
	uint32_t *slot = calloc(nslots, sizeof(*slot));
	struct npki_dict_entry *entry = slot ? realloc(d->entry, nslots / 2 * sizeof(*entry)) : NULL;

	if (entry)
		d->entry = entry;
	if (!entry || nslots > UINT32_MAX) {
		free(slot);
		return -ENOMEM;
	}
	free(d->slot);
	d->slot = slot;
	d->nslots = nslots;
	for (size_t i = 0; i < d->n; i++)
		place(d, i);
	return 0;
}

int npki_dict_put(struct npki_dict *d, const void *key, size_t len, size_t value)
{
	uint64_t hash = hash_of(key, len);
	struct npki_dict_entry *e = find(d, key, len, hash);
	char *copy;

	if (e) {
		e->value = value;
		return 0;
	}
	if (2 * d->n >= d->nslots && grow(d) != 0)
		return -ENOMEM;
	copy = malloc(len + 1);
	if (!copy)
		return -ENOMEM;
	if (len)
		memcpy(copy, key, len);
	copy[len] = 0;
	d->entry[d->n] = (struct npki_dict_entry){copy, len, hash, value};
	place(d, d->n++);
	return 0;
}

void npki_dict_fini(struct npki_dict *d)
{
	for (size_t i = 0; i < d->n; i++)
		free(d->entry[i].key);
	free(d->entry);
	free(d->slot);
	*d = (struct npki_dict){0};
}
