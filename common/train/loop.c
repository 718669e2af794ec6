/* The run of a stage: opened, resumed or started, its steps, its end.
 *
 * A step, on every rank: the objective adds the gradient of its rows; gradients are summed and scattered, which gives the norm over
 * all ranks; the guards decide; AdamW on the own piece; weights are gathered. Between steps the ranks agree on what any of them
 * wishes: to stop, to save, to measure the peak, to commit a save that was written meanwhile. Every decision is the same on all
 * ranks, for each is waited for by the others.
 */
#include "common/train/stage.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/launch.h"
#include "common/base/lock.h"
#include "common/base/log.h"
#include "common/base/num.h"
#include "common/base/stop.h"
#include "common/comm/device.h"
#include "common/comm/watchdog.h"
#include "common/train/history.h"
#include "common/train/metrics.h"
#include "common/train/peak.h"
#include "common/train/replicas.h"
#include "common/train/samples.h"
#include "common/train/save.h"
#include "common/train/saver.h"
#include "common/train/settings_record.h"
#include "common/train/supply.h"

enum { LOCK_SECONDS = 100 /* an NFS server forgets a dead node within 90 */ };

struct run {
	const struct lwm_stage *s;      /* borrowed, as is the next one */
	struct lwm_comm *world;
	struct lwm_mesh mesh;
	struct lk_dev *dev;
	struct lwm_objective *o;
	struct lwm_stage_supply w;
	struct lwm_replicas replicas;
	struct lwm_train_state st;
	struct lwm_scaling scaling;
	struct lwm_metrics *metrics;    /* rank 0 */
	struct lwm_lock *lock;          /* of the output folder; rank 0 */
	struct lwm_ckpt_keeper *keeper; /* rank 0 */
	struct lwm_saver *saver;
	bool copies;                    /* saves before the last one are behind the computation; the same on all ranks */
	double save_began, save_blocked; /* of the one under way: when, and seconds that the steps waited for it */
	int64_t saved_step, first_step; /* of the last checkpoint, -1 none; where this run began */
	double loss, began, wall;       /* of the step; when the run began, by lwm_now and since 1970 */
	double step_seconds, save_seconds; /* as last measured: the time limit has to leave room for both */
	char *stop_file;
	const char *why;                /* it was ended before its last step, "" otherwise */
	struct lwm_str hosts;           /* rank 0 */
	struct lwm_history_words words; /* what the watchdog writes down */
	bool peak_known; /* or tried in vain; rank 0 */
};

/* Bytes that a rank of this node can have before it takes any; -1: not known, as of a GPU's host. */
static int host_memory(const struct run *r, int64_t *bytes, struct lwm_err *e)
{
	int here = lwm_launch_local_size();
	size_t have, all;
	*bytes = -1;
	if (!lk_dev_is_host(r->dev))
		return 0;
	LWM_TRY(lwm_dev_check(r->dev, lk_dev_memory(r->dev, &have, &all), e));
	*bytes = (int64_t)have / (here > 0 ? here : 1);
	return 0;
}

static int reserve_copy(struct run *r, const struct lwm_stage_room *room, int64_t free_bytes, struct lwm_err *e)
{
	char a[32], b[32];
	if (free_bytes >= 0 && !lwm_stage_copy_fits(r->o, room, free_bytes))
		return lwm_fail(e, LWM_EMEMORY, "no room for a copy of %s that checkpoints are written from: a rank has %s of memory",
				lwm_bytes_text((double)room->copy, a, sizeof a), lwm_bytes_text((double)free_bytes, b, sizeof b));
	return lwm_saver_reserve(r->saver, e);
}

