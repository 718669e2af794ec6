/* What ring attention leaves out: pairs of blocks that nobody sees are not computed; a block goes no further than to the last
 * rank that needs it, or, where that is less, rows go to those ranks only that see them. Counted call by call, and compared with
 * numbers worked out from the rows.
 *
 * attn_ring.c and its two ways are compiled into this program with their calls redirected to counters; the rest is the
 * library's. */
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
#include "common/model/attn_direct.c"
#include "common/model/attn_ring.c"
#include "common/model/attn_round.c"
#undef lk_attn_fwd
#undef lk_attn_once
#undef lk_attn_bwd
#undef lwm_devcomm_start

#include "common/comm/ring_deal.h"

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
	bool train;
	int place[SEQ]; /* rank after rank, in local order */
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
	struct lwm_attn_ring_shape shape = { local, HEADS, KV, E, t->train, !t->row->full };
	struct lk_dev *dev = device("cpu", 1);
	struct lwm_devcomm *around = NULL;
	struct lwm_attn *g = NULL;
	int32_t seg[SEQ], pos[SEQ], s[SEQ], p[SEQ];
	size_t row = (HEADS + 2 * KV) * E, floats = (size_t)local * row;
	float *x = calloc(floats, sizeof *x), *dx = calloc(floats, sizeof *dx), *o = calloc(floats, sizeof *o),
	      *lse = calloc(floats, sizeof *lse);
	lay_out(t->row, seg, pos);
	for (int i = 0; i < local; i++) {
		int at = t->place[rank * local + i];
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
	if (t->train)
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

static void place_tokens(struct task *t, int n)
{
	struct lwm_ring_deal d = { 0 };
	struct lwm_err e = { 0 };
	int32_t seg[SEQ], pos[SEQ];
	int at = 0;
	lay_out(t->row, seg, pos);
	if (lwm_ring_deal_make(&d, t->layout, 1, SEQ, seg, n, &e))
		fail_msg("%s", e.msg);
	for (int64_t k = 0; k < d.first[n]; k++)
		for (int64_t i = 0; i < d.run[k].count; i++)
			t->place[at++] = (int)(d.run[k].from + i * d.run[k].step);
	lwm_ring_deal_release(&d);
}

static struct task run_row(const struct row *row, int n, enum lwm_ring_layout layout, bool train)
{
	struct task t = { .row = row, .layout = layout, .train = train };
	struct lwm_err e = { 0 };
	place_tokens(&t, n);
	if (lwm_comm_threads(n, split_row, &t, &e))
		fail_msg("%s: %s", row->name, e.msg);
	return t;
}

/* ---- by hand ---- */

/* How many tokens of rank k some token of rank q sees. From the definition, token by token. */
static int visible(const struct task *t, int n, int q, int k)
{
	int32_t seg[SEQ], pos[SEQ];
	int local = SEQ / n, sum = 0;
	lay_out(t->row, seg, pos);
	for (int j = 0; j < local; j++) {
		int b = t->place[k * local + j];
		bool seen = false;
		for (int i = 0; i < local && !seen; i++) {
			int a = t->place[q * local + i];
			seen = seg[a] >= 0 && seg[a] == seg[b] && (t->row->full || pos[b] <= pos[a]);
		}
		sum += seen;
	}
	return sum;
}

/* What goes the one way and the other: messages and rows, on the way there. */
struct way {
	int messages;
	long long rows;
};

/* Round: block k travels to the last rank that sees it. Direct: what is seen goes to who sees it. */
static struct way way_of(const struct task *t, int n, bool direct)
{
	struct way w = { 0, 0 };
	for (int k = 0; k < n; k++) {
		int far = 0;
		for (int s = 1; s < n; s++) {
			int rows = visible(t, n, (k + s) % n, k);
			far = rows ? s : far;
			w.messages += direct && rows;
			w.rows += direct ? rows : 0;
		}
		w.messages += direct ? 0 : far;
		w.rows += direct ? 0 : (long long)far * (SEQ / n);
	}
	return w;
}

/* The ring goes round unless direct saves a sixteenth. */
static struct way taken_way(const struct task *t, int n)
{
	struct way round = way_of(t, n, false), direct = way_of(t, n, true);
	return direct.rows * 16 <= round.rows * 15 ? direct : round;
}

static const struct row table[] = {
	{ "one document", { 1024 }, false },
	{ "one document, not causal", { 1024 }, true },
	{ "two documents", { 512, 512 }, false },
	{ "a long one and a short one", { 768, 256 }, false },
	{ "a document a rank", { 128, 128, 128, 128, 128, 128, 128, 128 }, false },
	{ "across one cut", { 64, 128, 64, 256, 512 }, false },
	{ "half padding", { 256, 256 }, false },
	{ "uneven", { 301, 7, 450, 1, 60, 101 }, false },
};
enum { N_ROWS = sizeof table / sizeof *table };

static void counts_follow_from_who_sees_whom(void **state)
{
	(void)state;
	for (int i = 0; i < N_ROWS; i++)
		for (int layout = LWM_RING_CONTIGUOUS; layout <= LWM_RING_BALANCED; layout++)
			for (int n = 2; n <= MOST; n *= 2) {
				struct task t = run_row(&table[i], n, layout, true);
				struct way way = taken_way(&t, n);
				int sent[2] = { 0, 0 };
				long long bytes[2] = { 0, 0 };
				for (int q = 0; q < n; q++) {
					int own = 0;
					for (int k = 0; k < n; k++)
						own += visible(&t, n, q, k) > 0;
					if (t.of[q].fwd != own || t.of[q].bwd != own)
						/* a row that all ranks keep to themselves is computed at once, padding or not */
						if (!(own == 0 && t.of[q].fwd == 1 && t.of[q].bwd == 0))
							fail_msg("%s, %s, rank %d of %d: %d and %d pairs, by hand %d", table[i].name,
								 lwm_ring_layouts[layout], q, n, t.of[q].fwd, t.of[q].bwd, own);
					sent[0] += t.after_fwd[q].sent;
					sent[1] += t.of[q].sent - t.after_fwd[q].sent;
					bytes[0] += t.after_fwd[q].sent_bytes;
					bytes[1] += t.of[q].sent_bytes - t.after_fwd[q].sent_bytes;
				}
				/* forward: keys and values. Backward: these again, and as many gradients, the last one home */
				if (sent[0] != way.messages || sent[1] != 2 * way.messages)
					fail_msg("%s, %s, %d ranks: %d and %d messages, by hand %d and %d", table[i].name,
						 lwm_ring_layouts[layout], n, sent[0], sent[1], way.messages, 2 * way.messages);
				assert_true(bytes[0] == way.rows * PAIR * 4 && bytes[1] == 2 * way.rows * PAIR * 4);
			}
}

/* Bodies for inference always go round. */
static void without_training_blocks_go_round(void **state)
{
	(void)state;
	for (int i = 0; i < N_ROWS; i++)
		for (int n = 2; n <= MOST; n *= 2) {
			struct task t = run_row(&table[i], n, LWM_RING_ZIGZAG, false);
			struct way way = way_of(&t, n, false);
			long long bytes = 0;
			int sent = 0;
			for (int q = 0; q < n; q++) {
				sent += t.of[q].sent;
				bytes += t.of[q].sent_bytes;
			}
			if (sent != way.messages || bytes != way.rows * PAIR * 4)
				fail_msg("%s on %d ranks: %d messages, by hand %d", table[i].name, n, sent, way.messages);
		}
}

/* A few of them as plain numbers. */
static void counts_of_known_rows(void **state)
{
	static const struct {
		int row, layout, ranks, pairs, messages, rows;
	} want[] = {
		{ 0, LWM_RING_CONTIGUOUS, 4, 10, 6, 1536 },  /* the lower triangle; block b goes to the last rank */
		{ 0, LWM_RING_ZIGZAG, 4, 16, 12, 2304 },     /* direct: early halves to all, late ones to some; round: 3072 */
		{ 0, LWM_RING_STRIPED, 8, 64, 56, 7168 },
		{ 1, LWM_RING_CONTIGUOUS, 4, 16, 12, 3072 },
		{ 2, LWM_RING_CONTIGUOUS, 4, 6, 2, 512 },    /* two triangles of two */
		{ 3, LWM_RING_CONTIGUOUS, 4, 7, 3, 768 },    /* a triangle of three and one alone */
		{ 4, LWM_RING_CONTIGUOUS, 8, 8, 0, 0 },      /* nobody needs another rank */
		{ 4, LWM_RING_BALANCED, 8, 8, 0, 0 },        /* the same, and so are the ranks' documents */
		{ 4, LWM_RING_BALANCED, 4, 4, 0, 0 },
		{ 2, LWM_RING_ZIGZAG, 4, 16, 12, 1536 },     /* direct: of each other rank one chunk of two */
		{ 5, LWM_RING_CONTIGUOUS, 8, 16, 8, 960 },   /* direct: 64, 128, and 6 times 128 in the last four */
		{ 6, LWM_RING_CONTIGUOUS, 4, 2, 0, 0 },      /* two ranks hold nothing but padding */
	};
	(void)state;
	for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
		struct task t = run_row(&table[want[i].row], want[i].ranks, (enum lwm_ring_layout)want[i].layout, true);
		long long bytes = 0;
		int pairs = 0, messages = 0;
		for (int r = 0; r < want[i].ranks; r++) {
			pairs += t.of[r].bwd;
			messages += t.after_fwd[r].sent;
			bytes += t.after_fwd[r].sent_bytes;
		}
		if (pairs != want[i].pairs || messages != want[i].messages || bytes != want[i].rows * PAIR * 4)
			fail_msg("%s, %s, %d ranks: %d pairs, %d messages, %d rows; expected %d, %d, %d", table[want[i].row].name,
				 lwm_ring_layouts[want[i].layout], want[i].ranks, pairs, messages, (int)(bytes / (PAIR * 4)),
				 want[i].pairs, want[i].messages, want[i].rows);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(counts_follow_from_who_sees_whom),
					    cmocka_unit_test(without_training_blocks_go_round),
					    cmocka_unit_test(counts_of_known_rows) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
