/* numpack.h - open a NumPack directory and read its arrays.
 *
 *   Errors    0 or a negative errno; `err` may be NULL, else it says why, with file, byte and value.
 *             -EINVAL nonsense asked, -ENOENT no such array, -ERANGE a row out of range, -EUCLEAN bytes break the
 *             format, -ENOTSUP valid but newer than this library, -EIO the device, -ESTALE changed under us, -ENOMEM.
 *   Threads   any call from any thread, unless a comment says otherwise.
 *   Lifetime  open/close a handle on the heap; get/ref/put a counted reference; init/fini the caller's storage. close,
 *             put and fini accept NULL or zeroed storage. A reference stays valid after npk_store_close().
 *   Words     A *row* is logical: deleted rows are not counted. A *slot* is where a row lies in the data file. A
 *             *generation* is one immutable layout of an array: under it no row ever moves or goes away.
 *   Memory    nothing is allocated in proportion to an array, but for the deletion bitmap (1 bit a slot) and its rank
 *             directory (4 % of the bitmap). */
#ifndef NUMPACK_H
#define NUMPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NPK_VERSION_MAJOR 0
#define NPK_VERSION_MINOR 1
#define NPK_VERSION_PATCH 0
#define NPK_VERSION "0.1.0"

const char *npk_version(void); /* of the library that runs, "0.1.0" */

/* --- errors ------------------------------------------------------------------------------------------------------ */

#define NPK_ERR_MAX 512

struct npk_err {
	int code;              /* the errno, positive; 0 while nothing failed */
	char msg[NPK_ERR_MAX]; /* one line, no newline at the end */
};