/* All ranks save behind the computation, or none does. */
static int open_saver(struct run *r, int64_t free_bytes, struct lwm_err *e)
{
	struct lwm_stage_room room = lwm_stage_room_of(r->o, &r->w.cut);
	struct lwm_err why = { 0 };
	char bytes[32];
	LWM_TRY(lwm_agree(r->world, lwm_saver_new(&r->saver, r->o, &r->w.w, e), e));
	if (!room.copy)
		return 0;
	int rc = lwm_agree(r->world, reserve_copy(r, &room, free_bytes, &why), &why);
	r->copies = rc == 0;
	if (rc == 0) {
		lwm_log(LWM_INFO, "checkpoints are written while training goes on, from a copy of %s",
			lwm_bytes_text((double)room.copy, bytes, sizeof bytes));
		return 0;
	}
	lwm_saver_unreserve(r->saver);
	if (rc == -LWM_EMEMORY && r->s->save_behind == LWM_BEHIND_AUTO) {
		if (lwm_comm_rank(r->world) == 0)
			lwm_log(LWM_WARN, "training waits while checkpoints are written: %s", why.msg);
		return 0;
	}
	*e = why;
	return rc;
}

static void tell_choice(const struct run *r)
{
	char part[32];
	int64_t tensors, n = lwm_choose_trained(&r->o->tensors, &tensors);
	if (n < r->o->tensors.params)
		lwm_log(LWM_INFO, "%s of them train, in %" PRId64 " of %" PRId64 " tensors", lwm_count_text(n, part, sizeof part),
			tensors, r->o->tensors.n);
}

static int open_run(struct run *r, struct lwm_err *e)
{
	char params[32], mem[32], act[32], grid[LWM_MESH_TEXT];
	int64_t free_bytes;
	LWM_TRY(lwm_agree(r->world, lwm_device_open_as(&r->dev, r->s->device, (enum lwm_dtype)r->s->dtype, r->s->threads, e), e));
	LWM_TRY(lwm_agree(r->world, lwm_mesh_new(&r->mesh, r->s->mesh_dim, r->world, e), e));
	LWM_TRY(lwm_mesh_attach(&r->mesh, r->dev, e));
	LWM_TRY(lwm_agree(r->world, lwm_objective_open(&r->o, lwm_objectives[r->s->objective], r->s, &r->mesh, r->dev, e), e));
	LWM_TRY(lwm_agree(r->world, host_memory(r, &free_bytes, e), e));
	LWM_TRY(lwm_supply_open(&r->w, r->o, &r->mesh, e));
	LWM_TRY(lwm_agree(r->world, lwm_replicas_open(&r->replicas, r->o, &r->w.w, e), e));
	LWM_TRY(open_saver(r, free_bytes, e));
	int64_t weights = lwm_stage_room_of(r->o, &r->w.cut).weights;
	lwm_log(LWM_INFO, "%s of %s parameters on %d rank%s (%s); a rank: %s of weights and state, %s of activations",
		r->o->type->kind, lwm_count_text(r->o->tensors.params, params, sizeof params), lwm_comm_size(r->world),
		lwm_comm_size(r->world) == 1 ? "" : "s", lwm_mesh_words(r->mesh.dim, false, grid),
		lwm_bytes_text((double)weights, mem, sizeof mem),
		lwm_bytes_text((double)r->o->memory_bytes, act, sizeof act));
	tell_choice(r);
	if (r->o->host_bytes)
		lwm_log(LWM_INFO, "activations of each layer wait in %s of pinned host memory",
			lwm_bytes_text((double)r->o->host_bytes, act, sizeof act));
	if (r->w.fsdp)
		lwm_log(LWM_INFO, "weights and gradients are cut over %d ranks", r->w.cut.shards);
	return 0;
}

/* What was recorded is compared after attaching: an objective may know the content of its data only then. */
static int same_settings(const struct run *r, const struct lwm_resumed *found, struct lwm_err *e)
{
	json_t *now = lwm_settings_record(r->s, r->o->data, r->o->network);
	int rc = now ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for the settings");

	if (rc == 0 && found->settings)
		rc = lwm_settings_compare(r->s, found->settings, now, found->dir, e);
	json_decref(now);
	return rc;
}

static void sync_metrics(void *ctx)
{
	lwm_metrics_sync(ctx);
}

