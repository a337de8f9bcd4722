/* fuzz_names.c - array names as path components. A name that fits comes back from its component, and a component that
 * is accepted is the only one of its name and no way out of the directory. */
#include "fuzz.h"

/* A target is linked with the library alone, and these pure functions need nothing else. */
#include "names.c"

static void check_name(const void *name, size_t len)
{
	char part[NPKFS_NAME_MAX + 1], back[NPKFS_NAME_MAX + 1];
	size_t n;

	if (!npkfs_name_escape(part, name, len, ".npy"))
		return;
	CHECK(npkfs_name_strip(part, ".npy", &n) && n > 0 && !memchr(part, '/', n) && part[0] != '.');
	for (size_t i = 0; i < n; i++)
		CHECK((uint8_t)part[i] >= 0x20 && part[i] != 0x7F);
	part[n] = 0;
	CHECK(npkfs_name_unescape(back, &n, part, strlen(part)));
	CHECK(n == len && memcmp(back, name, len) == 0);
}

static void check_component(const char *part, size_t len)
{
	char again[NPKFS_NAME_MAX + 1], *out = malloc(len + 1);
	size_t n;

	CHECK(out);
	if (npkfs_name_unescape(out, &n, part, len)) {
		CHECK(n <= len && out[n] == 0);
		CHECK(npkfs_name_escape(again, out, n, ""));
		CHECK(strlen(again) == len && memcmp(again, part, len) == 0);
	}
	if (npkfs_percent_decode(out, part, len))
		CHECK(strlen(out) <= len);
	free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size > NPKFS_COMPONENT_MAX)
		return 0;
	check_name(data, size);
	check_component((const char *)data, size);
	return 0;
}
