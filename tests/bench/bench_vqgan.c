/* bench_vqgan.c - frames per second through the published VQGAN (hidden 128, multipliers 1 2 2 4 6, two residual
 * blocks a level in the encoder and three in the decoder, z 64, 8192 codes), made of lk_ calls and random weights.
 *
 *	bench_vqgan [--steps] [FRAMES [SIZE]]   with 1 thread and with all; 4 frames a call of 256x256
 *	bench_vqgan --check SIZE                encoder on cpu against ref: relative error of z, codes that differ
 *
 * GFLOP are those of direct convolution, so a rate above sgemm's is Winograd's saving. of_sgemm holds the best time
 * against sgemm 4096^3 of the same run, cpu_of_sgemm the processor time, which other users of the machine disturb less.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/bench/bench.h"

enum { LEVELS = 5, HIDDEN = 128, Z = 64, CODES = 8192, GROUPS = 32, STEPS = 256, BUFFERS = 4 };
static const int mult[LEVELS] = { 1, 2, 2, 4, 6 };

struct step {
	struct lk_conv *conv; /* NULL: group norm with silu */
	float *w, *bias;
	int in, out, add; /* buffers; add -1: none */
	int64_t h, c, oh, oc;
};

struct net {
	struct lk_dev *dev;
	struct step s[STEPS];
	int n, cur; /* steps so far; buffer that holds the current value */
	int64_t size, h, c;
	int64_t most;   /* largest activation of one frame, elements */
	double gflop;   /* of one frame */
	uint64_t seed;
	float *buf[BUFFERS];
};

static void die(const char *what, const char *why)
{
	fprintf(stderr, "bench_vqgan: %s: %s\n", what, why);
	exit(1);
}

static void must(struct lk_dev *dev, int rc)
{
	if (rc)
		die(lk_dev_name(dev), lk_dev_error(dev));
}

/* Sum of four uniform numbers: near enough to normal with standard deviation sd. */
static float draw(uint64_t *seed, double sd)
{
	double s = 0.0;

	for (int i = 0; i < 4; i++) {
		*seed = *seed * 6364136223846793005u + 1442695040888963407u;
		s += (double)(*seed >> 11) / 9007199254740992.0 - 0.5;
	}
	return (float)(s * sd * 1.7320508);
}

static float *filled(struct lk_dev *dev, int64_t n, uint64_t *seed, double mean, double sd)
{
	float *host = malloc((size_t)n * sizeof *host);
	void *p;

	if (!host)
		die("weights", "out of memory");
	for (int64_t i = 0; i < n; i++)
		host[i] = (float)mean + draw(seed, sd);
	must(dev, lk_mem_alloc(dev, (size_t)n * sizeof *host, &p));
	must(dev, lk_upload(dev, p, host, (size_t)n * sizeof *host));
	free(host);
	return p;
}

static struct step *add_step(struct net *t, int out, int64_t oh, int64_t oc)
{
	struct step *s = &t->s[t->n];

	if (t->n++ == STEPS)
		die("net", "too many steps");
	*s = (struct step){ .in = t->cur, .out = out, .add = -1, .h = t->h, .c = t->c, .oh = oh, .oc = oc };
	t->most = oh * oh * oc > t->most ? oh * oh * oc : t->most;
	t->cur = out;
	t->h = oh;
	t->c = oc;
	return s;
}

/* k x k convolution into buffer out; stride 2 pads right and bottom only, as the published one does */
static struct step *conv(struct net *t, int out, int k, int64_t cout, int stride, int up)
{
	int pad = stride == 2 ? 0 : k / 2, end = stride == 2 ? 1 : pad;
	struct lk_conv_geom g = { (int32_t)t->c, (int32_t)cout, k, k, stride, pad, pad, end, end, up };
	int64_t cin = t->c;
	struct step *s = add_step(t, out, t->h * up / stride, cout);

	s->w = filled(t->dev, k * k * cin * cout, &t->seed, 0.0, sqrt(2.0 / (double)(k * k * cin)));
	s->bias = filled(t->dev, cout, &t->seed, 0.0, 0.05);
	must(t->dev, lk_conv_new(t->dev, &s->conv, &g, s->w, s->bias));
	t->gflop += 2e-9 * (double)(k * k * cin * cout) * (double)(t->h * t->h);
	return s;
}

