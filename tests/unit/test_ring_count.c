/* What ring attention leaves out: pairs of blocks that nobody sees are not computed, and a block goes no further than to the
 * last rank that needs it. Counted call by call, and compared with numbers worked out from the rows.
 *
 * attn_ring.c is compiled into this program with its calls redirected to counters; the rest is the library's. */
#include "common/comm/devcomm.h"
#include "kernels/kernels.h"
#include "tests/unit/llama_fixture.h"

static int count_attn_fwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_attn_state *st);
static int count_attn_once(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *o, float *lse);
static int count_attn_bwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *dout, const float *lse,
			  const float *delta, const struct lk_view *dq, const struct lk_view *dk, const struct lk_view *dv);
static int count_start(struct lwm_devcomm *d, int to, const void *send, size_t send_bytes, int from, void *recv,
		       size_t recv_bytes, struct lwm_err *e);
#define lk_attn_fwd count_attn_fwd
#define lk_attn_once count_attn_once
#define lk_attn_bwd count_attn_bwd
#define lwm_devcomm_start count_start
#include "common/model/attn_ring.c"
#undef lk_attn_fwd
#undef lk_attn_once
#undef lk_attn_bwd
#undef lwm_devcomm_start

#include "common/comm/mesh.h"

/* ---- counters, one set a rank, which is a thread ---- */

struct counts {
	int fwd, bwd;         /* pairs of blocks that were computed */
	int sent;             /* messages */
	long long sent_bytes;
};
static _Thread_local struct counts mine;

static int count_attn_fwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_attn_state *st)
{
	mine.fwd++;
	return lk_attn_fwd(dev, a, st);
}

static int count_attn_once(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *o, float *lse)
{
	mine.fwd++;
	return lk_attn_once(dev, a, o, lse);
}

static int count_attn_bwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *dout, const float *lse,
			  const float *delta, const struct lk_view *dq, const struct lk_view *dk, const struct lk_view *dv)
{
	mine.bwd++;
	return lk_attn_bwd(dev, a, dout, lse, delta, dq, dk, dv);
}

static int count_start(struct lwm_devcomm *d, int to, const void *send, size_t send_bytes, int from, void *recv,
		       size_t recv_bytes, struct lwm_err *e)
{
	mine.sent += send_bytes > 0;
	mine.sent_bytes += (long long)send_bytes;
	return lwm_devcomm_start(d, to, send, send_bytes, from, recv, recv_bytes, e);
}

/* ---- one row, split ---- */

enum { SEQ = 1024, HEADS = 2, KV = 1, E = 8, PAIR = 2 * KV * E, MOST = 8 };

struct row { /* documents end to end, then padding */
	const char *name;
	int length[12];
	bool full; /* not causal */
};

struct task {
	const struct row *row;
	enum lwm_ring_layout layout;
	struct counts of[MOST], after_fwd[MOST];
};

static void lay_out(const struct row *r, int32_t *seg, int32_t *pos)
{
	int at = 0;
	for (int d = 0; r->length[d]; d++)
		for (int i = 0; i < r->length[d]; i++, at++) {
			seg[at] = d;
			pos[at] = i;
		}
	for (; at < SEQ; at++) {
		seg[at] = -1;
		pos[at] = 0;
	}
}

