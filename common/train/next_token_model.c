/* The objective next-token: the model that its settings and rows ask for, and what it takes. */
#include <inttypes.h>
#include <stdlib.h>

#include "common/base/log.h"
#include "common/comm/device.h"
#include "common/io/source.h"
#include "common/model/llama_json.h"
#include "common/train/next_token_int.h"
#include "common/train/start.h"
#include "common/train/supply.h"

static void override_size(int64_t *dst, int64_t value)
{
	if (value)
		*dst = value;
}

int lwm_nt_shape(struct lwm_llama_cfg *c, const struct lwm_stage *s, const struct lwm_next_token *set, struct lwm_err *e)
{
	LWM_TRY(lwm_llama_preset(c, s->model, e));
	override_size(&c->dim, set->dim);
	override_size(&c->ffn, set->ffn);
	override_size(&c->layers, set->layers);
	if (set->heads)
		c->kv_heads = c->heads = set->heads;
	override_size(&c->kv_heads, set->kv_heads);
	override_size(&c->vocab_text, set->vocab);
	c->tie_embeddings = c->tie_embeddings || set->tie;
	c->max_seq = set->seq_length;
	c->rope_theta = set->theta;
	if (set->init_std > 0)
		c->init_std = set->init_std;
	if (set->norm_eps > 0)
		c->rms_eps = set->norm_eps;
	return lwm_llama_check(c, e);
}

/* The configuration of the language model that weights may come from; -LWM_ENOINPUT: nothing is there. Of a checkpoint only the
 * record is read: whoever wants the weights looks at them. */
static int read_config(struct lwm_llama_cfg *c, const char *source, bool older_ok, struct lwm_err *e)
{
	struct lwm_source s;
	int rc = lwm_source_open(&s, source, older_ok, LWM_CKPT_SEAL, e);
	if (rc == 0 && !lwm_source_config(&s))
		rc = lwm_fail(e, LWM_EDATA, "%s: its record holds no model configuration", s.dir);
	if (rc == 0)
		rc = lwm_llama_from_json(c, lwm_source_config(&s), s.dir, e);
	lwm_source_close(&s);
	return rc;
}

/* The model that training starts from has this one's sizes, or another model would be trained than that; its norms' epsilon is
 * taken over. One that does not exist or is damaged is reported when its weights are wanted; a resumed run wants none. */
int lwm_nt_match_source(const struct lwm_objective *o, const struct lwm_next_token *set, struct lwm_llama_cfg *c, struct lwm_err *e)
{
	const struct lwm_stage *s = o->stage;
	struct lwm_start from;
	struct lwm_llama_cfg have;
	struct lwm_err why = { 0 };
	LWM_TRY(lwm_start_parse(&from, s->start_from, e));
	if (!from.source)
		return 0;
	int rc = read_config(&have, from.source, s->older_ok, &why);
	if (rc == -LWM_ENOINPUT || rc == -LWM_EDATA)
		return 0;
	if (rc < 0) {
		*e = why;
		return rc;
	}
	if (!from.trunk && (have.input_dim > 0) != (c->input_dim > 0))
		return lwm_fail(e, LWM_ECONFIG, "--start-from %s: takes %s, this stage %s: only their layers are the same (trunk-%s)",
				s->start_from, have.input_dim ? "vectors" : "tokens", c->input_dim ? "vectors" : "tokens", from.source);
	const struct {
		const char *name;
		int64_t theirs, ours;
	} size[] = { { "dim", have.dim, c->dim }, { "ffn", have.ffn, c->ffn }, { "layers", have.layers, c->layers },
		     { "heads", have.heads, c->heads }, { "kv-heads", have.kv_heads, c->kv_heads },
		     { "tie", from.trunk ? c->tie_embeddings : have.tie_embeddings, c->tie_embeddings } };
	for (size_t i = 0; i < sizeof size / sizeof *size; i++)
		if (size[i].theirs != size[i].ours)
			return lwm_fail(e, LWM_ECONFIG, "--start-from %s: has --%s %" PRId64 ", this stage %" PRId64, s->start_from,
					size[i].name, size[i].theirs, size[i].ours);
	if (!(set->norm_eps > 0))
		c->rms_eps = have.rms_eps;
	if (!from.trunk && c->max_seq > have.max_seq && c->rope_theta == have.rope_theta && lwm_comm_rank(o->mesh->world) == 0)
		lwm_log(LWM_WARN, "--seq-length %" PRId64 ": --start-from %s was made for %" PRId64 " tokens with the same --theta %g: longer "
			"contexts are learnt faster with a larger one", c->max_seq, s->start_from, have.max_seq, c->rope_theta);
	return 0;
}

