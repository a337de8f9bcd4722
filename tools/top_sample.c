/* top_sample.c - see top_sample.h. */
#include "top_sample.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PREFIX "numpackfs_"

/* NAME VALUE, or NAME{LABEL="TEXT"} VALUE. */
static bool parse_line(struct npkt_number *m, char *line)
{
	char *brace = strchr(line, '{'), *blank = strrchr(line, ' '), *text = NULL, *end;

	if (strncmp(line, PREFIX, strlen(PREFIX)) != 0 || !blank || (brace && brace > blank))
		return false;
	*blank = 0;
	if (brace) {
		*brace = 0;
		text = strchr(brace + 1, '"');
		end = text ? strchr(text + 1, '"') : NULL;
		if (!end)
			return false;
		*end = 0;
		text++;
	}
	line += strlen(PREFIX);
	if (strlen(line) >= sizeof(m->name) || (text && strlen(text) >= sizeof(m->label)))
		return false;
	strcpy(m->name, line);
	strcpy(m->label, text ? text : "");
	m->value = strtod(blank + 1, &end);
	return end != blank + 1 && (*end == 0 || *end == '\n') && isfinite(m->value);
}

int npkt_sample_read(struct npkt_sample *s, const char *mountpoint, struct npk_err *err)
{
	char path[NPKT_PATH_MAX + 32], *line = NULL;
	struct timespec now;
	size_t cap = 0;
	FILE *f;
	int rc = 0;

	snprintf(path, sizeof(path), "%s/.numpack/metrics", mountpoint);
	f = fopen(path, "re");
	if (!f)
		return npk_fail(err, errno, "%.400s: %s", path, strerror(errno));
	clock_gettime(CLOCK_MONOTONIC, &now);
	s->seconds = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
	s->n = 0;
	while (rc == 0 && getline(&line, &cap, f) > 0) {
		if (line[0] == '#')
			continue;
		if (s->n == NPKT_SAMPLE_MAX)
			rc = npk_fail(err, EINVAL, "%.400s: has more than %d numbers", path, NPKT_SAMPLE_MAX);
		else if (!parse_line(&s->number[s->n++], line))
			rc = npk_fail(err, EINVAL, "%.400s: number %zu is none: %.60s", path, s->n, line);
	}
	if (rc == 0 && ferror(f))
		rc = npk_fail(err, errno, "%.400s: %s", path, strerror(errno));
	if (rc == 0 && s->n == 0)
		rc = npk_fail(err, EINVAL, "%.400s: is empty", path);
	free(line);
	fclose(f);
	return rc;
}

double npkt_sample_value(const struct npkt_sample *s, const char *name, const char *label)
{
	for (size_t i = 0; i < s->n; i++)
		if (strcmp(s->number[i].name, name) == 0 && strcmp(s->number[i].label, label) == 0)
			return s->number[i].value;
	return 0;
}

double npkt_sample_growth(
	const struct npkt_sample *before, const struct npkt_sample *now, const char *name, const char *label)
{
	double then = before ? npkt_sample_value(before, name, label) : 0, value = npkt_sample_value(now, name, label);

	return value < then ? value : value - then;
}

double npkt_sample_mean_us(const struct npkt_sample *before, const struct npkt_sample *now)
{
	double n = npkt_sample_growth(before, now, "read_duration_seconds_count", "");

	return n > 0 ? npkt_sample_growth(before, now, "read_duration_seconds_sum", "") / n * 1e6 : -1;
}

/* The buckets are cumulative, in the file's order. */
double npkt_sample_bound_us(const struct npkt_sample *before, const struct npkt_sample *now, double share)
{
	double n = npkt_sample_growth(before, now, "read_duration_seconds_bucket", "+Inf");

	for (size_t i = 0; i < now->n && n > 0; i++) {
		const struct npkt_number *m = &now->number[i];

		if (strcmp(m->name, "read_duration_seconds_bucket") == 0 &&
			npkt_sample_growth(before, now, m->name, m->label) >= share * n)
			return strtod(m->label, NULL) * 1e6; /* "+Inf" is infinity */
	}
	return -1;
}