static int split_row(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	struct task *t = arg;
	int n = lwm_comm_size(c), rank = lwm_comm_rank(c), local = SEQ / n, rc;
	struct lwm_attn_ring_shape shape = { local, HEADS, KV, E, true, !t->row->full };
	struct lk_dev *dev = device("cpu", 1);
	struct lwm_devcomm *around = NULL;
	struct lwm_attn *g = NULL;
	int32_t seg[SEQ], pos[SEQ], s[SEQ], p[SEQ];
	size_t row = (HEADS + 2 * KV) * E, floats = (size_t)local * row;
	float *x = calloc(floats, sizeof *x), *dx = calloc(floats, sizeof *dx), *o = calloc(floats, sizeof *o),
	      *lse = calloc(floats, sizeof *lse);
	lay_out(t->row, seg, pos);
	for (int i = 0; i < local; i++) {
		int64_t at = lwm_ring_global(t->layout, SEQ, n, rank, i);
		s[i] = seg[at];
		p[i] = pos[at];
	}
	for (size_t i = 0; i < floats; i++)
		x[i] = (float)(i % 13) / 13;
	mine = (struct counts){ 0 };
	LWM_GO(lwm_devcomm_new(&around, dev, c, e));
	LWM_GO(lwm_attn_ring_new(&g, dev, around, &shape, e));
	LWM_GO(lwm_attn_begin(g, local, p, s, e));
	struct lwm_attn_qkv v, dv;
	for (int i = 0; i < 2; i++) {
		struct lwm_attn_qkv *to = i ? &dv : &v;
		float *base = i ? dx : x;
		to->q = lk_view3(base, LK_F32, local, HEADS, E);
		to->k = lk_view3(base + HEADS * E, LK_F32, local, KV, E);
		to->v = lk_view3(base + (HEADS + KV) * E, LK_F32, local, KV, E);
		to->q.stride[0] = to->k.stride[0] = to->v.stride[0] = (int64_t)row;
	}
	struct lk_view out = lk_view3(o, LK_F32, local, HEADS, E);
	LWM_GO(lwm_attn_forward(g, 0, &v, &out, lse, 0, e));
	t->after_fwd[rank] = mine;
	LWM_GO(lwm_attn_backward(g, 0, &v, &out, &out, lse, lse + (size_t)local * HEADS, &dv, 0, e));
	t->of[rank] = mine;
out:
	lwm_attn_free(g);
	lwm_devcomm_free(around);
	lk_dev_close(dev);
	free(x);
	free(dx);
	free(o);
	free(lse);
	return rc;
}

static struct task run_row(const struct row *row, int n, enum lwm_ring_layout layout)
{
	struct task t = { .row = row, .layout = layout };
	struct lwm_err e = { 0 };
	if (lwm_comm_threads(n, split_row, &t, &e))
		fail_msg("%s: %s", row->name, e.msg);
	return t;
}

/* ---- by hand ---- */

/* Does any token of rank q see any token of rank k? From the definition, token by token. */
static bool visible(const struct row *r, int n, enum lwm_ring_layout layout, int q, int k)
{
	int32_t seg[SEQ], pos[SEQ];
	lay_out(r, seg, pos);
	for (int i = 0; i < SEQ / n; i++)
		for (int j = 0; j < SEQ / n; j++) {
			int64_t a = lwm_ring_global(layout, SEQ, n, q, i), b = lwm_ring_global(layout, SEQ, n, k, j);
			if (seg[a] >= 0 && seg[a] == seg[b] && (r->full || pos[b] <= pos[a]))
				return true;
		}
	return false;
}

/* How far block k travels: its distance to the last rank that sees it. */
static int reach(const struct row *r, int n, enum lwm_ring_layout layout, int k)
{
	int far = 0;
	for (int s = 1; s < n; s++)
		if (visible(r, n, layout, (k + s) % n, k))
			far = s;
	return far;
}

/* Tile summaries cannot see holes, so documents and cuts stand at multiples of a tile (64 tokens) in these rows. */
static const struct row table[] = {
	{ "one document", { 1024 }, false },
	{ "one document, not causal", { 1024 }, true },
	{ "two documents", { 512, 512 }, false },
	{ "a long one and a short one", { 768, 256 }, false },
	{ "a document a rank", { 128, 128, 128, 128, 128, 128, 128, 128 }, false },
	{ "across one cut", { 64, 128, 64, 256, 512 }, false },
	{ "half padding", { 256, 256 }, false },
};
enum { N_ROWS = sizeof table / sizeof *table };

