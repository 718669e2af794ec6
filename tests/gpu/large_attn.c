/* large_attn.c - long attention: both paths against each other, the last document of a long row against itself alone. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/large.h"

struct attention {
	struct lk_attn a;
	struct lk_view o, dout, dq, dk, dv;
	float *lse, *delta;
};

static int attention_new(struct gpu_bench *b, struct attention *x, int64_t t, int64_t h, int64_t d)
{
	struct lk_view *v[] = { &x->a.q, &x->a.k, &x->a.v, &x->dout, &x->o, &x->dq, &x->dk, &x->dv };

	memset(x, 0, sizeof *x);
	for (int i = 0; i < 8; i++) {
		int dtype = i < 5 ? b->act : LK_F32;
		void *p = i < 5 ? gpu_random(b, dtype, t * h * d, 1) : gpu_mem(b, (size_t)(t * h * d) * 4);

		if (!p || (i >= 5 && lk_zero(b->dev, p, (size_t)(t * h * d) * 4)))
			return -1;
		*v[i] = lk_view3(p, dtype, t, h, d);
	}
	x->lse = gpu_mem(b, (size_t)(t * h) * 8);
	x->delta = x->lse + t * h;
	x->a.scale = (float)(2 / sqrt((double)d));
	x->a.causal = 1;
	return x->lse ? 0 : -1;
}

static int attention_run(struct gpu_bench *b, struct attention *x)
{
	int rc = lk_attn_once(b->dev, &x->a, &x->o, x->lse);

	if (!rc)
		rc = lk_attn_delta(b->dev, x->delta, &x->o, &x->dout);
	return rc ? rc : lk_attn_bwd(b->dev, &x->a, &x->dout, x->lse, x->delta, &x->dq, &x->dk, &x->dv);
}

/* Rows [from, from + n) of o, dq, dk, dv as fp32, end to end. */
static float *results(struct gpu_bench *b, const struct attention *x, int64_t from, int64_t n)
{
	const struct lk_view *v[] = { &x->o, &x->dq, &x->dk, &x->dv };
	int64_t row = x->o.stride[0];
	float *all = malloc((size_t)(4 * n * row) * 4);

	for (int i = 0; all && i < 4; i++) {
		char *at = (char *)v[i]->data + (size_t)(from * row) * lk_dtype_size(v[i]->dtype);
		float *part = fetch(b, at, v[i]->dtype, n * row);

		if (!part) {
			free(all);
			return NULL;
		}
		memcpy(all + i * n * row, part, (size_t)(n * row) * 4);
		free(part);
	}
	return all;
}

static struct lk_seq *sequence(struct gpu_bench *b, int64_t n, int64_t doc)
{
	int32_t *pos = malloc((size_t)n * 2 * sizeof *pos);
	struct lk_seq *s = NULL;

	for (int64_t i = 0; pos && i < n; i++) {
		pos[i] = (int32_t)(i % doc);
		pos[n + i] = (int32_t)(i / doc);
	}
	if (pos && lk_seq_new(b->dev, &s, n, pos, pos + n))
		snprintf(b->why, sizeof b->why, "%s", lk_dev_error(b->dev));
	free(pos);
	return s;
}

/* Everything of one path on a device of its own; NULL with *why. */
static float *on_path(const struct gpu_bench *b, const char *device, const char *path, int64_t t, int64_t h, int64_t d,
		      char *why, size_t n)
{
	struct gpu_bench *own = calloc(1, sizeof *own);
	struct lk_seq *s = NULL;
	struct attention x;
	float *y = NULL;

	if (!own)
		return NULL;
	own->dry = b->dry;
	setenv("LWM_CUDA_ATTN", path, 1);
	if (lk_dev_open(&own->dev, device, 0, why, n))
		goto out;
	own->act = lk_dev_dtype(own->dev);
	s = sequence(own, t, t);
	if (s && attention_new(own, &x, t, h, d) == 0) {
		x.a.qs = x.a.ks = s;
		if (attention_run(own, &x) == 0)
			y = results(own, &x, 0, t);
	}
	if (!y)
		snprintf(why, n, "%.200s", *own->why ? own->why : lk_dev_error(own->dev));
	lk_sync(own->dev);
	lk_seq_free(s);
	gpu_release(own);
	lk_dev_close(own->dev);
out:
	unsetenv("LWM_CUDA_ATTN");
	free(own);
	return y;
}

