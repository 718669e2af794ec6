/* One document in memory while it is built: its ids, and runs of tokens with and without loss. */
#include <inttypes.h>
#include <stdlib.h>

#include "common/data/ingest/fields.h"

int lwm_docbuf_mark(struct lwm_docbuf *d, int64_t first, bool loss, struct lwm_err *e)
{
	if (first >= d->ids.n || (d->nruns && d->run[d->nruns - 1].loss == loss))
		return 0;
	if (d->nruns == d->runs_cap) {
		int64_t cap = d->runs_cap ? 2 * d->runs_cap : 16;
		struct lwm_loss_run *v = realloc(d->run, (size_t)cap * sizeof *v);
		if (!v)
			return lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " loss runs", cap);
		d->run = v;
		d->runs_cap = cap;
	}
	d->run[d->nruns++] = (struct lwm_loss_run){ .start = first, .loss = loss };
	return 0;
}

int64_t lwm_docbuf_loss_tokens(const struct lwm_docbuf *d)
{
	int64_t n = 0;
	for (int64_t i = 0; i < d->nruns; i++) {
		int64_t end = i + 1 < d->nruns ? d->run[i + 1].start : d->ids.n;
		int64_t start = d->run[i].start > 0 ? d->run[i].start : 1; /* nothing predicts the first token */
		if (d->run[i].loss && end > start)
			n += end - start;
	}
	return n;
}

void lwm_docbuf_reset(struct lwm_docbuf *d)
{
	d->ids.n = d->nruns = d->frames = 0;
	d->fault = NULL;
}

void lwm_docbuf_release(struct lwm_docbuf *d)
{
	lwm_ids_release(&d->ids);
	free(d->run);
	*d = (struct lwm_docbuf){ 0 };
}
