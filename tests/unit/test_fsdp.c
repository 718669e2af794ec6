/* Weights cut over ranks: loss, gradients, norm and ten updates of every mesh are those of one rank that has everything; the same
 * mesh repeats bit for bit; nothing is used after its release; a rank that fails leaves nobody waiting. */
#include "tests/unit/llama_fixture.h"

#include <unistd.h>

#include "common/comm/mesh.h"
#include "common/model/weights_fsdp.h"
#include "common/optim/squares.h"
#include "common/optim/weights.h"

enum { TOKENS = 32, BATCHES = 24, STEPS = 10, MOST_TOTAL = 1 << 14 };
static const int docs3[] = { 11, 7, 9 };

enum mishap { NONE, BAD_BATCH, BAD_GROUP, MISHAPS };
static const char *const sentence[] = { "", "rank 1: token 3 has id 1000", "rank 1: group 2 is out" };

/* A run on some mesh, and what came of it: each rank writes what it owns. */
struct run {
	const char *mesh;
	int ranks;
	struct lwm_fsdp_how how;
	bool tied, whole; /* whole: not by lwm_fsdp, each rank has all weights */
	int steps; /* 0: the forward's gathers alone */
	enum mishap mishap; /* of rank 1, in the second microbatch */
	float grad[MOST_TOTAL], weights[MOST_TOTAL];
	double loss[STEPS], norm[STEPS];
	uint64_t sent[STEPS][3]; /* of rank 0, after each step: to the other shards, to the other replicas, to all */
	int64_t total;
};

static struct lwm_llama_cfg model_of(const struct run *r)
{
	struct lwm_llama_cfg c = tiny_cfg();

	c.layers = 3;
	c.tie_embeddings = r->tied;
	return c;
}

/* ---- a supply that goes wrong ---- */

struct failing {
	struct lwm_supply base, *inner;
	int64_t group;
};

static int failing_acquire(struct lwm_supply *w, const struct lwm_group *g, unsigned what, struct lwm_supplied *at, int failed,
			   struct lwm_err *e)
{
	struct failing *f = (struct failing *)w;
	int rc = lwm_supply_acquire(f->inner, g, what, at, failed, e);

	return rc || g->index != f->group ? rc : lwm_fail(e, LWM_EIO, "group %d is out", (int)g->index);
}

static void failing_release(struct lwm_supply *w, const struct lwm_group *g)
{
	lwm_supply_release(((struct failing *)w)->inner, g);
}

static int failing_ready(struct lwm_supply *w, const struct lwm_group *g, int failed, struct lwm_err *e)
{
	return lwm_supply_grad_ready(((struct failing *)w)->inner, g, failed, e);
}

static int failing_agree(struct lwm_supply *w, int rc, struct lwm_err *e)
{
	return lwm_supply_agree(((struct failing *)w)->inner, rc, e);
}

static const struct lwm_supply_ops failing_ops = { failing_acquire, failing_release, failing_ready, failing_agree };

/* ---- one rank ---- */

struct rank {
	struct run *r;
	struct lwm_mesh mesh;
	struct lk_dev *dev;
	struct lwm_tensors table;
	struct lwm_cut cut;
	struct lwm_weights w;
	struct lwm_fsdp *fsdp;
	struct lwm_flat_weights flat;
	struct lwm_supply *supply;
	struct lwm_llama *net;
};

static int open_mesh(struct rank *k, struct lwm_comm *c, struct lwm_err *e)
{
	LWM_TRY(lwm_mesh_new(&k->mesh, k->r->mesh, c, e));
	LWM_TRY(lwm_mesh_attach(&k->mesh, k->dev, e));
	LWM_TRY(lwm_mesh_attach_group(&k->mesh, LWM_SHARD, k->dev, e));
	return lwm_mesh_attach_group(&k->mesh, LWM_DP, k->dev, e);
}

