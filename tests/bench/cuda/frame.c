/* frame.c - memory, random numbers, the clock and the table of the GPU benchmark. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/bench/cuda/bench_gpu.h"

/* ---- memory ---- */

void *gpu_mem(struct gpu_bench *b, size_t bytes)
{
	void *p;

	if (b->blocks == GPU_MOST_BLOCKS) {
		snprintf(b->why, sizeof b->why, "more than %d blocks of memory", GPU_MOST_BLOCKS);
		return NULL;
	}
	if (lk_mem_alloc(b->dev, bytes, &p)) {
		snprintf(b->why, sizeof b->why, "%.2f GiB: %.200s", (double)bytes / (1 << 30), lk_dev_error(b->dev));
		return NULL;
	}
	b->block[b->blocks++] = p;
	return p;
}

void gpu_release(struct gpu_bench *b)
{
	while (b->blocks)
		lk_mem_free(b->dev, b->block[--b->blocks]);
}

double gpu_uniform(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u); // splitmix64

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static void put(void *data, int dtype, int64_t i, double x)
{
	float f = (float)x;
	uint32_t bits;

	memcpy(&bits, &f, sizeof bits);
	if (dtype == LK_BF16)
		((uint16_t *)data)[i] = (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
	else if (dtype == LK_F32)
		((float *)data)[i] = f;
	else if (dtype == LK_I32)
		((int32_t *)data)[i] = (int32_t)fabs(x);
	else
		((int8_t *)data)[i] = (int8_t)x;
}

enum { DRAWN = (1 << 22) + 12288 }; /* so long that neighbouring rows of usual widths differ */

void *gpu_random(struct gpu_bench *b, int dtype, int64_t n, double amplitude)
{
	size_t size = lk_dtype_size(dtype), total = (size_t)n * size, first, have;
	int64_t drawn = n < DRAWN ? n : DRAWN;
	char *p = gpu_mem(b, total), *host = p ? malloc((size_t)drawn * size) : NULL;
	uint64_t state = (uint64_t)b->blocks * 1000003u;
	int rc;

	if (!host)
		return NULL;
	for (int64_t i = 0; i < drawn; i++)
		put(host, dtype, i, amplitude * (2 * gpu_uniform(&state) - 1));
	first = have = (size_t)drawn * size;
	rc = lk_upload(b->dev, p, host, first);
	for (; !rc && have < total; have *= 2) // each copy doubles what is there
		rc = lk_copy(b->dev, p + have, p, total - have < have ? total - have : have);
	free(host);
	if (rc)
		snprintf(b->why, sizeof b->why, "%s", lk_dev_error(b->dev));
	return rc ? NULL : p;
}

/* ---- the clock ---- */

double gpu_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Seconds of one of n calls that are waited for together; negative: failed. */
static double batch(struct gpu_bench *b, int (*fn)(void *), void *arg, int64_t n)
{
	double start = gpu_clock();
	int rc = 0;

	for (int64_t i = 0; !rc && i < n; i++)
		rc = fn(arg);
	if (!rc)
		rc = lk_sync(b->dev);
	if (rc) {
		if (!*b->why) // a model's own sentence says more
			snprintf(b->why, sizeof b->why, "%s", lk_dev_error(b->dev));
		return -1;
	}
	return (gpu_clock() - start) / (double)n;
}

struct gpu_time gpu_measure(struct gpu_bench *b, int (*fn)(void *), void *arg)
{
	enum { BATCHES = 5 };
	struct gpu_time t = { -1, -1 };
	double sec[BATCHES], one;
	int64_t n;
	int count;

	*b->why = 0;
	one = batch(b, fn, arg, 1); // the first call allocates and chooses
	if (one >= 0)
		one = batch(b, fn, arg, 1);
	if (one < 0)
		return t;
	n = (int64_t)(b->seconds / (BATCHES * (one + 1e-6)));
	n = n < 1 ? 1 : n > 200 ? 200 : n;
	count = b->dry ? 1 : one > b->seconds ? 2 : BATCHES;
	for (int i = 0; i < count; i++) {
		sec[i] = batch(b, fn, arg, n);
		if (sec[i] < 0)
			return t;
	}
	qsort(sec, (size_t)count, sizeof *sec, compare);
	t.best = sec[0];
	t.median = sec[count / 2];
	return t;
}

/* ---- the table ---- */

static struct gpu_row *next_row(struct gpu_bench *b, const char *name)
{
	struct gpu_row *r = &b->row[b->rows < GPU_MOST_ROWS - 1 ? b->rows : GPU_MOST_ROWS - 1];

	b->rows += b->rows < GPU_MOST_ROWS;
	memset(r, 0, sizeof *r);
	snprintf(r->name, sizeof r->name, "%s", name);
	return r;
}

static void print_row(const struct gpu_row *r)
{
	char limits[40] = "";
	double judged = r->fraction > 0 ? r->fraction : r->rate;

	if (*r->why) {
		printf("%-46s %s: %s\n", r->name, r->failed ? "FAILED" : "skipped", r->why);
		fflush(stdout);
		return;
	}
	if (r->must > 0)
		snprintf(limits, sizeof limits, "%6.2f %6.2f  %s", r->must, r->goal,
			 r->most ? (judged <= r->goal ? "goal" : judged <= r->must ? "ok" : "MISSED")
				 : (judged >= r->goal ? "goal" : judged >= r->must ? "ok" : "MISSED"));
	printf("%-46s %11.4f %11.4f %11.2f %-10s", r->name, r->ms, r->median_ms, r->rate, r->unit);
	if (r->fraction > 0)
		printf(" %6.3f of %-10s", r->fraction, r->of);
	else
		printf(" %20s", "");
	printf(" %s\n", limits);
	fflush(stdout);
}

struct gpu_row *gpu_add_row(struct gpu_bench *b, const char *name, struct gpu_time t, double value, const char *unit,
			    double fraction, const char *of, double must, double goal)
{
	struct gpu_row *r = next_row(b, name);

	if (t.best < 0) {
		r->failed = true;
		b->failures++;
		snprintf(r->why, sizeof r->why, "%.150s", *b->why ? b->why : lk_dev_error(b->dev));
		*b->why = 0;
		print_row(r);
		return r;
	}
	r->ms = 1e3 * t.best;
	r->median_ms = 1e3 * t.median;
	r->rate = value;
	r->fraction = fraction;
	r->must = b->dry ? 0 : must;
	r->goal = goal;
	r->most = must > 1;
	snprintf(r->unit, sizeof r->unit, "%s", unit);
	snprintf(r->of, sizeof r->of, "%s", of);
	print_row(r);
	return r;
}

void gpu_compute_row(struct gpu_bench *b, const char *name, struct gpu_time t, double flop, double must, double goal)
{
	double rate = t.best > 0 ? flop / t.best : 0;

	gpu_add_row(b, name, t, rate * 1e-12, "TFLOP/s", b->flops > 0 ? rate / b->flops : 0, "product", must, goal);
}

void gpu_memory_row(struct gpu_bench *b, const char *name, struct gpu_time t, double bytes, double must, double goal)
{
	double rate = t.best > 0 ? bytes / t.best : 0;

	gpu_add_row(b, name, t, rate * 1e-9, "GB/s", b->bytes > 0 ? rate / b->bytes : 0, "copy", must, goal);
}

void gpu_skip(struct gpu_bench *b, const char *name, const char *why)
{
	struct gpu_row *r = next_row(b, name);

	snprintf(r->why, sizeof r->why, "%.150s", why);
	print_row(r);
}

void gpu_fail(struct gpu_bench *b, const char *name)
{
	gpu_add_row(b, name, (struct gpu_time){ -1, -1 }, 0, "", 0, "", 0, 0);
}

void gpu_heading(void)
{
	printf("%-46s %11s %11s %11s %-10s %20s %6s %6s\n", "work", "best ms", "median ms", "rate", "", "fraction", "must", "goal");
}

static void json_number(FILE *f, const char *key, double x)
{
	if (x > 0 && isfinite(x))
		fprintf(f, ", \"%s\": %.6g", key, x);
	else
		fprintf(f, ", \"%s\": null", key);
}

/* Names and reasons hold no control characters; quotes and backslashes become apostrophes and slashes. */
static void json_text(FILE *f, const char *key, const char *s)
{
	fprintf(f, "\"%s\": \"", key);
	for (; *s; s++)
		fputc(*s == '"' ? '\'' : *s == '\\' ? '/' : (unsigned char)*s < 32 ? ' ' : *s, f);
	fputc('"', f);
}

int gpu_json(const struct gpu_bench *b, const char *path)
{
	FILE *f = fopen(path, "w");

	if (!f)
		return -1;
	fprintf(f, "{");
	json_text(f, "device", lk_dev_name(b->dev));
	fprintf(f, ", \"dry\": %s", b->dry ? "true" : "false");
	json_number(f, "product_tflops", b->flops * 1e-12);
	json_number(f, "copy_gbs", b->bytes * 1e-9);
	fprintf(f, ", \"rows\": [");
	for (int i = 0; i < b->rows; i++) {
		const struct gpu_row *r = &b->row[i];

		fprintf(f, "%s\n {", i ? "," : "");
		json_text(f, "work", r->name);
		json_number(f, "ms", r->ms);
		json_number(f, "median_ms", r->median_ms);
		json_number(f, "rate", r->rate);
		fprintf(f, ", ");
		json_text(f, "unit", r->unit);
		json_number(f, "fraction", r->fraction);
		fprintf(f, ", ");
		json_text(f, "of", r->of);
		json_number(f, "must", r->must);
		json_number(f, "goal", r->goal);
		fprintf(f, ", ");
		json_text(f, r->failed ? "failed" : "skipped", r->why);
		fprintf(f, "}");
	}
	fprintf(f, "\n]}\n");
	return ferror(f) | fclose(f) ? -1 : 0;
}
