/* cache.c - keys and values of one stream, whole or this rank's share.
 *
 * A slot is a row: keys of all heads, then values. In the device's own dtype a row is copied in and attention reads it where it
 * lies. In fewer bits it is rounded on its way in; few queries read it as it is, many would convert it again and again, so for them
 * a piece of the cache at a time becomes floats and the attention state is carried from piece to piece.
 */
#include "common/infer/cache_int.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/comm/device.h"
#include "common/comm/watchdog.h"

enum { SEQ_STEP = 256 }; /* the table of key positions grows by so much */

/* Slots of each rank for a context of max_len: an even share of prompt and of what follows, and what rounding takes. */
static int64_t slots_for(int64_t max_len, int ranks)
{
	return ranks == 1 ? max_len : max_len / ranks + 4;
}

const char *const lwm_cache_kinds[] = { "auto", "f32", "bf16", "int8", NULL };

/* Of one layer: keys and values of all slots; their scales come after them. */
static int64_t data_bytes(const struct lwm_llama_cfg *c, int64_t slots, int dtype)
{
	return lwm_round64(slots * 2 * c->kv_heads * lwm_llama_head_dim(c) * (int64_t)lk_dtype_size(dtype));
}

int64_t lwm_cache_bytes(const struct lwm_llama_cfg *c, int64_t max_len, int dtype)
{
	int64_t row = 2 * c->kv_heads * (lwm_llama_head_dim(c) + 4) * 4, bytes;

	if (lwm_mul3(c->layers, max_len + 64, row, &bytes)) // generous, and a number
		return -1;
	return c->layers * (data_bytes(c, max_len, dtype) + (dtype == LK_I8 ? max_len * 2 * c->kv_heads * 4 : 0));
}

static void forget_keys(struct lwm_cache *c)
{
	lk_seq_free(c->keys);
	c->keys = NULL;
	c->nkeys = 0;
	while (c->pieces)
		lk_seq_free(c->piece[--c->pieces]);
}

/* Slots filled so far hold their positions; the next ones follow from the rule of who takes new tokens. */
static void plan_slots(struct lwm_cache *c)
{
	int64_t p = c->length;

	for (int64_t i = c->filled; i < c->slots; i++, p++) {
		while (!lwm_cache_keeps(c, p))
			p++;
		c->pos[i] = (int32_t)p;
	}
	forget_keys(c);
}

static int allocate_slots(struct lwm_cache *c, int64_t bytes, struct lwm_err *e)
{
	void *data;

	c->pos = malloc((size_t)c->slots * sizeof *c->pos);
	if (!c->pos)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a cache of %" PRId64 " tokens", c->max_len);
	LWM_TRY(lwm_dev_check(c->dev, lk_mem_alloc(c->dev, (size_t)bytes, &data), e));
	c->data = data;
	plan_slots(c);
	// what follows the end is masked, but 0 times NaN would show
	return lwm_dev_check(c->dev, lk_zero(c->dev, data, (size_t)bytes), e);
}

int lwm_cache_new(struct lwm_cache **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg, int64_t max_len, int dtype,
		  struct lwm_comm *shared, struct lwm_err *e)
{
	int ranks = shared ? lwm_comm_size(shared) : 1, rc;
	int64_t slots = slots_for(max_len, ranks), bytes = max_len < 1 ? -1 : lwm_cache_bytes(cfg, slots, dtype);
	struct lwm_cache *c;

	*out = NULL;
	if (bytes < 0 || max_len > INT32_MAX)
		return lwm_fail(e, LWM_ECONFIG, "a cache for %" PRId64 " tokens is not possible", max_len);
	c = calloc(1, sizeof *c);
	if (!c)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a cache of %" PRId64 " tokens", max_len);
	c->dev = dev;
	c->cfg = *cfg;
	c->dtype = dtype;
	c->ranks = ranks;
	c->rank = shared ? lwm_comm_rank(shared) : 0;
	c->max_len = max_len;
	c->slots = slots;
	c->row = 2 * cfg->kv_heads * lwm_llama_head_dim(cfg);
	c->layer_bytes = bytes / cfg->layers;
	c->scale_at = data_bytes(cfg, slots, dtype);
	rc = allocate_slots(c, bytes, e);
	if (shared)
		rc = lwm_agree(shared, rc, e);
	if (rc < 0)
		lwm_cache_free(c);
	else
		*out = c;
	return rc;
}

void lwm_cache_free(struct lwm_cache *c)
{
	if (!c)
		return;
	forget_keys(c);
	free(c->piece);
	lk_mem_free(c->dev, c->data);
	free(c->pos);
	free(c);
}

int64_t lwm_cache_length(const struct lwm_cache *c)
{
	return c->length;
}

int64_t lwm_cache_room(const struct lwm_cache *c)
{
	return c->max_len - c->length;
}

void lwm_cache_rewind(struct lwm_cache *c, int64_t length)
{
	if (length < 0 || length >= c->length)
		return;
	c->length = length;
	while (c->filled && c->pos[c->filled - 1] >= length)
		c->filled--;
	if (c->ranks > 1)
		plan_slots(c);
}

