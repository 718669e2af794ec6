/* llama_weights.c - which weights a layer, the embeddings and the heads are: found in the table once, fetched when used. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/llama_int.h"
#include "common/tensor/range.h"

/* The tensor `name` and the neighbours after it, `tensors` in all, as one matrix (or vector) of group g. */
static struct lwm_weight_place place_of(const struct lwm_tensors *t, const struct lwm_group *g, const char *name, int tensors)
{
	const struct lwm_tensor *q = lwm_tensors_find(t, name);
	struct lwm_weight_place p;

	LWM_BUG_ON(!q);
	p = (struct lwm_weight_place){ q->offset - g->offset, 0, q->ndim > 1 ? q->shape[1] : 0 };
	for (int i = 0; i < tensors; i++) {
		LWM_BUG_ON(q[i].group != g->index || q[i].shape[1] != p.cols);
		LWM_BUG_ON(i && q[i].offset != q[i - 1].offset + q[i - 1].count);
		p.rows += q[i].shape[0];
	}
	return p;
}

static void find_layer(struct lwm_llama_map *m, const struct lwm_tensors *t, int64_t l)
{
	static const struct {
		const char *first;
		int tensors;
	} parts[LWM_LAYER_PARTS] = {
		[LWM_LAYER_NORM1] = { "input_layernorm", 1 },         [LWM_LAYER_QKV] = { "self_attn.q_proj", 3 },
		[LWM_LAYER_O] = { "self_attn.o_proj", 1 },            [LWM_LAYER_NORM2] = { "post_attention_layernorm", 1 },
		[LWM_LAYER_GATE_UP] = { "mlp.gate_proj", 2 },         [LWM_LAYER_DOWN] = { "mlp.down_proj", 1 },
	};
	struct lwm_layer_map *y = &m->layer[l];
	char name[96];

	y->group = lwm_tensors_group(t, l + 1);
	for (int i = 0; i < LWM_LAYER_PARTS; i++) {
		snprintf(name, sizeof name, "model.layers.%" PRId64 ".%s.weight", l, parts[i].first);
		y->part[i] = place_of(t, &y->group, name, parts[i].tensors);
	}
}

static void find_tables(struct lwm_llama_map *m, const struct lwm_llama_cfg *c, const struct lwm_tensors *t)
{
	static const char *const embed[] = { "model.embed_tokens.weight", "model.vision_embed_tokens.weight" };
	static const char *const head[] = { "lm_head.weight", "vision_head.weight" };
	const int64_t rows[LWM_MODALITIES] = { c->vocab_text, c->vision_rows };

	m->tied = c->tie_embeddings;
	m->first = lwm_tensors_group(t, 0);
	m->last = lwm_tensors_group(t, c->layers + 1);
	m->norm = place_of(t, &m->last, "model.norm.weight", 1);
	if (c->input_dim)
		m->input = place_of(t, &m->first, "model.input_proj.weight", 1);
	for (int i = 0; i < LWM_MODALITIES && rows[i]; i++) {
		m->embed[i] = place_of(t, &m->first, embed[i], 1);
		m->head[i] = m->tied ? m->embed[i] : place_of(t, &m->last, head[i], 1);
	}
}

int lwm_map_new(struct lwm_llama_map *m, const struct lwm_llama_cfg *c, int tp, struct lwm_err *e)
{
	struct lwm_tensors all, t;
	int rc;

	memset(m, 0, sizeof *m);
	LWM_TRY(lwm_llama_tensors(&all, c, e));
	rc = lwm_tensors_local(&t, &all, tp, e);
	lwm_tensors_release(&all);
	LWM_TRY(rc);
	m->layer = calloc((size_t)c->layers, sizeof *m->layer);
	if (m->layer) {
		for (int64_t l = 0; l < c->layers; l++)
			find_layer(m, &t, l);
		find_tables(m, c, &t);
	}
	lwm_tensors_release(&t);
	return m->layer ? 0 : lwm_fail(e, LWM_EMEMORY, "no memory for a model");
}

void lwm_map_release(struct lwm_llama_map *m)
{
	free(m->layer);
	m->layer = NULL;
}

int lwm_llama_unformed(const struct lwm_llama_cfg *c, int tp, const struct lwm_tensors *t, int64_t *weights, struct lwm_err *e)
{
	struct lwm_llama_map m;

	*weights = 0;
	LWM_TRY(lwm_map_new(&m, c, tp, e));
	for (int64_t l = 0; l < c->layers; l++)
		for (int i = 0; i < LWM_LAYER_PARTS; i++) {
			const struct lwm_weight_place *p = &m.layer[l].part[i];

			if (!lwm_tensors_want(t, m.layer[l].group.offset + p->at, p->rows * p->cols))
				*weights += p->rows * p->cols;
		}
	lwm_map_release(&m);
	return 0;
}

