/* Tokens are prefilled CHUNK at a time; of each chunk TILE rows of hidden states become logits at a time and are written as
 * lines, so that memory does not grow with the vocabulary times the length. */
#include "common/eval/logits.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "common/infer/engine.h"

enum { CHUNK = 512, TILE = 16 }; /* tokens fed at a time, rows of logits at a time */

static const char *const names[] = { "text", "vision" };

struct logits {
	FILE *out;
	struct lwm_logits how;
	const struct lwm_llama_cfg *cfg;
	const int32_t *ids;
	int64_t n;
	int64_t rows[LWM_MODALITIES];  /* of each head */
	float *value[LWM_MODALITIES];  /* (TILE, rows) */
	int64_t *order;                /* ids of a row, when only the largest are wanted */
};

static int modality_of(const struct logits *l, int32_t id)
{
	return lwm_llama_is_vision(l->cfg, id) ? LWM_VISION : LWM_TEXT;
}

/* -log softmax(x)[i], in double. */
static double loss_of(const float *x, int64_t n, int64_t i)
{
	double most = -INFINITY, sum = 0;

	for (int64_t k = 0; k < n; k++)
		most = fmax(most, (double)x[k]);
	for (int64_t k = 0; k < n; k++)
		sum += exp((double)x[k] - most);
	return most + log(sum) - (double)x[i];
}

/* The places of the `top` largest of n numbers, in order: insertion, for there are few. NaN is largest: it is to be seen. */
static int64_t find_largest(const float *x, int64_t n, int64_t top, int64_t *place)
{
	int64_t have = 0;

	for (int64_t i = 0; i < n; i++) {
		int64_t k = have;

		while (k > 0 && (x[i] > x[place[k - 1]] || (isnan(x[i]) && !isnan(x[place[k - 1]]))))
			k--;
		if (k == top)
			continue;
		have += have < top;
		for (int64_t j = have - 1; j > k; j--)
			place[j] = place[j - 1];
		place[k] = i;
	}
	return have;
}

static void put_number(FILE *out, double x, bool json)
{
	if (json && !isfinite(x))
		fprintf(out, "\"%s\"", isnan(x) ? "nan" : x > 0 ? "inf" : "-inf"); /* JSON has no such numbers */
	else
		fprintf(out, "%.9g", x);
}

/* The logits of one head: json [x,...] for all, [[id,x],...] for the largest; else columns head:id:x. */
static void put_head(const struct logits *l, int head, const float *x)
{
	int64_t rows = l->rows[head], first = head == LWM_VISION ? l->cfg->vocab_text : 0;
	int64_t n = l->how.top < 0 ? rows : find_largest(x, rows, l->how.top, l->order);
	bool all = l->how.top < 0;

	if (l->how.json)
		fprintf(l->out, "\"%s\":[", names[head]);
	for (int64_t i = 0; i < n; i++) {
		int64_t at = all ? i : l->order[i];

		if (!l->how.json)
			fprintf(l->out, "\t%s:%" PRId64 ":", names[head], first + at);
		else if (all)
			fputs(i ? "," : "", l->out);
		else
			fprintf(l->out, "%s[%" PRId64 ",", i ? "," : "", first + at);
		put_number(l->out, (double)x[at], l->how.json);
		if (l->how.json && !all)
			fputc(']', l->out);
	}
	if (l->how.json)
		fputc(']', l->out);
}

