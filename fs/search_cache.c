/* search_cache.c - the answers of search.d that were asked for last, newest first. */
#include "search.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct entry {
	struct entry *next;
	struct npkfs_search *search;
	uint64_t generation, content;
	char sel[];
};

struct npkfs_search_cache {
	pthread_mutex_t lock; /* memory only; the last reference of a search is given back without it */
	struct entry *first;  /* lock */
	uint64_t max;
};

int npkfs_search_cache_open(struct npkfs_search_cache **out, uint64_t max, struct npk_err *err)
{
	struct npkfs_search_cache *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return npk_fail(err, ENOMEM, "no memory for a cache");
	pthread_mutex_init(&c->lock, NULL);
	c->max = max;
	*out = c;
	return 0;
}

static void free_entries(struct entry *e)
{
	struct entry *next;

	for (; e != NULL; e = next) {
		next = e->next;
		npkfs_search_put(e->search);
		free(e);
	}
}

void npkfs_search_cache_close(struct npkfs_search_cache *c)
{
	if (c == NULL)
		return;
	free_entries(c->first);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

/* The one of that key, moved to the front. Needs the lock. */
static struct entry *find(struct npkfs_search_cache *c, uint64_t generation, uint64_t content, const char *sel)
{
	for (struct entry **at = &c->first, *e; (e = *at) != NULL; at = &e->next)
		if (e->generation == generation && e->content == content && strcmp(e->sel, sel) == 0) {
			*at = e->next;
			e->next = c->first;
			c->first = e;
			return e;
		}
	return NULL;
}

struct npkfs_search *npkfs_search_cache_get(
	struct npkfs_search_cache *c, uint64_t generation, uint64_t content, const char *sel)
{
	struct npkfs_search *q = NULL;
	struct entry *e;

	pthread_mutex_lock(&c->lock);
	e = find(c, generation, content, sel);
	if (e != NULL)
		q = npkfs_search_ref(e->search);
	pthread_mutex_unlock(&c->lock);
	return q;
}

/* Takes off what is too much; the first one stays. Needs the lock. */
static struct entry *cut(struct npkfs_search_cache *c)
{
	struct entry *rest = NULL;
	uint64_t bytes = 0, size;
	unsigned n = 0;

	for (struct entry **at = &c->first; *at != NULL; at = &(*at)->next) {
		bytes += npkfs_search_size((*at)->search, &size) ? size : 0;
		if (n++ > 0 && (n > NPKFS_SEARCH_KEPT || bytes > c->max)) {
			rest = *at;
			*at = NULL;
			break;
		}
	}
	return rest;
}

struct npkfs_search *npkfs_search_cache_put(
	struct npkfs_search_cache *c, uint64_t generation, uint64_t content, const char *sel, struct npkfs_search *q)
{
	struct entry *e = malloc(sizeof(*e) + strlen(sel) + 1), *rest = NULL, *there;

	if (e == NULL)
		return q;
	*e = (struct entry){.search = q, .generation = generation, .content = content};
	strcpy(e->sel, sel);
	pthread_mutex_lock(&c->lock);
	there = find(c, generation, content, sel);
	if (there == NULL) {
		e->next = c->first;
		c->first = there = e;
		e = NULL;
		rest = cut(c);
	}
	q = npkfs_search_ref(there->search);
	pthread_mutex_unlock(&c->lock);
	free_entries(rest);
	free_entries(e);
	return q;
}

void npkfs_search_cache_drop(struct npkfs_search_cache *c, const struct npkfs_search *q)
{
	struct entry *e = NULL;

	pthread_mutex_lock(&c->lock);
	for (struct entry **at = &c->first; *at != NULL && e == NULL;)
		if ((*at)->search == q) {
			e = *at;
			*at = e->next;
			e->next = NULL;
		} else {
			at = &(*at)->next;
		}
	pthread_mutex_unlock(&c->lock);
	free_entries(e);
}
