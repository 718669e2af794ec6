/* attn_sched.cu - tile schedules of attention on the GPU: made by attn_plan.c, uploaded once, kept at the sequence of queries.
 *
 * A schedule belongs to a pair of sequences and a shape of tiles. It lives in a block of device memory; blocks of sequences that
 * are gone are kept at the device (SPARES of them), because allocating and freeing would wait for the queue. */
#include <inttypes.h>
#include <stdlib.h>

#include "kernels/cuda/attn_int.h"

enum { SPARES = 8 };

/* What lk_cuda.attn points to: device memory of schedules whose sequences are gone, to be used again. */
struct attn_mem {
	struct {
		void *block;
		size_t bytes;
	} spare[SPARES];
};

/* A schedule at a sequence of queries (lk_cuda_seq.plan is a list of them). */
struct plan {
	struct plan *next;
	struct lk_dev *dev; /* whose queue uploaded it */
	uint64_t keys;      /* id of the sequence of keys */
	int causal, bq, bk, by_key;
	void *block;
	size_t bytes;
	struct lk_attn_sched sched;
};

static struct attn_mem *mem_of(struct lk_dev *dev)
{
	struct lk_cuda *cu = lk_cu(dev);

	if (!cu->attn)
		cu->attn = calloc(1, sizeof(struct attn_mem));
	return static_cast<struct attn_mem *>(cu->attn);
}

/* The upload into a spare block waits in the queue for the kernels that read the schedule before. */
static int take_block(struct lk_dev *dev, struct plan *p, size_t bytes)
{
	struct attn_mem *m = mem_of(dev);

	for (int i = 0; m && i < SPARES; i++)
		if (m->spare[i].bytes >= bytes) {
			p->block = m->spare[i].block;
			p->bytes = m->spare[i].bytes;
			m->spare[i].block = nullptr;
			m->spare[i].bytes = 0;
			return 0;
		}
	p->bytes = bytes + bytes / 4; // the next row may need a few runs more
	return lk_cuda_check(dev, "attention schedule", cudaMalloc(&p->block, p->bytes));
}

/* The least of the blocks at hand goes back to CUDA. */
static void give_block(struct lk_dev *dev, struct plan *p)
{
	struct attn_mem *m = mem_of(dev);
	void *least = p->block;
	size_t bytes = p->bytes;

	for (int i = 0; m && i < SPARES; i++)
		if (m->spare[i].bytes < bytes) {
			void *block = m->spare[i].block;
			size_t room = m->spare[i].bytes;

			m->spare[i].block = least;
			m->spare[i].bytes = bytes;
			least = block;
			bytes = room;
		}
	cudaFree(least);
}

static void free_plans(struct lk_dev *dev, void *list)
{
	struct plan *p = static_cast<struct plan *>(list);

	while (p) {
		struct plan *next = p->next;

		if (p->dev == dev)
			give_block(dev, p);
		else
			cudaFree(p->block); // a fork's, which may be closed by now; cudaFree waits for every queue
		free(p);
		p = next;
	}
}

static size_t round_16(size_t bytes)
{
	return (bytes + 15) / 16 * 16;
}

static int upload_plan(struct lk_dev *dev, struct plan *p, const struct lk_sched *s)
{
	size_t tiles = static_cast<size_t>(s->tiles), head = (2 * tiles + 1) * sizeof *s->start;
	size_t runs = static_cast<size_t>(s->nruns) * sizeof *s->runs;
	int rc = take_block(dev, p, round_16(head) + runs + 16);
	char *at = static_cast<char *>(p->block);

	if (rc)
		return rc;
	p->sched.start = reinterpret_cast<int32_t *>(at);
	p->sched.order = p->sched.start + tiles + 1;
	p->sched.runs = reinterpret_cast<struct lk_sched_run *>(at + round_16(head));
	p->sched.tiles = static_cast<int32_t>(tiles);
	p->sched.joined = s->joined;
	rc = dev->ops.memory.upload(dev, at, s->start, head);
	if (!rc && runs)
		rc = dev->ops.memory.upload(dev, at + round_16(head), s->runs, runs);
	return rc;
}

static struct plan *plan_new(struct lk_dev *dev, const struct lk_attn_job *j, int bq, int bk, int by_key, int *rc)
{
	struct plan *p = static_cast<struct plan *>(calloc(1, sizeof *p));
	struct lk_sched s;

	*rc = p ? lk_sched_make(&s, j->qs, j->ks, j->causal, bq, bk, by_key) : LK_ENOMEM;
	if (*rc) {
		lk_cuda_fail(dev, *rc, "attention: no memory for the schedule of %" PRId64 " queries and %" PRId64 " keys",
			     j->tq, j->tk);
		free(p);
		return nullptr;
	}
	p->dev = dev;
	p->keys = lk_seq_cuda(j->ks)->id;
	p->causal = j->causal;
	p->bq = bq;
	p->bk = bk;
	p->by_key = by_key;
	*rc = upload_plan(dev, p, &s);
	lk_sched_free(&s);
	if (*rc) {
		cudaFree(p->block);
		free(p);
		return nullptr;
	}
	return p;
}

int lk_attn_sched_get(struct lk_dev *dev, const struct lk_attn_job *j, int bq, int bk, int by_key,
		      struct lk_attn_sched *out)
{
	struct lk_cuda_seq *cs = lk_seq_cuda(j->qs);
	uint64_t keys = lk_seq_cuda(j->ks)->id;
	struct plan *p;
	int rc = 0;

	for (p = static_cast<struct plan *>(cs->plan); p; p = p->next)
		if (p->keys == keys && p->dev == dev && p->causal == j->causal && p->bq == bq && p->bk == bk &&
		    p->by_key == by_key)
			break;
	if (!p) {
		p = plan_new(dev, j, bq, bk, by_key, &rc);
		if (!p)
			return rc;
		p->next = static_cast<struct plan *>(cs->plan);
		cs->plan = p;
		cs->plan_free = free_plans;
	}
	*out = p->sched;
	return 0;
}

void lk_cuda_close_attn(struct lk_dev *dev)
{
	struct attn_mem *m = static_cast<struct attn_mem *>(lk_cu(dev)->attn);

	for (int i = 0; m && i < SPARES; i++)
		cudaFree(m->spare[i].block);
	free(m);
	lk_cu(dev)->attn = nullptr;
}
