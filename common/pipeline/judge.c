/* judge.c - is a task complete, and if not, why. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/base/show.h"
#include "common/base/threads.h"
#include "common/pipeline/command.h"
#include "common/pipeline/judge.h"
#include "common/pipeline/seen.h"

enum { MAX_HASHED = 64 << 20 }; /* larger files are told apart by size and time */

/* Newest modification at or below path, 0 when there is nothing. */
static double newest_time(const char *path)
{
	struct stat st;
	struct lwm_paths files = { 0 };
	double t = 0;
	if (stat(path, &st))
		return 0;
	if (!S_ISDIR(st.st_mode))
		return (double)st.st_mtim.tv_sec + 1e-9 * (double)st.st_mtim.tv_nsec;
	if (lwm_paths_expand(&files, path, NULL, NULL) == 0)
		for (int64_t i = 0; i < files.n; i++) {
			double k = newest_time(files.v[i]);
			t = k > t ? k : t;
		}
	lwm_paths_release(&files);
	return t;
}

static int add_file_print(struct lwm_run_seen *s, struct lwm_hasher *h, const char *path, const struct stat *st, struct lwm_err *e)
{
	char text[128];
	if (st->st_size <= MAX_HASHED) {
		LWM_TRY(lwm_run_seen_hash(s, path, st, text, e));
	} else {
		snprintf(text, sizeof text, "%" PRId64 " %" PRId64 ".%09ld", (int64_t)st->st_size, (int64_t)st->st_mtim.tv_sec,
			 st->st_mtim.tv_nsec);
	}
	lwm_hasher_add(h, path, strlen(path) + 1);
	lwm_hasher_add(h, text, strlen(text) + 1);
	return 0;
}

/* A record that names the hashes of everything beside it stands for the whole: X.manifest.json, COMMIT.json. */
static char *find_stand_in(const char *path, bool dir)
{
	char *m = NULL;
	if (dir)
		m = lwm_path_join(path, "COMMIT.json");
	else if (asprintf(&m, "%s.manifest.json", path) < 0)
		m = NULL;
	if (m && !lwm_path_exists(m)) {
		free(m);
		m = NULL;
	}
	return m;
}

static int add_tree_print(struct lwm_run_seen *s, struct lwm_hasher *h, const char *path, struct lwm_err *e)
{
	struct lwm_paths files = { 0 };
	struct stat st;
	char *record;
	int rc = 0;
	if (stat(path, &st)) {
		lwm_hasher_add(h, "missing", 8);
		return 0;
	}
	record = find_stand_in(path, S_ISDIR(st.st_mode));
	if (record || !S_ISDIR(st.st_mode)) {
		if (!record || stat(record, &st) == 0)
			rc = add_file_print(s, h, record ? record : path, &st, e);
		free(record);
		return rc;
	}
	/* an empty folder is one of nothing */
	if (lwm_paths_expand(&files, path, NULL, NULL) == 0)
		for (int64_t i = 0; i < files.n && rc == 0; i++)
			if (!lwm_path_has_suffix(files.v[i], ".log") && stat(files.v[i], &st) == 0)
				rc = add_file_print(s, h, files.v[i], &st, e);
	lwm_paths_release(&files);
	return rc;
}

static int take_print(struct lwm_run_seen *s, const char *path, char hex[33], struct lwm_err *e)
{
	struct lwm_hasher *h = lwm_hasher_new();
	int rc;
	if (!h)
		return lwm_fail_memory(e, NULL);
	rc = add_tree_print(s, h, path, e);
	memcpy(hex, lwm_hasher_end(h).hex, 33);
	return rc;
}

static char *record_path(const struct lwm_pipeline *p, const struct lwm_pipe_task *t)
{
	char *s;
	return asprintf(&s, "%s/.lwm-run/%s.json", p->out, t->label) < 0 ? NULL : s;
}

static json_t *command_json(const struct lwm_pipe_task *t)
{
	json_t *a = json_array();
	for (int64_t i = 0; a && i < t->argv.n; i++)
		if (json_array_append_new(a, json_string_nocheck(t->argv.v[i]))) {
			json_decref(a);
			return NULL;
		}
	return a;
}

int lwm_run_write_record(const struct lwm_pipeline *p, const struct lwm_pipe_task *t, bool done, struct lwm_err *e)
{
	char *path = record_path(p, t), *dir = path ? lwm_path_dir(path) : NULL, hex[33];
	json_t *inputs = json_object(), *o = NULL;
	struct lwm_run_seen seen;
	int rc = lwm_run_seen_open(&seen, p, t, false, e);
	bool bad = !dir || !inputs;
	for (int64_t i = 0; i < t->inputs.n && !bad && rc == 0; i++) {
		rc = take_print(&seen, t->inputs.v[i], hex, e);
		bad = rc == 0 && json_object_set_new_nocheck(inputs, t->inputs.v[i], json_string(hex));
	}
	if (!bad && rc == 0) {
		o = json_pack("{s:s, s:o, s:O, s:b}", "schema", "lwm-run-task/1", "command", command_json(t), "inputs",
			      inputs, "done", (int)done);
		bad = !o;
	}
	if (bad)
		rc = lwm_fail(e, LWM_EMEMORY, "%s: cannot make the record", t->label);
	if (rc == 0)
		rc = lwm_mkdirs(dir, e);
	if (rc == 0)
		rc = lwm_json_write(o, path, true, e);
	lwm_run_seen_close(&seen);
	json_decref(o);
	json_decref(inputs);
	free(dir);
	free(path);
	return rc;
}

