/* The settings of a run's documents: field strings parsed once, limits and defaults. */
#include "common/data/ingest/fields.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/data/ingest/fields_int.h"

enum { DOCUMENT_MOST = 256 << 20 };

static int copy_string(struct lwm_arena **mem, const char **s, struct lwm_err *e)
{
	if (*s && !(*s = lwm_arena_strdup(mem, *s)))
		return lwm_fields_no_memory(e);
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
	if (!(c->world.drop >= 0 && c->world.drop <= 1))
		return lwm_fail(e, LWM_ECONFIG, "the share of documents whose actions are dropped, %g, is not in 0..1", c->world.drop);
	if (!c->from_example && c->nfields < 1)
		return lwm_fail(e, LWM_ECONFIG, "no field string: give fields, or the key that holds them");
	if (!c->from_example && c->index >= c->nfields)
		return lwm_fail(e, LWM_ECONFIG, "field alternative %" PRId64 " asked for, but there are %" PRId64,
				c->index, c->nfields);
	return 0;
}

int lwm_fields_open(struct lwm_fields **out, const struct lwm_fields_cfg *cfg, struct lwm_tokenizer *t,
		    struct lwm_err *e)
{
	struct lwm_fields *f = calloc(1, sizeof *f);
	int rc;
	*out = NULL;
	if (!f)
		return lwm_fields_no_memory(e);
	f->t = t;
	f->cfg = *cfg;
	LWM_GO(check_cfg(&f->cfg, e));
	LWM_GO(copy_string(&f->mem, &f->cfg.from_example, e));
	LWM_GO(copy_string(&f->mem, &f->cfg.separator, e));
	LWM_GO(copy_string(&f->mem, &f->cfg.prepend, e));
	LWM_GO(copy_string(&f->mem, &f->cfg.chat.system, e));
	f->layout = lwm_arena_alloc(&f->mem, (size_t)(cfg->nfields + 1) * sizeof *f->layout);
	if (!f->layout) {
		rc = lwm_fields_no_memory(e);
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
			if (f->layout[i].v[k].kind->codes || f->layout[i].v[k].kind->world ||
			    (f->layout[i].v[k].kind->record && f->cfg.chat.vision))
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
