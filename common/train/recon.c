/* Steps of the VQGAN: frames from a bounded cache, the loss, and the care of the codebook (k-means over a probe). */
#include "common/train/recon.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/base/rng.h"
#include "common/comm/device.h"
#include "common/train/frame_cache.h"

struct lwm_recon {
	struct lwm_recon_cfg c;
	struct lk_dev *dev;
	float *params;        /* device, of the caller */
	struct lwm_flat_weights weights; /* the same, as the net takes them */
	int64_t codebook, quant_weight, quant_bias; /* offsets in it */
	struct lwm_vqgan *net;
	struct lwm_patchgan *judge; /* NULL: there is none */
	int64_t judge_at;           /* where its weights begin */
	struct lwm_frame_cache cache;
	int64_t one, codes;   /* bytes, codes of a frame as the net sees it */
	uint8_t *batch;       /* host, gathered frames */
	int32_t *chosen;      /* host, codes of them */
	float *z, *far;       /* host, latents of the probe; squared distance of each to its row */
	uint8_t *used;        /* num_embeddings */
};

static int fill_cache(struct lwm_recon *r, struct lwm_err *e)
{
	const struct lwm_recon_cfg *c = &r->c;
	const struct lwm_frame_source how = { .inputs = c->inputs, .eval_inputs = c->eval_inputs, .holdout = c->holdout,
					      .fps = c->fps, .width = c->from_width, .height = c->from_height,
					      .max_frames_per_clip = c->max_frames_per_clip,
					      .max_pixels = c->max_pixels, .cache_bytes = c->cache_bytes };
	return lwm_frame_cache_fill(&r->cache, &how, e);
}

const struct lwm_hash *lwm_recon_content(const struct lwm_recon *r)
{
	return &r->cache.content;
}

/* ---- life ---- */

static int find_offsets(struct lwm_recon *r, struct lwm_err *e)
{
	struct lwm_tensors p;
	LWM_TRY(lwm_vqgan_tensors(&p, &r->c.model, e));
	for (int64_t i = 0; i < p.n; i++) {
		if (p.list[i].role == LWM_ROLE_CODEBOOK)
			r->codebook = p.list[i].offset;
		if (strcmp(p.list[i].name, "quant_conv.weight") == 0)
			r->quant_weight = p.list[i].offset;
		if (strcmp(p.list[i].name, "quant_conv.bias") == 0)
			r->quant_bias = p.list[i].offset;
	}
	r->judge_at = p.total;
	lwm_tensors_release(&p);
	return 0;
}

static int check_cfg(struct lwm_recon_cfg *c, struct lwm_err *e)
{
	LWM_TRY(lwm_vqgan_check(&c->model, e));
	c->width = c->width ? c->width : c->model.resolution;
	c->height = c->height ? c->height : c->model.resolution;
	c->from_width = c->from_width ? c->from_width : c->width;
	c->from_height = c->from_height ? c->from_height : c->height;
	int32_t f = lwm_vqgan_factor(&c->model);
	if (c->width <= 0 || c->height <= 0 || c->width % f || c->height % f || c->width > 8192 || c->height > 8192)
		return lwm_fail(e, LWM_ECONFIG, "frames of %" PRId64 " x %" PRId64 ": this VQGAN takes multiples of %d",
				c->width, c->height, f);
	if (c->from_width < c->width || c->from_height < c->height)
		return lwm_fail(e, LWM_ECONFIG, "frames of %" PRId64 " x %" PRId64 " have no pieces of %" PRId64 " x %" PRId64,
				c->from_width, c->from_height, c->width, c->height);
	if (c->batch < 1 || c->batch > 1 << 20 || c->frames_per_pass < 1 || c->cache_bytes < 1 || c->holdout < 0 ||
	    c->revive_every < 0 || c->probe_frames < 0 || c->probe_frames > 1 << 20)
		return lwm_fail(e, LWM_ECONFIG, "reconstruction: batch, frames per pass, cache and holdout must be positive");
	return 0;
}

