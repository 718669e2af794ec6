/* test_ring_rows.c - ring attention over random packed rows: results and gradients of 2 to 8 ranks are those of one, for every
 * layout and for tokens strewn at random, told or asked who holds what; the same ranks give the same bits. */
#include "common/comm/ring_deal.h"
#include "common/model/attn_ring.h"
#include "tests/unit/llama_fixture.h"

enum { SEQ = 1680, MOST = 8, HEADS = 4, KV = 2, E = 8, ROW = (HEADS + 2 * KV) * E, OUT = HEADS * E };
enum { STREWN = LWM_RING_BALANCED + 1, WAYS };
static const char *const ways[WAYS] = { "contiguous", "zigzag", "striped", "balanced", "strewn" };

struct answer {
	float o[SEQ * OUT], lse[SEQ * HEADS], dx[SEQ * ROW];
};

struct job {
	int32_t seg[SEQ], pos[SEQ];
	float x[SEQ * ROW], dout[SEQ * OUT];
	bool causal, train, tell;
	int lie, fail;      /* this rank is told something else, comes with a failure; -1: none */
	int place[SEQ];     /* rank after rank, in local order */
	struct answer *out; /* each rank fills in its tokens */
};

static uint64_t random_state;

static uint32_t draw(uint32_t below)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(random_state >> 33) % below;
}

/* Seed 1: one document, which most layouts send round. */
static void draw_row(struct job *j, uint64_t seed)
{
	uint32_t longest = 0;
	int at = 0;
	random_state = seed;
	longest = 50 + draw(800);
	for (int doc = 0; at < SEQ; doc++) {
		int length = seed == 1 ? SEQ : 1 + (int)draw(longest), padding = seed > 1 && draw(8) == 0;
		for (int i = 0; i < length && at < SEQ; i++, at++) {
			j->seg[at] = padding ? -1 : doc;
			j->pos[at] = padding ? 0 : i;
		}
	}
	for (int i = 0; i < SEQ * ROW; i++)
		j->x[i] = (float)draw(2001) / 1000 - 1;
	for (int i = 0; i < SEQ * OUT; i++)
		j->dout[i] = (float)draw(2001) / 1000 - 1;
}

static void place_tokens(struct job *j, int way, int n)
{
	struct lwm_ring_deal d = { 0 };
	struct lwm_err e = { 0 };
	int at = 0;
	for (int i = 0; way == STREWN && i < SEQ; i++) {
		int k = (int)draw((uint32_t)i + 1);
		j->place[i] = j->place[k];
		j->place[k] = i;
	}
	if (way == STREWN)
		return;
	if (lwm_ring_deal_make(&d, (enum lwm_ring_layout)way, 1, SEQ, j->seg, n, &e))
		fail_msg("%s", e.msg);
	for (int64_t k = 0; k < d.first[n]; k++)
		for (int64_t i = 0; i < d.run[k].count; i++)
			j->place[at++] = (int)(d.run[k].from + i * d.run[k].step);
	assert_int_equal(at, SEQ);
	lwm_ring_deal_release(&d);
}

static struct lwm_attn_qkv views(float *base, int64_t n)
{
	struct lwm_attn_qkv v = { lk_view3(base, LK_F32, n, HEADS, E), lk_view3(base + HEADS * E, LK_F32, n, KV, E),
				  lk_view3(base + (HEADS + KV) * E, LK_F32, n, KV, E) };
	v.q.stride[0] = v.k.stride[0] = v.v.stride[0] = ROW;
	return v;
}

static void copy_rows(const struct job *j, int first, int n, int width, float *local, float *all, bool out)
{
	for (int i = 0; i < n; i++) {
		float *there = all + j->place[first + i] * width, *here = local + i * width;
		memcpy(out ? there : here, out ? here : there, (size_t)width * sizeof *here);
	}
}

static int attend(struct lwm_attn *g, struct job *j, int first, int n, float *m, struct lwm_err *e)
{
	float *dx = m + n * ROW, *o = dx + n * ROW, *dout = o + n * OUT, *lse = dout + n * OUT;
	struct lwm_attn_qkv x = views(m, n), d = views(dx, n);
	struct lk_view ov = lk_view3(o, LK_F32, n, HEADS, E), dv = lk_view3(dout, LK_F32, n, HEADS, E);
	copy_rows(j, first, n, ROW, m, j->x, false);
	copy_rows(j, first, n, OUT, dout, j->dout, false);
	for (int layer = 0; layer < 2; layer++) { /* the second sees what the first left in the buffers */
		int failed = first == j->fail * n ? -LWM_EIO : 0;
		if (lwm_attn_forward(g, layer, &x, &ov, lse, failed, e) != failed)
			return lwm_fail(e, LWM_EINTERNAL, "forward does not return its failure");
		memset(dx, 0, (size_t)(n * ROW) * sizeof *dx);
		if (j->train && lwm_attn_backward(g, layer, &x, &ov, &dv, lse, lse + n * HEADS, &d, failed, e) != failed)
			return lwm_fail(e, LWM_EINTERNAL, "backward does not return its failure");
	}
	copy_rows(j, first, n, OUT, o, j->out->o, true);
	copy_rows(j, first, n, HEADS, lse, j->out->lse, true);
	copy_rows(j, first, n, ROW, dx, j->out->dx, true);
	return 0;
}

