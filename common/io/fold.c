/* fold.c - adapters added to what a checkpoint's matrices hold. */
#include "common/io/fold.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "common/tensor/adapter.h"

static bool has_adapters(const struct lwm_ckpt *c)
{
	for (int64_t i = 0; i < lwm_ckpt_count(c); i++)
		if (lwm_adapter_is_name(lwm_ckpt_tensor(c, i)->name))
			return true;
	return false;
}

int lwm_fold_open(struct lwm_fold *f, struct lwm_ckpt *c, struct lwm_err *e)
{
	const json_t *stage = json_object_get(lwm_ckpt_get_meta(c)->config, "stage");
	const json_t *rank = json_object_get(stage, "lora-rank"), *alpha = json_object_get(stage, "lora-alpha");

	*f = (struct lwm_fold){ .c = c, .any = has_adapters(c), .matrix = -1, .scale = 1 };
	if (!f->any)
		return 0;
	if (!json_is_integer(rank) || json_integer_value(rank) < 1 || !json_is_number(alpha))
		return lwm_fail(e, LWM_EDATA, "%s: holds adapters, and does not record what they are multiplied by", lwm_ckpt_path(c));
	struct lwm_adapters how = { .rank = json_integer_value(rank), .alpha = json_number_value(alpha) };
	f->scale = lwm_adapters_scale(&how);
	return 0;
}

void lwm_fold_close(struct lwm_fold *f)
{
	free(f->a);
	free(f->b);
	f->a = f->b = NULL;
	f->matrix = -1;
}

/* The adapter `suffix` of matrix i; -1: it has none. */
static int64_t find_adapter(const struct lwm_fold *f, int64_t i, const char *suffix, struct lwm_err *e)
{
	struct lwm_str name = { 0 };

	lwm_str_printf(&name, "%s%s", lwm_ckpt_tensor(f->c, i)->name, suffix);
	int64_t k = lwm_str_ok(&name, e) < 0 ? -LWM_EMEMORY : lwm_ckpt_find(f->c, lwm_str_get(&name));
	lwm_str_release(&name);
	return k;
}

static int read_adapters(struct lwm_fold *f, enum lwm_ckpt_group g, int64_t ia, int64_t ib, struct lwm_err *e)
{
	f->a = malloc((size_t)lwm_ckpt_size(f->c, ia) * sizeof *f->a);
	f->b = malloc((size_t)lwm_ckpt_size(f->c, ib) * sizeof *f->b);
	if (!f->a || !f->b)
		return lwm_fail_memory(e, "adapters");
	LWM_TRY(lwm_ckpt_read(f->c, g, ia, 0, lwm_ckpt_size(f->c, ia), f->a, e));
	return lwm_ckpt_read(f->c, g, ib, 0, lwm_ckpt_size(f->c, ib), f->b, e);
}

/* Makes those of matrix i the ones at hand; f->matrix stays -1 where it has none. */
static int take_adapters(struct lwm_fold *f, enum lwm_ckpt_group g, int64_t i, struct lwm_err *e)
{
	const struct lwm_tensor *w = lwm_ckpt_tensor(f->c, i), *a, *b;
	int64_t ia, ib;

	if (f->matrix == i && f->group == g)
		return 0;
	lwm_fold_close(f);
	if (!f->any || lwm_adapter_is_name(w->name))
		return 0;
	ia = find_adapter(f, i, LWM_ADAPTER_A, e);
	ib = find_adapter(f, i, LWM_ADAPTER_B, e);
	if (ia == -LWM_EMEMORY || ib == -LWM_EMEMORY)
		return -LWM_EMEMORY;
	if (ia < 0 && ib < 0)
		return 0;
	a = ia < 0 ? w : lwm_ckpt_tensor(f->c, ia);
	b = ib < 0 ? w : lwm_ckpt_tensor(f->c, ib);
	if (ia < 0 || ib < 0 || w->ndim != 2 || a->ndim != 2 || b->ndim != 2 || a->shape[1] != w->shape[1] ||
	    b->shape[0] != w->shape[0] || a->shape[0] != b->shape[1])
		return lwm_fail(e, LWM_EDATA, "%s: adapters that do not fit '%s'", lwm_ckpt_path(f->c), w->name);
	LWM_TRY(read_adapters(f, g, ia, ib, e));
	f->rank = a->shape[0];
	f->cols = a->shape[1];
	f->group = g;
	f->matrix = i;
	return 0;
}

int lwm_fold_read(struct lwm_fold *f, enum lwm_ckpt_group g, int64_t i, int64_t offset, int64_t n, float *out, struct lwm_err *e)
{
	LWM_TRY(lwm_ckpt_read(f->c, g, i, offset, n, out, e));
	LWM_TRY(take_adapters(f, g, i, e));
	for (int64_t k = 0; f->matrix == i && k < n; k++) {
		const float *b = f->b + (offset + k) / f->cols * f->rank, *a = f->a + (offset + k) % f->cols;
		double sum = 0;

		for (int64_t r = 0; r < f->rank; r++)
			sum += (double)b[r] * (double)a[r * f->cols];
		out[k] = (float)((double)out[k] + f->scale * sum);
	}
	return 0;
}
