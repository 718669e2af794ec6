/* attn.c - attention on the CPU: who works on what. The arithmetic is in attn_*.hot.c, the tiling in attn_plan.c.
 *
 * Forward: tiles of queries are independent of each other; each runs over the tiles of keys that it sees, with a running maximum
 * and sum (online softmax; Rabe & Staats 2021, Dao et al. 2022). Backward: dk and dv sum over tiles of queries, dq over tiles of
 * keys; shares of queries and of keys rotate, so that in one step no two threads add to the same number, and each sum has the
 * same order for any number of threads. At most LK_ATTN_ROWS queries go to attn_row.c. */
#include <math.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "kernels/cpu/attn_int.h"

/* Bytes of a core's cache that a query tile may fill, and tiles there should be for each thread. */
enum { FWD_TILE_BYTES = 192 << 10, BWD_TILE_BYTES = 512 << 10, TASKS_PER_THREAD = 8, PACK_ABOVE = 4 };

/* Keys that a share of the backward has at least: fewer until heads and shares make TASKS. And most shares. */
enum { FEW_KEYS = 512, SHARE_KEYS = 2048, TASKS = 8, MOST_SHARES = 64 };

static const struct lk_attn_fwd_hot *fwd_hot(struct lk_dev *dev)
{
#ifdef __x86_64__
	switch (lk_cpu_of(dev)->isa) {
	case LK_ISA_AVX512: return &lk_attn_fwd_hot_avx512;
	case LK_ISA_AVX2: return &lk_attn_fwd_hot_avx2;
	default: break;
	}
#else
	(void)dev;
#endif
	return &lk_attn_fwd_hot_base;
}

static const struct lk_attn_bwd_hot *bwd_hot(struct lk_dev *dev)
{
#ifdef __x86_64__
	switch (lk_cpu_of(dev)->isa) {
	case LK_ISA_AVX512: return &lk_attn_bwd_hot_avx512;
	case LK_ISA_AVX2: return &lk_attn_bwd_hot_avx2;
	default: break;
	}
#else
	(void)dev;
#endif
	return &lk_attn_bwd_hot_base;
}

static int thread_id(void)
{
#ifdef _OPENMP
	return omp_get_thread_num();
#else
	return 0;
#endif
}

static int thread_count(void)
{
#ifdef _OPENMP
	return omp_get_num_threads();
#else
	return 1;
#endif
}

/* Groups of a query tile: as many as `bytes` of cache hold, an even number for the backward's pairs; but `tiles` tiles
 * at least where several threads share them. */
static int tile_groups(const struct lk_attn *a, int gw, int64_t group_bytes, int64_t bytes, int64_t tiles)
{
	int64_t most = bytes / group_bytes, fair = a->qs->n / (gw * (tiles > 0 ? tiles : 1));

	most = most < fair ? most : fair;
	return most > 1 ? (int)(most - most % 2) : 1;
}

static int64_t round_up(int64_t n, int64_t to)
{
	return (n + to - 1) / to * to;
}

/* Key heads worked on at a time: their packed keys must stay small beside the tensors themselves. */
static int64_t heads_at_once(const struct lk_attn *a, int64_t most)
{
	int64_t n = (a->q.n[1] + a->k.n[1]) / 4;

	return n < 1 ? 1 : n < most ? n : most;
}

/* What a call works with: the plan, packed heads, and one room per thread, all in the device's scratch. */
struct work {
	struct lk_attn_plan p;
	float *packed; /* of one head: arrays * array floats */
	int64_t array;
	char *room;
	size_t room_bytes;
	void *more; /* what else was asked for */
};

static int prepare_work(struct lk_dev *dev, struct work *w, int vec, int64_t heads, int arrays, size_t room_bytes,
			size_t more)
{
	const struct lk_attn *a = w->p.a;
	size_t plan = (size_t)round_up((int64_t)lk_attn_plan_bytes(a, vec), 64), packed, all;
	char *mem;

	w->array = round_up(LK_ATTN_PACKED(a->ks->n) * w->p.dp, 16);
	packed = sizeof(float) * (size_t)(heads * arrays * w->array);
	w->room_bytes = (size_t)round_up((int64_t)room_bytes, 64);
	all = plan + packed + (size_t)dev->threads * w->room_bytes + more;
	mem = lk_cpu_scratch(dev, all);
	if (!mem)
		return lk_fail(dev, LK_ENOMEM, "attention: no memory for %zu bytes of scratch", all);
	w->packed = (float *)(void *)(mem + plan);
	w->room = mem + plan + packed;
	w->more = w->room + (size_t)dev->threads * w->room_bytes;
	lk_attn_plan_make(&w->p, vec, mem);
	return 0;
}

