/* needle.h - the words of the needle-in-a-haystack evaluation, exactly as published: cities, needle, questions, prompts.
 *
 *	lwm_needle_draw_cities(&r, 1, &city); number = lwm_needle_draw_number(&r);
 *	lwm_needle_text(&context, lwm_needle_city(city), number);          the fact, somewhere in a long text
 *	lwm_needle_question_single(&question, lwm_needle_city(city));
 *	prompt = lwm_needle_prompt_head() + context + lwm_needle_prompt_tail_single(question)
 *
 * Used where such documents are made (synthetic training data) and where models are tested, so that both agree.
 * Strings are appended to *out; check lwm_str_ok once at the end.
 */
#ifndef LWM_DATA_NEEDLE_H
#define LWM_DATA_NEEDLE_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/rng.h"
#include "common/base/str.h"

/* The 69 distinct cities, in alphabetical order, each as likely as any other (the published list repeats some). */
int64_t lwm_needle_cities(void);
const char *lwm_needle_city(int64_t i); /* 0 <= i < lwm_needle_cities() */
/* k different cities: indices into the list. k <= lwm_needle_cities(). */
void lwm_needle_draw_cities(struct lwm_rng *r, int64_t k, int64_t *out);
/* Seven digits, the first not 0: 1000000..9999999. */
int64_t lwm_needle_draw_number(struct lwm_rng *r);

/* "\nThe special magic {city} number is: {number}\n" */
void lwm_needle_text(struct lwm_str *out, const char *city, int64_t number);
/* "What is the special magic {city} number?" */
void lwm_needle_question_single(struct lwm_str *out, const char *city);
/* n = 1: "What is the special magic number for A?"
 * else:  "What are the special magic numbers for A, B, and C?" (for two: "A, and B") */
void lwm_needle_question_multi(struct lwm_str *out, const char *const *cities, int64_t n);

/* The prompt is head + context + tail(question); the tail ends in "ASSISTANT: ". */
const char *lwm_needle_prompt_head(void); /* "You are a helpful assistant. USER: " */
void lwm_needle_prompt_tail_single(struct lwm_str *out, const char *question);
void lwm_needle_prompt_tail_multi(struct lwm_str *out, const char *question);

#endif
