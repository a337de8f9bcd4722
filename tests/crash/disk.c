/* disk.c - see disk.h. */
#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct call {
	enum npki_io_op op;
	char *path, *to;
	uint64_t ino, off, len;
	uint8_t *bytes;
};

struct disk {
	struct call *call;
	size_t n;
	enum disk_bug bug;
	size_t fail_in; /* so many calls from now; only with fail_code */
	int fail_code, lasting;
	int failed, failed_op;
	char failed_path[256];
};

static void add(struct disk *d, const struct npki_io_call *c)
{
	struct call *k;

	d->call = realloc(d->call, (d->n + 1) * sizeof(*d->call));
	k = &d->call[d->n++];
	*k = (struct call){
		c->op, c->path ? strdup(c->path) : NULL, c->to ? strdup(c->to) : NULL, c->ino, c->off, c->len, NULL};
	if (c->bytes) {
		k->bytes = malloc(c->len + 1);
		memcpy(k->bytes, c->bytes, c->len);
	}
}

/* --- planted bugs ----------------------------------------------------------------------------------------------------- */

static int ends(const char *path, const char *end)
{
	size_t n = strlen(path), m = strlen(end);

	return n >= m && strcmp(path + n - m, end) == 0;
}

/* The last file that got this name, SIZE_MAX when there is none. */
static size_t made_as(const struct disk *d, const char *path)
{
	for (size_t i = d->n; i-- > 0;)
		if ((d->call[i].op == NPKI_IO_CREATE && strcmp(d->call[i].path, path) == 0) ||
			(d->call[i].op == NPKI_IO_RENAME && strcmp(d->call[i].to, path) == 0))
			return d->call[i].op == NPKI_IO_CREATE
				       ? i
				       : made_as(&(struct disk){.call = d->call, .n = i}, d->call[i].path);
	return SIZE_MAX;
}

/* Writes what `from` holds over the file `to`, instead of the rename. */
static int record_in_place(struct disk *d, const struct npki_io_call *c)
{
	size_t from = made_as(d, c->path), to = made_as(d, c->to);

	if (from == SIZE_MAX || to == SIZE_MAX)
		return 0;
	add(d, &(struct npki_io_call){NPKI_IO_TRUNCATE, c->to, NULL, d->call[to].ino, 0, 0, NULL});
	for (size_t i = from; i < d->n; i++)
		if (d->call[i].op == NPKI_IO_WRITE && d->call[i].ino == d->call[from].ino)
			add(d, &(struct npki_io_call){NPKI_IO_WRITE, c->to, NULL, d->call[to].ino, d->call[i].off,
				       d->call[i].len, d->call[i].bytes});
	add(d, &(struct npki_io_call){NPKI_IO_SYNC, c->to, NULL, d->call[to].ino, 0, 0, NULL});
	add(d, &(struct npki_io_call){NPKI_IO_UNLINK, c->path, NULL, 0, 0, 0, NULL});
	return 1;
}

/* Moves the rename that was recorded last to just behind the temp image's last write. */
static void move_early(struct disk *d, const struct npki_io_call *c)
{
	struct call last = d->call[d->n - 1];
	size_t from = made_as(&(struct disk){.call = d->call, .n = d->n - 1}, c->path), to = SIZE_MAX;

	for (size_t i = from == SIZE_MAX ? d->n : from; i < d->n - 1; i++)
		if (d->call[i].op == NPKI_IO_WRITE && d->call[i].ino == d->call[from].ino)
			to = i + 1;
	if (to == SIZE_MAX)
		return;
	memmove(d->call + to + 1, d->call + to, (d->n - 1 - to) * sizeof(*d->call));
	d->call[to] = last;
}

static int plant(struct disk *d, const struct npki_io_call *c)
{
	switch (d->bug) {
	case DISK_IMAGES_NOT_SYNCED:
		return c->op == NPKI_IO_SYNC && ends(c->path, ".tmp");
	case DISK_DATA_NOT_SYNCED:
		return c->op == NPKI_IO_SYNC && ends(c->path, ".npkd");
	case DISK_WRITTEN_IN_PLACE:
		return c->op == NPKI_IO_RENAME && (ends(c->to, ".npkm") || ends(c->to, ".npkb")) &&
		       record_in_place(d, c);
	case DISK_METADATA_EARLY:
		if (c->op != NPKI_IO_RENAME || !ends(c->to, ".npkm"))
			return 0;
		add(d, c);
		move_early(d, c);
		return 1;
	default:
		return 0;
	}
}