/* ---- verification ---- */

static bool wants_inspect(const struct lwm_pipe_stage *st, const char *path)
{
	if (st->check == LWM_PIPE_CHECK_EXISTS)
		return false;
	return st->check == LWM_PIPE_CHECK_INSPECT || lwm_path_has_suffix(path, ".h5") ||
	       lwm_path_has_suffix(path, ".safetensors") || lwm_path_is_dir(path);
}

static bool is_empty(const char *path)
{
	struct stat st;
	struct dirent **list;
	int n;
	if (stat(path, &st))
		return true;
	if (!S_ISDIR(st.st_mode))
		return S_ISREG(st.st_mode) && st.st_size == 0;
	n = scandir(path, &list, NULL, NULL);
	for (int i = 0; i < n; i++)
		free(list[i]);
	if (n >= 0)
		free(list);
	return n <= 2;
}

static int run_check(const struct lwm_paths *argv, char *why, size_t size, struct lwm_err *e)
{
	char text[300];
	int status;
	LWM_TRY(lwm_spawn_wait(argv, 2, &status, text, sizeof text, e));
	if (status == 0)
		return 0;
	text[strcspn(text, "\n")] = 0;
	snprintf(why, size, "failed check: %s (exit %d%s%s)", lwm_path_base(argv->v[0]), status, *text ? ": " : "", text);
	return 1;
}

static int run_inspect(const struct lwm_pipeline *p, const struct lwm_paths *paths, char *why, size_t size, struct lwm_err *e)
{
	struct lwm_paths argv = { 0 };
	char *tool = lwm_run_find_program(p, "lwm-inspect");
	int rc = 0;
	if (!tool)
		return lwm_fail_memory(e, NULL);
	LWM_GO(lwm_paths_add(&argv, tool, e));
	LWM_GO(lwm_paths_add(&argv, "--check", e));
	LWM_GO(lwm_paths_add(&argv, "--quiet", e));
	for (int64_t i = 0; i < paths->n; i++)
		LWM_GO(lwm_paths_add(&argv, paths->v[i], e));
	rc = run_check(&argv, why, size, e);
out:
	lwm_paths_release(&argv);
	free(tool);
	return rc;
}

static int check_outputs(const struct lwm_pipeline *p, const struct lwm_pipe_task *t, char *why, size_t size, struct lwm_err *e)
{
	struct lwm_paths ours = { 0 };
	int rc = 0;
	for (int64_t i = 0; i < t->outputs.n; i++) {
		if (!lwm_path_exists(t->outputs.v[i]) || is_empty(t->outputs.v[i])) {
			snprintf(why, size, "output %s: %s", lwm_path_exists(t->outputs.v[i]) ? "empty" : "missing",
				 t->outputs.v[i]);
			rc = 1;
			goto out;
		}
		if (wants_inspect(&p->stage[t->stage], t->outputs.v[i]))
			LWM_GO(lwm_paths_add(&ours, t->outputs.v[i], e));
	}
	if (t->check.n)
		rc = run_check(&t->check, why, size, e);
	else if (ours.n)
		rc = run_inspect(p, &ours, why, size, e);
out:
	lwm_paths_release(&ours);
	return rc;
}

/* Verifies, and notes down what was whole. */
static int verify_task(struct lwm_run_seen *s, const struct lwm_pipeline *p, const struct lwm_pipe_task *t, char *why, size_t size,
		  struct lwm_err *e)
{
	struct lwm_run_look before;
	int64_t began;
	int rc;

	lwm_run_look_at(t, (int)p->stage[t->stage].check, &before);
	began = lwm_run_wall_time();
	if (*before.hex && !before.coarse && before.settled > began && before.settled - began < 1000000000) {
		const struct timespec grain = { 0, before.settled - began };
		nanosleep(&grain, NULL); /* written just now: a change would show from then on */
		began = lwm_run_wall_time();
	}
	rc = check_outputs(p, t, why, size, e);
	if (rc == 0)
		lwm_run_seen_verified(s, &before, began);
	return rc;
}

int lwm_run_verify_outputs(const struct lwm_pipeline *p, const struct lwm_pipe_task *t, char *why, size_t size, struct lwm_err *e)
{
	struct lwm_run_seen seen;
	LWM_TRY(lwm_run_seen_open(&seen, p, t, false, e));
	int rc = verify_task(&seen, p, t, why, size, e);
	lwm_run_seen_close(&seen);
	return rc;
}