static struct lk_attn_keys keys_of(const struct work *w, int64_t slot, int arrays)
{
	float *k = w->packed + slot * arrays * w->array;

	return (struct lk_attn_keys){ k, k + w->array, arrays > 2 ? k + 2 * w->array : NULL,
				      arrays > 2 ? k + 3 * w->array : NULL };
}

static float *room_of(const struct work *w)
{
	return (float *)(void *)(w->room + (size_t)thread_id() * w->room_bytes);
}

/* ---- forward ---- */

/* Whether a key tile is read by so many query tiles that packing all of them first pays: documents that fill no more
 * than a few tiles are better packed by their reader, who finds them in his cache. */
static int read_often(const struct lk_attn_plan *p, int64_t share)
{
	int64_t pairs = 0;

	for (int64_t i = 0; i < p->nqtiles; i++)
		pairs += p->qtiles[i].pairs;
	return pairs * share > PACK_ABOVE * p->nktiles;
}

/* Query tiles are independent of each other: whoever is free takes the next. With packed keys all of one head come
 * before the next head, so that the threads share its keys in cache; else all heads of the same tokens follow each
 * other. */
static int forward_tiles(struct lk_dev *dev, const struct lk_attn *a, const struct lk_attn_out *out)
{
	const struct lk_attn_fwd_hot *hot = fwd_hot(dev);
	int64_t d = a->q.n[2], nh = a->q.n[1], nk = a->k.n[1], share = nh / nk, once, rc;
	struct work w = { .p = { .a = a, .bk = hot->bk, .gw = hot->gw, .dp = round_up(d, hot->vec) } };
	struct lk_attn_plan *p = &w.p;
	int pack;

	if (a->qs->n <= LK_ATTN_ROWS)
		return lk_attn_rows(dev, a, out);
	p->tile_groups = tile_groups(a, hot->gw, (int64_t)sizeof(float) * 2 * hot->gw * (d + 1), FWD_TILE_BYTES,
				     dev->threads > 1 ? TASKS_PER_THREAD * dev->threads / nh : 0);
	// no more heads at a time than keep the threads busy
	once = TASKS_PER_THREAD * dev->threads * (int64_t)p->tile_groups * hot->gw / (a->qs->n * share) + 1;
	once = heads_at_once(a, once < nk ? once : nk);
	rc = prepare_work(dev, &w, hot->vec, once, 2, hot->room(p), 0);
	if (rc)
		return (int)rc;
	pack = read_often(p, share);
	once = pack ? once : nk;
#pragma omp parallel num_threads(dev->threads)
	for (int64_t k0 = 0; k0 < nk; k0 += once) {
		int64_t heads = k0 + once < nk ? once : nk - k0;

		if (pack) {
#pragma omp for schedule(static)
			for (int64_t i = 0; i < heads * p->nktiles; i++) {
				struct lk_attn_keys keys = keys_of(&w, i / p->nktiles, 2);

				hot->pack(p, k0 + i / p->nktiles, i % p->nktiles, &keys);
			}
		}
#pragma omp for schedule(dynamic, 1)
		for (int64_t i = 0; i < heads * share * p->nqtiles; i++) {
			int64_t h = pack ? i / p->nqtiles : i % nh, t = pack ? i % p->nqtiles : i / nh;
			struct lk_attn_keys keys = keys_of(&w, h / share, 2);

			hot->run(p, p->order[t], k0 * share + h, pack ? &keys : NULL, out, room_of(&w));
			lk_progress();
		}
	}
	return 0;
}

static int attn_fwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_attn_state *st)
{
	struct lk_attn_out out = { .st = st };

	return forward_tiles(dev, a, &out);
}

static int attn_once(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *o, float *lse)
{
	struct lk_attn_out out = { .o = o, .lse = lse };

	return forward_tiles(dev, a, &out);
}

/* ---- backward ---- */

