/* control.c - the tables of .numpack/ and of .numpack/arrays/<name>/, and the texts behind their rows. */
#include "control.h"
#include "ctl.h"
#include "log.h"
#include "names.h"

#include <errno.h>
#include <linux/fuse.h>
#include <string.h>

#define RENDER_ARGS                                                                                                    \
	struct npkfs_session *s, const struct npkfs_node *node, const struct npkfs_caller *who, struct npk_text *out,  \
		struct npk_err *err

static const char readme[] =
	"numpackfs shows the arrays of a NumPack store as .npy files: numpy.load(\"NAME.npy\", mmap_mode=\"r\").\n"
	"Deleted rows are skipped. This directory, .numpack, is reachable by name only.\n"
	"\n"
	"  version config log stats metrics     about this mount; last_error says why your last calls failed\n"
	"  members metadata                     the arrays: one name a line; as JSON\n"
	"  arrays/NAME/info shape dtype rows deleted mtime generation\n"
	"  arrays/NAME/deleted.npy              physical indexes of the deleted rows\n"
	"  arrays/NAME/view/0:100:5.npy         rows as an array: integers, a:b:c, lists joined by + or ',', "
	"mask=OTHER;\n"
	"                                       columns behind @ or ';', as in view/0:100@1+2.npy\n"
	"  arrays/NAME/batches/1000/0.npy       the first 1000 rows, then 1.npy, and so on\n"
	"  arrays/NAME/getitem                  write 'sel=0:100;1,2 [fmt=npy|text|json]', read the answer on the same "
	"handle\n"
	"  arrays/NAME/search                   likewise, nearest rows: 'k=5 metric=cosine row=17 "
	"[fmt=text|json|npy]'\n"
	"  arrays/NAME/search.d/metric=cosine,k=5,row=17.txt   the same as a file: .txt, .json or .npy\n"
	"  arrays/NAME/scores.d/metric=cosine,row=17.npy       the metric of every row\n"
	"  arrays/NAME/data.csv                 the rows as text\n"
	"  export/store.safetensors             all arrays as one file\n"
	"\n"
	"Where the mount is read-write, arrays are written as files (np.save, cp, mmap r+), and by commands, a line "
	"each:\n"
	"  arrays/NAME/drop compact clone rename sync, ctl, compact, sync, reset     read one for its usage\n"
	"  arrays/NAME/append append.raw append.csv replace                         rows as bytes\n"
	"\n"
	"Example:  exec 3<>arrays/NAME/getitem; echo 'sel=0:3 fmt=text' >&3; cat <&3; exec 3>&-\n"
	"More: man 7 numpackfs-control\n";

static int render_readme(RENDER_ARGS)
{
	(void)s, (void)node, (void)who, (void)err;
	npk_text_add(out, readme, sizeof(readme) - 1);
	return 0;
}

static int render_version(RENDER_ARGS)
{
	const char *level;
	struct npk_err why;

	(void)s, (void)node, (void)who, (void)err;
	npk_text_printf(out, "numpackfs %s\nlibnumpack %s\nlibfuse %s\nprotocol %d.%d\n", NPK_VERSION, npk_version(),
		fuse_pkgversion(), FUSE_KERNEL_VERSION, FUSE_KERNEL_MINOR_VERSION);
	if (npk_search_level(&level, NULL, &why) == 0)
		npk_text_printf(out, "simd %s\n", level);
	else
		npk_text_printf(out, "simd none: %s\n", why.msg);
	return 0;
}

static int render_config(RENDER_ARGS)
{
	(void)node, (void)who, (void)err;
	npkfs_config_print(s->config, out);
	return 0;
}

/* Names as path components: one line each, whatever bytes they have. */
static int render_members(RENDER_ARGS)
{
	char part[NPKFS_NAME_MAX + 1];
	struct npk_array **list;
	const char *name;
	size_t n, len;
	int rc = npkfs_arrays(s, node->space, &list, &n, err);

	(void)who;
	if (rc != 0)
		return rc;
	for (size_t i = 0; i < n; i++) {
		name = npk_array_name(list[i], &len);
		if (npkfs_name_escape(part, name, len, ""))
			npk_text_printf(out, "%s\n", part);
	}
	npk_store_list_free(list, n);
	return 0;
}

