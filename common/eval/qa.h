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

/* Document i of d -> zero or more documents in out. Draws depend on (seed, source id, chunk) alone. */
int lwm_qa_make_documents(const struct lwm_qa *q, struct lwm_docs *d, int64_t i, struct lwm_docs_writer *out,
			  struct lwm_qa_stats *stats, struct lwm_err *e);

#endif
