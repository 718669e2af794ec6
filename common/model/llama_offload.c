/* llama_offload.c - what the backward needs of a layer waits in host memory, copied beside the arithmetic.
 *
 * Events tell the two queues of each other. done: the arithmetic has passed a layer, so that its slots may be read (forward) or
 * written (backward) by the copies. moved: the copies of a layer are made. Two of each are enough: a layer waits for what was
 * said of the layer two steps before, which used the same slots.
 */
#include <stdlib.h>

#include "common/model/llama_int.h"

enum { KINDS = 3 };
static const enum lwm_buf_id kinds[KINDS] = { LWM_BUF_X, LWM_BUF_O, LWM_BUF_LSE };

struct lwm_offload {
	struct lk_dev *dev, *queue;
	struct lk_event *done[2], *moved[2];
	void *host;
	int64_t layer; /* bytes of one in host memory */
};

int lwm_offload_new(struct lwm_llama *m, struct lwm_err *e)
{
	int64_t layers = m->cfg.layers > LWM_OFFLOAD_RESIDENT ? m->cfg.layers - LWM_OFFLOAD_RESIDENT : 0;
	struct lwm_offload *o = calloc(1, sizeof *o);

	if (!o)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a queue of copies");
	m->offload = o;
	o->dev = m->dev;
	o->layer = m->plan.host;
	LWM_TRY(lwm_dev_check(m->dev, lk_dev_fork(&o->queue, m->dev), e));
	for (int i = 0; i < 2; i++) {
		LWM_TRY(lwm_dev_check(m->dev, lk_event_new(m->dev, &o->done[i]), e));
		LWM_TRY(lwm_dev_check(m->dev, lk_event_new(m->dev, &o->moved[i]), e));
	}
	if (!layers)
		return 0;
	return lwm_dev_check(m->dev, lk_host_alloc(m->dev, (size_t)(layers * o->layer), &o->host), e);
}

void lwm_offload_free(struct lwm_offload *o)
{
	if (!o)
		return;
	if (o->queue)
		lk_sync(o->queue); // nothing is copied from or to memory that goes
	for (int i = 0; i < 2; i++) {
		lk_event_free(o->done[i]);
		lk_event_free(o->moved[i]);
	}
	if (o->host)
		lk_host_free(o->dev, o->host);
	lk_dev_close(o->queue);
	free(o);
}

static bool layer_travels(const struct lwm_llama *m, int64_t l)
{
	return m->offload && l >= 0 && l < m->cfg.layers - LWM_OFFLOAD_RESIDENT;
}

/* A call on the queue of copies, unless something failed before. */
static void check_queued(struct lwm_llama *m, int status)
{
	if (!m->rc)
		m->rc = lwm_dev_check(m->offload->queue, status, &m->err);
}

/* Layer l to the host or back, once layer `after` is `done`. */
static void move_layer(struct lwm_llama *m, int64_t l, int64_t after, bool out)
{
	struct lwm_offload *o = m->offload;
	char *host = (char *)o->host + l * o->layer;

	if (m->rc)
		return;
	check_queued(m, lk_wait(o->queue, o->done[after % 2]));
	for (int i = 0; i < KINDS; i++) {
		size_t bytes = (size_t)m->plan.bytes[kinds[i]];
		void *dev = lwm_buf(m, kinds[i], l);

		check_queued(m, out ? lk_copy_out(o->queue, host, dev, bytes) : lk_copy_in(o->queue, dev, host, bytes));
		host += bytes;
	}
	check_queued(m, lk_record(o->queue, o->moved[l % 2]));
}

void lwm_offload_fwd_begin(struct lwm_llama *m, int64_t l)
{
	if (layer_travels(m, l - 2))
		LWM_K(m, lk_wait(m->dev, m->offload->moved[l % 2]));
}

void lwm_offload_fwd_end(struct lwm_llama *m, int64_t l)
{
	if (!layer_travels(m, l))
		return;
	LWM_K(m, lk_record(m->dev, m->offload->done[l % 2]));
	move_layer(m, l, l, true);
}

void lwm_offload_bwd_begin(struct lwm_llama *m, int64_t l)
{
	if (layer_travels(m, l))
		LWM_K(m, lk_wait(m->dev, m->offload->moved[l % 2]));
	if (layer_travels(m, l - 1))
		move_layer(m, l - 1, l + 1, false);
}

void lwm_offload_bwd_end(struct lwm_llama *m, int64_t l)
{
	if (m->offload)
		LWM_K(m, lk_record(m->dev, m->offload->done[l % 2]));
}
