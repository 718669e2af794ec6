/* fields.h - the field language: which parts of a JSON record become tokens, and which of them are trained on.
 *
 *	lwm_fields_open(&f, &cfg, tokenizer, e)              the field strings are parsed once
 *	lwm_fields_build(f, record, number, &d, e) ...       a JSON object; lwm_fields_text: plain text
 *	lwm_docs_append(w, id, source, d.ids.v, d.ids.n, d.run, d.nruns, e)      docshard.h
 *	lwm_docbuf_release(&d), lwm_fields_free(f)
 *
 * Field strings:
 *
 *	"[question],answer"     question without loss, answer with loss
 *	"[a+b],c"               a and b joined by the separator (one space) and tokenised together
 *	"<|bos|>,[vision],caption,<|eos|>"
 *
 * Elements are separated by commas; brackets go around one element. An element whose name contains "vision" is one
 * key that holds a flat list of codes: all frames end to end, frame_codes of them each; it gives
 *	<vision> frame1 EOF frame2 EOF ... frameN EOV </vision>
 * where <vision> and </vision> are ordinary text pieces and codes, EOF and EOV are ids V_text + code: EOF =
 * vision_codes (8192 as published), EOV = EOF + 1.
 * In brackets none of these has loss. It cannot be joined by +. More than max_frames frames: frames trunc(linspace(0,
 * n-1, max_frames)) are kept.
 *
 * <|chat|> is a turn list: the whole record is read by one of the layouts of chat.h, answers have loss; in brackets nothing has. It
 * cannot be joined by + either.
 *
 * <|world|> is a drive: the record's "vision" with the actions that lead to its frames (world.h). It cannot be joined by + either.
 *
 * <s> (no loss) is put first and </s> (loss) last unless switched off; nowhere else are they added. Text elements are
 * tokenised one by one, each with the tokenizer's dummy prefix, like the published data.
 *
 * Alternatives: the field string may be several; which one a document gets is a function of (seed, document number).
 *
 * Local calls. A struct lwm_fields may serve any number of threads, each with a struct lwm_docbuf of its own.
 */
#ifndef LWM_DATA_INGEST_FIELDS_H
#define LWM_DATA_INGEST_FIELDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/data/ingest/chat.h"
#include "common/data/ingest/world.h"
#include "common/io/docshard.h"
#include "common/text/tokenizer.h"

enum { LWM_VISION_CODES = 8192 }; /* published; the model pads its table, shards say codes + EOF + EOV */

/* One document being built: ids of the common id space (text, then codes) and loss on or off, run by run (adjacent runs
 * differ). Zero-initialised is empty. */
struct lwm_docbuf {
	struct lwm_ids ids;
	struct lwm_loss_run *run;
	int64_t nruns, runs_cap;
	int64_t frames;    /* vision frames in it, of all its clips */
	const char *fault; /* after a failed build: the reason in two words, for counting; a constant */
};
/* Tokens first .. ids.n-1, already appended to d->ids, get this loss. */
int lwm_docbuf_mark(struct lwm_docbuf *d, int64_t first, bool loss, struct lwm_err *e);
int64_t lwm_docbuf_loss_tokens(const struct lwm_docbuf *d); /* without the first token */
void lwm_docbuf_reset(struct lwm_docbuf *d);                /* empty, memory kept */
void lwm_docbuf_release(struct lwm_docbuf *d);

struct lwm_fields_cfg {
	const char *const *fields;  /* the alternatives, each a field string; used when from_example is NULL */
	int64_t nfields;            /* how many there are */
	const char *from_example;   /* each record brings its own under this key: a field string or a list of them */
	int64_t index;              /* >= 0: every document gets this alternative; -1: one is drawn by seed */
	const char *separator;      /* stands between subfields; NULL: one space */
	const char *prepend;        /* stands before element 0 when that is text; NULL: nothing does */
	bool no_bos, no_eos;        /* no <s> is put first, no </s> last */
	int64_t frame_codes;        /* codes of a frame; 0: 256 */
	int64_t vision_codes;       /* size of the codebook; 0: 8192 */
	int64_t max_frames;         /* a clip keeps so many frames at most; 0: all */
	uint64_t seed;              /* of the draw of alternatives */
	bool replace_bad_utf8;      /* malformed bytes become U+FFFD; else such a document is refused */
	struct lwm_chat_cfg chat;   /* of <|chat|> */
	struct lwm_world_cfg world; /* of <|world|> */
	int64_t max_bytes;          /* a document with more bytes of text and codes is refused, a code counted as one; less than
				     * 256 Mi are 256 Mi */
};

struct lwm_fields; /* field strings parsed once; immutable, any number of threads */
/* The strings of cfg are copied, t is borrowed. -LWM_ECONFIG: a field string or a number is impossible; -LWM_EMEMORY. */
int lwm_fields_open(struct lwm_fields **out, const struct lwm_fields_cfg *cfg, struct lwm_tokenizer *t,
		    struct lwm_err *e);
void lwm_fields_free(struct lwm_fields *f);
/* May its documents hold vision ids? True as well when the layout comes with each record. */
bool lwm_fields_has_vision(const struct lwm_fields *f);

/* Builds the document of a JSON object. `number` (its line, its place) picks the alternative. d is emptied first.
 * -LWM_EDATA: a key is missing or of another type, codes out of range or no whole number of frames. */
int lwm_fields_build(const struct lwm_fields *f, const json_t *record, int64_t number, struct lwm_docbuf *d,
		     struct lwm_err *e);
/* The same for plain text: a record whose only key is "text". */
int lwm_fields_text(const struct lwm_fields *f, const char *text, size_t n, int64_t number, struct lwm_docbuf *d,
		    struct lwm_err *e);

/* A record given by callback instead of JSON, so that codes from the encoder need not become text. One of the three is
 * set. */
struct lwm_field_value {
	const char *text;
	size_t n;             /* bytes of text */
	const int32_t *codes; /* vision: ncodes = frames * frame_codes codes */
	int64_t ncodes;
	const json_t *record; /* <|chat|>, <|world|>: the object that holds turns or actions; for <|world|> NULL too: none */
};
/* 0 and *out, or -LWM_EDATA when there is no such key. */
typedef int lwm_field_get(void *user, const char *key, struct lwm_field_value *out, struct lwm_err *e);
int lwm_fields_build_from(const struct lwm_fields *f, lwm_field_get *get, void *user, int64_t number,
			  struct lwm_docbuf *d, struct lwm_err *e);

#endif
