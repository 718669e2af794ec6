/* qa.h - question and answer documents out of long texts.
 *
 * As published: cut a document into chunks of 1000 tokens, let a short-context model write a question and its answer for each, put
 * adjacent chunks together up to the target length and append their pairs as chat. Only answers count in the loss.
 *
 *	<s> chunk chunk ... chunk  USER: question  ASSISTANT: answer </s>  USER: question ...
 *
 * The model is asked with the words of lwm_qa_prompt_head and lwm_qa_prompt_tail around the chunk, and has to say
 * "Question: ... Answer: ... </s>". A chunk about which it says anything else has no pair, stays in the text, and is counted.
 * All calls are local.
 */
#ifndef LWM_EVAL_QA_H
#define LWM_EVAL_QA_H

#include "common/eval/generate.h"
#include "common/io/docshard.h"

struct lwm_qa {
	struct lwm_generate writer;
	int64_t chunk_tokens;  /* that a pair is written about; 1000 */
	int64_t target_tokens; /* length of a finished document at most; a single chunk with its pair may be longer */
	int64_t min_pairs;     /* documents with fewer pairs are left out */
	int64_t batch;         /* chunks that are asked about side by side, 0 = 1; the writer's engine has so many streams */
};
struct lwm_qa_stats { /* added to */
	int64_t docs_in, chunks;
	int64_t pairs, unparsed, unfinished; /* of the chunks: with a pair; of another form; not ended by </s> */
	int64_t docs_out, docs_short;        /* written; left out for too few pairs */
	int64_t tokens_out;
};

/* The words around a chunk, for the model that writes and for data it is trained on. */
const char *lwm_qa_prompt_head(void); /* "You are a helpful assistant. USER: " */
const char *lwm_qa_prompt_tail(void); /* " Write a question about this text and answer it. ASSISTANT:" */
/* "Question: Q Answer: A" -> malloc'ed parts without blanks at their ends; false when it is not of that form or a part is empty. */
bool lwm_qa_parse(const char *text, char **question, char **answer);

/* What a model said about the chunks of some documents. */
struct lwm_qa_said;
/* Tokens of the longest prompt: a chunk in the words around it. */
int lwm_qa_longest(const struct lwm_qa *q, int64_t *tokens, struct lwm_err *e);
/* Asks about all chunks of documents [first, first + n) of d, q->batch of them at a time, whatever document they are of. Draws
 * depend on (seed, source id, chunk) alone, so the answers are the same in any company (generate.h). */
int lwm_qa_ask(struct lwm_qa_said **out, const struct lwm_qa *q, struct lwm_docs *d, int64_t first, int64_t n, struct lwm_err *e);
void lwm_qa_said_free(struct lwm_qa_said *s); /* NULL is fine */
/* How many documents from `first` on, at least one and not beyond the end, have chunks enough to keep a batch full. */
int lwm_qa_group(const struct lwm_qa *q, struct lwm_docs *d, int64_t first, int64_t *n, struct lwm_err *e);
/* Document i of d, one of those asked about, -> zero or more documents in out. */
int lwm_qa_put_documents(const struct lwm_qa *q, const struct lwm_qa_said *said, struct lwm_docs *d, int64_t i,
			 struct lwm_docs_writer *out, struct lwm_qa_stats *stats, struct lwm_err *e);
/* Asked and put: document i alone. */
int lwm_qa_make_documents(const struct lwm_qa *q, struct lwm_docs *d, int64_t i, struct lwm_docs_writer *out,
			  struct lwm_qa_stats *stats, struct lwm_err *e);

#endif