static int open_records(struct run *r, const struct lwm_resumed *found, struct lwm_err *e)
{
	double given = r->s->peak_tflops * 1e12 * lwm_comm_size(r->world);
	LWM_TRY(lwm_stage_settle(r->s, found, r->st.step, e));
	LWM_TRY(lwm_metrics_open(&r->metrics, r->s, r->o, r->st.step, r->wall, lwm_str_get(&r->hosts), e));
	lwm_saver_before_commit(r->saver, sync_metrics, r->metrics);
	r->peak_known = given > 0 || !r->o->type->flops;
	return given > 0 && r->o->type->flops ? lwm_metrics_peak(r->metrics, r->st.step, given, "given", e) : 0;
}

static int load_state(struct run *r, struct lwm_err *e)
{
	struct lwm_resumed found = { .dir = "" };
	int rc = 0;
	if (lwm_comm_rank(r->world) == 0)
		rc = lwm_ckpt_keeper_new(&r->keeper, r->s->out, r->s->keep, r->s->keep_every, e);
	LWM_GO(lwm_agree(r->world, rc, e));
	LWM_GO(lwm_stage_scaling(r->s, &r->scaling, e)); /* the same on every rank */
	if (lk_dev_dtype(r->dev) == LK_F16)
		r->st.scaling = lwm_scale_begin(&r->scaling);
	LWM_GO(lwm_stage_resume(r->o, &r->w.w, &r->st, r->keeper, &found, e));
	if (!found.dir[0])
		LWM_GO(lwm_stage_start(r->o, &r->w.w, e));
	r->first_step = r->st.step;
	r->saved_step = found.dir[0] ? r->st.step : -1;
	LWM_GO(lwm_agree(r->world, r->o->type->attach(r->o, r->w.supply, e), e));
	LWM_GO(lwm_agree(r->world, same_settings(r, &found, e), e));
	LWM_GO(lwm_history_hosts(r->world, &r->hosts, e));
	if (lwm_comm_rank(r->world) == 0)
		rc = open_records(r, &found, e);
	rc = lwm_agree(r->world, rc, e);
out:
	json_decref(found.settings);
	return rc;
}

/* ---- one step ---- */

static bool is_due(int64_t every, int64_t step)
{
	return every > 0 && step > 0 && step % every == 0;
}

static int update_weights(struct run *r, double lr, double scale, struct lwm_err *e)
{
	const struct lwm_tensors *t = &r->o->local;
	int64_t tried = r->st.step - r->st.scaling.overflows, n = tried - r->st.guard.skipped + 1; /* updates, with this one */
	LWM_TRY(lwm_weights_update(&r->w.w, t, &r->s->adamw, tried, lr, scale, e));
	if (r->w.w.average)
		LWM_TRY(lwm_weights_average(&r->w.w, t, lwm_average_decay(r->s->ema, n), e));
	if (r->o->momentum > 0)
		LWM_TRY(lwm_weights_follow(&r->w.w, t, r->o->momentum, e));
	if (!r->o->type->updated)
		return 0;
	LWM_TRY(r->o->type->updated(r->o, n - 1, r->w.supply, e));
	return lwm_weights_adopt(&r->w.w, t, e);
}

