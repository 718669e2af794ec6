/* Trains a SentencePiece model on text files: LLaMA's kind (BPE, byte fallback, identity normalisation), lines drawn evenly. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/outfile.h"
#include "common/base/str.h"
#include "common/base/utf8.h"
#include "common/text/lines.h"
#include "common/text/text_int.h"

enum { LONGEST = 1000000 }; /* bytes of a line: the library passes over longer ones */

/* Lines of several files, every `step`-th of them. */
struct feed {
	const struct lwm_tokenizer_train_cfg *how;
	int64_t file, line, in_file, step;
	struct lwm_lines *l;
	struct lwm_err e; /* the first failure ends the feed */
};

static int check_text(const struct feed *d, const char *s, size_t n, struct lwm_err *e)
{
	size_t odd = lwm_text_check(s, n);

	if (odd == n)
		return 0;
	return lwm_fail(e, LWM_EDATA, "%s: byte 0x%02x in line %" PRId64 ", byte %zu of it: this is no text", d->how->inputs[d->file],
			(unsigned)(unsigned char)s[odd], d->in_file, odd);
}

/* 1 the next line of all files, 0 the end. A line that is too long counts, and is empty. */
static int next_line(struct feed *d, const char **s, size_t *n, struct lwm_err *e)
{
	bool too_long;
	for (; d->file < d->how->ninputs; d->file++) {
		if (!d->l) {
			d->in_file = 0;
			LWM_TRY(lwm_lines_open(&d->l, d->how->inputs[d->file], LONGEST, e));
		}
		int rc = lwm_lines_next(d->l, s, n, &too_long, e);
		d->in_file++;
		if (rc > 0)
			rc = check_text(d, *s, *n, e) < 0 ? -LWM_EDATA : 1;
		if (rc)
			return rc;
		lwm_lines_close(d->l);
		d->l = NULL;
	}
	return 0;
}

static const char *feed_line(void *user, size_t *n)
{
	struct feed *d = user;
	const char *s;
	while (!d->e.code && next_line(d, &s, n, &d->e) > 0)
		if (d->line++ % d->step == 0)
			return s;
	return NULL;
}

static void feed_close(struct feed *d)
{
	lwm_lines_close(d->l);
	d->l = NULL;
}

static int feed_check(const struct feed *d, struct lwm_err *e)
{
	if (d->e.code && e)
		*e = d->e;
	return d->e.code;
}

/* How many lines there are decides which ones are taken: evenly spread, the same ones every time. */
static int count_lines(const struct lwm_tokenizer_train_cfg *how, int64_t *out, struct lwm_err *e)
{
	struct feed d = { .how = how, .step = 1 };
	size_t n;
	*out = 0;
	while (feed_line(&d, &n))
		++*out;
	feed_close(&d);
	return feed_check(&d, e);
}

/* One comma-separated list in which quotes may stand around an entry; spaces are U+2581 to the model. */
static int symbol_list(const struct lwm_tokenizer_train_cfg *how, struct lwm_str *out, struct lwm_err *e)
{
	for (int64_t i = 0; i < how->nsymbols; i++) {
		if (strpbrk(how->symbols[i], ",\"\n"))
			return lwm_fail(e, LWM_EUSAGE, "symbol %" PRId64 " ('%s') holds a comma, a quote or a newline",
					i + 1, how->symbols[i]);
		if (i)
			lwm_str_putc(out, ',');
		for (const char *s = how->symbols[i]; *s; s++)
			if (*s == ' ')
				lwm_str_puts(out, "\xe2\x96\x81");
			else
				lwm_str_putc(out, *s);
	}
	return lwm_str_ok(out, e);
}

int lwm_tokenizer_train(const struct lwm_tokenizer_train_cfg *how, const char *path, bool force, struct lwm_err *e)
{
	struct lwm_str symbols = { 0 };
	struct feed d = { .how = how, .step = 1 };
	char vocab[24], threads[24], msg[512] = "", *model = NULL;
	size_t n;
	int64_t lines;
	int rc;
	LWM_GO(symbol_list(how, &symbols, e));
	LWM_GO(count_lines(how, &lines, e));
	if (how->sample > 0 && lines > how->sample)
		d.step = (lines + how->sample - 1) / how->sample;
	snprintf(vocab, sizeof vocab, "%" PRId64, how->vocab);
	snprintf(threads, sizeof threads, "%" PRId64, (int64_t)(how->threads > 0 ? how->threads : 1));
	const char *const args[] = {
		"model_type", "bpe", "vocab_size", vocab, "byte_fallback", "true", "split_digits", "true",
		"normalization_rule_name", "identity", "remove_extra_whitespaces", "false", "add_dummy_prefix", "true",
		"allow_whitespace_only_pieces", "true", "character_coverage", "1.0", "max_sentence_length", "1000000",
		"hard_vocab_limit", "false", "num_threads", threads, "minloglevel", "2",
		how->nsymbols ? "user_defined_symbols" : NULL, lwm_str_get(&symbols), NULL
	};
	rc = lwm_sp_train(args, feed_line, &d, &model, &n, msg, sizeof msg);
	if (d.e.code)
		rc = feed_check(&d, e);
	else if (rc == LWM_SP_NO_MEMORY)
		rc = lwm_fail(e, LWM_EMEMORY, "out of memory for training %s pieces on %" PRId64 " lines", vocab,
			      (int64_t)(lines / d.step));
	else if (rc < 0)
		rc = lwm_fail(e, LWM_EDATA, "SentencePiece could not train %s pieces on %" PRId64 " lines: %s", vocab,
			      (int64_t)(lines / d.step), msg);
	else
		rc = lwm_write_file(path, model, n, force, e);
out:
	feed_close(&d);
	free(model);
	lwm_str_release(&symbols);
	return rc;
}