static void put_line(const struct logits *l, int64_t at, int64_t row)
{
	int32_t next = at + 1 < l->n ? l->ids[at + 1] : -1;
	int head = next < 0 ? LWM_TEXT : modality_of(l, next);
	const char *comma = "";
	int64_t first = head == LWM_VISION ? l->cfg->vocab_text : 0;
	const char *begin = l->how.json ? "{\"position\":%" PRId64 ",\"token\":%d,\"modality\":\"%s\"," : "%" PRId64 "\t%d\t%s\t";
	double loss = next < 0 ? 0 : loss_of(l->value[head] + row * l->rows[head], l->rows[head], next - first);

	fprintf(l->out, begin, at, (int)l->ids[at], names[modality_of(l, l->ids[at])]);
	if (next < 0) {
		fputs(l->how.json ? "\"next\":null,\"loss\":null," : "-\t-", l->out);
	} else {
		fprintf(l->out, l->how.json ? "\"next\":%d,\"loss\":" : "%d\t", (int)next);
		put_number(l->out, loss, l->how.json);
		fputs(l->how.json ? "," : "", l->out);
	}
	fputs(l->how.json ? "\"logits\":{" : "", l->out);
	for (int h = 0; h < LWM_MODALITIES; h++) {
		if (!l->rows[h])
			continue;
		fputs(l->how.json ? comma : "", l->out);
		put_head(l, h, l->value[h] + row * l->rows[h]);
		comma = ",";
	}
	fputs(l->how.json ? "}}\n" : "\n", l->out);
}

/* Lines of the k tokens from `at`, which were fed last. */
static int write_chunk(const struct logits *l, struct lwm_engine *g, int64_t at, int64_t k, struct lwm_err *e)
{
	for (int64_t r = 0; r < k; r += TILE) {
		int64_t rows = k - r < TILE ? k - r : TILE;

		LWM_TRY(lwm_engine_pick_rows(g, r, rows, e));
		for (int h = 0; h < LWM_MODALITIES; h++)
			if (l->rows[h])
				LWM_TRY(lwm_engine_read_logits(g, (enum lwm_modality)h, l->value[h], e));
		for (int64_t i = 0; i < rows; i++)
			put_line(l, at + r + i, i);
		if (ferror(l->out))
			return lwm_fail_errno(e, LWM_EIO, errno, "cannot write the logits");
	}
	return 0;
}

static int allocate_rows(struct logits *l, struct lwm_err *e)
{
	int64_t most = 1;

	l->rows[LWM_TEXT] = l->cfg->vocab_text;
	l->rows[LWM_VISION] = l->cfg->vision_rows;
	for (int h = 0; h < LWM_MODALITIES; h++) {
		most = l->rows[h] > most ? l->rows[h] : most;
		l->value[h] = malloc((size_t)(TILE * l->rows[h] + 1) * sizeof(float));
	}
	l->how.top = l->how.top > most ? most : l->how.top;
	l->order = malloc((size_t)most * sizeof *l->order);
	if (!l->order || !l->value[LWM_TEXT] || !l->value[LWM_VISION])
		return lwm_fail(e, LWM_EMEMORY, "out of memory for %d rows of %" PRId64 " logits", TILE, most);
	return 0;
}

int lwm_logits_write(FILE *out, const struct lwm_logits *how, struct lk_dev *dev, const struct lwm_llama_cfg *cfg,
		     const void *weights, const int32_t *ids, int64_t n, struct lwm_err *e)
{
	struct logits l = { .out = out, .how = *how, .cfg = cfg, .ids = ids, .n = n };
	struct lwm_engine *g = NULL;
	struct lwm_cache *c = NULL;
	int rc = allocate_rows(&l, e);

	if (rc == 0)
		rc = lwm_engine_new(&g, dev, cfg, weights, n < CHUNK ? n : CHUNK, TILE, e);
	if (rc == 0)
		rc = lwm_engine_new_cache(&c, g, n, e);
	for (int64_t at = 0; rc == 0 && at < n; at += CHUNK) {
		int64_t k = n - at < CHUNK ? n - at : CHUNK;

		rc = lwm_prefill(g, c, ids + at, k, e);
		if (rc == 0)
			rc = write_chunk(&l, g, at, k, e);
	}
	lwm_cache_free(c);
	lwm_engine_free(g);
	free(l.order);
	for (int h = 0; h < LWM_MODALITIES; h++)
		free(l.value[h]);
	return rc;
}