static int allocate_buffers(struct lwm_recon *r, struct lwm_err *e)
{
	int64_t most = r->c.batch > r->c.probe_frames ? r->c.batch : r->c.probe_frames;
	r->batch = malloc((size_t)(most * r->one));
	r->chosen = malloc((size_t)(most * r->codes) * sizeof *r->chosen);
	r->z = malloc((size_t)(r->c.probe_frames * r->codes * r->c.model.embed_dim + 1) * sizeof *r->z);
	r->far = malloc((size_t)(r->c.probe_frames * r->codes + 1) * sizeof *r->far);
	r->used = malloc((size_t)r->c.model.num_embeddings);
	if (!r->batch || !r->chosen || !r->z || !r->far || !r->used)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a batch of frames");
	return 0;
}

int lwm_recon_new(struct lwm_recon **out, struct lk_dev *dev, const struct lwm_recon_cfg *c, float *params,
		  struct lwm_err *e)
{
	int rc;
	struct lwm_recon *r = calloc(1, sizeof *r);
	*out = NULL;
	if (!r)
		return lwm_fail(e, LWM_EMEMORY, "out of memory");
	r->c = *c;
	r->dev = dev;
	r->params = params;
	r->weights = lwm_flat_weights_of(params, LK_F32, NULL);
	LWM_GO(check_cfg(&r->c, e));
	r->one = r->c.width * r->c.height * 3;
	r->codes = lwm_vqgan_codes(&r->c.model, r->c.height, r->c.width);
	LWM_GO(find_offsets(r, e));
	LWM_GO(allocate_buffers(r, e));
	LWM_GO(fill_cache(r, e));
	LWM_GO(lwm_vqgan_new(&r->net, dev, &r->c.model, &r->weights.base, r->c.frames_per_pass, e));
	if (r->c.adversarial > 0)
		LWM_GO(lwm_patchgan_new(&r->judge, dev, &r->c.judge, params + r->judge_at, e));
	*out = r;
	return 0;
out:
	lwm_recon_free(r);
	return rc;
}

void lwm_recon_free(struct lwm_recon *r)
{
	if (!r)
		return;
	lwm_vqgan_free(r->net);
	lwm_patchgan_free(r->judge);
	lwm_frame_cache_release(&r->cache);
	free(r->batch);
	free(r->chosen);
	free(r->z);
	free(r->far);
	free(r->used);
	free(r);
}

int64_t lwm_recon_frames(const struct lwm_recon *r, bool held_out)
{
	return held_out ? r->cache.held : r->cache.n;
}

/* ---- use ---- */

/* width x height pixels of frame `at` of the cache, from (x, y) on. */
static void cut_piece(const struct lwm_recon *r, uint8_t *out, int64_t at, int64_t x, int64_t y)
{
	const uint8_t *frame = r->cache.frames + at * r->cache.one;
	for (int64_t i = 0; i < r->c.height; i++)
		memcpy(out + i * r->c.width * 3, frame + ((y + i) * r->c.from_width + x) * 3, (size_t)r->c.width * 3);
}

static void cut_middle(const struct lwm_recon *r, uint8_t *out, int64_t at)
{
	cut_piece(r, out, at, (r->c.from_width - r->c.width) / 2, (r->c.from_height - r->c.height) / 2);
}

const uint8_t *lwm_recon_seen(const struct lwm_recon *r)
{
	return r->batch;
}

/* Frames k = first .. first+count-1 of the random sequence of this step. */
static void gather_frames(struct lwm_recon *r, enum lwm_purpose purpose, int64_t step, int64_t first, int64_t count)
{
	for (int64_t k = 0; k < count; k++) {
		struct lwm_rng g = lwm_rng_at(r->c.seed, purpose, (uint64_t)step, (uint64_t)(first + k));
		int64_t at = lwm_rng_below(&g, r->cache.n);
		if (purpose == LWM_RNG_CODEBOOK) {
			cut_middle(r, r->batch + k * r->one, at);
			continue;
		}
		int64_t x = lwm_rng_below(&g, r->c.from_width - r->c.width + 1);
		cut_piece(r, r->batch + k * r->one, at, x, lwm_rng_below(&g, r->c.from_height - r->c.height + 1));
	}
}

