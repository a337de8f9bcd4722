/* save.c - npk save: .npy files become arrays, all of them or none. */
#include "tool.h"

#include <stdlib.h>

enum {
	WAIT
};

static const struct npkt_opt opts[] = {
	[WAIT] = NPKT_WAIT_OPT,
	{0},
};

static int save(struct npk_store *s, const char *word, struct npk_err *err)
{
	struct npk_source_how how = {.format = NPK_FORMAT_NPY, .dtype = -1};
	struct npkt_input in = {0};
	struct npk_source_array a;
	const char *file;
	char *name = NULL;
	int rc = npkt_take_word(word, ".npy", &name, &file, err);

	if (rc == 0)
		rc = npkt_input_open(&in, file, &how, err);
	if (rc == 0)
		rc = npkt_input_only(&in, &a, err);
	if (rc == 0)
		rc = npkt_save_input(s, name, &in, &a, NULL, err);
	if (rc == 0)
		rc = npkt_input_no_more(&in, err);
	npkt_input_close(&in);
	free(name);
	return rc;
}

static int run(const struct npkt_args *args)
{
	return npkt_change_each(args, args->opt[WAIT], save);
}

const struct npkt_cmd npkt_save = {
	.name = "save",
	.operands = "STORE [NAME=]FILE...",
	.min = 2,
	.max = -1,
	.help = "save .npy files as arrays, in place of those of the same name",
	.more = "FILE is a .npy file, - is standard input. Without NAME= the array is called as the file, without its "
		".npy.\n"
		"Big-endian and Fortran-order files are converted. Either all arrays are saved or none.\n"
		"\n" NPKT_ABOUT_WRITING "\n"
		"Examples:\n"
		"  npk get digits.npk images -o images.npy && npk save digits.npk images.npy\n"
		"  npk get digits.npk labels | npk save digits.npk copy=-\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