static void norm(struct net *t, int out)
{
	struct step *s = add_step(t, out, t->h, t->c);

	s->w = filled(t->dev, t->c, &t->seed, 1.0, 0.1);
	s->bias = filled(t->dev, t->c, &t->seed, 0.0, 0.1);
}

/* y = conv(norm(conv(norm(x)))) + x, or + a 1x1 convolution of x where the channels change */
static void res(struct net *t, int64_t cout)
{
	int x = t->cur, a = (x + 1) % BUFFERS, b = (x + 2) % BUFFERS, y = (x + 3) % BUFFERS, keep = x;
	int64_t cin = t->c;

	norm(t, a);
	conv(t, b, 3, cout, 1, 1);
	norm(t, b);
	if (cin != cout) {
		t->cur = x;
		t->c = cin;
		conv(t, a, 1, cout, 1, 1);
		t->cur = b;
		keep = a;
	}
	conv(t, y, 3, cout, 1, 1)->add = keep;
}

static int next(const struct net *t)
{
	return (t->cur + 1) % BUFFERS;
}

static void encoder(struct net *t)
{
	t->h = t->size;
	t->c = 3;
	conv(t, next(t), 3, HIDDEN, 1, 1);
	for (int l = 0; l < LEVELS; l++) {
		for (int i = 0; i < 2; i++)
			res(t, HIDDEN * mult[l]);
		if (l < LEVELS - 1)
			conv(t, next(t), 3, t->c, 2, 1);
	}
	for (int i = 0; i < 2; i++)
		res(t, t->c);
	norm(t, t->cur);
	conv(t, next(t), 3, Z, 1, 1);
	conv(t, next(t), 1, Z, 1, 1);
}

static void decoder(struct net *t)
{
	t->h = t->size >> (LEVELS - 1);
	t->c = Z;
	conv(t, next(t), 1, Z, 1, 1);
	conv(t, next(t), 3, HIDDEN * mult[LEVELS - 1], 1, 1);
	for (int i = 0; i < 2; i++)
		res(t, t->c);
	for (int l = LEVELS - 1; l >= 0; l--) {
		for (int i = 0; i < 3; i++)
			res(t, HIDDEN * mult[l]);
		if (l)
			conv(t, next(t), 3, t->c, 1, 2);
	}
	norm(t, t->cur);
	conv(t, next(t), 3, 3, 1, 1);
}

static struct net *build(struct lk_dev *dev, int64_t size, int64_t frames, int decode)
{
	struct net *t = calloc(1, sizeof *t);
	int64_t in = decode ? (size >> (LEVELS - 1)) * (size >> (LEVELS - 1)) * Z : size * size * 3;
	void *p;

	if (!t)
		die("net", "out of memory");
	t->dev = dev;
	t->size = size;
	t->seed = 7;
	if (decode)
		decoder(t);
	else
		encoder(t);
	for (int i = 1; i < BUFFERS; i++) {
		must(dev, lk_mem_alloc(dev, (size_t)(frames * t->most) * sizeof(float), &p));
		t->buf[i] = p;
	}
	t->most = t->most > in ? t->most : in;
	t->buf[0] = filled(dev, frames * t->most, &t->seed, 0.0, 0.5);
	return t;
}

static void destroy(struct net *t)
{
	for (int i = 0; i < t->n; i++) {
		lk_conv_free(t->s[i].conv);
		lk_mem_free(t->dev, t->s[i].w);
		lk_mem_free(t->dev, t->s[i].bias);
	}
	for (int i = 0; i < BUFFERS; i++)
		lk_mem_free(t->dev, t->buf[i]);
	free(t);
}

/* each (may be NULL): seconds of every step, added */
static void run(struct net *t, int64_t frames, float *stat, double *each)
{
	for (int i = 0; i < t->n; i++) {
		const struct step *s = &t->s[i];
		struct lk_view x = lk_view4(t->buf[s->in], LK_F32, frames, s->h, s->h, s->c);
		struct lk_view y = lk_view4(t->buf[s->out], LK_F32, frames, s->oh, s->oh, s->oc);
		struct lk_view add = y;
		double from = bench_clock(CLOCK_MONOTONIC);

		if (s->add >= 0)
			add.data = t->buf[s->add];
		if (s->conv)
			must(t->dev, lk_conv_fwd(t->dev, s->conv, &y, &x, s->add >= 0 ? &add : NULL));
		else
			must(t->dev, lk_groupnorm_fwd(t->dev, &y, stat, stat + frames * GROUPS, &x, s->w, s->bias,
						      GROUPS, 1e-6f, 1));
		if (each) {
			must(t->dev, lk_sync(t->dev));
			each[i] += bench_clock(CLOCK_MONOTONIC) - from;
		}
	}
	must(t->dev, lk_sync(t->dev));
}

