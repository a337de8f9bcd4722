/* metric.c - names of metrics, and which kernel type serves which dtype. */
#include "search.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct {
	const char *name;
	enum npk_metric metric;
} names[] = {
	/* the first name of each is the canonical one */
	{"cosine", NPK_COSINE},
	{"cos", NPK_COSINE},
	{"cosine_similarity", NPK_COSINE},
	{"dot", NPK_DOT},
	{"dot_product", NPK_DOT},
	{"dotproduct", NPK_DOT},
	{"inner", NPK_INNER},
	{"inner_product", NPK_INNER},
	{"l2", NPK_L2},
	{"euclidean", NPK_L2},
	{"l2_distance", NPK_L2},
	{"l2sq", NPK_L2SQ},
	{"l2_squared", NPK_L2SQ},
	{"squared_euclidean", NPK_L2SQ},
	{"hamming", NPK_HAMMING},
	{"jaccard", NPK_JACCARD},
	{"kl", NPK_KL},
	{"kl_divergence", NPK_KL},
	{"js", NPK_JS},
	{"js_divergence", NPK_JS},
};

#define NAMES (sizeof(names) / sizeof(names[0]))

int npk_metric_parse(const char *name, enum npk_metric *out, struct npk_err *err)
{
	for (size_t i = 0; i < NAMES; i++)
		if (strcasecmp(name, names[i].name) == 0) {
			*out = names[i].metric;
			return 0;
		}
	return npk_fail(err, EINVAL,
		"metric '%.40s' is unknown: it is one of cosine, dot, inner, l2, l2sq, hamming, jaccard, kl, js", name);
}

const char *npk_metric_name(enum npk_metric m)
{
	for (size_t i = 0; i < NAMES; i++)
		if (names[i].metric == m)
			return names[i].name;
	return NULL;
}

bool npk_metric_is_similarity(enum npk_metric m)
{
	return m <= NPK_INNER;
}

static enum npkv_metric kernel_metric(enum npk_metric m)
{
	static const enum npkv_metric map[NPK_METRIC_COUNT] = {[NPK_COSINE] = NPKV_COSINE,
		[NPK_DOT] = NPKV_DOT,
		[NPK_INNER] = NPKV_INNER,
		[NPK_L2] = NPKV_L2,
		[NPK_L2SQ] = NPKV_L2SQ,
		[NPK_HAMMING] = NPKV_HAMMING,
		[NPK_JACCARD] = NPKV_JACCARD,
		[NPK_KL] = NPKV_KL,
		[NPK_JS] = NPKV_JS};

	return map[m];
}

/* hamming and jaccard look at bits: bool has its own kernels there, for the rest it is a number. */
static int kernel_dtype(enum npk_metric m, unsigned dtype, enum npkv_dtype *out)
{
	bool bits = m == NPK_HAMMING || m == NPK_JACCARD;

	switch (dtype) {
	case NPK_F16:
		*out = NPKV_F16;
		return 0;
	case NPK_F32:
		*out = NPKV_F32;
		return 0;
	case NPK_I8:
		*out = NPKV_I8;
		return 0;
	case NPK_U8:
		*out = NPKV_U8;
		return 0;
	case NPK_BOOL:
		*out = bits ? NPKV_BOOL : NPKV_U8;
		return 0;
	case NPK_F64:
	case NPK_I16:
	case NPK_U16:
	case NPK_I32:
	case NPK_U32:
	case NPK_I64:
	case NPK_U64:
		*out = NPKV_F64;
		return dtype != NPK_F64 && (bits || m == NPK_KL || m == NPK_JS) ? -1 : 0;
	default:
		return -1;
	}
}

static struct npkv_ops ops;
static int ops_rc;
static unsigned ops_cpu;
static pthread_once_t ops_once = PTHREAD_ONCE_INIT;

static void choose_ops(void)
{
	ops_rc = npkv_cpu_from_env("NPKV_LEVEL", &ops_cpu);
	if (ops_rc == 0)
		npkv_init(&ops, ops_cpu);
}

int npki_kernels(const struct npkv_ops **out, struct npk_err *err)
{
	pthread_once(&ops_once, choose_ops);
	if (ops_rc != 0)
		return npk_fail(err, EINVAL, "NPKV_LEVEL=%.40s: %s", getenv("NPKV_LEVEL"),
			ops_rc == NPKV_ENV_LACKING ? "this CPU lacks that level"
						   : "not one of scalar, avx2, avx512, neon, sve");
	*out = &ops;
	return 0;
}

int npk_search_level(const char **used, const char **best, struct npk_err *err)
{
	const struct npkv_ops *unused;
	int rc = npki_kernels(&unused, err);

	if (best)
		*best = npkv_level_name(npkv_cpu());
	if (rc == 0 && used)
		*used = npkv_level_name(ops_cpu);
	return rc;
}

int npki_kind(enum npk_metric m, unsigned dtype, struct npki_kind *out, struct npk_err *err)
{
	if ((unsigned)m >= NPK_METRIC_COUNT)
		return npk_fail(err, EINVAL, "metric %d is unknown", (int)m);
	out->metric = kernel_metric(m);
	if (kernel_dtype(m, dtype, &out->dtype) != 0 || !npkv_supported(out->metric, out->dtype))
		return npk_fail(err, EINVAL, "metric '%s' is not for %s", npk_metric_name(m),
			npk_dtype_name(dtype) ? npk_dtype_name(dtype) : "this dtype");
	out->stored = dtype;
	out->convert = dtype == NPK_BOOL || (out->dtype == NPKV_F64 && dtype != NPK_F64);
	return npki_kernels(&out->ops, err);
}

#define WIDEN(TYPE)                                                                                                    \
	for (size_t i = 0; i < n; i++) {                                                                               \
		TYPE v;                                                                                                \
		memcpy(&v, from + i * sizeof(v), sizeof(v));                                                           \
		to[i] = (double)v;                                                                                     \
	}

void npki_convert(const struct npki_kind *k, const uint8_t *from, size_t n, void *out)
{
	double *to = out;
	uint8_t *bytes = out;

	switch (k->stored) {
	case NPK_BOOL: /* a byte that is neither 0 nor 1 reads as true */
		for (size_t i = 0; i < n; i++)
			bytes[i] = from[i] != 0;
		break;
	case NPK_I16:
		WIDEN(int16_t)
		break;
	case NPK_U16:
		WIDEN(uint16_t)
		break;
	case NPK_I32:
		WIDEN(int32_t)
		break;
	case NPK_U32:
		WIDEN(uint32_t)
		break;
	case NPK_I64:
		WIDEN(int64_t)
		break;
	case NPK_U64:
		WIDEN(uint64_t)
		break;
	default:
		memcpy(out, from, n * npk_dtype_size(k->stored));
	}
}
