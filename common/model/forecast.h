/* forecast.h - each frame of a clip predicted from all frames before it.
 *
 * A clip is `times` patches' lengths of video, each of `places` patches. The trunk goes over all but the last; a patch sees all of
 * its own time and of the times before, both ways within its time (trunk.h, `see`). From the hidden state of place s at time t a
 * linear head (pixels.h) predicts how the patch changes:
 *
 *	y(t + 1, s) = x(t, s) + W h(t, s),   loss = sum over t, s of the mean over its numbers of (y - x)(t + 1, s)^2
 *
 * The numbers of a patch are pixels (Mathieu et al. 2016, Srivastava et al. 2015: the squared error of the frame that follows), or
 * latents of a frozen autoencoder, brought to mean 0 and deviation 1 by channel: then this is a world model that predicts the next
 * latent from those before (Ha and Schmidhuber 2018, with a mean in place of their mixture), and a decoder makes pixels of it.
 *
 *	lwm_forecast_new(&m, dev, &cfg, &run, e)
 *	lwm_forecast_step(m, &b, w, &stats, e)
 *	lwm_forecast_free(m)
 */
#ifndef LWM_MODEL_FORECAST_H
#define LWM_MODEL_FORECAST_H

#include "common/model/trunk.h"

struct lwm_forecast_cfg {
	struct lwm_llama_cfg trunk;
	int64_t times, places; /* times at least 2 */
};
struct lwm_forecast_run {
	struct lwm_llama_run how; /* of it tokens, no_causal, ring and tp are set here */
	int64_t clips;            /* most clips at a time */
};

int lwm_forecast_check(const struct lwm_forecast_cfg *c, struct lwm_err *e); /* -LWM_ECONFIG */
/* The trunk's table, with forecast.pixels.weight (input_dim, dim) in the group of its norm. */
int lwm_forecast_tensors(struct lwm_tensors *t, const struct lwm_forecast_cfg *c, struct lwm_err *e);
/* Pure: as of masked.h. */
int64_t lwm_forecast_memory(const struct lwm_forecast_cfg *c, const struct lwm_forecast_run *r, int dtype);
int64_t lwm_forecast_host(const struct lwm_forecast_cfg *c, const struct lwm_forecast_run *r, int dtype);
int64_t lwm_forecast_arrays(const struct lwm_forecast_cfg *c, const struct lwm_forecast_run *r);
double lwm_forecast_flops(const struct lwm_forecast_cfg *c, double clips);
int64_t lwm_forecast_own(struct lk_dev *dev, const struct lwm_forecast_cfg *c, const struct lwm_forecast_run *r); /* local */

struct lwm_forecast;
/* Local; dev is borrowed. -LWM_ECONFIG, -LWM_EMEMORY, -LWM_EDEVICE. */
int lwm_forecast_new(struct lwm_forecast **out, struct lk_dev *dev, const struct lwm_forecast_cfg *c,
		     const struct lwm_forecast_run *r, struct lwm_err *e);
void lwm_forecast_free(struct lwm_forecast *m); /* NULL is fine */

struct lwm_forecast_batch { /* host, borrowed for the call */
	int64_t clips;        /* 1 to run.clips */
	const float *patches; /* (clips, times, places, input_dim) */
	float *predicted;     /* NULL, or (clips, times - 1, places, input_dim): y of times 1, 2, ... */
};
struct lwm_forecast_stats { /* local sums, added to */
	double patches, loss; /* predicted patches; the sum of the formula */
	double still;         /* the same of a forecast that nothing changes */
};
/* With w->grads the gradient of that sum is added. COLLECTIVE over those that share w. */
int lwm_forecast_step(struct lwm_forecast *m, const struct lwm_forecast_batch *b, struct lwm_supply *w,
		      struct lwm_forecast_stats *stats, struct lwm_err *e);

#endif
