/* The objective next-token: samples. Documents are begun and the model goes on, one token after the other, by the forward pass that
 * it is trained with: no caches, so that it works wherever training does, whatever the cut of the weights. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/infer/sample.h"
#include "common/train/next_token_int.h"

/* ---- what is begun ---- */

/* The first document of the row of which there is something to be given and something to follow. */
static int take_document(const struct lwm_batch *b, struct lwm_ids *doc, struct lwm_err *e)
{
	int64_t from = 0, n = 0;

	for (int64_t i = 0; i < b->seq && n < 2; i = from + n) {
		from = i;
		for (n = 0; from + n < b->seq && b->segments[from] >= 0 && b->segments[from + n] == b->segments[from]; n++)
			;
		if (n == 0)
			return 0; /* padding follows alone */
	}
	return n < 2 ? 0 : lwm_ids_add(doc, b->tokens + from, n, e);
}

/* What the stage names, or the byte tokenizer, which needs no file, where the rows are of that. */
static int open_speaker(struct lwm_nt *t, struct lwm_err *e)
{
	const char *named = t->base.stage->tokenizer;

	LWM_TRY(lwm_tokenizer_open(&t->speaker, named ? named : "bytes", e));
	if (named || !strcmp(lwm_tokenizer_hash(t->speaker)->hex, t->info.tokenizer.hex))
		return 0;
	lwm_tokenizer_free(t->speaker);
	t->speaker = NULL;
	return 0;
}

int lwm_nt_take_shown(struct lwm_nt *t, struct lwm_loader *rows, struct lwm_err *e)
{
	int64_t n = lwm_loader_micros(rows);

	t->shown = calloc((size_t)n + 1, sizeof *t->shown);
	if (!t->shown)
		return lwm_fail_memory(e, "samples");
	for (int64_t i = 0; i < n; i++) {
		struct lwm_batch *b;

		LWM_TRY(lwm_loader_get(rows, 0, i, &b, e));
		LWM_TRY(take_document(b, &t->shown[t->nshown], e));
		t->nshown += t->shown[t->nshown].n > 0;
	}
	return open_speaker(t, e);
}

void lwm_nt_release_shown(struct lwm_nt *t)
{
	for (int64_t i = 0; t->shown && i < t->nshown; i++)
		lwm_ids_release(&t->shown[i]);
	free(t->shown);
	lwm_tokenizer_free(t->speaker);
}

/* ---- going on ---- */

/* A text that is written: what is given of document `of`, and then what the model adds. */
struct text {
	int64_t of, given;
	int32_t *ids;     /* room for as many as are given and added */
};
/* Those that go through the model together. */
struct writing {
	struct lwm_nt *t;
	struct text *text;
	int64_t n, len;          /* texts; tokens of each that are there beside those given */
	int32_t *tok, *seg, *pos; /* of a pass */
	int32_t *last, *drawn;   /* [n] where each text ends in it; what follows there */
	float *logits;           /* (n, the larger vocabulary) */
};