static int train_step(struct run *r, struct lwm_err *e)
{
	double sums[LWM_SUMS] = { 0 }, gnorm, t0 = lwm_now(), scale;
	double lr = lwm_schedule_rate(&r->s->schedule, r->s->steps, r->st.step), loss_scale = lwm_scale_now(&r->st.scaling);
	struct lwm_str json = { 0 };
	bool looks = is_due(r->s->check_replicas, r->st.step + 1);
	lwm_watchdog_pet("step");
	int rc = looks ? lwm_replicas_note(&r->replicas, e) : 0;
	if (rc == 0)
		rc = lwm_supply_begin(&r->w, e);
	if (looks || r->w.supply->shared)
		rc = lwm_agree(r->world, rc, e); /* the others would wait for its weights, or gradients */
	r->w.supply->scale = (float)loss_scale;
	if (rc == 0)
		rc = r->o->type->step(r->o, r->st.step, r->w.supply, sums, e);
	LWM_TRY(lwm_agree(r->world, rc, e));
	LWM_TRY(lwm_comm_sum_f64(r->world, sums, LWM_SUMS, e));
	double norm = r->o->type->norm(sums);
	scale = norm > 0 ? 1 / norm / loss_scale : 0;
	LWM_TRY(lwm_weights_reduce(&r->w.w, &r->o->local, scale, &gnorm, e));
	if (looks) /* after the update they are the same again, whatever they were */
		LWM_TRY(lwm_replicas_check(&r->replicas, r->st.step + 1, e));
	r->loss = r->o->type->render(r->o, sums, false, &json);
	rc = lwm_str_ok(&json, e);
	bool over = lwm_scale_overflowed(&r->scaling, &r->st.scaling, r->loss, gnorm);
	bool bad = !over && lwm_guards_refuse(&r->s->guards, &r->st.guard, r->loss, gnorm);
	if (rc == 0 && !bad && !over) {
		rc = update_weights(r, lr, scale * lwm_guards_clip(&r->s->guards, gnorm), e);
		lwm_guards_note(&r->st.guard, r->st.step - r->st.scaling.overflows, gnorm);
		lwm_scale_note(&r->scaling, &r->st.scaling);
	}
	if (rc < 0)
		e->who = LWM_ERR_ALONE; /* the others continue to gather */
	if (rc == 0 && over)
		lwm_scale_back_off(&r->scaling, &r->st.scaling, r->st.step);
	if (rc == 0 && bad)
		rc = lwm_guards_skip(&r->st.guard, r->st.step, r->loss, gnorm, e); /* the same on every rank */
	if (rc == 0)
		rc = lwm_weights_gather_moved(&r->w.w, e);
	lwm_supply_changed(&r->w);
	r->st.step++;
	r->st.units += (double)r->o->units_per_step;
	r->st.loss = r->loss;
	snprintf(r->st.more, sizeof r->st.more, "%s", lwm_str_get(&json));
	r->step_seconds = lwm_now() - t0;
	lwm_history_reached(&r->words, r->st.step);
	struct lwm_step_figures f = { .grad_norm = gnorm, .lr = lr, .seconds = r->step_seconds,
				      .flops = r->o->type->flops ? r->o->type->flops(r->o, sums) : 0, .skipped = bad,
				      .overflow = over, .loss_scale = r->st.scaling.scale > 0 ? loss_scale : 0 };
	if (rc == 0 && r->metrics)
		rc = lwm_metrics_step(r->metrics, &r->st, &f, e);
	lwm_str_release(&json);
	return lwm_agree(r->world, rc, e);
}

static int evaluate_held_out(struct run *r, struct lwm_err *e)
{
	double sums[LWM_SUMS] = { 0 };
	struct lwm_str json = { 0 };
	int rc;
	lwm_watchdog_pet("evaluation");
	LWM_TRY(lwm_agree(r->world, r->o->type->eval(r->o, r->w.supply, sums, e), e));
	LWM_TRY(lwm_comm_sum_f64(r->world, sums, LWM_SUMS, e));
	double loss = r->o->type->render(r->o, sums, true, &json);
	rc = lwm_str_ok(&json, e);
	if (rc == 0 && r->metrics)
		rc = lwm_metrics_eval(r->metrics, &r->st, loss, &json, e);
	lwm_str_release(&json);
	return lwm_agree(r->world, rc, e);
}

/* A file that cannot be had is not the end of the run, as a save is not: only the last one must be. */
static int show_samples(struct run *r, bool last, struct lwm_err *e)
{
	struct lwm_samples made = { 0 };
	struct lwm_err mine = { 0 };
	char name[LWM_SAMPLES_NAME];
	bool written = false;
	lwm_watchdog_pet("samples");
	int rc = r->o->type->sample(r->o, r->st.step, r->w.supply, &made, &mine);
	if (rc == 0 && r->metrics) {
		rc = lwm_samples_write(r->s, r->st.step, &made, name, &mine);
		written = rc == 0;
	}
	rc = lwm_agree(r->world, rc, &mine);
	if (rc < 0 && !last && rc != -LWM_ERANK && mine.who != LWM_ERR_ALONE) {
		if (lwm_comm_rank(r->world) == 0)
			lwm_log(LWM_WARN, "no samples of step %" PRId64 ", training goes on: %s", r->st.step, mine.msg);
		rc = 0;
	}
	if (rc < 0)
		*e = mine;
	else if (written)
		rc = lwm_metrics_sampled(r->metrics, r->st.step, name, &made.what, e);
	lwm_samples_release(&made);
	return lwm_agree(r->world, rc, e);
}