/* Shares that queries and keys are cut into: a power of two by the sizes of the problem alone, so that the order of the sums is. */
static int64_t shares_of(const struct lk_attn *a)
{
	int64_t n = 1;

	while (n < MOST_SHARES && a->ks->n >= 2 * n * (n * a->k.n[1] < TASKS ? FEW_KEYS : SHARE_KEYS))
		n *= 2;
	return n;
}

/* The c-th of n shares of `count` tiles, as two runs cut from both ends (zigzag): under a causal mask all pairs of a
 * query share and a key share cost nearly the same. */
struct share {
	int64_t from[2], to[2];
};

static struct share zigzag(int64_t count, int64_t c, int64_t n)
{
	int64_t m = 2 * n - 1 - c;

	return (struct share){ { count * c / (2 * n), count * m / (2 * n) },
			       { count * (c + 1) / (2 * n), count * (m + 1) / (2 * n) } };
}

static int64_t share_at(int64_t count, int64_t tile, int64_t n)
{
	int64_t run = ((tile + 1) * 2 * n - 1) / count; // the run r with count r / 2n <= tile < count (r + 1) / 2n, rounded down

	return run < n ? run : 2 * n - 1 - run;
}

/* Query share (i + s) % n meets key share i in step s. last[t]: the last step in which a query sees key tile t. */
static void last_steps(const struct lk_attn_plan *p, int64_t n, uint8_t *last)
{
	memset(last, 0, (size_t)p->nktiles);
	for (int64_t q = 0; q < p->nqtiles && n > 1; q++) {
		int64_t share = share_at(p->nqtiles, q, n);

		for (int64_t k = p->qtiles[q].lo; k < p->qtiles[q].hi; k++) {
			int64_t s = (share - share_at(p->nktiles, k, n) + n) % n;

			last[k] = s > last[k] ? (uint8_t)s : last[k];
		}
	}
}

/* A share of key tiles on its way: of each run, tiles below next[] are packed, those below done[] added up. */
struct keys {
	struct share of;
	int64_t next[2], done[2];
};

/* What the threads of a call share. */
struct bwd {
	const struct lk_attn_bwd_hot *hot;
	const struct lk_attn_grad *g;
	struct work w;
	int64_t shares, once; /* of queries and keys; key heads that a team works on at a time */
	struct keys *keys;    /* (teams, once, shares) */
	uint8_t *last;        /* (key tiles) */
};

static void open_to(const struct bwd *b, int64_t hk, struct keys *k, const struct lk_attn_keys *mem, int64_t to)
{
	for (int j = 0; j < 2; j++) {
		int64_t end = to < k->of.to[j] ? to : k->of.to[j];

		if (k->next[j] < end) {
			b->hot->open(&b->w.p, hk, k->next[j], end, mem);
			k->next[j] = end;
		}
	}
}

/* Adds up the tiles below `to` that no later step sees. */
static void shut_to(const struct bwd *b, int64_t hk, struct keys *k, const struct lk_attn_keys *mem, int64_t to, int64_t step)
{
	for (int j = 0; j < 2; j++) {
		int64_t most = to < k->next[j] ? to : k->next[j], end = k->done[j];

		while (end < most && b->last[end] <= step)
			end++;
		if (k->done[j] < end) {
			b->hot->shut(&b->w.p, hk, k->done[j], end, mem, b->g);
			k->done[j] = end;
		}
	}
}

/* Query share q x key share k of all heads that use key head hk, in step `step`. Keys are packed right before their first use, and
 * added up after their last: short documents stay in cache in between. */
static void backward_block(const struct bwd *b, int64_t hk, const struct share *q, struct keys *k, const struct lk_attn_keys *mem,
			   int64_t step)
{
	const struct lk_attn_plan *p = &b->w.p;
	int64_t share = p->a->q.n[1] / p->a->k.n[1];

	for (int i = 0; i < 2; i++)
		for (int64_t t = q->from[i]; t < q->to[i]; t++) {
			const struct lk_attn_qtile *tile = &p->qtiles[t];

			open_to(b, hk, k, mem, tile->hi);
			for (int64_t h = hk * share; h < (hk + 1) * share; h++)
				for (int j = 0; j < 2; j++)
					b->hot->run(p, tile, h, k->of.from[j], k->of.to[j], mem, b->g, room_of(&b->w));
			shut_to(b, hk, k, mem, tile->later, step);
			lk_progress();
		}
	shut_to(b, hk, k, mem, p->nktiles, step);
}

