/* One trial: the text a model is given, and the score of what it says. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/rng.h"
#include "common/data/needle.h"
#include "common/eval/needle_eval.h"

/* Everything that is drawn comes from this, in this order: cities, numbers, depths, first sentence. */
static struct lwm_rng rng_of(const struct lwm_needle_task *task, const struct lwm_needle_cell *c)
{
	uint64_t where = (uint64_t)c->length << 20 ^ (uint64_t)llround((c->depth + 1) * 1000);
	return lwm_rng_at(task->seed, LWM_RNG_NEEDLE, where, (uint64_t)c->round);
}

static void draw_needles(struct lwm_trial *t, const struct lwm_needle_task *task, struct lwm_rng *r)
{
	t->n = task->needles;
	t->asked = task->retrieve;
	lwm_needle_draw_cities(r, t->n, t->city);
	for (int64_t i = 0; i < t->n; i++)
		t->number[i] = lwm_needle_draw_number(r);
	if (t->n == 1) {
		t->depth[0] = t->cell.depth;
		return;
	}
	/* distinct depths from the grid, as long as it has enough of them */
	uint64_t key = lwm_rng_u64(r);
	for (int64_t i = 0; i < t->n; i++)
		t->depth[i] = task->depths[lwm_rng_permute(key, LWM_RNG_NEEDLE, 0, task->ndepths, i % task->ndepths)];
}

static void add_question(struct lwm_str *tail, const struct lwm_trial *t, const struct lwm_needle_task *task)
{
	const char *names[LWM_NEEDLES_MAX];
	struct lwm_str q = { 0 };
	for (int64_t i = 0; i < t->asked; i++)
		names[i] = lwm_needle_city(t->city[i]);
	if (task->needles == 1) {
		lwm_needle_question_single(&q, names[0]);
		lwm_needle_prompt_tail_single(tail, lwm_str_get(&q));
	} else {
		lwm_needle_question_multi(&q, names, t->asked);
		lwm_needle_prompt_tail_multi(tail, lwm_str_get(&q));
	}
	tail->failed = tail->failed || q.failed;
	lwm_str_release(&q);
}

/* Needles sorted by depth: order[] of indices. */
static void by_depth(const double *want, int64_t n, int64_t *order)
{
	for (int64_t i = 0; i < n; i++) {
		int64_t k = i;
		while (k > 0 && want[order[k - 1]] > want[i]) {
			order[k] = order[k - 1];
			k--;
		}
		order[k] = i;
	}
}

/* Sentences [first, first+count) with each needle after the last sentence that ends before its depth. */
static void add_context(struct lwm_str *out, struct lwm_trial *t, const struct lwm_haystack *h, int64_t first, int64_t count,
			const double *want)
{
	int64_t order[LWM_NEEDLES_MAX], next = 0, total = h->tokens[first + count] - h->tokens[first];
	by_depth(want, t->n, order);
	for (int64_t i = 0; i <= count; i++) {
		int64_t here = h->tokens[first + i] - h->tokens[first];
		int64_t after = i < count ? h->tokens[first + i + 1] - h->tokens[first] : total + 1;
		while (next < t->n && (double)after > want[order[next]] / 100 * (double)total) {
			int64_t k = order[next++];
			lwm_needle_text(out, lwm_needle_city(t->city[k]), t->number[k]);
			t->depth[k] = total ? 100.0 * (double)here / (double)total : 0;
		}
		if (i < count)
			lwm_str_add(out, h->text.s + h->start[first + i], (size_t)(h->start[first + i + 1] - h->start[first + i]));
	}
}

/* Encodes <s> head context tail with `count` sentences. */
static int encode_prompt(struct lwm_trial *t, const struct lwm_haystack *h, int64_t first, int64_t count, const double *want,
			 const char *tail, struct lwm_tokenizer *tok, struct lwm_err *e)
{
	struct lwm_str s = { 0 };
	int32_t bos = lwm_tokenizer_bos(tok);
	lwm_str_puts(&s, lwm_needle_prompt_head());
	add_context(&s, t, h, first, count, want);
	lwm_str_puts(&s, tail);
	int rc = lwm_str_ok(&s, e);
	t->prompt.n = 0;
	if (rc == 0)
		rc = lwm_ids_add(&t->prompt, &bos, 1, e);
	if (rc == 0)
		rc = lwm_tokenizer_encode(tok, s.s, s.len, &t->prompt, e);
	lwm_str_release(&s);
	return rc;
}

/* Most sentences from `first` that fit in `room` tokens; fewer than all when the haystack ends. */
static int64_t count_fitting(const struct lwm_haystack *h, int64_t first, int64_t room)
{
	int64_t lo = first, hi = h->n;
	while (lo < hi) {
		int64_t mid = (lo + hi + 1) / 2;
		if (h->tokens[mid] - h->tokens[first] <= room)
			lo = mid;
		else
			hi = mid - 1;
	}
	return lo - first;
}

/* A first sentence such that enough text follows. */
static int64_t first_sentence(const struct lwm_haystack *h, int64_t room, struct lwm_rng *r)
{
	int64_t last = h->n;
	while (last > 0 && h->tokens[h->n] - h->tokens[last] < room)
		last--;
	return lwm_rng_below(r, last + 1);
}

int lwm_trial_make(struct lwm_trial *t, const struct lwm_needle_task *task, const struct lwm_needle_cell *cell,
		   const struct lwm_haystack *h, struct lwm_tokenizer *tok, struct lwm_err *e)
{
	struct lwm_rng r = rng_of(task, cell);
	struct lwm_str tail = { 0 };
	double want[LWM_NEEDLES_MAX];
	int64_t limit = cell->length - task->answer_tokens, first, count, bare;
	int rc;
	memset(t, 0, sizeof *t);
	t->cell = *cell;
	draw_needles(t, task, &r);
	memcpy(want, t->depth, sizeof want);
	add_question(&tail, t, task);
	LWM_GO(lwm_str_ok(&tail, e));
	LWM_GO(encode_prompt(t, h, 0, 0, want, tail.s, tok, e));
	bare = t->prompt.n;
	if (bare > limit)
		LWM_GO(lwm_fail(e, LWM_ECONFIG,
				"a context of %" PRId64 " tokens is too short: the question takes %" PRId64 ", the answer %" PRId64,
				cell->length, bare, task->answer_tokens));
	if (h->tokens[h->n] < limit - bare) /* a shorter text under a longer name would be a wrong result */
		LWM_GO(lwm_fail(e, LWM_ECONFIG,
				"the haystack holds %" PRId64 " tokens, a context of %" PRId64 " takes %" PRId64 ": give it more text",
				h->tokens[h->n], cell->length, limit - bare));
	first = first_sentence(h, limit - bare, &r);
	count = count_fitting(h, first, limit - bare);
	/* pieces merge and split where sentences meet, so the sum of counts is close but not exact */
	for (;; count--) {
		LWM_GO(encode_prompt(t, h, first, count, want, tail.s, tok, e));
		if (t->prompt.n <= limit || count == 0)
			break;
	}
out:
	lwm_str_release(&tail);
	if (rc < 0)
		lwm_trial_release(t);
	return rc;
}

void lwm_trial_release(struct lwm_trial *t)
{
	lwm_ids_release(&t->prompt);
}

double lwm_trial_score(const struct lwm_trial *t, const char *answer)
{
	int64_t right = 0;
	for (int64_t i = 0; i < t->asked; i++) {
		char digits[24];
		snprintf(digits, sizeof digits, "%" PRId64, t->number[i]);
		right += strstr(answer, digits) != NULL;
	}
	return (double)right / (double)t->asked;
}
