#include <stdlib.h>
#include <string.h>

#include "common/base/rng.h"
#include "common/base/utf8.h"
#include "common/data/ingest/fields_int.h"

struct build {
	const struct lwm_fields *f;
	lwm_field_get *get;
	void *user;
	struct lwm_docbuf *d;
	struct lwm_str joined; /* text of the element at hand */
	int64_t bytes;         /* of text and codes so far */
};

/* A key may stand in the fields many times, and the fields may come with the record: a small record is a large document. */
static int spend(struct build *b, int64_t n, struct lwm_err *e)
{
	if (n > b->f->cfg.max_bytes - b->bytes) {
		b->d->fault = "bad fields";
		return lwm_fail(e, LWM_EDATA, "its fields make a document of more than %lld bytes and codes",
				(long long)b->f->cfg.max_bytes);
	}
	b->bytes += n;
	return 0;
}

static int fault(struct lwm_docbuf *d, const char *what, int rc)
{
	if (rc < 0)
		d->fault = what;
	return rc;
}

int64_t lwm_frame_pick(int64_t n, int64_t max, int64_t i)
{
	return max <= 0 || n <= max ? i : max == 1 ? 0 : i * (n - 1) / (max - 1);
}

static int add_one(struct lwm_docbuf *d, int32_t id, bool loss, struct lwm_err *e)
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
				return lwm_fail(e, LWM_EDATA, "vision code %d of frame %lld is not in 0..%lld", c[k],
						(long long)i, (long long)f->cfg.vision_codes - 1);
			*o++ = base + c[k];
		}
		*o++ = i == n - 1 ? eof + 1 : eof;
	}
	d->ids.n += n * (per + 1);
	d->frames += n;
	LWM_TRY(lwm_docbuf_mark(d, first, loss, e));
	return add_text(f->t, d, "</vision>", 9, loss, e);
}

static int vision_element(struct build *b, const struct lwm_element *el, struct lwm_err *e)
{
	struct lwm_field_value v = { 0 };
	int64_t per = b->f->cfg.frame_codes;
	LWM_TRY(fault(b->d, "missing key", b->get(b->user, el->key[0], &v, e)));
	if (!v.codes || v.ncodes < per || v.ncodes % per)
		return fault(b->d, "bad codes",
			     lwm_fail(e, LWM_EDATA, "field '%s' is no list of codes in whole frames of %lld",
				      el->key[0], (long long)per));
	LWM_TRY(spend(b, v.ncodes, e));
	return fault(b->d, "bad codes", add_frames(b->f, v.codes, v.ncodes / per, el->loss, b->d, e));
}

