/* emu_blas.cc - cuBLASLt as its manual describes it, by plain loops in the stream.
 *
 * An algorithm is a note of what it was chosen for: using it for another product, for pointers that are less aligned than
 * was said, or without the workspace it asked for is an error. Deep products ask for a workspace and spoil it. bf16 in rows
 * of an odd length has no algorithm, so that callers meet that answer too. */
#include <cstdlib>
#include <vector>

#include "cublasLt.h"
#include "cuda_bf16.h"
#include "emu_int.h"

enum { DEEP = 200, WORKSPACE = 4096 };

struct emu_lt_handle {
	int gpu;
};
struct emu_lt_desc {
	int trans[2];
};
struct emu_lt_layout {
	cudaDataType_t type;
	int64_t rows, cols, ld;
};
struct emu_lt_preference {
	size_t workspace;
	uint32_t sums, align[4];
};

static size_t size_of(cudaDataType_t t)
{
	return t == CUDA_R_16BF ? 2 : 4;
}

/* ---- objects ---- */

const char *cublasLtGetStatusString(cublasStatus_t st)
{
	return st == CUBLAS_STATUS_SUCCESS ? "CUBLAS_STATUS_SUCCESS" :
	       st == CUBLAS_STATUS_INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE" :
	       st == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED" :
						   "CUBLAS_STATUS_ALLOC_FAILED";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *h)
{
	*h = new emu_lt_handle{ emu::state_of_host().gpu };
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t h)
{
	delete h;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, cublasComputeType_t compute, cudaDataType_t scale)
{
	if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F)
		return CUBLAS_STATUS_NOT_SUPPORTED;
	*d = new emu_lt_desc{};
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d)
{
	delete d;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t a, const void *v,
					      size_t bytes)
{
	if (bytes != sizeof(cublasOperation_t))
		return CUBLAS_STATUS_INVALID_VALUE;
	d->trans[a - CUBLASLT_MATMUL_DESC_TRANSA] = *static_cast<const cublasOperation_t *>(v) == CUBLAS_OP_T;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType_t type, uint64_t rows, uint64_t cols,
					  int64_t ld)
{
	*l = new emu_lt_layout{ type, static_cast<int64_t>(rows), static_cast<int64_t>(cols), ld };
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
	delete l;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p)
{
	*p = new emu_lt_preference{ 0, 7, { 256, 256, 256, 256 } };
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
	delete p;
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t a,
						    const void *v, size_t bytes)
{
	if (bytes != (a == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES ? sizeof(uint64_t) : sizeof(uint32_t)))
		return CUBLAS_STATUS_INVALID_VALUE;
	if (a == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
		p->workspace = *static_cast<const uint64_t *>(v);
	else if (a == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
		p->sums = *static_cast<const uint32_t *>(v);
	else
		p->align[a - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES] = *static_cast<const uint32_t *>(v);
	return CUBLAS_STATUS_SUCCESS;
}

/* ---- choosing ---- */

/* What an algorithm remembers, in cublasLtMatmulAlgo_t.data. */
struct choice {
	int64_t m, n, k, ld[3];
	uint8_t align[4], trans[2], types[2];
	uint32_t workspace;
};
static_assert(sizeof(choice) <= sizeof(cublasLtMatmulAlgo_t), "an algorithm holds what it was chosen for");

static bool describe(choice *x, const emu_lt_desc *d, const emu_lt_layout *a, const emu_lt_layout *b,
		     const emu_lt_layout *out)
{
	*x = choice{};
	x->m = out->rows;
	x->n = out->cols;
	x->k = d->trans[0] ? a->rows : a->cols;
	x->ld[0] = a->ld;
	x->ld[1] = b->ld;
	x->ld[2] = out->ld;
	for (int i = 0; i < 2; i++)
		x->trans[i] = static_cast<uint8_t>(d->trans[i]);
	x->types[0] = static_cast<uint8_t>(a->type);
	x->types[1] = static_cast<uint8_t>(out->type);
	return (d->trans[0] ? a->cols : a->rows) == x->m && (d->trans[1] ? b->cols : b->rows) == x->k &&
	       (d->trans[1] ? b->rows : b->cols) == x->n && a->ld >= a->rows && b->ld >= b->rows && out->ld >= out->rows &&
	       a->type == b->type && x->m > 0 && x->n > 0 && x->k > 0;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a,
					      cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t out,
					      cublasLtMatmulPreference_t p, int wanted,
					      cublasLtMatmulHeuristicResult_t *result, int *found)
{
	choice x;

	*found = 0;
	if (wanted < 1 || !describe(&x, d, a, b, out) || c->rows != out->rows || c->cols != out->cols || c->type != out->type)
		return CUBLAS_STATUS_INVALID_VALUE;
	if (a->type == CUDA_R_16BF && (a->ld % 2 || b->ld % 2 || p->align[0] < 4 || p->align[1] < 4))
		return CUBLAS_STATUS_NOT_SUPPORTED;
	for (int i = 0; i < 4; i++)
		x.align[i] = static_cast<uint8_t>(p->align[i] > 128 ? 128 : p->align[i]);
	x.workspace = x.k >= DEEP && p->workspace >= WORKSPACE && p->sums & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE ? WORKSPACE : 0;
	memcpy(result->algo.data, &x, sizeof x);
	result->workspaceSize = x.workspace;
	result->state = CUBLAS_STATUS_SUCCESS;
	*found = 1;
	return CUBLAS_STATUS_SUCCESS;
}

/* ---- the product ---- */

struct job {
	choice x;
	emu_lt_layout la, lb, lc, lout;
	const void *a, *b, *c;
	void *out, *workspace;
	float alpha, beta;
};

static float at(const void *p, cudaDataType_t type, int64_t i)
{
	return type == CUDA_R_16BF ? __bfloat162float(static_cast<const __nv_bfloat16 *>(p)[i]) : static_cast<const float *>(p)[i];
}

/* x (cols,rows) row-major of op(p), p column-major: x[j * rows + i] = op(p)(i, j). */
static std::vector<float> read_op(const void *p, const emu_lt_layout &l, bool trans, int64_t rows, int64_t cols)
{
	std::vector<float> x(static_cast<size_t>(rows * cols));

	for (int64_t j = 0; j < cols; j++)
		for (int64_t i = 0; i < rows; i++)
			x[static_cast<size_t>(j * rows + i)] = at(p, l.type, trans ? j + i * l.ld : i + j * l.ld);
	return x;
}

static void write_column(const job *w, int64_t j, const float *sum)
{
	for (int64_t i = 0; i < w->x.m; i++) {
		float v = w->alpha * sum[i];

		if (w->beta != 0)
			v += w->beta * at(w->c, w->lc.type, i + j * w->lc.ld);
		if (w->lout.type == CUDA_R_16BF)
			static_cast<__nv_bfloat16 *>(w->out)[i + j * w->lout.ld] = __float2bfloat16(v);
		else
			static_cast<float *>(w->out)[i + j * w->lout.ld] = v;
	}
}

__attribute__((optimize("O3"))) static void add_scaled(float *sum, const float *x, float by, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		sum[i] += by * x[i];
}

static void run(void *arg)
{
	job *w = static_cast<job *>(arg);
	int gpu = emu::device_of(w->out);
	std::vector<float> a, b, sum(static_cast<size_t>(w->x.m));

	emu::open_memory(gpu);
	a = read_op(w->a, w->la, w->x.trans[0], w->x.m, w->x.k);
	b = read_op(w->b, w->lb, w->x.trans[1], w->x.k, w->x.n);
	if (w->x.workspace)
		memset(w->workspace, 0xcd, w->x.workspace);
	for (int64_t j = 0; j < w->x.n; j++) {
		std::fill(sum.begin(), sum.end(), 0.0f);
		for (int64_t k = 0; k < w->x.k; k++)
			add_scaled(sum.data(), &a[static_cast<size_t>(k * w->x.m)], b[static_cast<size_t>(j * w->x.k + k)], w->x.m);
		write_column(w, j, sum.data());
	}
	emu::close_memory(gpu, nullptr);
	delete w;
}

static bool readable(const void *p, const emu_lt_layout *l, unsigned align)
{
	size_t bytes = static_cast<size_t>((l->cols - 1) * l->ld + l->rows) * size_of(l->type);

	return reinterpret_cast<uintptr_t>(p) % align == 0 && emu::device_holds(p, bytes);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t d, const void *alpha, const void *a,
			      cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb, const void *beta,
			      const void *c, cublasLtMatrixLayout_t lc, void *out, cublasLtMatrixLayout_t lout,
			      const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
	choice want, x;

	memcpy(&x, algo->data, sizeof x);
	if (!describe(&want, d, la, lb, lout) || h->gpu != emu::state_of_host().gpu)
		return CUBLAS_STATUS_INVALID_VALUE;
	memcpy(want.align, x.align, sizeof x.align);
	want.workspace = x.workspace;
	if (memcmp(&want, &x, sizeof x) || !readable(a, la, x.align[0]) || !readable(b, lb, x.align[1]) ||
	    !readable(c, lc, x.align[2]) || !readable(out, lout, x.align[3]))
		return CUBLAS_STATUS_INVALID_VALUE;
	if (x.workspace && (workspace_bytes < x.workspace || !emu::device_holds(workspace, workspace_bytes)))
		return CUBLAS_STATUS_INVALID_VALUE;
	job *w = new job{ x, *la, *lb, *lc, *lout, a, b, c, out, workspace, *static_cast<const float *>(alpha),
			  *static_cast<const float *>(beta) };
	return cudaLaunchHostFunc(stream, run, w) == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}
