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

struct npki_file {
	_Atomic uint32_t refs;
	int dirfd;                  /* the store's; the file's holders hold the store */
	struct npki_packed *packed; /* the file is a member of this package; NULL: of the directory */
	char *path;
	struct npki_file_id id; /* as it was when its size was checked */
	pthread_mutex_t lock;
	struct npki_mapping *map;  /* lock; read-only, newest first: the longest */
	struct npki_mapping *wmap; /* lock; writable, made when rows are replaced in place */
	int fd;                    /* lock; open for writing, -1 when not */
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

#endif
