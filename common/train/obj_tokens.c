/* Next-token prediction of text and vision tokens over packed rows. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/num.h"
#include "common/comm/device.h"
#include "common/data/loader/loader.h"
#include "common/io/model.h"
#include "common/model/llama.h"
#include "common/model/llama_json.h"
#include "common/optim/weights.h"
#include "common/text/tokenizer.h"
#include "common/train/objective.h"
#include "common/train/start.h"

/* Places in the sums. Per modality: loss (weight * nll), nll, hits, tokens. */
enum { SHARE_BYTES = 20 /* of one token in a batch: id, target, segment, position, weight */ };
enum { S_NORM, S_TOKENS, S_SEGMENTS, S_FIRST, S_PER = 4, S_PAIRS = S_FIRST + LWM_MODALITIES * S_PER };

struct tokens {
	struct lwm_objective base;
	struct lwm_llama_cfg cfg;
	struct lwm_loader *train, *eval;
	struct lwm_loader_info info;
	struct lwm_llama *net;
	bool offload;                         /* activations wait in host memory */
	struct cut {
		int64_t rows_step, micro_rows, local; /* rows a step; rows at a time; local tokens at a time */
	} cut;
	int32_t *tok, *target, *seg, *pos;    /* (local) this rank's share of a micro batch */
	float *weight;
	const void *compute;
	double unigram[LWM_MODALITIES]; /* entropy of the held-out targets, nats: what a model that knows only how often each
					 * token comes would reach; 0 unknown */
};

static struct tokens *self(struct lwm_objective *o)
{
	return (struct tokens *)o;
}

/* ---- data ---- */

static int add_source(struct lwm_loader_source *s, const char *text, struct lwm_err *e)
{
	const char *eq = strrchr(text, '=');
	char *path = eq ? strndup(text, (size_t)(eq - text)) : strdup(text);
	int rc = 0;
	if (!path)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", text);
	if (eq)
		rc = lwm_parse_double(eq + 1, 0, 1e9, &s->weight, text, e);
	if (rc == 0)
		rc = lwm_paths_add(&s->shards, path, e);
	s->name = text;
	free(path);
	return rc;
}

/* how: what differs from loader to loader. */
static int open_loader(const struct tokens *t, const struct lwm_paths *data, struct lwm_loader_cfg how, struct lwm_loader **out,
		       struct lwm_err *e)
{
	const struct lwm_stage *s = t->base.stage;
	struct lwm_loader_source *src = calloc((size_t)data->n, sizeof *src);
	int rc = src ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " data sources", data->n);
	for (int64_t i = 0; rc == 0 && i < data->n; i++)
		rc = add_source(&src[i], data->v[i], e);
	if (rc == 0) {
		how.source = src;
		how.nsources = data->n;
		how.seed = (uint64_t)s->seed;
		how.weighting = (enum lwm_weighting)s->weighting;
		how.text_weight = s->text_weight;
		how.vision_weight = s->vision_weight;
		how.vision = s->vision_codes || t->info.vocab > t->info.vocab_text;
		how.seq_length = s->seq_length;
		rc = lwm_loader_open(out, &how, e);
	}
	for (int64_t i = 0; src && i < data->n; i++)
		lwm_paths_release(&src[i].shards);
	free(src);
	return rc;
}

/* This rank's share of the rows of a step; all ranks open it. */
static struct lwm_loader_cfg share_of(const struct tokens *t)
{
	return (struct lwm_loader_cfg){ .rows_per_step = t->cut.rows_step,
					.rank = lwm_mesh_rank(t->base.mesh, LWM_DATA),
					.ranks = lwm_mesh_ranks(t->base.mesh, LWM_DATA),
					.micro_rows = t->cut.micro_rows,
					.comm = t->base.mesh->world };
}