static int run_rank(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	struct job *j = arg;
	int ranks = lwm_comm_size(c), rank = lwm_comm_rank(c), n = SEQ / ranks, rc = 0;
	struct lwm_attn_ring_shape shape = { n, HEADS, KV, E, j->train, j->causal };
	struct lk_dev *dev = device("cpu", 1);
	struct lwm_devcomm *around = NULL;
	struct lwm_attn *g = NULL;
	int32_t pos[SEQ], seg[SEQ];
	float *m = malloc((size_t)n * (2 * ROW + 2 * OUT + 2 * HEADS) * sizeof *m);
	assert_non_null(m);
	for (int i = 0; i < SEQ; i++) {
		pos[i] = j->pos[j->place[i]];
		seg[i] = j->seg[j->place[i]];
	}
	if (rank == j->lie)
		pos[(rank + 1) % ranks * n]++; /* of another rank */
	LWM_GO(lwm_devcomm_new(&around, dev, c, e));
	LWM_GO(lwm_attn_ring_new(&g, dev, around, &shape, e));
	if (j->tell)
		lwm_attn_ring_tell(g, pos, seg);
	LWM_GO(lwm_attn_begin(g, n, pos + rank * n, seg + rank * n, e));
	LWM_GO(attend(g, j, rank * n, n, m, e));
out:
	lwm_attn_free(g);
	lwm_devcomm_free(around);
	lk_dev_close(dev);
	free(m);
	return rc;
}

static void run_ranks(struct job *j, int n, struct answer *out)
{
	struct lwm_err e = { 0 };
	j->out = out;
	if (lwm_comm_threads(n, run_rank, j, &e))
		fail_msg("%d ranks: %s", n, e.msg);
}

static float furthest(const float *a, const float *b, int n)
{
	float most = 0;
	for (int i = 0; i < n; i++) {
		float d = a[i] == b[i] ? 0 : fabsf(a[i] - b[i]) / (1 + fabsf(b[i]));
		most = d <= most ? most : d; /* a NaN stays */
	}
	return most;
}

static void any_ranks_give_what_one_gives(void **state)
{
	struct job *j = calloc(1, sizeof *j);
	struct answer *one = calloc(3, sizeof *one), *many = one + 1, *again = one + 2;
	(void)state;
	assert_true(j && one);
	j->lie = j->fail = -1;
	for (uint64_t seed = 1; seed <= 2; seed++)
		for (int i = 0; i < 3; i++) { /* causal, whole segments, and a body for inference */
			j->causal = i != 1;
			j->train = i != 2;
			draw_row(j, seed);
			place_tokens(j, LWM_RING_CONTIGUOUS, 1);
			run_ranks(j, 1, one);
			for (int n = 2; n <= MOST; n++)
				for (int way = 0; way < WAYS; way++) {
					float d[3];
					place_tokens(j, way, n);
					j->tell = false;
					run_ranks(j, n, many);
					j->tell = true;
					run_ranks(j, n, again);
					assert_memory_equal(many, again, sizeof *many);
					d[0] = furthest(many->o, one->o, SEQ * OUT);
					d[1] = furthest(many->lse, one->lse, SEQ * HEADS);
					d[2] = furthest(many->dx, one->dx, SEQ * ROW);
					if (!(d[0] < 5e-6f && d[1] < 5e-6f && d[2] < 2e-5f))
						fail_msg("seed %d, case %d, %s, %d ranks: differs by %g, %g, %g", (int)seed, i, ways[way], n,
							 (double)d[0], (double)d[1], (double)d[2]);
				}
		}
	free(j);
	free(one);
}

/* One rank is told of other tokens than the others: all refuse, and nobody waits. */
static void ranks_that_were_told_different_things(void **state)
{
	struct job *j = calloc(1, sizeof *j);
	struct answer *out = calloc(1, sizeof *out);
	struct lwm_err e = { 0 };
	(void)state;
	assert_true(j && out);
	j->causal = j->train = j->tell = true;
	j->out = out;
	draw_row(j, 7);
	place_tokens(j, LWM_RING_BALANCED, 4);
	j->lie = 2;
	j->fail = -1;
	assert_int_equal(lwm_comm_threads(4, run_rank, j, &e), -LWM_EINTERNAL);
	assert_non_null(strstr(e.msg, "told different things"));
	free(j);
	free(out);
}

/* A rank that failed before takes part in all exchanges and says so in the end: the others go on. */
static void a_rank_that_failed_leaves_nobody_waiting(void **state)
{
	struct job *j = calloc(1, sizeof *j);
	struct answer *out = calloc(1, sizeof *out);
	(void)state;
	assert_true(j && out);
	j->causal = j->train = j->tell = true;
	j->lie = -1;
	draw_row(j, 2);
	for (int way = 0; way < WAYS; way++)
		for (int n = 2; n <= MOST; n += 3) {
			place_tokens(j, way, n);
			j->fail = n / 2;
			run_ranks(j, n, out);
		}
	free(j);
	free(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(any_ranks_give_what_one_gives),
					    cmocka_unit_test(ranks_that_were_told_different_things),
					    cmocka_unit_test(a_rank_that_failed_leaves_nobody_waiting) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
