/* config_file.c - see config_file.h. The syntax is libinih's, with three things added around it: line numbers, section
 * names of any length (inih cuts them at 49 bytes, too short for paths), and " # ..." at the end of a value, so that
 * the text of .numpack/config is a valid file. */
#include "config_file.h"
#include "settings.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reading {
	struct npkfs_config *c;
	const char *path;
	FILE *file;
	bool for_store; /* the pass that applies the section of the store */
	unsigned line;
	char section[PATH_MAX];
	bool failed;
	struct npk_err *err;
};

static int fail(struct reading *r, const char *why)
{
	if (!r->failed)
		npk_fail(r->err, EINVAL, "%s:%u: %s", r->path, r->line, why);
	r->failed = true;
	return 0;
}

/* Keeps the name between [ and ]. */
static void note_section(struct reading *r, const char *text)
{
	const char *end = strchr(text, ']');

	if (end == NULL)
		return; /* inih complains */
	if ((size_t)(end - text) > sizeof r->section)
		fail(r, "the section's name is too long");
	else
		snprintf(r->section, sizeof r->section, "%.*s", (int)(end - text - 1), text + 1);
}

/* Gives inih the next line without its indentation, which would make it a continuation of the line before, and with
 * a short stand-in for a section's name. */
static char *next_line(char *out, int size, void *stream)
{
	struct reading *r = stream;
	char *line = NULL, *text;
	size_t cap = 0;
	ssize_t len = r->failed ? -1 : getline(&line, &cap, r->file);

	if (len < 0) {
		free(line);
		return NULL;
	}
	r->line++;
	for (text = line; isspace((unsigned char)*text); text++)
		;
	if (*text == '[' && strchr(text, ']') != NULL) {
		note_section(r, text);
		snprintf(out, (size_t)size, "[s]\n");
	} else if (*text == '#' || *text == ';') {
		snprintf(out, (size_t)size, "\n");
	} else if (strlen(text) >= (size_t)size - 2 || strlen(line) != (size_t)len) {
		fail(r, "the line is too long or holds a NUL byte");
	} else {
		memcpy(out, text, strlen(text) + 1);
	}
	free(line);
	return r->failed ? NULL : out;
}

static int setting(void *ctx, const char *section, const char *name, const char *value)
{
	struct reading *r = ctx;
	bool of_store = r->section[0] == '/';
	char origin[PATH_MAX + 16], copy[PATH_MAX];
	char *comment;

	(void)section;
	if (!of_store && r->section[0] != '\0' && strcmp(r->section, "mount") != 0)
		return fail(r, "unknown section: only [mount] and [/path/of/a/store] are known");
	if (of_store != r->for_store || (of_store && strcmp(r->section, r->c->store) != 0))
		return 1;
	snprintf(copy, sizeof copy, "%s", value);
	comment = strstr(copy, " #");
	if (comment != NULL) {
		while (comment > copy && isspace((unsigned char)comment[-1]))
			comment--;
		*comment = '\0';
	}
	snprintf(origin, sizeof origin, "%s:%u", r->path, r->line);
	if (!r->failed && npkfs_setting_assign(r->c, name, copy, origin, r->err) != 0)
		r->failed = true;
	return !r->failed;
}

static int pass(struct reading *r)
{
	int line;

	r->line = 0;
	r->section[0] = '\0';
	rewind(r->file);
	line = ini_parse_stream(next_line, r, setting, r);
	if (!r->failed && line > 0) {
		r->line = (unsigned)line;
		fail(r, "neither a [section] nor name = value");
	}
	return r->failed || line < 0 ? -EINVAL : 0;
}

int npkfs_config_file(struct npkfs_config *c, const char *path, struct npk_err *err)
{
	struct reading r = {.c = c, .path = path, .err = err};
	int rc;

	r.file = fopen(path, "re");
	if (r.file == NULL && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	if (r.file == NULL)
		return npk_fail(err, EINVAL, "%s: %s", path, strerror(errno));
	rc = pass(&r);
	if (rc == 0) {
		r.for_store = true;
		rc = pass(&r);
	}
	fclose(r.file);
	return rc;
}
