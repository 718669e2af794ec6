/* What a stage would take, before it is queued: the objective is opened without its weights, and its sizes are added up. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/num.h"
#include "common/base/path.h"
#include "common/comm/device.h"
#include "common/io/ckpt.h"
#include "common/train/objective.h"
#include "common/train/start.h"
#include "common/train/supply.h"

struct plan { /* bytes */
	int64_t weights, activations;  /* of a rank */
	int64_t program, own, arrays;  /* of a rank too where the device's memory is the host's; else 0 */
	int64_t copy;                  /* that checkpoints are written from, in host memory; 0: none */
	bool waits;                    /* --save-behind auto, and there is no room for that */
	int64_t per_rank, device_free; /* all of these; what there is for them */
	int64_t checkpoint, space;     /* of one; free at the output, -1 unknown */
	double tokens;                 /* units of all steps */
	const char *verdict;
	int code;                      /* of the verdict; 0: it fits */
};

static void judge_plan(struct plan *p, const struct lwm_stage *s, bool complete)
{
	int64_t need = p->checkpoint * (s->keep + 1);
	if (p->per_rank > p->device_free) {
		p->verdict = "does not fit: a rank needs more memory than the device has free";
		p->code = LWM_ECONFIG;
	} else if (p->space >= 0 && need > p->space) {
		p->verdict = "does not fit: the checkpoints need more disk than is free at --output";
		p->code = LWM_ECONFIG;
	} else if (!complete) {
		p->verdict = "fits; an input is not there";
	} else {
		p->verdict = "fits";
	}
}

static void print_text(struct lwm_str *out, const struct plan *p, const struct lwm_stage *s, const struct lwm_objective *o,
		       const struct lwm_mesh *m)
{
	char a[32], b[32], c[32], grid[LWM_MESH_TEXT];
	lwm_str_printf(out, "model          %s, %s parameters\n", o->type->kind, lwm_count_text(o->tensors.params, a, sizeof a));
	lwm_str_printf(out, "mesh           %s\n", lwm_mesh_words(m->dim, true, grid));
	lwm_str_printf(out, "a rank         %s = %s weights, gradient, optimizer + %s activations",
	       lwm_bytes_text((double)p->per_rank, a, sizeof a), lwm_bytes_text((double)p->weights, b, sizeof b),
	       lwm_bytes_text((double)p->activations, c, sizeof c));
	if (p->program)
		lwm_str_printf(out, " + %s kernels + %s batches + %s the program itself", lwm_bytes_text((double)p->own, a, sizeof a),
			       lwm_bytes_text((double)p->arrays, b, sizeof b), lwm_bytes_text((double)p->program, c, sizeof c));
	if (p->program && p->copy)
		lwm_str_printf(out, " + %s copy for checkpoints", lwm_bytes_text((double)p->copy, a, sizeof a));
	lwm_str_putc(out, '\n');
	if (o->host_bytes)
		lwm_str_printf(out, "host memory    %s, pinned, for activations of a rank\n",
			       lwm_bytes_text((double)o->host_bytes, a, sizeof a));
	if (!p->program && p->copy)
		lwm_str_printf(out, "host memory    %s, pinned, for the copy of a rank that checkpoints are written from\n",
			       lwm_bytes_text((double)p->copy, a, sizeof a));
	if (p->waits)
		lwm_str_puts(out, "saving         training waits: there is no memory for a copy to write checkpoints from\n");
	if (o->longest || o->longest_offload)
		lwm_str_printf(out, "longest row    %" PRId64 " tokens on one rank", o->longest);
	if (o->longest_offload)
		lwm_str_printf(out, "; %" PRId64 " with activations in %s of host memory", o->longest_offload,
			       lwm_bytes_text((double)o->longest_host_bytes, a, sizeof a));
	if (o->longest || o->longest_offload)
		lwm_str_putc(out, '\n');
	lwm_str_printf(out, "device         %s, %s free\n", s->plan_gib ? "a GPU that is not here" : lk_dev_name(o->dev),
	       lwm_bytes_text((double)p->device_free, a, sizeof a));
	lwm_str_printf(out, "checkpoint     %s, %" PRId64 " kept; %s free\n",
	       lwm_bytes_text((double)p->checkpoint, a, sizeof a), s->keep,
	       p->space < 0 ? "unknown" : lwm_bytes_text((double)p->space, b, sizeof b));
	lwm_str_printf(out, "work           %" PRId64 " steps of %s %ss = %.4g %ss", s->steps,
		       lwm_count_text(o->units_per_step, a, sizeof a), o->type->unit, p->tokens, o->type->unit);
	if (o->most_flops > 0)
		lwm_str_printf(out, "; at most %.4g FLOP a step, %.4g in all (if each row were one document)", o->most_flops,
			       o->most_flops * (double)s->steps);
	lwm_str_putc(out, '\n');
	lwm_str_printf(out, "verdict        %s\n", p->verdict);
}