static void counts_follow_from_who_sees_whom(void **state)
{
	(void)state;
	for (int i = 0; i < N_ROWS; i++)
		for (int layout = LWM_RING_CONTIGUOUS; layout <= LWM_RING_STRIPED; layout++)
			for (int n = 2; n <= MOST; n *= 2) {
				struct task t = run_row(&table[i], n, layout);
				int pairs = 0, hops = 0, done[2] = { 0, 0 }, sent[2] = { 0, 0 };
				long long bytes[2] = { 0, 0 };
				for (int q = 0; q < n; q++) {
					int own = 0;
					for (int k = 0; k < n; k++)
						own += visible(&table[i], n, layout, q, k);
					if (t.of[q].fwd != own || t.of[q].bwd != own)
						/* a row that all ranks keep to themselves is computed at once, padding or not */
						if (!(own == 0 && t.of[q].fwd == 1 && t.of[q].bwd == 0))
							fail_msg("%s, %s, rank %d of %d: %d and %d pairs, by hand %d", table[i].name,
								 lwm_ring_layouts[layout], q, n, t.of[q].fwd, t.of[q].bwd, own);
					pairs += own;
					done[0] += t.of[q].fwd;
					done[1] += t.of[q].bwd;
					sent[0] += t.after_fwd[q].sent;
					sent[1] += t.of[q].sent - t.after_fwd[q].sent;
					bytes[0] += t.after_fwd[q].sent_bytes;
					bytes[1] += t.of[q].sent_bytes - t.after_fwd[q].sent_bytes;
					hops += reach(&table[i], n, layout, q);
				}
				/* forward: keys and values. Backward: these again, and as many gradients, the last one home */
				if (sent[0] != hops || sent[1] != 2 * hops)
					fail_msg("%s, %s, %d ranks: %d and %d messages, by hand %d and %d", table[i].name,
						 lwm_ring_layouts[layout], n, sent[0], sent[1], hops, 2 * hops);
				long long block_bytes = (long long)SEQ / n * PAIR * 4;
				assert_true(bytes[0] == hops * block_bytes && bytes[1] == 2 * hops * block_bytes);
			}
}

/* A few of them as plain numbers. */
static void counts_of_known_rows(void **state)
{
	static const struct {
		int row, layout, ranks, pairs, hops;
	} want[] = {
		{ 0, LWM_RING_CONTIGUOUS, 4, 10, 6 },  /* the lower triangle; block b goes to the last rank */
		{ 0, LWM_RING_ZIGZAG, 4, 16, 12 },     /* everyone needs everyone's early half */
		{ 0, LWM_RING_STRIPED, 8, 64, 56 },
		{ 1, LWM_RING_CONTIGUOUS, 4, 16, 12 },
		{ 2, LWM_RING_CONTIGUOUS, 4, 6, 2 },   /* two triangles of two */
		{ 3, LWM_RING_CONTIGUOUS, 4, 7, 3 },   /* a triangle of three and one alone */
		{ 4, LWM_RING_CONTIGUOUS, 8, 8, 0 },   /* nobody needs another rank */
		{ 5, LWM_RING_CONTIGUOUS, 8, 16, 8 },  /* 3 of ranks 0 and 1, 3 of the next two, 10 of the last four */
		{ 6, LWM_RING_CONTIGUOUS, 4, 2, 0 },   /* two ranks hold nothing but padding */
	};
	(void)state;
	for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
		struct task t = run_row(&table[want[i].row], want[i].ranks, (enum lwm_ring_layout)want[i].layout);
		int pairs = 0, hops = 0;
		for (int r = 0; r < want[i].ranks; r++) {
			pairs += t.of[r].bwd;
			hops += t.after_fwd[r].sent;
		}
		if (pairs != want[i].pairs || hops != want[i].hops)
			fail_msg("%s on %d ranks: %d pairs and %d hops, expected %d and %d", table[want[i].row].name,
				 want[i].ranks, pairs, hops, want[i].pairs, want[i].hops);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(counts_follow_from_who_sees_whom),
					    cmocka_unit_test(counts_of_known_rows) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
