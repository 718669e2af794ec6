/* test_recon.c - training of the frame tokenizer: what a step sees, how ranks share it, that it learns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/media/picture.h"
#include "common/data/ingest/clipdoc.h"
#include "common/train/recon.h"
#include "tests/unit/peak.h"

static char dir[] = "/tmp/lwm_recon_XXXXXX";
static struct lwm_paths clips;

struct rig {
	struct lk_dev *dev;
	struct lwm_recon_cfg c;
	struct lwm_tensors p;
	float *flat, *grads, *m, *v; /* device */
	float *host;
	struct lwm_recon *r;
};

static float *device_floats(struct rig *g)
{
	void *p;
	assert_int_equal(lk_mem_alloc(g->dev, (size_t)g->p.total * 4, &p), 0);
	assert_int_equal(lk_zero(g->dev, p, (size_t)g->p.total * 4), 0);
	return p;
}

static void open_rig(struct rig *g, int64_t quantize_from)
{
	struct lwm_err e = { 0 };
	char why[256];
	memset(g, 0, sizeof *g);
	g->c.loss = (struct lwm_vqgan_loss){ .l1 = 0.1f, .l2 = 1, .codebook = 0.2f, .commit = 0.02f };
	g->c.cache_bytes = 2LL << 30;
	g->c.revive_until = 1000;
	g->c.model = (struct lwm_vqgan_cfg){ .resolution = 16, .hidden = 8, .levels = 3, .mult = { 1, 2, 2 },
					     .res_blocks = 1, .z_channels = 4, .embed_dim = 4, .num_embeddings = 32,
					     .groups = 4 };
	g->c.inputs = &clips;
	g->c.holdout = 4;
	g->c.batch = 6;
	g->c.frames_per_pass = 4;
	g->c.probe_frames = 12;
	g->c.revive_every = 5;
	g->c.quantize_from = quantize_from;
	g->c.seed = 3;
	assert_int_equal(lk_dev_open(&g->dev, "cpu", 1, why, sizeof why), 0);
	assert_int_equal(lwm_vqgan_tensors(&g->p, &g->c.model, &e), 0);
	g->host = malloc((size_t)g->p.total * 4);
	lwm_tensors_init(&g->p, 1, 0, g->p.total, g->host);
	g->flat = device_floats(g);
	g->grads = device_floats(g);
	g->m = device_floats(g);
	g->v = device_floats(g);
	assert_int_equal(lk_upload(g->dev, g->flat, g->host, (size_t)g->p.total * 4), 0);
	if (lwm_recon_new(&g->r, g->dev, &g->c, g->flat, &e) < 0)
		fail_msg("%s", e.msg);
}

static void close_rig(struct rig *g)
{
	lwm_recon_free(g->r);
	lk_mem_free(g->dev, g->flat);
	lk_mem_free(g->dev, g->grads);
	lk_mem_free(g->dev, g->m);
	lk_mem_free(g->dev, g->v);
	lk_dev_close(g->dev);
	lwm_tensors_release(&g->p);
	free(g->host);
}

static void one_step(struct rig *g, int64_t step, struct lwm_recon_stats *st)
{
	struct lwm_err e = { 0 };
	struct lk_adamw_cfg a = { .lr = 2e-3f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .grad_scale = 1,
				  .bias1 = 1 - pow(0.9, (double)step + 1), .bias2 = 1 - pow(0.95, (double)step + 1) };
	memset(st, 0, sizeof *st);
	assert_int_equal(lk_zero(g->dev, g->grads, (size_t)g->p.total * 4), 0);
	assert_true(lwm_recon_prepare(g->r, step, &e) >= 0);
	assert_int_equal(lwm_recon_step(g->r, step, 0, 1, g->grads, st, &e), 0);
	assert_int_equal(lk_adamw(g->dev, g->flat, g->m, g->v, g->grads, NULL, g->p.total, &a), 0);
}

static double held_out(struct rig *g)
{
	struct lwm_recon_stats st = { 0 };
	struct lwm_err e = { 0 };
	assert_int_equal(lwm_recon_eval(g->r, 100, g->c.batch, &st, &e), 0);
	return lwm_psnr(st.sum.l2 / st.sum.frames);
}

/* However many at a time: as many frames, the same codes, the same loss. */
static void a_few_at_once(void **state)
{
	struct lwm_recon_stats all = { 0 }, one = { 0 };
	struct lwm_err e = { 0 };
	struct rig g;
	(void)state;
	open_rig(&g, 0);
	assert_true(g.c.batch > 1);
	assert_int_equal(lwm_recon_eval(g.r, 7, g.c.batch, &all, &e), 0);
	assert_int_equal(lwm_recon_eval(g.r, 7, 1, &one, &e), 0);
	assert_true(all.sum.frames == 7 && one.sum.frames == 7);
	assert_true(fabs(one.sum.l2 - all.sum.l2) <= 1e-6 * all.sum.l2);
	assert_int_equal(one.codes_used, all.codes_used);
	close_rig(&g);
}