/* The same, unless they were verified before. */
static int still_whole(struct lwm_run_seen *s, const struct lwm_pipeline *p, const struct lwm_pipe_task *t, char *why, size_t size,
		       struct lwm_err *e)
{
	struct lwm_run_look now;
	lwm_run_look_at(t, (int)p->stage[t->stage].check, &now);
	return lwm_run_seen_whole(s, &now) ? 0 : verify_task(s, p, t, why, size, e);
}

/* ---- the verdict ---- */

static int compare_inputs(struct lwm_run_seen *s, const struct lwm_pipe_task *t, json_t *inputs, bool resumes,
			  struct lwm_run_verdict *v, struct lwm_err *e)
{
	char hex[33];
	for (int64_t i = 0; i < t->inputs.n; i++) {
		const char *was = json_string_value(json_object_get(inputs, t->inputs.v[i]));
		LWM_TRY(take_print(s, t->inputs.v[i], hex, e));
		if (was && !strcmp(was, hex))
			continue;
		snprintf(v->why, sizeof v->why, "%s: %s", was ? "changed input" : "new input", t->inputs.v[i]);
		/* one that was not known of when a part of the pipeline ran alone is no reason to begin anew */
		v->stale = was || !resumes;
		return 0;
	}
	return 0;
}

/* Compares with the record of the last run; leaves v->why empty when nothing changed. */
static int compare_record(struct lwm_run_seen *s, const struct lwm_pipeline *p, const struct lwm_pipe_task *t, json_t *record,
			  struct lwm_run_verdict *v, struct lwm_err *e)
{
	json_t *now = command_json(t), *inputs = json_object_get(record, "inputs");
	bool same = now && json_equal(now, json_object_get(record, "command"));
	json_decref(now);
	LWM_TRY(compare_inputs(s, t, inputs, p->stage[t->stage].resumes, v, e));
	if (!*v->why && !same) {
		snprintf(v->why, sizeof v->why, "changed command");
		v->stale = !p->stage[t->stage].resumes;
	}
	return 0;
}

/* No record: outputs that are newer than every input count. */
static void compare_times(const struct lwm_pipe_task *t, struct lwm_run_verdict *v)
{
	double made = 1e300, out;
	for (int64_t i = 0; i < t->outputs.n; i++) {
		out = newest_time(t->outputs.v[i]);
		made = out < made ? out : made;
	}
	for (int64_t i = 0; i < t->inputs.n && t->outputs.n; i++)
		if (newest_time(t->inputs.v[i]) > made)
			snprintf(v->why, sizeof v->why, "input newer than the outputs: %s", t->inputs.v[i]);
	if (!t->outputs.n)
		snprintf(v->why, sizeof v->why, "never ran");
}

static bool any_exists(const struct lwm_paths *p)
{
	for (int64_t i = 0; i < p->n; i++)
		if (lwm_path_exists(p->v[i]))
			return true;
	return false;
}

static int judge_task(const struct lwm_pipeline *p, const struct lwm_pipe_task *t, const struct lwm_run_cfg *c,
		      struct lwm_run_verdict *v, struct lwm_err *e)
{
	char *path = record_path(p, t);
	json_t *record = NULL;
	bool done = false, left = any_exists(&t->outputs), resumes = p->stage[t->stage].resumes;
	struct lwm_run_seen seen = { 0 };
	int rc = path ? lwm_run_seen_open(&seen, p, t, c->verify, e) : lwm_fail_memory(e, NULL);
	memset(v, 0, sizeof *v);
	if (rc < 0) {
		free(path);
		return rc;
	}
	/* a record that cannot be read is as good as none */
	if (lwm_path_exists(path) && lwm_json_read(&record, path, 1 << 26, NULL) == 0)
		done = json_is_true(json_object_get(record, "done"));
	if (c->force) {
		snprintf(v->why, sizeof v->why, "forced");
		v->stale = true;
	}
	if (!*v->why && record)
		rc = compare_record(&seen, p, t, record, v, e);
	if (rc == 0 && !*v->why)
		rc = still_whole(&seen, p, t, v->why, sizeof v->why, e);
	if (rc >= 0 && !*v->why && !record)
		compare_times(t, v);
	else if (rc >= 0 && !*v->why && !done && !t->outputs.n)
		snprintf(v->why, sizeof v->why, "did not finish");
	v->complete = rc >= 0 && !*v->why;
	v->stale = left && (v->stale || !resumes);
	lwm_run_seen_close(&seen);
	json_decref(record);
	free(path);
	return rc < 0 ? rc : 0;
}

struct jury {
	const struct lwm_pipeline *p;
	const struct lwm_pipe_stage *st;
	const struct lwm_run_cfg *c;
	struct lwm_run_verdict *v;
};

static int judge_one(void *ctx, int64_t i, struct lwm_err *e)
{
	struct jury *j = ctx;
	return judge_task(j->p, &j->st->task[i], j->c, &j->v[i], e);
}

int lwm_run_judge_stage(const struct lwm_pipeline *p, const struct lwm_pipe_stage *st, const struct lwm_run_cfg *c,
			struct lwm_run_verdict *v, struct lwm_err *e)
{
	struct jury j = { p, st, c, v };
	return lwm_work(st->ntask, c->threads, judge_one, &j, e);
}
