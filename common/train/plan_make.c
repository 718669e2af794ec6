/* What a stage takes: sizes of an objective that is open without its weights, added up; and whether that fits. */
#include "common/train/plan_int.h"

#include <stdio.h>

#include "common/base/launch.h"
#include "common/base/num.h"
#include "common/base/path.h"
#include "common/comm/device.h"

/* On a GPU that is not here, from what is published: the driver's and cuBLAS's memory of a process; and of NCCL's buffers for each
 * group, in 16 channels, for what the neighbour sends 4 MiB (simple), 4.7 (LL128) and 0.5 (LL): NCCL_BUFFSIZE and its kin. */
enum { CONTEXT = 512 << 20, GROUP = 148 << 20 };
/* On a host, what a process has that runs and one that plans has not, measured: code and buffers of libraries; Open MPI 4.1. */
enum { LATER = 4 << 20, MPI = 8 << 20 };

#define KIND_NAME(constant, name) name,
const char *const lwm_plan_kinds[LWM_PLAN_ALL] = { LWM_PLAN_KINDS(KIND_NAME) };

/* Groups whose ranks exchange memory of GPUs, each once. */
static int count_groups(const struct lwm_mesh *m, const struct lwm_cut *cut)
{
	int group[] = { LWM_GRAD, LWM_TP, LWM_SP, LWM_SHARD, LWM_DP }, all = cut->shards > 1 ? 5 : 3, n = 0;

	for (int i = 0; i < all; i++) {
		bool again = lwm_mesh_ranks(m, group[i]) == 1;

		for (int k = 0; k < i; k++)
			again = again || lwm_mesh_same(m, group[i], group[k]);
		n += !again;
	}
	return n;
}

/* p->device_free is known. */
static void size_rank(struct lwm_plan *p, const struct lwm_objective *o, const struct lwm_cut *cut, int64_t program)
{
	struct lwm_stage_room room = lwm_stage_room_of(o, cut);
	bool here = !o->stage->plan_gib, host = lk_dev_is_host(o->dev) && here;
	int64_t *b = p->bytes, first;

	b[LWM_PLAN_WEIGHTS] = room.own;
	b[LWM_PLAN_GATHERED] = room.gathered;
	b[LWM_PLAN_GRADIENTS] = room.gradients;
	b[LWM_PLAN_MOMENTS] = room.moments;
	b[LWM_PLAN_AVERAGE] = room.average;
	b[LWM_PLAN_ACTIVATIONS] = o->memory_bytes - o->ring_bytes; /* each of them a block */
	b[LWM_PLAN_RING] = host ? o->ring_fills : o->ring_bytes;
	for (int i = LWM_PLAN_ACTIVATIONS; here && i <= LWM_PLAN_RING; i++)
		b[i] = lk_mem_own(o->dev, b[i]);
	if (host) {
		b[LWM_PLAN_KERNELS] = o->own_bytes;
		b[LWM_PLAN_BATCHES] = o->array_bytes - o->exchange_bytes + o->host_bytes;
		b[LWM_PLAN_EXCHANGE] = o->exchange_bytes + room.work;
		p->waits = o->stage->save_behind == LWM_BEHIND_AUTO && room.copy && !lwm_stage_copy_fits(o, &room, p->device_free);
		b[LWM_PLAN_COPY] = p->waits ? 0 : room.copy;
		b[LWM_PLAN_PROGRAM] = program + LATER + (lwm_plan_ranks(p) > 1 ? MPI : 0);
	} else {
		b[LWM_PLAN_EXCHANGE] = (int64_t)count_groups(&p->mesh, cut) * GROUP;
		p->copy_host = room.copy;
		b[LWM_PLAN_PROGRAM] = here ? 0 : CONTEXT; /* of one that is here its driver tells what is left */
	}
	p->per_rank = 0;
	for (int i = 0; i < LWM_PLAN_LOADING; i++)
		p->per_rank += b[i];
	first = here ? lk_mem_own(o->dev, o->loading_bytes) : o->loading_bytes;
	first += (host ? o->loading_own + o->loading_arrays : 0) + b[LWM_PLAN_PROGRAM];
	b[LWM_PLAN_LOADING] = o->loading_bytes && first > p->per_rank ? first - p->per_rank : 0;
	p->per_rank += b[LWM_PLAN_LOADING];
}

bool lwm_plan_is_safe(const struct lwm_plan *p)
{
	return p->device_free - p->per_rank >= p->device_free / LWM_PLAN_MARGIN;
}

/* The words of a plan that fits. */
static void praise(struct lwm_plan *p, bool complete)
{
	char spare[32];

	lwm_bytes_text((double)(p->device_free - p->per_rank), spare, sizeof spare);
	snprintf(p->verdict, sizeof p->verdict, "fits%s, with %s to spare%s%s%s%s", lwm_plan_is_safe(p) ? "" : " barely", spare,
		 lwm_plan_is_safe(p) ? "" : ", less than the margin", complete ? "" : "; an input is not there",
		 p->time.step > 0 ? "; most of a step is " : "", p->time.step > 0 ? p->time.limit : "");
}

void lwm_plan_judge(struct lwm_plan *p, const struct lwm_stage *s, bool complete)
{
	int64_t need = p->checkpoint * (s->keep + 1);
	const char *what = NULL;

	if (p->per_rank > p->device_free)
		what = "does not fit: a rank needs more memory than the device has free";
	else if (p->space >= 0 && need > p->space)
		what = "does not fit: the checkpoints need more disk than is free at --output";
	p->code = what ? LWM_ECONFIG : 0;
	if (what)
		snprintf(p->verdict, sizeof p->verdict, "%s", what);
	else
		praise(p, complete);
}

/* On a host ranks share the memory: as many as a node has by --plan-node-ranks, as a launcher started, or, where one process plans
 * for others, all of them. A GPU is its rank's own. */
static int64_t share_of(const struct lwm_stage *s, int64_t bytes, int64_t ranks)
{
	int64_t told = lwm_launch_local_size(), here = s->rates.node_ranks;

	if (here <= 0)
		here = told > 1 || (told == 1 && lwm_launch_size() == ranks) ? told : ranks;
	return bytes / (here < ranks ? here : ranks);
}

int lwm_plan_make(struct lwm_plan *p, const struct lwm_stage *s, struct lwm_objective *o, int64_t program, struct lwm_err *e)
{
	bool host = lk_dev_is_host(o->dev) && !s->plan_gib;
	size_t mem_free, mem_total;
	struct lwm_cut cut;
	int rc = 0;

	LWM_TRY(lwm_dev_check(o->dev, lk_dev_memory(o->dev, &mem_free, &mem_total), e));
	LWM_TRY(lwm_stage_cut(&cut, o, 0, e));
	p->device_free = s->plan_gib ? s->plan_gib << 30 : (int64_t)mem_free;
	if (host)
		p->device_free = share_of(s, p->device_free, lwm_plan_ranks(p));
	size_rank(p, o, &cut, program);
	p->checkpoint = o->tensors.params * (s->ema > 0 ? 16 : 12);
	p->saves = (s->checkpoint_every ? (s->steps - 1) / s->checkpoint_every : 0) + 1;
	p->space = lwm_space_free(s->out);
	p->tokens = (double)o->units_per_step * (double)s->steps;
	p->work = (struct lwm_step_work){ 0 };
	if (o->type->work)
		rc = o->type->work(o, &p->work, e);
	if (rc == 0)
		lwm_plan_time(p, o, &cut, host);
	if (rc == 0)
		lwm_plan_judge(p, s, !o->absent.code);
	lwm_cut_release(&cut);
	return rc;
}
