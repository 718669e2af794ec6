/* plan_int.h - the plan of a stage inside: plan.c (what is asked) calls plan_suggest.c (which mesh), both call plan_text.c (what is
 * said) and plan_make.c (sizes, verdict), which calls plan_time.c (seconds). */
#ifndef LWM_TRAIN_PLAN_INT_H
#define LWM_TRAIN_PLAN_INT_H

#include "common/train/objective.h"
#include "common/train/supply.h"

/* Bytes of a rank by kind, in the order in which they are told. On a host all of the process; on a GPU what lies in its memory. */
#define LWM_PLAN_KINDS(kind)                                                                    \
	kind(WEIGHTS, "weights")         /* those in fp32 beside them too */                    \
	kind(GATHERED, "gathered")       /* slots of weights that others own */                 \
	kind(GRADIENTS, "gradients")     /* own, and slots of those on their way */             \
	kind(MOMENTS, "moments")                                                                \
	kind(AVERAGE, "average")         /* of the weights, --ema */                            \
	kind(ACTIVATIONS, "activations") /* kept, worked on, logits */                          \
	kind(RING, "ring")               /* keys, values and gradients that travel */           \
	kind(KERNELS, "kernels")         /* what kernels take for themselves */                 \
	kind(BATCHES, "batches")                                                                \
	kind(EXCHANGE, "exchange")       /* work space of communicators, on GPUs NCCL's */      \
	kind(COPY, "copy")               /* that checkpoints are written from; of a GPU, see copy_host */ \
	kind(PROGRAM, "program")         /* libraries, open files; on GPUs what a process takes at once */ \
	kind(LOADING, "loading")         /* before there are weights, what goes beyond all of the above */
#define LWM_PLAN_KIND(constant, name) LWM_PLAN_##constant,
enum lwm_plan_kind { LWM_PLAN_KINDS(LWM_PLAN_KIND) LWM_PLAN_ALL };
extern const char *const lwm_plan_kinds[LWM_PLAN_ALL];

/* Whom a rank sends to in a step. */
enum lwm_plan_way { LWM_WAY_TP, LWM_WAY_RING, LWM_WAY_SHARDS, LWM_WAY_REPLICAS, LWM_WAYS };
extern const char *const lwm_plan_ways[LWM_WAYS];
struct lwm_plan_sent {
	double bytes, calls;
	int ranks, span;       /* of the group; among how many consecutive ranks it lies */
	double seconds, waits; /* that it takes alone; that are left where it runs beside arithmetic */
};

struct lwm_plan_time {
	double products, attention, moved, offloaded; /* seconds of a step */
	double step;                                  /* of all of it; 0: rates are not known */
	const char *limit;                            /* what takes the largest part */
};

struct lwm_plan {
	struct lwm_mesh mesh;
	int64_t bytes[LWM_PLAN_ALL], per_rank;
	int64_t copy_host;         /* the copy where it is beside a GPU, pinned */
	bool waits;                /* --save-behind auto, and there is no room for the copy */
	int64_t device_free;       /* for all of these: of a host the rank's share */
	int64_t checkpoint, space; /* of one; free at the output, -1 unknown */
	int64_t saves;             /* checkpoints of the stage */
	double tokens;             /* units of all steps */
	struct lwm_step_work work; /* zero where the objective does not say */
	struct lwm_plan_sent sent[LWM_WAYS];
	struct lwm_plan_time time;
	char verdict[192];
	int code;                  /* of the verdict; 0: it fits */
};

/* Pure. */
static inline int lwm_plan_ranks(const struct lwm_plan *p)
{
	return lwm_mesh_ranks(&p->mesh, LWM_GRAD) * p->mesh.dim[LWM_TP];
}

/* ---- plan_make.c ---- */

/* Fills *p for an objective that is open for planning (its mesh is p->mesh). program: bytes of a process that has begun. */
int lwm_plan_make(struct lwm_plan *p, const struct lwm_stage *s, struct lwm_objective *o, int64_t program, struct lwm_err *e);

/* A configuration should leave one part in so many of a device's memory: what a plan may be wrong by, and what allocators, NCCL and
 * other programs take. What leaves less fits barely, and is not suggested. */
enum { LWM_PLAN_MARGIN = 20 };
bool lwm_plan_is_safe(const struct lwm_plan *p); /* pure */

/* Pure. Verdict and code. complete: no input is missing. */
void lwm_plan_judge(struct lwm_plan *p, const struct lwm_stage *s, bool complete);

/* ---- plan_time.c ---- */

/* Pure: what is sent, and the time of a step where rates are known. host: ranks compute with the memory that they send from. */
void lwm_plan_time(struct lwm_plan *p, const struct lwm_objective *o, const struct lwm_cut *cut, bool host);

/* ---- plan_text.c ---- */

void lwm_plan_text(struct lwm_str *out, const struct lwm_plan *p, const struct lwm_stage *s, const struct lwm_objective *o);
/* Without the closing brace. */
void lwm_plan_json(struct lwm_str *out, const struct lwm_plan *p, const struct lwm_stage *s, const struct lwm_objective *o);

/* ---- plan_suggest.c ---- */

/* The best meshes and ways for `ranks` ranks, as lines or as a member of JSON. -LWM_EUSAGE: rates are not known. */
int lwm_plan_suggest(struct lwm_str *out, const struct lwm_stage *s, int ranks, struct lk_dev *dev, int64_t program, bool json,
		     struct lwm_err *e);

#endif