/* ---- fetching ---- */

static struct lwm_supplied fetch_group(struct lwm_llama *m, const struct lwm_group *g, unsigned what)
{
	struct lwm_supplied at = { NULL, NULL };

	m->rc = lwm_supply_acquire(m->w, g, what, &at, m->rc, &m->err);
	return at;
}

/* Of group `in`. Gradients of norms are formed in any case. */
static struct lwm_matrix matrix_at(const struct lwm_llama *m, const struct lwm_group *in, const struct lwm_supplied *at,
				   const struct lwm_weight_place *p)
{
	void *w = at->w ? (char *)(uintptr_t)at->w + p->at * (int64_t)lk_dtype_size(m->dtype) : NULL;
	bool wanted = at->g && (!p->cols || lwm_tensors_want(m->w->table, in->offset + p->at, p->rows * p->cols));
	float *g = wanted ? at->g + p->at : NULL;
	struct lwm_matrix y;

	y.w = p->cols ? lk_view2(w, m->dtype, p->rows, p->cols) : lk_view1(w, m->dtype, p->rows);
	y.g = p->cols ? lk_view2(g, LK_F32, p->rows, p->cols) : lk_view1(g, LK_F32, p->rows);
	return y;
}

static void gradient_ready(struct lwm_llama *m, const struct lwm_group *g)
{
	m->rc = lwm_supply_grad_ready(m->w, g, m->rc, &m->err);
}

struct lwm_layer lwm_layer_acquire(struct lwm_llama *m, int64_t l, unsigned what)
{
	const struct lwm_layer_map *p = &m->map.layer[l];
	struct lwm_supplied at = fetch_group(m, &p->group, what);
	struct lwm_layer y;

	y.norm1 = matrix_at(m, &p->group, &at, &p->part[LWM_LAYER_NORM1]);
	y.qkv = matrix_at(m, &p->group, &at, &p->part[LWM_LAYER_QKV]);
	y.o = matrix_at(m, &p->group, &at, &p->part[LWM_LAYER_O]);
	y.norm2 = matrix_at(m, &p->group, &at, &p->part[LWM_LAYER_NORM2]);
	y.gate_up = matrix_at(m, &p->group, &at, &p->part[LWM_LAYER_GATE_UP]);
	y.down = matrix_at(m, &p->group, &at, &p->part[LWM_LAYER_DOWN]);
	return y;
}

void lwm_layer_release(struct lwm_llama *m, int64_t l, bool grads)
{
	lwm_supply_release(m->w, &m->map.layer[l].group);
	if (grads)
		gradient_ready(m, &m->map.layer[l].group);
}

struct lwm_embed lwm_embed_acquire(struct lwm_llama *m, unsigned what)
{
	struct lwm_supplied at = fetch_group(m, &m->map.first, what);
	struct lwm_embed y;

	for (int i = 0; i < LWM_MODALITIES; i++)
		y.table[i] = matrix_at(m, &m->map.first, &at, &m->map.embed[i]);
	y.input = matrix_at(m, &m->map.first, &at, &m->map.input);
	return y;
}

void lwm_embed_release(struct lwm_llama *m, bool grads)
{
	lwm_supply_release(m->w, &m->map.first);
	if (grads)
		gradient_ready(m, &m->map.first);
}

struct lwm_head lwm_head_acquire(struct lwm_llama *m, unsigned what)
{
	struct lwm_supplied last = fetch_group(m, &m->map.last, what);
	struct lwm_supplied first = m->map.tied ? fetch_group(m, &m->map.first, what) : last;
	struct lwm_head y;

	for (int i = 0; i < LWM_MODALITIES; i++)
		y.table[i] = matrix_at(m, m->map.tied ? &m->map.first : &m->map.last, &first, &m->map.head[i]);
	y.norm = matrix_at(m, &m->map.last, &last, &m->map.norm);
	return y;
}

void lwm_head_release(struct lwm_llama *m, bool grads)
{
	if (m->map.tied)
		lwm_supply_release(m->w, &m->map.first);
	lwm_supply_release(m->w, &m->map.last);
	if (grads) /* of tied tables there is more to come: from the embedding */
		gradient_ready(m, &m->map.last);
}
