/* fields_int.h - inside common/data/ingest: parsed field strings, and a document on its way.
 *
 *	lwm_layout_parse(&layout, text, &mem, e)             fields_layout.c: once for each field string
 *	for each element: el->kind->build(&b, el, first, e)      fields_element.c, chat.c, world.c; fields_tokens.c fills b.d
 *
 * A layout is read by any number of threads; a struct lwm_build belongs to one call.
 */
#ifndef LWM_DATA_INGEST_FIELDS_INT_H
#define LWM_DATA_INGEST_FIELDS_INT_H

#include "common/base/arena.h"
#include "common/data/ingest/fields.h"

struct lwm_build;
struct lwm_element;

/* A kind of element (fields_element.c): it is known by its name, or by a part of it. */
struct lwm_element_kind {
	const char *name, *part;
	bool joins; /* several keys of this kind may stand side by side with + */
	bool codes; /* its value is a list of codes, not text: the document gets ids of the vision vocabulary */
	bool record; /* its value is the whole record: the document gets such ids where cfg.chat.vision says so; or */
	bool world;  /* always, and a clip has such a value with no .json beside it too */
	/* Adds its tokens to b->d. first: it is the first element of its field string. A record's fault: lwm_build_fault. */
	int (*build)(struct lwm_build *b, const struct lwm_element *el, bool first, struct lwm_err *e);
};
const struct lwm_element_kind *lwm_element_kind_of(const char *key); /* never NULL */

struct lwm_element {
	const struct lwm_element_kind *kind;
	bool loss;
	const char **key; /* of text: the subfields; of vision: one */
	int64_t nkeys;
};
struct lwm_layout { /* one field string */
	struct lwm_element *v;
	int64_t n;
};

struct lwm_fields {
	struct lwm_arena *mem;
	struct lwm_tokenizer *t;
	struct lwm_fields_cfg cfg; /* its strings are copies in mem */
	struct lwm_layout *layout; /* [cfg.nfields] */
};

struct lwm_build { /* a document on its way */
	const struct lwm_fields *f;
	lwm_field_get *get;
	void *user;
	struct lwm_docbuf *d;
	int64_t number;        /* of the document */
	struct lwm_str joined; /* text of the element at hand */
	int64_t bytes;         /* of text and codes so far */
};

/* ---- fields_tokens.c ---- */

int lwm_build_mark(struct lwm_docbuf *d, int32_t id, bool loss, struct lwm_err *e); /* one token */
int lwm_build_text(struct lwm_build *b, const char *s, size_t n, bool loss, struct lwm_err *e); /* tokenised as one text */
/* Are these codes whole frames, within the limit of a document? name: of the field, for messages. */
int lwm_build_frames(struct lwm_build *b, const char *name, const int32_t *codes, int64_t ncodes, struct lwm_err *e);
/* Of such codes one frame, then EOF, or EOV after the last one. */
int lwm_build_frame(struct lwm_build *b, const int32_t *codes, int64_t frame, bool last, bool loss, struct lwm_err *e);
/* <vision>, frames and </vision>. */
int lwm_build_clip(struct lwm_build *b, const char *name, const int32_t *codes, int64_t ncodes, bool loss, struct lwm_err *e);
int lwm_build_spend(struct lwm_build *b, int64_t n, struct lwm_err *e); /* n more bytes or codes, within the limit of a document */

/* ---- world.c, chat.c ---- */

int lwm_world_element(struct lwm_build *b, const struct lwm_element *el, bool first, struct lwm_err *e); /* <|world|> */
int lwm_chat_element(struct lwm_build *b, const struct lwm_element *el, bool first, struct lwm_err *e); /* <|chat|> */

/* What is wrong with the record, for counting, when rc says that something is; returns rc. */
static inline int lwm_build_fault(struct lwm_docbuf *d, const char *what, int rc)
{
	if (rc < 0)
		d->fault = what;
	return rc;
}

/* Index of frame i when n frames are thinned to max: trunc(linspace(0, n-1, max))[i]. */
int64_t lwm_frame_pick(int64_t n, int64_t max, int64_t i);

static inline int lwm_fields_no_memory(struct lwm_err *e)
{
	return lwm_fail(e, LWM_EMEMORY, "out of memory for field strings");
}

/* Everything is allocated in *mem. -LWM_ECONFIG with the reason. */
int lwm_layout_parse(struct lwm_layout *l, const char *text, struct lwm_arena **mem, struct lwm_err *e);

#endif
