/* file.h - a data file that generations share: its mapping grows with appends, and what was mapped once stays mapped
 * until the last generation that shows it is gone. */
#ifndef NPKI_FILE_H
#define NPKI_FILE_H

#include "io.h"

#include <pthread.h>
#include <stdatomic.h>

struct npki_mapping {
	uint8_t *base;
	size_t len;
	size_t skip; /* bytes before the first one, of a member of a package: maps begin at pages */
	struct npki_mapping *older;
};

/* What the names of one data file share: a file that got another name has a new npki_file. */
struct npki_inode {
	_Atomic uint32_t refs;
	pthread_mutex_t lock;
	char *path;             /* lock; the latest name */
	unsigned keepers;       /* lock; who wants to write to it even when it has no name any more */
	int fd;                 /* lock; open for writing while there are keepers, -1 when that failed */
	_Atomic bool compacted; /* its rows live on in another file: writing here would lose what is written */
	_Atomic bool left;      /* no array has it any more, and the record that says so is durable */
};

struct npki_file {
	_Atomic uint32_t refs;
	int dirfd;                  /* the store's; the file's holders hold the store */
	struct npki_packed *packed; /* the file is a member of this package; NULL: of the directory */
	char *path;
	struct npki_file_id id;   /* as it was when its size was checked */
	struct npki_inode *inode; /* counted */
	pthread_mutex_t lock;
	struct npki_mapping *map;  /* lock; read-only, newest first: the longest */
	struct npki_mapping *wmap; /* lock; writable, made when rows are replaced in place */
	int fd;                    /* lock; open for writing, -1 when not */
	_Atomic uint64_t size;     /* bytes that it has as far as we know: others were written by another program */
	_Atomic bool dirty;        /* bytes were written that no sync has covered; the writer's list holds it */
};

int npki_file_new(
	struct npki_file **out, int dirfd, const char *path, const struct npki_file_id *id, struct npk_err *err);
struct npki_file *npki_file_ref(struct npki_file *f);
void npki_file_put(struct npki_file *f);

/* The first `need` bytes, mapped; `more` bytes of address space behind them wait for appends. -ESTALE: another process
 * replaced the file. The pointer holds as long as the file does. */
int npki_file_map(struct npki_file *f, size_t need, size_t more, const uint8_t **base, struct npk_err *err);
/* Likewise for writing; the file must have `need` bytes. */
int npki_file_wmap(struct npki_file *f, size_t need, uint8_t **base, struct npk_err *err);
/* A descriptor for writing, which stays open with the file or until npki_file_close_fd(). */
int npki_file_fd(struct npki_file *f, int *fd, struct npk_err *err);
void npki_file_close_fd(struct npki_file *f);

/* `f` is another name of the file of `old`, and the one to open it by. Before others know of `f`. */
int npki_file_share(struct npki_file *f, const struct npki_file *old, struct npk_err *err);
/* From keep to the unkeep that ends it the file stays open for writing, also when its name is gone. Where it cannot be
 * opened, npki_file_write_left() tries again, and says why. */
void npki_file_keep(struct npki_file *f);
void npki_file_unkeep(struct npki_file *f);
/* Whether somebody keeps the file, and it has no name. */
bool npki_file_is_nameless(struct npki_file *f);
/* Writes to a file that no array has any more. -ESTALE: nobody kept it, and its name is gone. */
int npki_file_write_left(struct npki_file *f, const void *bytes, size_t len, uint64_t off, struct npk_err *err);

#endif
