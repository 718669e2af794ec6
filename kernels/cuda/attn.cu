/* attn.cu - block attention: the ops of kernels.h as jobs, and which of the variants does a job.
 *
 *   row    at most LK_ROW_QUERIES queries, or keys of 8 bits: limited by memory, so the keys are split over the chip
 *   sm90   what Hopper's kernels take: they say so themselves
 *   mma    everything else
 *
 * LWM_CUDA_ATTN=mma, sm90 or row insists on one of them and refuses what it does not do, so that they can be compared.
 */
#include <stdlib.h>

#include "kernels/cuda/attn_int.h"

enum { SPARES = 8 };

/* Behind lk_cuda.attn: device memory of schedules whose sequences are gone, to be used again. */
struct attn_mem {
	struct {
		void *block;
		size_t bytes;
	} spare[SPARES];
};

/* A schedule at a sequence of queries (lk_cuda_seq.plan is a list of them). */
struct plan {
	struct plan *next;
	struct lk_dev *dev; /* whose queue uploaded it */
	uint64_t keys;      /* id of the sequence of keys */
	int causal, bq, bk, by_key;
	void *block;
	size_t bytes;
	struct lk_attn_sched sched;
};

/* ---- schedules ---- */

static struct attn_mem *mem_of(struct lk_dev *dev)
{
	struct lk_cuda *cu = lk_cu(dev);

	if (!cu->attn)
		cu->attn = calloc(1, sizeof(struct attn_mem));
	return static_cast<struct attn_mem *>(cu->attn);
}

/* The upload into a spare block waits in the queue for the kernels that read the schedule before. */
static int take_block(struct lk_dev *dev, struct plan *p, size_t bytes)
{
	struct attn_mem *m = mem_of(dev);

	for (int i = 0; m && i < SPARES; i++)
		if (m->spare[i].bytes >= bytes) {
			p->block = m->spare[i].block;
			p->bytes = m->spare[i].bytes;
			m->spare[i].block = nullptr;
			m->spare[i].bytes = 0;
			return 0;
		}
	p->bytes = bytes + bytes / 4; // the next row may need a few runs more
	return lk_cuda_check(dev, "attention schedule", cudaMalloc(&p->block, p->bytes));
}

/* The least of the blocks at hand goes back to CUDA. */
static void give_block(struct lk_dev *dev, struct plan *p)
{
	struct attn_mem *m = mem_of(dev);
	void *least = p->block;
	size_t bytes = p->bytes;

	for (int i = 0; m && i < SPARES; i++)
		if (m->spare[i].bytes < bytes) {
			void *block = m->spare[i].block;
			size_t room = m->spare[i].bytes;

			m->spare[i].block = least;
			m->spare[i].bytes = bytes;
			least = block;
			bytes = room;
		}
	cudaFree(least);
}

static void free_plans(struct lk_dev *dev, void *list)
{
	struct plan *p = static_cast<struct plan *>(list);

	while (p) {
		struct plan *next = p->next;

		if (p->dev == dev)
			give_block(dev, p);
		else
			cudaFree(p->block); // a fork's, which may be closed by now; cudaFree waits for every queue
		free(p);
		p = next;
	}
}

static size_t round_16(size_t bytes)
{
	return (bytes + 15) / 16 * 16;
}

static int upload_plan(struct lk_dev *dev, struct plan *p, const struct lk_sched *s)
{
	size_t tiles = static_cast<size_t>(s->tiles), head = (2 * tiles + 1) * sizeof *s->start;
	size_t runs = static_cast<size_t>(s->nruns) * sizeof *s->runs;
	int rc = take_block(dev, p, round_16(head) + runs + 16);
	char *at = static_cast<char *>(p->block);

	if (rc)
		return rc;
	p->sched.start = reinterpret_cast<int32_t *>(at);
	p->sched.order = p->sched.start + tiles + 1;
	p->sched.runs = reinterpret_cast<struct lk_sched_run *>(at + round_16(head));
	p->sched.tiles = static_cast<int32_t>(tiles);
	p->sched.joined = s->joined;
	rc = dev->ops.upload(dev, at, s->start, head);
	if (!rc && runs)
		rc = dev->ops.upload(dev, at + round_16(head), s->runs, runs);
	return rc;
}

static struct plan *plan_new(struct lk_dev *dev, const struct lk_attn_job *j, int bq, int bk, int by_key, int *rc)
{
	struct plan *p = static_cast<struct plan *>(calloc(1, sizeof *p));
	struct lk_sched s;