static void cache_and_holdout(void **state)
{
	struct rig g;
	struct lwm_err e = { 0 };
	(void)state;
	open_rig(&g, 0);
	assert_int_equal(lwm_recon_frames(g.r, false), 6 * 4);
	assert_int_equal(lwm_recon_frames(g.r, true), 2 * 4);
	struct lwm_recon *r;
	struct lwm_recon_cfg c = g.c;
	c.cache_bytes = 16 * 16 * 3 * 10;
	assert_int_equal(lwm_recon_new(&r, g.dev, &c, g.flat, &e), -LWM_EMEMORY);
	lwm_err_clear(&e);
	c = g.c;
	c.width = 18;
	assert_int_equal(lwm_recon_new(&r, g.dev, &c, g.flat, &e), -LWM_ECONFIG);
	lwm_err_clear(&e);
	c = g.c;
	c.holdout = 1;
	assert_int_equal(lwm_recon_new(&r, g.dev, &c, g.flat, &e), -LWM_ECONFIG);
	close_rig(&g);
}

enum { LONG = 400, SHORT = 40, SIDE = 256 };

/* A clip of so many frames in the cache, each made SIDE x SIDE. */
static bool fill_cache(void *frames)
{
	static uint8_t rgb[LONG * 16 * 16 * 3];
	char name[64], *list[] = { name };
	struct lwm_paths one = { list, 1, 1 };
	struct lwm_err e = { 0 };
	struct lwm_recon *r;
	struct rig g;
	int64_t n = *(int64_t *)frames;
	snprintf(name, sizeof name, "%s/n%lld.mp4", dir, (long long)n);
	if (lwm_video_write(name, rgb, n, 16, 16, 4, true, &e) < 0)
		return false;
	open_rig(&g, 0);
	struct lwm_recon_cfg c = g.c;
	c.inputs = &one;
	c.holdout = 0;
	c.width = c.height = SIDE;
	c.frames_per_pass = 1;
	c.cache_bytes = n * SIDE * SIDE * 3; /* just so many */
	if (lwm_recon_new(&r, g.dev, &c, g.flat, &e) < 0 || lwm_recon_frames(r, false) != n)
		return false;
	lwm_recon_free(r);
	c.cache_bytes--;
	return lwm_recon_new(&r, g.dev, &c, g.flat, &e) == -LWM_EMEMORY && strstr(e.msg, "do not fit into the cache");
}

/* A clip is decoded into the cache; it does not lie beside it first. */
static void one_copy_of_a_clip(void **state)
{
	int64_t few = SHORT, many = LONG, cache = (int64_t)(LONG - SHORT) * SIDE * SIDE * 3;
	(void)state;
	int64_t a = peak_bytes(fill_cache, &few), b = peak_bytes(fill_cache, &many);
	assert_true(a >= 0 && b >= 0);
	if (PEAK_COUNTS && (b - a < cache / 2 || b - a > cache + cache / 2))
		fail_msg("%lld bytes more for %lld of frames", (long long)(b - a), (long long)cache);
}

/* The last of every three, not the first: of eight the third and the sixth. */
static void every_third_clip(void **state)
{
	struct rig g;
	struct lwm_err e = { 0 };
	struct lwm_recon *r;
	(void)state;
	open_rig(&g, 0);
	struct lwm_recon_cfg c = g.c;
	c.holdout = 3;
	assert_int_equal(lwm_recon_new(&r, g.dev, &c, g.flat, &e), 0);
	assert_int_equal(lwm_recon_frames(r, false), 6 * 4);
	assert_int_equal(lwm_recon_frames(r, true), 2 * 4);
	lwm_recon_free(r);
	close_rig(&g);
}

/* Pieces of 8 x 12 of frames of 16 x 16, whose pixels say where they lie: every one lies somewhere, drawn anew for each frame of
 * each step, and the same for a rank that has it alone; of held-out frames it is the middle. */
