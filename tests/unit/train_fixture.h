/* train_fixture.h - a tiny row shard and a tiny stage over it, for test_train.c and mpi_train.c. */
#ifndef TESTS_TRAIN_FIXTURE_H
#define TESTS_TRAIN_FIXTURE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/base/rng.h"
#include "common/io/ckpt.h"
#include "common/io/rowshard.h"
#include "common/train/next_token.h"

enum { FX_SEQ = 64, FX_ROWS = 48, FX_VOCAB = 40 };

/* Rows of several documents each that count upwards, so that there is something to learn. Ids from vocab_text on are vision. */
static inline int fx_rows_of(const char *path, int64_t vocab_text, struct lwm_err *e)
{
	struct lwm_rows_meta m = { .seq = FX_SEQ, .vocab_text = vocab_text, .vocab_vision = FX_VOCAB - vocab_text,
				   .tokenizer = "", .tool = "test", .config = "", .weighting = "per_example" };
	struct lwm_rows_writer *w;
	LWM_TRY(lwm_rows_create(&w, path, &m, true, e));
	for (int64_t r = 0; r < FX_ROWS; r++) {
		struct lwm_rng g = lwm_rng_at(5, LWM_RNG_TEST, 0, (uint64_t)r);
		struct lwm_segment seg[8];
		int32_t tok[FX_SEQ];
		int64_t n = 0, at = 0;
		while (at < FX_SEQ - 4) {
			int64_t len = 5 + lwm_rng_below(&g, 20), start = lwm_rng_below(&g, FX_VOCAB);
			if (len > FX_SEQ - at)
				len = FX_SEQ - at;
			for (int64_t i = 0; i < len; i++)
				tok[at + i] = (int32_t)((start + i) % FX_VOCAB);
			seg[n++] = (struct lwm_segment){ .start = at, .len = len, .doc = r * 10 + n };
			at += len;
		}
		for (; at < FX_SEQ; at++)
			tok[at] = 0;
		int rc = lwm_rows_append(w, tok, seg, n, NULL, 0, e);
		if (rc < 0) {
			lwm_rows_discard(w);
			return rc;
		}
	}
	return lwm_rows_commit(w, e);
}

static inline int fx_rows(const char *path, struct lwm_err *e)
{
	return fx_rows_of(path, FX_VOCAB, e);
}

/* Released with lwm_stage_release. */
static inline int fx_stage(struct lwm_stage *s, const char *rows, const char *out, struct lwm_err *e)
{
	LWM_TRY(lwm_stage_init(s, e));
	struct lwm_next_token *n = lwm_next_token_of(s);
	s->device = "cpu";
	s->threads = 1;
	s->model = "nano";
	n->dim = 32;
	n->ffn = 48;
	n->layers = 2;
	n->heads = 4;
	n->kv_heads = 2;
	n->seq_length = FX_SEQ;
	n->tokens_per_batch = FX_SEQ * 8;
	n->micro_rows = 2;
	s->steps = 12;
	s->schedule.warmup_steps = 2;
	s->schedule.lr = 5e-3;
	s->log_every = 1000;
	s->checkpoint_every = 0;
	s->watchdog = 0;
	s->out = out;
	s->seed = 3;
	return lwm_paths_add(&s->data, rows, e);
}

/* Losses of a run by step, from metrics.jsonl. Returns how many. */
static inline int fx_losses(const char *out, double *loss, int most)
{
	char path[512], *text, *p, *end;
	struct lwm_err e = { 0 };
	size_t n;
	int steps = 0;
	snprintf(path, sizeof path, "%s/metrics.jsonl", out);
	if (lwm_read_file(path, 1 << 24, &text, &n, &e) < 0)
		return -1;
	for (p = text; (end = memchr(p, '\n', n - (size_t)(p - text))); p = end + 1) {
		json_t *o = json_loadb(p, (size_t)(end - p), 0, NULL);
		const char *event = json_string_value(json_object_get(o, "event"));
		if (event && !strcmp(event, "step") && steps < most) {
			const char *hex = json_string_value(json_object_get(o, "loss_hex"));
			loss[steps++] = strtod(hex, NULL);
		}
		json_decref(o);
	}
	free(text);
	return steps;
}

/* All weights and moments of the newest checkpoint, hashed. */
static inline int fx_state(const char *out, struct lwm_hash *h, struct lwm_err *e)
{
	char *dir;
	struct lwm_ckpt *c;
	struct lwm_hasher *hasher = lwm_hasher_new();
	LWM_TRY(lwm_ckpt_latest(&dir, out, true, LWM_CKPT_FULL, NULL, NULL, e));
	if (!dir)
		return lwm_fail(e, LWM_ENOINPUT, "%s: no checkpoint", out);
	LWM_TRY(lwm_ckpt_open(&c, dir, e));
	for (int g = 0; g < LWM_CKPT_TRAINED; g++) {
		for (int64_t i = 0; i < lwm_ckpt_count(c); i++) {
			int64_t n = lwm_ckpt_size(c, i);
			float *v = malloc((size_t)n * sizeof *v);
			int rc = lwm_ckpt_read(c, (enum lwm_ckpt_group)g, i, 0, n, v, e);
			if (rc < 0)
				return rc;
			lwm_hasher_add(hasher, v, (size_t)n * sizeof *v);
			free(v);
		}
	}
	lwm_ckpt_close(c);
	free(dir);
	*h = lwm_hasher_end(hasher);
	return 0;
}

#endif
