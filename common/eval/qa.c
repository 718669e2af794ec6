/* A document is cut into chunks; text and chat of the document being built grow in two buffers. When a chunk with its pair no
 * longer fits the target length, what was there before is written (text, then chat) and the chunk begins the next document. */
#include "common/eval/qa.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/eval/qa_int.h"

/* The document being built: the chunks so far, and the chat that will follow them. */
struct build {
	struct lwm_ids text, chat;
	struct lwm_loss_run *run; /* of the chat: starts relative to it */
	int64_t nruns, cap, pairs, made;
	char id[512];
};

static int add_run(struct build *b, uint8_t loss, struct lwm_err *e)
{
	if (b->nruns + 2 > b->cap) {
		int64_t cap = b->cap ? b->cap * 2 : 64;
		struct lwm_loss_run *p = realloc(b->run, (size_t)cap * sizeof *p);
		if (!p)
			return lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " loss runs", cap);
		b->run = p;
		b->cap = cap;
	}
	b->run[b->nruns++] = (struct lwm_loss_run){ b->chat.n, loss };
	return 0;
}

static int add_text(struct lwm_tokenizer *t, struct lwm_ids *to, const char *before, const char *text, struct lwm_err *e)
{
	struct lwm_str s = { 0 };
	lwm_str_puts(&s, before);
	lwm_str_puts(&s, text);
	int rc = lwm_str_ok(&s, e);
	if (rc == 0)
		rc = lwm_tokenizer_encode_rest(t, s.s, s.len, to, e);
	lwm_str_release(&s);
	return rc;
}

static int add_pair(const struct lwm_qa *q, struct build *b, const char *question, const char *answer, struct lwm_err *e)
{
	struct lwm_tokenizer *t = q->writer.tok;
	int32_t eos = lwm_tokenizer_eos(t);
	LWM_TRY(add_run(b, 0, e));
	LWM_TRY(add_text(t, &b->chat, " USER: ", question, e));
	LWM_TRY(add_text(t, &b->chat, " ASSISTANT:", "", e));
	LWM_TRY(add_run(b, 1, e));
	LWM_TRY(add_text(t, &b->chat, " ", answer, e));
	LWM_TRY(lwm_ids_add(&b->chat, &eos, 1, e));
	b->pairs++;
	return 0;
}

/* Writes what is there, when it has pairs enough, and begins the next document with <s>. */
static int finish_document(const struct lwm_qa *q, struct build *b, const char *source, struct lwm_docs_writer *out,
			   struct lwm_qa_stats *st, struct lwm_err *e)
{
	int64_t text = b->text.n;
	char id[600];
	int rc = 0;
	if (b->pairs >= q->min_pairs && b->pairs > 0) {
		rc = lwm_ids_add(&b->text, b->chat.v, b->chat.n, e);
		/* the text itself does not count: its run is joined with the first question's */
		for (int64_t i = 0; i < b->nruns; i++)
			b->run[i].start = i ? b->run[i].start + text : 0;
		snprintf(id, sizeof id, "%s#qa%" PRId64, b->id, b->made++);
		if (rc == 0)
			rc = lwm_docs_append(out, id, source, b->text.v, b->text.n, b->run, b->nruns, e);
		st->docs_out++;
		st->tokens_out += b->text.n;
	} else if (b->text.n > 1) {
		st->docs_short++;
	}
	int32_t bos = lwm_tokenizer_bos(q->writer.tok);
	b->text.n = b->chat.n = b->nruns = b->pairs = 0;
	return rc < 0 ? rc : lwm_ids_add(&b->text, &bos, 1, e);
}

static int add_chunk(const struct lwm_qa *q, struct build *b, const int32_t *chunk, int64_t n, const struct lwm_qa_answer *said,
		     const char *source, struct lwm_docs_writer *out, struct lwm_qa_stats *st, struct lwm_err *e)
{
	const char *question = said->question, *answer = said->answer;
	struct build before = *b;
	st->chunks++;
	st->unfinished += !said->finished;
	st->unparsed += said->finished && !question;
	st->pairs += question != NULL;
	int rc = question ? add_pair(q, b, question, answer, e) : 0;
	if (rc == 0 && b->text.n + n + b->chat.n > q->target_tokens && before.text.n > 1) {
		/* one chunk too many: what was there before is finished, this one begins the next document */
		b->chat.n = before.chat.n;
		b->nruns = before.nruns;
		b->pairs = before.pairs;
		rc = finish_document(q, b, source, out, st, e);
		if (rc == 0 && question)
			rc = add_pair(q, b, question, answer, e);
	}
	if (rc == 0)
		rc = lwm_ids_add(&b->text, chunk, n, e);
	return rc;
}

int lwm_qa_put_documents(const struct lwm_qa *q, const struct lwm_qa_said *said, struct lwm_docs *d, int64_t i,
			 struct lwm_docs_writer *out, struct lwm_qa_stats *st, struct lwm_err *e)
{
	struct lwm_doc doc;
	struct build b = { .made = 0 };
	struct lwm_ids chunk = { 0 };
	char source[1024];
	int rc = lwm_docs_get(d, i, &doc, e);
	if (rc < 0)
		goto out;
	snprintf(b.id, sizeof b.id, "%s", doc.id);
	snprintf(source, sizeof source, "%s", doc.source);
	st->docs_in++;
	LWM_GO(finish_document(q, &b, source, out, st, e));
	for (int64_t k = 0; k * q->chunk_tokens < doc.n; k++) {
		chunk.n = 0;
		LWM_GO(lwm_qa_chunk(q, d, i, k, &chunk, e));
		if (chunk.n)
			LWM_GO(add_chunk(q, &b, chunk.v, chunk.n, lwm_qa_said_about(said, i, k), source, out, st, e));
	}
	LWM_GO(finish_document(q, &b, source, out, st, e));
out:
	lwm_ids_release(&b.text);
	lwm_ids_release(&b.chat);
	lwm_ids_release(&chunk);
	free(b.run);
	return rc;
}

int lwm_qa_make_documents(const struct lwm_qa *q, struct lwm_docs *d, int64_t i, struct lwm_docs_writer *out,
			  struct lwm_qa_stats *st, struct lwm_err *e)
{
	struct lwm_qa_said *said;
	LWM_TRY(lwm_qa_ask(&said, q, d, i, 1, e));
	int rc = lwm_qa_put_documents(q, said, d, i, out, st, e);
	lwm_qa_said_free(said);
	return rc;
}
