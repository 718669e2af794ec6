/* Chunks of documents, and what a model says about them. */
#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/eval/qa_int.h"

enum { KEEP_FULL = 8 }; /* chunks of a group for each place of the batch: towards its end places are empty */

struct lwm_qa_said {
	const struct lwm_qa *q;
	struct lwm_docs *d;
	int64_t first, docs;
	int64_t *start;    /* (docs + 1) number of each document's first chunk */
	uint64_t *key;     /* (docs) of the draws */
	struct lwm_qa_answer *about;
	int64_t *chunk;    /* of those that are not empty: the number among all */
	int64_t chunks, prompts;
};

const char *lwm_qa_prompt_head(void)
{
	return "You are a helpful assistant. USER: ";
}

const char *lwm_qa_prompt_tail(void)
{
	return " Write a question about this text and answer it. ASSISTANT:";
}

/* Copy without blanks at the ends; NULL when nothing is left. */
static char *copy_trimmed(const char *s, size_t n)
{
	while (n && (*s == ' ' || *s == '\n'))
		s++, n--;
	while (n && (s[n - 1] == ' ' || s[n - 1] == '\n'))
		n--;
	return n ? strndup(s, n) : NULL;
}

bool lwm_qa_parse(const char *text, char **question, char **answer)
{
	const char *q = strstr(text, "Question:"), *a = q ? strstr(q, "Answer:") : NULL;
	*question = *answer = NULL;
	if (!a)
		return false;
	*question = copy_trimmed(q + 9, (size_t)(a - q - 9));
	*answer = copy_trimmed(a + 7, strlen(a + 7));
	if (*question && *answer)
		return true;
	free(*question);
	free(*answer);
	*question = *answer = NULL;
	return false;
}

static int64_t chunks_of(const struct lwm_qa *q, int64_t tokens)
{
	return (tokens + q->chunk_tokens - 1) / q->chunk_tokens;
}

int lwm_qa_chunk(const struct lwm_qa *q, struct lwm_docs *d, int64_t i, int64_t k, struct lwm_ids *ids, struct lwm_err *e)
{
	int32_t bos = lwm_tokenizer_bos(q->writer.tok), eos = lwm_tokenizer_eos(q->writer.tok);
	struct lwm_doc doc;
	LWM_TRY(lwm_docs_get(d, i, &doc, e));
	int64_t at = k * q->chunk_tokens, n = doc.n - at < q->chunk_tokens ? doc.n - at : q->chunk_tokens, from = ids->n;
	LWM_TRY(lwm_ids_reserve(ids, n, e));
	LWM_TRY(lwm_docs_read(d, i, at, at + n, ids->v + from, e));
	for (int64_t j = 0; j < n; j++) /* marks of the source document have no place inside */
		if (ids->v[from + j] != bos && ids->v[from + j] != eos)
			ids->v[ids->n++] = ids->v[from + j];
	return 0;
}

const struct lwm_qa_answer *lwm_qa_said_about(const struct lwm_qa_said *s, int64_t i, int64_t k)
{
	return &s->about[s->start[i - s->first] + k];
}

static int add_words(const struct lwm_qa *q, bool head, struct lwm_ids *ids, struct lwm_err *e)
{
	const char *text = head ? lwm_qa_prompt_head() : lwm_qa_prompt_tail();
	return (head ? lwm_tokenizer_encode : lwm_tokenizer_encode_rest)(q->writer.tok, text, strlen(text), ids, e);
}

int lwm_qa_longest(const struct lwm_qa *q, int64_t *tokens, struct lwm_err *e)
{
	struct lwm_ids words = { 0 };
	int rc = add_words(q, true, &words, e);
	if (rc == 0)
		rc = add_words(q, false, &words, e);
	*tokens = 1 + words.n + q->chunk_tokens;
	lwm_ids_release(&words);
	return rc;
}

/* The document of a chunk. */
static int64_t doc_of(const struct lwm_qa_said *s, int64_t chunk)
{
	int64_t low = 0, high = s->docs;
	while (high - low > 1) {
		int64_t mid = low + (high - low) / 2;
		*(s->start[mid] <= chunk ? &low : &high) = mid;
	}
	return low;
}