static int64_t smaller_of(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* Tokens that are given of the longest document, and that are added to each: together no more than a row has. */
static int64_t most_given(const struct lwm_nt *t)
{
	return smaller_of(t->set->sample_given, t->set->seq_length / 2);
}

static int64_t most_added(const struct lwm_nt *t)
{
	return smaller_of(t->set->sample_tokens, t->set->seq_length - most_given(t));
}

/* Codes follow codes until "end of vision" does; what comes first is what came in the document. */
static enum lwm_modality next_modality(const struct writing *x, const struct text *p)
{
	const struct lwm_llama_cfg *c = &x->t->cfg;
	int64_t last = p->ids[p->given + x->len - 1];

	if (x->len == 0)
		return lwm_llama_is_vision(c, x->t->shown[p->of].v[p->given]) ? LWM_VISION : LWM_TEXT;
	return lwm_llama_is_vision(c, last) && last != lwm_llama_eov(c) ? LWM_VISION : LWM_TEXT;
}

/* All texts end to end; of ranks that share the model each has the same number of tokens. */
static int64_t lay_out(struct writing *x)
{
	int64_t at = 0, tp = x->t->base.mesh->dim[LWM_TP];

	for (int64_t i = 0; i < x->n; i++) {
		const struct text *p = &x->text[i];

		for (int64_t k = 0; k < p->given + x->len; k++, at++) {
			x->tok[at] = p->ids[k];
			x->seg[at] = (int32_t)i;
			x->pos[at] = (int32_t)k;
		}
		x->last[i] = (int32_t)(at - 1);
	}
	for (; at % tp; at++) {
		x->tok[at] = 0;
		x->seg[at] = -1;
		x->pos[at] = 0;
	}
	return at;
}

/* One token for each text whose next one is of the modality. */
static int draw_some(struct writing *x, enum lwm_modality head, int64_t n, int64_t step, struct lwm_supply *w, struct lwm_err *e)
{
	const struct lwm_llama_cfg *c = &x->t->cfg;
	struct lwm_sampler how = { .temperature = x->t->set->sample_temperature, .top_p = 1,
				   .seed = (uint64_t)x->t->base.stage->seed };
	struct lwm_llama_batch b = { .n = n, .tokens = x->tok, .seg = x->seg, .pos = x->pos };
	int64_t rows = head == LWM_VISION ? c->vision_rows : c->vocab_text, some = 0, id;
	int64_t known = head == LWM_VISION ? c->vision_codes + 2 : rows;

	for (int64_t i = 0; i < x->n; i++)
		some += next_modality(x, &x->text[i]) == head;
	if (!some)
		return 0;
	LWM_TRY(lwm_llama_logits(x->t->net, &b, w, head, x->last, x->n, x->logits, e));
	for (int64_t i = 0; i < x->n; i++) {
		if (next_modality(x, &x->text[i]) != head)
			continue;
		LWM_TRY(lwm_sampler_draw(&how, x->logits + i * rows, 0, known, (uint64_t)(x->text[i].given + x->len),
					 (uint64_t)(step * x->t->nshown + x->text[i].of), &id, NULL, e));
		x->drawn[i] = (int32_t)(id + (head == LWM_VISION ? c->vocab_text : 0));
	}
	return 0;
}

/* One token more for each text. The first rank's are those of all: another processor may round otherwise, and from then on it would
 * go other ways through weights that are shared. */
static int add_tokens(struct writing *x, int64_t step, struct lwm_supply *w, struct lwm_err *e)
{
	struct lwm_comm *world = x->t->base.mesh->world;
	int64_t n = lay_out(x);
	int rc = draw_some(x, LWM_TEXT, n, step, w, e);

	if (rc == 0)
		rc = draw_some(x, LWM_VISION, n, step, w, e);
	LWM_TRY(lwm_agree(world, rc, e));
	LWM_TRY(lwm_comm_bcast(world, x->drawn, (size_t)x->n * sizeof *x->drawn, 0, e));
	for (int64_t i = 0; i < x->n; i++)
		x->text[i].ids[x->text[i].given + x->len] = x->drawn[i];
	x->len++;
	return 0;
}

/* ---- how it is written down ---- */

/* Tokens of text as text, codes as numbers; without a tokenizer all as numbers. first: nothing stands before them. */
static void put_ids(const struct lwm_nt *t, const int32_t *ids, int64_t n, bool first, struct lwm_str *out)
{
	const struct lwm_llama_cfg *c = &t->cfg;

	for (int64_t i = 0; i < n; i++) {
		size_t bytes;

		if (ids[i] == lwm_llama_eof(c))
			lwm_str_puts(out, "<end of frame>");
		else if (ids[i] == lwm_llama_eov(c))
			lwm_str_puts(out, "<end of vision>");
		else if (lwm_llama_is_vision(c, ids[i]))
			lwm_str_printf(out, "<%d>", (int)(ids[i] - c->vocab_text));
		else if (!t->speaker)
			lwm_str_printf(out, "%s%d", i ? " " : "", (int)ids[i]);
		else if (i == 0 && first)
			lwm_tokenizer_decode(t->speaker, ids, 1, out);
		else {
			const char *p = lwm_tokenizer_bytes(t->speaker, ids[i], &bytes);

			lwm_str_add(out, p, bytes);
		}
	}
	lwm_str_putc(out, '\n');
}

/* Up to the first "end of text", which is said. */
static void put_added(const struct lwm_nt *t, const int32_t *ids, int64_t n, struct lwm_str *out)
{
	int64_t k = 0;

	while (k < n && (!t->speaker || ids[k] != lwm_tokenizer_eos(t->speaker)))
		k++;
	put_ids(t, ids, k, false, out);
	if (k < n)
		lwm_str_puts(out, "(end)\n");
}

static void put_texts(const struct writing *x, struct lwm_str *out)
{
	for (int64_t i = 0; i < x->n; i++) {
		const struct text *p = &x->text[i];
		const struct lwm_ids *doc = &x->t->shown[p->of];
		int64_t left = doc->n - p->given;

		lwm_str_printf(out, "\n==== %" PRId64 ": %" PRId64 " tokens are given\n", p->of + 1, p->given);
		put_ids(x->t, p->ids, p->given, true, out);
		lwm_str_puts(out, "---- the model goes on\n");
		put_added(x->t, p->ids + p->given, x->len, out);
		lwm_str_puts(out, "---- the document goes on\n");
		put_added(x->t, doc->v + p->given, left < x->len ? left : x->len, out);
	}
}

/* ---- all of them ---- */

static int allocate(struct writing *x, int64_t most, int64_t added, struct lwm_err *e)
{
	const struct lwm_llama_cfg *c = &x->t->cfg;
	int64_t v = c->vocab_text > c->vision_rows ? c->vocab_text : c->vision_rows, room = x->t->cut.local;

	x->text = calloc((size_t)most, sizeof *x->text);
	x->tok = malloc((size_t)room * sizeof *x->tok);
	x->seg = malloc((size_t)room * sizeof *x->seg);
	x->pos = malloc((size_t)room * sizeof *x->pos);
	x->last = malloc((size_t)most * sizeof *x->last);
	x->drawn = malloc((size_t)most * sizeof *x->drawn);
	x->logits = malloc((size_t)(most * v) * sizeof *x->logits);
	if (!x->text || !x->tok || !x->seg || !x->pos || !x->last || !x->drawn || !x->logits)
		return lwm_fail_memory(e, "samples");
	for (int64_t i = 0; i < most; i++)
		if (!(x->text[i].ids = malloc((size_t)(most_given(x->t) + added) * sizeof *x->text[i].ids)))
			return lwm_fail_memory(e, "samples");
	return 0;
}

static void release(struct writing *x, int64_t most)
{
	for (int64_t i = 0; x->text && i < most; i++)
		free(x->text[i].ids);
	free(x->text);
	free(x->tok);
	free(x->seg);
	free(x->pos);
	free(x->last);
	free(x->drawn);
	free(x->logits);
}

/* The texts of documents first, first + 1, ... */
static int write_texts(struct writing *x, int64_t first, int64_t n, int64_t added, int64_t step, struct lwm_supply *w,
		       struct lwm_err *e)
{
	x->n = n;
	x->len = 0;
	for (int64_t i = 0; i < n; i++) {
		struct text *p = &x->text[i];

		p->of = first + i;
		p->given = smaller_of(x->t->set->sample_given, x->t->shown[p->of].n / 2);
		memcpy(p->ids, x->t->shown[p->of].v, (size_t)p->given * sizeof *p->ids);
	}
	while (x->len < added)
		LWM_TRY(add_tokens(x, step, w, e));
	return 0;
}

int lwm_nt_sample(struct lwm_objective *o, int64_t step, struct lwm_supply *w, struct lwm_samples *made, struct lwm_err *e)
{
	struct lwm_nt *t = (struct lwm_nt *)o;
	struct writing x = { .t = t };
	int64_t added = most_added(t), most = smaller_of(t->cut.local / (most_given(t) + added), t->nshown); /* at a time */
	int rc = lwm_agree(o->mesh->world, allocate(&x, most, added, e), e);
	made->suffix = "txt";
	lwm_str_printf(&made->bytes, "step %" PRId64 ", %s documents, %s\n", step, t->eval ? "held-out" : "training",
		       t->set->sample_temperature > 0 ? "tokens drawn" : "the likeliest token each time");
	for (int64_t at = 0; rc == 0 && at < t->nshown; at += most) {
		rc = write_texts(&x, at, t->nshown - at < most ? t->nshown - at : most, added, step, w, e);
		if (rc == 0)
			put_texts(&x, &made->bytes);
	}
	lwm_str_printf(&made->what, "%s documents: what is given of them, what the model adds, how they really go on",
		       t->eval ? "held-out" : "training");
	release(&x, most);
	return rc;
}