static int text_element(struct build *b, const struct lwm_element *el, bool first, struct lwm_err *e)
{
	const struct lwm_fields_cfg *c = &b->f->cfg;
	struct lwm_field_value v = { 0 };
	const char *s = NULL;
	size_t n = 0;
	lwm_str_reset(&b->joined);
	if (first && c->prepend)
		lwm_str_puts(&b->joined, c->prepend);
	for (int64_t i = 0; i < el->nkeys; i++) {
		LWM_TRY(fault(b->d, "missing key", b->get(b->user, el->key[i], &v, e)));
		if (!v.text)
			return fault(b->d, "wrong type", lwm_fail(e, LWM_EDATA, "field '%s' is not text", el->key[i]));
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
		return fault(b->d, "bad utf-8",
			     lwm_fail(e, LWM_EDATA, "field '%s': malformed UTF-8 at byte %zu", el->key[0], bad));
	return fault(b->d, "not encodable", add_text(b->f->t, b->d, s, n, el->loss, e));
}

static int build(struct build *b, const struct lwm_layout *l, struct lwm_err *e)
{
	const struct lwm_fields_cfg *c = &b->f->cfg;
	int32_t bos = lwm_tokenizer_bos(b->f->t), eos = lwm_tokenizer_eos(b->f->t);
	if (!c->no_bos)
		LWM_TRY(add_one(b->d, bos, false, e));
	for (int64_t i = 0; i < l->n; i++)
		switch (l->v[i].kind) {
		case LWM_ELEMENT_BOS:
			LWM_TRY(add_one(b->d, bos, l->v[i].loss, e));
			break;
		case LWM_ELEMENT_EOS:
			LWM_TRY(add_one(b->d, eos, l->v[i].loss, e));
			break;
		case LWM_ELEMENT_VISION:
			LWM_TRY(vision_element(b, &l->v[i], e));
			break;
		case LWM_ELEMENT_TEXT:
			LWM_TRY(text_element(b, &l->v[i], i == 0, e));
			break;
		}
	if (!c->no_eos)
		LWM_TRY(add_one(b->d, eos, true, e));
	return 0;
}

static int64_t choose(const struct lwm_fields_cfg *c, int64_t n, int64_t number)
{
	if (c->index >= 0)
		return c->index;
	struct lwm_rng r = lwm_rng_at(c->seed, LWM_RNG_FIELDS, 0, (uint64_t)number);
	return n > 1 ? lwm_rng_below(&r, n) : 0;
}

static int run(struct build *b, const struct lwm_layout *l, struct lwm_err *e)
{
	int rc = build(b, l, e);
	if (rc == 0)
		b->d->fault = NULL;
	lwm_str_release(&b->joined);
	return rc;
}

int lwm_fields_build_from(const struct lwm_fields *f, lwm_field_get *get, void *user, int64_t number,
			  struct lwm_docbuf *d, struct lwm_err *e)
{
	struct build b = { .f = f, .get = get, .user = user, .d = d };
	lwm_docbuf_reset(d);
	if (f->cfg.from_example) {
		struct lwm_field_value v = { 0 };
		struct lwm_layout l = { 0 };
		struct lwm_arena *mem = NULL;
		LWM_TRY(fault(d, "missing key", get(user, f->cfg.from_example, &v, e)));
		if (!v.text)
			return fault(d, "wrong type",
				     lwm_fail(e, LWM_EDATA, "field '%s' is not text", f->cfg.from_example));
		int rc = lwm_layout_parse(&l, v.text, &mem, e);
		if (rc == -LWM_ECONFIG) { /* here the string is data */
			rc = fault(d, "bad fields", -LWM_EDATA);
			if (e)
				e->code = rc;
		} else if (rc == 0) {
			rc = run(&b, &l, e);
		}
		lwm_arena_free(&mem);
		return rc;
	}
	return run(&b, &f->layout[choose(&f->cfg, f->cfg.nfields, number)], e);
}

/* ---- JSON ---- */
struct record {
	const struct lwm_fields *f;
	const json_t *o;
	int64_t number;
	int32_t *codes; /* of the last vision field */
};

static int json_codes(struct record *r, const json_t *a, struct lwm_field_value *out, struct lwm_err *e)
{
	size_t n = json_array_size(a);
	int32_t *v = realloc(r->codes, (n + 1) * sizeof *v);
	if (!v)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for %zu vision codes", n);
	r->codes = v;
	for (size_t i = 0; i < n; i++) {
		const json_t *x = json_array_get(a, i);
		json_int_t c = json_is_integer(x) ? json_integer_value(x) : -1;
		/* a bad one is refused where the frames are laid out */
		v[i] = c >= 0 && c < r->f->cfg.vision_codes ? (int32_t)c : -1;
	}
	out->codes = v;
	out->ncodes = (int64_t)n;
	return 0;
}

static int json_value(void *user, const char *key, struct lwm_field_value *out, struct lwm_err *e)
{
	struct record *r = user;
	const json_t *v = json_object_get(r->o, key);
	*out = (struct lwm_field_value){ 0 };
	if (!v)
		return lwm_fail(e, LWM_EDATA, "no field '%s'", key);
	bool layout = r->f->cfg.from_example && !strcmp(key, r->f->cfg.from_example);
	if (layout && json_is_array(v) && json_array_size(v) > 0) {
		int64_t i = choose(&r->f->cfg, (int64_t)json_array_size(v), r->number);
		v = json_array_get(v, (size_t)i);
		if (!v)
			return lwm_fail(e, LWM_EDATA, "field '%s' has no alternative %lld", key, (long long)i);
	}
	if (json_is_string(v)) {
		out->text = json_string_value(v);
		out->n = json_string_length(v);
	} else if (json_is_array(v) && strstr(key, "vision")) {
		return json_codes(r, v, out, e);
	}
	return 0;
}

int lwm_fields_build(const struct lwm_fields *f, const json_t *record, int64_t number, struct lwm_docbuf *d,
		     struct lwm_err *e)
{
	struct record r = { f, record, number, NULL };
	int rc;
	if (!json_is_object(record)) {
		lwm_docbuf_reset(d);
		return fault(d, "not an object", lwm_fail(e, LWM_EDATA, "the record is not a JSON object"));
	}
	rc = lwm_fields_build_from(f, json_value, &r, number, d, e);
	free(r.codes);
	return rc;
}

struct plain {
	const char *text;
	size_t n;
};

static int plain_value(void *user, const char *key, struct lwm_field_value *out, struct lwm_err *e)
{
	const struct plain *p = user;
	*out = (struct lwm_field_value){ .text = p->text, .n = p->n };
	if (strcmp(key, "text"))
		return lwm_fail(e, LWM_EDATA, "plain text has no field '%s', only 'text'", key);
	return 0;
}

int lwm_fields_text(const struct lwm_fields *f, const char *text, size_t n, int64_t number, struct lwm_docbuf *d,
		    struct lwm_err *e)
{
	struct plain p = { text, n };
	return lwm_fields_build_from(f, plain_value, &p, number, d, e);
}