static void begin_save(struct run *r, bool behind)
{
	r->save_began = lwm_now();
	lwm_saver_begin(r->saver, &r->st, behind);
	r->save_blocked = lwm_now() - r->save_began;
}

/* The save under way, if any, is waited for and committed. One that fails is not the end of the run: older checkpoints stay, and
 * the next save tries again. Only the last one must succeed. */
static int end_save(struct run *r, bool last, struct lwm_err *e)
{
	struct lwm_err mine = { 0 };
	double t0 = lwm_now();
	int64_t step = lwm_saver_step(r->saver);
	if (step < 0)
		return 0;
	lwm_watchdog_pet("checkpoint");
	lwm_watchdog_wait(true); /* for the disk, which may serve others first */
	int rc = lwm_saver_finish(r->saver, r->keeper, &mine);
	lwm_watchdog_wait(false);
	r->save_blocked += lwm_now() - t0;
	r->save_seconds = lwm_saver_seconds(r->saver) > r->save_blocked ? lwm_saver_seconds(r->saver) : r->save_blocked;
	if (rc == 0) {
		r->saved_step = step;
		return r->metrics ? lwm_metrics_saved(r->metrics, step, lwm_now() - r->save_began, r->save_blocked, e) : 0;
	}
	if (rc != -LWM_ERANK && mine.who != LWM_ERR_ALONE && !last) {
		lwm_log(LWM_WARN, "checkpoint of step %" PRId64 " failed, training goes on: %s", step, mine.msg);
		return 0;
	}
	*e = mine;
	return rc;
}

/* Nobody writes: the save under way, if any, comes to its record, or to its end. */
static int advance_save(struct run *r, struct lwm_err *e)
{
	double t0 = lwm_now();
	if (lwm_saver_step(r->saver) < 0)
		return 0;
	if (lwm_saver_settled(r->saver))
		return end_save(r, false, e);
	lwm_watchdog_pet("checkpoint");
	lwm_watchdog_wait(true);
	lwm_saver_settle(r->saver);
	lwm_watchdog_wait(false);
	r->save_blocked += lwm_now() - t0;
	return 0;
}

/* One save at a time. The last one is not behind anything: it is written from where the values lie. */
static int save_checkpoint(struct run *r, bool last, struct lwm_err *e)
{
	LWM_TRY(end_save(r, false, e));
	if (r->saved_step == r->st.step) {
		if (last) /* it may be an earlier run's, which was killed before it came to this */
			return lwm_saver_retire(r->saver, r->keeper, r->st.step, e);
		return 0;
	}
	lwm_watchdog_pet("checkpoint");
	if (r->s->check_replicas)
		LWM_TRY(lwm_replicas_check(&r->replicas, r->st.step, e));
	lwm_watchdog_wait(true);
	begin_save(r, r->copies && !last);
	lwm_watchdog_wait(false);
	return r->copies && !last ? 0 : end_save(r, last, e);
}

/* A run that ends by a failure that all ranks know of still commits what it saved before. */
static void rescue_save(struct run *r, int rc, const struct lwm_err *e)
{
	struct lwm_err ignored = { 0 };
	bool shared = e->who == LWM_ERR_SHARED || e->who == LWM_ERR_HEARD || lwm_comm_size(r->world) == 1;
	if (rc != -LWM_ERANK && shared)
		end_save(r, false, &ignored);
}

/* What all ranks can do at most, measured on all of them at once: those of a node may share its cores. The gradient's memory is
 * free between steps. Where a rank has no room for it, that is logged and MFU is left out. */