/* Rows a step and rows at a time; by default as many rows at a time as make 16K tokens, at least one. */
static int cut_step(struct cut *t, const struct lwm_stage *s, const struct lwm_mesh *m, struct lwm_err *e)
{
	int ranks = lwm_mesh_ranks(m, LWM_DATA);
	int64_t per_rank;
	if (s->seq_length < 2)
		return lwm_fail(e, LWM_EUSAGE, "--seq-length must be given");
	if (s->tokens_per_batch % s->seq_length)
		return lwm_fail(e, LWM_ECONFIG, "--tokens-per-batch %" PRId64 " is not a multiple of --seq-length %" PRId64,
				s->tokens_per_batch, s->seq_length);
	t->rows_step = s->tokens_per_batch / s->seq_length;
	if (t->rows_step == 0 || t->rows_step % ranks)
		return lwm_fail(e, LWM_ECONFIG, "%" PRId64 " rows a step do not divide among %d data ranks (dp x fsdp)",
				t->rows_step, ranks);
	per_rank = t->rows_step / ranks;
	t->micro_rows = s->micro_rows;
	if (!t->micro_rows) {
		t->micro_rows = 16384 / s->seq_length;
		if (t->micro_rows < 1)
			t->micro_rows = 1;
		if (t->micro_rows > per_rank)
			t->micro_rows = per_rank;
		while (per_rank % t->micro_rows)
			t->micro_rows--;
	}
	if (per_rank % t->micro_rows)
		return lwm_fail(e, LWM_ECONFIG, "--micro-rows %" PRId64 " does not divide the %" PRId64 " rows of a rank",
				t->micro_rows, per_rank);
	LWM_TRY(lwm_ring_check((enum lwm_ring_layout)s->ring_layout, s->seq_length, m->dim[LWM_SP], e));
	t->local = t->micro_rows * (s->seq_length / m->dim[LWM_SP]);
	return 0;
}

static int open_data(struct tokens *t, struct lwm_err *e)
{
	const struct lwm_stage *s = t->base.stage;
	struct lwm_loader_cfg how = share_of(t);
	how.prefetch = !s->planning;
	LWM_TRY(lwm_objective_absent(&t->base, open_loader(t, &s->data, how, &t->train, e), e));
	if (t->train) {
		t->info = *lwm_loader_info(t->train);
		return 0;
	}
	/* a plan may be asked for before the data is made */
	t->info.vocab_text = s->vocab ? s->vocab : 32000;
	t->info.vocab = t->info.vocab_text + (s->vision_codes ? s->vision_codes + 2 : 0);
	return 0;
}

static int check_tokenizer(const struct tokens *t, struct lwm_err *e)
{
	const struct lwm_stage *s = t->base.stage;
	struct lwm_tokenizer *tok;
	if (!s->tokenizer)
		return 0;
	int rc = lwm_tokenizer_open_as(&tok, s->tokenizer, lwm_model_check_file, t->train ? t->info.tokenizer.hex : NULL, "a row shard of --data", e);
	if (rc == 0)
		lwm_tokenizer_free(tok);
	return rc;
}

/* ---- model ---- */

static void override(int64_t *dst, int64_t value)
{
	if (value)
		*dst = value;
}

/* The model as far as the settings say it: without the vocabulary, which the rows may say. */
static int shape(struct lwm_llama_cfg *c, const struct lwm_stage *s, struct lwm_err *e)
{
	LWM_TRY(lwm_llama_preset(c, s->model, e));
	override(&c->dim, s->dim);
	override(&c->ffn, s->ffn);
	override(&c->layers, s->layers);
	if (s->heads)
		c->kv_heads = c->heads = s->heads;
	override(&c->kv_heads, s->kv_heads);
	override(&c->vocab_text, s->vocab);
	c->tie_embeddings = c->tie_embeddings || s->tie;
	c->max_seq = s->seq_length;
	c->rope_theta = s->theta;
	if (s->init_std > 0)
		c->init_std = s->init_std;
	if (s->norm_eps > 0)
		c->rms_eps = s->norm_eps;
	return lwm_llama_check(c, e);
}

/* The model that training starts from has this one's sizes, or another model would be trained than that; its norms' epsilon is
 * taken over. One that is not there or damaged is told when its weights are wanted; a run that is resumed wants none. */