static int write_prompt(void *user, int64_t i, struct lwm_ids *ids, uint64_t *sample, struct lwm_err *e)
{
	struct lwm_qa_said *s = user;
	int64_t doc = doc_of(s, s->chunk[i]), k = s->chunk[i] - s->start[doc];
	int32_t bos = lwm_tokenizer_bos(s->q->writer.tok);
	*sample = s->key[doc] + (uint64_t)k;
	LWM_TRY(lwm_ids_add(ids, &bos, 1, e));
	LWM_TRY(add_words(s->q, true, ids, e));
	LWM_TRY(lwm_qa_chunk(s->q, s->d, s->first + doc, k, ids, e));
	return add_words(s->q, false, ids, e);
}

static int keep_answer(void *user, int64_t i, const struct lwm_ids *said, bool finished, struct lwm_err *e)
{
	struct lwm_qa_said *s = user;
	struct lwm_qa_answer *a = &s->about[s->chunk[i]];
	struct lwm_str text = { 0 };
	lwm_tokenizer_decode(s->q->writer.tok, said->v, said->n, &text);
	int rc = lwm_str_ok(&text, e);
	a->finished = finished;
	if (rc == 0 && finished)
		lwm_qa_parse(lwm_str_get(&text), &a->question, &a->answer);
	lwm_str_release(&text);
	return rc;
}

/* Where each document's chunks begin, its key, and which chunks hold anything. */
static int list_chunks(struct lwm_qa_said *s, struct lwm_err *e)
{
	struct lwm_ids ids = { 0 };
	struct lwm_doc doc;
	int rc = 0;
	s->start = calloc((size_t)s->docs + 1, sizeof *s->start);
	s->key = calloc((size_t)s->docs, sizeof *s->key);
	if (!s->start || !s->key)
		return lwm_fail_memory(e, NULL);
	for (int64_t i = 0; i < s->docs; i++) {
		LWM_TRY(lwm_docs_get(s->d, s->first + i, &doc, e));
		char id[512]; /* as far as documents are named by it */
		size_t n = strnlen(doc.id, sizeof id - 1);
		memcpy(id, doc.id, n);
		s->key[i] = lwm_hash64(id, n, 0);
		s->start[i + 1] = s->start[i] + chunks_of(s->q, doc.n);
	}
	s->chunks = s->start[s->docs];
	s->about = calloc((size_t)s->chunks + 1, sizeof *s->about);
	s->chunk = calloc((size_t)s->chunks + 1, sizeof *s->chunk);
	if (!s->about || !s->chunk)
		return lwm_fail_memory(e, NULL);
	for (int64_t c = 0; c < s->chunks; c++) {
		int64_t i = doc_of(s, c);
		ids.n = 0;
		LWM_GO(lwm_qa_chunk(s->q, s->d, s->first + i, c - s->start[i], &ids, e));
		if (ids.n)
			s->chunk[s->prompts++] = c;
	}
out:
	lwm_ids_release(&ids);
	return rc;
}

int lwm_qa_ask(struct lwm_qa_said **out, const struct lwm_qa *q, struct lwm_docs *d, int64_t first, int64_t n, struct lwm_err *e)
{
	struct lwm_qa_said *s = calloc(1, sizeof *s);
	struct lwm_prompts p = { write_prompt, keep_answer, s, 0, 0 };
	*out = NULL;
	if (!s)
		return lwm_fail_memory(e, NULL);
	*s = (struct lwm_qa_said){ .q = q, .d = d, .first = first, .docs = n };
	int rc = list_chunks(s, e);
	if (rc == 0)
		rc = lwm_qa_longest(q, &p.longest, e);
	p.n = s->prompts;
	if (rc == 0)
		rc = lwm_generate_texts(&q->writer, &p, q->batch > 0 ? q->batch : 1, e);
	if (rc < 0)
		lwm_qa_said_free(s);
	else
		*out = s;
	return rc;
}

void lwm_qa_said_free(struct lwm_qa_said *s)
{
	if (!s)
		return;
	for (int64_t c = 0; s->about && c < s->chunks; c++) {
		free(s->about[c].question);
		free(s->about[c].answer);
	}
	free(s->start);
	free(s->key);
	free(s->about);
	free(s->chunk);
	free(s);
}

int lwm_qa_group(const struct lwm_qa *q, struct lwm_docs *d, int64_t first, int64_t *n, struct lwm_err *e)
{
	int64_t want = q->batch > 1 ? KEEP_FULL * q->batch : 1, have = 0;
	struct lwm_doc doc;
	for (*n = 0; have < want && first + *n < lwm_docs_count(d); ++*n) {
		LWM_TRY(lwm_docs_get(d, first + *n, &doc, e));
		have += chunks_of(q, doc.n);
	}
	return 0;
}