static int64_t mark_used(struct lwm_recon *r, int64_t frames, bool fresh)
{
	int64_t n = 0;
	if (fresh)
		memset(r->used, 0, (size_t)r->c.model.num_embeddings);
	for (int64_t i = 0; i < frames * r->codes; i++)
		r->used[r->chosen[i]] = 1;
	for (int32_t k = 0; k < r->c.model.num_embeddings; k++)
		n += r->used[k];
	return n;
}

/* Squared distance of each latent of the probe to codebook row e, where that is less than it was. */
static void measure_distances(struct lwm_recon *r, const float *e)
{
	int64_t dim = r->c.model.embed_dim, n = r->c.probe_frames * r->codes;
	for (int64_t i = 0; i < n; i++) {
		float sum = 0;
		for (int64_t d = 0; d < dim; d++)
			sum += (r->z[i * dim + d] - e[d]) * (r->z[i * dim + d] - e[d]);
		r->far[i] = sum < r->far[i] ? sum : r->far[i];
	}
}

/* A latent of the probe, drawn with its squared distance to the nearest row as weight: what the codebook covers badly,
 * a rare colour say, gets its row before one more background does. */
static int64_t draw_far(const struct lwm_recon *r, int64_t step, int32_t k)
{
	struct lwm_rng g = lwm_rng_at(r->c.seed, LWM_RNG_CODEBOOK, (uint64_t)step, (1ULL << 32) + (uint64_t)k);
	int64_t n = r->c.probe_frames * r->codes;
	double total = 0;
	for (int64_t i = 0; i < n; i++)
		total += (double)r->far[i];
	double at = lwm_rng_double(&g) * total;
	for (int64_t i = 0; i < n && total > 0; i++) {
		at -= (double)r->far[i];
		if (at < 0)
			return i;
	}
	return lwm_rng_below(&g, n);
}

/* Row of book nearest to latent i. */
static int64_t nearest_row(const struct lwm_recon *r, const float *book, int64_t i)
{
	int64_t dim = r->c.model.embed_dim, best = 0;
	float least = 1e30f;
	for (int64_t k = 0; k < r->c.model.num_embeddings; k++) {
		float sum = 0;
		for (int64_t d = 0; d < dim && sum < least; d++)
			sum += (r->z[i * dim + d] - book[k * dim + d]) * (r->z[i * dim + d] - book[k * dim + d]);
		if (sum < least) {
			least = sum;
			best = k;
		}
	}
	return best;
}

/* Rounds of k-means (Lloyd 1982) over the probe. */
static int run_kmeans(const struct lwm_recon *r, float *book, struct lwm_err *e)
{
	int64_t dim = r->c.model.embed_dim, rows = r->c.model.num_embeddings, n = r->c.probe_frames * r->codes;
	double *sum = malloc((size_t)(rows * (dim + 1)) * sizeof *sum), *count = sum ? sum + rows * dim : NULL;
	if (!sum)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a codebook");
	for (int round = 0; round < 8; round++) {
		memset(sum, 0, (size_t)(rows * (dim + 1)) * sizeof *sum);
		for (int64_t i = 0; i < n; i++) {
			int64_t k = nearest_row(r, book, i);
			count[k] += 1;
			for (int64_t d = 0; d < dim; d++)
				sum[k * dim + d] += (double)r->z[i * dim + d];
		}
		for (int64_t k = 0; k < rows * dim; k++)
			if (count[k / dim] > 0)
				book[k] = (float)(sum[k] / count[k / dim]);
	}
	free(sum);
	return 0;
}

