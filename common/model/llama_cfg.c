/* llama_cfg.c - presets, checks, the table of weights, counts. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/model/llama.h"

const char *const lwm_llama_presets[] = { "nano", "micro", "124m", "debug", "200m", "1b", "3b",
					  "7b",   "13b",   "30b",  "65b",   NULL };

struct preset {
	int64_t vocab, dim, ffn, layers, heads, max_seq;
	double eps;
	bool tie;
};

/* nano and micro train on a laptop; 124m is the size of GPT-2 small; the others are the published ones. */
static const struct preset presets[] = {
	{ 32000, 128, 352, 3, 2, 2048, 1e-6, true },     { 32000, 256, 704, 4, 4, 2048, 1e-6, true },
	{ 50304, 768, 2048, 12, 12, 2048, 1e-6, true },  { 32000, 256, 256, 2, 2, 2048, 1e-6, false },
	{ 32000, 1024, 2048, 14, 8, 2048, 1e-6, false }, { 32000, 2048, 5504, 22, 16, 2048, 1e-6, false },
	{ 32000, 3200, 8640, 26, 32, 2048, 1e-6, false }, { 32000, 4096, 11008, 32, 32, 4096, 1e-6, false },
	{ 32000, 5120, 13824, 40, 40, 2048, 1e-6, false }, { 32000, 6656, 17920, 60, 52, 2048, 1e-6, false },
	{ 32000, 8192, 22016, 80, 64, 2048, 1e-5, false },
};

int lwm_llama_preset(struct lwm_llama_cfg *cfg, const char *name, struct lwm_err *e)
{
	for (int i = 0; lwm_llama_presets[i]; i++) {
		const struct preset *p = &presets[i];

		if (strcmp(name, lwm_llama_presets[i]))
			continue;
		*cfg = (struct lwm_llama_cfg){ .vocab_text = p->vocab, .dim = p->dim, .ffn = p->ffn,
			.layers = p->layers, .heads = p->heads, .kv_heads = p->heads, .max_seq = p->max_seq,
			.rope_theta = 1e4, .rms_eps = p->eps, .init_std = 0.02, .tie_embeddings = p->tie };
		snprintf(cfg->preset, sizeof cfg->preset, "%s", name);
		return 0;
	}
	return lwm_fail(e, LWM_EUSAGE, "there is no model preset '%s'; there are nano, micro, 124m, debug, 200m, 1b, "
			"3b, 7b, 13b, 30b and 65b", name);
}

void lwm_llama_add_vision(struct lwm_llama_cfg *cfg, int64_t codes)
{
	cfg->vision_codes = codes;
	cfg->vision_rows = (codes + 2 + 255) / 256 * 256;
}

int lwm_llama_check(const struct lwm_llama_cfg *c, struct lwm_err *e)
{
	const int64_t limit = 1 << 24;
	const struct {
		const char *name;
		int64_t value;
	} sizes[] = { { "vocab", c->vocab_text }, { "dim", c->dim }, { "ffn", c->ffn }, { "layers", c->layers },
		      { "heads", c->heads },      { "kv_heads", c->kv_heads } };

	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
		if (sizes[i].value < 1 || sizes[i].value > limit)
			return lwm_fail(e, LWM_ECONFIG, "model: %s is %lld, expected 1 to %lld", sizes[i].name,
					(long long)sizes[i].value, (long long)limit);
	if (c->dim % c->heads || c->dim / c->heads % 2)
		return lwm_fail(e, LWM_ECONFIG, "model: dim %lld does not divide into %lld heads of even size",
				(long long)c->dim, (long long)c->heads);
	if (c->heads % c->kv_heads)
		return lwm_fail(e, LWM_ECONFIG, "model: %lld heads are not a multiple of %lld key heads",
				(long long)c->heads, (long long)c->kv_heads);
	if (c->vision_rows < 0 || c->vision_rows > limit ||
	    (c->vision_rows && (c->vision_codes < 1 || c->vision_codes + 2 > c->vision_rows)))
		return lwm_fail(e, LWM_ECONFIG, "model: %lld vision codes and two markers do not fit a table of "
				"%lld rows", (long long)c->vision_codes, (long long)c->vision_rows);
	if (!(c->rope_theta > 0) || !(c->rms_eps > 0) || !(c->init_std >= 0))
		return lwm_fail(e, LWM_ECONFIG, "model: rope theta %g and norm epsilon %g must be positive, "
				"initial deviation %g not negative", c->rope_theta, c->rms_eps, c->init_std);
	return 0;
}

