/* tensor.c - the table of a model's tensors. */
#include "common/tensor/tensor.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"

int64_t lwm_tensor_size(const struct lwm_tensor *t)
{
	int64_t n = 1;

	if (t->ndim < 0 || t->ndim > LWM_TENSOR_DIMS)
		return -1;
	for (int i = 0; i < t->ndim; i++)
		if (t->shape[i] < 1 || lwm_mul(n, t->shape[i], &n))
			return -1;
	return n > INT64_MAX / 64 ? -1 : n;
}

bool lwm_tensor_same_shape(const struct lwm_tensor *a, const struct lwm_tensor *b)
{
	return a->ndim == b->ndim && !memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape);
}

static int grow_list(struct lwm_tensors *p)
{
	int64_t cap = p->cap ? 2 * p->cap : 64;
	struct lwm_tensor *list;

	if (p->n < p->cap)
		return 0;
	list = realloc(p->list, (size_t)cap * sizeof *list);
	if (!list)
		return -1;
	p->list = list;
	p->cap = cap;
	return 0;
}

int lwm_tensors_add(struct lwm_tensors *p, const struct lwm_tensor *t, struct lwm_err *e)
{
	int64_t count = lwm_tensor_size(t), align = p->align > 1 ? p->align : 1;
	struct lwm_tensor *q;
	char *name;

	if (count < 0 || count > INT64_MAX / 16 - align - p->total)
		return lwm_fail(e, LWM_ECONFIG, "%s: a tensor of no usable shape, or too large", t->name);
	name = strdup(t->name);
	if (!name || grow_list(p)) {
		free(name);
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a table of tensors");
	}
	q = &p->list[p->n++];
	*q = *t;
	q->name = name;
	memset(q->shape + q->ndim, 0, (size_t)(LWM_TENSOR_DIMS - q->ndim) * sizeof *q->shape);
	q->offset = p->total;
	q->count = count;
	p->total += (count + align - 1) / align * align;
	p->params += count;
	return 0;
}

void lwm_tensors_release(struct lwm_tensors *p)
{
	for (int64_t i = 0; i < p->n; i++)
		free((char *)(uintptr_t)p->list[i].name);
	free(p->list);
	memset(p, 0, sizeof *p);
}

const struct lwm_tensor *lwm_tensors_find(const struct lwm_tensors *p, const char *name)
{
	for (int64_t i = 0; i < p->n; i++)
		if (!strcmp(p->list[i].name, name))
			return &p->list[i];
	return NULL;
}

bool lwm_tensors_have(const struct lwm_tensors *p, enum lwm_role role)
{
	for (int64_t i = 0; i < p->n; i++)
		if (p->list[i].role == role)
			return true;
	return false;
}

bool lwm_tensors_want(const struct lwm_tensors *p, int64_t first, int64_t n)
{
	for (int64_t i = 0; p && i < p->n && p->list[i].offset < first + n; i++)
		if (p->list[i].offset + p->list[i].count > first && (p->list[i].trainable || p->list[i].adapted))
			return true;
	return !p;
}

const struct lwm_tensor *lwm_tensors_at(const struct lwm_tensors *p, int64_t i)
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
	return i < p->list[lo].offset + p->list[lo].count ? &p->list[lo] : NULL;
}

struct lwm_group lwm_tensors_group(const struct lwm_tensors *p, int64_t index)
{
	struct lwm_group g = { index, 0, 0 };
	int64_t i = 0;

	while (i < p->n && p->list[i].group != index)
		i++;
	if (i == p->n)
		return g;
	g.offset = p->list[i].offset;
	while (i < p->n && p->list[i].group == index)
		i++;
	g.count = (i < p->n ? p->list[i].offset : p->total) - g.offset;
	return g;
}

bool lwm_tensor_is_beside(const char *name)
{
	return !strncmp(name, "discriminator.", 14) || !strncmp(name, "momentum.", 9);
}
