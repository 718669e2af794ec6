/* A record becomes a document: which field string is its own, where the values of its keys come from (JSON, plain text, a
 * callback), and the marks at both ends. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/rng.h"
#include "common/data/ingest/fields_int.h"

static int add_elements(struct lwm_build *b, const struct lwm_layout *l, struct lwm_err *e)
{
	const struct lwm_fields_cfg *c = &b->f->cfg;
	int32_t bos = lwm_tokenizer_bos(b->f->t), eos = lwm_tokenizer_eos(b->f->t);
	if (!c->no_bos)
		LWM_TRY(lwm_build_mark(b->d, bos, false, e));
	for (int64_t i = 0; i < l->n; i++)
		LWM_TRY(l->v[i].kind->build(b, &l->v[i], i == 0, e));
	if (!c->no_eos)
		LWM_TRY(lwm_build_mark(b->d, eos, true, e));
	return 0;
}

static int64_t choose(const struct lwm_fields_cfg *c, int64_t n, int64_t number)
{
	if (c->index >= 0)
		return c->index;
	struct lwm_rng r = lwm_rng_at(c->seed, LWM_RNG_FIELDS, 0, (uint64_t)number);
	return n > 1 ? lwm_rng_below(&r, n) : 0;
}

static int build_document(struct lwm_build *b, const struct lwm_layout *l, struct lwm_err *e)
{
	int rc = add_elements(b, l, e);
	if (rc == 0)
		b->d->fault = NULL;
	lwm_str_release(&b->joined);
	return rc;
}

int lwm_fields_build_from(const struct lwm_fields *f, lwm_field_get *get, void *user, int64_t number,
			  struct lwm_docbuf *d, struct lwm_err *e)
{
	struct lwm_build b = { .f = f, .get = get, .user = user, .d = d, .number = number };
	lwm_docbuf_reset(d);
	if (f->cfg.from_example) {
		struct lwm_field_value v = { 0 };
		struct lwm_layout l = { 0 };
		struct lwm_arena *mem = NULL;
		LWM_TRY(lwm_build_fault(d, "missing key", get(user, f->cfg.from_example, &v, e)));
		if (!v.text)
			return lwm_build_fault(d, "wrong type",
				     lwm_fail(e, LWM_EDATA, "field '%s' is not text", f->cfg.from_example));
		int rc = lwm_layout_parse(&l, v.text, &mem, e);
		if (rc == -LWM_ECONFIG) { /* here the string is data */
			rc = lwm_build_fault(d, "bad fields", -LWM_EDATA);
			if (e)
				e->code = rc;
		} else if (rc == 0) {
			rc = build_document(&b, &l, e);
		}
		lwm_arena_free(&mem);
		return rc;
	}
	return build_document(&b, &f->layout[choose(&f->cfg, f->cfg.nfields, number)], e);
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
	if (lwm_element_kind_of(key)->record) {
		out->record = r->o;
		return 0;
	}
	if (!v)
		return lwm_fail(e, LWM_EDATA, "no field '%s'", key);
	bool layout = r->f->cfg.from_example && !strcmp(key, r->f->cfg.from_example);
	if (layout && json_is_array(v) && json_array_size(v) > 0) {
		int64_t i = choose(&r->f->cfg, (int64_t)json_array_size(v), r->number);
		v = json_array_get(v, (size_t)i);
		if (!v)
			return lwm_fail(e, LWM_EDATA, "field '%s' has no alternative %" PRId64, key, i);
	}
	if (json_is_string(v)) {
		out->text = json_string_value(v);
		out->n = json_string_length(v);
	} else if (json_is_array(v) && lwm_element_kind_of(key)->codes) {
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
		return lwm_build_fault(d, "not an object", lwm_fail(e, LWM_EDATA, "the record is not a JSON object"));
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