/* Makes the table of key positions reach to `need` slots. */
static int reach_slots(struct lwm_cache *c, int64_t need, struct lwm_err *e)
{
	int64_t n = (need + SEQ_STEP - 1) / SEQ_STEP * SEQ_STEP;

	if (need > c->slots) // only after a rewind into a shared prompt, which leaves ranks with unequal shares
		return lwm_fail(e, LWM_ECONFIG, "this rank's share of the context, %" PRId64 " tokens, is full", c->slots);
	n = n < c->slots ? n : c->slots;
	if (!need || (c->keys && c->nkeys >= need && c->nkeys < n + SEQ_STEP))
		return 0;
	forget_keys(c);
	c->nkeys = n;
	return lwm_dev_check(c->dev, lk_seq_new(c->dev, &c->keys, n, c->pos, NULL), e);
}

/* c->piece for the present keys. */
static int cut_pieces(struct lwm_cache *c, struct lwm_err *e)
{
	int64_t n = (c->nkeys + LWM_CACHE_PIECE - 1) / LWM_CACHE_PIECE;
	struct lk_seq **piece;

	if (c->pieces == n)
		return 0;
	piece = realloc(c->piece, (size_t)n * sizeof *piece);
	if (!piece)
		return lwm_fail(e, LWM_EMEMORY, "no memory for %" PRId64 " pieces of a cache", n);
	c->piece = piece;
	for (; c->pieces < n; c->pieces++) {
		int64_t from = c->pieces * LWM_CACHE_PIECE, left = c->nkeys - from;

		LWM_TRY(lwm_dev_check(c->dev, lk_seq_new(c->dev, &piece[c->pieces], left < LWM_CACHE_PIECE ? left : LWM_CACHE_PIECE,
							 c->pos + from, NULL), e));
	}
	return 0;
}

/* Are n queries many enough that keys in fewer bits become floats for them? */
static bool in_pieces(const struct lwm_cache *c, int64_t n)
{
	return c->dtype != lk_dev_dtype(c->dev) && n > LK_ATTN_FEW;
}

int lwm_cache_reach(struct lwm_cache *c, int64_t n, struct lwm_err *e)
{
	LWM_TRY(reach_slots(c, c->filled + (c->ranks == 1 ? n : lwm_cache_keeps(c, c->length)), e));
	return in_pieces(c, n) ? cut_pieces(c, e) : 0;
}

void lwm_cache_grow(struct lwm_cache *c, int64_t n)
{
	c->filled += c->ranks == 1 ? n : lwm_cache_keeps(c, c->length);
	c->length += n;
}

void lwm_cache_grow_prompt(struct lwm_cache *c, int64_t n, const int32_t *pos, int64_t kept)
{
	memcpy(c->pos, pos, (size_t)kept * sizeof *c->pos);
	c->filled = kept;
	c->length = n;
	plan_slots(c);
}

/* ---- in and out ---- */

int lwm_cache_work_init(struct lwm_cache_work *w, struct lk_dev *dev, int64_t tokens, struct lwm_err *e)
{
	int32_t *host = malloc((size_t)tokens * sizeof *host);
	void *iota = NULL;
	int rc = 0;

	*w = (struct lwm_cache_work){ .dev = dev, .tokens = tokens };
	if (!host)
		return lwm_fail(e, LWM_EMEMORY, "no memory for %" PRId64 " token numbers", tokens);
	for (int64_t i = 0; i < tokens; i++)
		host[i] = (int32_t)i;
	LWM_GO(lwm_dev_check(dev, lk_mem_alloc(dev, (size_t)tokens * sizeof *w->iota, &iota), e));
	w->iota = iota;
	LWM_GO(lwm_dev_check(dev, lk_upload(dev, w->iota, host, (size_t)tokens * sizeof *host), e));
out:
	free(host);
	return rc;
}

void lwm_cache_work_release(struct lwm_cache_work *w)
{
	lk_mem_free(w->dev, w->iota);
	lk_mem_free(w->dev, w->wide);
}

/* The outcome of a kernel call, and a sign of life to the watchdog. */
static int check_kernel(const struct lwm_cache *c, int status, struct lwm_err *e)
{
	lwm_watchdog_tick();
	return lwm_dev_check(c->dev, status, e);
}

/* Keys (which 0) or values (1) of n slots from `slot` on, and their scales (NULL where there are none). */
static struct lk_view stored_view(const struct lwm_cache *c, int64_t l, int64_t slot, int64_t n, int which, float **scale)
{
	int64_t e = lwm_llama_head_dim(&c->cfg), k = c->cfg.kv_heads;
	char *layer = c->data + l * c->layer_bytes;
	struct lk_view v = lk_view3(layer + (slot * c->row + which * (c->row / 2)) * (int64_t)lk_dtype_size(c->dtype), c->dtype, n,
				    k, e);

	v.stride[0] = c->row;
	*scale = c->dtype == LK_I8 ? (float *)(void *)(layer + c->scale_at) + slot * 2 * k + which * k : NULL;
	return v;
}