static int open_weights(struct rank *k, const struct lwm_llama_cfg *c, struct lwm_err *e)
{
	int ranks = lwm_mesh_ranks(&k->mesh, LWM_GRAD), shards = k->r->whole ? 1 : lwm_mesh_ranks(&k->mesh, LWM_SHARD);
	int64_t total, from, n, at;
	float *first = weights_new(c, &total), *own;

	LWM_TRY(lwm_llama_tensors(&k->table, c, e));
	LWM_TRY(lwm_cut_new(&k->cut, &k->table, shards, ranks / shards, e));
	k->cut = lwm_cut_of(&k->cut, lwm_mesh_rank(&k->mesh, LWM_GRAD));
	LWM_TRY(lwm_weights_new(&k->w, k->dev, LK_F32, &k->cut, k->mesh.dev[k->r->whole ? LWM_GRAD : LWM_DP],
				k->mesh.comm[LWM_GRAD], k->r->how.chain, e));
	own = calloc((size_t)k->cut.count, sizeof *own);
	for (int64_t i = 0; i < k->table.n; i++)
		if (lwm_cut_own(&k->cut, &k->table.list[i], &from, &n, &at))
			memcpy(own + at, first + from, (size_t)n * sizeof *own);
	LWM_TRY(lwm_weights_put(&k->w, LWM_STATE_WEIGHTS, own, e));
	free(own);
	free(first);
	LWM_TRY(lwm_weights_gather(&k->w, e));
	if (lwm_comm_rank(k->mesh.world) == 0)
		k->r->total = total;
	k->flat = lwm_flat_weights_of(k->w.compute, LK_F32, k->w.grad);
	k->supply = &k->flat.base;
	if (k->r->whole && k->r->how.chain)
		lwm_flat_weights_chain(&k->flat, k->dev, k->mesh.dev[LWM_GRAD], k->w.slice, &k->cut);
	if (k->r->whole)
		return 0;
	LWM_TRY(lwm_fsdp_new(&k->fsdp, k->dev, LK_F32, &k->table, &k->cut, k->w.compute, k->w.grad, k->mesh.dev[LWM_SHARD],
			     &k->r->how, e));
	if (k->r->how.chain)
		lwm_fsdp_chain(k->fsdp, k->mesh.dev[LWM_GRAD]);
	k->supply = lwm_fsdp_supply(k->fsdp);
	return 0;
}

/* This rank's part of a batch: a stretch of its tokens, by the rank in the ring. */
static int add_batch(struct rank *k, const struct lwm_llama_cfg *c, int index, bool wrong, double *loss, struct lwm_err *e)
{
	struct batch x = batch_docs(c, TOKENS, docs3, 3, 3 * index);
	int n = TOKENS / k->mesh.dim[LWM_SP], at = n * k->mesh.coord[LWM_SP];
	struct lwm_llama_batch b = { .n = n, .tokens = x.tokens + at, .targets = x.targets + at, .weights = x.weights + at,
				     .seg = x.seg + at, .pos = x.pos + at };
	struct failing f = { *k->supply, k->supply, 2 };
	struct lwm_llama_stats st = { 0 };
	int rc;

	f.base.ops = &failing_ops;
	if (wrong && k->r->mishap == BAD_BATCH)
		x.tokens[at + 3] = 1000;
	rc = lwm_llama_step(k->net, &b, wrong && k->r->mishap == BAD_GROUP ? &f.base : k->supply, &st, e);
	*loss += st.loss[LWM_TEXT] + st.loss[LWM_VISION];
	batch_free(&x);
	return rc;
}

/* Values of what this rank owns, into the vector of all. */
static void write_own(const struct rank *k, const float *own, float *all)
{
	int64_t from, n, at;

	for (int64_t i = 0; i < k->table.n; i++)
		if (lwm_cut_own(&k->cut, &k->table.list[i], &from, &n, &at))
			memcpy(all + from, own + at, (size_t)n * sizeof *own);
}