static void pieces_of_frames(void **state)
{
	static uint8_t rgb[16 * 16 * 3];
	struct lwm_recon_stats st = { 0 };
	struct lwm_err e = { 0 };
	struct lwm_recon *r;
	struct rig g;
	char name[64], *list[] = { name };
	struct lwm_paths one = { list, 1, 1 };
	int seen_x = 0, seen_y = 0;
	(void)state;
	open_rig(&g, 0);
	for (int i = 0; i < 16 * 16; i++) {
		rgb[i * 3] = (uint8_t)(i % 16 * 10);
		rgb[i * 3 + 1] = (uint8_t)(i / 16 * 10);
	}
	snprintf(name, sizeof name, "%s/where.png", dir);
	assert_int_equal(lwm_picture_write(name, rgb, 16, 16, 0, false, &e), 0);
	struct lwm_recon_cfg c = g.c;
	c.inputs = &one;
	c.holdout = 0;
	c.probe_frames = 0;
	c.width = 8;
	c.height = 12;
	c.from_width = c.from_height = 16;
	assert_int_equal(lwm_recon_new(&r, g.dev, &c, g.flat, &e), 0);
	for (int64_t step = 0; step < 40; step++) {
		assert_int_equal(lwm_recon_step(r, step, 0, 1, g.grads, &st, &e), 0);
		const uint8_t *p = lwm_recon_seen(r), *first = p;
		int x = p[0] / 10, y = p[1] / 10;
		assert_true(x <= 8 && y <= 4);
		seen_x |= 1 << x;
		seen_y |= 1 << y;
		for (int i = 0; i < 8 * 12; i++, p += 3)
			assert_true(p[0] == (x + i % 8) * 10 && p[1] == (y + i / 8) * 10);
		x = first[5 * 8 * 12 * 3];
		assert_int_equal(lwm_recon_step(r, step, 5, 6, g.grads, &st, &e), 0);
		assert_int_equal(lwm_recon_seen(r)[0], x);
	}
	assert_int_equal(seen_x, 0x1ff);
	assert_int_equal(seen_y, 0x1f);
	assert_int_equal(lwm_recon_eval(r, 1, 1, &st, &e), 0);
	assert_true(lwm_recon_seen(r)[0] == 40 && lwm_recon_seen(r)[1] == 20);
	lwm_recon_free(r);
	c.from_height = 11;
	assert_int_equal(lwm_recon_new(&r, g.dev, &c, g.flat, &e), -LWM_ECONFIG);
	close_rig(&g);
}

static void ranks_share_a_batch(void **state)
{
	struct rig g;
	struct lwm_err e = { 0 };
	struct lwm_recon_stats whole = { 0 }, parts = { 0 };
	(void)state;
	open_rig(&g, 0);
	float *a = malloc((size_t)g.p.total * 4), *b = malloc((size_t)g.p.total * 4);
	assert_int_equal(lwm_recon_prepare(g.r, 0, &e), 1);
	assert_int_equal(lwm_recon_step(g.r, 7, 0, 1, g.grads, &whole, &e), 0);
	assert_int_equal(lk_download(g.dev, a, g.grads, (size_t)g.p.total * 4), 0);
	assert_int_equal(lk_zero(g.dev, g.grads, (size_t)g.p.total * 4), 0);
	for (int rank = 0; rank < 4; rank++)
		assert_int_equal(lwm_recon_step(g.r, 7, rank, 4, g.grads, &parts, &e), 0);
	assert_int_equal(lk_download(g.dev, b, g.grads, (size_t)g.p.total * 4), 0);
	assert_true(fabs(whole.sum.frames - 6) < 1e-9 && fabs(parts.sum.frames - 6) < 1e-9);
	assert_true(fabs(whole.sum.loss - parts.sum.loss) < 1e-5 * whole.sum.loss);
	double diff = 0, norm = 0;
	for (int64_t i = 0; i < g.p.total; i++) {
		diff += pow((double)(a[i] - b[i]), 2);
		norm += pow((double)a[i], 2);
	}
	assert_true(norm > 0 && sqrt(diff / norm) < 1e-5);
	free(a);
	free(b);
	close_rig(&g);
}

/* Stopped after 7 of 12 steps and gone on with a new cache, the weights are the same bits. */
static void no_state_between_steps(void **state)
{
	struct rig g, h;
	struct lwm_err e = { 0 };
	struct lwm_recon_stats st;
	(void)state;
	open_rig(&g, 3);
	open_rig(&h, 3);
	for (int64_t i = 0; i < 12; i++)
		one_step(&g, i, &st);
	for (int64_t i = 0; i < 12; i++) {
		if (i == 7) {
			lwm_recon_free(h.r);
			assert_int_equal(lwm_recon_new(&h.r, h.dev, &h.c, h.flat, &e), 0);
		}
		one_step(&h, i, &st);
	}
	assert_int_equal(lk_download(g.dev, g.host, g.flat, (size_t)g.p.total * 4), 0);
	assert_int_equal(lk_download(h.dev, h.host, h.flat, (size_t)h.p.total * 4), 0);
	assert_memory_equal(g.host, h.host, (size_t)g.p.total * 4);
	close_rig(&g);
	close_rig(&h);
}

static void it_learns(void **state)
{
	struct rig g;
	struct lwm_recon_stats st;
	(void)state;
	open_rig(&g, 30);
	double before = held_out(&g);
	for (int64_t i = 0; i < 120; i++)
		one_step(&g, i, &st);
	double after = held_out(&g);
	assert_true(st.codes_used > 4);
	assert_true(after > before + 6);
	close_rig(&g);
}

