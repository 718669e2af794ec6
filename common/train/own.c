/* own.c - from what a rank owns of its local vector to elements of the whole tensors. */
#include "common/train/own.h"

#include <stdlib.h>
#include <string.h>

enum { STRETCH = 1 << 20 }; /* floats read at a time where only some of them are wanted */

struct lwm_own lwm_own_of(const struct lwm_objective *o, const struct lwm_cut *cut, int world_rank)
{
	struct lwm_mesh m = *o->mesh;

	lwm_mesh_place(&m, world_rank);
	return (struct lwm_own){ .whole = &o->tensors, .local = &o->local, .tp = m.dim[LWM_TP], .tp_rank = m.coord[LWM_TP],
				 .cut = lwm_cut_of(cut, lwm_mesh_rank(&m, LWM_GRAD)) };
}

int lwm_own_runs(const struct lwm_own *own, int64_t i, struct lwm_run run[LWM_RUNS], int64_t *at)
{
	const struct lwm_tensor *part = &own->local->list[i];
	int64_t from, n;

	if (!lwm_cut_own(&own->cut, part, &from, &n, at))
		return 0;
	return lwm_part_runs(&own->whole->list[i], own->tp_rank, own->tp, from - part->offset, n, run);
}

int64_t lwm_own_trained(const struct lwm_own *own, int64_t i, const struct lwm_run *run, int runs, int64_t at, int64_t *next)
{
	int64_t n = 0;

	for (int k = 0; k < runs; k++)
		n += run[k].run * run[k].count;
	return lwm_cut_trained(&own->cut, &own->local->list[i], at, n, next);
}

bool lwm_own_speaks(const struct lwm_own *own, int64_t i)
{
	return own->tp_rank % lwm_part_copies(&own->whole->list[i], own->tp) == 0;
}

/* Between `rows` pieces of r->run values side by side in `packed` and their places r->stride apart in `wide`. */
static void copy_columns(const struct lwm_run *r, int64_t rows, float *packed, float *wide, bool out)
{
	for (int64_t i = 0; i < rows; i++) {
		float *p = packed + i * r->run, *w = wide + i * r->stride;

		memcpy(out ? p : w, out ? w : p, (size_t)r->run * sizeof *p);
	}
}

static int read_columns(const struct lwm_run *r, lwm_own_read_fn *read, void *ctx, float *out, struct lwm_err *e)
{
	int64_t most = STRETCH / r->stride > 0 ? STRETCH / r->stride : 1;
	float *wide = malloc((size_t)(most < r->count ? most : r->count) * (size_t)r->stride * sizeof *wide);
	int rc = wide ? 0 : lwm_fail_memory(e, NULL);

	for (int64_t i = 0; rc == 0 && i < r->count; i += most) {
		int64_t rows = r->count - i < most ? r->count - i : most, n = (rows - 1) * r->stride + r->run;

		memset(wide, 0, (size_t)n * sizeof *wide);
		copy_columns(r, rows, out + i * r->run, wide, false); /* what is not read stays as it is */
		rc = read(ctx, r->offset + i * r->stride, n, wide, e);
		copy_columns(r, rows, out + i * r->run, wide, true);
	}
	free(wide);
	return rc;
}

int lwm_own_read(const struct lwm_run *run, int runs, lwm_own_read_fn *read, void *ctx, float *out, struct lwm_err *e)
{
	for (int k = 0; k < runs; k++) {
		const struct lwm_run *r = &run[k];

		if (r->count == 1)
			LWM_TRY(read(ctx, r->offset, r->run, out, e));
		else
			LWM_TRY(read_columns(r, read, ctx, out, e));
		out += r->run * r->count;
	}
	return 0;
}
