/* matmul_lt.cu - products by cuBLASLt. What its heuristics say about a shape is asked once and remembered.
 *
 * Sums are fp32 for both element types; TF32 is not used. Where the depth is split, the parts are added in fp32 from the
 * workspace in a fixed order, so results repeat to the bit. */
#include <cublasLt.h>
#include <stdlib.h>

#include "kernels/cuda/matmul_int.h"

enum { SLOTS = 1024 }; /* a power of two */
static const size_t workspace_bytes = 32 << 20;

struct plan {
	struct lk_mm mm;
	bool used, none; /* none: no algorithm */
	cublasLtMatmulDesc_t op;
	cublasLtMatrixLayout_t first, second, c;
	cublasLtMatmulAlgo_t algo;
	size_t workspace;
};

/* dev->blas: open hashing by lk_mm_hash; emptied when it is three quarters full. */
struct lt {
	cublasLtHandle_t handle;
	int count;
	struct plan plans[SLOTS];
};

static int fail(struct lk_dev *dev, const char *what, cublasStatus_t st)
{
	return lk_cuda_fail(dev, st == CUBLAS_STATUS_ALLOC_FAILED ? LK_ENOMEM : LK_EDEVICE, "matmul: %s: %s", what,
			    cublasLtGetStatusString(st));
}

static void plan_drop(struct plan *p)
{
	if (p->op)
		cublasLtMatmulDescDestroy(p->op);
	if (p->first)
		cublasLtMatrixLayoutDestroy(p->first);
	if (p->second)
		cublasLtMatrixLayoutDestroy(p->second);
	if (p->c)
		cublasLtMatrixLayoutDestroy(p->c);
	memset(p, 0, sizeof *p);
}

static void drop_all(struct lt *lt)
{
	for (int i = 0; i < SLOTS; i++)
		if (lt->plans[i].used)
			plan_drop(&lt->plans[i]);
	lt->count = 0;
}

void lk_lt_close(struct lk_dev *dev)
{
	struct lt *lt = static_cast<struct lt *>(lk_cu(dev)->blas);

	if (!lt)
		return;
	drop_all(lt);
	cublasLtDestroy(lt->handle);
	free(lt);
	lk_cu(dev)->blas = NULL;
}

/* The device's lt; NULL with a message. */
static struct lt *lt_of(struct lk_dev *dev)
{
	struct lt *lt = static_cast<struct lt *>(lk_cu(dev)->blas);
	cublasStatus_t st;

	if (lt)
		return lt;
	lt = static_cast<struct lt *>(calloc(1, sizeof *lt));
	if (!lt) {
		lk_cuda_fail(dev, LK_ENOMEM, "matmul: out of memory");
		return NULL;
	}
	st = cublasLtCreate(&lt->handle);
	if (st != CUBLAS_STATUS_SUCCESS) {
		free(lt);
		fail(dev, "cublasLtCreate", st);
		return NULL;
	}
	lk_cu(dev)->blas = lt;
	return lt;
}

static cudaDataType_t type_of(int dtype)
{
	return dtype == LK_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

static cublasStatus_t make_layout(cublasLtMatrixLayout_t *l, const struct lk_mm_mat *m)
{
	return cublasLtMatrixLayoutCreate(l, type_of(m->dtype), static_cast<uint64_t>(m->rows), static_cast<uint64_t>(m->cols),
					  m->ld);
}

static cublasStatus_t describe(struct plan *p)
{
	cublasOperation_t first = p->mm.trans_first ? CUBLAS_OP_T : CUBLAS_OP_N;
	cublasOperation_t second = p->mm.trans_second ? CUBLAS_OP_T : CUBLAS_OP_N;
	cublasStatus_t st = cublasLtMatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F);

	if (st == CUBLAS_STATUS_SUCCESS)
		st = cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first);
	if (st == CUBLAS_STATUS_SUCCESS)
		st = cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second);
	if (st == CUBLAS_STATUS_SUCCESS)
		st = make_layout(&p->first, &p->mm.first);
	if (st == CUBLAS_STATUS_SUCCESS)
		st = make_layout(&p->second, &p->mm.second);
	if (st == CUBLAS_STATUS_SUCCESS)
		st = make_layout(&p->c, &p->mm.c);
	return st;
}