static void print_json(struct lwm_str *out, const struct plan *p, const struct lwm_stage *s, const struct lwm_objective *o,
		       const struct lwm_mesh *m)
{
	char grid[LWM_MESH_TEXT];
	lwm_str_printf(out, "{\"kind\":\"%s\",\"parameters\":%" PRId64 ",\"mesh\":[%s],\"bytes_per_rank\":%" PRId64
	       ",\"bytes_weights\":%" PRId64 ",\"bytes_activations\":%" PRId64 ",\"bytes_kernels\":%" PRId64
	       ",\"bytes_batches\":%" PRId64 ",\"bytes_program\":%" PRId64 ",\"bytes_host\":%" PRId64 ",\"bytes_copy\":%" PRId64
	       ",\"longest_row\":%" PRId64
	       ",\"longest_row_offload\":%" PRId64 ",\"device_free\":%" PRId64
	       ",\"checkpoint_bytes\":%" PRId64 ",\"disk_free\":%" PRId64 ",\"steps\":%" PRId64
	       ",\"units_per_step\":%" PRId64,
	       o->type->kind, o->tensors.params, lwm_mesh_text(m->dim, grid), p->per_rank, p->weights, p->activations,
	       p->own, p->arrays, p->program, o->host_bytes, p->copy, o->longest, o->longest_offload, p->device_free, p->checkpoint,
	       p->space, s->steps,
	       o->units_per_step);
	if (o->most_flops > 0)
		lwm_str_printf(out, ",\"most_flops_per_step\":%.9g", o->most_flops);
	lwm_str_printf(out, ",\"fits\":%s,\"verdict\":\"%s\"}\n", p->code ? "false" : "true", p->verdict);
}

/* The whole process where the device is the host, else the device's memory. What a rank takes before it allocates anything
 * (libraries, the BLAS's buffers, files that are open) this process has in it by now as well, but for MPI's part: it is
 * measured here. */
static void size_rank(struct plan *p, const struct lwm_stage *s, const struct lwm_objective *o, struct lk_dev *dev,
		      const struct lwm_cut *cut)
{
	struct lwm_stage_room room = lwm_stage_room_of(o, cut);

	p->weights = room.weights;
	p->activations = o->memory_bytes;
	p->copy = room.copy;
	if (lk_dev_is_host(dev) && !s->plan_gib) {
		p->own = o->own_bytes;
		p->arrays = o->array_bytes + o->host_bytes + room.work;
		p->program = (int64_t)lwm_rss();
		p->waits = s->save_behind == LWM_BEHIND_AUTO && room.copy && !lwm_stage_copy_fits(o, &room, p->device_free);
		p->copy = p->waits ? 0 : room.copy;
	}
	p->per_rank = p->weights + p->activations + p->own + p->arrays + p->program + (p->program ? p->copy : 0);
}

/* Does what the first weights come from exist? A run that resumes from a checkpoint of its own wants none. */
static int look_at_source(const struct lwm_stage *s, struct lwm_objective *o, struct lwm_err *e)
{
	struct lwm_start from;
	char *own = NULL;
	int rc = 0;
	LWM_TRY(lwm_start_parse(&from, s->start_from, e));
	if (!from.source)
		return 0;
	if (lwm_path_folder(s->out, NULL) > 0 && lwm_ckpt_latest(&own, s->out, true, LWM_CKPT_QUICK, NULL, NULL, NULL) == 0 && own)
		goto out;
	rc = lwm_start_look(&from, s->older_ok, o->tokenizer_hash, &o->tensors, e);
	rc = lwm_objective_absent(o, rc, e);
out:
	free(own);
	return rc;
}

int lwm_stage_plan(const struct lwm_stage *given, int ranks, bool json, struct lwm_str *out, struct lwm_err *e)
{
	struct lwm_stage s = *given;
	struct lwm_mesh m = { .dim = { 0 } };
	struct lwm_objective *o = NULL;
	struct lk_dev *dev = NULL;
	struct lwm_cut cut = { .n = 0 };
	struct plan p = { .code = 0 };
	size_t mem_free, mem_total;
	int rc;
	s.planning = true;
	LWM_TRY(lwm_stage_check(&s, ranks, e));
	LWM_TRY(lwm_mesh_parse(s.mesh_dim, ranks, m.dim, e));
	LWM_GO(lwm_device_open(&dev, s.device, s.threads, e));
	LWM_GO(lwm_objective_open(&o, lwm_objectives[s.objective], &s, &m, dev, e));
	LWM_GO(lwm_dev_check(dev, lk_dev_memory(dev, &mem_free, &mem_total), e));
	LWM_GO(lwm_stage_cut(&cut, o, 0, e));
	p.device_free = s.plan_gib ? s.plan_gib << 30 : (int64_t)mem_free;
	size_rank(&p, &s, o, dev, &cut);
	p.checkpoint = o->tensors.params * 12;
	p.space = lwm_space_free(s.out);
	p.tokens = (double)o->units_per_step * (double)s.steps;
	LWM_GO(look_at_source(&s, o, e));
	judge_plan(&p, &s, !o->absent.code);
	json ? print_json(out, &p, &s, o, &m) : print_text(out, &p, &s, o, &m);
	if (p.code)
		rc = lwm_fail(e, p.code, "the plan %s", p.verdict);
	else if (o->absent.code)
		rc = lwm_fail(e, -o->absent.code, "%s", o->absent.msg);
out:
	lwm_cut_release(&cut);
	lwm_objective_free(o);
	lk_dev_close(dev);
	return rc;
}
