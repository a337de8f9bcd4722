/* pkginfo.c - npk pkginfo: what a package holds. */
#include "progress.h"
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum {
	JSON,
	CHECK
};

static const struct npkt_opt opts[] = {
	[JSON] = {"json", NULL, 'j', "as one JSON object"},
	[CHECK] = {"check", NULL, 'c', "decode everything and compare the checksum"},
	{0},
};

/* 1 for nothing: what is not there was not made smaller. */
static double ratio(uint64_t stored, uint64_t original)
{
	return original ? (double)stored / (double)original : 1;
}

static int each_file(struct npk_package *p, void (*fn)(struct npk_text *t, const struct npk_package_file *f),
	struct npk_text *t, struct npk_err *err)
{
	const struct npk_package_info *info = npk_package_info(p);
	struct npk_package_file f;
	int rc = 0;

	for (uint64_t i = 0; i < info->nfiles && rc == 0; i++) {
		rc = npk_package_file(p, i, &f, err);
		if (rc == 0)
			fn(t, &f);
	}
	return rc;
}

static void file_json(struct npk_text *t, const struct npk_package_file *f)
{
	npk_text_printf(t, "%s{\"name\": ", t->p[t->len - 1] == '[' ? "" : ", ");
	npk_text_json(t, f->name, strlen(f->name));
	npk_text_printf(t, ", \"codec\": \"%s\", \"original_size\": %" PRIu64 ", \"stored_size\": %" PRIu64 "}",
		npk_codec_name(f->codec), f->original_bytes, f->stored_bytes);
}

static int put_json(struct npk_package *p, const char *path, bool checked, struct npk_err *err)
{
	const struct npk_package_info *info = npk_package_info(p);
	struct npk_text t = {0};
	int rc;

	npk_text_printf(&t, "{\"package\": ");
	npk_text_json(&t, path, strlen(path));
	npk_text_printf(&t, ", \"version\": %u, \"compression\": %u, \"file_count\": %" PRIu64 ", \"files\": [",
		info->version, info->compression, info->nfiles);
	rc = each_file(p, file_json, &t, err);
	npk_text_printf(&t,
		"], \"total_original_size\": %" PRIu64 ", \"total_stored_size\": %" PRIu64
		", \"compression_ratio\": %.6g, \"checked\": %s}\n",
		info->original_bytes, info->stored_bytes, ratio(info->stored_bytes, info->original_bytes),
		checked ? "true" : "false");
	npkt_put_text(stdout, &t);
	return rc;
}

static void file_line(struct npk_text *t, const struct npk_package_file *f)
{
	(void)t;
	printf("%-5s %14" PRIu64 " %14" PRIu64 "  ", npk_codec_name(f->codec), f->original_bytes, f->stored_bytes);
	npkt_put_escaped(stdout, f->name, strlen(f->name));
	putchar('\n');
}

static int put_lines(struct npk_package *p, const char *path, bool checked, struct npk_err *err)
{
	const struct npk_package_info *info = npk_package_info(p);
	int rc;

	printf("package      ");
	npkt_put_escaped(stdout, path, strlen(path));
	printf("\nversion      %u\ncompression  %s\nfiles        %" PRIu64 "\nratio        %.3f\n%s\n"
	       "codec       original         stored  file\n",
		info->version, info->compression ? "yes" : "no", info->nfiles,
		ratio(info->stored_bytes, info->original_bytes), checked ? "checksum     right\n" : "");
	rc = each_file(p, file_line, NULL, err);
	printf("      %14" PRIu64 " %14" PRIu64 "\n", info->original_bytes, info->stored_bytes);
	return rc;
}

static int check(struct npk_package *p, struct npk_err *err)
{
	struct npkt_progress progress;
	int rc;

	npkt_progress_begin(&progress, "checking");
	rc = npk_package_verify(p, npkt_progress, &progress, err);
	npkt_progress_end(&progress);
	return rc;
}

static int run(const struct npkt_args *args)
{
	struct npk_package *p = NULL;
	struct npk_err err;
	bool checked = args->opt[CHECK] != NULL;
	int rc = npk_package_open(&p, args->operand[0], &err);

	if (rc == 0 && checked)
		rc = check(p, &err);
	if (rc == 0)
		rc = (args->opt[JSON] ? put_json : put_lines)(p, args->operand[0], checked, &err);
	npk_package_close(p);
	return npkt_flush(rc ? npkt_failed(&err) : NPKT_OK);
}

const struct npkt_cmd npkt_pkginfo = {
	.name = "pkginfo",
	.operands = "PACKAGE",
	.min = 1,
	.max = 1,
	.help = "tell what a package holds",
	.more = "Only the list of files is read, unless --check is given. A file's codec is none when it is stored as "
		"it is.\n"
		"\n"
		"Examples:\n"
		"  npk pack digits.npk && npk pkginfo digits.npk.npkg\n"
		"  npk pack -o digits.npk && npk pkginfo --check --json digits.npk.npkg\n",
	.opts = opts,
	.usage_status = NPKT_USAGE,
	.run = run,
};
