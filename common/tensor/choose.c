/* choose.c - patterns of names over a table of tensors. */
#include "common/tensor/choose.h"

#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int lwm_choose_next(const char **list, char out[LWM_PATTERN], const char *option, struct lwm_err *e)
{
	const char *p = *list;
	size_t n;

	if (!p || !*p)
		return 0;
	n = strcspn(p, ",");
	if (n == 0 || n >= LWM_PATTERN || (p[n] && !p[n + 1]))
		return lwm_fail(e, LWM_EUSAGE, "%s '%s': an empty pattern, or one of more than %d characters", option, p, LWM_PATTERN - 1);
	memcpy(out, p, n);
	out[n] = 0;
	*list = p + n + (p[n] == ',');
	return 1;
}

static const char only_option[] = "--train-only", freeze_option[] = "--freeze", rates_option[] = "--lr-factors";

/* PATTERN=X: the pattern is cut off, X returned. */
static int split_rate(char *text, double *rate, struct lwm_err *e)
{
	char *is = strrchr(text, '='), *end;

	if (is && is != text && is[1]) {
		*rate = strtod(is + 1, &end);
		if (!*end && *rate > 0 && *rate <= 1e6) {
			*is = 0;
			return 0;
		}
	}
	return lwm_fail(e, LWM_EUSAGE, "%s '%s': not PATTERN=X with X above 0, at most 1e6 (what is not to move at all: %s)", rates_option,
			text, freeze_option);
}

int lwm_choose_check(const struct lwm_choose *how, struct lwm_err *e)
{
	const char *list[] = { how->only, how->freeze, how->rates }, *option[] = { only_option, freeze_option, rates_option };
	char text[LWM_PATTERN];
	double rate;
	int rc;

	for (int i = 0; i < 3; i++) {
		while ((rc = lwm_choose_next(&list[i], text, option[i], e)) > 0)
			if (i == 2)
				LWM_TRY(split_rate(text, &rate, e));
		LWM_TRY(rc);
	}
	return 0;
}

/* What is done with a tensor that a pattern matches. */
typedef bool choose_fn(struct lwm_tensor *t, double rate);

static bool mark(struct lwm_tensor *t, double rate)
{
	t->rate = rate;
	return true;
}

static bool freeze(struct lwm_tensor *t, double rate)
{
	(void)rate;
	t->trainable = false;
	return true;
}

static bool set_rate(struct lwm_tensor *t, double rate)
{
	if (t->trainable)
		t->rate = rate;
	return t->trainable;
}

/* Each pattern of a list over the whole table. */
static int walk_list(struct lwm_tensors *t, const char *list, const char *option, choose_fn *act, struct lwm_err *e)
{
	char text[LWM_PATTERN];
	int rc;

	while ((rc = lwm_choose_next(&list, text, option, e)) > 0) {
		double rate = 1;
		bool any = false, acted = false;

		if (act == set_rate)
			LWM_TRY(split_rate(text, &rate, e));
		for (int64_t i = 0; i < t->n; i++)
			if (fnmatch(text, t->list[i].name, 0) == 0) {
				any = true;
				acted = act(&t->list[i], rate) || acted;
			}
		if (!acted)
			return lwm_fail(e, LWM_ECONFIG, any ? "%s: '%s' matches nothing that trains" :
							      "%s: '%s' matches no tensor of this model", option, text);
	}
	return rc;
}

int64_t lwm_choose_trained(const struct lwm_tensors *t, int64_t *tensors)
{
	int64_t n = 0;

	*tensors = 0;
	for (int64_t i = 0; i < t->n; i++)
		if (t->list[i].trainable) {
			n += t->list[i].count;
			++*tensors;
		}
	return n;
}

int lwm_choose_tensors(struct lwm_tensors *t, const struct lwm_choose *how, struct lwm_err *e)
{
	int64_t left;

	LWM_TRY(lwm_choose_check(how, e));
	if (how->only && *how->only) {
		LWM_TRY(walk_list(t, how->only, only_option, mark, e)); /* rates are 0 before */
		for (int64_t i = 0; i < t->n; i++) {
			t->list[i].trainable = t->list[i].trainable && t->list[i].rate > 0;
			t->list[i].rate = 0;
		}
	}
	LWM_TRY(walk_list(t, how->freeze, freeze_option, freeze, e));
	if (t->n && !lwm_choose_trained(t, &left))
		return lwm_fail(e, LWM_ECONFIG, "%s '%s', %s '%s': nothing is left to train", only_option, how->only ? how->only : "",
				freeze_option, how->freeze ? how->freeze : "");
	return walk_list(t, how->rates, rates_option, set_rate, e);
}
