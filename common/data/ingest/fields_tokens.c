/* What elements give to a document: texts as tokens, clips as codes between their marks, within the limits of a document. */
#include "common/data/ingest/fields_int.h"

#include <inttypes.h>

/* A key may stand in the fields many times, and the fields may come with the record: a small record is a large document. */
int lwm_build_spend(struct lwm_build *b, int64_t n, struct lwm_err *e)
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

int lwm_build_text(struct lwm_build *b, const char *s, size_t n, bool loss, struct lwm_err *e)
{
	return lwm_build_fault(b->d, "not encodable", add_text(b->f->t, b->d, s, n, loss, e));
}

int lwm_build_frame(struct lwm_build *b, const int32_t *codes, int64_t frame, bool last, bool loss, struct lwm_err *e)
{
	const int64_t per = b->f->cfg.frame_codes, most = b->f->cfg.vision_codes, first = b->d->ids.n;
	const int32_t *c = codes + frame * per, base = lwm_tokenizer_vocab(b->f->t);
	LWM_TRY(lwm_ids_reserve(&b->d->ids, per + 1, e));
	for (int64_t k = 0; k < per; k++) {
		if (c[k] < 0 || c[k] >= most)
			return lwm_fail(e, LWM_EDATA, "vision code %d of frame %" PRId64 " is not in 0..%" PRId64, c[k], frame, most - 1);
		b->d->ids.v[first + k] = base + c[k];
	}
	b->d->ids.v[first + per] = base + (int32_t)most + last;
	b->d->ids.n += per + 1;
	b->d->frames++;
	return lwm_docbuf_mark(b->d, first, loss, e);
}

/* All frames, or max of them evenly spread. */
static int add_frames(struct lwm_build *b, const int32_t *codes, int64_t frames, bool loss, struct lwm_err *e)
{
	int64_t max = b->f->cfg.max_frames, n = max > 0 && frames > max ? max : frames;
	LWM_TRY(add_text(b->f->t, b->d, "<vision>", 8, loss, e));
	LWM_TRY(lwm_ids_reserve(&b->d->ids, n * (b->f->cfg.frame_codes + 1), e));
	for (int64_t i = 0; i < n; i++)
		LWM_TRY(lwm_build_frame(b, codes, lwm_frame_pick(frames, max, i), i == n - 1, loss, e));
	return add_text(b->f->t, b->d, "</vision>", 9, loss, e);
}

int lwm_build_frames(struct lwm_build *b, const char *name, const int32_t *codes, int64_t ncodes, struct lwm_err *e)
{
	int64_t per = b->f->cfg.frame_codes;
	if (!codes || ncodes < per || ncodes % per)
		return lwm_build_fault(b->d, "bad codes",
			     lwm_fail(e, LWM_EDATA, "field '%s' is no list of codes in whole frames of %" PRId64, name, per));
	return lwm_build_spend(b, ncodes, e);
}

int lwm_build_clip(struct lwm_build *b, const char *name, const int32_t *codes, int64_t ncodes, bool loss, struct lwm_err *e)
{
	LWM_TRY(lwm_build_frames(b, name, codes, ncodes, e));
	return lwm_build_fault(b->d, "bad codes", add_frames(b, codes, ncodes / b->f->cfg.frame_codes, loss, e));
}