	*rc = p ? lk_sched_make(&s, j->qs, j->ks, j->causal, bq, bk, by_key) : LK_ENOMEM;
	if (*rc) {
		lk_cuda_fail(dev, *rc, "attention: no memory for the schedule of %lld queries and %lld keys",
			     static_cast<long long>(j->tq), static_cast<long long>(j->tk));
		free(p);
		return nullptr;
	}
	p->dev = dev;
	p->keys = lk_seq_cuda(j->ks)->id;
	p->causal = j->causal;
	p->bq = bq;
	p->bk = bk;
	p->by_key = by_key;
	*rc = upload_plan(dev, p, &s);
	lk_sched_free(&s);
	if (*rc) {
		cudaFree(p->block);
		free(p);
		return nullptr;
	}
	return p;
}

int lk_attn_sched_get(struct lk_dev *dev, const struct lk_attn_job *j, int bq, int bk, int by_key,
		      struct lk_attn_sched *out)
{
	struct lk_cuda_seq *cs = lk_seq_cuda(j->qs);
	uint64_t keys = lk_seq_cuda(j->ks)->id;
	struct plan *p;
	int rc = 0;

	for (p = static_cast<struct plan *>(cs->plan); p; p = p->next)
		if (p->keys == keys && p->dev == dev && p->causal == j->causal && p->bq == bq && p->bk == bk &&
		    p->by_key == by_key)
			break;
	if (!p) {
		p = plan_new(dev, j, bq, bk, by_key, &rc);
		if (!p)
			return rc;
		p->next = static_cast<struct plan *>(cs->plan);
		cs->plan = p;
		cs->plan_free = free_plans;
	}
	*out = p->sched;
	return 0;
}

void lk_cuda_close_attn(struct lk_dev *dev)
{
	struct attn_mem *m = static_cast<struct attn_mem *>(lk_cu(dev)->attn);

	for (int i = 0; m && i < SPARES; i++)
		cudaFree(m->spare[i].block);
	free(m);
	lk_cu(dev)->attn = nullptr;
}

/* ---- jobs ---- */

static bool aligned(const struct lk_view *v)
{
	int64_t size = static_cast<int64_t>(lk_dtype_size(v->dtype));

	return (reinterpret_cast<uintptr_t>(v->data) | static_cast<uintptr_t>(v->stride[0] * size) |
		static_cast<uintptr_t>(v->stride[1] * size)) % 16 == 0;
}

static struct lk_attn_job job_of(const struct lk_attn *a)
{
	struct lk_attn_job j = {};

	j.q = static_cast<const lk_bf16 *>(a->q.data);
	j.k = a->k.data;
	j.v = a->v.data;
	j.q_t = a->q.stride[0];
	j.q_h = a->q.stride[1];
	j.k_t = a->k.stride[0];
	j.k_h = a->k.stride[1];
	j.v_t = a->v.stride[0];
	j.v_h = a->v.stride[1];
	if (a->k.dtype == LK_I8) {
		j.k_scale = a->k_scale;
		j.v_scale = a->v_scale;
		j.scale_t = a->scale_stride;
	}
	j.tq = a->q.n[0];
	j.tk = a->k.n[0];
	j.h = static_cast<int>(a->q.n[1]);
	j.hkv = static_cast<int>(a->k.n[1]);
	j.group = j.h / j.hkv;
	j.d = static_cast<int>(a->q.n[2]);
	j.causal = a->causal != 0;
	j.vec = j.d % 8 == 0 && aligned(&a->q) && aligned(&a->k) && aligned(&a->v);
	j.scale = a->scale;
	j.scale_log2 = a->scale * LK_LOG2E;
	j.q_pos = a->qs->dev_pos;
	j.q_seg = a->qs->dev_seg;
	j.k_pos = a->ks->dev_pos;
	j.k_seg = a->ks->dev_seg;
	j.qs = a->qs;
	j.ks = a->ks;
	return j;
}

/* ---- variants ---- */

enum variant { ANY, MMA, SM90, ROW, BAD };

static enum variant insisted(void)
{
	const char *s = getenv("LWM_CUDA_ATTN");

	if (!s || !*s)
		return ANY;
	return strcmp(s, "mma") == 0 ? MMA : strcmp(s, "sm90") == 0 ? SM90 : strcmp(s, "row") == 0 ? ROW : BAD;
}

static int not_theirs(struct lk_dev *dev, const char *op, const struct lk_attn_job *j)
{
	return lk_cuda_fail(dev, LK_EUNSUP,
			    "%s: LWM_CUDA_ATTN=%s does not do this: heads of %d elements, number of queries %lld, %d-bit keys, "
			    "%s rows, compute capability %d.%d",
			    op, getenv("LWM_CUDA_ATTN"), j->d, static_cast<long long>(j->tq), j->k_scale ? 8 : 16,
			    j->vec ? "aligned" : "unaligned", lk_cu(dev)->cc / 10, lk_cu(dev)->cc % 10);
}