/* Writes the message and returns -code, so that `return npk_fail(err, EINVAL, ...)` ends a function. */
int npk_fail(struct npk_err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Puts "context: " before a message that is there; returns -err->code, or `rc` when err is NULL. */
int npk_err_context(struct npk_err *err, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* --- text -------------------------------------------------------------------------------------------------------- */

/* A growing text buffer; zeroed storage is an empty one. Once memory ran out `bad` is set and every later call does
 * nothing, so it is tested once, at the end. `p` always ends with a NUL when it is not NULL. One thread at a time. */
struct npk_text {
	char *p;
	size_t len, cap;
	bool bad;
};

void npk_text_add(struct npk_text *t, const void *bytes, size_t len);
void npk_text_printf(struct npk_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
void npk_text_json(struct npk_text *t, const void *bytes, size_t len);
void npk_text_fini(struct npk_text *t);

/* --- files without a name ---------------------------------------------------------------------------------------- */

/* A file in the directory `dirfd`, for reading and writing, that goes with its last descriptor; where O_TMPFILE is unknown it
 * has a name for a moment. The descriptor is the caller's, close-on-exec. -errno, without a message. Any thread. */
int npk_unnamed_file(int dirfd);
/* One in $TMPDIR, else /tmp. -errno with the directory in the message. */
int npk_temp_file(struct npk_err *err);

/* --- element types ----------------------------------------------------------------------------------------------- */

enum npk_dtype { /* the codes on disk */
	NPK_BOOL,
	NPK_U8,
	NPK_U16,
	NPK_U32,
	NPK_U64,
	NPK_I8,
	NPK_I16,
	NPK_I32,
	NPK_I64,
	NPK_F16,
	NPK_F32,
	NPK_F64,
	NPK_C64,
	NPK_C128,
	NPK_DTYPE_COUNT
};

#define NPK_MAX_NDIM 32

struct npk_shape {
	unsigned ndim;
	uint64_t dim[NPK_MAX_NDIM];
};

size_t npk_dtype_size(unsigned dtype);       /* bytes of one element; 0 for an unknown code */
const char *npk_dtype_name(unsigned dtype);  /* "float32"; NULL for an unknown code */
const char *npk_dtype_title(unsigned dtype); /* "Float32", as NumPack's own metadata calls says; NULL likewise */
const char *npk_dtype_descr(unsigned dtype); /* NumPy's descr, "<f4"; NULL likewise */
/* From a name or a descr ("float32", "<f4", "f4"). -EINVAL for anything else. */
int npk_dtype_parse(const char *text, unsigned *dtype, struct npk_err *err);

/* --- .npy headers ------------------------------------------------------------------------------------------------ */

#define NPK_NPY_HEADER_MAX 4096

/* Writes the header that np.save() writes for a C-order array (version 1.0, growth padding, 64-byte alignment), or one
 * padded to `align` bytes (a power of two from 64 to 4096). Returns its length, at most NPK_NPY_HEADER_MAX. */
size_t npk_npy_header(char out[NPK_NPY_HEADER_MAX], unsigned dtype, const struct npk_shape *shape, size_t align);

struct npk_npy {
	unsigned dtype;
	bool fortran_order;
	bool big_endian;
	struct npk_shape shape;
	size_t header_len; /* bytes before the first element */
	uint64_t data_len; /* bytes of all elements */
};

/* Parses the header at `buf` (versions 1.0 to 3.0). -EAGAIN: `len` bytes are not enough yet, *need says how many are.
 * -EINVAL: not a .npy header, or a dtype that NumPack cannot store. `need` may be NULL. */
int npk_npy_parse(const void *buf, size_t len, struct npk_npy *out, size_t *need, struct npk_err *err);

/* --- the store --------------------------------------------------------------------------------------------------- */

struct npk_store; /* an open directory */
struct npk_array; /* a named array of it; follows changes of the store */
struct npk_gen;   /* one generation of an array */
struct npk_view;  /* a selection of rows and columns of a generation */

#define NPK_RDONLY 1u /* nothing on disk changes: a journal left behind is replayed in memory */
#define NPK_RDWR 2u   /* the first change makes this process the store's one writer, until close */
#define NPK_CREATE 4u /* with NPK_RDWR: make the directory when it is not there */

/* Opens the directory `path`. Only metadata.npkm is read; an array's other files are read at npk_gen_get(). -EUCLEAN:
 * the metadata is damaged, or missing beside data files. What may be a moment between two steps of another process is looked
 * at again before that is said, here and in npk_store_refresh() and npk_gen_get(): for a millisecond when nobody changes the
 * store, 50 when somebody does, and up to 3 seconds on a network or FUSE filesystem, which may show names and sizes of
 * different moments; a state that stayed is refused at once later. The caller owns *out and ends it with
 * npk_store_close(). */
int npk_store_open(struct npk_store **out, const char *path, unsigned flags, struct npk_err *err);
void npk_store_close(struct npk_store *s);
/* A package (.npkg) as a store that is only read. Arrays that are stored as they are, are mapped where they lie, at any
 * alignment; a compressed one is unpacked once, when its rows are first wanted, into a file without a name in `cache_dir`
 * (NULL: $TMPDIR or /var/tmp). The package's checksum is of all its files and is not compared: npk_package_verify(). Opening a
 * file with npk_store_open() and NPK_RDONLY does the same, with NULL. */
int npk_store_open_package(struct npk_store **out, const char *path, const char *cache_dir, struct npk_err *err);
bool npk_store_is_package(const struct npk_store *s);

struct npk_store_info {
	uint64_t narrays;          /* the damaged ones included */
	bool read_only;            /* the metadata must not be rewritten, `why` says the reason */
	char why[NPK_ERR_MAX];     /* empty when not read_only */
	char warning[NPK_ERR_MAX]; /* something odd that does no harm; empty when there is none */
};

void npk_store_info(struct npk_store *s, struct npk_store_info *out);
const char *npk_store_path(const struct npk_store *s); /* as given to open; borrowed until close */
int npk_store_dirfd(const struct npk_store *s);        /* for fstat and fstatvfs; borrowed until close */

/* All arrays, sorted by the bytes of their names; each element and the list are the caller's: npk_store_list_free(). */
int npk_store_list(struct npk_store *s, struct npk_array ***out, size_t *n, struct npk_err *err);
void npk_store_list_free(struct npk_array **list, size_t n);

enum npk_change {
	NPK_APPEARED = 1,
	NPK_GONE,
	NPK_CHANGED
};

/* Looks whether another process changed the store and takes the changes over: later npk_gen_get() calls give the new
 * generations, those already held stay as they are. Calls `fn` (may be NULL) once for each array that appeared, went or
 * changed, with no lock held. Costs a stat of the metadata, and two more per array whose generation is in use. On an
 * error the store stays as it was. In a store that this process writes: see npk_store_check(). */
typedef void npk_change_fn(void *ctx, struct npk_array *a, enum npk_change what);
int npk_store_refresh(struct npk_store *s, npk_change_fn *fn, void *ctx, struct npk_err *err);

/* Text for programs: what NumPack's get_metadata() returns, as JSON. */
int npk_store_metadata_json(struct npk_store *s, struct npk_text *out, struct npk_err *err);

/* --- arrays ------------------------------------------------------------------------------------------------------ */

/* -ENOENT when the store has no array of that name. A damaged array is found, its npk_gen_get() fails. */
int npk_array_get(struct npk_array **out, struct npk_store *s, const char *name, struct npk_err *err);
int npk_array_get_n(struct npk_array **out, struct npk_store *s, const void *name, size_t len, struct npk_err *err);
struct npk_array *npk_array_ref(struct npk_array *a);
void npk_array_put(struct npk_array *a);
const char *npk_array_name(const struct npk_array *a, size_t *len); /* NUL-terminated; `len` may be NULL; borrowed */

struct npk_array_info {
	bool damaged;              /* then only the fields that the metadata tells are set, and: */
	int code;                  /*   EUCLEAN or ENOTSUP */
	char why[NPK_ERR_MAX];     /*   the reason */
	char warning[NPK_ERR_MAX]; /* odd but harmless; empty when there is none */
	unsigned dtype;            /* the code on disk, may be unknown when damaged */
	struct npk_shape shape;    /* logical */
	uint64_t rows;             /* shape.dim[0]; 1 for a 0-d array */
	uint64_t physical_rows;    /* slots */
	uint64_t deleted;
	uint64_t row_bytes;
	uint64_t size_bytes; /* rows * row_bytes */
	uint64_t mtime_us;   /* last modified, microseconds since 1970 UTC */
	uint64_t generation;
	uint64_t blocks;    /* 512-byte blocks that data and bitmap really use */
	uint64_t nsegments; /* 0 for one data file */
	mode_t mode;        /* permissions and owner of the data file */
	uid_t uid;
	gid_t gid;
	char data_file[256]; /* relative to the store; cut with "..." when longer */
};

/* Loads what is needed of the array's layout. Fails only for lack of memory: damage is told in *out. */
int npk_array_info(struct npk_array *a, struct npk_array_info *out, struct npk_err *err);
int npk_array_info_json(struct npk_array *a, struct npk_text *out, struct npk_err *err);

/* --- generations ------------------------------------------------------------------------------------------------- */

/* The array's current generation. -EUCLEAN, -ENOTSUP: the array is damaged; -ENOENT: it is gone. */
int npk_gen_get(struct npk_gen **out, struct npk_array *a, struct npk_err *err);
struct npk_gen *npk_gen_ref(struct npk_gen *g);
void npk_gen_put(struct npk_gen *g);
/* Takes a reference, and until the unkeep() that ends it the data files stay open for writing (one descriptor each, however
 * many keep them), so that npk_view_pwrite() reaches them when no array has them any more. One that cannot be opened is no
 * error here: that write tries again, and says why. From any thread; unkeep() of NULL is fine. */
void npk_gen_keep(struct npk_gen *g);
void npk_gen_unkeep(struct npk_gen *g);

struct npk_gen_info {
	uint64_t number; /* unique in the store while it is open, counts from 1 */
	unsigned dtype;
	struct npk_shape shape; /* logical */
	uint64_t rows, slots, row_bytes, mtime_us;
	uint64_t blocks; /* 512-byte blocks used by data and bitmap when the generation was loaded */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	uint64_t moment; /* greater than that of every earlier state of the array, also within one number */
};

const struct npk_gen_info *npk_gen_info(const struct npk_gen *g); /* borrowed while g is held */

/* Whether bytes written in place through one of the two show in the other: both have slots of the same data file. */
bool npk_gen_shares(const struct npk_gen *a, const struct npk_gen *b);

/* Maps the data files now; otherwise the first read does. -ESTALE: another process replaced the data since the layout
 * was loaded: npk_store_refresh() and take the generation anew. */
int npk_gen_map(struct npk_gen *g, struct npk_err *err);

/* Where row `row` (< rows) lies, and which row lies in `slot` (< slots); false when that slot is deleted. */
uint64_t npk_gen_slot(const struct npk_gen *g, uint64_t row);
bool npk_gen_row(const struct npk_gen *g, uint64_t slot, uint64_t *row);
/* The slots of the deleted rows number `first` .. `first + n - 1`, ascending; all must exist (slots - rows). */
void npk_gen_deleted(const struct npk_gen *g, uint64_t first, uint64_t n, uint64_t *out);

/* Walks rows [first, first + nrows) as runs of consecutive slots. The struct's fields are private. */
struct npk_spans {
	const struct npk_gen *g;
	uint64_t slot, left;
};
void npk_spans_init(struct npk_spans *it, const struct npk_gen *g, uint64_t first, uint64_t nrows);
bool npk_spans_next(struct npk_spans *it, uint64_t *slot, uint64_t *nslots); /* false at the end */

/* Copies rows [first, first + nrows) to `out`, nrows * row_bytes bytes. -ERANGE when they are not all there. */
int npk_gen_read_rows(struct npk_gen *g, uint64_t first, uint64_t nrows, void *out, struct npk_err *err);
/* Copies rows first, first + step, ..., nrows of them; step may be negative, not 0. */
int npk_gen_read_step(struct npk_gen *g, uint64_t first, int64_t step, uint64_t nrows, void *out, struct npk_err *err);
/* Copies the listed rows in the list's order; repeats are fine, negative ones count from the end. -ERANGE names the
 * first that is not there; `out` is then undefined. */
int npk_gen_take(struct npk_gen *g, const int64_t *rows, size_t n, void *out, struct npk_err *err);
/* Row `row` in the mapping, and in *nrows how many rows follow it without a gap (itself included). Borrowed while g is
 * held. A file that another process cuts short raises SIGBUS on access, see npk_guard_install(). */
int npk_gen_borrow(struct npk_gen *g, uint64_t row, const void **out, uint64_t *nrows, struct npk_err *err);

/* --- views: selections ------------------------------------------------------------------------------------------- */

/* A selection has one part per axis, separated by ';' or '@'; missing parts mean everything. A part is a list of
 * items joined by ',', '+' or blanks: an integer (negative from the end) or a slice a:b:c with Python's rules; or
 * "all"; or "mask=NAME": where that 1-d bool or integer array of the same store, as long as the axis, is nonzero. A
 * selection never removes an axis, and parts combine orthogonally as in np.ix_(). `sel` NULL or "" selects everything.
 * -EINVAL: does not parse, or a mask of another length; -ERANGE: an integer out of range; -ENOENT: no such mask. */
int npk_view_open(struct npk_view **out, struct npk_gen *g, const char *sel, struct npk_err *err);
void npk_view_close(struct npk_view *v);

struct npk_view_info {
	unsigned dtype;
	struct npk_shape shape;
	uint64_t rows, row_bytes; /* of the selection */
	uint64_t bytes;           /* rows * row_bytes */
};

const struct npk_view_info *npk_view_info(const struct npk_view *v); /* borrowed while v is open */
struct npk_gen *npk_view_gen(const struct npk_view *v);              /* borrowed while v is open */
/* Which row of the generation row `row` (< rows) of the selection is. */
uint64_t npk_view_row(const struct npk_view *v, uint64_t row);

/* Copies `len` bytes from byte `off` of the selected elements in C order; off + len <= bytes. Any thread, any number
 * at once; allocates nothing and takes no lock once the generation is mapped. */
int npk_view_read(struct npk_view *v, uint64_t off, void *buf, size_t len, struct npk_err *err);
/* How many bytes from byte `off` on lie together in the mapping (0 when fewer than one row or at the end), and where.
 * Borrowed while v is open; SIGBUS as in npk_gen_borrow(). Never fails: 0 means use npk_view_read(). */
size_t npk_view_borrow(struct npk_view *v, uint64_t off, const void **out);
/* The pages that reading `len` bytes from byte `off` on brought into this process leave it; the page cache keeps them. For who
 * reads once and front to back: a program does not grow with what it has read. Reading them again works. Any thread. */
void npk_view_let_go(struct npk_view *v, uint64_t off, uint64_t len);

/* --- other shapes of the same data ------------------------------------------------------------------------------- */

/* One element as text, the same in every locale: the fewest digits that read back to the same value (those of a float16 as
 * a float32), in the form of C's %g; complex as 1+2j, bool as 0 and 1, and nan without a sign. Returns its length, at most
 * NPK_ELEMENT_MAX; there is no NUL behind it. */
#define NPK_ELEMENT_MAX 64
size_t npk_element_text(char out[NPK_ELEMENT_MAX], unsigned dtype, const void *element);
/* The element that a text of `len` bytes says; blanks around it are fine. -EINVAL: it is none (real numbers as strtod() in
 * the C locale reads them but hexadecimal ones, complex ones as Python writes them, bool as 0, 1, true, false); -ERANGE: an
 * integer that the dtype does not hold. A real number beyond the largest becomes inf. */
int npk_element_parse(void *element, unsigned dtype, const char *text, size_t len);

/* A reader that turns rows into CSV: one line per row, elements as npk_element_text() has them, rows of more than one
 * dimension flattened. One thread at a time. */
struct npk_csv;
int npk_csv_open(struct npk_csv **out, struct npk_gen *g, struct npk_err *err);
/* The rows and columns of a selection, with another character between elements. The view is borrowed until close. */
int npk_csv_open_view(struct npk_csv **out, struct npk_view *v, char delimiter, struct npk_err *err);
ssize_t npk_csv_read(struct npk_csv *c, void *buf, size_t len, struct npk_err *err); /* 0 at the end, or -errno */
uint64_t npk_csv_at(const struct npk_csv *c); /* of the rows' bytes, how many have become text */
void npk_csv_close(struct npk_csv *c);

/* The whole store as one .safetensors file of exact size. Arrays of a dtype which that format lacks and damaged ones
 * are left out and named in its __metadata__. Reading: any thread, any number at once. */
struct npk_tensors;
int npk_tensors_open(struct npk_tensors **out, struct npk_store *s, struct npk_err *err);
/* The named arrays alone; one that would be left out is an error: -EINVAL for its dtype or name. */
int npk_tensors_open_list(
	struct npk_tensors **out, struct npk_store *s, const char *const *names, size_t n, struct npk_err *err);
uint64_t npk_tensors_size(const struct npk_tensors *t);
/* Maps all data files now, as npk_gen_map(); otherwise the first read of each does, which a file that was removed meanwhile
 * fails. */
int npk_tensors_map(struct npk_tensors *t, struct npk_err *err);
int npk_tensors_read(struct npk_tensors *t, uint64_t off, void *buf, size_t len, struct npk_err *err);
size_t npk_tensors_borrow(struct npk_tensors *t, uint64_t off, const void **out); /* as npk_view_borrow() */
void npk_tensors_let_go(struct npk_tensors *t, uint64_t off, uint64_t len);       /* as npk_view_let_go() */
void npk_tensors_close(struct npk_tensors *t);

/* --- arrays from files of other formats -------------------------------------------------------------------------- */

enum npk_format {
	NPK_FORMAT_NPY,     /* one .npy stream or several, one behind the other */
	NPK_FORMAT_NPZ,     /* a zip archive of .npy files, stored or deflated */
	NPK_FORMAT_CSV,     /* lines of numbers */
	NPK_FORMAT_TENSORS, /* .safetensors */
	NPK_FORMAT_RAW,     /* nothing but elements, little-endian, C order */
	NPK_FORMAT_COUNT
};

struct npk_source_how {
	enum npk_format format;
	const char *file; /* for messages */
	/* CSV and raw only: */
	int dtype; /* -1: CSV takes int64, float64 or complex128, whatever its first MiB needs */
	const struct npk_shape
		*row; /* the dimensions of one row, ndim 0: a number; NULL: raw has 1-d arrays, CSV rows of as
				      * many numbers as the first line has, or 1-d arrays when that is one */
	/* CSV only: */
	char delimiter; /* between numbers; 0: ',' or ';' or a tab if the first line has one, else blanks */
	char comment;   /* from here to the end of the line nothing counts; 0: there is no such character */
	uint64_t skip;  /* lines at the beginning that are not looked at */
};

struct npk_source_array {
	const char *name; /* borrowed until the next call; NULL: the format has no names */
	unsigned dtype;
	struct npk_shape shape; /* dim[0] is 0 when rows_known is false */
	bool rows_known;        /* else the end of the file tells */
};

/* Reads the arrays of a file front to back, in bounded memory, as the bytes of C-order little-endian arrays. `fd` is
 * borrowed until close and read from its offset on; one that cannot seek is first copied to an unnamed temporary file
 * ($TMPDIR) where the format (.npz) or the order of elements (Fortran's) needs that. One thread at a time. Broken or
 * impossible files: -EINVAL with the file, the byte or line, and the value. */
struct npk_source;
int npk_source_open(struct npk_source **out, int fd, const struct npk_source_how *how, struct npk_err *err);
/* 1: there is one more array; 0: that was all. What was not read of the last one is skipped. */
int npk_source_next(struct npk_source *src, struct npk_source_array *out, struct npk_err *err);
/* The array's next bytes, whole elements, at most 1 MiB, borrowed until the next call. *len 0: the array is complete, and
 * what the format has to check it by (a CRC) agreed. */
int npk_source_read(struct npk_source *src, const void **bytes, size_t *len, struct npk_err *err);
/* How many bytes of the file, from where it began, have been used so far: how far it is, no more. */
uint64_t npk_source_at(const struct npk_source *src);
void npk_source_close(struct npk_source *src);

/* A .npz file, written front to back to `fd`, which is borrowed until close. Offsets in the archive count from where `fd`
 * stands. Level 0 stores, 1 to 9 deflate, in one thread for each processor (16 at most). What was added may be written as late
 * as by finish(). After an error the file is no archive. One thread at a time. */
struct npk_npz;
int npk_npz_open(struct npk_npz **out, int fd, int level, struct npk_err *err);
int npk_npz_add(struct npk_npz *z, const char *name, struct npk_view *v, struct npk_err *err); /* as member name.npy */
/* Asks after each MiB of arrays or less, in the thread that adds, with the bytes of all arrays so far; false ends npk_npz_add()
 * with -ECANCELED. */
void npk_npz_watch(struct npk_npz *z, bool (*progress)(void *ctx, uint64_t bytes), void *ctx);
int npk_npz_finish(struct npk_npz *z, struct npk_err *err); /* the list of members */
void npk_npz_close(struct npk_npz *z);

/* --- changing -------------------------------------------------------------------------------------------------------- */

/* Every call below is one atomic change: after a crash all of it is there or nothing. When it returns 0 the change
 * survives the death of this process; npk_store_fsync() makes it survive the death of the machine. A store opened with
 * NPK_RDWR takes `.numpackfs.lock` at its first change and keeps it until close: -EBUSY names the process that has it.
 * -EROFS: opened with NPK_RDONLY, or damaged in a way that writing would make worse. -EIO: a change failed half-way;
 * the store stays readable and is recovered at the next open. Rows are C-order bytes of the array's dtype. */

/* How long the first change waits for another writer to finish; 10,000 by default. */
void npk_store_lock_timeout(struct npk_store *s, unsigned ms);
/* What the lock file says of us beside process and host, such as a mountpoint. Borrowed for the call. A lock that is held
 * already says it from now on, with the process that calls: a daemon's is another one after it forked. */
int npk_store_set_owner(struct npk_store *s, const char *text, struct npk_err *err);
/* Becomes the writer now. */
int npk_store_lock(struct npk_store *s, struct npk_err *err);

/* For a store that this process writes: looks whether another program, which knows no lock, rewrote the metadata; call it about
 * once a second, it costs a stat. (Before metadata is written it is looked for as well.) 0: it did not, or to the same entries.
 * 1: since the last call it wrote entries that had been there earlier, as a program does that opened the store then: ours were
 * written again, the caller may want to warn. -EBUSY: it changed the store. Then all changes are refused with -EBUSY until
 * npk_store_refresh() has joined its changes with ours, which fails with -EBUSY as long as an array was changed by both;
 * nothing of either is lost by that: ours are in the journal, and the metadata below them in numpackfs.base. An overdue
 * checkpoint is made, too. Any thread. */
int npk_store_check(struct npk_store *s, struct npk_err *err);
/* When a change is followed by a checkpoint, which brings metadata and bitmaps up to date and begins a new journal: when the
 * journal has more than `bytes` (at least 1; more where the metadata is big), or its first record is `seconds` old (0: never
 * by time). 16 MiB and 60 s by default. Also when files that no array has any more take more room than the disk has left, and
 * when a change finds no room and they have some. -EINVAL, -EROFS. */
int npk_store_set_checkpoints(struct npk_store *s, uint64_t bytes, unsigned seconds, struct npk_err *err);
/* Whether a process is the writer of the store `path` just now: 1 and who in `owner` ("pid 4711 on host, mounted on /mnt"), 0:
 * nobody is. Takes no lock, changes nothing. */
#define NPK_OWNER_MAX 512
int npk_lock_owner(const char *path, char owner[NPK_OWNER_MAX], struct npk_err *err);

/* Everything changed so far survives a power cut. */
int npk_store_fsync(struct npk_store *s, struct npk_err *err);
/* And is in metadata and bitmaps, with NumPack's own file names: what any version of NumPack reads. While a transaction is
 * open, an array may keep a name of ours: NumPack 0.7 follows it, older ones do not. */
int npk_store_sync(struct npk_store *s, struct npk_err *err);
/* As npk_store_sync(), then closes. The store is closed also when an error is returned; what could not be written is in
 * the journal. npk_store_close() does the same and tells nobody. */
int npk_store_finish(struct npk_store *s, struct npk_err *err);

/* Makes the array, or replaces it as a whole. -EINVAL: a name that NumPack could not handle (empty components, NUL, '/',
 * more than 239 bytes, ".npk-..."), 0 dimensions, more than NPK_MAX_NDIM, a shape that overflows. */
int npk_store_save(struct npk_store *s, const char *name, unsigned dtype, const struct npk_shape *shape,
	const void *data, struct npk_err *err);

/* A save whose bytes come piece by piece, and whose number of rows (shape->dim[0]) may be unknown at first. Nothing is
 * seen of it before commit. One thread at a time. */
struct npk_save;
int npk_save_open(
	struct npk_save **out, struct npk_store *s, unsigned dtype, const struct npk_shape *shape, struct npk_err *err);
int npk_save_write(struct npk_save *w, const void *bytes, size_t len, struct npk_err *err); /* behind what is there */
int npk_save_pwrite(struct npk_save *w, uint64_t off, const void *bytes, size_t len, struct npk_err *err);
/* What was written so far; holes are zeros, -ERANGE behind the end. */
int npk_save_pread(struct npk_save *w, uint64_t off, void *buf, size_t len, struct npk_err *err);
uint64_t npk_save_length(const struct npk_save *w);
int npk_save_truncate(struct npk_save *w, uint64_t len, struct npk_err *err);
/* The array will have this mode and owner instead of those of the array that it replaces. */
int npk_save_set_mode(struct npk_save *w, mode_t mode, struct npk_err *err);
int npk_save_set_owner(struct npk_save *w, uid_t uid, gid_t gid, struct npk_err *err);
/* -EINVAL: the bytes are no whole number of rows. Ends the handle either way. */
int npk_save_commit(struct npk_save *w, const char *name, struct npk_err *err);
/* The bytes collected so far replace those of a view, in its C order, in one change: the death of the process leaves all of
 * it or nothing, flags and power cuts as for npk_array_replace(). `v` is of a generation of `a`, both of the store that
 * the handle was opened on; dtype and shape given to npk_save_open() do not matter. -EINVAL: another number of bytes;
 * -ESTALE: the rows that the view shows are no longer the array's (compacted, saved over, removed). Ends the handle either
 * way. */
int npk_save_replace(struct npk_save *w, struct npk_view *v, struct npk_array *a, unsigned flags, struct npk_err *err);
/* In how many runs of bytes, each in one file, the view's elements lie: npk_save_replace() needs about 200 bytes of memory for
 * each. Counts to `most` at most, and takes as long. */
uint64_t npk_view_pieces(struct npk_view *v, uint64_t most);
void npk_save_abort(struct npk_save *w);

/* Adds `nrows` rows after the last one. */
int npk_array_append(struct npk_array *a, const void *rows, uint64_t nrows, struct npk_err *err);
/* Deletes the rows that `sel` (one part of a selection) names; rows named twice count once. -ERANGE: there is no such
 * row; -EINVAL: no file deleted_<name>.npkb can be (the name is too long, or has a '/' without that directory).
 * *dropped (may be NULL): how many. Nothing is copied: they are hidden until compact. */
int npk_array_drop(struct npk_array *a, const char *sel, uint64_t *dropped, struct npk_err *err);
int npk_array_drop_rows(struct npk_array *a, const int64_t *rows, size_t n, uint64_t *dropped, struct npk_err *err);
/* Row i of `data` goes to row rows[i], in place; the last one wins when a row is named twice. A power cut may leave a part
 * of it, unless it is NPK_REPLACE_ATOMIC, which costs fsyncs; the death of the process never does. */
#define NPK_REPLACE_ATOMIC 1u
int npk_array_replace(
	struct npk_array *a, const int64_t *rows, size_t n, const void *data, unsigned flags, struct npk_err *err);
/* Rows first, first + 1, ... */
int npk_array_replace_range(
	struct npk_array *a, uint64_t first, uint64_t nrows, const void *data, unsigned flags, struct npk_err *err);
/* Several arrays in one change: one step of the journal, and an error in any step leaves all of them as they were. (In a
 * transaction, an error of the device may leave steps done inside.) -EINVAL: an array is named twice, or is of another
 * store. Flags as for npk_array_replace(). */
enum npk_verb {
	NPK_APPEND = 1, /* `nrows` rows of `data` */
	NPK_REPLACE,    /* the `nrows` rows listed in `rows`, or when that is NULL from `first` on, become `data` */
	NPK_DROP        /* the rows that `sel` names, or when that is NULL the `nrows` rows listed in `rows` */
};

struct npk_step {
	enum npk_verb verb;
	struct npk_array *array; /* borrowed, as all pointers here */
	const char *sel;
	const int64_t *rows;
	uint64_t first, nrows;
	const void *data;
	uint64_t done; /* out: how many rows were added, replaced or deleted */
};

int npk_store_change(struct npk_store *s, struct npk_step *step, size_t n, unsigned flags, struct npk_err *err);
/* Adds `nrows` rows of zeros; nothing is written but the file's new length. */
int npk_array_extend(struct npk_array *a, uint64_t nrows, struct npk_err *err);
/* Writes bytes in place: `len` from byte `off` of the view's C-order form on, through a generation of `a`. Not one change
 * but as many as pages: a crash may leave a part of it. After a drop the rows are still the array's. After a save
 * over, a rename over or a removal (`a` may then be NULL) they are those of a file without a name: views of that generation
 * show what is written, no array does. -ESTALE: they were compacted; or nobody kept the file, see npk_gen_keep(), and it is
 * gone; or the generation is of a transaction and the array changed in it. When the transaction was discarded (`a` is NULL),
 * rows that lie in files of its own go on in the same way, for those of the store's: -ESTALE. */
int npk_view_pwrite(
	struct npk_view *v, struct npk_array *a, uint64_t off, const void *bytes, size_t len, struct npk_err *err);
/* Gives the room of deleted rows back. Readers keep the layout they have. */
int npk_array_compact(struct npk_array *a, struct npk_err *err);
/* Mode and owner of the data files, those of the array; (uid_t)-1 and (gid_t)-1 leave them. They stay when the array is
 * saved over or compacted, the owner as far as the process may give files away. Not part of the journal: a power cut may
 * lose them. */
int npk_array_set_mode(struct npk_array *a, mode_t mode, struct npk_err *err);
int npk_array_set_owner(struct npk_array *a, uid_t uid, gid_t gid, struct npk_err *err);
int npk_array_set_mtime(struct npk_array *a, uint64_t mtime_us, struct npk_err *err);

int npk_store_remove(struct npk_store *s, const char *name, struct npk_err *err);
/* -EEXIST: there is an array `to`. The copy has the rows that are not deleted. */
int npk_store_clone(struct npk_store *s, const char *from, const char *to, struct npk_err *err);
#define NPK_RENAME_NOREPLACE 1u /* -EEXIST when `to` is there; without, it is replaced */
#define NPK_RENAME_EXCHANGE 2u  /* the two change names */
int npk_store_rename(struct npk_store *s, const char *from, const char *to, unsigned flags, struct npk_err *err);
/* Removes all arrays, and no other file. */
int npk_store_reset(struct npk_store *s, struct npk_err *err);

/* --- transactions ------------------------------------------------------------------------------------------------------ */

/* Many changes that become one. npk_txn_store() is the store as it was at the begin, with the changes made inside: every
 * call above works on it, on its arrays and on their generations, and nobody else sees any of it. Saves, appends and drops
 * copy nothing; the first in-place write to an array copies its data file (shares its blocks where the filesystem can).
 * Rows that somebody changes in place outside may show inside until then. A transaction that is open when the process
 * dies, or when the store is closed, never was. Any thread may use it; changes of a store and of its transactions take
 * turns. */
struct npk_txn;
/* Becomes the writer, as any change does. -EINVAL: `s` is the store of a transaction. */
int npk_txn_begin(struct npk_txn **out, struct npk_store *s, struct npk_err *err);
/* Borrowed until the transaction ends, and never to be closed; arrays and generations of it stay readable as long as they
 * are held. Changing it after the end is -ESTALE. */
struct npk_store *npk_txn_store(const struct npk_txn *t);
/* All changes at once, in one step of the journal. Frees `t` when it returns 0 and calls `fn` (may be NULL) once for each
 * array of the store that appeared, went or was changed by it, with no lock held. After an error `t` goes on, to be tried
 * again or ended by npk_txn_abort(). -EBUSY: an array that was changed inside was changed outside too since the begin,
 * rows written in place included; or another thread is committing it. */
int npk_txn_commit(struct npk_txn *t, npk_change_fn *fn, void *ctx, struct npk_err *err);
/* Nothing of it happened. NULL is fine. */
void npk_txn_abort(struct npk_txn *t);

/* --- vector search --------------------------------------------------------------------------------------------------- */

enum npk_metric { /* similarities (higher is better), then distances (lower is better) */
	NPK_COSINE,
	NPK_DOT,
	NPK_INNER,
	NPK_L2,
	NPK_L2SQ,
	NPK_HAMMING,
	NPK_JACCARD,
	NPK_KL,
	NPK_JS,
	NPK_METRIC_COUNT
};

/* From a name or an alias in any case: cosine|cos|cosine_similarity, dot|dot_product|dotproduct, inner|inner_product,
 * l2|euclidean|l2_distance, l2sq|l2_squared|squared_euclidean, hamming, jaccard, kl|kl_divergence, js|js_divergence. */
int npk_metric_parse(const char *name, enum npk_metric *out, struct npk_err *err);
const char *npk_metric_name(enum npk_metric m);
bool npk_metric_is_similarity(enum npk_metric m);

/* Scores are float64 over the stored values: cosine with a zero norm is 0; l2sq is the squared l2; hamming counts
 * differing bits and jaccard is 1 - and/or (0 for two empty sets), of uint8 rows as packed bits and of bool rows; kl(q,
 * x) = sum q log(q/x) in nats; js is the square root of the Jensen-Shannon divergence in nats. All dtypes but complex
 * have the arithmetic metrics: integers wider than 8 bits are converted to float64 (64-bit ones are rounded to it); kl
 * and js want float16, float32 or float64. Scores do not depend on the number of threads, the instruction set or the
 * layout of the files. The environment variable NPKV_LEVEL (scalar, avx2, avx512, neon, sve) forces one. */

/* Query vectors: nq rows of `dim` elements of the array's own dtype, row-major. Borrowed for the call. */
struct npk_queries {
	unsigned dtype;
	const void *data;
	size_t nq;
	uint64_t dim;
};

/* Best first; equal scores by the lower row; NaN scores last. Row-major nq x k, caller's: npk_hits_fini(). */
struct npk_hits {
	size_t nq, k; /* k: min(wanted, rows searched) */
	uint64_t *row;
	double *score;
};

void npk_hits_fini(struct npk_hits *h);

struct npk_search {
	enum npk_metric metric;
	uint64_t k;
	const char *rows; /* which rows, as one part of a selection (npk_view_open()); NULL: all */
	unsigned threads; /* 0: one per CPU, at most 64 */
	/* Called now and then by the calling thread; false ends the search with -ECANCELED. NULL: nobody asks. In between a
	 * thread compares at most 512 MiB of rows, counted once for each query, or 128 rows where these are more. */
	bool (*progress)(void *ctx, uint64_t rows_done, uint64_t rows_all);
	void *ctx;
};

/* The k best rows for each query, in one pass over the rows of `g` for all of them. -EINVAL: k < 1, a dtype or width that
 * is not the array's, a NaN in a query, a metric that the dtype does not have; -E2BIG: nq * k or the threads' work areas
 * pass 2^40 bytes. An array without rows gives k = 0. */
int npk_search(struct npk_gen *g, const struct npk_queries *q, const struct npk_search *how, struct npk_hits *out,
	struct npk_err *err);
/* The metric of one query (q->nq = 1) and rows [first, first + nrows), to out[nrows]. */
int npk_scores(struct npk_gen *g, const struct npk_queries *q, enum npk_metric metric, uint64_t first, uint64_t nrows,
	double *out, struct npk_err *err);
/* The metric of two vectors of `dim` elements. */
int npk_pair(enum npk_metric metric, unsigned dtype, const void *a, const void *b, uint64_t dim, double *out,
	struct npk_err *err);

/* The instruction set that searches use, and the best one of this CPU: "avx512", "avx2", "sve", "neon" or "scalar". They differ
 * when NPKV_LEVEL says so. Static text; either may be NULL. -EINVAL: NPKV_LEVEL is none of these, or one that this CPU lacks:
 * every search fails likewise, and only *best is set. Any thread. */
int npk_search_level(const char **used, const char **best, struct npk_err *err);

/* Segmented search: rows come in blocks from anywhere, the result at the end. One thread at a time. */
struct npk_topk;
int npk_topk_open(
	struct npk_topk **out, const struct npk_queries *q, enum npk_metric metric, uint64_t k, struct npk_err *err);
/* `nrows` rows of the queries' dtype and width, whose numbers begin at `first`. */
int npk_topk_feed(struct npk_topk *t, const void *rows, uint64_t nrows, uint64_t first, struct npk_err *err);
int npk_topk_result(struct npk_topk *t, struct npk_hits *out, struct npk_err *err);
void npk_topk_close(struct npk_topk *t);

/* --- packages ---------------------------------------------------------------------------------------------------------- */

enum npk_codec {
	NPK_CODEC_ZSTD,
	NPK_CODEC_ZLIB, /* what a NumPack without the module zstandard reads, and one with it does not */
	NPK_CODEC_NONE  /* what every NumPack reads */
};

const char *npk_codec_name(enum npk_codec c); /* "zstd", "zlib", "none" */
int npk_codec_parse(const char *name, enum npk_codec *out, struct npk_err *err);

struct npk_pack { /* zeroed: as NumPack's pack() */
	enum npk_codec codec;
	int level;        /* of zstd 1 to 19, of zlib 1 to 9; 0: 3 of zstd, 6 of zlib */
	unsigned version; /* 0 or 2: what NumPack writes; 1: what its documents describe */
	unsigned threads; /* that compress; 0: one per CPU, at most 16. zlib shares out arrays of up to 1 MiB only */
	bool overwrite;   /* replace a file `target` */
	/* Called now and then by the calling thread; false ends the call with -ECANCELED. NULL: nobody asks. */
	bool (*progress)(void *ctx, uint64_t bytes_done, uint64_t bytes_all);
	void *ctx;
};

/* Writes the store into the one file `target`, which appears whole or not at all and is on the disk when the call returns.
 * What is packed is the store at one moment, also while another process changes it; an array that is written in place
 * meanwhile may show rows of before and after. Segmented arrays become one file. The memory it needs does not depend on
 * the arrays: about 16 MiB, and 4 MiB per thread. -EEXIST: there is a `target`; -EINVAL: an array's name has a '/', which
 * no package can hold; -EBUSY: the store changes too fast; a damaged array fails the call with its own error. */
int npk_pack(struct npk_store *s, const char *target, const struct npk_pack *how, struct npk_err *err);

struct npk_unpack {     /* zeroed: check everything, replace nothing */
	bool overwrite; /* replace a store `target`, or an empty directory */
	bool no_verify; /* do not compare the checksum; everything else is checked */
	bool (*progress)(void *ctx, uint64_t bytes_done, uint64_t bytes_all); /* as of npk_pack() */
	void *ctx;
};

/* Makes the directory `target` of a package. It appears whole, checked and on the disk, or not at all: what was there before
 * stays until then. `how` may be NULL. -EUCLEAN: the package is damaged; -EEXIST: there is a `target`; -ENOTEMPTY: it holds
 * files that are no part of a store; -EBUSY: a program has it open for writing; -ENOSPC: known before anything is written. */
int npk_unpack(const char *package, const char *target, const struct npk_unpack *how, struct npk_err *err);

/* A package's list of files; their contents are not looked at. Any thread. */
struct npk_package;
struct npk_package_info {
	unsigned version;
	unsigned compression; /* as the package says: 0 none, 1 files may be compressed */
	uint64_t nfiles, original_bytes, stored_bytes;
};
struct npk_package_file {
	const char *name; /* borrowed until close */
	enum npk_codec codec;
	uint64_t original_bytes, stored_bytes;
};

int npk_package_open(struct npk_package **out, const char *path, struct npk_err *err);
const struct npk_package_info *npk_package_info(const struct npk_package *p); /* borrowed until close */
/* In the package's order; -ERANGE: it has no such file. */
int npk_package_file(const struct npk_package *p, uint64_t i, struct npk_package_file *out, struct npk_err *err);
/* Decodes everything, compares the checksum, keeps nothing. `progress` may be NULL. */
int npk_package_verify(struct npk_package *p, bool (*progress)(void *ctx, uint64_t bytes_done, uint64_t bytes_all),
	void *ctx, struct npk_err *err);
void npk_package_close(struct npk_package *p);

/* --- checking ---------------------------------------------------------------------------------------------------- */

enum npk_severity {
	NPK_NOTE,
	NPK_WARNING,
	NPK_DAMAGE
};

struct npk_finding {
	enum npk_severity severity;
	const char *array; /* NULL: the store as a whole */
	const char *text;  /* "file: byte N: what is there, and what should be" */
};

/* Applies every check of the format to a store, also to one that npk_store_open() refuses, and calls `fn` for each
 * finding; *ndamage counts those of NPK_DAMAGE. Returns an error only when checking itself was impossible. */
typedef void npk_finding_fn(void *ctx, const struct npk_finding *f);
int npk_store_verify(const char *path, npk_finding_fn *fn, void *ctx, uint64_t *ndamage, struct npk_err *err);

struct npk_verify { /* zeroed: as npk_store_verify() */
	/* Also read every byte of every file (past the page cache where the kernel lets go of it), check the journal record by
	 * record, and name the files that belong to nothing. Needs 1 MiB, whatever the size of the files. */
	bool deep;
	const char *const *array; /* only these arrays and their files; NULL: all */
	size_t narrays;
	/* With `deep`, called now and then by the calling thread; false ends the call with -ECANCELED. NULL: nobody asks. */
	bool (*progress)(void *ctx, uint64_t bytes_done, uint64_t bytes_all);
	void *ctx;
};

/* -ENOENT: there is no array of a name that was asked for. */
int npk_verify(const char *path, const struct npk_verify *how, npk_finding_fn *fn, void *ctx, uint64_t *ndamage,
	struct npk_err *err);

/* --- repairing --------------------------------------------------------------------------------------------------- */

enum npk_journal_wish {
	NPK_JOURNAL_FITTING, /* carry it out when the metadata is the one it was written for; else refuse */
	NPK_JOURNAL_REPLAY, /* carry it out on the metadata it was written for (numpackfs.base); without that on what is there */
	NPK_JOURNAL_DISCARD /* put it aside, with the changes in it */
};

/* What nobody but the user knows of an array whose entry in the metadata is lost or makes no sense. */
struct npk_repair_array {
	const char *name;
	unsigned dtype;
	bool has_shape, any_rows; /* any_rows: shape.dim[0] is as many rows as the data file holds */
	struct npk_shape shape;
};

struct npk_repair { /* zeroed: only tell */
	bool apply;
	enum npk_journal_wish journal;
	const struct npk_repair_array *array;
	size_t narrays;
};

struct npk_repair_step {
	bool left;                         /* no change: damage that stays, and `what` says what it needs */
	const char *array;                 /* NULL: the store as a whole */
	const char *file;                  /* relative to the store */
	uint64_t byte;                     /* of the file, where the change begins */
	const char *what;                  /* one line */
	const char *old_value, *new_value; /* NULL when `left` */
};

struct npk_repair_result {
	uint64_t nchanges, nleft;
	char kept
		[64]; /* the directory in the store that has what was replaced, cut off or removed; empty: nothing was */
};

/* Finds what is damaged and can be mended, calls `fn` for each change before it is made, and with `apply` makes them. Nothing
 * is lost: what is replaced, cut off or removed is kept in the directory `kept` of the store, beside a list of the changes.
 * No row is hidden and no array forgotten by guessing: what cannot be known stays as it is and is told. Ended at any
 * moment (the process, the machine) it leaves a store that is no worse, and can be run again. -EBUSY: another process
 * writes the store; -EUCLEAN: a journal is there that must be replayed or discarded first, see `journal`; -EINVAL: an
 * array was described that needs no description, or a description does not fit its files. */
typedef void npk_repair_fn(void *ctx, const struct npk_repair_step *step);
int npk_repair(const char *path, const struct npk_repair *how, npk_repair_fn *fn, void *ctx,
	struct npk_repair_result *result, struct npk_err *err);

/* --- SIGBUS ------------------------------------------------------------------------------------------------------ */

/* A data file that another process truncates turns reads of its mapping into SIGBUS. After this call, once per process,
 * npk_gen_read_rows(), npk_gen_take(), npk_view_read() and their like return -EIO instead; a SIGBUS from anywhere else
 * goes to the handler that was there before. Programs decide: a library has no business with signal handlers. */
int npk_guard_install(struct npk_err *err);

#ifdef __cplusplus
}
#endif
#endif
