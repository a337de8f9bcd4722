/* inode.c - the node table: two hash chains through each node, one lock, memory only. */
#include "inode.h"
#include "export.h"
#include "layout.h"
#include "space.h"
#include "staged.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_BUCKETS 256

int npkfs_inodes_init(struct npkfs_inodes *t, struct npk_err *err)
{
	memset(t, 0, sizeof(*t));
	t->by_id = calloc(FIRST_BUCKETS, sizeof(*t->by_id));
	t->by_key = calloc(FIRST_BUCKETS, sizeof(*t->by_key));
	if (t->by_id == NULL || t->by_key == NULL) {
		free(t->by_id);
		free(t->by_key);
		return npk_fail(err, ENOMEM, "no memory for the table of nodes");
	}
	t->nbuckets = FIRST_BUCKETS;
	t->next_id = NPKFS_ROOT_ID;
	pthread_mutex_init(&t->lock, NULL);
	return 0;
}

/* --- nodes -------------------------------------------------------------------------------------------------------- */

int npkfs_node_new(struct npkfs_node **out, const struct npkfs_key *key, struct npk_err *err)
{
	const char *sel = key->sel ? key->sel : "";
	size_t sel_len = strlen(sel);
	struct npkfs_node *node = calloc(1, sizeof(*node) + key->name_len + sel_len + 2);
	char *text;

	if (node == NULL)
		return npk_fail(err, ENOMEM, "no memory for a node");
	text = (char *)(node + 1);
	if (key->name_len != 0)
		memcpy(text, key->name, key->name_len);
	memcpy(text + key->name_len + 1, sel, sel_len + 1);
	node->name = text;
	node->name_len = key->name_len;
	node->sel = text + key->name_len + 1;
	node->type = key->type;
	node->control = key->control;
	node->space = npkfs_space_ref(key->space);
	atomic_init(&node->number, key->number);
	pthread_mutex_init(&node->lock, NULL);
	node->detail = key->detail;
	*out = node;
	return 0;
}

void npkfs_node_discard(struct npkfs_node *node)
{
	if (node == NULL)
		return;
	npk_view_close(atomic_load(&node->view));
	npkfs_export_put(node->export);
	npk_gen_put(node->gen);
	npkfs_layout_put(node->layout);
	npkfs_layout_put(node->shown);
	npkfs_staged_put(node->staged);
	npkfs_space_put(node->space);
	free(node->called);
	pthread_mutex_destroy(&node->lock);
	free(node);
}

void npkfs_inodes_fini(struct npkfs_inodes *t)
{
	struct npkfs_node *node, *next;

	if (t->by_id == NULL)
		return;
	for (size_t i = 0; i < t->nbuckets; i++)
		for (node = t->by_id[i]; node != NULL; node = next) {
			next = node->id_next;
			npkfs_node_discard(node);
		}
	free(t->by_id);
	free(t->by_key);
	pthread_mutex_destroy(&t->lock);
	memset(t, 0, sizeof(*t));
}

/* --- the table; all of these need the lock ------------------------------------------------------------------------ */

static uint64_t mix(uint64_t h, uint64_t x)
{
	h = (h ^ x) * 0x9e3779b97f4a7c15u;
	return h ^ h >> 29;
}

static uint64_t mix_bytes(uint64_t h, const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)p[i]) * 0x100000001b3u;
	return mix(h, len);
}

static uint64_t hash_key(const struct npkfs_key *key)
{
	uint64_t h = mix(mix(mix(mix(0, (uintptr_t)key->type), (uintptr_t)key->control), key->number), key->detail);

	h = mix(h, (uintptr_t)key->space);

	h = mix_bytes(h, key->name, key->name_len);
	return mix_bytes(h, key->sel ? key->sel : "", key->sel ? strlen(key->sel) : 0);
}

static bool has_key(const struct npkfs_node *node, const struct npkfs_key *key)
{
	return node->type == key->type && node->control == key->control && node->space == key->space &&
	       node->number == key->number && node->detail == key->detail && node->name_len == key->name_len &&
	       (key->name_len == 0 || memcmp(node->name, key->name, key->name_len) == 0) &&
	       strcmp(node->sel, key->sel ? key->sel : "") == 0;
}