static void end_line(struct npk_text *t)
{
	if (t->len == 0 || t->p[t->len - 1] != '\n')
		npk_text_add(t, "\n", 1);
}

static int render_metadata(RENDER_ARGS)
{
	struct npk_store *store;
	int rc = npkfs_space_enter(s, node->space, &store, err);

	(void)who;
	if (rc != 0)
		return rc;
	rc = npk_store_metadata_json(store, out, err);
	npkfs_space_leave(node->space);
	end_line(out);
	return rc;
}

static int render_stats(RENDER_ARGS)
{
	(void)node, (void)who, (void)err;
	npkfs_print_stats(s, out);
	return 0;
}

static int render_metrics(RENDER_ARGS)
{
	(void)node, (void)who, (void)err;
	npkfs_print_metrics(s, out);
	return 0;
}

static int render_log(RENDER_ARGS)
{
	(void)s, (void)node, (void)who, (void)err;
	npkfs_log_recent(out);
	return 0;
}

static int render_last_error(RENDER_ARGS)
{
	(void)node, (void)err;
	npkfs_lasterr_print(&s->lasterr, who->uid, out);
	return 0;
}

static int render_info(RENDER_ARGS)
{
	struct npk_array *a;
	int rc = npkfs_node_array(s, node, &a, err);

	(void)who;
	if (rc != 0)
		return rc;
	rc = npk_array_info_json(a, out, err);
	npk_array_put(a);
	end_line(out);
	return rc;
}

static int render_fact(RENDER_ARGS)
{
	struct npk_array_info info;
	struct npk_array *a;
	int rc = npkfs_node_array(s, node, &a, err);

	(void)who;
	if (rc != 0)
		return rc;
	rc = npk_array_info(a, &info, err);
	npk_array_put(a);
	if (rc == 0)
		rc = npkfs_fact(node->control->name, &info, out, err);
	npk_text_add(out, "\n", 1);
	return rc;
}

const struct npkfs_control npkfs_store_controls[] = {
	{.name = "README", .type = &npkfs_text_type, .render = render_readme},
	{.name = "version", .type = &npkfs_text_type, .render = render_version},
	{.name = "config", .type = &npkfs_text_type, .render = render_config},
	{.name = "members", .type = &npkfs_text_type, .inside = true, .render = render_members},
	{.name = "metadata", .type = &npkfs_text_type, .inside = true, .render = render_metadata},
	{.name = "stats", .type = &npkfs_text_type, .render = render_stats},
	{.name = "metrics", .type = &npkfs_text_type, .render = render_metrics},
	{.name = "log", .type = &npkfs_text_type, .render = render_log, .owner_only = true},
	{.name = "last_error", .type = &npkfs_text_type, .render = render_last_error},
	{.name = "arrays", .type = &npkfs_arrays_dir_type, .inside = true},
	{.name = "export", .type = &npkfs_export_dir_type, .inside = true},
	{.name = "batch", .type = &npkfs_batch_dir_type},
	{
		.name = "ctl",
		.type = &npkfs_query_type,
		.inside = true,
		.changes = true,
		.attaches = true,
		.argc_min = 1,
		.argc_max = NPKFS_WORDS_MAX,
		.usage = "save|append|replace|drop|compact|clone|rename|getitem|get|stream|has|search ARRAY ..., "
			 "reset, sync, "
			 "reload, begin ... commit: see numpackfs-control(7)",
		.check = npkfs_check_ctl,
		.run = npkfs_run_ctl,
	},
	{
		.name = "compact",
		.type = &npkfs_query_type,
		.inside = true,
		.changes = true,
		.argc_min = 1,
		.argc_max = 2,
		.usage = "1 [force]",
		.check = npkfs_check_change,
		.run = npkfs_run_change,
	},
	{
		.name = "sync",
		.type = &npkfs_query_type,
		.changes = true,
		.argc_min = 1,
		.argc_max = 1,
		.usage = "1",
		.check = npkfs_check_change,
		.run = npkfs_run_change,
	},
	{
		.name = "reset",
		.type = &npkfs_query_type,
		.inside = true,
		.changes = true,
		.argc_min = 1,
		.argc_max = 1,
		.usage = "confirm=STORE",
		.check = npkfs_check_change,
		.run = npkfs_run_change,
	},
	{.name = NULL},
};

