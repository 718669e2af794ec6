/* A plan as text for people, and as JSON: the same figures. */
#include <inttypes.h>

#include "common/base/num.h"
#include "common/train/plan_int.h"

/* "label          " */
static void start_line(struct lwm_str *out, const char *label)
{
	lwm_str_printf(out, "%-15s", label);
}

static void tell_memory(struct lwm_str *out, const struct lwm_plan *p, const struct lwm_objective *o)
{
	char a[32];
	const char *plus = " = ";

	start_line(out, "a rank");
	lwm_str_printf(out, "%s", lwm_bytes_text((double)p->per_rank, a, sizeof a));
	for (int k = 0; k < LWM_PLAN_ALL; k++) {
		if (!p->bytes[k])
			continue;
		lwm_str_printf(out, "%s%s %s", plus, lwm_bytes_text((double)p->bytes[k], a, sizeof a), lwm_plan_kinds[k]);
		plus = " + ";
	}
	lwm_str_putc(out, '\n');
	if (o->host_bytes)
		lwm_str_printf(out, "host memory    %s, pinned, for activations of a rank\n",
			       lwm_bytes_text((double)o->host_bytes, a, sizeof a));
	if (p->copy_host)
		lwm_str_printf(out, "host memory    %s, pinned, for the copy of a rank that checkpoints are written from\n",
			       lwm_bytes_text((double)p->copy_host, a, sizeof a));
	if (p->waits)
		lwm_str_puts(out, "saving         training waits: there is no memory for a copy to write checkpoints from\n");
}

static void tell_longest(struct lwm_str *out, const struct lwm_objective *o)
{
	char a[32];

	if (!o->longest && !o->longest_offload)
		return;
	lwm_str_printf(out, "longest row    %" PRId64 " tokens on one rank", o->longest);
	if (o->longest_offload)
		lwm_str_printf(out, "; %" PRId64 " with activations in %s of host memory", o->longest_offload,
			       lwm_bytes_text((double)o->longest_host_bytes, a, sizeof a));
	lwm_str_putc(out, '\n');
}

static void tell_work(struct lwm_str *out, const struct lwm_plan *p, const struct lwm_stage *s, const struct lwm_objective *o)
{
	char a[32];

	start_line(out, "work");
	lwm_str_printf(out, "%" PRId64 " steps of %s %ss = %.4g %ss", s->steps, lwm_count_text(o->units_per_step, a, sizeof a),
		       o->type->unit, p->tokens, o->type->unit);
	if (o->most_flops > 0)
		lwm_str_printf(out, "; at most %.4g FLOP a step, %.4g in all (if each row were one document)", o->most_flops,
			       o->most_flops * (double)s->steps);
	lwm_str_putc(out, '\n');
}

/* Bytes of a rank and step, by whom they go to. */
static void tell_sent(struct lwm_str *out, const struct lwm_plan *p)
{
	const char *comma = "";
	char a[32];

	for (int w = 0; w < LWM_WAYS; w++) {
		const struct lwm_plan_sent *x = &p->sent[w];

		if (!(x->bytes > 0))
			continue;
		if (!*comma)
			start_line(out, "sent");
		lwm_str_printf(out, "%s%s to %s (%d ranks)", comma, lwm_bytes_text(x->bytes, a, sizeof a), lwm_plan_ways[w],
			       x->ranks);
		comma = ", ";
	}
	if (*comma)
		lwm_str_printf(out, " by a rank in a step\n");
}

static void tell_time(struct lwm_str *out, const struct lwm_plan *p, const struct lwm_stage *s, const struct lwm_objective *o)
{
	const struct lwm_plan_time *t = &p->time;
	int ranks = lwm_plan_ranks(p);
	double hours = t->step * (double)s->steps / 3600;

	if (!(t->step > 0))
		return;
	start_line(out, "a step");
	lwm_str_printf(out, "%.4g s: %.3g products, %.3g attention, %.3g memory", t->step, t->products, t->attention, t->moved);
	for (int w = 0; w < LWM_WAYS; w++)
		if (p->sent[w].seconds > 0)
			lwm_str_printf(out, ", %.3g of %.3g waiting for %s", p->sent[w].waits, p->sent[w].seconds,
				       lwm_plan_ways[w]);
	lwm_str_printf(out, "; %.4g %ss/s\n", (double)o->units_per_step / t->step, o->type->unit);
	start_line(out, "the stage");
	lwm_str_printf(out, "%.4g hours, %.4g of all ranks together\n", hours, hours * ranks);
}

