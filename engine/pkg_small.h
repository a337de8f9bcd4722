/* pkg_small.h - the small parts of a package, each compressed in one piece by one of several threads, handed out in order. */
#ifndef NPKI_PKG_SMALL_H
#define NPKI_PKG_SMALL_H

#include "pkg_moment.h"

#include <zstd.h>

struct npki_smalls;

struct npki_small { /* as it goes into the package */
	const uint8_t *bytes;
	size_t len;
	bool coded;   /* false: as it is, for it does not get smaller */
	uint32_t crc; /* of the contents */
};

bool npki_is_small(const struct npki_part *p);

/* Threads begin with the first small parts of the moment, and stay some ahead of who takes them; `how` has a codec. *out is NULL
 * when there is nothing that threads could share. Both are borrowed until close. */
int npki_smalls_open(struct npki_smalls **out, const struct npki_moment *m, const struct npk_pack *how,
	unsigned threads, struct npk_err *err);
/* The next small part in the moment's order; its bytes are borrowed until the next call. One thread. */
int npki_smalls_next(struct npki_smalls *s, struct npki_small *out, struct npk_err *err);
void npki_smalls_close(struct npki_smalls *s);

/* A compressor with the parameters that all parts get; NULL: no memory. */
ZSTD_CCtx *npki_zstd_new(int level);
int npki_zlib_level(int level);

#endif