/* Rows that no latent of the probe chose (fresh: all rows) become latents of the probe. */
static int revive_codes(struct lwm_recon *r, int64_t step, bool fresh, struct lwm_err *e)
{
	int64_t dim = r->c.model.embed_dim, rows = r->c.model.num_embeddings, n = r->c.probe_frames * r->codes;
	size_t bytes = (size_t)(rows * dim) * sizeof(float);
	float *book = malloc(bytes);
	int revived = 0, rc;
	if (!book)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a codebook");
	LWM_GO(lwm_dev_check(r->dev, lk_download(r->dev, book, r->params + r->codebook, bytes), e));
	for (int64_t i = 0; i < n; i++)
		r->far[i] = 1e30f;
	for (int64_t k = 0; k < rows; k++)
		if (!fresh && r->used[k])
			measure_distances(r, book + k * dim);
	for (int32_t k = 0; k < rows; k++) {
		if (!fresh && r->used[k])
			continue;
		memcpy(book + k * dim, r->z + draw_far(r, step, k) * dim, (size_t)dim * sizeof *book);
		measure_distances(r, book + k * dim);
		revived++;
	}
	if (fresh)
		LWM_GO(run_kmeans(r, book, e));
	if (revived)
		LWM_GO(lwm_dev_check(r->dev, lk_upload(r->dev, r->params + r->codebook, book, bytes), e));
	rc = revived > 0;
out:
	free(book);
	return rc;
}

/* Mean and 1/deviation of channel d of the probe's latents, which become normal. */
static void normalise_channel(struct lwm_recon *r, int64_t d, double *mean, double *inv)
{
	int64_t dim = r->c.model.embed_dim, n = r->c.probe_frames * r->codes;
	double sum = 0, sq = 0;
	for (int64_t i = 0; i < n; i++)
		sum += (double)r->z[i * dim + d];
	*mean = sum / (double)n;
	for (int64_t i = 0; i < n; i++)
		sq += ((double)r->z[i * dim + d] - *mean) * ((double)r->z[i * dim + d] - *mean);
	*inv = 1 / sqrt(sq / (double)n + 1e-12);
	for (int64_t i = 0; i < n; i++)
		r->z[i * dim + d] = (float)(((double)r->z[i * dim + d] - *mean) * *inv);
}

/* Scales the last convolution before the quantizer so that the latents of the probe have mean 0 and deviation 1: the
 * optimizer's steps are absolute, and a codebook of small numbers would be shaken by them. */
static int normalise_latents(struct lwm_recon *r, struct lwm_err *e)
{
	int64_t cin = r->c.model.z_channels, dim = r->c.model.embed_dim;
	size_t wbytes = (size_t)(cin * dim) * sizeof(float), bbytes = (size_t)dim * sizeof(float);
	float *w = malloc(wbytes + bbytes), *b = w ? w + cin * dim : NULL;
	int rc = 0;
	if (!w)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a convolution");
	LWM_GO(lwm_dev_check(r->dev, lk_download(r->dev, w, r->params + r->quant_weight, wbytes), e));
	LWM_GO(lwm_dev_check(r->dev, lk_download(r->dev, b, r->params + r->quant_bias, bbytes), e));
	for (int64_t d = 0; d < dim; d++) {
		double mean, inv;
		normalise_channel(r, d, &mean, &inv);
		for (int64_t i = 0; i < cin; i++)
			w[i * dim + d] = (float)((double)w[i * dim + d] * inv);
		b[d] = (float)(((double)b[d] - mean) * inv);
	}
	LWM_GO(lwm_dev_check(r->dev, lk_upload(r->dev, r->params + r->quant_weight, w, wbytes), e));
	LWM_GO(lwm_dev_check(r->dev, lk_upload(r->dev, r->params + r->quant_bias, b, bbytes), e));
out:
	free(w);
	return rc;
}

int lwm_recon_prepare(struct lwm_recon *r, int64_t step, struct lwm_err *e)
{
	int64_t every = r->c.revive_every, from = r->c.quantize_from;
	bool again = step > from && every && step % every == 0 && step <= r->c.revive_until;
	if (r->c.probe_frames == 0 || (step && step != from && !again))
		return 0;
	LWM_TRY(lwm_vqgan_refresh(r->net, e));
	gather_frames(r, LWM_RNG_CODEBOOK, step, 0, r->c.probe_frames);
	LWM_TRY(lwm_vqgan_latents(r->net, r->batch, r->c.probe_frames, r->c.height, r->c.width, r->chosen, r->z, e));
	mark_used(r, r->c.probe_frames, true);
	if (step == 0)
		LWM_TRY(normalise_latents(r, e));
	if (step < from)
		return 1;
	return revive_codes(r, step, step == from, e);
}