static struct npkfs_node **id_slot(struct npkfs_inodes *t, uint64_t id)
{
	struct npkfs_node **p = &t->by_id[id & (t->nbuckets - 1)];

	while (*p != NULL && (*p)->id != id)
		p = &(*p)->id_next;
	return p;
}

static struct npkfs_node *find_key(struct npkfs_inodes *t, const struct npkfs_key *key, uint64_t hash)
{
	struct npkfs_node *node = t->by_key[hash & (t->nbuckets - 1)];

	while (node != NULL && (node->hash != hash || !has_key(node, key)))
		node = node->key_next;
	return node;
}

static void link_node(struct npkfs_inodes *t, struct npkfs_node *node)
{
	struct npkfs_node **p = &t->by_id[node->id & (t->nbuckets - 1)];

	node->id_next = *p;
	*p = node;
	p = &t->by_key[node->hash & (t->nbuckets - 1)];
	node->key_next = *p;
	*p = node;
}

/* Doubles the buckets. The chains stay correct when there is no memory for it, only longer. */
static void grow(struct npkfs_inodes *t)
{
	size_t old = t->nbuckets;
	struct npkfs_node **chains = t->by_id, **ids = calloc(2 * old, sizeof(*ids)), *node, *next;
	struct npkfs_node **keys = calloc(2 * old, sizeof(*keys));

	if (ids == NULL || keys == NULL) {
		free(ids);
		free(keys);
		return;
	}
	free(t->by_key);
	t->by_id = ids;
	t->by_key = keys;
	t->nbuckets = 2 * old;
	for (size_t i = 0; i < old; i++)
		for (node = chains[i]; node != NULL; node = next) {
			next = node->id_next;
			link_node(t, node);
		}
	free(chains);
}

/* Takes the node out when nobody refers to it any more; true: the caller discards it after unlocking. The root stays. */
static bool unlink_if_unused(struct npkfs_inodes *t, struct npkfs_node *node)
{
	struct npkfs_node **p;

	if (node->refs != 0 || node->nlookup != 0 || node->id == NPKFS_ROOT_ID)
		return false;
	p = id_slot(t, node->id);
	*p = node->id_next;
	for (p = &t->by_key[node->hash & (t->nbuckets - 1)]; *p != node;)
		p = &(*p)->key_next;
	*p = node->key_next;
	t->nnodes--;
	return true;
}

/* --- references ---------------------------------------------------------------------------------------------------- */

struct npkfs_node *npkfs_node_by_id(struct npkfs_inodes *t, uint64_t id)
{
	struct npkfs_node *node;

	pthread_mutex_lock(&t->lock);
	node = *id_slot(t, id);
	if (node != NULL)
		node->refs++;
	pthread_mutex_unlock(&t->lock);
	return node;
}

struct npkfs_node *npkfs_node_by_key(struct npkfs_inodes *t, const struct npkfs_key *key)
{
	uint64_t hash = hash_key(key);
	struct npkfs_node *node;

	pthread_mutex_lock(&t->lock);
	node = find_key(t, key, hash);
	if (node != NULL)
		node->refs++;
	pthread_mutex_unlock(&t->lock);
	return node;
}

struct npkfs_node *npkfs_node_ref(struct npkfs_inodes *t, struct npkfs_node *node)
{
	pthread_mutex_lock(&t->lock);
	node->refs++;
	pthread_mutex_unlock(&t->lock);
	return node;
}

void npkfs_node_put(struct npkfs_inodes *t, struct npkfs_node *node)
{
	bool unused;

	if (node == NULL)
		return;
	pthread_mutex_lock(&t->lock);
	assert(node->refs > 0);
	node->refs--;
	unused = unlink_if_unused(t, node);
	pthread_mutex_unlock(&t->lock);
	if (unused)
		npkfs_node_discard(node);
}

struct npkfs_node *npkfs_node_publish(struct npkfs_inodes *t, struct npkfs_node *node)
{
	struct npkfs_key key = {node->type, node->control, node->space, node->number, node->detail, node->name,
		node->name_len, node->sel};
	uint64_t hash = hash_key(&key);
	struct npkfs_node *first;

