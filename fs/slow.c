/* slow.c - see slow.h. */
#include "slow.h"
#include "out.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define THREADS_MAX 256 /* each of them answers a client that waits */
#define RUNNING_MAX 8
#define LOOK_NS 20000000 /* how soon a thread that waits for its turn notices an interrupt */

struct job {
	struct npkfs_slow *q;
	fuse_req_t req;
	npkfs_slow_fn *fn;
	void *ctx;
};

static __thread struct job *mine;

void npkfs_slow_init(struct npkfs_slow *q)
{
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->turn, NULL);
}

void npkfs_slow_fini(struct npkfs_slow *q)
{
	pthread_cond_destroy(&q->turn);
	pthread_mutex_destroy(&q->lock);
}

void npkfs_slow_stop(struct npkfs_slow *q)
{
	atomic_store(&q->stop, true);
	pthread_mutex_lock(&q->lock);
	while (q->threads > 0)
		pthread_cond_wait(&q->turn, &q->lock);
	pthread_mutex_unlock(&q->lock);
}

bool npkfs_slow_here(void)
{
	return mine != NULL;
}

bool npkfs_slow_cancelled(void)
{
	return mine != NULL && (atomic_load(&mine->q->stop) || fuse_req_interrupted(mine->req));
}

unsigned npkfs_slow_share(void)
{
	unsigned running, share;
	cpu_set_t ours;

	if (mine == NULL || sched_getaffinity(0, sizeof(ours), &ours) != 0)
		return 0;
	pthread_mutex_lock(&mine->q->lock);
	running = mine->q->running;
	pthread_mutex_unlock(&mine->q->lock);
	share = (unsigned)CPU_COUNT(&ours) / (running > 0 ? running : 1);
	return share > 0 ? share : 1;
}

/* Returns with the turn, or without it when the answer is not wanted any more: then the call ends at once. */
static bool wait_for_turn(struct npkfs_slow *q)
{
	struct timespec until;
	bool turn = false;

	pthread_mutex_lock(&q->lock);
	while (!turn) {
		turn = q->running < RUNNING_MAX;
		q->running += turn;
		if (turn || npkfs_slow_cancelled())
			break;
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += LOOK_NS;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&q->turn, &q->lock, &until);
	}
	pthread_mutex_unlock(&q->lock);
	return turn;
}

static void *job_main(void *arg)
{
	struct job job = *(struct job *)arg;
	bool turn;

	free(arg);
	mine = &job;
	turn = wait_for_turn(job.q);
	job.fn(job.ctx);
	mine = NULL;
	npkfs_out_thread_fini();
	pthread_mutex_lock(&job.q->lock);
	job.q->running -= turn;
	job.q->threads--;
	pthread_cond_broadcast(&job.q->turn);
	pthread_mutex_unlock(&job.q->lock);
	return NULL;
}

static int start_thread(struct job *job)
{
	pthread_attr_t attr;
	pthread_t thread;
	int rc = pthread_attr_init(&attr);

	if (rc != 0)
		return rc;
	rc = pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (rc == 0)
		rc = pthread_create(&thread, &attr, job_main, job);
	pthread_attr_destroy(&attr);
	return rc;
}

int npkfs_slow_start(struct npkfs_slow *q, fuse_req_t req, npkfs_slow_fn *fn, void *ctx, struct npk_err *err)
{
	struct job *job = malloc(sizeof(*job));
	bool room;
	int rc;

	if (job == NULL)
		return npk_fail(err, ENOMEM, "no memory for a long request");
	*job = (struct job){.q = q, .req = req, .fn = fn, .ctx = ctx};
	pthread_mutex_lock(&q->lock);
	room = q->threads < THREADS_MAX;
	q->threads += room;
	pthread_mutex_unlock(&q->lock);
	rc = room ? start_thread(job) : EAGAIN;
	if (rc == 0)
		return 0;
	free(job);
	if (room) {
		pthread_mutex_lock(&q->lock);
		q->threads--;
		pthread_cond_broadcast(&q->turn);
		pthread_mutex_unlock(&q->lock);
		return npk_fail(err, ENOMEM, "no thread for a long request: %s", strerror(rc));
	}
	return npk_fail(err, EAGAIN, "%d long requests wait already", THREADS_MAX);
}
