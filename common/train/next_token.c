/* The objective next-token: prediction of text and vision tokens over packed rows. Its settings, its data, its life. */
#include "common/train/next_token.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/comm/device.h"
#include "common/io/model.h"
#include "common/text/tokenizer.h"
#include "common/train/next_token_int.h"

static const char *const offload_names[] = { "auto", "true", "false", NULL };
static const char *const kept_names[] = { "exact", "bf16", NULL };
static const char *const weighting_names[] = { "per_example", "per_token", "published", NULL }; /* enum lwm_weighting */

#define SET(field, rule, preset, ...) LWM_SETTING(struct lwm_next_token, field, rule, preset, __VA_ARGS__)

static const struct lwm_setting settings[] = {
	LWM_SECTION("Data"),
	SET(seq_length, LWM_FIXED | LWM_SHOWN, 0, LWM_OPT_INT(0, "seq-length", NULL, 2, 1 << 30, "N", "tokens in a row", 0)),
	SET(tokens_per_batch, LWM_FIXED, 8192,
	    LWM_OPT_INT(0, "tokens-per-batch", NULL, 1, 1 << 30, "N", "tokens in a step, all ranks together", 0)),
	SET(micro_rows, LWM_ROUNDED, 0,
	    LWM_OPT_INT(0, "micro-rows", NULL, 0, 1 << 20, "N", "rows at a time on a rank; 0: about 16K tokens, of canonical sums 1", 0)),
	SET(weighting, LWM_FIXED, LWM_PER_EXAMPLE,
	    LWM_OPT_CHOICE(0, "loss-weighting", NULL, weighting_names, "every example weighs the same, every token, or every row", 0)),
	SET(text_weight, LWM_FIXED, 0,
	    LWM_OPT_DOUBLE(0, "text-weight", NULL, 0, 1e6, "X", "of the loss of text, beside --vision-weight; see below", 0)),
	SET(vision_weight, LWM_FIXED, 0,
	    LWM_OPT_DOUBLE(0, "vision-weight", NULL, 0, 1e6, "X", "of the loss of vision; both 0: one loss (published: 0.5 each)", 0)),
	LWM_SECTION("Model"),
	SET(dim, LWM_MODEL, 0, LWM_OPT_INT(0, "dim", NULL, 0, 1 << 20, "N", "width, over the preset", 0)),
	SET(ffn, LWM_MODEL, 0, LWM_OPT_INT(0, "ffn", NULL, 0, 1 << 22, "N", "MLP width, over the preset", 0)),
	SET(layers, LWM_MODEL, 0, LWM_OPT_INT(0, "layers", NULL, 0, 1024, "N", "layers, over the preset", 0)),
	SET(heads, LWM_MODEL, 0, LWM_OPT_INT(0, "heads", NULL, 0, 1024, "N", "query heads, over the preset", 0)),
	SET(kv_heads, LWM_MODEL, 0, LWM_OPT_INT(0, "kv-heads", NULL, 0, 1024, "N", "key/value heads, over the preset", 0)),
	SET(vocab, LWM_MODEL, 0, LWM_OPT_INT(0, "vocab", NULL, 0, 1 << 24, "N", "text vocabulary; 0: that of the rows", 0)),
	SET(vision_codes, LWM_MODEL, 0,
	    LWM_OPT_INT(0, "vision-codes", NULL, 0, 1 << 20, "N", "image codes; 0: what the rows say", 0)),
	SET(tie, LWM_MODEL, 0, LWM_OPT_FLAG(0, "tie", NULL, "head and embedding share one table")),
	SET(theta, LWM_FIXED | LWM_SHOWN, 10000, LWM_OPT_DOUBLE(0, "theta", NULL, 1, 1e15, "X", "base of the rotary angles", 0)),
	SET(norm_eps, LWM_MODEL, 0,
	    LWM_OPT_DOUBLE(0, "norm-eps", NULL, 0, 1, "X", "of RMSNorm; 0: what --start-from says, else the preset's", 0)),
	SET(init_std, LWM_MODEL, 0,
	    LWM_OPT_DOUBLE(0, "init-std", NULL, 0, 10, "X", "of first weights; 0: the preset's (0.02; small models: 1/sqrt(dim))", 0)),
	LWM_SECTION("Ranks and memory"),
	SET(ring_layout, LWM_FREE, LWM_RING_BALANCED,
	    LWM_OPT_CHOICE(0, "ring-layout", NULL, lwm_ring_layouts,
			   "who holds which tokens of a row; balanced: equal work, whatever the documents", 0)),
	SET(no_recompute, LWM_ROUNDED, 0,
	    LWM_OPT_FLAG(0, "no-recompute", NULL, "keep all activations of a layer instead of computing them again")),
	SET(offload, LWM_FREE, LWM_OFFLOAD_AUTO,
	    LWM_OPT_CHOICE(0, "offload", NULL, offload_names,
			   "what is kept of each layer waits in host memory; auto: where the GPU is too small", 0)),
	SET(kept, LWM_FIXED, LWM_KEPT_EXACT,
	    LWM_OPT_CHOICE(0, "keep-activations", NULL, kept_names, "what is kept of each layer, as computed or rounded", 0)),
	SET(head_groups, LWM_ROUNDED, 1,
	    LWM_OPT_INT(0, "head-groups", NULL, 1, 1024, "N", "heads in N groups, one after the other: less memory", 0)),
	SET(mlp_chunk, LWM_ROUNDED, 0,
	    LWM_OPT_INT(0, "scan-mlp-chunk-size", NULL, 0, 1 << 24, "N", "tokens of the MLP at a time; 0: 4096", 0)),
	SET(loss_mib, LWM_ROUNDED, 0, LWM_OPT_INT(0, "loss-mib", NULL, 0, 1 << 20, "N", "most MiB of logits at a time; 0: 128", 0)),
	LWM_SECTION("Checkpoints and records"),
	SET(sample_given, LWM_FREE, 32,
	    LWM_OPT_INT(0, "sample-given", NULL, 1, 1 << 20, "N", "tokens of a document that a sample begins with, half of it at most", 0)),
	SET(sample_tokens, LWM_FREE, 64, LWM_OPT_INT(0, "sample-tokens", NULL, 1, 1 << 20, "N", "that the model adds, at most", 0)),
	SET(sample_temperature, LWM_FREE, 0,
	    LWM_OPT_DOUBLE(0, "sample-temperature", NULL, 0, 100, "X", "they are drawn; 0: the likeliest one each time", 0)),
	LWM_SETTINGS_END
};