static int one_step(struct rank *k, const struct lwm_llama_cfg *c, int step, struct lwm_err *e)
{
	static const struct lwm_adamw how = { .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-3, .weight_decay = 0.1 };
	int data = lwm_mesh_ranks(&k->mesh, LWM_DATA), rank = lwm_mesh_rank(&k->mesh, LWM_DATA), micros = BATCHES / data;
	double loss = 0, norm;
	int rc = 0;

	LWM_TRY(lwm_weights_zero_grad(&k->w, e));
	if (k->fsdp)
		LWM_TRY(lwm_fsdp_begin(k->fsdp, e));
	for (int i = 0; i < micros && rc == 0; i++) {
		k->supply->more = i + 1 < micros;
		rc = add_batch(k, c, k->r->how.chain ? i * data + rank : rank * micros + i,
			       lwm_comm_rank(k->mesh.world) == 1 && i == 1, &loss, e);
	}
	LWM_TRY(lwm_agree(k->mesh.world, rc, e));
	LWM_TRY(lwm_weights_reduce(&k->w, &k->table, 0.5, &norm, e));
	LWM_TRY(lwm_comm_sum_f64(k->mesh.world, &loss, 1, e));
	if (step == 0)
		write_own(k, k->w.slice, k->r->grad);
	if (lwm_comm_rank(k->mesh.world) == 0) {
		k->r->loss[step] = loss;
		k->r->norm[step] = norm;
	}
	LWM_TRY(lwm_weights_update(&k->w, &k->table, &how, step, 3e-3, 0.5, e));
	LWM_TRY(lwm_weights_gather(&k->w, e));
	if (k->fsdp)
		lwm_fsdp_renew(k->fsdp);
	if (lwm_comm_rank(k->mesh.world) == 0) {
		k->r->sent[step][0] = lwm_comm_sent(k->mesh.comm[LWM_SHARD]);
		k->r->sent[step][1] = lwm_comm_sent(k->mesh.comm[LWM_DP]);
		k->r->sent[step][2] = lwm_comm_sent(k->mesh.comm[LWM_GRAD]);
	}
	return 0;
}

/* How much is under way or done when a group is acquired: it, and those after it that are gathered ahead. */
static int forward_alone(struct rank *k, struct lwm_err *e)
{
	const struct lwm_cut *c = &k->cut;
	uint64_t want = lwm_comm_sent(k->mesh.comm[LWM_SHARD]); /* what opening the mesh took */
	int64_t begun = 0;
	int rc = lwm_supply_agree(k->supply, 0, e);

	for (int64_t g = 0; g < c->n; g++) {
		struct lwm_group group = lwm_tensors_group(&k->table, g);
		struct lwm_supplied at;

		rc = lwm_supply_acquire(k->supply, &group, LWM_WEIGHTS, &at, rc, e);
		for (; begun <= g + k->r->how.ahead && begun < c->n; begun++)
			want += (uint64_t)((c->shards - 1) * c->group[begun].slice * 4);
		if (!rc && lwm_comm_sent(k->mesh.comm[LWM_SHARD]) != want)
			rc = lwm_fail(e, LWM_EDATA, "group %d, %d ahead: %d bytes sent, expected %d", (int)g, k->r->how.ahead,
				      (int)lwm_comm_sent(k->mesh.comm[LWM_SHARD]), (int)want);
		lwm_supply_release(k->supply, &group);
	}
	return lwm_supply_agree(k->supply, rc, e);
}