int lwm_nt_configure(struct lwm_nt *t, struct lwm_err *e)
{
	const struct lwm_stage *s = t->base.stage;
	const struct lwm_next_token *set = t->set;
	struct lwm_llama_cfg *c = &t->cfg;
	LWM_TRY(lwm_nt_shape(c, s, set, e));
	c->vocab_text = set->vocab ? set->vocab : t->info.vocab_text;
	if (c->vocab_text != t->info.vocab_text)
		return lwm_fail(e, LWM_ECONFIG, "--vocab %" PRId64 ", but the rows were made with a vocabulary of %" PRId64,
				c->vocab_text, t->info.vocab_text);
	/* rows with vision codes say so by a larger vocabulary; codes = vocabulary - text - 2 markers */
	if (set->vision_codes)
		lwm_llama_add_vision(c, set->vision_codes);
	else if (t->info.vocab > t->info.vocab_text)
		lwm_llama_add_vision(c, t->info.vocab - t->info.vocab_text - 2);
	if (t->info.vocab > lwm_llama_ids(c))
		return lwm_fail(e, LWM_ECONFIG, "the rows hold ids up to %" PRId64 ", the model has room for %" PRId64,
				t->info.vocab - 1, lwm_llama_ids(c));
	LWM_TRY(lwm_nt_match_source(&t->base, set, c, e));
	LWM_TRY(lwm_llama_check(c, e));
	LWM_TRY(lwm_llama_check_tp(c, t->base.mesh->dim[LWM_TP], e));
	LWM_TRY(lwm_llama_tensors(&t->base.tensors, c, e));
	LWM_TRY(lwm_objective_localize(&t->base, e));
	return lwm_llama_to_json(c, &t->base.config, e);
}

/* ---- memory ---- */

/* Device memory that the plan or the choice of offload goes by. */
static int room_of(struct lwm_nt *t, int64_t *room, struct lwm_err *e)
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
static int64_t batch_bytes(const struct lwm_nt *t)
{
	const struct lwm_stage *s = t->base.stage;
	return (s->eval_data.n && s->eval_rows ? 4 : 2) * t->cut.micro_rows * t->set->seq_length * LWM_NT_TOKEN_BYTES;
}

/* What else a rank takes, and the longest row: on a host, beside the program itself, and with nowhere else to put activations. */
static int size_plan(struct lwm_nt *t, const struct lwm_llama_run *how, int64_t room, struct lwm_err *e)
{
	const struct lwm_stage *s = t->base.stage;
	bool host = lk_dev_is_host(t->base.dev) && !s->plan_gib;
	struct lk_dev *dev = host ? t->base.dev : NULL;
	struct lwm_llama_run run = *how;
	int sp = t->base.mesh->dim[LWM_SP], tp = t->base.mesh->dim[LWM_TP];
	t->base.own_bytes = lwm_llama_own(t->base.dev, &t->cfg, &run, tp);
	t->base.array_bytes = lwm_llama_arrays(&run, sp) + t->cut.local * LWM_NT_SHARE_BYTES + batch_bytes(t);
	if (s->sum_order == LWM_SUM_CANONICAL)
		t->base.array_bytes += lwm_mesh_ranks(t->base.mesh, LWM_DATA) * (int64_t)sizeof *t->all_sums;
	t->base.exchange_bytes = lwm_comm_work(tp, t->cut.local * t->cfg.dim); /* where tp ranks add up what is of these tokens */
	t->base.array_bytes += t->base.exchange_bytes;
	run.offload = false;
	t->base.longest = lwm_llama_longest(dev, &t->cfg, &run, t->base.dtype, room, INT64_MAX);
	if (host)
		return sp > 1 ? lwm_nt_ring_fills(t, &t->base.ring_fills, e) : 0;
	run.offload = run.recompute && !lwm_llama_is_lean(&run, t->base.dtype);
	t->base.longest_offload = lwm_llama_longest(dev, &t->cfg, &run, t->base.dtype, room, INT64_MAX);
	run.tokens = t->base.longest_offload;
	t->base.longest_host_bytes = run.tokens ? lwm_llama_memory(&t->cfg, &run, t->base.dtype, 1, 1).host : 0;
	return 0;
}

/* What activations take, and whether they go to the host. auto: where they do not fit beside weights and optimizer state; never
 * where the device's memory is the host's. */
int lwm_nt_place(struct lwm_nt *t, struct lwm_err *e)
{
	const struct lwm_stage *s = t->base.stage;
	const struct lwm_mesh *m = t->base.mesh;
	struct lwm_llama_run run = lwm_nt_run(t);
	int sp = m->dim[LWM_SP];
	int64_t room, weights;
	struct lwm_cut cut;
	bool gpu = (!lk_dev_is_host(t->base.dev) || s->plan_gib) && !lwm_llama_is_lean(&run, t->base.dtype);
	LWM_TRY(room_of(t, &room, e));
	LWM_TRY(lwm_stage_cut(&cut, &t->base, 0, e));
	weights = lwm_stage_room_of(&t->base, &cut).weights;
	lwm_cut_release(&cut);
	struct lwm_llama_bytes need = lwm_llama_memory(&t->cfg, &run, t->base.dtype, sp, m->dim[LWM_TP]);
	t->offload = t->set->offload == LWM_OFFLOAD_TRUE ||
		     (t->set->offload == LWM_OFFLOAD_AUTO && gpu && run.recompute && weights + need.total > room);
	run.offload = t->offload;
	need = lwm_llama_memory(&t->cfg, &run, t->base.dtype, sp, m->dim[LWM_TP]);
	t->base.memory_bytes = need.total;
	t->base.ring_bytes = t->base.ring_fills = need.ring;
	t->base.host_bytes = need.host;
	return s->planning ? size_plan(t, &run, room, e) : 0;
}