void disk_plant(struct disk *d, enum disk_bug bug)
{
	d->bug = bug;
}

/* --- recording -------------------------------------------------------------------------------------------------------- */

static int record(void *ctx, const struct npki_io_call *c)
{
	struct disk *d = ctx;

	if (d->fail_code && (d->fail_in == 0 || (d->failed && d->lasting))) {
		if (!d->failed) {
			d->failed_op = (int)c->op;
			snprintf(d->failed_path, sizeof(d->failed_path), "%s", c->path);
		}
		d->failed = 1;
		if (!d->lasting)
			d->fail_in = SIZE_MAX;
		return d->fail_code;
	}
	d->fail_in--;
	if (!plant(d, c))
		add(d, c);
	return 0;
}

void disk_fail(struct disk *d, size_t nth, int code, int lasting)
{
	d->fail_in = nth;
	d->fail_code = code;
	d->lasting = lasting;
	if (code)
		d->failed = 0;
}

int disk_failed(const struct disk *d, int *op, const char **path)
{
	*op = d->failed_op;
	*path = d->failed_path;
	return d->failed;
}

struct disk *disk_new(void)
{
	return calloc(1, sizeof(struct disk));
}

void disk_free(struct disk *d)
{
	for (size_t i = 0; i < d->n; i++) {
		free(d->call[i].path);
		free(d->call[i].to);
		free(d->call[i].bytes);
	}
	free(d->call);
	free(d);
}

void disk_record(struct disk *d)
{
	npki_io_set_hook(&(struct npki_io_hook){record, d, NULL});
}

void disk_stop(void)
{
	npki_io_set_hook(NULL);
}

size_t disk_length(const struct disk *d)
{
	return d->n;
}

static uint64_t next(uint64_t *state)
{
	uint64_t z = *state += 0x9E3779B97F4A7C15u;

	z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
	z = (z ^ z >> 27) * 0x94D049BB133111EBu;
	return z ^ z >> 31;
}

#define FILES 4096
#define NAMES 1024

struct inode {
	uint64_t ino;
	size_t born; /* the call that made it: an inode number may come again */
	uint8_t *bytes;
	uint64_t len;
};

struct entry {
	char *name;
	struct inode *inode;
};

struct state {
	struct inode inode[FILES];
	size_t ninodes;
	struct entry entry[NAMES];
	size_t nentries;
};

static struct inode *find_inode(struct state *s, uint64_t ino)
{
	for (size_t i = s->ninodes; i-- > 0;)
		if (s->inode[i].ino == ino)
			return &s->inode[i];
	return NULL;
}

static struct entry *find_name(struct state *s, const char *name)
{
	for (size_t i = 0; i < s->nentries; i++)
		if (strcmp(s->entry[i].name, name) == 0)
			return &s->entry[i];
	return NULL;
}

static void set_length(struct inode *f, uint64_t len)
{
	f->bytes = realloc(f->bytes, len + 1);
	if (len > f->len)
		memset(f->bytes + f->len, 0, len - f->len);
	f->len = len;
}

static void apply_data(struct inode *f, const struct call *c)
{
	if (c->op == NPKI_IO_TRUNCATE) {
		set_length(f, c->len);
		return;
	}
	if (c->off + c->len > f->len)
		set_length(f, c->off + c->len);
	memcpy(f->bytes + c->off, c->bytes, c->len);
}

static void put_name(struct state *s, const char *name, struct inode *f)
{
	struct entry *e = find_name(s, name);

	if (!e) {
		if (s->nentries == NAMES)
			abort();
		e = &s->entry[s->nentries++];
		e->name = strdup(name);
	}
	e->inode = f;
}

static void del_name(struct state *s, const char *name)
{
	struct entry *e = find_name(s, name);

	if (!e)
		return;
	free(e->name);
	*e = s->entry[--s->nentries];
}

static void apply_name(struct state *s, const struct call *c, size_t at)
{
	struct entry *e = find_name(s, c->path);

	switch (c->op) {
	case NPKI_IO_CREATE:
		for (size_t i = 0; i < s->ninodes; i++)
			if (s->inode[i].born == at)
				put_name(s, c->path, &s->inode[i]);
		break;
	case NPKI_IO_RENAME:
		if (e) {
			struct inode *f = e->inode;

			if (find_name(s, c->to) && find_name(s, c->to)->inode == f)
				break; /* two links of one file: nothing happens */
			del_name(s, c->path);
			put_name(s, c->to, f);
		}
		break;
	case NPKI_IO_LINK:
		if (e)
			put_name(s, c->to, e->inode);
		break;
	case NPKI_IO_UNLINK:
		del_name(s, c->path);
		break;
	default:
		break;
	}
}

