/* params.c - the table of named slices. */
#include "common/tensor/params.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"

static int grow(struct lwm_params *p)
{
	int64_t cap = p->cap ? 2 * p->cap : 64;
	struct lwm_param *list;

	if (p->n < p->cap)
		return 0;
	list = realloc(p->list, (size_t)cap * sizeof *list);
	if (!list)
		return -1;
	p->list = list;
	p->cap = cap;
	return 0;
}

struct lwm_param *lwm_params_add(struct lwm_params *p, const char *name, int64_t d0, int64_t d1, int64_t d2,
				 int64_t d3, struct lwm_err *e)
{
	int64_t d[4] = { d0, d1, d2, d3 }, count = 1;
	struct lwm_param *q;
	int ndim = 0;

	while (ndim < 4 && d[ndim] > 0) {
		if (lwm_mul(count, d[ndim++], &count)) {
			lwm_fail(e, LWM_ECONFIG, "%s: more elements than a 64-bit number counts", name);
			return NULL;
		}
	}
	if (!ndim || count > INT64_MAX / 16 - p->total || strlen(name) >= sizeof q->name) {
		lwm_fail(e, LWM_ECONFIG, "%s: tensor without elements, too large, or with too long a name", name);
		return NULL;
	}
	if (grow(p)) {
		lwm_fail(e, LWM_EMEMORY, "no memory for the table of %lld tensors", (long long)p->n + 1);
		return NULL;
	}
	q = &p->list[p->n++];
	memset(q, 0, sizeof *q);
	memcpy(q->name, name, strlen(name) + 1);
	memcpy(q->shape, d, (size_t)ndim * sizeof d[0]);
	q->ndim = ndim;
	q->offset = p->total;
	q->count = count;
	q->split_dim = -1;
	p->total += count;
	return q;
}

void lwm_params_release(struct lwm_params *p)
{
	free(p->list);
	memset(p, 0, sizeof *p);
}

const struct lwm_param *lwm_params_find(const struct lwm_params *p, const char *name)
{
	for (int64_t i = 0; i < p->n; i++)
		if (!strcmp(p->list[i].name, name))
			return &p->list[i];
	return NULL;
}

const struct lwm_param *lwm_params_at(const struct lwm_params *p, int64_t i)
{
	int64_t lo = 0, hi = p->n - 1;

	if (i < 0 || i >= p->total)
		return NULL;
	while (lo < hi) {
		int64_t mid = (lo + hi + 1) / 2;

		if (p->list[mid].offset <= i)
			lo = mid;
		else
			hi = mid - 1;
	}
	return &p->list[lo];
}

int lwm_params_runs(const struct lwm_params *p, int64_t first, int64_t n, lwm_params_run_fn *fn, void *arg,
		    struct lwm_err *e)
{
	const struct lwm_param *q = lwm_params_at(p, first), *end = p->list + p->n;
	int64_t last = first + n;

	while (q && q < end && first < last) {
		int decay = !(q->flags & LWM_PARAM_NO_DECAY);
		int64_t to;

		for (; q < end && decay == !(q->flags & LWM_PARAM_NO_DECAY); q++)
			;
		to = q < end && q->offset < last ? q->offset : last < p->total ? last : p->total;
		LWM_TRY(fn(arg, first, to - first, decay, e));
		first = to;
	}
	return 0;
}
