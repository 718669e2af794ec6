/* ckpt_fixture.h - a small checkpoint with known values, cut over ranks. */
#ifndef LWM_TESTS_UNIT_CKPT_FIXTURE_H
#define LWM_TESTS_UNIT_CKPT_FIXTURE_H

#include "tests/unit/io_fault.h"
#include "tests/unit/tensor_table.h"

#include "common/base/log.h"
#include "common/io/ckpt.h"

enum { ROWS = 24, COLS = 40, LONG = 70000 };
static const struct lwm_tensor table[] = {
	{ .name = "model.norm.weight", .ndim = 1, .shape = { COLS } },
	{ .name = "model.layers.0.mlp.down_proj.weight", .ndim = 2, .shape = { ROWS, COLS } },
	{ .name = "encoder.conv_in.weight", .ndim = 4, .shape = { 3, 3, 3, 16 } },
	{ .name = "model.embed_tokens.weight", .ndim = 2, .shape = { LONG / 7, 7 } },
};
enum { TENSORS = 4 };
static const int64_t sizes[TENSORS] = { COLS, ROWS *COLS, 432, LONG };

static float value(int g, int64_t tensor, int64_t i, int64_t step)
{
	return (float)(g * 1000000 + tensor * 100003 + i) + (float)step * 0.5f;
}

/* The values of a slice, packed. */
static float *gather(int g, const struct lwm_ckpt_slice *s, int64_t step)
{
	float *v = malloc((size_t)(s->run * s->count) * sizeof *v);
	for (int64_t k = 0; k < s->count; k++)
		for (int64_t j = 0; j < s->run; j++)
			v[k * s->run + j] = value(g, s->tensor, s->offset + k * s->stride + j, step);
	return v;
}

/* Rank r of n: a plain range of each tensor; with tp, columns of the matrix, cut again by rows in odd places. */
static int64_t cut(struct lwm_ckpt_slice *s, int r, int n, bool tp)
{
	int64_t k = 0;
	for (int64_t t = 0; t < TENSORS; t++) {
		if (t == 1 && tp) {
			int64_t w = COLS / n;
			s[k++] = (struct lwm_ckpt_slice){ t, r * w, w, ROWS / 2 - 1, COLS, { 0 } };
			s[k++] = (struct lwm_ckpt_slice){ t, r * w + (ROWS / 2 - 1) * COLS, w - 3, 1, 0, { 0 } };
			s[k++] = (struct lwm_ckpt_slice){ t, r * w + (ROWS / 2 - 1) * COLS + w - 3, 3, 1, 0, { 0 } };
			s[k++] = (struct lwm_ckpt_slice){ t, r * w + ROWS / 2 * COLS, w, ROWS / 2, COLS, { 0 } };
			continue;
		}
		int64_t a = sizes[t] * r / n, b = sizes[t] * (r + 1) / n;
		if (b > a)
			s[k++] = (struct lwm_ckpt_slice){ t, a, b - a, 1, 0, { 0 } };
	}
	return k;
}

static int fill(void *ctx, int g, int64_t slice, int64_t first, int64_t n, float *out, struct lwm_err *e)
{
	const struct lwm_ckpt_slice *s = (const struct lwm_ckpt_slice *)ctx + slice;
	(void)e;
	for (int64_t i = first; i < first + n; i++)
		out[i - first] = value(g, s->tensor, s->offset + i / s->run * s->stride + i % s->run, 7);
	return 0;
}

static void write_parts(const char *dir, int n, bool tp, int64_t step, struct lwm_ckpt_part *part)
{
	struct lwm_err e = { 0 };
	for (int r = 0; r < n; r++) {
		struct lwm_ckpt_slice s[16];
		struct lwm_ckpt_out o = { dir,          r,           TABLE(table, TENSORS), s, cut(s, r, n, tp),
					  LWM_CKPT_TRAINED_ALL, "{\"r\":1}", NULL,  s };
		if (step == 7 && r == 1)
			o.fill = fill;
		for (int64_t i = 0; i < o.nslice; i++)
			for (int g = 0; g < 3 && !o.fill; g++)
				s[i].data[g] = gather(g, &s[i], step);
		must(lwm_ckpt_write_part(&o, &part[r], &e), &e);
		for (int64_t i = 0; i < o.nslice; i++)
			for (int g = 0; g < 3; g++)
				free((void *)(uintptr_t)s[i].data[g]);
	}
}

static void commit(const char *dir, int n, bool tp, int64_t step, const struct lwm_ckpt_part *part)
{
	struct lwm_err e = { 0 };
	struct lwm_ckpt_slice s[8 * 16];
	int64_t k = 0;
	for (int r = 0; r < n; r++)
		k += cut(s + k, r, n, tp);
	json_t *config = json_pack("{s:{s:i}}", "model", "hidden_size", COLS);
	struct lwm_ckpt_meta m = {
		"lwm", step, "1,-1,1,1", n, config, NULL, "abc", "/x/tokenizer.model", LWM_CKPT_TRAINED_ALL
	};
	must(lwm_ckpt_commit(dir, &m, TABLE(table, TENSORS), part, n, s, &e), &e);
	json_decref(config);
}

static void save(const char *root, int64_t step, int n, bool tp)
{
	struct lwm_ckpt_part part[8];
	char *dir = lwm_ckpt_dir(root, step);
	write_parts(dir, n, tp, step, part);
	commit(dir, n, tp, step, part);
	free(dir);
}

#endif
