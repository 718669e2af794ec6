/* llama_cfg.c - presets, checks, the table of weights, counts. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/model/llama_cfg.h"

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
	} sizes[] = { { "vocab", c->input_dim ? 1 : c->vocab_text }, { "dim", c->dim }, { "ffn", c->ffn }, { "layers", c->layers },
		      { "heads", c->heads },      { "kv_heads", c->kv_heads } };

	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
		if (sizes[i].value < 1 || sizes[i].value > limit)
			return lwm_fail(e, LWM_ECONFIG, "model: %s is %" PRId64 ", expected 1 to %" PRId64, sizes[i].name,
					sizes[i].value, limit);
	if (c->input_dim < 0 || c->input_dim > limit ||
	    (c->input_dim && (c->vocab_text || c->vision_rows || c->tie_embeddings)))
		return lwm_fail(e, LWM_ECONFIG, "model: a trunk over vectors of %" PRId64 " numbers (at most %" PRId64 ") has no "
				"vocabulary and ties nothing", c->input_dim, limit);
	if (c->dim % c->heads || c->dim / c->heads % 2)
		return lwm_fail(e, LWM_ECONFIG, "model: dim %" PRId64 " does not divide into %" PRId64 " heads of even size",
				c->dim, c->heads);
	if (c->heads % c->kv_heads)
		return lwm_fail(e, LWM_ECONFIG, "model: %" PRId64 " heads are not a multiple of %" PRId64 " key heads",
				c->heads, c->kv_heads);
	if (c->vision_rows < 0 || c->vision_rows > limit ||
	    (c->vision_rows && (c->vision_codes < 1 || c->vision_codes + 2 > c->vision_rows)))
		return lwm_fail(e, LWM_ECONFIG, "model: %" PRId64 " vision codes and two markers do not fit a table of "
				"%" PRId64 " rows", c->vision_codes, c->vision_rows);
	if (!(c->rope_theta > 0) || !(c->rms_eps > 0) || !(c->init_std >= 0))
		return lwm_fail(e, LWM_ECONFIG, "model: rope theta %g and norm epsilon %g must be positive, "
				"initial deviation %g not negative", c->rope_theta, c->rms_eps, c->init_std);
	return 0;
}

int lwm_llama_check_tp(const struct lwm_llama_cfg *c, int tp, struct lwm_err *e)
{
	const struct {
		const char *name;
		int64_t value;
	} cut[] = { { "heads", c->heads }, { "the MLP's width", c->ffn }, { "the text vocabulary", c->vocab_text },
		    { "the vision table's rows", c->vision_rows } };

	if (c->input_dim && tp > 1)
		return lwm_fail(e, LWM_ECONFIG, "model: a trunk over vectors cannot be divided over %d tensor-parallel ranks", tp);
	for (size_t i = 0; i < sizeof cut / sizeof cut[0]; i++)
		if (cut[i].value % tp)
			return lwm_fail(e, LWM_ECONFIG, "model: %s, %" PRId64 ", cannot be divided over %d tensor-parallel ranks",
					cut[i].name, cut[i].value, tp);
	if (c->kv_heads % tp && tp % c->kv_heads)
		return lwm_fail(e, LWM_ECONFIG, "model: %" PRId64 " key heads can neither be divided over %d tensor-parallel ranks "
				"nor shared evenly by them", c->kv_heads, tp);
	return 0;
}

/* One matrix, or a vector (cols 0) that starts as ones and does not decay. What t says beside that stays. */
static int add_tensor(struct lwm_tensors *p, const struct lwm_llama_cfg *c, struct lwm_tensor t, int64_t rows, int64_t cols,
		      struct lwm_err *e)
{
	t.ndim = cols ? 2 : 1;
	t.shape[0] = rows;
	t.shape[1] = cols;
	t.role = cols ? t.role : LWM_ROLE_SCALE;
	t.init = cols ? LWM_INIT_NORMAL : LWM_INIT_CONST;
	t.value = cols ? c->init_std : 1.0;
	t.trainable = true;
	t.decays = cols != 0;
	return lwm_tensors_add(p, &t, e);
}

