/* repair.h - what the parts of npk_repair() share: the plan. It is made without a change to the disk, told, then carried out. */
#ifndef NPKI_REPAIR_H
#define NPKI_REPAIR_H

#include "manifest.h"
#include "writer.h"

#define NPKI_NO_ENTRY UINT64_MAX

/* One array as the metadata will name it. */
struct npki_rarray {
	char *name;
	size_t name_len;
	uint64_t at;        /* byte of its entry in the metadata; NPKI_NO_ENTRY: it has none yet */
	const uint8_t *raw; /* the entry as it is, in the metadata's bytes; NULL without one */
	size_t raw_len;
	uint64_t old_slots;
	unsigned dtype;
	struct npk_shape shape;
	char *file; /* NULL: it makes no sense */
	uint64_t mtime_us, size_bytes;
	int damage;            /* of the entry, as npki_meta_parse() has it */
	char why[NPK_ERR_MAX]; /*   and the reason */
	bool changed;          /* the entry is written anew */
	bool dropped;          /* an entry of the same name follows */
	bool left;             /* stays damaged, as it is */
};

/* One step on the disk. All file names are relative to the store. */
enum npki_raction {
	NPKI_R_CUT,     /* `file` to `len` bytes, what is behind is kept */
	NPKI_R_REPLACE, /* `file` gets the bytes of `image`, or the first `rows` bits of the bitmap that it is */
	NPKI_R_MOVE     /* `file` goes to the directory of kept things */
};

struct npki_rstep {
	enum npki_raction action;
	char *file;
	uint64_t len;
	struct npk_text image;
	bool bitmap;                            /* the image is made of the file itself: */
	uint64_t words_at, have, rows, deleted; /* `have` bits from words_at on; the rows behind them are live */
};

struct npki_rtold { /* a line for the user, until the plan is known to stand */
	bool left;
	char *array, *file, *what, *old_value, *new_value;
	uint64_t byte;
};

struct npki_repair {
	struct npk_store *s; /* the directory alone */
	const struct npk_repair *how;
	struct npk_err *err;
	bool *hint_used; /* of how->array */
	struct npki_names files;
	uint8_t *meta; /* NULL: there is no metadata */
	size_t meta_len;
	bool meta_changed; /* it is written anew, whether an entry changed or not */
	bool back_to_base; /* before the journal is carried out: the list of arrays that it is about is still there */
	bool foreign;      /* it is of a kind that we do not know */
	bool meta_bad;     /* it is there, and too short to be one */
	bool lost;         /* arrays are missing from the list */
	struct npki_rarray *array;
	size_t narrays;
	struct npki_rstep *step;
	size_t nsteps;
	struct npki_rtold *told;
	size_t ntold;
	char kept[64];
};

int npki_r_no_memory(struct npki_repair *r); /* -ENOMEM, with its message */
/* A line: "what: old -> new"; with `left` the last two are NULL. 0 or -ENOMEM with a message, as all calls here. */
int npki_r_tell(struct npki_repair *r, const char *array, const char *file, uint64_t byte, const char *what,
	const char *old_value, const char *new_value);
int npki_r_left(struct npki_repair *r, const char *array, const char *file, uint64_t byte, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
int npki_r_tell_u64(struct npki_repair *r, const char *array, const char *file, uint64_t byte, const char *what,
	uint64_t old_value, uint64_t new_value);
/* A new step at the end of the plan; NULL without memory. */
struct npki_rstep *npki_r_step(struct npki_repair *r, enum npki_raction action, const char *file);

/* Reads the metadata, whatever it is, into r->array, and mends what it says by itself. */
int npki_r_metadata(struct npki_repair *r);
void npki_r_drop_entries(struct npki_repair *r, size_t from); /* of r->array: those from there on */
/* The steps for an array's files and bitmap, and its entry made to fit them. */
int npki_r_array(struct npki_repair *r, struct npki_rarray *a);
/* The new metadata, when it changes; after all arrays. */
int npki_r_write_metadata(struct npki_repair *r);
/* What the user said of an array; NULL: nothing. It counts as used. */
const struct npk_repair_array *npki_r_hint(struct npki_repair *r, const char *name, size_t len);
/* The byte of a field in the metadata. */
enum npki_rfield {
	NPKI_F_NDIM,
	NPKI_F_DIM0,
	NPKI_F_FILE,
	NPKI_F_SIZE,
	NPKI_F_DTYPE,
	NPKI_F_ALGORITHM,
	NPKI_F_BLOCKS
};
uint64_t npki_r_field(const struct npki_rarray *a, enum npki_rfield field);

/* Makes the directory of kept things, when it is not there yet. */
int npki_r_keep_dir(struct npki_repair *r);
/* A second name for a file, there; a copy where the filesystem has no links. */
int npki_r_keep(struct npki_repair *r, const char *file);
int npki_r_apply(struct npki_repair *r);

#endif
