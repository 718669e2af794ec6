/* load_adapted.c - weights without adapters, then W + scale B A of each matrix that has them. */
#include "common/infer/load_adapted.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "common/comm/device.h"
#include "common/infer/load_int.h"
#include "common/model/llama_json.h"
#include "common/tensor/adapter.h"

/* An adapter of a matrix, malloc'ed; -LWM_ENO without a sentence: it has none. */
static int read_adapter(const struct lwm_source *s, const char *matrix, const char *suffix, float **out, int64_t *rows,
			struct lwm_err *e)
{
	struct lwm_str name = { 0 };
	int rc;

	*out = NULL;
	lwm_str_printf(&name, "%s%s", matrix, suffix);
	rc = lwm_str_ok(&name, e);
	int64_t i = rc < 0 ? -1 : lwm_ckpt_find(s->ckpt, lwm_str_get(&name));
	lwm_str_release(&name);
	if (rc < 0 || i < 0)
		return rc < 0 ? rc : -LWM_ENO;
	*rows = lwm_ckpt_tensor(s->ckpt, i)->shape[0];
	*out = malloc((size_t)lwm_ckpt_size(s->ckpt, i) * sizeof **out);
	return *out ? lwm_ckpt_read(s->ckpt, s->group, i, 0, lwm_ckpt_size(s->ckpt, i), *out, e) : lwm_fail_memory(e, matrix);
}

static int add_product(struct lk_dev *dev, const struct lwm_tensor *t, float *w, float *a, float *b, int64_t rank, double scale,
		       struct lwm_err *e)
{
	struct lk_view y = lk_view2(w, LK_F32, t->shape[0], t->shape[1]), va = lk_view2(a, LK_F32, rank, t->shape[1]),
		       vb = lk_view2(b, LK_F32, t->shape[0], rank);

	return lwm_dev_check(dev, lk_matmul(dev, &y, &vb, &va, LK_ACC, (float)scale), e);
}

static int adapt_matrix(struct lwm_lm *m, const struct lwm_source *s, double scale, const struct lwm_tensor *t, struct lwm_err *e)
{
	float *a = NULL, *b = NULL;
	int64_t rank, rows;
	int rc = read_adapter(s, t->name, LWM_ADAPTER_A, &a, &rank, e);

	if (rc == -LWM_ENO)
		return 0;
	if (rc == 0)
		rc = read_adapter(s, t->name, LWM_ADAPTER_B, &b, &rows, e);
	if (rc == 0)
		rc = add_product(m->dev, t, (float *)m->weights + t->offset, a, b, rank, scale, e);
	free(a);
	free(b);
	return rc;
}

int lwm_lm_open_adapted(struct lwm_lm *m, const char *dir, struct lk_dev *dev, struct lwm_err *e)
{
	struct lwm_tensors p = { 0 };
	struct lwm_source s;
	const json_t *config;
	int rc;

	memset(m, 0, sizeof *m);
	LWM_GO(lwm_source_open_folder(&s, dir, false, LWM_CKPT_QUICK, &config, e));
	if (!s.fold.any)
		LWM_GO(lwm_fail(e, LWM_ECONFIG, "%s: holds no adapters", dir));
	LWM_GO(lwm_llama_from_json(&m->cfg, config, dir, e));
	m->dev = dev;
	m->step = -1;
	LWM_GO(lwm_llama_tensors(&p, &m->cfg, e));
	s.fold.any = false; /* as they are stored */
	LWM_GO(lwm_load_weights(&m->weights, dev, LK_F32, &s, &p, s.dir, e));
	for (int64_t i = 0; rc == 0 && i < p.n; i++)
		rc = adapt_matrix(m, &s, s.fold.scale, &p.list[i], e);
out:
	lwm_tensors_release(&p);
	lwm_source_close(&s);
	if (rc < 0)
		lwm_lm_close(m);
	return rc;
}
