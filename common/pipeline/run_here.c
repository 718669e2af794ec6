/* run_here.c - running a pipeline's tasks on this machine.
 *
 * One loop: requests to stop are passed on, stages whose needs are done are opened (each task is judged; what is not complete is
 * queued), as many tasks as --jobs allows are started, ended ones are reaped. Of each task the output is verified and the record
 * written before its stage counts as done. A stage's state moves from WAITING over RUNNING to DONE, FAILED or HALTED, and what
 * needs a failed or halted stage takes its state.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/inplace.h"
#include "common/base/json.h"
#include "common/base/launch.h"
#include "common/base/log.h"
#include "common/base/outfile.h"
#include "common/base/stop.h"
#include "common/pipeline/command.h"
#include "common/pipeline/watch.h"

enum { TAIL_LINES = 20 };
enum stage_state { WAITING, RUNNING, DONE, FAILED, HALTED }; /* HALTED: by a stop file of its own */
static const double PATIENCE = 10; /* seconds between the signals to tasks that are to leave at once */

struct job {
	const struct lwm_pipe_task *t;
	struct lwm_paths argv;
	struct lwm_run_verdict v;
	struct lwm_outfile *to; /* takes standard output; NULL: the log does */
	pid_t pid;
	double start;
	int64_t attempt;  /* 1: the first */
	int64_t log_from; /* bytes that its log had before this attempt */
	struct job *next;
};

struct runner {
	struct lwm_pipeline *p;
	const struct lwm_run_cfg *c;
	enum stage_state *state;
	int64_t *left; /* unfinished tasks of each stage */
	struct job *queue, *running;
	int64_t nrunning;
	int64_t ran, complete, failed, saved, cut; /* tasks; cut: ended by our signal without a save */
	struct lwm_jsonl *timing;
	struct lwm_run_watch watch;
	int code; /* of the first failure, negative */
	enum lwm_stop stopping;
	bool halted;
	double push; /* when the next signal is due, after LWM_STOP_NOW */
};

static char *log_path(const struct lwm_pipeline *p, const struct lwm_pipe_task *t)
{
	char *s;
	return asprintf(&s, "%s/logs/%s.log", p->out, t->label) < 0 ? NULL : s;
}

