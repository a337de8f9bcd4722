/* wire.h - little-endian values out of bytes that nobody has checked: a reader that cannot run past its end. */
#ifndef NPKI_WIRE_H
#define NPKI_WIRE_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct npki_rd {
	const uint8_t *start, *p, *end;
	bool bad; /* a read wanted more than there was; every later one gives zero */
};

static inline struct npki_rd npki_rd_init(const void *bytes, size_t len)
{
	const uint8_t *p = bytes;

	return (struct npki_rd){p, p, p + len, false};
}

static inline size_t npki_rd_pos(const struct npki_rd *r)
{
	return (size_t)(r->p - r->start);
}

static inline const uint8_t *npki_rd_take(struct npki_rd *r, uint64_t len)
{
	if (r->bad || len > (uint64_t)(r->end - r->p)) {
		r->bad = true;
		return NULL;
	}
	r->p += len;
	return r->p - len;
}

static inline uint64_t npki_le(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	memcpy(&v, p, bytes); /* one load: a compiler does not see it in a loop over bytes */
	return le64toh(v);
}

static inline void npki_set_le(uint8_t *p, uint64_t v, unsigned bytes)
{
	uint64_t le = htole64(v);

	memcpy(p, &le, bytes);
}

static inline uint8_t npki_rd_u8(struct npki_rd *r)
{
	const uint8_t *p = npki_rd_take(r, 1);

	return p ? *p : 0;
}

static inline uint32_t npki_rd_u32(struct npki_rd *r)
{
	const uint8_t *p = npki_rd_take(r, 4);

	return p ? (uint32_t)npki_le(p, 4) : 0;
}

static inline uint64_t npki_rd_u64(struct npki_rd *r)
{
	const uint8_t *p = npki_rd_take(r, 8);

	return p ? npki_le(p, 8) : 0;
}

#endif
