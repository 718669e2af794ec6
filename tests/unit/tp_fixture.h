/* tp_fixture.h - ranks that share a model: the part of each, and a mesh of threads. */
#ifndef LWM_TEST_TP_FIXTURE_H
#define LWM_TEST_TP_FIXTURE_H

#include "common/comm/mesh.h"
#include "common/tensor/range.h"
#include "tests/unit/ring_cases.h"

/* ---- the part of a rank, and back ---- */

struct part {
	struct lwm_tensors all, local;
	int n, rank;
};

static inline struct part part_new(const struct lwm_llama_cfg *c, int n, int rank)
{
	struct part p = { .n = n, .rank = rank };

	assert_int_equal(lwm_llama_tensors(&p.all, c, NULL), 0);
	assert_int_equal(lwm_tensors_local(&p.local, &p.all, n, NULL), 0);
	return p;
}

static inline void part_release(struct part *p)
{
	lwm_tensors_release(&p->all);
	lwm_tensors_release(&p->local);
}

/* Between the whole vector and this rank's; out: from the local one, and only what no lower rank holds too. */
static inline void move_part(const struct part *p, float *whole, float *local, bool out)
{
	for (int64_t i = 0; i < p->all.n; i++) {
		const struct lwm_tensor *t = &p->all.list[i], *l = &p->local.list[i];
		struct lwm_run run[LWM_RUNS];
		int runs = lwm_part_runs(t, p->rank, p->n, 0, l->count, run);
		float *at = local + l->offset;

		if (out && p->rank % lwm_part_copies(t, p->n))
			continue;
		for (int k = 0; k < runs; k++)
			for (int64_t j = 0; j < run[k].count; j++, at += run[k].run) {
				float *w = whole + t->offset + run[k].offset + j * run[k].stride;

				memcpy(out ? w : at, out ? at : w, (size_t)run[k].run * sizeof *at);
			}
	}
}

/* ---- tp x sp ranks, row-major ---- */

struct world {
	struct lwm_comm *world;
	struct lwm_mesh mesh;
	struct lk_dev *dev;
	int tp, sp;
};

static inline int world_new(struct world *x, struct lwm_comm *c, const char *dev, int tp, struct lwm_err *e)
{
	char text[64];

	*x = (struct world){ .world = c, .tp = tp, .sp = lwm_comm_size(c) / tp, .dev = device(dev, 1) };
	snprintf(text, sizeof text, "1,1,%d,%d", x->tp, x->sp);
	LWM_TRY(lwm_mesh_new(&x->mesh, text, c, e));
	return lwm_mesh_attach(&x->mesh, x->dev, e);
}

static inline void world_free(struct world *x)
{
	lwm_mesh_release(&x->mesh);
	lk_dev_close(x->dev);
}

#endif