static int match_source(const struct tokens *t, struct lwm_llama_cfg *c, struct lwm_err *e)
{
	const struct lwm_stage *s = t->base.stage;
	const char *from = !strncmp(s->start_from, "text-", 5) ? s->start_from + 5 : s->start_from;
	struct lwm_llama_cfg have;
	struct lwm_err why = { 0 };
	if (!strcmp(from, "random"))
		return 0;
	int rc = lwm_start_config(&have, from, s->older_ok, &why);
	if (rc == -LWM_ENOINPUT || rc == -LWM_EDATA)
		return 0;
	if (rc < 0) {
		*e = why;
		return rc;
	}
	const struct {
		const char *name;
		int64_t theirs, ours;
	} size[] = { { "dim", have.dim, c->dim }, { "ffn", have.ffn, c->ffn }, { "layers", have.layers, c->layers },
		     { "heads", have.heads, c->heads }, { "kv-heads", have.kv_heads, c->kv_heads },
		     { "tie", have.tie_embeddings, c->tie_embeddings } };
	for (size_t i = 0; i < sizeof size / sizeof *size; i++)
		if (size[i].theirs != size[i].ours)
			return lwm_fail(e, LWM_ECONFIG, "--start-from %s: has --%s %" PRId64 ", this stage %" PRId64, s->start_from,
					size[i].name, size[i].theirs, size[i].ours);
	if (!(s->norm_eps > 0))
		c->rms_eps = have.rms_eps;
	if (c->max_seq > have.max_seq && c->rope_theta == have.rope_theta && lwm_comm_rank(t->base.mesh->world) == 0)
		lwm_log(LWM_WARN, "--seq-length %" PRId64 ": --start-from %s was made for %" PRId64 " tokens with the same --theta %g: longer "
			"contexts are learnt faster with a larger one", c->max_seq, s->start_from, have.max_seq, c->rope_theta);
	return 0;
}

int lwm_objective_tokens_check(const struct lwm_stage *s, const struct lwm_mesh *m, struct lwm_err *e)
{
	struct lwm_llama_cfg c;
	struct cut cut;
	LWM_TRY(cut_step(&cut, s, m, e));
	return shape(&c, s, e);
}

static int configure(struct tokens *t, struct lwm_err *e)
{
	const struct lwm_stage *s = t->base.stage;
	struct lwm_llama_cfg *c = &t->cfg;
	LWM_TRY(shape(c, s, e));
	c->vocab_text = s->vocab ? s->vocab : t->info.vocab_text;
	if (c->vocab_text != t->info.vocab_text)
		return lwm_fail(e, LWM_ECONFIG, "--vocab %" PRId64 ", but the rows were made with a vocabulary of %" PRId64,
				c->vocab_text, t->info.vocab_text);
	/* rows with vision codes say so by a larger vocabulary; codes = vocabulary - text - 2 markers */
	if (s->vision_codes)
		lwm_llama_add_vision(c, s->vision_codes);
	else if (t->info.vocab > t->info.vocab_text)
		lwm_llama_add_vision(c, t->info.vocab - t->info.vocab_text - 2);
	if (t->info.vocab > lwm_llama_ids(c))
		return lwm_fail(e, LWM_ECONFIG, "the rows hold ids up to %" PRId64 ", the model has room for %" PRId64,
				t->info.vocab - 1, lwm_llama_ids(c));
	LWM_TRY(match_source(t, c, e));
	LWM_TRY(lwm_llama_check(c, e));
	LWM_TRY(lwm_llama_tensors(&t->base.tensors, c, e));
	return lwm_llama_to_json(c, &t->base.config, e);
}

static struct lwm_llama_run run_of(const struct tokens *t)
{
	const struct lwm_stage *s = t->base.stage;
	return (struct lwm_llama_run){ .tokens = t->cut.local,
				       .train = true,
				       .recompute = !s->no_recompute,
				       .offload = t->offload,
				       .mlp_chunk = s->mlp_chunk,
				       .loss_bytes = s->loss_mib << 20,
				       .ring = t->base.mesh->dev[LWM_SP] };
}

/* Device memory that the plan or the choice of offload goes by. */
static int room_of(struct tokens *t, int64_t *room, struct lwm_err *e)
{
	const struct lwm_stage *s = t->base.stage;
	size_t free_bytes, total;
	*room = s->plan_gib << 30;
	if (s->planning && s->plan_gib)
		return 0;
	LWM_TRY(lwm_dev_check(t->base.dev, lk_dev_memory(t->base.dev, &free_bytes, &total), e));
	*room = (int64_t)free_bytes;
	return 0;
}

/* The loader's two batches, and two more of held-out rows. */
static int64_t batch_bytes(const struct tokens *t)
{
	const struct lwm_stage *s = t->base.stage;
	return (s->eval_data.n && s->eval_rows ? 4 : 2) * t->cut.micro_rows * s->seq_length * SHARE_BYTES;
}

