/* Runs below a folder, each judged by itself, and the tasks of the pipeline they belong to. */
#include "common/eval/run_list.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/show.h"

enum { DEEP = 3, MAX_RECORD = 1 << 26 };

/* ---- finding runs ---- */

static int is_folder_of_runs(const struct dirent *d)
{
	return d->d_name[0] != '.' && strncmp(d->d_name, "step_", 5) && strcmp(d->d_name, "damaged");
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int find_runs(struct lwm_paths *out, const char *dir, int depth, struct lwm_err *e)
{
	struct dirent **list;
	int rc = 0, n;
	if (lwm_run_status_is(dir))
		return lwm_paths_add(out, dir, e);
	n = depth < DEEP ? scandir(dir, &list, is_folder_of_runs, by_name) : 0;
	for (int i = 0; i < n; i++) {
		char *path = lwm_path_join(dir, list[i]->d_name);
		if (rc == 0 && !path)
			rc = lwm_fail_memory(e, dir);
		if (rc == 0 && lwm_path_is_dir(path))
			rc = find_runs(out, path, depth + 1, e);
		free(path);
		free(list[i]);
	}
	if (n > 0 || (n == 0 && depth < DEEP))
		free(list);
	return rc;
}

static double began_at(const struct lwm_run_status *st)
{
	return st->history.n ? st->history.v[0].began : 1e300;
}

static int by_begin(const void *a, const void *b)
{
	const struct lwm_run_status *x = a, *y = b;
	double p = began_at(x), q = began_at(y);
	return p != q ? (p > q) - (p < q) : strcmp(x->dir, y->dir);
}

/* ---- tasks ---- */

static int is_record(const struct dirent *d)
{
	size_t n = strlen(d->d_name);
	return d->d_name[0] != '.' && lwm_path_has_suffix(d->d_name, ".json") &&
	       !(n > 10 && lwm_path_has_suffix(d->d_name, ".seen.json"));
}

/* The exit status of a task's last try, by timing.jsonl; -1: none is there. */
static int last_exit(const char *text, size_t size, const char *label, size_t length)
{
	int status = -1;
	const char *end;
	for (const char *p = text; p && (end = memchr(p, '\n', size - (size_t)(p - text))); p = end + 1) {
		json_t *o = NULL;
		const char *task = NULL;
		if (lwm_json_parse(&o, p, (size_t)(end - p), "timing.jsonl", NULL) == 0)
			task = json_string_value(json_object_get(o, "task"));
		if (task && strlen(task) == length && !strncmp(task, label, length))
			status = (int)json_integer_value(json_object_get(o, "exit"));
		json_decref(o);
	}
	return status;
}

static int take_task(struct lwm_run_list *l, const char *name, const char *timing, size_t size, struct lwm_err *e)
{
	char *path = NULL, *text = NULL;
	json_t *o = NULL;
	size_t length = strlen(name) - 5;
	int status, rc = asprintf(&path, "%s/.lwm-run/%s", l->dir, name) < 0 ? lwm_fail_memory(e, l->dir) : 0;
	if (rc == 0 && lwm_json_read(&o, path, MAX_RECORD, NULL) == 0) {
		bool done = json_is_true(json_object_get(o, "done"));
		done ? l->done++ : l->open++;
		status = done ? 0 : last_exit(timing, size, name, length);
		if (status > 0 && status != LWM_ESAVED)
			rc = asprintf(&text, "%.*s ended with %d: see %s/logs/%.*s.log", (int)length, name, status, l->dir,
				      (int)length, name) < 0 ? lwm_fail_memory(e, l->dir) : lwm_paths_add(&l->failed, text, e);
	}
	json_decref(o);
	free(text);
	free(path);
	return rc < 0 ? rc : 0;
}

static int read_tasks(struct lwm_run_list *l, struct lwm_err *e)
{
	char *dir = lwm_path_join(l->dir, ".lwm-run"), *timing = lwm_path_join(l->dir, "timing.jsonl"), *text = NULL;
	struct dirent **list;
	size_t size = 0;
	int rc = dir && timing ? 0 : lwm_fail_memory(e, l->dir), n = rc == 0 ? scandir(dir, &list, is_record, by_name) : -1;
	if (n > 0 && lwm_path_exists(timing) && lwm_read_file(timing, 1 << 28, &text, &size, NULL) < 0)
		text = NULL;
	for (int i = 0; i < n; i++) {
		if (rc == 0)
			rc = take_task(l, list[i]->d_name, text, size, e);
		free(list[i]);
	}
	if (n >= 0)
		free(list);
	free(text);
	free(timing);
	free(dir);
	return rc;
}

/* ---- the list ---- */

int lwm_run_list_read(struct lwm_run_list *l, const char *dir, double now, bool verify, struct lwm_err *e)
{
	struct lwm_paths runs = { 0 };
	memset(l, 0, sizeof *l);
	if (!lwm_path_is_dir(dir))
		return lwm_fail(e, LWM_ENOINPUT, "%s: %s", dir,
				lwm_path_exists(dir) ? "is no folder, so no run" : "does not exist");
	l->dir = strdup(dir);
	int rc = l->dir ? find_runs(&runs, dir, 0, e) : lwm_fail_memory(e, dir);
	if (rc == 0)
		rc = read_tasks(l, e);
	if (rc == 0 && !runs.n && !l->done && !l->open)
		rc = lwm_fail(e, LWM_ENOINPUT, "%s: is no run: neither metrics.jsonl, history.jsonl nor a checkpoint in it or below, "
			      "nor records of lwm-run", dir);
	l->v = rc == 0 ? calloc((size_t)runs.n + 1, sizeof *l->v) : NULL;
	if (rc == 0 && !l->v)
		rc = lwm_fail_memory(e, dir);
	for (int64_t i = 0; i < runs.n && rc == 0; i++, l->n++)
		rc = lwm_run_status_read(&l->v[i], runs.v[i], now, verify, e);
	if (rc == 0)
		qsort(l->v, (size_t)l->n, sizeof *l->v, by_begin);
	lwm_paths_release(&runs);
	return rc;
}

void lwm_run_list_release(struct lwm_run_list *l)
{
	for (int64_t i = 0; i < l->n; i++)
		lwm_run_status_release(&l->v[i]);
	lwm_paths_release(&l->failed);
	free(l->v);
	free(l->dir);
	memset(l, 0, sizeof *l);
}

/* The first run that is not complete says what to do; before it what failed. */
static void add_next(const struct lwm_run_list *l, struct lwm_str *out)
{
	for (int64_t i = 0; i < l->failed.n; i++)
		lwm_str_printf(out, "%s%s", i ? "; " : "", l->failed.v[i]);
	if (l->failed.n)
		return;
	for (int64_t i = 0; i < l->n; i++)
		if (l->v[i].state != LWM_RUN_COMPLETE) {
			lwm_str_printf(out, "%s: %s", l->v[i].dir, lwm_str_get(&l->v[i].next));
			return;
		}
	lwm_str_puts(out, l->open ? "run lwm-run again with the same file: not all of its tasks are complete" : "nothing");
}

static const char *name_in(const struct lwm_run_list *l, int64_t i)
{
	size_t n = strlen(l->dir);
	const char *name = l->v[i].dir;
	if (strncmp(name, l->dir, n) || name[n] != '/')
		return name;
	while (name[n] == '/')
		n++;
	return name + n;
}

void lwm_run_list_show(const struct lwm_run_list *l, struct lwm_str *out)
{
	struct lwm_str next = { 0 };
	int width = 0;
	lwm_show_add(out, l->dir);
	if (l->done + l->open)
		lwm_str_printf(out, ": tasks of lwm-run: %" PRId64 " complete, %" PRId64 " open, %" PRId64 " of them failed",
			       l->done, l->open, l->failed.n);
	lwm_str_putc(out, '\n');
	for (int64_t i = 0; i < l->n; i++)
		if ((int)strlen(name_in(l, i)) > width)
			width = (int)strlen(name_in(l, i));
	for (int64_t i = 0; i < l->n; i++)
		lwm_run_status_line(&l->v[i], name_in(l, i), width < 60 ? width : 60, out);
	add_next(l, &next);
	if (next.failed)
		out->failed = true;
	lwm_str_puts(out, "next      ");
	lwm_show_add(out, lwm_str_get(&next));
	lwm_str_putc(out, '\n');
	lwm_str_release(&next);
}

void lwm_run_list_json(const struct lwm_run_list *l, struct lwm_str *out)
{
	struct lwm_str next = { 0 };
	lwm_str_puts(out, "{\"schema\":\"lwm-status-list/1\",\"run\":");
	lwm_str_json(out, l->dir, strlen(l->dir));
	lwm_str_printf(out, ",\"tasks\":{\"done\":%" PRId64 ",\"open\":%" PRId64 ",\"failed\":[", l->done, l->open);
	for (int64_t i = 0; i < l->failed.n; i++) {
		lwm_str_puts(out, i ? "," : "");
		lwm_str_json(out, l->failed.v[i], strlen(l->failed.v[i]));
	}
	lwm_str_puts(out, "]},\"runs\":[");
	for (int64_t i = 0; i < l->n; i++) {
		lwm_str_puts(out, i ? "," : "");
		lwm_run_status_json(&l->v[i], out);
	}
	add_next(l, &next);
	if (next.failed)
		out->failed = true;
	lwm_str_puts(out, "],\"next\":");
	lwm_str_json(out, lwm_str_get(&next), next.len);
	lwm_str_putc(out, '}');
	lwm_str_release(&next);
}