/* Eight clips of four frames: a square of some colour that moves. */
static int group_setup(void **state)
{
	struct lwm_err e = { 0 };
	static uint8_t rgb[4 * 16 * 16 * 3];
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	for (int k = 0; k < 8; k++) {
		char name[64];
		for (int i = 0; i < 4 * 16 * 16; i++) {
			int t = i / 256, x = i % 16, y = i / 16 % 16;
			bool in = abs(x - 3 - 3 * t) < 3 && abs(y - 4 - k) < 3;
			for (int c = 0; c < 3; c++)
				rgb[i * 3 + c] = (uint8_t)(in ? ((k >> c) & 1 ? 230 : 40) : 120);
		}
		snprintf(name, sizeof name, "%s/c%d.mp4", dir, k);
		if (lwm_video_write(name, rgb, 4, 16, 16, 4, false, &e) < 0 || lwm_paths_add(&clips, name, &e) < 0)
			return -1;
	}
	return 0;
}

static int group_teardown(void **state)
{
	struct lwm_err e = { 0 };
	(void)state;
	lwm_paths_release(&clips);
	return lwm_remove_tree(dir, &e);
}

/* ---- the name of a net ---- */

/* The hash of a net whose host weights are `flat`. */
static void name_of(struct rig *g, const struct lwm_vqgan_cfg *c, const float *flat, char hex[33])
{
	struct lwm_err e = { 0 };
	assert_int_equal(lk_upload(g->dev, g->flat, flat, (size_t)g->p.total * 4), 0);
	struct lwm_flat_weights w = lwm_flat_weights_of(g->flat, LK_F32, NULL);
	if (lwm_vqgan_hash(g->dev, c, &w.base, hex, &e) < 0)
		fail_msg("%s", e.msg);
}

static void differs(struct rig *g, const struct lwm_vqgan_cfg *c, const char *want, const char *what)
{
	char hex[33];
	name_of(g, c, g->host, hex);
	if (!strcmp(hex, want))
		fail_msg("another %s has the same name", what);
}

/* Levels that do not exist, memory behind the members, gaps between tensors: none of it is the net. */
static void a_name_is_of_the_net_alone(void **state)
{
	(void)state;
	struct rig g;
	struct lwm_vqgan_cfg c;
	char want[33], hex[33];
	open_rig(&g, 0);
	name_of(&g, &g.c.model, g.host, want);
	assert_int_equal(strlen(want), 32);
	memset(&c, 0xa5, sizeof c);
	c.resolution = g.c.model.resolution;
	c.hidden = g.c.model.hidden;
	c.levels = g.c.model.levels;
	memcpy(c.mult, g.c.model.mult, (size_t)c.levels * sizeof *c.mult);
	c.res_blocks = g.c.model.res_blocks;
	c.z_channels = g.c.model.z_channels;
	c.embed_dim = g.c.model.embed_dim;
	c.num_embeddings = g.c.model.num_embeddings;
	c.groups = g.c.model.groups;
	c.unit_pixels = g.c.model.unit_pixels;
	name_of(&g, &c, g.host, hex);
	assert_string_equal(hex, want);
	float *poisoned = malloc((size_t)g.p.total * 4);
	memset(poisoned, 0x5a, (size_t)g.p.total * 4);
	for (int64_t i = 0; i < g.p.n; i++)
		memcpy(poisoned + g.p.list[i].offset, g.host + g.p.list[i].offset, (size_t)g.p.list[i].count * 4);
	assert_true(g.p.total > g.p.params); /* there are gaps */
	name_of(&g, &c, poisoned, hex);
	assert_string_equal(hex, want);
	free(poisoned);
	c.unit_pixels = 1;
	differs(&g, &c, want, "range of pixels");
	c.unit_pixels = 0;
	c.groups = 2;
	differs(&g, &c, want, "number of groups");
	c.groups = 4;
	c.resolution = 32;
	differs(&g, &c, want, "resolution");
	c.resolution = 16;
	((unsigned char *)(g.host + g.p.list[g.p.n - 1].offset))[1] ^= 1;
	differs(&g, &c, want, "weight");
	close_rig(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_copy_of_a_clip), cmocka_unit_test(a_few_at_once), cmocka_unit_test(cache_and_holdout),
		cmocka_unit_test(every_third_clip), cmocka_unit_test(pieces_of_frames), cmocka_unit_test(ranks_share_a_batch),
		cmocka_unit_test(no_state_between_steps), cmocka_unit_test(it_learns),
		cmocka_unit_test(a_name_is_of_the_net_alone),
	};
	return cmocka_run_group_tests_name("recon", tests, group_setup, group_teardown);
}