static int check_common(struct lk_dev *dev, const char *op, const struct lk_attn_job *j, enum variant want)
{
	if (want == BAD)
		return lk_cuda_fail(dev, LK_EINVAL, "%s: LWM_CUDA_ATTN is \"%s\", not mma, sm90 or row", op,
				    getenv("LWM_CUDA_ATTN"));
	if (j->d > LK_ATTN_HEAD)
		return lk_cuda_fail(dev, LK_EUNSUP, "%s: heads of %d elements, of at most %d on GPUs", op, j->d, LK_ATTN_HEAD);
	if (j->tq > LK_ATTN_TOKENS || j->tk > LK_ATTN_TOKENS)
		return lk_cuda_fail(dev, LK_EUNSUP, "%s: %lld queries and %lld keys, of at most %d each on GPUs", op,
				    static_cast<long long>(j->tq), static_cast<long long>(j->tk), LK_ATTN_TOKENS);
	if (j->h > 65535)
		return lk_cuda_fail(dev, LK_EUNSUP, "%s: %d heads, at most 65535 on GPUs", op, j->h);
	return 0;
}

static int forward(struct lk_dev *dev, const char *op, const struct lk_attn_job *j)
{
	enum variant want = insisted();
	int rc = check_common(dev, op, j, want);

	lk_stream(dev);
	if (rc)
		return rc;
	if (j->k_scale)
		return want == ANY || want == ROW ? lk_attn_row_fwd(dev, j) : not_theirs(dev, op, j);
	if (want == ROW || (want == ANY && j->tq <= LK_ROW_QUERIES))
		return lk_attn_row_fwd(dev, j);
	if (want != MMA) {
		rc = lk_attn_sm90_fwd(dev, j);
		if (rc != LK_EUNSUP)
			return rc;
		if (want == SM90)
			return not_theirs(dev, op, j);
	}
	return lk_attn_mma_fwd(dev, j);
}

static int attn_fwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_attn_state *st)
{
	struct lk_attn_job j = job_of(a);

	j.m = st->m;
	j.l = st->l;
	j.acc = st->acc;
	return forward(dev, "attn_fwd", &j);
}

static int attn_once(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *o, float *lse)
{
	struct lk_attn_job j = job_of(a);

	j.o = o->data;
	j.o_f32 = o->dtype == LK_F32;
	j.o_t = o->stride[0];
	j.o_h = o->stride[1];
	j.lse = lse;
	if (!j.tk)
		return lk_attn_nothing(dev, &j);
	return forward(dev, "attn_once", &j);
}

static int attn_bwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *dout, const float *lse,
		    const float *delta, const struct lk_view *dq, const struct lk_view *dk, const struct lk_view *dv)
{
	struct lk_attn_job j = job_of(a);
	enum variant want = insisted();
	int rc = check_common(dev, "attn_bwd", &j, want);

	j.dout = static_cast<const lk_bf16 *>(dout->data);
	j.do_t = dout->stride[0];
	j.do_h = dout->stride[1];
	j.lse_in = lse;
	j.delta = delta;
	j.dq = static_cast<float *>(dq->data);
	j.dk = static_cast<float *>(dk->data);
	j.dv = static_cast<float *>(dv->data);
	j.dq_t = dq->stride[0];
	j.dq_h = dq->stride[1];
	j.dk_t = dk->stride[0];
	j.dk_h = dk->stride[1];
	j.dv_t = dv->stride[0];
	j.dv_h = dv->stride[1];
	j.vec = j.vec && aligned(dout);
	j.vec_grad = j.d % 4 == 0 && aligned(dq) && aligned(dk) && aligned(dv);
	lk_stream(dev);
	if (rc)
		return rc;
	rc = want == MMA ? LK_EUNSUP : want == ROW ? not_theirs(dev, "attn_bwd", &j) : lk_attn_sm90_bwd(dev, &j);
	if (rc != LK_EUNSUP || want == ROW)
		return rc;
	return want == SM90 ? not_theirs(dev, "attn_bwd", &j) : lk_attn_mma_bwd(dev, &j);
}

void lk_cuda_fill_attn(struct lk_ops *o)
{
	lk_attn_fill_state(o);
	o->attn_fwd = attn_fwd;
	o->attn_once = attn_once;
	o->attn_bwd = attn_bwd;
}
