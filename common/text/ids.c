/* Lists of token ids that grow. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/text/tokenizer.h"

int lwm_ids_reserve(struct lwm_ids *a, int64_t n, struct lwm_err *e)
{
	if (n <= a->cap - a->n)
		return 0;
	if (n > INT64_MAX / 16 - a->n)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " more token ids", n);
	int64_t cap = a->cap ? a->cap : 256;
	while (cap - a->n < n)
		cap *= 2;
	int32_t *v = realloc(a->v, (size_t)cap * sizeof *v);
	if (!v)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " token ids", cap);
	a->v = v;
	a->cap = cap;
	return 0;
}

int lwm_ids_add(struct lwm_ids *a, const int32_t *v, int64_t n, struct lwm_err *e)
{
	LWM_TRY(lwm_ids_reserve(a, n, e));
	if (n > 0)
		memcpy(a->v + a->n, v, (size_t)n * sizeof *v);
	a->n += n;
	return 0;
}

void lwm_ids_release(struct lwm_ids *a)
{
	free(a->v);
	*a = (struct lwm_ids){ 0 };
}
