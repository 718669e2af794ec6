/* qa_int.h - what qa.c (pairs into documents) and qa_ask.c (what a model says about chunks) share. Nobody else includes it. */
#ifndef LWM_EVAL_QA_INT_H
#define LWM_EVAL_QA_INT_H

#include "common/eval/qa.h"

struct lwm_qa_answer {
	char *question, *answer; /* NULL: it said anything else than a pair */
	bool finished;           /* </s> ended it */
};
/* Chunk k of document i, without the marks of the document. The last one may be empty. */
int lwm_qa_chunk(const struct lwm_qa *q, struct lwm_docs *d, int64_t i, int64_t k, struct lwm_ids *ids, struct lwm_err *e);
/* What was said about it. */
const struct lwm_qa_answer *lwm_qa_said_about(const struct lwm_qa_said *s, int64_t i, int64_t k);

#endif