static int measure_peak(struct run *r, struct lwm_err *e)
{
	struct lwm_err why = { 0 };
	double rate[2] = { 0 }; /* FLOP a second; ranks that have none */
	lwm_watchdog_pet("peak");
	LWM_TRY(lwm_comm_barrier(r->world, e));
	rate[1] = lwm_peak_measure(r->dev, r->w.w.grad, (size_t)r->w.cut.local * sizeof *r->w.w.grad, &rate[0], &why) < 0;
	if (rate[1] > 0)
		lwm_log(LWM_WARN, "the peak cannot be measured, so no MFU is said: %s", why.msg);
	LWM_TRY(lwm_comm_sum_f64(r->world, rate, 2, e));
	r->peak_known = true;
	if (!r->metrics || rate[1] > 0)
		return 0;
	return lwm_metrics_peak(r->metrics, r->st.step, rate[0], "measured", e);
}

/* What the ranks wish before a step: everyone hears the strongest wish of any rank. */
struct wishes {
	int64_t stop; /* enum lwm_stop */
	int64_t peak; /* 1: rank 0 wants it measured */
	int64_t writing; /* 1: of the save under way a part is still being written */
};

static int collect_wishes(struct run *r, struct wishes *w, struct lwm_err *e)
{
	int64_t v[4];
	int saves = lwm_saver_step(r->saver) < 0 ? 1 : 2; /* the one under way is waited for, and then comes the last one */
	lwm_stop_cost(r->step_seconds, saves * r->save_seconds);
	v[0] = lwm_stop_wanted();
	if (r->s->stop_after && r->st.step - r->first_step >= r->s->stop_after && r->st.step < r->s->steps && v[0] < LWM_STOP_END)
		v[0] = LWM_STOP_END;
	v[1] = r->metrics && !r->peak_known && lwm_metrics_seconds(r->metrics) >= r->s->peak_after;
	v[2] = lwm_saver_writing(r->saver);
	v[3] = (int64_t)(r->step_seconds * 1e6);
	LWM_TRY(lwm_comm_max_i64(r->world, v, 4, e));
	if (v[3] > 0) /* the same on all ranks, so that those that wait for a stuck one lose patience together, and are all heard */
		lwm_watchdog_step((double)v[3] * 1e-6);
	*w = (struct wishes){ v[0], v[1], v[2] };
	return 0;
}

/* Saved or, before the first step of all, with nothing to save. A stop file ends the run for good: that is no failure. */
static int end_early(struct run *r, int64_t wish, struct lwm_err *e)
{
	const char *reason = *lwm_stop_reason() ? lwm_stop_reason() : wish == LWM_STOP_FILE ? "stop file" : "--stop-after";
	const char *saved = r->st.step ? ", saved" : "";
	r->why = reason;
	if (wish == LWM_STOP_FILE) {
		lwm_log(LWM_WARN, "stopped at step %" PRId64 " of %" PRId64 "%s: %s/STOP stands there; remove it and run me again to go on",
			r->st.step, r->s->steps, saved, r->s->out);
		return 0;
	}
	return lwm_agree(r->world, lwm_fail(e, LWM_ESAVED, "stopped at step %" PRId64 " of %" PRId64 " (%s)%s: run me again",
					    r->st.step, r->s->steps, reason, saved), e);
}

/* *done: all steps are made; else the run was stopped. */
static int train_steps(struct run *r, bool *done, struct lwm_err *e)
{
	for (*done = false; r->st.step < r->s->steps;) {
		struct wishes w;
		LWM_TRY(collect_wishes(r, &w, e));
		bool end = w.stop >= LWM_STOP_END;
		if (!w.writing)
			LWM_TRY(advance_save(r, e));
		if ((end && r->st.step > 0) || w.stop == LWM_STOP_SAVE || is_due(r->s->checkpoint_every, r->st.step))
			LWM_TRY(save_checkpoint(r, end, e));
		if (end)
			return end_early(r, w.stop, e);
		if (w.peak)
			LWM_TRY(measure_peak(r, e));
		LWM_TRY(train_step(r, e));
		if (is_due(r->s->eval_every, r->st.step) && r->s->eval_rows && r->st.step < r->s->steps)
			LWM_TRY(evaluate_held_out(r, e));
		if (lwm_samples_due(r->s, r->st.step))
			LWM_TRY(show_samples(r, false, e));
	}
	*done = true;
	return 0;
}