static void tell_checkpoints(struct lwm_str *out, const struct lwm_plan *p, const struct lwm_stage *s)
{
	char a[32], b[32];

	start_line(out, "checkpoint");
	lwm_str_printf(out, "%s, %" PRId64 " kept; %s free\n", lwm_bytes_text((double)p->checkpoint, a, sizeof a), s->keep,
		       p->space < 0 ? "unknown" : lwm_bytes_text((double)p->space, b, sizeof b));
	start_line(out, "");
	lwm_str_printf(out, "%" PRId64 " in the stage write %s", p->saves,
		       lwm_bytes_text((double)p->checkpoint * (double)p->saves, a, sizeof a));
	if (s->rates.disk > 0)
		lwm_str_printf(out, ", %.3g s each", (double)p->checkpoint / (s->rates.disk * 1e9));
	lwm_str_putc(out, '\n');
}

void lwm_plan_text(struct lwm_str *out, const struct lwm_plan *p, const struct lwm_stage *s, const struct lwm_objective *o)
{
	char a[32], grid[LWM_MESH_TEXT];

	int64_t tensors, trained = lwm_choose_trained(&o->tensors, &tensors);

	lwm_str_printf(out, "model          %s, %s parameters", o->type->kind, lwm_count_text(o->tensors.params, a, sizeof a));
	if (trained < o->tensors.params)
		lwm_str_printf(out, "; %s of them train, in %" PRId64 " of %" PRId64 " tensors", lwm_count_text(trained, a, sizeof a),
			       tensors, o->tensors.n);
	lwm_str_putc(out, '\n');
	lwm_str_printf(out, "mesh           %s\n", lwm_mesh_words(p->mesh.dim, true, grid));
	tell_memory(out, p, o);
	tell_longest(out, o);
	lwm_str_printf(out, "device         %s, %s free%s\n", s->plan_gib ? "a GPU that is not here" : lk_dev_name(o->dev),
		       lwm_bytes_text((double)p->device_free, a, sizeof a),
		       lk_dev_is_host(o->dev) && !s->plan_gib ? " for each rank" : "");
	tell_checkpoints(out, p, s);
	tell_work(out, p, s, o);
	lwm_str_puts(out, lwm_str_get(&o->plan_lines));
	tell_sent(out, p);
	tell_time(out, p, s, o);
}

/* ---- JSON ---- */

/* 15 digits: bytes are whole. */
static void add_number(struct lwm_str *out, const char *key, double value)
{
	bool first = out->len && lwm_str_get(out)[out->len - 1] == '{';

	lwm_str_printf(out, "%s\"%s\":", first ? "" : ",", key);
	lwm_str_number(out, value, 15);
}

static void add_memory(struct lwm_str *out, const struct lwm_plan *p)
{
	lwm_str_printf(out, ",\"memory\":{");
	for (int k = 0; k < LWM_PLAN_ALL; k++)
		add_number(out, lwm_plan_kinds[k], (double)p->bytes[k]);
	lwm_str_putc(out, '}');
}

static void add_sent(struct lwm_str *out, const struct lwm_plan *p)
{
	lwm_str_printf(out, ",\"sent_per_step\":{");
	for (int w = 0; w < LWM_WAYS; w++)
		add_number(out, lwm_plan_ways[w], p->sent[w].bytes);
	lwm_str_putc(out, '}');
}

