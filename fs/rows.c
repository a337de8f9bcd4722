/* rows.c - see rows.h. */
#include "rows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct list {
	int64_t *row;
	size_t n, cap, max;
};

static int add(struct list *l, int64_t row, struct npk_err *err)
{
	int64_t *more;

	if (l->n == l->max)
		return npk_fail(err, E2BIG, "more than %zu rows", l->max);
	if (l->n == l->cap) {
		more = realloc(l->row, (l->cap ? 2 * l->cap : 64) * sizeof(*more));
		if (more == NULL)
			return npk_fail(err, ENOMEM, "no memory for a list of rows");
		l->row = more;
		l->cap = l->cap ? 2 * l->cap : 64;
	}
	l->row[l->n++] = row;
	return 0;
}

/* A number at *p, which may be missing; false for one that does not end where it should. */
static bool number(const char **p, bool *there, int64_t *out)
{
	char *end;

	*there = **p == '-' || (**p >= '0' && **p <= '9');
	if (!*there)
		return true;
	errno = 0;
	*out = strtoll(*p, &end, 10);
	if (errno != 0 || end == *p || end[-1] == '-')
		return false;
	*p = end;
	return true;
}

static int64_t clip(int64_t i, int64_t n, int64_t low, int64_t high)
{
	if (i < 0)
		i = i + n < low ? low : i + n;
	return i > high ? high : i < low ? low : i;
}

static int add_slice(struct list *l, const bool there[3], const int64_t part[3], int64_t n, struct npk_err *err)
{
	int64_t step = there[2] ? part[2] : 1, first, stop;
	int rc = 0;

	if (step == 0)
		return npk_fail(err, EINVAL, "a slice with step 0");
	if (step > 0) {
		first = there[0] ? clip(part[0], n, 0, n) : 0;
		stop = there[1] ? clip(part[1], n, 0, n) : n;
		for (; first < stop && rc == 0; first = step > stop - first ? stop : first + step)
			rc = add(l, first, err);
	} else {
		first = there[0] ? clip(part[0], n, -1, n - 1) : n - 1;
		stop = there[1] ? clip(part[1], n, -1, n - 1) : -1;
		for (; first > stop && rc == 0; first = step < stop - first ? stop : first + step)
			rc = add(l, first, err);
	}
	return rc;
}

static int add_item(struct list *l, const char **p, int64_t n, struct npk_err *err)
{
	bool there[3] = {false, false, false};
	int64_t part[3] = {0, 0, 0};
	unsigned parts = 1;

	for (unsigned i = 0;; i++) {
		if (!number(p, &there[i], &part[i]))
			return npk_fail(err, EINVAL, "rows: not a number at '%.40s'", *p);
		if (**p != ':' || i == 2)
			break;
		parts++;
		(*p)++;
	}
	if (**p != '\0' && strchr(",+ \t", **p) == NULL)
		return npk_fail(err, EINVAL, "rows: no integer or slice at '%.40s'", *p);
	if (parts > 1)
		return add_slice(l, there, part, n, err);
	if (!there[0])
		return npk_fail(err, EINVAL, "rows: an integer or a slice is missing at '%.40s'", *p);
	if (part[0] < -n || part[0] >= n)
		return npk_fail(err, ERANGE, "row %lld of %lld", (long long)part[0], (long long)n);
	return add(l, part[0] < 0 ? part[0] + n : part[0], err);
}

int npkfs_rows_parse(const char *text, uint64_t nrows, size_t max, int64_t **out, size_t *n, struct npk_err *err)
{
	struct list l = {.max = max};
	const char *p = strcmp(text, "all") == 0 ? ":" : text;
	int rc = 0;

	do {
		p += strspn(p, " \t");
		rc = add_item(&l, &p, (int64_t)nrows, err);
		p += strspn(p, " \t");
		if (*p == ',' || *p == '+')
			p++;
		else if (*p == '\0')
			break;
	} while (rc == 0);
	if (rc != 0) {
		free(l.row);
		return rc;
	}
	*out = l.row;
	*n = l.n;
	return 0;
}
