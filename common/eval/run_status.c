/* A run of a stage, judged from its files: metrics.jsonl, history.jsonl, the lock, the seals of checkpoints, STOP, summary.json. */
#include "common/eval/run_status.h"

#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io/ckpt.h"

enum { RECENT = 50 /* steps that a median is of */ };
static const double PATIENCE = 120; /* seconds */

const char *const lwm_run_states[] = { "running", "silent", "saved", "stopped", "complete", "diverged", "failed", "dead", NULL };

enum lwm_run_state lwm_run_judge(const struct lwm_run_signs *s)
{
	bool quiet = s->silent > s->patience;
	if (s->lock == LWM_LOCK_HELD)
		return quiet ? LWM_RUN_SILENT : LWM_RUN_RUNNING;
	if (s->complete)
		return LWM_RUN_COMPLETE;
	if (s->lock == LWM_LOCK_UNSEEN && !s->ended)
		return quiet ? LWM_RUN_SILENT : LWM_RUN_RUNNING;
	if (s->stop_file)
		return LWM_RUN_STOPPED;
	if (!s->ended)
		return LWM_RUN_DEAD;
	switch (s->code) {
	case 0: /* by a stop file that has been removed since */
	case LWM_ESAVED:
		return LWM_RUN_SAVED;
	case LWM_ENUMERIC:
		return s->blames ? LWM_RUN_FAILED : LWM_RUN_DIVERGED;
	default:
		return LWM_RUN_FAILED;
	}
}

/* ---- files ---- */

/* When a file of the folder was last written to, seconds since 1970; 0: it does not exist. */
static double written_at(const char *dir, const char *name)
{
	char *path = lwm_path_join(dir, name);
	struct stat st;
	double t = 0;
	if (path && stat(path, &st) == 0)
		t = (double)st.st_mtim.tv_sec + 1e-9 * (double)st.st_mtim.tv_nsec;
	free(path);
	return t;
}

static bool is_checkpoint(const char *dir, const char *name)
{
	char *record = NULL;
	bool is = !strncmp(name, "step_", 5) && asprintf(&record, "%s/%s/COMMIT.json", dir, name) >= 0 && access(record, F_OK) == 0;
	free(record);
	return is;
}

bool lwm_run_status_is(const char *dir)
{
	bool is = written_at(dir, "metrics.jsonl") > 0 || written_at(dir, "history.jsonl") > 0;
	DIR *list = is ? NULL : opendir(dir);
	for (struct dirent *d; list && !is && (d = readdir(list));)
		is = is_checkpoint(dir, d->d_name);
	if (list)
		closedir(list);
	return is;
}

static int64_t count_entries(const char *dir, const char *name)
{
	char *path = lwm_path_join(dir, name);
	DIR *list = path ? opendir(path) : NULL;
	int64_t n = 0;
	for (struct dirent *d; list && (d = readdir(list));)
		n += d->d_name[0] != '.';
	if (list)
		closedir(list);
	free(path);
	return n;
}

/* ---- checkpoints ---- */

static void note_damaged(void *ctx, const char *dir, const struct lwm_err *why)
{
	struct lwm_run_status *st = ctx;
	if (!lwm_ckpt_unfinished(dir)) /* that is one being written, or cut by a kill */
		lwm_paths_add(&st->damaged, why->msg, NULL);
}

/* The newest whole one. While the run works older ones vanish: what could not be read then is looked for once more. */
static int find_checkpoint(struct lwm_run_status *st, bool verify, struct lwm_err *e)
{
	enum lwm_ckpt_check how = verify ? LWM_CKPT_FULL : LWM_CKPT_QUICK;
	struct lwm_err why = { 0 };
	int rc = 0;
	st->checkpoint_step = -1;
	for (int i = 0; i < 2; i++) {
		lwm_err_clear(&why);
		lwm_paths_release(&st->damaged);
		rc = lwm_ckpt_latest(&st->checkpoint, st->dir, true, how, note_damaged, st, &why);
		if (rc == 0 || rc == -LWM_EDATA)
			break;
	}
	if (rc == -LWM_EMEMORY) {
		*e = why;
		return rc;
	}
	if (rc < 0 && !st->damaged.n)
		LWM_TRY(lwm_paths_add(&st->damaged, why.msg, e));
	if (rc < 0 || !st->checkpoint)
		return 0;
	st->verified = verify;
	st->checkpoint_step = strtoll(lwm_path_base(st->checkpoint) + 5, NULL, 10);
	st->checkpoint_time = written_at(st->checkpoint, "COMMIT.json");
	return 0;
}