/* What else a rank takes, and the longest row: on a host, beside the program itself, and with nowhere else to put activations. */
static void size_plan(struct tokens *t, const struct lwm_llama_run *how, int64_t room)
{
	const struct lwm_stage *s = t->base.stage;
	bool host = lk_dev_is_host(t->base.dev) && !s->plan_gib;
	struct lk_dev *dev = host ? t->base.dev : NULL;
	struct lwm_llama_run run = *how;
	int sp = t->base.mesh->dim[LWM_SP];
	t->base.own_bytes = lwm_llama_own(t->base.dev, &t->cfg, &run);
	t->base.array_bytes = lwm_llama_arrays(&run, sp) + t->cut.local * SHARE_BYTES + batch_bytes(t);
	run.offload = false;
	t->base.longest = lwm_llama_longest(dev, &t->cfg, &run, t->base.dtype, room, INT64_MAX);
	if (host)
		return;
	run.offload = run.recompute;
	t->base.longest_offload = lwm_llama_longest(dev, &t->cfg, &run, t->base.dtype, room, INT64_MAX);
	run.tokens = t->base.longest_offload;
	t->base.longest_host_bytes = run.tokens ? lwm_llama_memory(&t->cfg, &run, t->base.dtype, 1).host : 0;
}

/* What activations take, and whether they go to the host. auto: where they do not fit beside weights and optimizer state; never
 * where the device's memory is the host's. */
static int place_activations(struct tokens *t, struct lwm_err *e)
{
	const struct lwm_stage *s = t->base.stage;
	const struct lwm_mesh *m = t->base.mesh;
	struct lwm_llama_run run = run_of(t);
	int sp = m->dim[LWM_SP], ranks = lwm_mesh_ranks(m, LWM_DATA) * sp;
	int64_t room, weights = lwm_weights_bytes(t->base.tensors.total, ranks, t->base.dtype);
	bool gpu = !lk_dev_is_host(t->base.dev) || s->plan_gib;
	LWM_TRY(room_of(t, &room, e));
	struct lwm_llama_bytes need = lwm_llama_memory(&t->cfg, &run, t->base.dtype, sp);
	t->offload = s->offload == LWM_OFFLOAD_TRUE ||
		     (s->offload == LWM_OFFLOAD_AUTO && gpu && run.recompute && weights + need.total > room);
	run.offload = t->offload;
	need = lwm_llama_memory(&t->cfg, &run, t->base.dtype, sp);
	t->base.memory_bytes = need.total;
	t->base.host_bytes = need.host;
	if (s->planning)
		size_plan(t, &run, room);
	return 0;
}

static int tokens_attach(struct lwm_objective *o, void *compute, struct lwm_err *e)
{
	struct tokens *t = self(o);
	struct lwm_llama_run run = run_of(t);
	size_t n = (size_t)t->cut.local;
	t->compute = compute;
	t->tok = malloc(n * sizeof *t->tok);
	t->target = malloc(n * sizeof *t->target);
	t->seg = malloc(n * sizeof *t->seg);
	t->pos = malloc(n * sizeof *t->pos);
	t->weight = malloc(n * sizeof *t->weight);
	if (!t->tok || !t->target || !t->seg || !t->pos || !t->weight)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for %zu tokens", n);
	return lwm_llama_new(&t->net, o->dev, &t->cfg, &run, e);
}

/* ---- steps ---- */

/* This rank's tokens of each row, in ring order. Targets were shifted before, so nothing is lost at the cuts. */
static void take_share(struct tokens *t, const struct lwm_batch *b)
{
	const struct lwm_mesh *m = t->base.mesh;
	int n = m->dim[LWM_SP], r = m->coord[LWM_SP];
	int64_t share = b->seq / n, at = 0;
	for (int64_t row = 0; row < b->rows; row++) {
		for (int64_t i = 0; i < share; i++, at++) {
			int64_t g = row * b->seq +
				    lwm_ring_global((enum lwm_ring_layout)t->base.stage->ring_layout, b->seq, n, r, i);
			t->tok[at] = b->tokens[g];
			t->target[at] = b->targets[g];
			t->seg[at] = b->segments[g];
			t->pos[at] = b->positions[g];
			t->weight[at] = b->weights[g];
		}
	}
}

/* Pairs of tokens that see each other: the segments of a row are runs, and each token sees those before it and itself. */
static double visible_pairs(const struct lwm_batch *b)
{
	double pairs = 0;
	for (int64_t row = 0; row < b->rows; row++) {
		const int32_t *seg = b->segments + row * b->seq;
		for (int64_t i = 0, n = 0; i < b->seq; i++) {
			n = i && seg[i] == seg[i - 1] ? n + 1 : 1;
			pairs += seg[i] < 0 ? 0 : (double)n;
		}
	}
	return pairs;
}

