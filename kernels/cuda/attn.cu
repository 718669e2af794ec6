/* attn.cu - block attention: the ops of kernels.h as jobs, and which of the variants does a job.
 *
 *   row    at most LK_ROW_QUERIES queries, or keys of 8 bits: limited by memory, so the keys are split over the chip
 *   sm90   what Hopper's kernels take: they say so themselves
 *   mma    everything else
 *
 * LWM_CUDA_ATTN=mma, sm90 or row insists on one of them and refuses what it does not do, so that they can be compared.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "kernels/cuda/attn_int.h"

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

static enum variant insisted_variant(void)
{
	const char *s = getenv("LWM_CUDA_ATTN");

	if (!s || !*s)
		return ANY;
	return strcmp(s, "mma") == 0 ? MMA : strcmp(s, "sm90") == 0 ? SM90 : strcmp(s, "row") == 0 ? ROW : BAD;
}

static int not_theirs(struct lk_dev *dev, const char *op, const struct lk_attn_job *j)
{
	return lk_cuda_fail(dev, LK_EUNSUP,
			    "%s: LWM_CUDA_ATTN=%s does not do this: heads of %d elements, number of queries %" PRId64
			    ", %d-bit keys, %s rows, compute capability %d.%d",
			    op, getenv("LWM_CUDA_ATTN"), j->d, j->tq, j->k_scale ? 8 : 16,
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
		return lk_cuda_fail(dev, LK_EUNSUP, "%s: %" PRId64 " queries and %" PRId64 " keys, of at most %d each on GPUs", op,
				    j->tq, j->tk, LK_ATTN_TOKENS);
	if (j->h > 65535)
		return lk_cuda_fail(dev, LK_EUNSUP, "%s: %d heads, at most 65535 on GPUs", op, j->h);
	return 0;
}

static int forward_by_variant(struct lk_dev *dev, const char *op, const struct lk_attn_job *j)
{
	enum variant want = insisted_variant();
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
	return forward_by_variant(dev, "attn_fwd", &j);
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
	return forward_by_variant(dev, "attn_once", &j);
}

static int attn_bwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *dout, const float *lse,
		    const float *delta, const struct lk_view *dq, const struct lk_view *dk, const struct lk_view *dv)
{
	struct lk_attn_job j = job_of(a);
	enum variant want = insisted_variant();
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
	o->attention.attn_fwd = attn_fwd;
	o->attention.attn_once = attn_once;
	o->attention.attn_bwd = attn_bwd;
}
