/* sink.h - rows on their way into new data files: one, or segments with their manifest. */
#ifndef NPKI_SINK_H
#define NPKI_SINK_H

#include "writer.h"

struct npki_sink_file {
	char path[64];
	uint64_t bytes;
	uint32_t crc;
};

struct npki_sink {
	struct npki_tx *tx;
	uint64_t seg_bytes; /* a multiple of row_bytes; 0: one file of any size */
	uint64_t row_bytes;
	int fd; /* of the last file; -1: none */
	struct npki_sink_file *file;
	size_t nfiles;
};

/* `segmented`: more than NumPack's segment size goes to segments. The transaction must be open until finish or fini. */
int npki_sink_init(struct npki_sink *k, struct npki_tx *tx, uint64_t row_bytes, uint64_t bytes, bool segmented,
	struct npk_err *err);
int npki_sink_write(struct npki_sink *k, const void *bytes, size_t len, struct npk_err *err);
/* The extents go into the transaction; the name for the entry to path[64]. */
int npki_sink_finish(struct npki_sink *k, char path[64], struct npk_err *err);
void npki_sink_fini(struct npki_sink *k);

/* NumPack's own rule: NUMPACK_SEGMENT_TARGET_BYTES, else NPK_SEGMENT_TARGET_BYTES, else 256 MiB, and at least a row. */
uint64_t npki_segment_target(uint64_t row_bytes);
/* A manifest as NumPack writes it, in a new file. */
struct npki_manifest;
int npki_write_manifest(struct npki_tx *tx, const struct npki_manifest *m, char path[64], struct npk_err *err);

#endif
