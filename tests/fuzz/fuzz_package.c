/* fuzz_package.c - any bytes as a package. What its list of files tells lies in the bytes, names are those of a store's files,
 * and what verifies can be read member by member, to the promised length. */
#include "fuzz.h"

#include "pkg.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define DECODED_MOST ((uint64_t)8 << 20) /* more takes long and tells nothing new */

static void check_list(const struct npk_package *p, size_t size)
{
	const struct npk_package_info *info = npk_package_info(p);
	struct npk_package_file f;
	uint64_t stored = 0, original = 0;
	struct npk_err err;

	CHECK((info->version == 1 || info->version == 2) && info->compression <= 1);
	for (uint64_t i = 0; i < info->nfiles; i++) {
		CHECK(npk_package_file(p, i, &f, &err) == 0);
		CHECK(npki_is_member_name(f.name, strlen(f.name)) && npki_package_find(p, f.name) == &p->member[i]);
		CHECK(npk_codec_name(f.codec) && (f.codec != NPK_CODEC_NONE || f.stored_bytes == f.original_bytes));
		CHECK(p->member[i].at <= size && f.stored_bytes <= size - p->member[i].at);
		stored += f.stored_bytes;
		original += f.original_bytes;
	}
	CHECK(npk_package_file(p, info->nfiles, &f, &err) == -ERANGE);
	CHECK(stored == info->stored_bytes && original == info->original_bytes && stored <= size);
}

static void read_members(struct npk_package *p)
{
	static uint8_t buf[5000]; /* no divisor of anything */
	struct npki_decoder *d;
	struct npk_err err;

	CHECK(npki_decoder_open(&d, p, &err) == 0);
	for (uint64_t i = 0; i < p->info.nfiles; i++) {
		uint64_t total = 0;
		size_t got;

		CHECK(npki_decoder_start(d, &p->member[i], &err) == 0);
		do {
			CHECK(npki_decoder_read(d, buf, sizeof(buf), &got, &err) == 0);
			total += got;
		} while (got > 0);
		CHECK(total == p->member[i].original);
	}
	npki_decoder_close(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = memfd_create("package", MFD_CLOEXEC), rc;
	struct npk_package *p = NULL;
	struct npk_err err;

	CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	rc = npki_package_open_fd(&p, fd, "x.npkg", &err);
	if (rc != 0) {
		CHECK(rc == -EUCLEAN && !p);
		check_err(rc, &err);
		return 0;
	}
	check_list(p, size);
	if (p->info.original_bytes <= DECODED_MOST) {
		rc = npk_package_verify(p, NULL, NULL, &err);
		if (rc == 0)
			read_members(p);
		else
			check_err(rc, &err);
	}
	npk_package_close(p);
	return 0;
}
