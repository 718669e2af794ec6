/* The kinds of elements that a field string may have, and how each becomes tokens. To add one: its function and its line in the
 * table at the end. */
#include "common/data/ingest/fields_int.h"

#include <inttypes.h>
#include <string.h>

#include "common/base/utf8.h"

static int vision_element(struct lwm_build *b, const struct lwm_element *el, bool first, struct lwm_err *e)
{
	struct lwm_field_value v = { 0 };
	(void)first;
	LWM_TRY(lwm_build_fault(b->d, "missing key", b->get(b->user, el->key[0], &v, e)));
	return lwm_build_clip(b, el->key[0], v.codes, v.ncodes, el->loss, e);
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
		LWM_TRY(lwm_build_spend(b, (int64_t)n, e));
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
	return lwm_build_text(b, s, n, el->loss, e);
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
	{ .name = "<|chat|>", .record = true, .build = lwm_chat_element },
	{ .name = "<|world|>", .record = true, .world = true, .build = lwm_world_element },
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