void run_paths(struct gpu_bench *b, const char *device, int64_t d)
{
	int64_t t = gpu_pick(b, 16384, 90), h = gpu_pick(b, 4, 1), n = t * h * d;
	char why[300] = "", name[64];
	float *x = on_path(b, device, "mma", t, h, d, why, sizeof why);
	float *y = x ? on_path(b, device, "sm90", t, h, d, why, sizeof why) : NULL;
	static const char *const what[] = { "o", "dq", "dk", "dv" };

	snprintf(name, sizeof name, "attention of 16K on both paths, d %" PRId64, d);
	for (int i = 0; x && y && i < 4; i++) {
		double err = host_norm(y + i * n, x + i * n, n);

		if (!(err < 1e-2) && !*why)
			snprintf(why, sizeof why, "%s: relative difference %.3g, allowed 1e-2", what[i], err);
	}
	verdict(name, strstr(why, "does not do this") ? -1 : *why != 0, why); // this chip has only one of the paths
	free(x);
	free(y);
}

/* A document of a long row, and the same by itself. */
static int same_alone(struct gpu_bench *b, struct attention *x, int64_t from, int64_t n, struct lk_seq *doc, char *why, size_t size)
{
	int64_t row = x->o.stride[0], h = x->o.n[1];
	float *was = results(b, x, from, n), *now = NULL;
	struct attention y = *x;
	struct lk_view *v[] = { &y.a.q, &y.a.k, &y.a.v, &y.dout, &y.o, &y.dq, &y.dk, &y.dv };
	int bad = 1;

	for (int i = 0; i < 8; i++) {
		v[i]->data = (char *)v[i]->data + (size_t)(from * row) * lk_dtype_size(v[i]->dtype);
		v[i]->n[0] = n;
	}
	y.lse += from * h;
	y.delta += from * h;
	y.a.qs = y.a.ks = doc;
	for (int i = 5; was && i < 8; i++)
		if (lk_zero(b->dev, v[i]->data, (size_t)(n * row) * 4))
			goto out;
	if (was && attention_run(b, &y) == 0)
		now = results(b, &y, 0, n);
out:
	if (was && now) {
		double err = host_norm(was, now, 4 * n * row);

		bad = !(err < 1e-2);
		snprintf(why, size, "relative difference %.3g, allowed 1e-2", err);
	} else {
		snprintf(why, size, "%s", lk_dev_error(b->dev));
	}
	free(was);
	free(now);
	return bad;
}

void run_long_row(struct gpu_bench *b)
{
	int64_t t = gpu_pick(b, 1 << 20, 200), h = gpu_pick(b, 18, 2), d = gpu_pick(b, 128, 64);
	int64_t doc = gpu_pick(b, 6000, 33), last = t % doc ? t % doc : doc;
	struct lk_seq *s = sequence(b, t, doc), *alone = sequence(b, last, doc);
	char why[300] = "";
	struct attention x;
	int bad = s && alone && attention_new(b, &x, t, h, d) == 0 ? 0 : -1;

	if (bad) {
		snprintf(why, sizeof why, "%s", b->why);
	} else {
		x.a.qs = x.a.ks = s;
		bad = attention_run(b, &x) != 0;
		if (bad)
			snprintf(why, sizeof why, "%s", lk_dev_error(b->dev));
		else
			bad = same_alone(b, &x, t - last, last, alone, why, sizeof why);
	}
	verdict("last document of a row of 1M", bad, bad ? why : "");
	lk_sync(b->dev);
	lk_seq_free(s);
	lk_seq_free(alone);
	gpu_release(b);
}