	pthread_mutex_lock(&t->lock);
	first = find_key(t, &key, hash);
	if (first == NULL) {
		if (t->nnodes >= t->nbuckets)
			grow(t);
		node->hash = hash;
		node->id = t->next_id++;
		link_node(t, node);
		t->nnodes++;
		first = node;
	}
	first->refs++;
	pthread_mutex_unlock(&t->lock);
	if (first != node)
		npkfs_node_discard(node);
	return first;
}

bool npkfs_node_rekey(struct npkfs_inodes *t, struct npkfs_node *node, uint64_t number)
{
	struct npkfs_key key = {
		node->type, node->control, node->space, number, node->detail, node->name, node->name_len, node->sel};
	uint64_t hash = hash_key(&key);
	struct npkfs_node **p;
	bool taken;

	pthread_mutex_lock(&t->lock);
	taken = find_key(t, &key, hash) != NULL;
	if (!taken) {
		for (p = &t->by_key[node->hash & (t->nbuckets - 1)]; *p != node;)
			p = &(*p)->key_next;
		*p = node->key_next;
		atomic_store(&node->number, number);
		node->hash = hash;
		p = &t->by_key[hash & (t->nbuckets - 1)];
		node->key_next = *p;
		*p = node;
	}
	pthread_mutex_unlock(&t->lock);
	return !taken;
}

int npkfs_nodes_of_type(struct npkfs_inodes *t, const struct npkfs_type *type,
	void (*fn)(void *ctx, struct npkfs_node *node), void *ctx)
{
	struct npkfs_node **list;
	size_t n = 0;

	pthread_mutex_lock(&t->lock);
	list = malloc((t->nnodes + 1) * sizeof(struct npkfs_node *));
	for (size_t i = 0; list != NULL && i < t->nbuckets; i++)
		for (struct npkfs_node *node = t->by_id[i]; node != NULL; node = node->id_next)
			if (node->type == type) {
				node->refs++;
				list[n++] = node;
			}
	pthread_mutex_unlock(&t->lock);
	if (list == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		fn(ctx, list[i]);
		npkfs_node_put(t, list[i]);
	}
	free(list);
	return 0;
}

void npkfs_node_remember(struct npkfs_inodes *t, struct npkfs_node *node)
{
	pthread_mutex_lock(&t->lock);
	node->nlookup++;
	pthread_mutex_unlock(&t->lock);
}

/* The kernel is trusted with its own counts, but not to the point of wrapping ours. */
void npkfs_node_forget(struct npkfs_inodes *t, uint64_t id, uint64_t n)
{
	struct npkfs_node *node;
	bool unused = false;

	pthread_mutex_lock(&t->lock);
	node = *id_slot(t, id);
	if (node != NULL) {
		node->nlookup -= n < node->nlookup ? n : node->nlookup;
		if (node->nlookup == 0)
			atomic_store(&node->known, false);
		unused = unlink_if_unused(t, node);
	}
	pthread_mutex_unlock(&t->lock);
	if (unused)
		npkfs_node_discard(node);
}

size_t npkfs_inodes_count(struct npkfs_inodes *t, const struct npkfs_type *type, size_t *of_type)
{
	size_t n;

	*of_type = 0;
	pthread_mutex_lock(&t->lock);
	n = t->nnodes;
	for (size_t i = 0; i < t->nbuckets; i++)
		for (const struct npkfs_node *node = t->by_id[i]; node != NULL; node = node->id_next)
			*of_type += node->type == type;
	pthread_mutex_unlock(&t->lock);
	return n;
}

int npkfs_nodes_each(struct npkfs_inodes *t, void (*fn)(void *ctx, uint64_t id), void *ctx)
{
	uint64_t *ids = NULL;
	size_t n = 0;

	pthread_mutex_lock(&t->lock);
	ids = malloc((t->nnodes + 1) * sizeof(*ids));
	for (size_t i = 0; ids != NULL && i < t->nbuckets; i++)
		for (struct npkfs_node *node = t->by_id[i]; node != NULL; node = node->id_next)
			ids[n++] = node->id;
	pthread_mutex_unlock(&t->lock);
	if (ids == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		fn(ctx, ids[i]);
	free(ids);
	return 0;
}
