/* dict.h - from byte strings to numbers. Zeroed storage is an empty one. */
#ifndef NPKI_DICT_H
#define NPKI_DICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct npki_dict {
	struct npki_dict_entry {
		char *key; /* NUL behind it; owned */
		size_t len;
		uint64_t hash;
		size_t value;
	} * entry; /* in the order they came */
	size_t n;
	uint32_t *slot; /* 1 + the place in `entry`; 0: free */
	size_t nslots;
};

bool npki_dict_get(const struct npki_dict *d, const void *key, size_t len, size_t *value); /* `value` may be NULL */
/* Adds the key, or changes its value. -ENOMEM leaves the dict as it was. */
int npki_dict_put(struct npki_dict *d, const void *key, size_t len, size_t value);
void npki_dict_fini(struct npki_dict *d);

#endif