/* Key heads [h0, h0 + heads) by thread i of a team of n. A task is a key share of one head: in step s of as many as there are
 * shares it meets query share (its own + s) % shares. So in no step do two threads add to the same dq, dk or dv, and all sums
 * are made in the order of the steps, whoever makes them. */
static void key_heads(const struct bwd *b, int64_t team, int64_t h0, int64_t heads, int64_t i, int64_t n)
{
	int64_t shares = b->shares, tasks = heads * shares;
	struct keys *keys = b->keys + team * b->once * shares;

	for (int64_t t = i; t < tasks; t += n) {
		struct share of = zigzag(b->w.p.nktiles, t % shares, shares);

		keys[t] = (struct keys){ of, { of.from[0], of.from[1] }, { of.from[0], of.from[1] } };
	}
	for (int64_t s = 0; s < shares; s++) {
		for (int64_t t = i; t < tasks; t += n) {
			struct share q = zigzag(b->w.p.nqtiles, (t % shares + s) % shares, shares);
			struct lk_attn_keys mem = keys_of(&b->w, team * b->once + t / shares, 4);

			backward_block(b, h0 + t / shares, &q, &keys[t], &mem, s);
		}
		if (n > 1) {
#pragma omp barrier
		}
	}
}

/* Teams of equally many threads and heads: as many as memory for packed keys allows. */
static int64_t teams_for(const struct lk_attn *a, int threads)
{
	int64_t nk = a->k.n[1], t = heads_at_once(a, nk < threads ? nk : threads);

	while (nk % t || threads % t)
		t--;
	return t;
}

/* Key heads at a time of a team of n threads with `heads` in all: the number that leaves the fewest of them idle. */
static int64_t heads_of_team(int64_t heads, int64_t shares, int64_t n, int64_t most)
{
	int64_t best = 1, least = INT64_MAX;

	for (int64_t once = 1; once <= heads && once <= most; once++) {
		int64_t full = heads / once, rest = heads % once;
		int64_t rounds = full * ((once * shares + n - 1) / n) + (rest * shares + n - 1) / n;

		if (rounds < least) {
			least = rounds;
			best = once;
		}
	}
	return best;
}

/* Scratch for tasks and steps lies after that of prepare_work. */
static int attn_bwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *dout, const float *lse,
		    const float *delta, const struct lk_view *dq, const struct lk_view *dk, const struct lk_view *dv)
{
	struct lk_attn_grad g = { dout, dq, dk, dv, lse, delta };
	struct bwd b = { .hot = bwd_hot(dev), .g = &g, .shares = shares_of(a) };
	struct lk_attn_plan *p = &b.w.p;
	int64_t d = a->q.n[2], nk = a->k.n[1], teams = teams_for(a, dev->threads);
	size_t tasks;
	int rc;

	*p = (struct lk_attn_plan){ .a = a, .bk = b.hot->bk, .gw = b.hot->gw, .dp = round_up(d, b.hot->vec) };
	p->tile_groups = tile_groups(a, b.hot->gw, (int64_t)sizeof(float) * 5 * b.hot->gw * (d + 1), BWD_TILE_BYTES, 2 * b.shares);
	b.once = heads_of_team(nk / teams, b.shares, dev->threads / teams, heads_at_once(a, nk) / teams);
	tasks = (size_t)(teams * b.once * b.shares) * sizeof *b.keys;
	rc = prepare_work(dev, &b.w, b.hot->vec, teams * b.once, 4, b.hot->room(p), tasks + (size_t)(a->ks->n / LK_ATTN_LEAST + 1));
	if (rc)
		return rc;
	b.keys = b.w.more;
	b.last = (uint8_t *)b.w.more + tasks;
	last_steps(p, b.shares, b.last);
#pragma omp parallel num_threads(dev->threads)
	{
		int64_t got = thread_count(), t = got < dev->threads ? 1 : teams, n = got / t;
		int64_t team = thread_id() / n, i = thread_id() % n, end = (team + 1) * (nk / t);

		for (int64_t h = team * (nk / t); h < end; h += b.once)
			key_heads(&b, team, h, h + b.once < end ? b.once : end - h, i, n);
	}
	return 0;
}