static int run_rank(struct lwm_comm *comm, void *arg, struct lwm_err *e)
{
	struct rank k = { .r = arg };
	struct lwm_llama_cfg c = model_of(k.r);
	struct lwm_llama_run how = { .tokens = TOKENS, .train = true, .recompute = true };
	int rc;

	k.dev = device("cpu", 1);
	LWM_GO(open_mesh(&k, comm, e));
	LWM_GO(open_weights(&k, &c, e));
	how.tokens /= k.mesh.dim[LWM_SP];
	how.ring = k.mesh.dev[LWM_SP];
	if (k.r->steps == 0)
		LWM_GO(forward_alone(&k, e));
	LWM_GO(lwm_llama_new(&k.net, k.dev, &c, &how, e));
	for (int i = 0; rc == 0 && i < k.r->steps; i++)
		rc = one_step(&k, &c, i, e);
	if (rc == 0)
		write_own(&k, k.w.master, k.r->weights);
out:
	lwm_llama_free(k.net);
	lwm_mesh_detach(&k.mesh);
	lwm_fsdp_free(k.fsdp);
	lwm_weights_release(&k.w);
	lwm_cut_release(&k.cut);
	lwm_tensors_release(&k.table);
	lk_dev_close(k.dev);
	lwm_mesh_release(&k.mesh);
	return rc;
}

/* flat: not by lwm_fsdp. */
static struct run *run_on(const char *mesh, int ranks, struct lwm_fsdp_how how, bool tied, bool flat, int steps)
{
	struct run *r = calloc(1, sizeof *r);
	struct lwm_err e = { 0 };

	*r = (struct run){ .mesh = mesh, .ranks = ranks, .how = how, .tied = tied, .whole = flat, .steps = steps };
	if (lwm_comm_threads(ranks, run_rank, r, &e))
		fail_msg("%s: %s", mesh, e.msg);
	assert_true(r->total <= MOST_TOTAL);
	return r;
}

/* ---- tests ---- */

static const struct {
	const char *mesh;
	int ranks;
} meshes[] = { { "1,2,1,1", 2 }, { "1,3,1,1", 3 }, { "1,4,1,1", 4 }, { "1,8,1,1", 8 }, { "2,2,1,1", 4 },
	       { "1,2,1,2", 4 }, { "2,2,1,2", 8 }, { "1,1,1,2", 2 }, { "2,1,1,2", 4 } };
enum { MESHES = sizeof meshes / sizeof *meshes };

static void as_on_one_rank(void **state)
{
	(void)state;
	for (int tied = 0; tied < 2; tied++) {
		struct run *one = run_on("1,1,1,1", 1, (struct lwm_fsdp_how){ 0 }, tied, true, STEPS);

		assert_true(one->loss[STEPS - 1] < one->loss[0]);
		for (int i = 0; i < MESHES; i++)
			for (int whole = 0; whole < 2; whole++) {
				struct lwm_fsdp_how how = { .ahead = (i + tied) % 3, .whole = whole };
				struct run *r = run_on(meshes[i].mesh, meshes[i].ranks, how, tied, false, STEPS);

				assert_below(worst(r->grad, one->grad, one->total), 1e-5);
				assert_below(worst(r->weights, one->weights, one->total), 1e-5);
				for (int k = 0; k < STEPS; k++) {
					assert_below(fabs(r->loss[k] / one->loss[k] - 1), 1e-6);
					assert_below(fabs(r->norm[k] / one->norm[k] - 1), k ? 1e-4 : 1e-6);
				}
				free(r);
			}
		free(one);
	}
}

static void same_bits(const struct run *a, const struct run *b)
{
	assert_memory_equal(a->grad, b->grad, sizeof a->grad);
	assert_memory_equal(a->weights, b->weights, sizeof a->weights);
	assert_memory_equal(a->loss, b->loss, sizeof a->loss);
	assert_memory_equal(a->norm, b->norm, sizeof a->norm);
}