static void add_stats(double *sums, const struct lwm_batch *b, const struct lwm_llama_stats *st, bool first_of_row)
{
	if (first_of_row) { /* every rank of the ring has the same rows: count them once */
		sums[S_NORM] += b->norm;
		sums[S_TOKENS] += (double)b->tokens_n;
		sums[S_SEGMENTS] += (double)b->segments_n;
		sums[S_PAIRS] += visible_pairs(b);
	}
	for (int m = 0; m < LWM_MODALITIES; m++) {
		double *p = sums + S_FIRST + m * S_PER;
		p[0] += st->loss[m];
		p[1] += st->nll[m];
		p[2] += st->hits[m];
		p[3] += (double)st->tokens[m];
	}
}

static int batches(struct tokens *t, struct lwm_loader *l, int64_t step, float *grads, double *sums, struct lwm_err *e)
{
	struct lwm_flat_weights w = lwm_flat_weights_of(t->compute, t->base.dtype, grads);
	int64_t micros = lwm_loader_micros(l);
	for (int64_t i = 0; i < micros; i++) {
		struct lwm_llama_stats st = { 0 };
		struct lwm_batch *b = NULL;
		/* a rank that cannot read its rows must not leave the others waiting in the ring */
		LWM_TRY(lwm_agree(t->base.mesh->comm[LWM_SP], lwm_loader_get(l, step, i, &b, e), e));
		if (b->tokens_n == 0) /* held-out rows ended before the share of this rank did */
			continue;
		take_share(t, b);
		struct lwm_llama_batch in = { t->cut.local, t->tok, t->target, t->weight, t->seg, t->pos };
		int rc = lwm_llama_step(t->net, &in, &w.base, &st, e);
		if (rc < 0 && t->base.mesh->dim[LWM_SP] > 1)
			e->who = LWM_ERR_ALONE; /* the ring waits for this rank */
		LWM_TRY(rc);
		add_stats(sums, b, &st, t->base.mesh->coord[LWM_SP] == 0);
	}
	return 0;
}

static int tokens_step(struct lwm_objective *o, int64_t step, float *grads, double sums[LWM_SUMS], struct lwm_err *e)
{
	return batches(self(o), self(o)->train, step, grads, sums, e);
}

static int tokens_eval(struct lwm_objective *o, double sums[LWM_SUMS], struct lwm_err *e)
{
	return batches(self(o), self(o)->eval, 0, NULL, sums, e);
}

static double tokens_norm(const double sums[LWM_SUMS])
{
	return sums[S_NORM];
}

static double tokens_render(struct lwm_objective *o, const double sums[LWM_SUMS], bool eval, struct lwm_str *json)
{
	static const char *const name[] = { "text", "vision" };
	double loss = 0, norm = sums[S_NORM] > 0 ? sums[S_NORM] : 1;
	for (int m = 0; m < LWM_MODALITIES; m++)
		loss += sums[S_FIRST + m * S_PER] / norm;
	lwm_str_printf(json, ",\"tokens\":%.0f,\"segments\":%.0f", sums[S_TOKENS], sums[S_SEGMENTS]);
	for (int m = 0; m < LWM_MODALITIES; m++) {
		const double *p = sums + S_FIRST + m * S_PER;
		if (p[3] > 0)
			lwm_str_printf(json, ",\"%s_nll\":%.9g,\"%s_acc\":%.6g,\"%s_tokens\":%.0f", name[m], p[1] / p[3],
				       name[m], p[2] / p[3], name[m], p[3]);
		if (eval && p[3] > 0)
			lwm_str_printf(json, ",\"%s_unigram\":%.6g", name[m], self(o)->unigram[m]);
	}
	return loss;
}

static double tokens_flops(const struct lwm_objective *o, const double sums[LWM_SUMS])
{
	struct lwm_llama_work w = { .tokens = sums[S_TOKENS], .pairs = sums[S_PAIRS] };
	for (int m = 0; m < LWM_MODALITIES; m++)
		w.heads[m] = sums[S_FIRST + m * S_PER + 3];
	return lwm_llama_work_flops(&((const struct tokens *)o)->cfg, &w);
}