/* A run that was killed between its last save and its summary has trained nothing now, and evaluates and shows all the same. */
static int finish_run(struct run *r, struct lwm_err *e)
{
	bool evaluates = r->o->type->holds_out || r->s->eval_data.n;
	int64_t fresh = r->first_step < r->s->steps;
	if (r->metrics && !lwm_metrics_complete(r->metrics))
		fresh = 1;
	LWM_TRY(lwm_comm_max_i64(r->world, &fresh, 1, e));
	if (evaluates && r->s->eval_rows && fresh)
		LWM_TRY(evaluate_held_out(r, e));
	LWM_TRY(save_checkpoint(r, true, e));
	if (r->s->sample_every && fresh)
		LWM_TRY(show_samples(r, true, e));
	int64_t rss = (int64_t)lwm_peak_rss();
	LWM_TRY(lwm_comm_max_i64(r->world, &rss, 1, e));
	int rc = r->metrics ? lwm_metrics_done(r->metrics, &r->st, lwm_now() - r->began, (double)rss, e) : 0;
	return lwm_agree(r->world, rc, e);
}

static void release_run(struct run *r)
{
	lwm_saver_free(r->saver);
	lwm_metrics_close(r->metrics);
	lwm_ckpt_keeper_free(r->keeper);
	lwm_mesh_detach(&r->mesh);
	lwm_replicas_close(&r->replicas);
	lwm_objective_free(r->o);
	lwm_supply_close(&r->w);
	lk_dev_close(r->dev);
	lwm_mesh_release(&r->mesh);
	lwm_lock_free(r->lock);
	lwm_str_release(&r->hosts);
	free(r->stop_file);
}

static int open_folder(struct run *r, struct lwm_err *e)
{
	if (lwm_comm_rank(r->world))
		return 0;
	r->stop_file = lwm_path_join(r->s->out, "STOP");
	if (!r->stop_file)
		return lwm_fail(e, LWM_EMEMORY, "out of memory");
	LWM_TRY(lwm_mkdirs(r->s->out, e));
	return lwm_lock_take(&r->lock, r->s->out, LOCK_SECONDS, e);
}

static int run_stage(struct run *r, struct lwm_err *e)
{
	struct wishes w;
	bool done;
	LWM_TRY(collect_wishes(r, &w, e));
	if (w.stop == LWM_STOP_FILE) { /* before anything is read: it is to do nothing */
		lwm_log(LWM_WARN, "%s/STOP stands there: nothing is done; remove it to train", r->s->out);
		return 0;
	}
	lwm_watchdog_pet("start");
	LWM_TRY(open_run(r, e));
	lwm_watchdog_pet("reading checkpoint and data");
	lwm_watchdog_wait(true);
	int rc = load_state(r, e);
	lwm_watchdog_wait(false);
	LWM_TRY(rc);
	LWM_TRY(train_steps(r, &done, e));
	return done ? finish_run(r, e) : 0;
}

int lwm_stage_run(const struct lwm_stage *s, struct lwm_comm *world, struct lwm_err *e)
{
	struct run r = { .s = s, .world = world, .began = lwm_now(), .wall = lwm_history_now(), .why = "" };
	int rc = lwm_stage_check(s, lwm_comm_size(world), e);
	if (rc == 0)
		rc = open_folder(&r, e);
	LWM_GO(lwm_agree(world, rc, e));
	lwm_stop_install(s->grace, r.stop_file);
	lwm_history_words(&r.words, s->out, lwm_comm_rank(world));
	lwm_watchdog_start(lwm_comm_rank(world), lwm_comm_size(world), s->watchdog);
	lwm_watchdog_tell(lwm_history_stuck, &r.words);
	rc = run_stage(&r, e);
	if (rc < 0)
		rescue_save(&r, rc, e);
	struct lwm_history_end end = { .step = r.st.step, .code = rc, .why = rc < 0 && !*r.why ? e->msg : r.why,
				       .rank = r.replicas.rank, .host = r.replicas.host };
	if (r.metrics)
		lwm_metrics_ended(r.metrics, &end);
out:
	release_run(&r);
	lwm_watchdog_stop();
	return rc;
}