const struct npkfs_control npkfs_array_controls[] = {
	{.name = "info", .type = &npkfs_text_type, .render = render_info},
	{.name = "shape", .type = &npkfs_text_type, .render = render_fact},
	{.name = "dtype", .type = &npkfs_text_type, .render = render_fact},
	{.name = "rows", .type = &npkfs_text_type, .render = render_fact},
	{.name = "deleted", .type = &npkfs_text_type, .render = render_fact},
	{.name = "mtime", .type = &npkfs_text_type, .render = render_fact},
	{.name = "generation", .type = &npkfs_text_type, .render = render_fact},
	{.name = "deleted.npy", .type = &npkfs_deleted_type},
	{.name = "data.csv", .type = &npkfs_csv_type},
	{.name = "view", .type = &npkfs_view_dir_type},
	{.name = "batches", .type = &npkfs_batches_dir_type},
	{.name = "search.d", .type = &npkfs_search_dir_type},
	{.name = "scores.d", .type = &npkfs_scores_dir_type},
	{
		.name = "getitem",
		.type = &npkfs_query_type,
		.argc_min = 1,
		.argc_max = 2,
		.usage = "sel=SELECTION [fmt=npy|text|json]",
		.check = npkfs_check_getitem,
		.run = npkfs_run_getitem,
	},
	{
		.name = "search",
		.type = &npkfs_query_type,
		.attaches = true,
		.others = true,
		.argc_min = 1,
		.argc_max = NPKFS_WORDS_MAX,
		.usage = NPKFS_SEARCH_WORDS,
		.check = npkfs_check_search,
		.run = npkfs_run_search,
	},
	{.name = "append",
		.type = &npkfs_stream_type,
		.changes = true,
		.usage = "the rows as a .npy stream, or several"},
	{.name = "append.raw", .type = &npkfs_stream_type, .changes = true, .usage = "whole rows as bytes"},
	{.name = "append.csv",
		.type = &npkfs_stream_type,
		.changes = true,
		.usage = "lines of as many numbers as a row has, with commas between them"},
	{.name = "replace",
		.type = &npkfs_stream_type,
		.changes = true,
		.usage = "a line that says which rows (0:3,7 [atomic]), then a .npy stream"},
	{
		.name = "drop",
		.type = &npkfs_query_type,
		.changes = true,
		.argc_min = 1,
		.argc_max = NPKFS_WORDS_MAX,
		.usage = "ROW|FROM:TO[:STEP] ...",
		.check = npkfs_check_change,
		.run = npkfs_run_change,
	},
	{
		.name = "compact",
		.type = &npkfs_query_type,
		.changes = true,
		.argc_min = 1,
		.argc_max = 2,
		.usage = "1 [force]",
		.check = npkfs_check_change,
		.run = npkfs_run_change,
	},
	{
		.name = "clone",
		.type = &npkfs_query_type,
		.changes = true,
		.argc_min = 1,
		.argc_max = 1,
		.usage = "NEW-NAME",
		.check = npkfs_check_change,
		.run = npkfs_run_change,
	},
	{
		.name = "rename",
		.type = &npkfs_query_type,
		.changes = true,
		.argc_min = 1,
		.argc_max = 1,
		.usage = "NEW-NAME",
		.check = npkfs_check_change,
		.run = npkfs_run_change,
	},
	{
		.name = "sync",
		.type = &npkfs_query_type,
		.changes = true,
		.argc_min = 1,
		.argc_max = 1,
		.usage = "1",
		.check = npkfs_check_change,
		.run = npkfs_run_change,
	},
	{.name = NULL},
};

const struct npkfs_control *npkfs_control_find(const struct npkfs_control *table, const char *name)
{
	for (; table->name != NULL; table++)
		if (strcmp(table->name, name) == 0)
			return table;
	return NULL;
}