static cublasStatus_t prefer(cublasLtMatmulPreference_t pref, const struct lk_mm *mm)
{
	const uint32_t sums = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
	const uint32_t align[4] = { static_cast<uint32_t>(mm->first.align), static_cast<uint32_t>(mm->second.align),
				    static_cast<uint32_t>(mm->c.align), static_cast<uint32_t>(mm->c.align) };
	const cublasLtMatmulPreferenceAttributes_t name[4] = {
		CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
		CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES
	};
	cublasStatus_t st = cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
								 &workspace_bytes, sizeof workspace_bytes);

	if (st == CUBLAS_STATUS_SUCCESS)
		st = cublasLtMatmulPreferenceSetAttribute(pref, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &sums,
							  sizeof sums);
	for (int i = 0; i < 4 && st == CUBLAS_STATUS_SUCCESS; i++)
		st = cublasLtMatmulPreferenceSetAttribute(pref, name[i], &align[i], sizeof align[i]);
	return st;
}

/* Fills p->algo, or says that there is none. */
static cublasStatus_t choose_algorithm(cublasLtHandle_t handle, struct plan *p)
{
	cublasLtMatmulHeuristicResult_t best = {};
	cublasLtMatmulPreference_t pref;
	int found = 0;
	cublasStatus_t st = cublasLtMatmulPreferenceCreate(&pref);

	if (st != CUBLAS_STATUS_SUCCESS)
		return st;
	st = prefer(pref, &p->mm);
	if (st == CUBLAS_STATUS_SUCCESS)
		st = cublasLtMatmulAlgoGetHeuristic(handle, p->op, p->first, p->second, p->c, p->c, pref, 1, &best, &found);
	cublasLtMatmulPreferenceDestroy(pref);
	p->none = st == CUBLAS_STATUS_NOT_SUPPORTED || (st == CUBLAS_STATUS_SUCCESS && !found);
	if (p->none)
		return CUBLAS_STATUS_SUCCESS;
	p->algo = best.algo;
	p->workspace = best.workspaceSize;
	return st == CUBLAS_STATUS_SUCCESS ? best.state : st;
}

/* What is known of this product, found out if it is new; NULL with a message. */
static struct plan *plan_of(struct lk_dev *dev, struct lt *lt, const struct lk_mm *mm)
{
	unsigned at = static_cast<unsigned>(lk_mm_hash(mm)) % SLOTS;
	struct plan *p;
	cublasStatus_t st;

	if (lt->count >= SLOTS / 4 * 3)
		drop_all(lt);
	for (p = &lt->plans[at]; p->used; p = &lt->plans[at]) {
		if (!memcmp(&p->mm, mm, sizeof *mm))
			return p;
		at = (at + 1) % SLOTS;
	}
	p->mm = *mm;
	st = describe(p);
	if (st == CUBLAS_STATUS_SUCCESS)
		st = choose_algorithm(lt->handle, p);
	if (st != CUBLAS_STATUS_SUCCESS) {
		plan_drop(p);
		fail(dev, "choosing an algorithm", st);
		return NULL;
	}
	p->used = true;
	lt->count++;
	return p;
}

int lk_lt_matmul(struct lk_dev *dev, const struct lk_view *c, const struct lk_view *a, const struct lk_view *b,
		 unsigned flags, float alpha, bool *done)
{
	cudaStream_t stream = lk_stream(dev); // makes the GPU current, before a handle is made on it
	struct lt *lt = lt_of(dev);
	struct lk_mm mm;
	struct plan *p;
	void *work = NULL;
	float beta = flags & LK_ACC ? 1.0f : 0.0f;
	cublasStatus_t st;

	if (!lt)
		return LK_EDEVICE;
	lk_mm_make(&mm, c, a, b, flags);
	p = plan_of(dev, lt, &mm);
	if (!p)
		return LK_EDEVICE;
	*done = !p->none;
	if (p->none)
		return 0;
	if (p->workspace) {
		work = lk_scratch(dev, "matmul", workspace_bytes); // always the same size: it does not grow bit by bit
		if (!work)
			return LK_ENOMEM;
	}
	st = cublasLtMatmul(lt->handle, p->op, &alpha, b->data, p->first, a->data, p->second, &beta, c->data, p->c, c->data,
			    p->c, &p->algo, work, p->workspace ? workspace_bytes : 0, stream);
	return st == CUBLAS_STATUS_SUCCESS ? lk_launched(dev, "matmul") : fail(dev, "cublasLtMatmul", st);
}
