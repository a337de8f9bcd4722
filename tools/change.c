/* change.c - one run of npk as one change of a store. */
#include "tool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_SECONDS 2 /* a mount stays for long: no use in waiting longer, if nobody says so */

char *npkt_base_name(const char *path)
{
	size_t end = strlen(path), begin;

	while (end > 1 && path[end - 1] == '/')
		end--;
	for (begin = end; begin > 0 && path[begin - 1] != '/';)
		begin--;
	return strndup(path + begin, end - begin);
}

static int take_wait(const char *wait, unsigned *ms)
{
	char *end;
	double seconds = WAIT_SECONDS;

	if (wait)
		seconds = strtod(wait, &end);
	if (wait && (*wait < '0' || *wait > '9' || *end || !(seconds <= 86400))) {
		npkt_complain("--wait '%s' is not a number of seconds from 0 to 86400", wait);
		return NPKT_USAGE;
	}
	*ms = (unsigned)(seconds * 1000);
	return NPKT_OK;
}

int npkt_change_begin(struct npkt_change *c, const char *path, unsigned flags, const char *wait)
{
	struct npk_err err;
	unsigned ms = 0;
	int status = take_wait(wait, &ms), rc;

	*c = (struct npkt_change){.path = path};
	if (status != NPKT_OK)
		return status;
	rc = npk_store_open(&c->store, path, flags, &err);
	if (rc == 0) {
		npk_store_lock_timeout(c->store, ms);
		rc = npk_store_set_owner(c->store, "npk", &err);
	}
	if (rc == 0)
		rc = npk_txn_begin(&c->txn, c->store, &err);
	if (rc == 0) {
		c->s = npk_txn_store(c->txn);
		return NPKT_OK;
	}
	npk_store_close(c->store);
	return npkt_failed_store(path, &err);
}

int npkt_change_end(struct npkt_change *c, int rc, struct npk_err *err)
{
	if (rc == 0)
		rc = npk_txn_commit(c->txn, NULL, NULL, err);
	if (rc == 0) {
		rc = npk_store_finish(c->store, err);
	} else {
		npk_txn_abort(c->txn);
		npk_store_close(c->store);
	}
	*c = (struct npkt_change){.path = c->path};
	return rc ? npkt_failed_store(c->path, err) : NPKT_OK;
}

int npkt_change_each(const struct npkt_args *args, const char *wait,
	int (*one)(struct npk_store *s, const char *word, struct npk_err *err))
{
	struct npkt_change c;
	struct npk_err err;
	int rc = 0, status = npkt_change_begin(&c, args->operand[0], NPK_RDWR, wait);

	if (status != NPKT_OK)
		return status;
	if (args->noperands == 1)
		rc = one(c.s, NULL, &err);
	for (int i = 1; i < args->noperands && rc == 0; i++)
		rc = one(c.s, args->operand[i], &err);
	return npkt_change_end(&c, rc, &err);
}
