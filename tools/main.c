/* main.c - npk: finds the subcommand, takes its options apart, and answers --help. */
#include "tool.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static int help(const struct npkt_args *args);

static const struct npkt_opt no_opts[] = {{0}};

static const struct npkt_cmd npkt_help = {
	.name = "help",
	.operands = "[COMMAND]",
	.min = 0,
	.max = 1,
	.help = "tell what there is, or about one command",
	.more = "Examples:\n"
		"  npk help\n"
		"  npk help get\n",
	.opts = no_opts,
	.usage_status = NPKT_USAGE,
	.run = help,
};

/* clang-format off: one a line, so that those who add one do not meet */
static const struct npkt_cmd *const commands[] = {
	&npkt_create,
	&npkt_ls,
	&npkt_info,
	&npkt_get,
	&npkt_cat,
	&npkt_save,
	&npkt_append,
	&npkt_replace,
	&npkt_drop,
	&npkt_compact,
	&npkt_clone,
	&npkt_rename,
	&npkt_reset,
	&npkt_batch,
	&npkt_import,
	&npkt_export,
	&npkt_search,
	&npkt_score,
	&npkt_merge,
	&npkt_verify,
	&npkt_repair,
	&npkt_pack,
	&npkt_unpack,
	&npkt_pkginfo,
	&npkt_stats,
	&npkt_top,
	&npkt_umount,
	&npkt_doctor,
	&npkt_bench,
	&npkt_help,
};
/* clang-format on */

#define NCOMMANDS (sizeof(commands) / sizeof(*commands))

static const struct npkt_cmd *find(const char *name)
{
	for (size_t i = 0; i < NCOMMANDS; i++)
		if (strcmp(commands[i]->name, name) == 0)
			return commands[i];
	npkt_complain("there is no command '%s'; npk help lists them", name);
	return NULL;
}

/* --- help ------------------------------------------------------------------------------------------------------------- */

static void put_overview(FILE *out)
{
	fprintf(out, "Usage: npk COMMAND [OPTION...] [OPERAND...]\n"
		     "Looks into NumPack array stores and changes them.\n"
		     "\n"
		     "Commands:\n");
	for (size_t i = 0; i < NCOMMANDS; i++)
		fprintf(out, "  %-9s%s\n", commands[i]->name, commands[i]->help);
	fprintf(out, "\n"
		     "  -h, --help     this text; after COMMAND: about that command\n"
		     "  -V, --version  the version\n"
		     "\n"
		     "Exit status: 0 done, 1 wrong usage, 2 a store, an array or the output has a problem, 3 another "
		     "process\n"
		     "writes the store.\n");
}

static void put_option(char key, const char *name, const char *arg, const char *text)
{
	char said[32];

	snprintf(said, sizeof(said), "-%c, --%s%s%s", key, name, arg ? " " : "", arg ? arg : "");
	printf("  %-20s  %s\n", said, text);
}

static void put_help(const struct npkt_cmd *cmd)
{
	printf("Usage: npk %s %s%s\n", cmd->name, cmd->opts[0].name ? "[OPTION...] " : "", cmd->operands);
	printf("%c%s.\n\nOptions:\n", cmd->help[0] - 'a' + 'A', cmd->help + 1);
	for (const struct npkt_opt *o = cmd->opts; o->name; o++)
		put_option(o->key, o->name, o->arg, o->help);
	put_option('h', "help", NULL, "this text");
	printf("\n%s", cmd->more);
}

static int help(const struct npkt_args *args)
{
	const struct npkt_cmd *cmd;

	if (args->noperands == 0) {
		put_overview(stdout);
		return npkt_flush(NPKT_OK);
	}
	cmd = find(args->operand[0]);
	if (!cmd)
		return NPKT_USAGE;
	put_help(cmd);
	return npkt_flush(NPKT_OK);
}

/* --- options ---------------------------------------------------------------------------------------------------------- */

