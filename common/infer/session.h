/* session.h - all that answers need, open together: device, model, tokenizer, engine, and for frames a VQGAN.
 *
 *	struct lwm_session s;
 *	lwm_session_open(&s, &how, e)
 *	lwm_session_check(&s, tokens, e)      is there a context for so many?
 *	lwm_session_close(&s)                 after a failure too
 *
 * Local. The net of the VQGAN points into the struct, which must not be moved while it is open.
 */
#ifndef LWM_INFER_SESSION_H
#define LWM_INFER_SESSION_H

#include "common/infer/engine.h"
#include "common/infer/load.h"

struct lwm_session_how {
	const char *model, *tokenizer, *vqgan, *device; /* tokenizer NULL: the one beside the model; vqgan NULL: no frames */
	bool older_ok;
	enum lwm_cache_kind cache;
	int64_t threads, prefill_chunk, streams; /* streams: most of a step */
	int64_t context;         /* most tokens in a cache, 0: as many as the model was trained for */
	const char *size;        /* of a frame: "WxH", or "N" for N x N; NULL: the VQGAN's resolution */
	int64_t frames_per_pass; /* of the VQGAN */
};
struct lwm_session {
	struct lk_dev *dev;
	struct lwm_lm m;
	struct lwm_tokenizer *tok;
	struct lwm_engine *g;
	struct lwm_vq vq;
	int64_t width, height, frame_codes; /* of a frame: pixels, codes; 0 without a VQGAN */
	int64_t context;           /* most tokens in a cache */
	bool context_said;         /* and that was asked for */
};
/* Errors: those of load.h and engine.h; -LWM_ECONFIG: the model knows no vision codes, or fewer than the VQGAN has; -LWM_EUSAGE: a
 * size that the VQGAN cannot have. */
int lwm_session_open(struct lwm_session *s, const struct lwm_session_how *how, struct lwm_err *e);
void lwm_session_close(struct lwm_session *s);
/* -LWM_ECONFIG: a context of so many tokens is more than the limit. Warns where it is more than the model was trained for. */
int lwm_session_check(const struct lwm_session *s, int64_t tokens, struct lwm_err *e);

#endif