static void add_time(struct lwm_str *out, const struct lwm_plan *p, const struct lwm_stage *s)
{
	const struct lwm_plan_time *t = &p->time;
	int ranks = lwm_plan_ranks(p);

	if (!(t->step > 0))
		return;
	add_number(out, "step_seconds", t->step);
	lwm_str_printf(out, ",\"seconds\":{");
	add_number(out, "products", t->products);
	add_number(out, "attention", t->attention);
	add_number(out, "memory", t->moved);
	for (int w = 0; w < LWM_WAYS; w++)
		add_number(out, lwm_plan_ways[w], p->sent[w].waits);
	lwm_str_putc(out, '}');
	add_number(out, "hours", t->step * (double)s->steps / 3600);
	add_number(out, "rank_hours", t->step * (double)s->steps / 3600 * ranks);
	lwm_str_printf(out, ",\"limit\":\"%s\"", t->limit);
}

static void add_rates(struct lwm_str *out, const struct lwm_rates *r)
{
	if (!lwm_rates_known(r))
		return;
	lwm_str_printf(out, ",\"rates\":{");
	add_number(out, "tflops", r->products);
	add_number(out, "attention_tflops", r->attention);
	add_number(out, "memory", r->memory);
	add_number(out, "node", r->node);
	add_number(out, "net", r->net);
	add_number(out, "host", r->host);
	add_number(out, "disk", r->disk);
	add_number(out, "latency_us", r->latency);
	add_number(out, "node_ranks", (double)r->node_ranks);
	lwm_str_putc(out, '}');
}

void lwm_plan_json(struct lwm_str *out, const struct lwm_plan *p, const struct lwm_stage *s, const struct lwm_objective *o)
{
	const int64_t *b = p->bytes;
	char grid[LWM_MESH_TEXT];
	int64_t tensors;

	lwm_str_printf(out, "{\"kind\":\"%s\",\"parameters\":%" PRId64 ",\"mesh\":[%s],\"bytes_per_rank\":%" PRId64
	       ",\"bytes_weights\":%" PRId64 ",\"bytes_activations\":%" PRId64 ",\"bytes_kernels\":%" PRId64
	       ",\"bytes_batches\":%" PRId64 ",\"bytes_program\":%" PRId64 ",\"bytes_host\":%" PRId64 ",\"bytes_copy\":%" PRId64 ",\"longest_row\":%" PRId64
	       ",\"longest_row_offload\":%" PRId64 ",\"device_free\":%" PRId64
	       ",\"checkpoint_bytes\":%" PRId64 ",\"disk_free\":%" PRId64 ",\"steps\":%" PRId64
	       ",\"units_per_step\":%" PRId64,
	       o->type->kind, o->tensors.params, lwm_mesh_text(p->mesh.dim, grid), p->per_rank,
	       b[LWM_PLAN_WEIGHTS] + b[LWM_PLAN_GATHERED] + b[LWM_PLAN_GRADIENTS] + b[LWM_PLAN_MOMENTS] + b[LWM_PLAN_AVERAGE],
	       b[LWM_PLAN_ACTIVATIONS] + b[LWM_PLAN_RING], b[LWM_PLAN_KERNELS], b[LWM_PLAN_BATCHES] + b[LWM_PLAN_EXCHANGE],
	       b[LWM_PLAN_PROGRAM], o->host_bytes, b[LWM_PLAN_COPY] + p->copy_host, o->longest, o->longest_offload,
	       p->device_free, p->checkpoint, p->space, s->steps, o->units_per_step);
	if (o->most_flops > 0)
		lwm_str_printf(out, ",\"most_flops_per_step\":%.9g", o->most_flops);
	add_number(out, "trained_parameters", (double)lwm_choose_trained(&o->tensors, &tensors));
	add_memory(out, p);
	add_sent(out, p);
	add_number(out, "checkpoints", (double)p->saves);
	add_number(out, "checkpoint_traffic", (double)p->checkpoint * (double)p->saves);
	add_rates(out, &s->rates);
	add_time(out, p, s);
	lwm_str_puts(out, lwm_str_get(&o->plan_json));
	lwm_str_printf(out, ",\"fits\":%s,\"verdict\":\"%s\"", p->code ? "false" : "true", p->verdict);
}