/* How far ahead groups are gathered changes nothing, and what is given back is not looked at again: it is overwritten. */
static void nothing_after_release(void **state)
{
	(void)state;
	for (int i = 0; i < MESHES; i++)
		for (int whole = 0; whole < 2; whole++) {
			bool tied = i % 2;
			struct lwm_fsdp_how none = { .whole = whole };
			struct run *a = run_on(meshes[i].mesh, meshes[i].ranks, none, tied, false, 2), *b;

			for (int ahead = 0; ahead < 3; ahead++) {
				struct lwm_fsdp_how how = { .ahead = ahead, .whole = whole, .poison = ahead != 1 };

				b = run_on(meshes[i].mesh, meshes[i].ranks, how, tied, false, 2);
				same_bits(a, b);
				free(b);
			}
			free(a);
		}
}

/* Gradients that are scattered once a step are those of whole weights on the same ranks, bit for bit, and weights after updates. */
static void as_whole_weights(void **state)
{
	(void)state;
	for (int i = 0; i < MESHES; i++) {
		struct run *a, *b;

		if (meshes[i].mesh[0] != '1') /* with replicas sums are formed in two stages */
			continue;
		a = run_on(meshes[i].mesh, meshes[i].ranks, (struct lwm_fsdp_how){ .ahead = 1, .whole = true }, i % 2, false, 2);
		b = run_on(meshes[i].mesh, meshes[i].ranks, (struct lwm_fsdp_how){ 0 }, i % 2, true, 2);
		assert_memory_equal(a->grad, b->grad, sizeof a->grad);
		assert_memory_equal(a->weights, b->weights, sizeof a->weights);
		free(a);
		free(b);
	}
}

/* Meshes for chained sums: ranks that share no row. */
static const struct {
	const char *mesh;
	int ranks, replicas;
} apart[] = { { "2,1,1,1", 2, 2 }, { "1,2,1,1", 2, 1 }, { "1,3,1,1", 3, 1 }, { "3,1,1,1", 3, 3 }, { "2,2,1,1", 4, 2 },
	      { "1,4,1,1", 4, 1 }, { "3,2,1,1", 6, 3 }, { "2,3,1,1", 6, 2 },  { "1,8,1,1", 8, 1 }, { "4,2,1,1", 8, 4 },
	      { "2,4,1,1", 8, 2 } };
enum { APART = sizeof apart / sizeof *apart };

/* Nothing to cut: every rank has all weights. */
static bool has_whole(int i)
{
	return apart[i].replicas == apart[i].ranks;
}

/* Gradient, norms and weights of chained sums are one rank's, to the bit, whole or cut, on any number of ranks. */
static void chained_bits(void **state)
{
	(void)state;
	for (int tied = 0; tied < 2; tied++) {
		struct run *one = run_on("1,1,1,1", 1, (struct lwm_fsdp_how){ .chain = true }, tied, true, STEPS), *r;

		for (int i = 0; i < APART * 2; i++) {
			struct lwm_fsdp_how how = { .ahead = i % 3, .chain = true, .poison = i % 4 == 1 };

			r = run_on(apart[i / 2].mesh, apart[i / 2].ranks, how, tied, i % 2 || has_whole(i / 2), STEPS);
			assert_memory_equal(r->grad, one->grad, sizeof r->grad);
			assert_memory_equal(r->weights, one->weights, sizeof r->weights);
			assert_memory_equal(r->norm, one->norm, sizeof r->norm);
			free(r);
		}
		r = run_on("2,1,1,1", 2, (struct lwm_fsdp_how){ 0 }, tied, true, STEPS);
		assert_below(worst(r->grad, one->grad, one->total), 1e-5);
		assert_below(worst(r->weights, one->weights, one->total), 1e-5);
		assert_below(fabs(r->norm[0] / one->norm[0] - 1), 1e-6);
		assert_int_not_equal(memcmp(r->grad, one->grad, sizeof r->grad), 0); /* or nothing was shown */
		free(r);
		free(one);
	}
}

