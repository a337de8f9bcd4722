/* bench.h - what npk bench measures, and the two sides that do the same: a store or a mount, and plain files. */
#ifndef NPKT_BENCH_H
#define NPKT_BENCH_H

#include "progress.h"
#include "tool.h"

enum npkt_op {
	NPKT_SAVE,
	NPKT_LOAD,
	NPKT_SCAN,
	NPKT_ROWS,
	NPKT_SLICE,
	NPKT_APPEND,
	NPKT_REPLACE,
	NPKT_SEARCH,
	NPKT_DROP,
	NPKT_COMPACT,
	NPKT_OPS
};

#define NPKT_SLICES 16
#define NPKT_APPENDS 100
#define NPKT_HITS 10

/* One array and one set of random rows; both sides get the same. */
struct npkt_bench {
	unsigned dtype;
	struct npk_shape shape;
	uint64_t rows, row_bytes;
	uint64_t nrandom, nslice, nappend; /* rows of random operations, of a slice, of one of the appends */
	int64_t *random;                   /* nrandom rows */
	uint64_t slice[NPKT_SLICES];       /* where slices begin */
	bool sync;                         /* changes are on the disk before their time is taken */
	char *block;                       /* NPKT_BLOCK bytes of elements */
	char *out;                         /* NPKT_BLOCK bytes, or nrandom rows if these are more */
	uint64_t sum;                      /* of the words of the array, by the last NPKT_SCAN */
	struct npkt_progress progress;     /* catches signals */
	uint64_t done, all;                /* operations */
};

/* -ECANCELED after a signal. */
int npkt_bench_go_on(struct npkt_bench *b, struct npk_err *err);
/* Adds up the words of memory that may be a mapping. */
uint64_t npkt_bench_sum(const void *bytes, size_t len);

/* -EOPNOTSUPP: this side has no such operation. */
struct npkt_side {
	int (*run)(struct npkt_side *side, struct npkt_bench *b, enum npkt_op op, struct npk_err *err);
	void (*close)(struct npkt_side *side);
};

/* Array `name` of a store or package that is only read; or, with NPK_RDWR in `flags`, of a store that is made. Fills in what the
 * bench must know of an array that is read. */
int npkt_side_store(struct npkt_side **out, const char *path, const char *name, unsigned flags, struct npkt_bench *b,
	struct npk_err *err);
/* A file without a header, which is only read; with `make` it is made and removed at close. */
int npkt_side_plain(struct npkt_side **out, const char *path, bool make, struct npk_err *err);
/* NAME.npy of a mount, made with `make` and removed at close; fills in likewise what is read. */
int npkt_side_mount(struct npkt_side **out, const char *mountpoint, const char *name, bool make, struct npkt_bench *b,
	struct npk_err *err);

/* The largest array that is sound; malloc'd. `data_file`: where its rows lie in one piece in the store, malloc'd, or NULL. */
int npkt_bench_pick(const char *store, const char *name, char **picked, char **data_file, struct npk_err *err);

#endif
