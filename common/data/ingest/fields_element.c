/* The kinds of elements that a field string may have, and how each becomes tokens. To add one: its function and its line in the
 * table at the end. */
#include "common/data/ingest/fields_int.h"

#include <inttypes.h>
#include <string.h>

#include "common/base/utf8.h"

/* A key may stand in the fields many times, and the fields may come with the record: a small record is a large document. */
static int spend(struct lwm_build *b, int64_t n, struct lwm_err *e)
{
	if (n > b->f->cfg.max_bytes - b->bytes) {
		b->d->fault = "bad fields";
		return lwm_fail(e, LWM_EDATA, "its fields make a document of more than %" PRId64 " bytes and codes",
				b->f->cfg.max_bytes);
	}
	b->bytes += n;
	return 0;
}

int64_t lwm_frame_pick(int64_t n, int64_t max, int64_t i)
{
	return max <= 0 || n <= max ? i : max == 1 ? 0 : i * (n - 1) / (max - 1);
}

int lwm_build_mark(struct lwm_docbuf *d, int32_t id, bool loss, struct lwm_err *e)
{
	LWM_TRY(lwm_ids_add(&d->ids, &id, 1, e));
	return lwm_docbuf_mark(d, d->ids.n - 1, loss, e);
}

static int add_text(struct lwm_tokenizer *t, struct lwm_docbuf *d, const char *s, size_t n, bool loss,
		    struct lwm_err *e)
{
	int64_t first = d->ids.n;
	LWM_TRY(lwm_tokenizer_encode(t, s, n, &d->ids, e));
	return lwm_docbuf_mark(d, first, loss, e);
}

/* All frames, or max of them evenly spread. */
static int add_frames(const struct lwm_fields *f, const int32_t *codes, int64_t frames, bool loss,
		      struct lwm_docbuf *d, struct lwm_err *e)
{
	int32_t base = lwm_tokenizer_vocab(f->t), eof = base + (int32_t)f->cfg.vision_codes;
	int64_t max = f->cfg.max_frames, per = f->cfg.frame_codes;
	int64_t n = max > 0 && frames > max ? max : frames, first;
	LWM_TRY(add_text(f->t, d, "<vision>", 8, loss, e));
	first = d->ids.n;
	LWM_TRY(lwm_ids_reserve(&d->ids, n * (per + 1), e));
	int32_t *o = d->ids.v + first;
	for (int64_t i = 0; i < n; i++) {
		const int32_t *c = codes + lwm_frame_pick(frames, max, i) * per;
		for (int64_t k = 0; k < per; k++) {
			if (c[k] < 0 || c[k] >= f->cfg.vision_codes)
				return lwm_fail(e, LWM_EDATA, "vision code %d of frame %" PRId64 " is not in 0..%" PRId64, c[k],
						i, f->cfg.vision_codes - 1);
			*o++ = base + c[k];
		}
		*o++ = i == n - 1 ? eof + 1 : eof;
	}
	d->ids.n += n * (per + 1);
	d->frames += n;
	LWM_TRY(lwm_docbuf_mark(d, first, loss, e));
	return add_text(f->t, d, "</vision>", 9, loss, e);
}

static int vision_element(struct lwm_build *b, const struct lwm_element *el, bool first, struct lwm_err *e)
{
	struct lwm_field_value v = { 0 };
	int64_t per = b->f->cfg.frame_codes;
	(void)first;
	LWM_TRY(lwm_build_fault(b->d, "missing key", b->get(b->user, el->key[0], &v, e)));
	if (!v.codes || v.ncodes < per || v.ncodes % per)
		return lwm_build_fault(b->d, "bad codes",
			     lwm_fail(e, LWM_EDATA, "field '%s' is no list of codes in whole frames of %" PRId64,
				      el->key[0], per));
	LWM_TRY(spend(b, v.ncodes, e));
	return lwm_build_fault(b->d, "bad codes", add_frames(b->f, v.codes, v.ncodes / per, el->loss, b->d, e));
}

static int text_element(struct lwm_build *b, const struct lwm_element *el, bool first, struct lwm_err *e)
{
	const struct lwm_fields_cfg *c = &b->f->cfg;
	struct lwm_field_value v = { 0 };
	const char *s = NULL;
	size_t n = 0;
	lwm_str_reset(&b->joined);
	if (first && c->prepend)
		lwm_str_puts(&b->joined, c->prepend);
	for (int64_t i = 0; i < el->nkeys; i++) {
		LWM_TRY(lwm_build_fault(b->d, "missing key", b->get(b->user, el->key[i], &v, e)));
		if (!v.text)
			return lwm_build_fault(b->d, "wrong type", lwm_fail(e, LWM_EDATA, "field '%s' is not text", el->key[i]));
		s = v.text;
		n = v.n;
		LWM_TRY(spend(b, (int64_t)n, e));
		if (i)
			lwm_str_puts(&b->joined, c->separator);
		if (el->nkeys > 1 || b->joined.len)
			lwm_str_add(&b->joined, v.text, v.n);
	}
	if (b->joined.len) { /* a lone field is encoded where it lies */
		LWM_TRY(lwm_str_ok(&b->joined, e));
		s = b->joined.s;
		n = b->joined.len;
	}
	size_t bad = c->replace_bad_utf8 || lwm_tokenizer_is_bytes(b->f->t) ? n : lwm_utf8_check(s, n);
	if (bad < n)
		return lwm_build_fault(b->d, "bad utf-8",
			     lwm_fail(e, LWM_EDATA, "field '%s': malformed UTF-8 at byte %zu", el->key[0], bad));
	return lwm_build_fault(b->d, "not encodable", add_text(b->f->t, b->d, s, n, el->loss, e));
}

static int bos_element(struct lwm_build *b, const struct lwm_element *el, bool first, struct lwm_err *e)
{
	(void)first;
	return lwm_build_mark(b->d, lwm_tokenizer_bos(b->f->t), el->loss, e);
}

static int eos_element(struct lwm_build *b, const struct lwm_element *el, bool first, struct lwm_err *e)
{
	(void)first;
	return lwm_build_mark(b->d, lwm_tokenizer_eos(b->f->t), el->loss, e);
}

/* What a name is, is said by the first line that fits it. The last one fits every name. */
static const struct lwm_element_kind kinds[] = {
	{ .name = "<|bos|>", .build = bos_element },
	{ .name = "<|eos|>", .build = eos_element },
	{ .part = "vision", .codes = true, .build = vision_element },
	{ .build = text_element, .joins = true },
};

const struct lwm_element_kind *lwm_element_kind_of(const char *key)
{
	const struct lwm_element_kind *k = kinds;
	while ((k->name && strcmp(key, k->name)) || (k->part && !strstr(key, k->part)))
		k++;
	return k;
}
