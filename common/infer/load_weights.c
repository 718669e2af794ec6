/* load_weights.c - weights from files onto a device, one tensor at a time, so that host memory holds the largest of them and no
 * more. Files are read as fp32; a device that computes in bf16 rounds there. */
#include <inttypes.h>
#include <stdlib.h>

#include "common/comm/device.h"
#include "common/infer/load_int.h"

/* Buffers of the largest tensor: fp32 in host memory, and on the device where that keeps another dtype. */
struct staging {
	float *host;
	void *device;
};

static int allocate_staging(struct staging *b, struct lk_dev *dev, int dtype, const struct lwm_tensors *p)
{
	int64_t most = 0;

	for (int64_t i = 0; i < p->n; i++)
		if (p->list[i].count > most)
			most = p->list[i].count;
	b->host = malloc((size_t)most * sizeof *b->host);
	if (!b->host)
		return -1;
	return dtype == LK_F32 ? 0 : lk_mem_alloc(dev, (size_t)most * sizeof *b->host, &b->device);
}

static int upload_tensor(struct lk_dev *dev, int dtype, char *weights, const struct lwm_tensor *t, const struct staging *b,
			 struct lwm_err *e)
{
	char *at = weights + (size_t)t->offset * lk_dtype_size(dtype);
	struct lk_view y = lk_view1(at, dtype, t->count), x = lk_view1(b->device, LK_F32, t->count);
	size_t bytes = (size_t)t->count * sizeof *b->host;

	if (dtype == LK_F32)
		return lwm_dev_check(dev, lk_upload(dev, at, b->host, bytes), e);
	LWM_TRY(lwm_dev_check(dev, lk_upload(dev, b->device, b->host, bytes), e));
	return lwm_dev_check(dev, lk_cast(dev, &y, &x), e);
}

int lwm_load_weights(void **out, struct lk_dev *dev, int dtype, struct lwm_source *s, const struct lwm_tensors *p, const char *name,
		     struct lwm_err *e)
{
	size_t bytes = (size_t)p->total * lk_dtype_size(dtype);
	struct staging b = { 0 };
	void *weights = NULL;
	int rc = 0;

	*out = NULL;
	if (lk_mem_alloc(dev, bytes, &weights) || allocate_staging(&b, dev, dtype, p)) {
		rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory for %" PRId64 " weights", name, p->params);
		goto out;
	}
	if (p->total != p->params)
		LWM_GO(lwm_dev_check(dev, lk_zero(dev, weights, bytes), e));
	for (int64_t i = 0; i < p->n; i++) {
		const struct lwm_tensor *t = &p->list[i];

		LWM_GO(lwm_source_read(s, t, false, 0, t->count, b.host, e));
		LWM_GO(upload_tensor(dev, dtype, weights, t, &b, e));
	}
	LWM_GO(lwm_dev_check(dev, lk_sync(dev), e)); // nothing reads the staging buffers any more
out:
	lk_mem_free(dev, b.device);
	free(b.host);
	if (rc < 0)
		lk_mem_free(dev, weights);
	else
		*out = weights;
	return rc;
}