static int is_name_op(const struct call *c)
{
	return c->op == NPKI_IO_CREATE || c->op == NPKI_IO_RENAME || c->op == NPKI_IO_LINK || c->op == NPKI_IO_UNLINK;
}

/* Whether a data change is covered by a later sync of its inode. */
static int is_synced(const struct disk *d, size_t i, size_t calls)
{
	for (size_t k = i + 1; k < calls; k++) {
		if (d->call[k].op == NPKI_IO_SYNC && d->call[k].ino == d->call[i].ino)
			return 1;
		if (d->call[k].op == NPKI_IO_CREATE && d->call[k].ino == d->call[i].ino)
			return 0; /* the number belongs to another file now */
	}
	return 0;
}

static int keep(enum disk_policy policy, uint64_t *rnd)
{
	return policy == DISK_ALL || (policy != DISK_NONE && next(rnd) % 2);
}

/* The calls whose effect is there. */
static void choose(const struct disk *d, size_t calls, enum disk_policy policy, uint64_t seed, uint8_t *there)
{
	size_t names = 0; /* name changes before this one are durable */
	uint64_t rnd = seed;
	size_t stop = policy == DISK_PREFIX ? (calls ? next(&rnd) % (calls + 1) : 0) : calls;
	size_t name_stop;

	for (size_t i = 0; i < calls; i++)
		if (d->call[i].op == NPKI_IO_SYNC_DIR)
			names = i;
	name_stop = policy == DISK_NONE ? names : policy == DISK_ALL ? calls : names + next(&rnd) % (calls - names + 1);
	for (size_t i = 0; i < calls; i++) {
		if (is_name_op(&d->call[i]))
			there[i] = i < names || i < name_stop;
		else if (policy == DISK_PREFIX)
			there[i] = i < stop || is_synced(d, i, calls);
		else
			there[i] = is_synced(d, i, calls) || keep(policy, &rnd);
	}
}

static int write_out(struct state *s, const char *path)
{
	char name[8192];
	int fd, rc = mkdir(path, 0777) == 0 ? 0 : -errno;

	for (size_t i = 0; i < s->nentries && rc == 0; i++) {
		snprintf(name, sizeof(name), "%s/%s", path, s->entry[i].name);
		fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0666);
		if (fd < 0 ||
			write(fd, s->entry[i].inode->bytes, s->entry[i].inode->len) != (ssize_t)s->entry[i].inode->len)
			rc = -errno;
		if (fd >= 0)
			close(fd);
	}
	return rc;
}

void disk_print(const struct disk *d, size_t from, size_t calls)
{
	static const char *const ops[] = {
		"create", "write", "truncate", "sync", "sync_dir", "rename", "link", "unlink"};

	for (size_t i = from; i < calls; i++)
		fprintf(stderr, "%4zu %-8s %s %s ino %llu off %llu len %llu\n", i, ops[d->call[i].op], d->call[i].path,
			d->call[i].to ? d->call[i].to : "", (unsigned long long)d->call[i].ino % 10000,
			(unsigned long long)d->call[i].off, (unsigned long long)d->call[i].len);
}

int disk_cut(const struct disk *d, size_t calls, enum disk_policy policy, uint64_t seed, const char *path)
{
	struct state *s = calloc(1, sizeof(*s));
	uint8_t *there = calloc(calls + 1, 1);
	int rc;

	choose(d, calls, policy, seed, there);
	for (size_t i = 0; i < calls; i++) {
		const struct call *c = &d->call[i];
		struct inode *f;

		if (c->op == NPKI_IO_CREATE) {
			if (s->ninodes == FILES)
				abort();
			s->inode[s->ninodes++] = (struct inode){c->ino, i, calloc(1, 1), 0};
		}
		f = find_inode(s, c->ino);
		if ((c->op == NPKI_IO_WRITE || c->op == NPKI_IO_TRUNCATE) && f && there[i])
			apply_data(f, c);
		if (is_name_op(c) && there[i])
			apply_name(s, c, i);
	}
	rc = write_out(s, path);
	for (size_t i = 0; i < s->ninodes; i++)
		free(s->inode[i].bytes);
	for (size_t i = 0; i < s->nentries; i++)
		free(s->entry[i].name);
	free(s);
	free(there);
	return rc;
}