/* Each microbatch sends to every other rank its part of every group. */
static void bytes_of_chained_sums(void **state)
{
	struct run tiny = { .tied = false };
	struct lwm_llama_cfg c = model_of(&tiny);
	struct lwm_tensors t;

	(void)state;
	assert_int_equal(lwm_llama_tensors(&t, &c, NULL), 0);
	for (int i = 0; i < APART; i++) {
		int n = apart[i].ranks, shards = n / apart[i].replicas;
		struct run *r = run_on(apart[i].mesh, n, (struct lwm_fsdp_how){ .chain = true }, false, has_whole(i), 2);
		int64_t parts = 0, gathers = 0, from, norm = (int64_t)sizeof(struct lwm_squares) + 16;
		struct lwm_cut cut;

		assert_int_equal(lwm_cut_new(&cut, &t, shards, apart[i].replicas, NULL), 0);
		for (int64_t g = 0; g < cut.n; g++) {
			parts += lwm_comm_chain_part(n, 0, shards, cut.group[g].slice, &from);
			gathers += cut.group[g].slice * (1 + (g > 0 && g < cut.n - 1));
		}
		if (shards == 1) /* and new weights */
			parts = cut.local / n * (BATCHES / n + 1);
		else /* and weights of groups, where the same ranks have them */
			parts = BATCHES / n * (parts + (apart[i].replicas == 1) * gathers);
		assert_int_equal(r->sent[1][2] - r->sent[0][2], (n - 1) * (parts * 4 + norm));
		lwm_cut_release(&cut);
		free(r);
	}
	lwm_tensors_release(&t);
}

/* What common/train/README.md says of the bytes of a step. All groups once, the layers again but for the last `ahead`; after the
 * first microbatch not the first `ahead` layers; gradients of all groups, once a step or a microbatch. */
static void bytes_of_a_step(void **state)
{
	static const struct {
		const char *mesh;
		int shards, replicas, data;
	} m[] = { { "1,3,1,1", 3, 1, 3 }, { "2,2,1,1", 2, 2, 4 }, { "1,2,1,2", 4, 1, 2 }, { "2,2,1,2", 4, 2, 4 } };
	struct run tiny = { .tied = false };
	struct lwm_llama_cfg c = model_of(&tiny);
	struct lwm_tensors t;

	(void)state;
	assert_int_equal(lwm_llama_tensors(&t, &c, NULL), 0);
	for (int i = 0; i < 4; i++)
		for (int how = 0; how < 6; how++) {
			int ahead = how % 3, whole = how / 3, micros = BATCHES / m[i].data, others = m[i].shards - 1;
			struct lwm_cut cut;
			int64_t elements = 0, want;
			struct run *r = run_on(m[i].mesh, m[i].shards * m[i].replicas,
					       (struct lwm_fsdp_how){ .ahead = ahead, .whole = whole }, false, false, 2);

			assert_int_equal(lwm_cut_new(&cut, &t, m[i].shards, m[i].replicas, NULL), 0);
			for (int64_t g = 0; g < cut.n; g++) {
				bool layer = g > 0 && g < cut.n - 1;
				int gathers = micros + layer * micros - (layer && g >= cut.n - 1 - ahead) * micros -
					      (layer && g <= ahead) * (micros - 1);

				elements += cut.group[g].slice * (gathers + (whole ? 1 : micros));
			}
			want = others * elements * 4;
			if (m[i].replicas == 1) /* the norm, and who failed, go over the same ranks */
				want += others * 16;
			assert_int_equal(r->sent[1][0] - r->sent[0][0], want);
			assert_int_equal(r->sent[1][1] - r->sent[0][1], (m[i].replicas - 1) * cut.local / m[i].replicas * 8);
			lwm_cut_release(&cut);
			free(r);
		}
	lwm_tensors_release(&t);
}

static void gathered_ahead(void **state)
{
	(void)state;
	for (int ahead = 0; ahead < 4; ahead++)
		free(run_on("1,3,1,1", 3, (struct lwm_fsdp_how){ .ahead = ahead }, false, false, 0));
}