/* One matrix (or vector, cols 0). */
static struct lwm_param *add(struct lwm_params *p, const struct lwm_llama_cfg *c, const char *name, int64_t rows,
			     int64_t cols, int split, struct lwm_err *e)
{
	struct lwm_param *q = lwm_params_add(p, name, rows, cols, 0, 0, e);

	if (!q)
		return NULL;
	q->split_dim = split;
	q->init = cols ? LWM_INIT_NORMAL : LWM_INIT_CONST;
	q->value = cols ? c->init_std : 1.0;
	q->flags = cols ? 0 : LWM_PARAM_NO_DECAY;
	return q;
}

static int add_layer(struct lwm_params *p, const struct lwm_llama_cfg *c, int64_t l, struct lwm_err *e)
{
	int64_t d = c->dim, kv = c->kv_heads * lwm_llama_head_dim(c);
	const struct {
		const char *name;
		int64_t rows, cols;
		int split;
		int64_t heads;
	} t[] = {
		{ "input_layernorm", d, 0, -1, 0 },
		{ "self_attn.q_proj", d, d, 0, c->heads },
		{ "self_attn.k_proj", kv, d, 0, c->kv_heads },
		{ "self_attn.v_proj", kv, d, 0, 0 },
		{ "self_attn.o_proj", d, d, 1, 0 },
		{ "post_attention_layernorm", d, 0, -1, 0 },
		{ "mlp.gate_proj", c->ffn, d, 0, 0 },
		{ "mlp.up_proj", c->ffn, d, 0, 0 },
		{ "mlp.down_proj", d, c->ffn, 1, 0 },
	};

	for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
		char name[80];
		struct lwm_param *q;

		snprintf(name, sizeof name, "model.layers.%lld.%s.weight", (long long)l, t[i].name);
		q = add(p, c, name, t[i].rows, t[i].cols, t[i].split, e);
		if (!q)
			return e ? e->code : -LWM_EMEMORY;
		if (t[i].heads) {
			q->flags |= LWM_PARAM_ROPE;
			q->heads = (int)t[i].heads;
		}
	}
	return 0;
}

static int add_vision(struct lwm_params *p, const struct lwm_llama_cfg *c, const char *name, struct lwm_err *e)
{
	struct lwm_param *q = add(p, c, name, c->vision_rows, c->dim, 0, e);

	if (!q)
		return e ? e->code : -LWM_EMEMORY;
	q->flags |= LWM_PARAM_VISION;
	return 0;
}

int lwm_llama_params(struct lwm_params *p, const struct lwm_llama_cfg *c, struct lwm_err *e)
{
	struct lwm_err own = { 0 };
	int rc = 0;

	e = e ? e : &own;
	memset(p, 0, sizeof *p);
	LWM_GO(lwm_llama_check(c, e));
	if (!add(p, c, "model.embed_tokens.weight", c->vocab_text, c->dim, 0, e))
		LWM_GO(e->code);
	if (c->vision_rows)
		LWM_GO(add_vision(p, c, "model.vision_embed_tokens.weight", e));
	for (int64_t l = 0; l < c->layers; l++)
		LWM_GO(add_layer(p, c, l, e));
	if (!add(p, c, "model.norm.weight", c->dim, 0, -1, e))
		LWM_GO(e->code);
	if (!c->tie_embeddings && !add(p, c, "lm_head.weight", c->vocab_text, c->dim, 0, e))
		LWM_GO(e->code);
	if (!c->tie_embeddings && c->vision_rows)
		LWM_GO(add_vision(p, c, "vision_head.weight", e));
out:
	if (rc < 0)
		lwm_params_release(p);
	return rc;
}

static int64_t layer_matmul(const struct lwm_llama_cfg *c)
{
	int64_t kv = c->kv_heads * lwm_llama_head_dim(c);

	return 2 * c->dim * c->dim + 2 * kv * c->dim + 3 * c->dim * c->ffn;
}

int64_t lwm_llama_count(const struct lwm_llama_cfg *c)
{
	int64_t tables = (c->vocab_text + c->vision_rows) * c->dim * (c->tie_embeddings ? 1 : 2);

	return tables + c->layers * (layer_matmul(c) + 2 * c->dim) + c->dim;
}

int64_t lwm_llama_matmul(const struct lwm_llama_cfg *c)
{
	return c->layers * layer_matmul(c) + c->vocab_text * c->dim;
}

double lwm_llama_flops(const struct lwm_llama_cfg *c, double seen)
{
	const struct lwm_llama_work one = { .tokens = 1, .pairs = seen, .heads = { 1, 0 } };

	return lwm_llama_work_flops(c, &one);
}

double lwm_llama_work_flops(const struct lwm_llama_cfg *c, const struct lwm_llama_work *w)
{
	double d = (double)c->dim, l = (double)c->layers;
	double heads = w->heads[LWM_TEXT] * (double)c->vocab_text + w->heads[LWM_VISION] * (double)c->vision_rows;

	return 6 * l * (double)layer_matmul(c) * w->tokens + 6 * d * heads + 12 * l * d * w->pairs;
}