static int add_layer(struct lwm_tensors *p, const struct lwm_llama_cfg *c, int64_t l, struct lwm_err *e)
{
	int64_t d = c->dim, kv = c->kv_heads * lwm_llama_head_dim(c);
	const struct {
		const char *name;
		int64_t rows, cols;
		int split;
		int64_t heads, parts;
	} t[] = {
		{ "input_layernorm", d, 0, LWM_SPLIT_NONE, 0, 0 },
		{ "self_attn.q_proj", d, d, 0, c->heads, 0 },
		{ "self_attn.k_proj", kv, d, 0, c->kv_heads, c->kv_heads },
		{ "self_attn.v_proj", kv, d, 0, 0, c->kv_heads },
		{ "self_attn.o_proj", d, d, 1, 0, 0 },
		{ "post_attention_layernorm", d, 0, LWM_SPLIT_NONE, 0, 0 },
		{ "mlp.gate_proj", c->ffn, d, 0, 0, 0 },
		{ "mlp.up_proj", c->ffn, d, 0, 0, 0 },
		{ "mlp.down_proj", d, c->ffn, 1, 0, 0 },
	};

	for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
		char name[80];
		struct lwm_tensor q = { .name = name, .modality = LWM_MODALITIES, .split = t[i].split,
					.parts = (int)t[i].parts, .rope_heads = (int)t[i].heads, .group = (int)l + 1 };

		snprintf(name, sizeof name, "model.layers.%" PRId64 ".%s.weight", l, t[i].name);
		LWM_TRY(add_tensor(p, c, q, t[i].rows, t[i].cols, e));
	}
	return 0;
}

/* The table of each modality: what ids are looked up in, or what logits are made with. */
static int add_tables(struct lwm_tensors *p, const struct lwm_llama_cfg *c, const char *const name[LWM_MODALITIES],
		      enum lwm_role role, int group, struct lwm_err *e)
{
	const int64_t rows[LWM_MODALITIES] = { c->vocab_text, c->vision_rows };

	for (int i = 0; i < LWM_MODALITIES; i++) {
		struct lwm_tensor q = { .name = name[i], .role = role, .modality = (enum lwm_modality)i, .group = group };

		if (rows[i])
			LWM_TRY(add_tensor(p, c, q, rows[i], c->dim, e));
	}
	return 0;
}

int lwm_llama_tensors(struct lwm_tensors *p, const struct lwm_llama_cfg *c, struct lwm_err *e)
{
	static const char *const embed[] = { "model.embed_tokens.weight", "model.vision_embed_tokens.weight" };
	static const char *const head[] = { "lm_head.weight", "vision_head.weight" };
	const int last = (int)c->layers + 1;
	const struct lwm_tensor input = { .name = "model.input_proj.weight", .modality = LWM_MODALITIES, .split = LWM_SPLIT_NONE };
	const struct lwm_tensor norm = { .name = "model.norm.weight", .modality = LWM_MODALITIES, .split = LWM_SPLIT_NONE,
					 .group = last };
	int rc = 0;

	memset(p, 0, sizeof *p);
	LWM_GO(lwm_llama_check(c, e));
	if (c->input_dim)
		LWM_GO(add_tensor(p, c, input, c->dim, c->input_dim, e));
	LWM_GO(add_tables(p, c, embed, LWM_ROLE_EMBED, 0, e));
	for (int64_t l = 0; l < c->layers; l++)
		LWM_GO(add_layer(p, c, l, e));
	LWM_GO(add_tensor(p, c, norm, c->dim, 0, e));
	if (!c->tie_embeddings)
		LWM_GO(add_tables(p, c, head, LWM_ROLE_HEAD, last, e));
out:
	if (rc < 0)
		lwm_tensors_release(p);
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

	return tables + c->input_dim * c->dim + c->layers * (layer_matmul(c) + 2 * c->dim) + c->dim;
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