int lwm_cache_store(struct lwm_cache *c, struct lwm_cache_work *w, int64_t l, const struct lwm_attn_qkv *x, struct lwm_err *e)
{
	const struct lk_view *kv[2] = { &x->k, &x->v };
	int64_t n = x->k.n[0];

	if (c->dtype == x->k.dtype) { // v follows k in each row
		char *at = c->data + l * c->layer_bytes + c->filled * c->row * (int64_t)lk_dtype_size(c->dtype);
		struct lk_view fresh = lk_view2(x->k.data, x->k.dtype, n, c->row), slot = lk_view2(at, c->dtype, n, c->row);

		fresh.stride[0] = x->k.stride[0];
		return check_kernel(c, lk_gather_rows(c->dev, &slot, &fresh, w->iota), e);
	}
	for (int i = 0; i < 2; i++) {
		float *scale;
		struct lk_view y = stored_view(c, l, c->filled, n, i, &scale);

		LWM_TRY(check_kernel(c, lk_kv_store(c->dev, &y, scale, 2 * c->cfg.kv_heads, kv[i]), e));
	}
	return 0;
}

struct room {
	void *kv; /* (LWM_CACHE_PIECE, row) */
	struct lk_attn_state st;
};

static int make_room(const struct lwm_cache *c, struct lwm_cache_work *w, struct room *r, struct lwm_err *e)
{
	int64_t kv = lwm_round64(LWM_CACHE_PIECE * c->row * (int64_t)lk_dtype_size(lk_dev_dtype(c->dev)));
	int64_t most = w->tokens * c->cfg.heads;
	int64_t ml = lwm_round64(4 * most);
	void *p = NULL;

	if (!w->wide) {
		size_t bytes = (size_t)(kv + 2 * ml + 4 * most * lwm_llama_head_dim(&c->cfg));

		LWM_TRY(check_kernel(c, lk_mem_alloc(c->dev, bytes, &p), e));
		w->wide = p;
	}
	r->kv = w->wide;
	r->st = (struct lk_attn_state){ (float *)(void *)(w->wide + kv), (float *)(void *)(w->wide + kv + ml),
					(float *)(void *)(w->wide + kv + 2 * ml) };
	return 0;
}

/* Keys and values of piece i as floats, into a->k and a->v. */
static int widen_piece(const struct lwm_cache *c, const struct room *r, int64_t l, int64_t i, struct lk_attn *a, struct lwm_err *e)
{
	int64_t from = i * LWM_CACHE_PIECE, n = c->nkeys - from < LWM_CACHE_PIECE ? c->nkeys - from : LWM_CACHE_PIECE;
	int64_t k = c->cfg.kv_heads;
	int dtype = lk_dev_dtype(c->dev);
	struct lk_view *to[2] = { &a->k, &a->v };

	for (int which = 0; which < 2; which++) {
		float *scale;
		struct lk_view x = stored_view(c, l, from, n, which, &scale);

		*to[which] = lk_view3((char *)r->kv + which * (c->row / 2) * (int64_t)lk_dtype_size(dtype), dtype, n, k,
				      lwm_llama_head_dim(&c->cfg));
		to[which]->stride[0] = c->row;
		LWM_TRY(check_kernel(c, lk_kv_load(c->dev, to[which], &x, scale, 2 * k), e));
	}
	a->ks = c->piece[i];
	return 0;
}

static int attend_pieces(const struct lwm_cache *c, struct lwm_cache_work *w, struct lk_attn *a, int64_t l,
			 const struct lk_view *o, float *lse, struct lwm_err *e)
{
	struct room r;

	LWM_TRY(make_room(c, w, &r, e));
	LWM_TRY(check_kernel(c, lk_attn_begin(c->dev, &r.st, a->q.n[0], c->cfg.heads, lwm_llama_head_dim(&c->cfg)), e));
	for (int64_t i = 0; i < c->pieces; i++) {
		if (!lk_seq_sees(a->qs, c->piece[i], 1))
			continue;
		LWM_TRY(widen_piece(c, &r, l, i, a, e));
		LWM_TRY(check_kernel(c, lk_attn_fwd(c->dev, a, &r.st), e));
	}
	return check_kernel(c, lk_attn_end(c->dev, o, lse, &r.st), e);
}

int lwm_cache_attend(struct lwm_cache *c, struct lwm_cache_work *w, const struct lk_seq *qs, int64_t l, const struct lk_view *q,
		     const struct lk_view *o, float *lse, struct lwm_err *e)
{
	struct lk_attn a = { .q = *q, .qs = qs, .ks = c->keys, .scale = (float)(1 / sqrt((double)lwm_llama_head_dim(&c->cfg))),
			     .causal = 1, .scale_stride = 2 * c->cfg.kv_heads };
	float *scale[2];

	if (in_pieces(c, q->n[0]))
		return attend_pieces(c, w, &a, l, o, lse, e);
	a.k = stored_view(c, l, 0, c->nkeys, 0, &scale[0]);
	a.v = stored_view(c, l, 0, c->nkeys, 1, &scale[1]);
	a.k_scale = scale[0];
	a.v_scale = scale[1];
	return check_kernel(c, lk_attn_once(c->dev, &a, o, lse), e);
}