struct lwm_next_token *lwm_next_token_of(const struct lwm_stage *s)
{
	return lwm_settings_of(s, settings);
}

/* ---- data ---- */

/* Are they what --data may say, and is what is read once the same all the time? */
static int check_sources(const struct lwm_paths *data, bool once, struct lwm_err *e)
{
	struct lwm_loader_source *src;
	LWM_TRY(lwm_sources_parse(data, &src, e));
	int rc = once && lwm_sources_change(src, data->n)
			 ? lwm_fail(e, LWM_ECONFIG, "--eval-data: held-out rows are read once, their shares cannot change over the steps")
			 : lwm_sources_check(src, data->n, e);
	lwm_sources_free(src, data->n);
	return rc;
}

/* how: what differs from loader to loader. */
static int open_loader(const struct lwm_nt *t, const struct lwm_paths *data, struct lwm_loader_cfg how, struct lwm_loader **out,
		       struct lwm_err *e)
{
	const struct lwm_stage *s = t->base.stage;
	const struct lwm_next_token *set = t->set;
	struct lwm_loader_source *src;
	int rc = lwm_sources_parse(data, &src, e);
	if (how.comm)
		rc = lwm_agree(how.comm, rc, e);
	if (rc < 0) {
		lwm_sources_free(src, data->n);
		return rc;
	}
	how.source = src;
	how.nsources = data->n;
	how.seed = (uint64_t)s->seed;
	how.weighting = (enum lwm_weighting)set->weighting;
	how.text_weight = set->text_weight;
	how.vision_weight = set->vision_weight;
	how.vision = set->vision_codes || t->info.vocab > t->info.vocab_text;
	how.seq_length = set->seq_length;
	rc = lwm_loader_open(out, &how, e);
	lwm_sources_free(src, data->n);
	return rc;
}

