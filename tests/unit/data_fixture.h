/* data_fixture.h - scratch folders and document shards whose every token tells where it belongs. */
#ifndef TESTS_UNIT_DATA_FIXTURE_H
#define TESTS_UNIT_DATA_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/path.h"
#include "common/base/rng.h"
#include "common/io/docshard.h"

#define OK(call)                                                        \
	do {                                                            \
		struct lwm_err *e_ = &err;                              \
		lwm_err_clear(e_);                                      \
		if ((call) < 0)                                         \
			fail_msg("%s: %s", #call, e_->msg);             \
	} while (0)

static struct lwm_err err;
static char scratch[128];

/* Memory when there is some: these tests write many small shards, each synced. */
static inline int scratch_make(void **state)
{
	(void)state;
	snprintf(scratch, sizeof scratch, "%s/lwm-data-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	return mkdtemp(scratch) ? 0 : -1;
}

static inline int scratch_remove(void **state)
{
	(void)state;
	return lwm_remove_tree(scratch, &err);
}

static inline const char *in_scratch(const char *name)
{
	static char path[8][256];
	static int next;
	char *p = path[next++ % 8];
	snprintf(p, sizeof path[0], "%s/%s", scratch, name);
	return p;
}

enum { FIX_VOCAB = 50021 /* prime */, FIX_STEP = 7 };

/* Token `pos` of document `doc`: from the token and the document the position can be told. */
static inline int32_t fix_token(int64_t doc, int64_t pos)
{
	return (int32_t)((doc * 31 + pos * FIX_STEP) % FIX_VOCAB);
}

static inline int64_t fix_position(int64_t doc, int32_t token)
{
	int64_t d = (token - doc * 31 % FIX_VOCAB + FIX_VOCAB) % FIX_VOCAB;
	while (d % FIX_STEP)
		d += FIX_VOCAB;
	return d / FIX_STEP;
}

static inline int fix_loss(int64_t doc, int64_t pos)
{
	return pos / (3 + doc % 5) % 2 == doc % 2;
}

/* One shard of n documents with these lengths; document numbers start at `first`. */
static inline void fix_shard(const char *path, const int64_t *len, int64_t n, int64_t first)
{
	struct lwm_docs_meta meta = { .vocab_text = FIX_VOCAB, .tokenizer = "0123456789abcdef0123456789abcdef",
				      .tool = "test", .config = "", .policy = "none" };
	struct lwm_docs_writer *w;
	OK(lwm_docs_create(&w, path, &meta, true, &err));
	for (int64_t i = 0; i < n; i++) {
		int32_t *tok = malloc((size_t)len[i] * sizeof *tok);
		struct lwm_loss_run *run = malloc((size_t)len[i] * sizeof *run);
		int64_t nruns = 0;
		char id[32];
		assert_non_null(tok);
		assert_non_null(run);
		for (int64_t t = 0; t < len[i]; t++) {
			tok[t] = fix_token(first + i, t);
			uint8_t loss = (uint8_t)fix_loss(first + i, t);
			if (!nruns || run[nruns - 1].loss != loss)
				run[nruns++] = (struct lwm_loss_run){ .start = t, .loss = loss };
		}
		snprintf(id, sizeof id, "doc %" PRId64, first + i);
		OK(lwm_docs_append(w, id, NULL, tok, len[i], run, nruns, &err));
		free(tok);
		free(run);
	}
	OK(lwm_docs_commit(w, &err));
}

#endif