struct product {
	struct lk_dev *dev;
	struct lk_view v[3];
};

static int product(void *arg)
{
	struct product *p = arg;
	int rc = lk_matmul(p->dev, &p->v[0], &p->v[1], &p->v[2], 0, 1.0f);

	return rc ? rc : lk_sync(p->dev);
}

/* sgemm 4096^3: seconds a GFLOP */
static struct bench_time yardstick(struct lk_dev *dev)
{
	const int64_t n = 4096;
	const double gflop = 2e-9 * (double)(n * n * n);
	struct product p = { .dev = dev };
	uint64_t seed = 3;
	struct bench_time t;

	for (int i = 0; i < 3; i++)
		p.v[i] = lk_view2(filled(dev, n * n, &seed, 0.0, 1.0), LK_F32, n, n);
	t = bench_run(product, &p, 5);
	bench_row("sgemm_4096", lk_dev_threads(dev), t, "GFLOPs", gflop / t.best);
	for (int i = 0; i < 3; i++)
		lk_mem_free(dev, p.v[i].data);
	t.best /= gflop;
	t.cpu /= gflop;
	return t;
}

static struct lk_dev *open_dev(const char *spec, int threads)
{
	struct lk_dev *dev;
	char why[256];

	if (lk_dev_open(&dev, spec, threads, why, sizeof why))
		die(spec, why);
	return dev;
}

static void print_steps(const struct net *t, int64_t frames, const double *each)
{
	for (int i = 0; i < t->n; i++) {
		const struct step *s = &t->s[i];

		printf("  %4lldx%-4lld %4lld -> %4lldx%-4lld %4lld %s %8.2f ms\n", (long long)s->h, (long long)s->h,
		       (long long)s->c, (long long)s->oh, (long long)s->oh, (long long)s->oc,
		       s->conv ? "conv" : "norm", 1e3 * each[i] / (double)frames);
	}
}

struct pass {
	struct net *net;
	int64_t frames;
	float *stat;
	struct lk_view z, book; /* book.data NULL: decoder */
	void *idx;
	double *each; /* or NULL */
};

/* The search for the codes belongs to the encoder. */
static int pass(void *arg)
{
	struct pass *p = arg;
	struct net *t = p->net;

	run(t, p->frames, p->stat, p->each);
	p->z.data = t->buf[t->cur];
	if (p->book.data)
		must(t->dev, lk_nearest_code(t->dev, p->idx, &p->z, &p->book));
	must(t->dev, lk_sync(t->dev));
	return 0;
}

static void row(struct lk_dev *dev, int64_t frames, int64_t size, int decode, const struct bench_time *sgemm, int steps)
{
	struct net *t = build(dev, size, frames, decode);
	int64_t n = frames * (size >> (LEVELS - 1)) * (size >> (LEVELS - 1));
	double each[STEPS] = { 0 }, gflop = t->gflop + (decode ? 0.0 : 2e-9 * (double)(n / frames) * CODES * Z);
	struct pass p = { t, frames, filled(dev, 2 * frames * GROUPS, &t->seed, 0, 1), lk_view2(NULL, LK_F32, n, Z),
			  lk_view2(NULL, LK_F32, CODES, Z), NULL, NULL };
	struct bench_time b;

	if (!decode)
		p.book.data = filled(dev, CODES * Z, &t->seed, 0.0, 1.0);
	must(dev, lk_mem_alloc(dev, (size_t)n * sizeof(int32_t), &p.idx));
	b = bench_run(pass, &p, 4);
	gflop *= (double)frames;
	printf("op=vqgan_%s threads=%d size=%lld frames_a_call=%lld ms=%.1f median_ms=%.1f cpu_ms=%.1f frames_s=%.3f "
	       "GFLOP_frame=%.1f GFLOPs=%.1f of_sgemm=%.2f cpu_of_sgemm=%.2f\n", decode ? "decode" : "encode",
	       lk_dev_threads(dev), (long long)size, (long long)frames, 1e3 * b.best, 1e3 * b.median, 1e3 * b.cpu,
	       (double)frames / b.best, gflop / (double)frames, gflop / b.best, sgemm->best * gflop / b.best,
	       sgemm->cpu * gflop / b.cpu);
	fflush(stdout);
	if (steps) {
		p.each = each;
		pass(&p);
		print_steps(t, frames, each);
	}
	lk_mem_free(dev, p.idx);
	lk_mem_free(dev, p.stat);
	lk_mem_free(dev, p.book.data);
	destroy(t);
}

