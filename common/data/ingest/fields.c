#include "common/data/ingest/fields.h"

#include <stdlib.h>
#include <string.h>

#include "common/data/ingest/fields_int.h"

enum { DOCUMENT_MOST = 256 << 20 };
enum { LAYOUT_MOST = 64 << 10 }; /* the string may come with each record */

static int no_memory(struct lwm_err *e)
{
	return lwm_fail(e, LWM_EMEMORY, "out of memory for field strings");
}

/* A copy without the spaces around it. */
static char *trimmed(struct lwm_arena **mem, const char *s, size_t n)
{
	while (n && (*s == ' ' || *s == '\t'))
		s++, n--;
	while (n && (s[n - 1] == ' ' || s[n - 1] == '\t'))
		n--;
	return lwm_arena_printf(mem, "%.*s", (int)n, s);
}

static int64_t count(const char *s, char c)
{
	int64_t n = 0;
	for (; *s; s++)
		n += *s == c;
	return n;
}

static int parse_keys(struct lwm_element *el, const char *body, const char *text, struct lwm_arena **mem,
		      struct lwm_err *e)
{
	int64_t n = count(body, '+') + 1;
	el->key = lwm_arena_alloc(mem, (size_t)n * sizeof *el->key);
	if (!el->key)
		return no_memory(e);
	for (const char *s = body; el->nkeys < n; el->nkeys++) {
		size_t len = strcspn(s, "+");
		char *key = trimmed(mem, s, len);
		if (!key)
			return no_memory(e);
		if (!*key)
			return lwm_fail(e, LWM_ECONFIG, "fields '%s': an empty name", text);
		if (n > 1 && (strstr(key, "vision") || !strncmp(key, "<|", 2)))
			return lwm_fail(e, LWM_ECONFIG, "fields '%s': '%s' cannot be joined by +", text, key);
		el->key[el->nkeys] = key;
		s += len + 1;
	}
	return 0;
}

static int parse_element(struct lwm_element *el, const char *s, size_t n, const char *text, struct lwm_arena **mem,
			 struct lwm_err *e)
{
	char *body = trimmed(mem, s, n);
	if (!body)
		return no_memory(e);
	size_t len = strlen(body);
	el->loss = body[0] != '[';
	if (!el->loss && body[len - 1] == ']') {
		body[len - 1] = 0;
		body++;
	}
	if (strpbrk(body, "[]"))
		return lwm_fail(e, LWM_ECONFIG, "fields '%s': brackets go around one element, between commas", text);
	LWM_TRY(parse_keys(el, body, text, mem, e));
	if (!strcmp(el->key[0], "<|bos|>"))
		el->kind = LWM_ELEMENT_BOS;
	else if (!strcmp(el->key[0], "<|eos|>"))
		el->kind = LWM_ELEMENT_EOS;
	else if (strstr(el->key[0], "vision"))
		el->kind = LWM_ELEMENT_VISION;
	return 0;
}

int lwm_layout_parse(struct lwm_layout *l, const char *text, struct lwm_arena **mem, struct lwm_err *e)
{
	if (strlen(text) > LAYOUT_MOST)
		return lwm_fail(e, LWM_ECONFIG, "fields '%.40s...' are longer than %d bytes", text, LAYOUT_MOST);
	int64_t n = count(text, ',') + 1;
	l->n = 0;
	l->v = lwm_arena_alloc(mem, (size_t)n * sizeof *l->v);
	if (!l->v)
		return no_memory(e);
	for (const char *s = text; l->n < n; l->n++) {
		size_t len = strcspn(s, ",");
		LWM_TRY(parse_element(&l->v[l->n], s, len, text, mem, e));
		s += len + 1;
	}
	return 0;
}

static int copy_string(struct lwm_arena **mem, const char **s, struct lwm_err *e)
{
	if (*s && !(*s = lwm_arena_strdup(mem, *s)))
		return no_memory(e);
	return 0;
}

static int check_cfg(struct lwm_fields_cfg *c, struct lwm_err *e)
{
	if (!c->frame_codes)
		c->frame_codes = 256;
	if (!c->vision_codes)
		c->vision_codes = LWM_VISION_CODES;
	if (!c->separator)
		c->separator = " ";
	if (c->max_bytes < DOCUMENT_MOST)
		c->max_bytes = DOCUMENT_MOST;
	if (c->frame_codes < 1 || c->max_frames < 0 || c->vision_codes < 1 || c->vision_codes > 1 << 24)
		return lwm_fail(e, LWM_ECONFIG, "codes per frame and codebook must be positive, the frame limit not "
				"negative");
	if (!c->from_example && c->nfields < 1)
		return lwm_fail(e, LWM_ECONFIG, "no field string: give fields, or the key that holds them");
	if (!c->from_example && c->index >= c->nfields)
		return lwm_fail(e, LWM_ECONFIG, "field alternative %lld asked for, but there are %lld",
				(long long)c->index, (long long)c->nfields);
	return 0;
}

int lwm_fields_open(struct lwm_fields **out, const struct lwm_fields_cfg *cfg, struct lwm_tokenizer *t,
		    struct lwm_err *e)
{
	struct lwm_fields *f = calloc(1, sizeof *f);
	int rc;
	*out = NULL;
	if (!f)
		return no_memory(e);
	f->t = t;
	f->cfg = *cfg;
	LWM_GO(check_cfg(&f->cfg, e));
	LWM_GO(copy_string(&f->mem, &f->cfg.from_example, e));
	LWM_GO(copy_string(&f->mem, &f->cfg.separator, e));
	LWM_GO(copy_string(&f->mem, &f->cfg.prepend, e));
	f->layout = lwm_arena_alloc(&f->mem, (size_t)(cfg->nfields + 1) * sizeof *f->layout);
	if (!f->layout) {
		rc = no_memory(e);
		goto out;
	}
	for (int64_t i = 0; i < cfg->nfields; i++)
		LWM_GO(lwm_layout_parse(&f->layout[i], cfg->fields[i], &f->mem, e));
	f->cfg.fields = NULL; /* the caller's */
	*out = f;
out:
	if (rc < 0)
		lwm_fields_free(f);
	return rc;
}

bool lwm_fields_has_vision(const struct lwm_fields *f)
{
	for (int64_t i = 0; i < f->cfg.nfields && !f->cfg.from_example; i++)
		for (int64_t k = 0; k < f->layout[i].n; k++)
			if (f->layout[i].v[k].kind == LWM_ELEMENT_VISION)
				return true;
	return f->cfg.from_example != NULL;
}

void lwm_fields_free(struct lwm_fields *f)
{
	if (!f)
		return;
	lwm_arena_free(&f->mem);
	free(f);
}
