/* The rate of a device's own matrix product: the size is doubled while a product is short, then the fastest of a tenth of a second
 * counts. */
#include "common/train/peak.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/rng.h"
#include "common/comm/device.h"

enum { LEAST_SIDE = 128, OWN_SIDE = 1024, HOST_SIDE = 2048, GPU_SIDE = 8192, STRIP = 64 /* rows filled at a time */ };
static const double WINDOW = 0.1, LONGEST = 0.05; /* seconds: all timed products; one of them */

static size_t bytes_of(const struct lk_dev *dev, int64_t side)
{
	return (size_t)side * (size_t)side * lk_dtype_size(lk_dev_dtype(dev));
}

/* Random numbers into rows of (2 n, n) at `to`, by way of fp32 strips at `by`: zeros would flatter a GPU's clock. */
static int fill_random(struct lk_dev *dev, char *to, char *by, int64_t n, struct lwm_err *e)
{
	struct lwm_rng g = lwm_rng_at(0, LWM_RNG_TEST, 0, 0);
	int64_t strip = STRIP * n;
	size_t size = lk_dtype_size(lk_dev_dtype(dev));
	float *host = malloc((size_t)strip * sizeof *host);
	int rc = 0;
	if (!host)
		return lwm_fail(e, LWM_EMEMORY, "no memory for random numbers");
	for (int64_t i = 0; i < strip; i++)
		host[i] = (float)(2 * lwm_rng_double(&g) - 1);
	LWM_GO(lwm_dev_check(dev, lk_upload(dev, by, host, (size_t)strip * sizeof *host), e));
	for (int64_t at = 0; at < 2 * n * n; at += strip) {
		struct lk_view x = lk_view1(by, LK_F32, strip), y = lk_view1(to + (size_t)at * size, lk_dev_dtype(dev), strip);
		LWM_GO(lwm_dev_check(dev, lk_cast(dev, &y, &x), e));
	}
out:
	free(host);
	return rc;
}

/* Seconds of one product of the first n x n numbers of a and b. */
static int time_product(struct lk_dev *dev, char *a, char *b, char *c, int64_t n, double *seconds, struct lwm_err *e)
{
	int dtype = lk_dev_dtype(dev);
	struct lk_view x = lk_view2(a, dtype, n, n), w = lk_view2(b, dtype, n, n), y = lk_view2(c, dtype, n, n);
	LWM_TRY(lwm_dev_check(dev, lk_sync(dev), e));
	double t0 = lwm_now();
	LWM_TRY(lwm_dev_check(dev, lk_matmul(dev, &y, &x, &w, LK_TB, 1.0f), e));
	LWM_TRY(lwm_dev_check(dev, lk_sync(dev), e));
	*seconds = lwm_now() - t0;
	return 0;
}

static int find_fastest(struct lk_dev *dev, char *room, int64_t most, double *rate, struct lwm_err *e)
{
	char *a = room, *b = a + bytes_of(dev, most), *c = b + bytes_of(dev, most);
	double t, best, began;
	int64_t n = LEAST_SIDE;
	LWM_TRY(fill_random(dev, a, c, most, e));
	LWM_TRY(time_product(dev, a, b, c, n, &t, e));
	LWM_TRY(time_product(dev, a, b, c, n, &t, e)); /* the first one of all sets things up */
	while (n < most && 8 * t < LONGEST) {
		n *= 2;
		LWM_TRY(time_product(dev, a, b, c, n, &t, e));
	}
	best = t;
	for (began = lwm_now(); lwm_now() - began < WINDOW;) {
		LWM_TRY(time_product(dev, a, b, c, n, &t, e));
		best = t < best ? t : best;
	}
	*rate = best > 0 ? 2.0 * (double)n * (double)n * (double)n / best : 0;
	return 0;
}

int lwm_peak_measure(struct lk_dev *dev, void *room, size_t bytes, double *rate, struct lwm_err *e)
{
	int64_t side = lk_dev_is_host(dev) ? HOST_SIDE : GPU_SIDE;
	void *own = NULL;
	while (side > OWN_SIDE && 3 * bytes_of(dev, side) > bytes)
		side /= 2;
	if (3 * bytes_of(dev, side) > bytes) {
		LWM_TRY(lwm_dev_check(dev, lk_mem_alloc(dev, 3 * bytes_of(dev, side), &own), e));
		room = own;
	}
	int rc = find_fastest(dev, room, side, rate, e);
	lk_mem_free(dev, own);
	return rc;
}
