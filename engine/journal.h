/* journal.h - the bytes of numpackfs.journal: a header, then records in a chain of checksums (FORMAT.md, "journal").
 *
 * A record is { length u32, sequence u64, kind u8, payload, CRC32C u32 }, its checksum seeded with that of the record
 * before (of the header for the first): stale records behind a cut never fit. All numbers are little-endian. */
#ifndef NPKI_JOURNAL_H
#define NPKI_JOURNAL_H

#include "crc.h"
#include "numpack.h"
#include "wire.h"

#define NPKI_JOURNAL "numpackfs.journal"
#define NPKI_JOURNAL_NEXT "numpackfs.journal.next" /* takes records while a checkpoint of the other runs */
#define NPKI_JOURNAL_NEW "numpackfs.journal.new"   /* a journal before it gets its name */

#define NPKI_JHEAD_LEN 56

struct npki_jhead {
	uint64_t nonce;      /* 40 bits: names of files that this mount makes carry it */
	uint64_t base_hash;  /* of the entries of the metadata that the records change */
	uint64_t seq;        /* of the last operation before the first record */
	uint32_t prev_chain; /* where the journal before it ended; 0 for the first */
};

enum npki_jkind {
	NPKI_JOP = 1,
	NPKI_JSEAL = 2,
	NPKI_JCKPT = 3
};

/* What the payload of an operation consists of; each is a tag byte and its fields. */
enum npki_jitem {
	NPKI_J_SET = 'S',    /* name, entry: the array is now this, without deleted rows */
	NPKI_J_DEL = 'D',    /* name: the array is gone */
	NPKI_J_CLEAR = 'C',  /* name, mtime, count, { slot, n }: these rows are deleted */
	NPKI_J_GROW = 'G',   /* name, slots, mtime, file: rows were appended; the file is another for a new manifest */
	NPKI_J_FILE = 'F',   /* name, file: the data file has another name */
	NPKI_J_MOVE = 'M',   /* name, new name */
	NPKI_J_TIME = 'T',   /* name, mtime */
	NPKI_J_OWN = 'O',    /* file: a name that we are about to take */
	NPKI_J_INTENT = 'I', /* name: bytes will be written behind its last row */
	NPKI_J_EXTENT = 'E', /* file, offset, length, CRC32C: bytes that the operation relies on */
	NPKI_J_ZERO = 'Z',   /* file, length: it was grown to that, no checksum */
	NPKI_J_WRITE = 'W',  /* file, count, { offset, length u32 }, bytes: are written in place after the record */
	NPKI_J_COPY = 'P', /* file, offset, length, source file, offset: likewise, the bytes are those of the source */
};

enum npki_cstep {
	NPKI_C_MOVE = 'm',
	NPKI_C_REMOVE = 'r',
	NPKI_C_UNLINK = 'u',
	NPKI_C_HASH = 'h'
};

/* Writers of payload fields, into a text buffer. */
void npki_put_u8(struct npk_text *t, uint8_t v);
void npki_put_u32(struct npk_text *t, uint32_t v);
void npki_put_u64(struct npk_text *t, uint64_t v);
void npki_put_bytes(struct npk_text *t, const void *p, size_t len); /* length u32, then the bytes */
/* `count` places, then what belongs there, one after the other. */
struct npki_span {
	uint64_t off, len;
};
void npki_put_spans(struct npk_text *t, const struct npki_span *at, size_t count, const void *bytes);
/* And a reader: the bytes are borrowed from the buffer. */
const char *npki_take_bytes(struct npki_rd *r, size_t *len);
/* The places of a WRITE, NPKI_SPAN_LEN bytes each, and the bytes; whether their lengths add up is for who goes through them. */
#define NPKI_SPAN_LEN 12
struct npki_writes {
	const uint8_t *at, *bytes;
	uint64_t count, len; /* of `at`; of `bytes` */
};
struct npki_writes npki_take_writes(struct npki_rd *r);
struct npki_span npki_span_at(const struct npki_writes *w, uint64_t i);

void npki_jhead_write(uint8_t out[NPKI_JHEAD_LEN], const struct npki_jhead *h, uint32_t *chain);
/* Adds a whole record to `out`; *chain is moved on. */
void npki_jrec_write(
	struct npk_text *out, enum npki_jkind kind, uint64_t seq, const void *payload, size_t len, uint32_t *chain);

/* One journal file in memory. */
struct npki_jrec {
	enum npki_jkind kind;
	uint64_t seq;
	const uint8_t *payload;
	size_t len;
};

/* How far a journal was read: what comes next has this chain value before it. */
struct npki_jplace {
	uint64_t dev, ino, pos; /* ino 0: nowhere */
	uint32_t chain;
	uint64_t seq;
};

struct npki_jfile {
	bool exists; /* with a whole header */
	struct npki_jplace end;
	struct npki_jhead head;
	uint8_t *buf;
	struct npki_jrec *rec;
	size_t nrecs;
	uint32_t tail_chain; /* after the last record that is no checkpoint: where the next journal goes on */
	uint64_t seq;        /* of the last operation */
	uint64_t len;        /* of the file */
	size_t from;         /* the first record behind the last checkpoint; 0: there is none */
	uint64_t sealed;     /* the last operation that a seal covers; 0: there is no seal */
};

/* Reads as far as the chain holds; a file without a whole header does not `exist`. */
int npki_jfile_read(int dirfd, const char *path, struct npki_jfile *out, struct npk_err *err);
/* The records behind `from`; not `exists` when it is another file, or shorter. There is no header then. */
int npki_jfile_read_on(
	int dirfd, const char *path, const struct npki_jplace *from, struct npki_jfile *out, struct npk_err *err);
/* How many whole records follow the one that breaks the chain, if what is broken is only in that one. */
size_t npki_jfile_behind(const struct npki_jfile *f);
void npki_jfile_fini(struct npki_jfile *f);

#endif