struct tables { /* what getopt_long() wants to know of a command's options */
	struct option name[NPKT_OPTS_MAX + 2];
	char keys[2 * NPKT_OPTS_MAX + 3];
};

static void fill_tables(struct tables *t, const struct npkt_cmd *cmd)
{
	char *key = t->keys;
	size_t n = 0;

	*key++ = ':'; /* a missing value is told apart from an unknown option */
	for (const struct npkt_opt *o = cmd->opts; o->name; o++) {
		t->name[n++] = (struct option){o->name, o->arg ? required_argument : no_argument, NULL, o->key};
		*key++ = o->key;
		if (o->arg)
			*key++ = ':';
	}
	t->name[n++] = (struct option){"help", no_argument, NULL, 'h'};
	t->name[n] = (struct option){0};
	*key++ = 'h';
	*key = 0;
}

static int misused(const struct npkt_cmd *cmd, const char *what, const char *which)
{
	npkt_complain("%s%s; npk help %s tells the options", what, which, cmd->name);
	return cmd->usage_status;
}

/* What getopt_long() means: `word` when a long option is unknown, or has a value and wants none; else a letter. */
static int refused(const struct npkt_cmd *cmd, const struct tables *t, const char *word)
{
	char letter[] = {'-', (char)optopt, 0};

	if (optopt == 0)
		return misused(cmd, "there is no option ", word);
	if (strchr(t->keys, optopt))
		return misused(cmd, "no value belongs to ", word);
	return misused(cmd, "there is no option ", letter);
}

/* -1: go on; else the exit status. */
static int parse(const struct npkt_cmd *cmd, int argc, char **argv, struct npkt_args *args)
{
	struct tables t;
	int key;

	fill_tables(&t, cmd);
	while ((key = getopt_long(argc, argv, t.keys, t.name, NULL)) != -1) {
		if (key == 'h') {
			put_help(cmd);
			return npkt_flush(NPKT_OK);
		}
		if (key == ':')
			return misused(cmd, "a value is missing behind ", argv[optind - 1]);
		if (key == '?')
			return refused(cmd, &t, argv[optind - 1]);
		for (size_t i = 0; cmd->opts[i].name; i++)
			if (cmd->opts[i].key == key)
				args->opt[i] = optarg ? optarg : "";
	}
	args->operand = argv + optind;
	args->noperands = argc - optind;
	if (args->noperands < cmd->min)
		return misused(cmd, "an operand is missing: ", cmd->operands);
	if (cmd->max >= 0 && args->noperands > cmd->max)
		return misused(cmd, "too many operands: ", args->operand[cmd->max]);
	return -1;
}

static int run(int argc, char **argv)
{
	const struct npkt_cmd *cmd = find(argv[0]);
	struct npkt_args args = {0};
	struct npk_err err;
	int status;

	if (!cmd)
		return NPKT_USAGE;
	npkt_say_as(cmd->name);
	status = parse(cmd, argc, argv, &args);
	if (status >= 0)
		return status;
	if (npk_guard_install(&err) != 0)
		return npkt_failed(&err);
	return cmd->run(&args);
}

static bool is(const char *word, const char *key, const char *name)
{
	return strcmp(word, key) == 0 || strcmp(word, name) == 0;
}

int main(int argc, char **argv)
{
	if (argc > 0 && npkt_is_umount_helper(argv[0])) {
		npkt_say_as("umount");
		return npkt_umount_helper(argc, argv);
	}
	if (argc < 2) {
		put_overview(stderr);
		return NPKT_USAGE;
	}
	if (is(argv[1], "-h", "--help")) {
		put_overview(stdout);
		return npkt_flush(NPKT_OK);
	}
	if (is(argv[1], "-V", "--version")) {
		printf("npk %s\n", npk_version());
		return npkt_flush(NPKT_OK);
	}
	return run(argc - 1, argv + 1);
}