static void fail_one_rank(const char *mesh, int ranks, struct lwm_fsdp_how how, bool whole, enum mishap mishap)
{
	struct run *r = calloc(1, sizeof *r);
	struct lwm_err e = { 0 };
	int rc;

	*r = (struct run){ .mesh = mesh, .ranks = ranks, .steps = 1, .how = how, .whole = whole, .mishap = mishap };
	rc = lwm_comm_threads(r->ranks, run_rank, r, &e);
	assert_int_equal(rc, mishap == BAD_BATCH ? -LWM_EDATA : -LWM_EIO);
	if (!strstr(e.msg, sentence[mishap]))
		fail_msg("%s: '%s', expected '%s'", r->mesh, e.msg, sentence[mishap]);
	free(r);
}

static void nobody_waits(void **state)
{
	(void)state;
	for (int how = BAD_BATCH; how < MISHAPS; how++) {
		for (int i = 0; i < MESHES; i++)
			fail_one_rank(meshes[i].mesh, meshes[i].ranks, (struct lwm_fsdp_how){ .ahead = 1, .whole = i % 2 }, false,
				      (enum mishap)how);
		for (int i = 0; i < APART * 2; i++)
			fail_one_rank(apart[i / 2].mesh, apart[i / 2].ranks, (struct lwm_fsdp_how){ .chain = true },
				      i % 2 || has_whole(i / 2), (enum mishap)how);
	}
}

/* Every element of every tensor belongs to one rank, at a place of its own. */
static void the_cut(void **state)
{
	struct lwm_llama_cfg c = tiny_cfg();
	struct lwm_tensors t;
	struct lwm_cut cut;

	(void)state;
	assert_int_equal(lwm_llama_tensors(&t, &c, NULL), 0);
	for (int shards = 1; shards <= 8; shards++)
		for (int replicas = 1; replicas <= 3; replicas++) {
			char *owned = calloc((size_t)t.total, 1);
			int64_t from, n, at, all = 0;

			assert_int_equal(lwm_cut_new(&cut, &t, shards, replicas, NULL), 0);
			for (int r = 0; r < shards * replicas; r++) {
				struct lwm_cut own = lwm_cut_of(&cut, r);
				int64_t last = 0;

				assert_int_equal(own.count * replicas, own.local);
				assert_int_equal(own.count % 16, 0);
				for (int64_t g = 0; g < own.n; g++)
					if (lwm_cut_own_group(&own, g, &from, &n, &at)) {
						assert_true(from >= own.group[g].offset && at >= 0 && at + n <= own.count);
						assert_true(from + n <= own.group[g].offset + own.group[g].count);
						all += n;
					}
				for (int64_t i = 0; i < t.n; i++) {
					if (!lwm_cut_own(&own, &t.list[i], &from, &n, &at))
						continue;
					assert_true(n > 0 && at >= last && at + n <= own.count && from >= t.list[i].offset);
					assert_true(from + n <= t.list[i].offset + t.list[i].count);
					last = at + n;
					for (int64_t k = 0; k < n; k++)
						assert_int_equal(owned[from + k]++, 0);
				}
			}
			for (int64_t i = 0; i < t.n; i++)
				for (int64_t k = 0; k < t.list[i].count; k++)
					assert_int_equal(owned[t.list[i].offset + k], 1);
			assert_int_equal(all, t.total);
			lwm_cut_release(&cut);
			free(owned);
		}
	lwm_tensors_release(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_cut),
		cmocka_unit_test(as_on_one_rank),
		cmocka_unit_test(nothing_after_release),
		cmocka_unit_test(as_whole_weights),
		cmocka_unit_test(chained_bits),
		cmocka_unit_test(bytes_of_chained_sums),
		cmocka_unit_test(bytes_of_a_step),
		cmocka_unit_test(gathered_ahead),
		cmocka_unit_test(nobody_waits),
	};

	alarm(600); /* a rank that waits for ever ends the test */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