static struct lwm_vqgan_critic critic_of(const struct lwm_recon *r, float *grads)
{
	return (struct lwm_vqgan_critic){ r->judge, grads, r->c.adversarial, r->c.ranks };
}

int lwm_recon_step(struct lwm_recon *r, int64_t step, int rank, int ranks, float *grads, struct lwm_recon_stats *stats,
		   struct lwm_err *e)
{
	struct lwm_flat_weights w = lwm_flat_weights_of(NULL, LK_F32, grads);
	int64_t first = r->c.batch * rank / ranks, n = r->c.batch * (rank + 1) / ranks - first;
	LWM_TRY(lwm_vqgan_refresh(r->net, e));
	struct lwm_vqgan_loss loss = r->c.loss;
	struct lwm_vqgan_critic critic = critic_of(r, grads + r->judge_at);
	loss.continuous = step < r->c.quantize_from;
	loss.critic = r->judge && step >= r->c.adversarial_from ? &critic : NULL;
	gather_frames(r, LWM_RNG_ORDER, step, first, n);
	LWM_TRY(lwm_vqgan_train(r->net, r->batch, n, r->c.height, r->c.width, &loss, 1 / (float)r->c.batch, &w.base,
				r->chosen, &stats->sum, e));
	stats->codes_used = mark_used(r, n, true);
	return 0;
}

int lwm_recon_eval(struct lwm_recon *r, int64_t max_frames, int64_t at_once, struct lwm_recon_stats *stats, struct lwm_err *e)
{
	int64_t base = r->cache.held ? r->cache.n : 0;
	int64_t all = r->cache.held ? r->cache.held : r->cache.n, n = max_frames > 0 && max_frames < all ? max_frames : all;
	struct lwm_vqgan_loss loss = r->c.loss;
	struct lwm_vqgan_critic critic = critic_of(r, NULL);
	loss.critic = r->judge ? &critic : NULL;
	LWM_TRY(lwm_vqgan_refresh(r->net, e));
	LWM_BUG_ON(at_once < 1 || at_once > r->c.batch);
	for (int64_t i = 0; i < n; i += at_once) {
		int64_t k = n - i < at_once ? n - i : at_once;
		for (int64_t j = 0; j < k; j++)
			cut_middle(r, r->batch + j * r->one, base + (i + j) * all / n);
		LWM_TRY(lwm_vqgan_train(r->net, r->batch, k, r->c.height, r->c.width, &loss, 1, NULL, r->chosen,
					&stats->sum, e));
		stats->codes_used = mark_used(r, k, i == 0);
	}
	return 0;
}

int lwm_recon_show(struct lwm_recon *r, int64_t step, int64_t n, int64_t at_once, uint8_t *rgb, struct lwm_err *e)
{
	int64_t base = r->cache.held ? r->cache.n : 0, all = r->cache.held ? r->cache.held : r->cache.n;
	float *z = malloc((size_t)(at_once * r->codes * r->c.model.embed_dim) * sizeof *z);
	int rc = z ? lwm_vqgan_refresh(r->net, e) : lwm_fail_memory(e, "latents");

	for (int64_t i = 0; rc == 0 && i < n; i += at_once) {
		int64_t k = n - i < at_once ? n - i : at_once;
		for (int64_t j = 0; j < k; j++)
			cut_middle(r, rgb + (i + j) * r->one, base + (i + j) * all / n);
		rc = lwm_vqgan_latents(r->net, rgb + i * r->one, k, r->c.height, r->c.width, NULL, z, e);
		if (rc == 0)
			rc = lwm_vqgan_decode_latents(r->net, z, step > r->c.quantize_from, k, r->c.height, r->c.width,
						      rgb + (n + i) * r->one, e);
	}
	free(z);
	return rc;
}
