/* late.c - see late.h. */
#include "late.h"
#include "request.h"

#include <stdlib.h>
#include <time.h>

#define LATE_NS 1000000000

struct npkfs_late_reply {
	struct npkfs_request r;
	struct npkfs_late_reply *next;
	struct timespec since;
	bool replied; /* l->lock */
};

void npkfs_late_init(struct npkfs_late *l)
{
	l->first = NULL;
	pthread_mutex_init(&l->lock, NULL);
}

void npkfs_late_fini(struct npkfs_late *l)
{
	pthread_mutex_destroy(&l->lock);
}

static void reply(struct npkfs_request *r)
{
	fuse_reply_err(r->req, 0);
}

/* In the notify thread, which frees it: the queue holds a pointer. */
static void told(void *ctx)
{
	struct npkfs_late_reply *p = ctx, **q;
	struct npkfs_late *l = &p->r.s->late;

	pthread_mutex_lock(&l->lock);
	for (q = &l->first; *q != p;)
		q = &(*q)->next;
	*q = p->next;
	pthread_mutex_unlock(&l->lock);
	if (!p->replied)
		reply(&p->r);
	npkfs_request_end(&p->r);
	free(p);
}

void npkfs_late_done(struct npkfs_request *r)
{
	struct npkfs_late *l = &r->s->late;
	struct npkfs_late_reply *p = calloc(1, sizeof(*p));

	if (p == NULL) { /* then the kernel is told a moment later */
		reply(r);
		npkfs_request_end(r);
		return;
	}
	p->r = *r;
	clock_gettime(CLOCK_MONOTONIC, &p->since);
	pthread_mutex_lock(&l->lock);
	p->next = l->first;
	l->first = p;
	pthread_mutex_unlock(&l->lock);
	if (npkfs_inval_call(&r->s->inval, told, p) != 0)
		told(p);
}

static bool is_late(const struct npkfs_late_reply *p)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - p->since.tv_sec) * 1000000000 + now.tv_nsec - p->since.tv_nsec > LATE_NS;
}

/* Only the reply: told() ends the request. It may have to wait for this reply, and `req` ends with it. */
void npkfs_late_look(struct npkfs_session *s)
{
	struct npkfs_late_reply *p;
	fuse_req_t req;

	do {
		pthread_mutex_lock(&s->late.lock);
		for (p = s->late.first; p != NULL && (p->replied || !is_late(p));)
			p = p->next;
		req = p != NULL ? p->r.req : NULL;
		if (p != NULL)
			p->replied = true;
		pthread_mutex_unlock(&s->late.lock);
		if (req != NULL)
			fuse_reply_err(req, 0);
	} while (req != NULL);
}
