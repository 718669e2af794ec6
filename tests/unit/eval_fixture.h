/* eval_fixture.h - a scratch folder, made-up sentences and tokenizers over them, for the evaluation tests. */
#ifndef TESTS_EVAL_FIXTURE_H
#define TESTS_EVAL_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/log.h"
#include "common/base/outfile.h"
#include "common/base/rng.h"
#include "common/eval/needle_eval.h"

enum { FX_SENTENCES = 1500, FX_LONGEST = 90 /* bytes of a sentence at most */ };

static char fx_root[128];

/* In the call, `err` is a fresh struct lwm_err. */
#define OK(call)                                                  \
	do {                                                      \
		struct lwm_err e_ = { 0 }, *err = &e_;            \
		if ((call) < 0)                                   \
			fail_msg("%s: %s", #call, e_.msg);        \
	} while (0)
#define FAILS(call, want, part)                                                                          \
	do {                                                                                             \
		struct lwm_err e_ = { 0 }, *err = &e_;                                                   \
		int rc_ = (call);                                                                        \
		if (rc_ != -(want) || !strstr(e_.msg, part))                                             \
			fail_msg("%s: %d '%s', expected %d with '%s'", #call, -rc_, e_.msg, want, part); \
	} while (0)

/* A path in the scratch folder; the thread's last eight stay valid. */
static inline const char *fx_path(const char *name)
{
	static _Thread_local char buf[8][256];
	static _Thread_local int i;
	char *p = buf[i++ % 8];
	snprintf(p, sizeof *buf, "%s/%s", fx_root, name);
	return p;
}

static inline const char *fx_write(const char *name, const char *text)
{
	const char *path = fx_path(name);
	OK(lwm_write_file(path, text, strlen(text), true, err));
	return path;
}

static inline char *fx_read(const char *path)
{
	char *text;
	size_t n;
	OK(lwm_read_file(path, 1 << 26, &text, &n, err));
	return text;
}

/* Sentences of different lengths out of a few words. */
static inline void fx_prose(struct lwm_str *s, int sentences)
{
	static const char *const word[] = { "the", "ship", "sailed", "over", "a", "quiet", "sea", "and", "nobody", "spoke",
					    "until", "morning", "came", "with", "rain" };
	for (int i = 0; i < sentences; i++) {
		struct lwm_rng r = lwm_rng_at(11, LWM_RNG_TEST, 1, (uint64_t)i);
		int64_t n = 2 + lwm_rng_below(&r, 10);
		lwm_str_printf(s, "Sentence %d", i);
		for (int64_t k = 0; k < n; k++)
			lwm_str_printf(s, " %s", word[lwm_rng_below(&r, 15)]);
		lwm_str_puts(s, i % 7 ? ". " : ".\n\n");
	}
}

static inline int fx_set_up(void **state)
{
	struct lwm_err e = { 0 };
	struct lwm_str s = { 0 };
	(void)state;
	lwm_log_init("test_eval", LWM_ERROR);
	snprintf(fx_root, sizeof fx_root, "/tmp/lwm-test-eval-%ld", (long)getpid());
	if (lwm_mkdirs(fx_root, &e) < 0)
		return 1;
	fx_prose(&s, FX_SENTENCES);
	fx_write("prose.txt", s.s);
	lwm_str_release(&s);
	return 0;
}

static inline int fx_tear_down(void **state)
{
	struct lwm_err e = { 0 };
	(void)state;
	return lwm_remove_tree(fx_root, &e);
}

static inline void fx_haystack(struct lwm_haystack *h, const char *path, struct lwm_tokenizer *t)
{
	struct lwm_paths p = { 0 };
	OK(lwm_paths_add(&p, path, err));
	OK(lwm_haystack_read(h, &p, t, err));
	lwm_paths_release(&p);
}

/* "bytes", or a SentencePiece model of 400 pieces made from the prose. */
static inline struct lwm_tokenizer *fx_tokenizer(bool pieces)
{
	struct lwm_tokenizer *t;
	const char *model = fx_path("pieces.model"), *input = fx_path("prose.txt");
	struct lwm_tokenizer_train_cfg how = { .inputs = &input, .ninputs = 1, .vocab = 400, .threads = 1 };
	if (pieces && !lwm_path_exists(model))
		OK(lwm_tokenizer_train(&how, model, true, err));
	OK(lwm_tokenizer_open(&t, pieces ? model : "bytes", err));
	return t;
}

#endif