/* The last lines of a task's log, for the reader who sees that it failed. */
static void show_tail(const char *path)
{
	char buf[8192];
	int fd, lines = 0;
	if (lwm_inplace_open(&fd, path, O_RDONLY, NULL) < 0)
		return;
	off_t size = lseek(fd, 0, SEEK_END);
	ssize_t n = pread(fd, buf, sizeof buf - 1, size > (off_t)sizeof buf - 1 ? size - (off_t)sizeof buf + 1 : 0);
	char *s;
	close(fd);
	if (n <= 0)
		return;
	buf[n] = 0;
	for (s = buf + n - 1; s > buf; s--)
		if (s[-1] == '\n' && ++lines == TAIL_LINES)
			break;
	for (char *save = NULL, *line = strtok_r(s, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		lwm_log(LWM_ERROR, "  | %s", line);
}

static void job_free(struct job *j)
{
	if (!j)
		return;
	lwm_outfile_discard(j->to);
	lwm_paths_release(&j->argv);
	free(j);
}

static int make_folders(const struct lwm_pipe_task *t, struct lwm_err *e)
{
	int rc = 0;
	for (int64_t i = 0; i < t->outputs.n && rc == 0; i++) {
		char *dir = lwm_path_dir(t->outputs.v[i]);
		rc = dir ? lwm_mkdirs(dir, e) : lwm_fail_memory(e, NULL);
		free(dir);
	}
	return rc;
}

/* What a resuming tool left from other inputs is moved aside, never deleted: OUTPUT.old-1, -2, ... */
static int move_aside(const struct lwm_pipe_task *t, struct lwm_err *e)
{
	for (int64_t i = 0; i < t->outputs.n; i++) {
		const char *path = t->outputs.v[i];
		char *old = NULL;
		int n = 0, rc = 0;
		if (!lwm_path_exists(path))
			continue;
		do {
			free(old);
			if (asprintf(&old, "%s.old-%d", path, ++n) < 0)
				return lwm_fail_memory(e, NULL);
		} while (lwm_path_exists(old) && n < 10000);
		if (lwm_path_exists(old))
			rc = lwm_fail(e, LWM_ECANTCREATE, "%s: is there, as are all names before it; %s is not moved", old, path);
		else if (rename(path, old))
			rc = lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot move aside", path);
		else
			lwm_log(LWM_WARN, "%s: moved to %s", path, old);
		free(old);
		LWM_TRY(rc);
	}
	return 0;
}

static int open_outputs(struct runner *r, struct job *j, int *log_fd, struct lwm_err *e)
{
	char *path = log_path(r->p, j->t);
	int rc = path ? lwm_inplace_open(log_fd, path, O_WRONLY | O_CREAT | O_APPEND, e) :
			lwm_fail_memory(e, NULL);

	if (rc == 0 && j->t->to)
		rc = lwm_inplace_free(j->t->to, e);
	if (rc == 0 && j->t->to)
		rc = lwm_outfile_open(&j->to, j->t->to, true, e);
	free(path);
	return rc;
}

static int start_job(struct runner *r, struct job *j, struct lwm_err *e)
{
	int log_fd = -1, rc;

	LWM_TRY(make_folders(j->t, e));
	rc = open_outputs(r, j, &log_fd, e);
	if (rc == 0)
		j->log_from = lseek(log_fd, 0, SEEK_END);
	if (rc == 0)
		rc = lwm_spawn_start(&j->argv, j->to ? j->to->fd : log_fd, log_fd, &j->pid, e);
	if (log_fd >= 0)
		close(log_fd);
	LWM_TRY(rc);
	j->start = lwm_now();
	j->attempt++;
	j->next = r->running;
	r->running = j;
	r->nrunning++;
	lwm_log(LWM_INFO, "%s: started%s%s", j->t->label, *j->v.why ? ", " : "", j->v.why);
	return 0;
}

static void fail_task(struct runner *r, const struct lwm_pipe_task *t, int code, const char *what)
{
	lwm_log(LWM_ERROR, "%s: %s", t->label, what);
	r->failed++;
	r->state[t->stage] = FAILED;
	if (!r->code)
		r->code = code < 0 ? code : -code;
}

static int add_timing(struct runner *r, const struct job *j, double seconds, const struct rusage *ru, int status,
		      struct lwm_err *e)
{
	struct lwm_str s = { 0 };
	int rc;
	lwm_str_printf(&s, "{\"task\":\"%s\",\"stage\":\"%s\",\"exit\":%d,\"attempt\":%" PRId64 ",\"seconds\":%.3f,"
		       "\"cpu_seconds\":%.3f,\"max_rss_bytes\":%" PRId64 ",\"command\":[", j->t->label,
		       r->p->stage[j->t->stage].name, status, j->attempt, seconds,
		       (double)(ru->ru_utime.tv_sec + ru->ru_stime.tv_sec) +
			       1e-6 * (double)(ru->ru_utime.tv_usec + ru->ru_stime.tv_usec),
		       (int64_t)ru->ru_maxrss * 1024);
	for (int64_t i = 0; i < j->argv.n; i++) {
		lwm_str_puts(&s, i ? "," : "");
		lwm_str_json(&s, j->argv.v[i], strlen(j->argv.v[i]));
	}
	lwm_str_puts(&s, "]}");
	rc = lwm_str_ok(&s, e);
	if (rc == 0)
		rc = lwm_jsonl_add(r->timing, &s, e);
	lwm_str_release(&s);
	return rc;
}

/* Did a user stop it for good? Programs that resume look for a file STOP in the folder they write. */
static bool stop_stands(const struct runner *r, const struct lwm_pipe_task *t)
{
	bool stands = false;

	for (int64_t i = 0; r->p->stage[t->stage].resumes && i < t->outputs.n && !stands; i++) {
		char *dir = lwm_path_dir(t->outputs.v[i]);
		const char *folder = lwm_path_is_dir(t->outputs.v[i]) ? t->outputs.v[i] : dir;
		char *file = dir ? lwm_path_join(folder, "STOP") : NULL;
		stands = file && lwm_path_exists(file);
		if (stands)
			lwm_log(LWM_WARN, "%s: stopped, %s stands there; remove it and run me again to go on", t->label, file);
		free(file);
		free(dir);
	}
	return stands;
}

/* Exit status 0: standard output gets its name, outputs must verify, the record says done. */
static int finish_job(struct runner *r, struct job *j, double seconds, struct lwm_err *e)
{
	char why[600];
	int rc;

	if (j->to) {
		struct lwm_outfile *to = j->to;
		j->to = NULL;
		LWM_TRY(lwm_outfile_commit(to, e));
	}
	LWM_TRY(rc = lwm_run_verify_outputs(r->p, j->t, why, sizeof why, e));
	if (rc == 1 && stop_stands(r, j->t)) {
		r->state[j->t->stage] = HALTED;
		r->halted = true;
		r->saved++;
		return 0;
	}
	if (rc == 1) {
		char text[700];
		snprintf(text, sizeof text, "ended well, but %s", why);
		/* srun may say 0 of a step that went down with its node */
		fail_task(r, j->t, r->p->stage[j->t->stage].ranks && lwm_launch_job() ? LWM_ERANK : LWM_EDATA, text);
		return 0;
	}
	LWM_TRY(lwm_run_write_record(r->p, j->t, true, e));
	r->ran++;
	if (--r->left[j->t->stage] == 0 && r->state[j->t->stage] == RUNNING)
		r->state[j->t->stage] = DONE;
	lwm_log(LWM_INFO, "%s: done in %.1f s", j->t->label, seconds);
	return 0;
}

/* It saved and stopped. */
static int run_again(struct runner *r, struct job *j)
{
	/* in a batch job the scheduler's script decides */
	if (r->stopping || lwm_launch_job() || j->attempt > r->c->restarts)
		return 0;
	lwm_log(LWM_INFO, "%s: saved and stopped, going on (%" PRId64 " of %" PRId64 ")", j->t->label, j->attempt,
		r->c->restarts);
	lwm_outfile_discard(j->to);
	j->to = NULL;
	j->pid = 0;
	j->next = r->queue;
	r->queue = j;
	return 1;
}

static void report_failure(struct runner *r, const struct job *j, int status, bool by_signal, double seconds)
{
	bool ranks = r->p->stage[j->t->stage].ranks > 0;
	/* what starts ranks ends with 128 + the signal that one of them died of */
	bool lost = ranks && (by_signal || status >= 128 || status == LWM_ERANK);
	char text[200], *path = log_path(r->p, j->t);

	snprintf(text, sizeof text, by_signal ? "killed by signal %d (%s) after %.1f s%s; the end of its log:" :
		 "failed with exit code %d (%s) after %.1f s%s; the end of its log:", by_signal ? status - 128 : status,
		 by_signal ? strsignal(status - 128) : status > 128 ? strsignal(status - 128) : lwm_code_name(status), seconds,
		 lost ? ", a rank was lost" : "");
	/* codes that are not ours (a script's 2, a signal's 137) count as a broken program */
	fail_task(r, j->t, lost ? LWM_ERANK : status == LWM_ENO || (status >= 64 && status < 80) ? status : LWM_EINTERNAL, text);
	if (path)
		show_tail(path);
	free(path);
}

static int end_job(struct runner *r, struct job *j, int ws, const struct rusage *ru, struct lwm_err *e)
{
	int status = WIFEXITED(ws) ? WEXITSTATUS(ws) : 128 + WTERMSIG(ws), rc;
	double seconds = lwm_now() - j->start;

	rc = add_timing(r, j, seconds, ru, status, e);
	if (rc == 0 && status == 0) {
		rc = finish_job(r, j, seconds, e);
	} else if (rc == 0 && status == LWM_ESAVED) {
		if (run_again(r, j))
			return 0;
		lwm_log(LWM_INFO, "%s: saved and stopped", j->t->label);
		r->saved++;
		if (!r->stopping)
			r->stopping = LWM_STOP_END;
	} else if (rc == 0 && r->stopping && (status > 128 || status == LWM_ERANK || r->stopping == LWM_STOP_NOW)) {
		lwm_log(LWM_WARN, "%s: ended without a save", j->t->label);
		r->cut++;
	} else if (rc == 0) {
		report_failure(r, j, status, WIFSIGNALED(ws), seconds);
	}
	job_free(j);
	return rc;
}

static int reap_jobs(struct runner *r, struct lwm_err *e)
{
	for (struct job **at = &r->running; *at;) {
		struct job *j = *at;
		struct rusage ru;
		int ws;
		pid_t pid = wait4(j->pid, &ws, WNOHANG, &ru);
		if (pid == 0 || (pid < 0 && errno == EINTR)) {
			at = &j->next;
			continue;
		}
		*at = j->next;
		r->nrunning--;
		if (pid < 0) {
			job_free(j);
			return lwm_fail_errno(e, LWM_EINTERNAL, errno, "lost a task");
		}
		LWM_TRY(end_job(r, j, ws, &ru, e));
	}
	return 0;
}

static int queue_task(struct runner *r, const struct lwm_pipe_task *t, const struct lwm_run_verdict *v, struct job ***tail,
		   struct lwm_err *e)
{
	struct job *j = calloc(1, sizeof *j);
	int rc;
	if (!j)
		return lwm_fail_memory(e, NULL);
	j->t = t;
	j->v = *v;
	rc = lwm_run_command_line(r->p, t, r->c, v, &j->argv, e);
	if (rc == 0 && v->stale && r->p->stage[t->stage].resumes)
		rc = move_aside(t, e);
	if (rc == 0)
		rc = lwm_run_write_record(r->p, t, false, e);
	if (rc < 0) {
		job_free(j);
		return rc;
	}
	**tail = j;
	*tail = &j->next;
	return 0;
}

/* Its needs are there: looks at each task and queues what is not complete. */
static int open_stage(struct runner *r, int i, struct lwm_err *e)
{
	struct lwm_pipe_stage *st = &r->p->stage[i];
	struct job **tail = &r->queue;
	int64_t complete = 0;
	int rc;
	LWM_TRY(lwm_pipeline_make_tasks(r->p, i, e));
	struct lwm_run_verdict *v = calloc((size_t)st->ntask + 1, sizeof *v);
	while (*tail)
		tail = &(*tail)->next;
	r->state[i] = RUNNING;
	r->left[i] = st->ntask;
	rc = v ? lwm_run_judge_stage(r->p, st, r->c, v, e) : lwm_fail_memory(e, NULL);
	for (int64_t k = 0; k < st->ntask && rc == 0; k++) {
		if (v[k].complete) {
			complete++;
			r->left[i]--;
		} else {
			rc = queue_task(r, &st->task[k], &v[k], &tail, e);
		}
	}
	free(v);
	LWM_TRY(rc);
	r->complete += complete;
	if (complete)
		lwm_log(LWM_INFO, "%s: %s%" PRId64 " of %" PRId64 " complete", st->name, st->ntask > 1 ? "" : "all, ",
			complete, st->ntask);
	if (r->left[i] == 0)
		r->state[i] = DONE;
	return 0;
}

/* Stages that were not selected count as done: their outputs are taken as they are. */
static enum stage_state need_state(const struct runner *r, const struct lwm_pipe_stage *st)
{
	for (int k = 0; k < st->nneed; k++)
		if (r->p->stage[st->need[k]].selected && r->state[st->need[k]] != DONE)
			return r->state[st->need[k]] >= FAILED ? r->state[st->need[k]] : WAITING;
	return DONE;
}

static void open_stages(struct runner *r)
{
	for (int o = 0; o < r->p->nstage && !r->stopping; o++) {
		int i = r->p->order[o];
		struct lwm_pipe_stage *st = &r->p->stage[i];
		struct lwm_err local = { 0 };
		enum stage_state needs = need_state(r, st);
		if (!st->selected || r->state[i] != WAITING || needs == WAITING)
			continue;
		if (needs == FAILED) {
			lwm_log(LWM_ERROR, "%s: not started, a stage it needs failed", st->name);
			r->state[i] = FAILED;
		} else if (needs == HALTED) {
			lwm_log(LWM_WARN, "%s: not started, a stage it needs was stopped", st->name);
			r->state[i] = HALTED;
		} else if (open_stage(r, i, &local) < 0) {
			lwm_log(LWM_ERROR, "%s: %s", st->name, local.msg);
			r->state[i] = FAILED;
			r->failed++;
			if (!r->code)
				r->code = local.code;
		}
	}
}

/* A second Ctrl-C: nobody waits for a save. What starts ranks ends them itself when it is asked to. */
static void push_out(struct runner *r)
{
	int sig = r->push > 0 ? SIGKILL : SIGTERM;

	if (r->push > lwm_now())
		return;
	r->push = lwm_now() + PATIENCE;
	for (struct job *j = r->running; j; j = j->next)
		kill(-j->pid, r->p->stage[j->t->stage].ranks ? sig : SIGKILL);
}

/* Asked to stop: the ranks and tools save and exit 75; those that have not started stay out. */
static void pass_on_stop(struct runner *r)
{
	enum lwm_stop wish = lwm_stop_wanted();

	if (wish == LWM_STOP_NOW) {
		r->stopping = wish;
		push_out(r);
	}
	if (wish < LWM_STOP_END || r->stopping)
		return;
	r->stopping = wish;
	lwm_log(LWM_INFO, "stopping (%s): asking %" PRId64 " running task%s to save", lwm_stop_reason(), r->nrunning,
		r->nrunning == 1 ? "" : "s");
	for (struct job *j = r->running; j; j = j->next)
		kill(j->pid, SIGUSR1);
}

/* After a stop: what is done, and what a rerun has before it. */
static void say_what_stands(const struct runner *r)
{
	struct lwm_str begun = { 0 }, rest = { 0 };

	for (int o = 0; o < r->p->nstage; o++) {
		int i = r->p->order[o];
		if (!r->p->stage[i].selected || r->state[i] == DONE || r->state[i] == FAILED)
			continue;
		if (r->state[i] != WAITING && r->left[i])
			lwm_str_printf(&begun, "%s%s (%" PRId64 " of %" PRId64 " tasks left)", begun.len ? ", " : "", r->p->stage[i].name,
				       r->left[i], r->p->stage[i].ntask);
		else
			lwm_str_printf(&rest, "%s%s", rest.len ? ", " : "", r->p->stage[i].name);
	}
	lwm_log(LWM_INFO, "%" PRId64 " task%s saved what was done, %" PRId64 " ended without a save", r->saved, r->saved == 1 ? "" : "s",
		r->cut);
	if (begun.len)
		lwm_log(LWM_INFO, "begun: %s", lwm_str_get(&begun));
	if (rest.len)
		lwm_log(LWM_INFO, "not begun: %s", lwm_str_get(&rest));
	lwm_str_release(&begun);
	lwm_str_release(&rest);
}

/* Now and then: what runs, for how long, and how far it says to be. The list begins with the latest. */
static void watch_jobs(struct runner *r)
{
	if (!r->nrunning || !lwm_run_watch_due(&r->watch))
		return;
	for (struct job *j = r->running; j; j = j->next) {
		char *log = !r->watch.tty || !j->next ? log_path(r->p, j->t) : NULL;
		const struct lwm_run_watched t = { .label = j->t->label, .log = log, .from = j->log_from, .start = j->start };
		if (log)
			lwm_run_watch_say(&r->watch, &t, r->nrunning);
		free(log);
	}
}

static int run_jobs(struct runner *r, struct lwm_err *e)
{
	static const struct timespec nap = { 0, 30 * 1000 * 1000 };
	for (;;) {
		struct lwm_err local = { 0 };
		pass_on_stop(r);
		open_stages(r);
		while (r->queue && !r->stopping && r->nrunning < r->c->jobs) {
			struct job *j = r->queue;
			r->queue = j->next;
			/* once a task of a stage failed, the others of it still run: each is work that stays */
			if (start_job(r, j, &local) < 0) {
				fail_task(r, j->t, local.code, local.msg);
				lwm_err_clear(&local);
				job_free(j);
			}
		}
		if (!r->nrunning && (!r->queue || r->stopping))
			return 0;
		watch_jobs(r);
		nanosleep(&nap, NULL);
		LWM_TRY(reap_jobs(r, e));
	}
}

static int open_records(struct runner *r, struct lwm_err *e)
{
	char *logs = lwm_path_join(r->p->out, "logs"), *timing = lwm_path_join(r->p->out, "timing.jsonl");
	int rc = 0;
	if (!logs || !timing)
		rc = lwm_fail_memory(e, NULL);
	if (rc == 0)
		rc = lwm_mkdirs(logs, e);
	if (rc == 0)
		rc = lwm_jsonl_open(&r->timing, timing, e);
	free(logs);
	free(timing);
	return rc;
}

static void drop_jobs(struct job **list)
{
	while (*list) {
		struct job *j = *list;
		*list = j->next;
		if (j->pid)
			waitpid(j->pid, NULL, 0);
		job_free(j);
	}
}

static int sum_up(const struct runner *r, double t0, struct lwm_err *e)
{
	lwm_log(r->failed ? LWM_ERROR : LWM_INFO, "%s: %" PRId64 " ran, %" PRId64 " were complete, %" PRId64 " failed, %.1f s",
		r->p->name, r->ran, r->complete, r->failed, lwm_now() - t0);
	if (r->stopping || r->halted)
		say_what_stands(r);
	if (r->code)
		return lwm_fail(e, -r->code, "%s: %" PRId64 " task%s failed; logs are in %s/logs", r->p->file, r->failed,
				r->failed == 1 ? "" : "s", r->p->out);
	if (r->stopping == LWM_STOP_FILE)
		lwm_log(LWM_WARN, "%s/" LWM_RUN_STOP " stands there: stopped; remove it and run me again to go on", r->p->out);
	else if (r->stopping)
		return lwm_fail(e, LWM_ESAVED, "%s: stopped%s%s: run again to go on", r->p->file, *lwm_stop_reason() ? " by " : "",
				lwm_stop_reason());
	return 0;
}

int lwm_run_here(struct lwm_pipeline *p, const struct lwm_run_cfg *c, struct lwm_err *e)
{
	struct runner r = { .p = p, .c = c };
	double t0 = lwm_now();
	char *stop = lwm_path_join(p->out, LWM_RUN_STOP);
	int rc;

	r.state = calloc((size_t)p->nstage, sizeof *r.state);
	r.left = calloc((size_t)p->nstage, sizeof *r.left);
	rc = r.state && r.left && stop ? open_records(&r, e) : lwm_fail_memory(e, NULL);
	if (rc < 0)
		goto out;
	lwm_stop_install(0, stop);
	lwm_run_watch_begin(&r.watch, c->say_every);
	rc = run_jobs(&r, e);
	lwm_log_clear();
	/* whatever happened, nobody is left behind */
	for (struct job *j = r.running; j; j = j->next)
		kill(j->pid, SIGTERM);
	drop_jobs(&r.running);
	if (lwm_jsonl_close(r.timing, rc < 0 ? NULL : e) < 0 && rc == 0)
		rc = e->code;
	if (rc == 0)
		rc = sum_up(&r, t0, e);
out:
	drop_jobs(&r.queue);
	free(r.state);
	free(r.left);
	free(stop);
	return rc;
}
