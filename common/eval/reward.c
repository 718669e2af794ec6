/* reward.c - the variance of an ensemble of drawings. */
#include "common/eval/reward.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int lwm_reward_init(struct lwm_reward *r, int64_t places, struct lwm_err *e)
{
	*r = (struct lwm_reward){ calloc((size_t)places, sizeof *r->sum), calloc((size_t)places, sizeof *r->squares), places, 0 };
	if (r->sum && r->squares)
		return 0;
	lwm_reward_release(r);
	return lwm_fail(e, LWM_EMEMORY, "no memory for the variance of %" PRId64 " values", places);
}

void lwm_reward_release(struct lwm_reward *r)
{
	free(r->sum);
	free(r->squares);
	memset(r, 0, sizeof *r);
}

void lwm_reward_add(struct lwm_reward *r, const uint8_t *rgb)
{
	for (int64_t i = 0; i < r->places; i++) {
		r->sum[i] += rgb[i];
		r->squares[i] += (double)rgb[i] * rgb[i];
	}
	r->drawings++;
}

double lwm_reward_variance(const struct lwm_reward *r)
{
	double n = (double)r->drawings, all = 0;

	for (int64_t i = 0; i < r->places; i++)
		all += (n * r->squares[i] - r->sum[i] * r->sum[i]) / (n * (n - 1)); // whole numbers until here: exact
	return all / (double)r->places / (127.5 * 127.5);
}

double lwm_reward_value(const struct lwm_reward *r)
{
	return exp(-lwm_reward_variance(r));
}

int lwm_world_rate(const struct lwm_world *w, const char *path, uint64_t first, int64_t samples, struct lwm_reward *r,
		   struct lwm_err *e)
{
	int64_t frames = lwm_roll_frames(&w->roll), per = w->roll.frame_codes, given, drawn;
	int64_t one = (int64_t)w->frames.width * w->frames.height * 3;
	int32_t *codes = malloc((size_t)(frames * per) * sizeof *codes);
	uint8_t *rgb = malloc((size_t)(frames * one));
	int rc = codes && rgb ? 0 : lwm_fail(e, LWM_EMEMORY, "no memory for %" PRId64 " frames", frames);

	memset(r, 0, sizeof *r);
	for (int64_t i = 0; i < samples && rc == 0; i++) {
		LWM_GO(lwm_world_draw(w, path, first + (uint64_t)i, codes, &given, NULL, NULL, e));
		drawn = frames - given;
		if (i == 0)
			LWM_GO(lwm_reward_init(r, drawn * one, e));
		LWM_GO(lwm_vqgan_decode(w->net, codes + given * per, drawn, w->frames.height, w->frames.width, rgb, e));
		lwm_reward_add(r, rgb);
	}
out:
	free(rgb);
	free(codes);
	return rc;
}