/* Of a step whose rows are one document each, with all targets in the larger table. */
static double most_flops(const struct tokens *t)
{
	double seq = (double)t->base.stage->seq_length, rows = (double)t->cut.rows_step;
	enum lwm_modality head = t->cfg.vision_rows > t->cfg.vocab_text ? LWM_VISION : LWM_TEXT;
	struct lwm_llama_work w = { .tokens = rows * seq, .pairs = rows * seq * (seq + 1) / 2 };
	w.heads[head] = rows * seq;
	return lwm_llama_work_flops(&t->cfg, &w);
}

static void tokens_free(struct lwm_objective *o)
{
	struct tokens *t = self(o);
	lwm_llama_free(t->net);
	lwm_loader_close(t->train);
	lwm_loader_close(t->eval);
	free(t->tok);
	free(t->target);
	free(t->seg);
	free(t->pos);
	free(t->weight);
	lwm_tensors_release(&o->tensors);
	json_decref(o->config);
	free(t);
}

/* Of all held-out rows, on the rank that writes the numbers down. */
static int count_targets(struct tokens *t, struct lwm_err *e)
{
	const struct lwm_loader_cfg all = { .once = t->base.stage->eval_rows, .ranks = 1, .micro_rows = 1 };
	int64_t vocab = t->info.vocab, *count;
	struct lwm_loader *l;
	int rc;
	if (lwm_comm_rank(t->base.mesh->world))
		return 0;
	LWM_TRY(open_loader(t, &t->base.stage->eval_data, all, &l, e));
	count = calloc((size_t)vocab, sizeof *count);
	rc = count ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for counts of %" PRId64 " tokens", vocab);
	for (int64_t i = 0; rc == 0 && i < lwm_loader_micros(l); i++) {
		struct lwm_batch *b = NULL;
		rc = lwm_loader_get(l, 0, i, &b, e);
		for (int64_t k = 0; rc == 0 && k < b->rows * b->seq; k++)
			if (b->weights[k] > 0 && b->targets[k] >= 0 && b->targets[k] < vocab)
				count[b->targets[k]]++;
	}
	if (rc == 0) {
		t->unigram[LWM_TEXT] = lwm_entropy(count, t->info.vocab_text);
		t->unigram[LWM_VISION] = lwm_entropy(count + t->info.vocab_text, vocab - t->info.vocab_text);
	}
	free(count);
	lwm_loader_close(l);
	return rc;
}

/* Held-out rows: as many as asked for, never more than there are, each once. */
static int open_eval(struct tokens *t, struct lwm_err *e)
{
	const struct lwm_stage *s = t->base.stage;
	struct lwm_loader_cfg how = share_of(t);
	if (!s->eval_data.n || !s->eval_rows)
		return 0;
	how.once = s->eval_rows;
	LWM_TRY(open_loader(t, &s->eval_data, how, &t->eval, e));
	return s->planning ? 0 : count_targets(t, e);
}

int lwm_objective_tokens(struct lwm_objective **out, const struct lwm_stage *s, const struct lwm_mesh *m,
			 struct lk_dev *dev, struct lwm_err *e)
{
	static const struct lwm_objective_ops ops = { tokens_attach, tokens_step,   tokens_eval, tokens_norm,
						      tokens_render, tokens_flops, tokens_free };
	struct tokens *t = calloc(1, sizeof *t);
	int rc;
	*out = NULL;
	if (!t)
		return lwm_fail(e, LWM_EMEMORY, "out of memory");
	t->base = (struct lwm_objective){ .ops = &ops, .kind = "lwm", .dev = dev, .stage = s, .mesh = m, .unit = "tok" };
	t->base.dtype = s->planning && s->plan_gib ? LK_BF16 : lk_dev_dtype(dev);
	LWM_GO(cut_step(&t->cut, s, m, e));
	LWM_GO(open_data(t, e));
	LWM_GO(lwm_objective_absent(&t->base, open_eval(t, e), e));
	LWM_GO(lwm_objective_absent(&t->base, check_tokenizer(t, e), e));
	LWM_GO(configure(t, e));
	LWM_GO(place_activations(t, e));
	t->base.tokenizer_hash = t->info.tokenizer.hex;
	memcpy(t->base.data, t->info.content.hex, sizeof t->base.data);
	t->base.tokens_per_step = s->tokens_per_batch;
	t->base.most_flops = most_flops(t);
out:
	if (rc < 0)
		tokens_free(&t->base);
	else
		*out = &t->base;
	return rc;
}