static int attn_own(struct lk_dev *dev, int64_t n, int64_t heads, int64_t kv_heads, int64_t head_dim, int back, struct lk_own *own)
{
	struct lk_seq seq = { .n = n };
	struct lk_attn a = { .q = lk_view3(NULL, LK_F32, n, heads, head_dim), .k = lk_view3(NULL, LK_F32, n, kv_heads, head_dim),
			     .v = lk_view3(NULL, LK_F32, n, kv_heads, head_dim), .qs = &seq, .ks = &seq, .causal = 1 };
	size_t most;

	lk_cpu_sizing(dev, &most);
	if (n > LK_ATTN_ROWS)
		attn_once(dev, &a, NULL, NULL);
	if (back)
		attn_bwd(dev, &a, NULL, NULL, NULL, NULL, NULL, NULL);
	lk_cpu_sized(dev);
	*own = (struct lk_own){ .kept = (int64_t)lk_rope_bytes(n, head_dim), .scratch = (int64_t)most };
	return 0;
}

/* ---- what needs no tiles ---- */

static float *row3(const struct lk_view *v, int64_t t, int64_t h)
{
	return (float *)v->data + t * v->stride[0] + h * v->stride[1];
}

/* acc counts only where m is above -inf: it is not even written here. */
static int attn_begin(struct lk_dev *dev, const struct lk_attn_state *st, int64_t tq, int64_t h, int64_t d)
{
	(void)dev;
	(void)d;
	for (int64_t r = 0; r < tq * h; r++) {
		st->m[r] = -INFINITY;
		st->l[r] = 0;
	}
	return 0;
}

static int attn_end(struct lk_dev *dev, const struct lk_view *o, float *lse, const struct lk_attn_state *st)
{
	int64_t nh = o->n[1], d = o->n[2];

#pragma omp parallel for num_threads(dev->threads)
	for (int64_t r = 0; r < o->n[0] * nh; r++) {
		float inv = st->l[r] > 0 ? 1.0f / st->l[r] : 0.0f, *to = row3(o, r / nh, r % nh);

		for (int64_t i = 0; i < d; i++)
			to[i] = inv > 0 ? st->acc[r * d + i] * inv : 0.0f;
		lse[r] = st->l[r] > 0 ? st->m[r] + logf(st->l[r]) : -INFINITY;
	}
	return 0;
}

static int attn_delta(struct lk_dev *dev, float *delta, const struct lk_view *o, const struct lk_view *dout)
{
	int64_t nh = o->n[1];

#pragma omp parallel for num_threads(dev->threads)
	for (int64_t r = 0; r < o->n[0] * nh; r++) {
		const float *x = row3(o, r / nh, r % nh), *y = row3(dout, r / nh, r % nh);
		float sum[16] = { 0 };

		for (int64_t i = 0; i < o->n[2]; i++)
			sum[i % 16] += x[i] * y[i];
		for (int i = 1; i < 16; i++)
			sum[0] += sum[i];
		delta[r] = sum[0];
	}
	return 0;
}

static int attn_merge(struct lk_dev *dev, float *o, float *lse, const float *o2, const float *lse2, int64_t tq,
		      int64_t h, int64_t d)
{
#pragma omp parallel for num_threads(dev->threads)
	for (int64_t r = 0; r < tq * h; r++) {
		float m = fmaxf(lse[r], lse2[r]), w1, w2, inv;

		if (m == -INFINITY)
			continue; // neither part saw anything
		w1 = expf(lse[r] - m);
		w2 = expf(lse2[r] - m);
		inv = 1.0f / (w1 + w2);
		for (int64_t i = 0; i < d; i++)
			o[r * d + i] = (w1 * o[r * d + i] + w2 * o2[r * d + i]) * inv;
		lse[r] = m + logf(w1 + w2);
	}
	return 0;
}

void lk_cpu_fill_attn(struct lk_ops *o)
{
	o->attention.attn_begin = attn_begin;
	o->attention.attn_fwd = attn_fwd;
	o->attention.attn_end = attn_end;
	o->attention.attn_once = attn_once;
	o->attention.attn_delta = attn_delta;
	o->attention.attn_bwd = attn_bwd;
	o->attention.attn_merge = attn_merge;
	o->attention.attn_own = attn_own;
}
