/* llama.c - the life of a model's work memory. */
#include <inttypes.h>
#include <stdlib.h>

#include "common/base/log.h"
#include "common/base/num.h"
#include "common/model/llama_int.h"

/* What training in little memory does not go with. */
static int check_lean(const struct lwm_llama_cfg *c, const struct lwm_llama_run *r, int tp, struct lwm_err *e)
{
	const char *what = r->keep_bf16 ? "keeping activations in bf16" : "heads in groups";

	if (r->head_groups < 0 || (r->head_groups > 1 && (c->heads % r->head_groups || c->kv_heads % r->head_groups)))
		return lwm_fail(e, LWM_ECONFIG, "%" PRId64 " heads and %" PRId64 " key heads cannot be cut into %" PRId64 " groups",
				c->heads, c->kv_heads, r->head_groups);
	if (!r->train || (!r->keep_bf16 && r->head_groups <= 1))
		return 0;
	if (!r->recompute)
		return lwm_fail(e, LWM_ECONFIG, "%s needs recomputation: without it all of a layer is kept", what);
	if (r->offload)
		return lwm_fail(e, LWM_ECONFIG, "%s does not go with activations in host memory", what);
	if (tp > 1)
		return lwm_fail(e, LWM_ECONFIG, "%s does not go with tensor parallelism, which divides heads over ranks", what);
	if (r->attention)
		return lwm_fail(e, LWM_EINTERNAL, "%s with an attention that is made for all heads", what);
	return 0;
}

int lwm_llama_check_run(const struct lwm_llama_cfg *c, const struct lwm_llama_run *r, int tp, struct lwm_err *e)
{
	int64_t bytes;

	LWM_TRY(lwm_llama_check(c, e));
	LWM_TRY(lwm_llama_check_tp(c, tp, e));
	if (r->tokens < 1 || r->tokens > INT32_MAX || r->mlp_chunk < 0 || r->loss_bytes < 0)
		return lwm_fail(e, LWM_ECONFIG, "a step of %" PRId64 " tokens is outside 1 to %d, or a chunk size is negative",
				r->tokens, INT32_MAX);
	if (c->input_dim && r->ring && lwm_comm_size(lwm_devcomm_comm(r->ring)) > 1)
		return lwm_fail(e, LWM_ECONFIG, "a trunk over vectors cannot be divided over ranks that share a row");
	if (r->offload && r->train && !r->recompute)
		return lwm_fail(e, LWM_ECONFIG, "activations in host memory need recomputation: only then a layer keeps little "
				"enough");
	LWM_TRY(check_lean(c, r, tp, e));
	if (lwm_mul3(r->tokens * 4, 32 * (c->dim + c->ffn) + c->heads, c->layers + 4, &bytes))
		return lwm_fail(e, LWM_EMEMORY, "activations of %" PRId64 " tokens need more bytes than a 64-bit number "
				"counts", r->tokens);
	return 0;
}

static int allocate_memory(struct lwm_llama *m, struct lwm_err *e)
{
	struct lwm_attn_ring_shape s = lwm_ring_shape(&m->cut, &m->run);
	void *block;

	m->host_i = malloc((size_t)m->run.tokens * 2 * sizeof *m->host_i);
	m->host_f = malloc((size_t)m->run.tokens * 2 * sizeof *m->host_f);
	if (!m->host_i || !m->host_f)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a step of %" PRId64 " tokens", m->run.tokens);
	LWM_TRY(lwm_dev_check(m->dev, lk_mem_alloc(m->dev, (size_t)m->plan.total, &block), e));
	m->block = block;
	if (m->run.offload && m->run.train)
		LWM_TRY(lwm_offload_new(m, e));
	m->attention = m->run.attention;
	if (m->attention)
		return 0;
	LWM_TRY(lwm_attn_ring_new(&m->own, m->dev, m->run.ring, &s, e));
	m->attention = m->own;
	return 0;
}

/* Key heads in several places are computed several times: that should be known. (Of all ranks only the first is heard.) */
static void say_shared_heads(const struct lwm_llama *m)
{
	if (m->cfg.kv_heads < m->cut.n && m->cut.rank == 0)
		lwm_log(LWM_INFO, "fewer key heads (%" PRId64 ") than tensor-parallel ranks (%d): each is held, and computed, by "
			"%" PRId64 " of them", m->cfg.kv_heads, m->cut.n, m->cut.n / m->cfg.kv_heads);
}

int lwm_llama_new(struct lwm_llama **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg,
		  const struct lwm_llama_run *run, struct lwm_err *e)
{
	struct lwm_comm *tp = run->tp ? lwm_devcomm_comm(run->tp) : NULL;
	int ranks = tp ? lwm_comm_size(tp) : 1;
	struct lwm_llama *m;
	int rc = 0;

	*out = NULL;
	LWM_TRY(lwm_llama_check_run(cfg, run, ranks, e));
	m = calloc(1, sizeof *m);
	if (!m)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a model");
	m->dev = dev;
	m->cfg = *cfg;
	m->run = *run;
	m->cut = lwm_llama_cut_of(cfg, tp ? lwm_comm_rank(tp) : 0, ranks);
	m->group = lwm_head_group(&m->cut, run);
	m->dtype = lk_dev_dtype(dev);
	say_shared_heads(m);
	lwm_plan_bufs(&m->plan, cfg, &m->cut, run, m->dtype);
	LWM_GO(lwm_map_new(&m->map, cfg, ranks, e));
	LWM_GO(allocate_memory(m, e));
	*out = m;
out:
	if (rc < 0)
		lwm_llama_free(m);
	return rc;
}

void lwm_llama_free(struct lwm_llama *m)
{
	if (!m)
		return;
	lwm_attn_free(m->own);
	lwm_offload_free(m->offload);
	lwm_map_release(&m->map);
	lk_mem_free(m->dev, m->block);
	free(m->host_i);
	free(m->host_f);
	free(m);
}
