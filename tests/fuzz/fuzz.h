/* fuzz.h - what the fuzz targets share: a check that ends the process, and values taken from the input's front. */
#ifndef FUZZ_H
#define FUZZ_H

#include "numpack.h"
#include "wire.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold whatever the bytes are. */
#define CHECK(what)                                                                                                    \
	do {                                                                                                           \
		if (!(what)) {                                                                                         \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what);                      \
			abort();                                                                                       \
		}                                                                                                      \
	} while (0)

/* An error has its code, and one line of text that fits. */
static inline void check_err(int rc, const struct npk_err *err)
{
	CHECK(rc < 0 && err->code == -rc);
	CHECK(memchr(err->msg, 0, sizeof(err->msg)) && err->msg[0] && !strchr(err->msg, '\n'));
}

#endif