/* This rank's share of the rows of a step; all ranks open it. */
static struct lwm_loader_cfg share_of(const struct lwm_nt *t)
{
	return (struct lwm_loader_cfg){ .rows_per_step = t->cut.rows_step,
					.rank = lwm_mesh_rank(t->base.mesh, LWM_DATA),
					.ranks = lwm_mesh_ranks(t->base.mesh, LWM_DATA),
					.micro_rows = t->cut.micro_rows,
					.in_turn = t->base.stage->sum_order == LWM_SUM_CANONICAL,
					.comm = t->base.mesh->world };
}

/* Rows a step and rows at a time; by default as many rows at a time as make 16K tokens, at least one; where the sum is one of
 * microbatches that must not depend on the number of ranks, one. */
static int cut_step(struct lwm_nt_cut *t, const struct lwm_stage *s, const struct lwm_mesh *m, struct lwm_err *e)
{
	const struct lwm_next_token *set = lwm_next_token_of(s);
	int ranks = lwm_mesh_ranks(m, LWM_DATA);
	int64_t per_rank;
	if (set->seq_length < 2)
		return lwm_fail(e, LWM_EUSAGE, "--seq-length must be given");
	if (set->tokens_per_batch % set->seq_length)
		return lwm_fail(e, LWM_ECONFIG, "--tokens-per-batch %" PRId64 " is not a multiple of --seq-length %" PRId64,
				set->tokens_per_batch, set->seq_length);
	t->rows_step = set->tokens_per_batch / set->seq_length;
	if (t->rows_step == 0 || t->rows_step % ranks)
		return lwm_fail(e, LWM_ECONFIG, "%" PRId64 " rows a step do not divide among %d data ranks (dp x fsdp)",
				t->rows_step, ranks);
	per_rank = t->rows_step / ranks;
	t->micro_rows = set->micro_rows;
	if (!t->micro_rows && s->sum_order == LWM_SUM_CANONICAL)
		t->micro_rows = 1;
	if (!t->micro_rows) {
		t->micro_rows = 16384 / set->seq_length;
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
	LWM_TRY(lwm_ring_check((enum lwm_ring_layout)set->ring_layout, set->seq_length, m->dim[LWM_SP], e));
	t->local = t->micro_rows * (set->seq_length / m->dim[LWM_SP]);
	return 0;
}

/* The sources of the training rows, as metrics and plans say them. */
static int keep_sources(struct lwm_nt *t, struct lwm_err *e)
{
	const struct lwm_stage *s = t->base.stage;
	int rc = lwm_sources_parse(&s->data, &t->sources, e);
	t->nsources = rc < 0 ? 0 : s->data.n;
	if (rc == 0 && s->eval_rows)
		rc = lwm_sources_parse(&s->eval_data, &t->eval_sources, e);
	t->neval_sources = rc < 0 || !s->eval_rows ? 0 : s->eval_data.n;
	t->source_rows = calloc((size_t)t->nsources + 1, sizeof *t->source_rows);
	if (rc == 0 && !t->source_rows)
		rc = lwm_fail_memory(e, NULL);
	if (t->base.mesh->world)
		rc = lwm_agree(t->base.mesh->world, rc, e);
	LWM_TRY(rc);
	return s->planning ? lwm_nt_tell_sources(t, e) : 0;
}

static int open_data(struct lwm_nt *t, struct lwm_err *e)
{
	const struct lwm_stage *s = t->base.stage;
	const struct lwm_next_token *set = t->set;
	struct lwm_loader_cfg how = share_of(t);
	how.prefetch = !s->planning;
	LWM_TRY(lwm_objective_absent(&t->base, open_loader(t, &s->data, how, &t->train, e), e));
	if (t->train) {
		t->info = *lwm_loader_info_of(t->train);
		return 0;
	}
	/* a plan may be asked for before the data is made */
	t->info.vocab_text = set->vocab ? set->vocab : 32000;
	t->info.vocab = t->info.vocab_text + (set->vision_codes ? set->vision_codes + 2 : 0);
	return 0;
}

static int check_tokenizer(const struct lwm_nt *t, struct lwm_err *e)
{
	const struct lwm_stage *s = t->base.stage;
	struct lwm_tokenizer *tok;
	if (!s->tokenizer)
		return 0;
	int rc = lwm_tokenizer_open_as(&tok, s->tokenizer, lwm_model_check_file,
					t->train ? t->info.tokenizer.hex : NULL, "a row shard of --data", e);
	if (rc == 0)
		lwm_tokenizer_free(tok);
	return rc;
}

/* Of all held-out rows, on the rank that writes the numbers down. */
static int count_targets(struct lwm_nt *t, struct lwm_err *e)
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
static int open_eval(struct lwm_nt *t, struct lwm_err *e)
{
	const struct lwm_stage *s = t->base.stage;
	struct lwm_loader_cfg how = share_of(t);
	if (!s->eval_data.n || !s->eval_rows)
		return 0;
	how.once = s->eval_rows;
	return open_loader(t, &s->eval_data, how, &t->eval, e);
}

/* The rows that samples begin with, the same on all ranks. */
static int open_shown(struct lwm_nt *t, struct lwm_loader **out, struct lwm_err *e)
{
	const struct lwm_stage *s = t->base.stage;
	struct lwm_loader_cfg how = { .ranks = 1, .micro_rows = 1, .comm = t->base.mesh->world };
	*out = NULL;
	if (!s->sample_every || s->planning)
		return 0;
	how.once = t->eval ? s->samples : 0;
	how.rows_per_step = s->samples;
	return open_loader(t, t->eval ? &s->eval_data : &s->data, how, out, e);
}

/* All that ranks open together first. */
static int open_held_out(struct lwm_nt *t, struct lwm_err *e)
{
	struct lwm_loader *shown = NULL;
	LWM_TRY(open_eval(t, e));
	int rc = open_shown(t, &shown, e);
	if (rc == 0 && shown)
		rc = lwm_nt_take_shown(t, shown, e);
	lwm_loader_close(shown);
	return rc == 0 && t->eval && !t->base.stage->planning ? count_targets(t, e) : rc;
}

/* ---- life ---- */

static int check_settings(const struct lwm_stage *s, const struct lwm_mesh *m, struct lwm_err *e)
{
	const struct lwm_next_token *set = lwm_next_token_of(s);
	struct lwm_llama_cfg c;
	struct lwm_nt_cut cut;
	LWM_TRY(cut_step(&cut, s, m, e));
	LWM_TRY(lwm_nt_shape(&c, s, set, e));
	if (!set->vocab) /* the rows will say */
		c.vocab_text = m->dim[LWM_TP];
	LWM_TRY(lwm_llama_check_tp(&c, m->dim[LWM_TP], e));
	struct lwm_llama_run run = { .tokens = cut.local, .train = true, .recompute = !set->no_recompute,
				     .offload = set->offload == LWM_OFFLOAD_TRUE, .head_groups = set->head_groups,
				     .keep_bf16 = set->kept == LWM_KEPT_BF16 };
	LWM_TRY(lwm_llama_check_run(&c, &run, m->dim[LWM_TP], e));
	if (cut.local % m->dim[LWM_TP])
		return lwm_fail(e, LWM_ECONFIG, "%" PRId64 " tokens of a sequence rank cannot be divided over %d tensor-parallel "
				"ranks", cut.local, m->dim[LWM_TP]);
	if (s->sample_every && m->dim[LWM_SP] > 1)
		return lwm_fail(e, LWM_ECONFIG, "--sample-every: with sp > 1 (mesh_dim '%s') no rank has a whole text to go on from; dp, "
				"fsdp and tp may be any", s->mesh_dim);
	LWM_TRY(check_sources(&s->data, false, e));
	return s->eval_rows ? check_sources(&s->eval_data, true, e) : 0;
}

static const char *vary_way(const struct lwm_stage *s, int i)
{
	static const struct {
		bool no_recompute;
		enum lwm_offload_when offload;
		const char *text;
	} ways[] = { { true, LWM_OFFLOAD_FALSE, " --no-recompute" },
		     { false, LWM_OFFLOAD_FALSE, " --offload false" },
		     { false, LWM_OFFLOAD_TRUE, " --offload true" } };
	struct lwm_next_token *set = lwm_next_token_of(s);

	if (i < 0 || i >= (int)(sizeof ways / sizeof *ways))
		return NULL;
	set->no_recompute = ways[i].no_recompute;
	set->offload = ways[i].offload;
	return ways[i].text;
}

static void close_objective(struct lwm_objective *o)
{
	struct lwm_nt *t = (struct lwm_nt *)o;
	lwm_llama_free(t->net);
	lwm_loader_close(t->train);
	lwm_loader_close(t->eval);
	lwm_nt_release_shown(t);
	lwm_ring_deal_release(&t->deal);
	free(t->tok);
	free(t->target);
	free(t->seg);
	free(t->pos);
	free(t->weight);
	free(t->source);
	free(t->ring_seg);
	free(t->ring_pos);
	free(t->all_sums);
	lwm_sources_free(t->sources, t->nsources);
	lwm_sources_free(t->eval_sources, t->neval_sources);
	free(t->source_rows);
}

static int open_objective(struct lwm_objective *o, struct lwm_err *e)
{
	struct lwm_nt *t = (struct lwm_nt *)o;
	const struct lwm_stage *s = o->stage;
	t->set = lwm_next_token_of(s);
	o->dtype = s->planning && s->plan_gib ? LK_BF16 : lk_dev_dtype(o->dev);
	LWM_TRY(cut_step(&t->cut, s, o->mesh, e));
	LWM_TRY(keep_sources(t, e));
	LWM_TRY(open_data(t, e));
	LWM_TRY(lwm_objective_absent(o, open_held_out(t, e), e));
	LWM_TRY(lwm_objective_absent(o, check_tokenizer(t, e), e));
	LWM_TRY(lwm_nt_configure(t, e));
	o->passes = t->cut.rows_step / lwm_mesh_ranks(o->mesh, LWM_DATA) / t->cut.micro_rows;
	LWM_TRY(lwm_nt_place(t, e));
	o->tokenizer_hash = t->info.tokenizer.hex;
	memcpy(o->data, t->info.content.hex, sizeof o->data);
	o->units_per_step = t->set->tokens_per_batch;
	o->most_flops = lwm_nt_most_flops(t);
	return 0;
}

const struct lwm_objective_type lwm_objective_next_token = {
	.kind = "lwm",
	.unit = "tok",
	.settings = settings,
	.settings_size = sizeof(struct lwm_next_token),
	.size = sizeof(struct lwm_nt),
	.by_group = true,
	.by_row = true,
	.scales = true,
	.check = check_settings,
	.open = open_objective,
	.attach = lwm_nt_attach,
	.step = lwm_nt_step,
	.eval = lwm_nt_eval,
	.sample = lwm_nt_sample,
	.norm = lwm_nt_norm,
	.render = lwm_nt_render,
	.flops = lwm_nt_flops,
	.work = lwm_nt_work,
	.vary = vary_way,
	.close = close_objective,
};
