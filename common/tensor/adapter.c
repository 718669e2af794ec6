/* adapter.c - adapters in a table of tensors. */
#include "common/tensor/adapter.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/tensor/choose.h"

static const char option[] = "--lora";

bool lwm_adapter_is_name(const char *name)
{
	size_t n = strlen(name), m = strlen(LWM_ADAPTER_A);

	return n > m && (!strcmp(name + n - m, LWM_ADAPTER_A) || !strcmp(name + n - m, LWM_ADAPTER_B));
}

int lwm_adapters_check(const struct lwm_adapters *how, struct lwm_err *e)
{
	const char *list = how->targets;
	char text[LWM_PATTERN];
	int rc;

	while ((rc = lwm_choose_next(&list, text, option, e)) > 0)
		;
	return rc;
}

/* Marks what a pattern matches: `adapts` of a matrix is -1 until it has its adapters. */
static int mark_targets(struct lwm_tensors *t, const char *pattern, int64_t rank, struct lwm_err *e)
{
	bool any = false;

	for (int64_t i = 0; i < t->n; i++) {
		struct lwm_tensor *q = &t->list[i];

		if (fnmatch(pattern, q->name, 0))
			continue;
		any = true;
		if (q->role != LWM_ROLE_MATRIX)
			return lwm_fail(e, LWM_ECONFIG, "%s: '%s' matches '%s', which is no matrix of a layer", option, pattern, q->name);
		if (rank >= q->shape[0] || rank >= q->shape[1])
			return lwm_fail(e, LWM_ECONFIG, "%s: '%s' is %" PRId64 " x %" PRId64 ": adapters of --lora-rank %" PRId64
					" are no smaller", option, q->name, q->shape[0], q->shape[1], rank);
		q->adapts = -1;
	}
	return any ? 0 : lwm_fail(e, LWM_ECONFIG, "%s: '%s' matches no tensor of this model", option, pattern);
}

/* Of matrix i. */
static int add_pair(struct lwm_tensors *t, int64_t i, int64_t rank, int group, struct lwm_err *e)
{
	const struct lwm_tensor q = t->list[i];
	char name[256];
	struct lwm_tensor one = { .name = name, .ndim = 2, .shape = { rank, q.shape[1] }, .role = LWM_ROLE_MATRIX,
				  .modality = q.modality, .trainable = true, .decays = q.decays,
				  .split = q.split == 1 ? 1 : LWM_SPLIT_NONE,
				  .init = LWM_INIT_NORMAL, .value = 1 / (double)rank, .group = group, .adapts = i + 1 };

	t->list[i].adapts = 0;
	t->list[i].adapted = true;
	t->list[i].trainable = false;
	snprintf(name, sizeof name, "%s%s", q.name, LWM_ADAPTER_A);
	LWM_TRY(lwm_tensors_add(t, &one, e));
	snprintf(name, sizeof name, "%s%s", q.name, LWM_ADAPTER_B);
	one.shape[0] = q.shape[0];
	one.shape[1] = rank;
	one.split = q.split == 0 ? 0 : LWM_SPLIT_NONE;
	one.parts = q.split == 0 ? q.parts : 0;
	one.init = LWM_INIT_CONST;
	one.value = 0;
	return lwm_tensors_add(t, &one, e);
}

int lwm_adapters_add(struct lwm_tensors *t, const struct lwm_adapters *how, struct lwm_err *e)
{
	const char *list = how->targets;
	char text[LWM_PATTERN];
	int64_t n = t->n;
	int group = n ? t->list[n - 1].group : 0, rc;

	while ((rc = lwm_choose_next(&list, text, option, e)) > 0)
		LWM_TRY(mark_targets(t, text, how->rank, e));
	LWM_TRY(rc);
	for (int64_t i = 0; i < n; i++)
		if (t->list[i].adapts < 0)
			LWM_TRY(add_pair(t, i, how->rank, group, e));
	return 0;
}
