/* pkg.h - .npkg packages (FORMAT.md, "packages"): the list of a package's members, and reading one of them. */
#ifndef NPKI_PKG_H
#define NPKI_PKG_H

#include "numpack.h"

#include <stdatomic.h>
#include <sys/stat.h>

#define NPKI_PKG_MAGIC "NPKG"
#define NPKI_PKG_HEAD 13                   /* bytes before the first member */
#define NPKI_PKG_BLOCK ((size_t)256 << 10) /* bytes that are read, coded and written at once */

struct npki_member {
	char *name;        /* NUL-terminated; metadata.npkm, data_*.npkd or deleted_*.npkb */
	uint64_t original; /* bytes of its contents */
	uint64_t at, len;  /* where they lie in the package, as they are stored */
	enum npk_codec codec;
};

struct npk_package {
	_Atomic uint32_t refs;
	char *path; /* for messages */
	int fd;
	struct stat st; /* of the package when it was opened */
	struct npk_package_info info;
	struct npki_member *member;
	struct npki_member **by_name; /* sorted by the bytes of the names */
	uint32_t crc;                 /* as the package's end says */
};

/* Takes over `fd`, also when it fails. */
int npki_package_open_fd(struct npk_package **out, int fd, const char *path, struct npk_err *err);
struct npk_package *npki_package_ref(struct npk_package *p);
const struct npki_member *npki_package_find(const struct npk_package *p, const char *name); /* or NULL */

/* Whether a package may hold a file of that name: one that NumPack's pack() writes. */
bool npki_is_member_name(const char *name, size_t len);

/* The contents of one member, from the first byte to the last. One thread at a time. */
struct npki_decoder;
int npki_decoder_open(struct npki_decoder **out, struct npk_package *p, struct npk_err *err);
/* Begins anew with that member of the package. */
int npki_decoder_start(struct npki_decoder *d, const struct npki_member *m, struct npk_err *err);
/* The next bytes, as many as fit but for the last ones; *got is 0 at the end. -EUCLEAN: they are not what the package says,
 * in their number as well. */
int npki_decoder_read(struct npki_decoder *d, uint8_t *buf, size_t len, size_t *got, struct npk_err *err);
void npki_decoder_close(struct npki_decoder *d);

/* The checksum of a package, one member after the other: FORMAT.md tells how the versions differ. */
struct npki_package_crc {
	unsigned version;
	uint32_t crc;
};
void npki_package_crc_add(struct npki_package_crc *c, uint32_t crc, uint64_t len);

#endif