/* ---- figures ---- */

static int compare_numbers(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double median_of(double *v, int n)
{
	if (!n)
		return 0;
	qsort(v, (size_t)n, sizeof *v, compare_numbers);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static void find_rates(struct lwm_run_status *st)
{
	const struct lwm_run_series *s = &st->series;
	double rate[RECENT] = { 0 }, flops[RECENT] = { 0 }, seconds[RECENT] = { 0 };
	int n = 0, f = 0;
	for (int64_t i = s->n > RECENT ? s->n - RECENT : 0; i < s->n; i++) {
		if (s->seconds[i] <= 0 || (!i && s->step[0] != 1)) /* what was seen before it is not there */
			continue;
		seconds[n] = s->seconds[i];
		rate[n++] = (s->seen[i] - (i ? s->seen[i - 1] : 0)) / s->seconds[i];
		if (s->flops[i] > 0)
			flops[f++] = s->flops[i] / s->seconds[i];
	}
	st->rate = fmin(median_of(rate, n), 1e18);
	st->mfu = s->peak > 0 && f ? fmin(median_of(flops, f) / s->peak, 1e6) : 0;
	st->signs.patience = fmax(PATIENCE, 10 * median_of(seconds, n));
}

static double last_sign(const struct lwm_run_status *st)
{
	double t = fmax(st->series.last, st->history.last);
	if (t <= 0) /* files of earlier versions have no times in them */
		t = written_at(st->dir, "metrics.jsonl");
	t = fmax(t, written_at(st->dir, ".lock")); /* while it reads checkpoint and data it has said nothing yet */
	return t > 0 ? t : st->checkpoint_time;
}

static void find_signs(struct lwm_run_status *st)
{
	struct lwm_run_signs *s = &st->signs;
	const struct lwm_run_attempt *a = st->history.n ? &st->history.v[st->history.n - 1] : NULL;
	const struct lwm_run_series *v = &st->series;
	double saves = 0;
	int64_t steps = v->steps ? v->steps : a ? a->steps : 0;
	s->lock = lwm_lock_look(st->dir, st->holder, sizeof st->holder);
	s->stop_file = written_at(st->dir, "STOP") > 0;
	s->ended = a ? a->ended : v->ended >= 0;
	s->code = a ? a->code : 0;
	s->blames = a && a->rank >= 0;
	s->complete = s->ended && s->code == 0 && written_at(st->dir, "summary.json") > 0 &&
		      (a ? a->reached >= a->steps : steps && v->ended >= steps);
	if (a)
		saves = a->saving;
	s->silent = fmax(st->now - last_sign(st), 0);
	s->patience += 2 * saves;
}

/* ---- what to do ---- */

static void add_command(struct lwm_run_status *st)
{
	const struct lwm_run_history *h = &st->history;
	struct lwm_str *b = &st->next;
	char here[4096];
	size_t i;
	json_t *v;
	if (!json_array_size(h->command)) {
		lwm_str_puts(b, "the command that it was started with");
		return;
	}
	if (h->cwd && (!getcwd(here, sizeof here) || strcmp(here, h->cwd))) {
		lwm_str_puts(b, "cd ");
		lwm_str_shell(b, h->cwd);
		lwm_str_puts(b, " && ");
	}
	if (h->v[h->n - 1].ranks > 1)
		lwm_str_printf(b, "%s -n %d ", *h->v[h->n - 1].job ? "srun" : "mpirun", h->v[h->n - 1].ranks);
	json_array_foreach(h->command, i, v) {
		if (i)
			lwm_str_putc(b, ' ');
		lwm_str_shell(b, json_is_string(v) ? json_string_value(v) : "?");
	}
}

static void add_resume(struct lwm_run_status *st, const char *before)
{
	lwm_str_puts(&st->next, before);
	if (st->checkpoint_step >= 0)
		lwm_str_printf(&st->next, "run it again, it resumes at step %" PRId64 ": ", st->checkpoint_step);
	else
		lwm_str_puts(&st->next, "run it again, it begins at step 0: ");
	add_command(st);
}

static void say_next(struct lwm_run_status *st)
{
	struct lwm_str *b = &st->next;
	switch (st->state) {
	case LWM_RUN_RUNNING:
		lwm_str_puts(b, st->signs.stop_file ? "nothing: STOP stands there, it saves and ends after this step" : "nothing");
		break;
	case LWM_RUN_SILENT:
		lwm_str_puts(b, "see whether it still works (");
		lwm_str_puts(b, *st->holder ? st->holder : "nobody says where it runs");
		lwm_str_puts(b, "); if not, end it, and ");
		add_resume(st, "");
		break;
	case LWM_RUN_COMPLETE:
		lwm_str_puts(b, "nothing; a model of it is made by: lwm-merge-ckpt ");
		lwm_str_shell(b, st->dir);
		lwm_str_puts(b, " -o MODEL");
		break;
	case LWM_RUN_STOPPED:
		lwm_str_puts(b, "to go on remove the stop file: rm ");
		lwm_str_shell(b, st->dir);
		lwm_str_puts(b, "/STOP; then ");
		add_resume(st, "");
		break;
	case LWM_RUN_DIVERGED:
		add_resume(st, "it would diverge again as it is, so give it a lower --lr (with --allow-change lr) or other data, "
			       "and ");
		break;
	case LWM_RUN_FAILED:
		add_resume(st, "mend what it says, and ");
		break;
	default:
		add_resume(st, "");
	}
}

/* ---- all of it ---- */

static bool is_alive(const struct lwm_run_status *st)
{
	return st->state == LWM_RUN_RUNNING || st->state == LWM_RUN_SILENT;
}

static int judge_status(struct lwm_run_status *st, struct lwm_err *e)
{
	find_rates(st);
	find_signs(st);
	st->state = lwm_run_judge(&st->signs);
	double until = st->state == LWM_RUN_RUNNING ? st->now : fmax(st->series.last, st->history.last);
	lwm_run_ledger_make(&st->ledger, &st->history, st->series.total < 1e15 ? fmax(st->series.total, 0) : 0, until);
	st->suspicious = lwm_run_suspicious_hosts(&st->history, is_alive(st));
	say_next(st);
	return st->suspicious ? lwm_str_ok(&st->next, e) : lwm_fail_memory(e, NULL);
}

int lwm_run_status_read(struct lwm_run_status *st, const char *dir, double now, bool verify, struct lwm_err *e)
{
	*st = (struct lwm_run_status){ .now = now, .checkpoint_step = -1 };
	st->series.ended = -1;
	if (!lwm_path_is_dir(dir) || !lwm_run_status_is(dir))
		return lwm_fail(e, LWM_ENOINPUT, "%s: is no run: it has neither metrics.jsonl, history.jsonl nor a checkpoint", dir);
	st->dir = strdup(dir);
	if (!st->dir)
		return lwm_fail_memory(e, dir);
	int rc = lwm_run_series_read(&st->series, dir, true, e);
	if (rc == -LWM_ENOINPUT) { /* it has made no step yet, or only checkpoints were kept */
		lwm_err_clear(e);
		rc = 0;
	}
	if (rc == 0)
		rc = lwm_run_history_read(&st->history, dir, e);
	if (rc == 0)
		rc = find_checkpoint(st, verify, e);
	st->set_aside = count_entries(dir, "damaged");
	return rc < 0 ? rc : judge_status(st, e);
}

void lwm_run_status_release(struct lwm_run_status *st)
{
	lwm_run_series_release(&st->series);
	lwm_run_history_release(&st->history);
	lwm_paths_release(&st->damaged);
	lwm_str_release(&st->next);
	json_decref(st->suspicious);
	free(st->checkpoint);
	free(st->dir);
	memset(st, 0, sizeof *st);
}