static void measure(int threads, int64_t frames, int64_t size, int steps)
{
	struct lk_dev *dev = open_dev("cpu", threads);
	struct bench_time sgemm = yardstick(dev);

	for (int decode = 0; decode < 2; decode++)
		row(dev, frames, size, decode, &sgemm, steps);
	lk_dev_close(dev);
}

/* z and codes of one frame on both devices. */
static int check(int64_t size)
{
	int64_t n = (size >> (LEVELS - 1)) * (size >> (LEVELS - 1)), differ = 0;
	float *z[2] = { malloc((size_t)(n * Z) * sizeof(float)), malloc((size_t)(n * Z) * sizeof(float)) };
	int32_t *idx[2] = { malloc((size_t)n * sizeof(int32_t)), malloc((size_t)n * sizeof(int32_t)) };
	double diff = 0.0, all = 0.0;

	if (!z[0] || !z[1] || !idx[0] || !idx[1])
		die("check", "out of memory");
	for (int i = 0; i < 2; i++) {
		struct lk_dev *dev = open_dev(i ? "cpu" : "ref", 0);
		struct net *t = build(dev, size, 1, 0);
		uint64_t seed = 11;
		float *book = filled(dev, CODES * Z, &seed, 0.0, 1.0), *stat = filled(dev, 2 * GROUPS, &seed, 0, 1);
		struct lk_view zv, e = lk_view2(book, LK_F32, CODES, Z);
		void *codes;

		run(t, 1, stat, NULL);
		zv = lk_view2(t->buf[t->cur], LK_F32, n, Z);
		must(dev, lk_mem_alloc(dev, (size_t)n * sizeof(int32_t), &codes));
		must(dev, lk_nearest_code(dev, codes, &zv, &e));
		must(dev, lk_download(dev, z[i], zv.data, (size_t)(n * Z) * sizeof(float)));
		must(dev, lk_download(dev, idx[i], codes, (size_t)n * sizeof(int32_t)));
		lk_mem_free(dev, codes);
		lk_mem_free(dev, stat);
		lk_mem_free(dev, book);
		destroy(t);
		lk_dev_close(dev);
	}
	for (int64_t i = 0; i < n * Z; i++) {
		diff += ((double)z[1][i] - z[0][i]) * ((double)z[1][i] - z[0][i]);
		all += (double)z[0][i] * z[0][i];
	}
	for (int64_t i = 0; i < n; i++)
		differ += idx[0][i] != idx[1][i];
	printf("cpu against ref, %lldx%lld: relative error of z %.2e, %lld of %lld codes differ\n", (long long)size,
	       (long long)size, sqrt(diff / all), (long long)differ, (long long)n);
	for (int i = 0; i < 2; i++) {
		free(z[i]);
		free(idx[i]);
	}
	return 0;
}

int main(int argc, char **argv)
{
	int steps = argc > 1 && strcmp(argv[1], "--steps") == 0;
	int64_t frames = argc > 1 + steps ? strtoll(argv[1 + steps], NULL, 10) : 4;
	int64_t size = argc > 2 + steps ? strtoll(argv[2 + steps], NULL, 10) : 256;

	if (argc == 3 && strcmp(argv[1], "--check") == 0)
		return check(strtoll(argv[2], NULL, 10));
	if (frames < 1 || size < 16 || size % 16)
		die("usage", "bench_vqgan [--steps] [FRAMES [SIZE]] | --check SIZE, SIZE a multiple of 16");
	measure(1, frames, size, steps);
	measure(0, frames, size, steps);
	return 0;
}
