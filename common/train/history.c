/* What happened to a stage, run after run: lines that are only ever added. */
#include "common/train/history.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/json.h"
#include "common/base/launch.h"
#include "common/base/log.h"
#include "common/base/path.h"

enum { HOST = 64, MAX_COMMAND = 1 << 20 };

struct lwm_history {
	struct lwm_jsonl *file;
};

double lwm_history_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Ranks of one node follow each other as a rule: a name, and how many. */
static void list_hosts(struct lwm_str *out, const char *all, int ranks)
{
	lwm_str_putc(out, '[');
	for (int r = 0, n; r < ranks; r += n) {
		const char *name = all + (size_t)r * HOST;
		for (n = 1; r + n < ranks && !strcmp(name, all + (size_t)(r + n) * HOST);)
			n++;
		lwm_str_puts(out, r ? ",[" : "[");
		lwm_str_json(out, name, strlen(name));
		lwm_str_printf(out, ",%d]", n);
	}
	lwm_str_putc(out, ']');
}

int lwm_history_hosts(struct lwm_comm *world, struct lwm_str *hosts, struct lwm_err *e)
{
	int ranks = lwm_comm_size(world), rc;
	char mine[HOST] = "", *all = malloc((size_t)ranks * HOST);

	if (gethostname(mine, sizeof mine - 1))
		mine[0] = 0;
	rc = lwm_agree(world, all ? 0 : lwm_fail_memory(e, "names of hosts"), e);
	if (rc == 0)
		rc = lwm_comm_allgather(world, mine, HOST, all, e);
	if (rc == 0 && lwm_comm_rank(world) == 0)
		list_hosts(hosts, all, ranks);
	free(all);
	return rc;
}

int lwm_history_open(struct lwm_history **out, const char *dir, struct lwm_err *e)
{
	struct lwm_history *h = calloc(1, sizeof *h);
	char *path = lwm_path_join(dir, "history.jsonl");
	int rc = h && path ? lwm_jsonl_open(&h->file, path, e) : lwm_fail_memory(e, NULL);

	free(path);
	if (rc < 0)
		free(h);
	*out = rc < 0 ? NULL : h;
	return rc;
}

static int add_line(struct lwm_history *h, struct lwm_str *line, struct lwm_err *e)
{
	lwm_str_putc(line, '}');
	int rc = lwm_jsonl_add(h->file, line, e);
	lwm_str_release(line);
	return rc;
}

static void begin_line(struct lwm_str *line, const char *event, int64_t step)
{
	lwm_str_printf(line, "{\"event\":\"%s\",\"time\":%.3f,\"step\":%" PRId64, event, lwm_history_now(), step);
}

/* How to start it again: without that a status could not say it. */
static void put_command(struct lwm_str *line)
{
	char *text = NULL, cwd[4096];
	const char *job = lwm_launch_job();
	size_t n = 0;

	if (job) {
		lwm_str_puts(line, ",\"job\":");
		lwm_str_json(line, job, strlen(job));
	}
	if (getcwd(cwd, sizeof cwd)) {
		lwm_str_puts(line, ",\"cwd\":");
		lwm_str_json(line, cwd, strlen(cwd));
	}
	if (lwm_read_file("/proc/self/cmdline", MAX_COMMAND, &text, &n, NULL) < 0)
		return;
	lwm_str_puts(line, ",\"command\":[");
	for (size_t i = 0; i < n; i += strlen(text + i) + 1) {
		lwm_str_puts(line, i ? "," : "");
		lwm_str_json(line, text + i, strlen(text + i));
	}
	lwm_str_putc(line, ']');
	free(text);
}

int lwm_history_begin(struct lwm_history *h, const struct lwm_history_start *b, struct lwm_err *e)
{
	struct lwm_str line = { 0 };

	begin_line(&line, "begin", b->step);
	lwm_str_printf(&line, ",\"began\":%.3f,\"steps\":%" PRId64 ",\"ranks\":%d,\"hosts\":%s", b->began, b->steps, b->ranks,
		       b->hosts && *b->hosts ? b->hosts : "[]");
	lwm_str_printf(&line, ",\"lost_steps\":%" PRId64 ",\"lost_seconds\":%.6g,\"ended\":%.3f", b->before.lost_steps,
		       b->before.lost_seconds, b->before.ended);
	put_command(&line);
	return add_line(h, &line, e);
}

int lwm_history_saved(struct lwm_history *h, int64_t step, double seconds, double blocking, struct lwm_err *e)
{
	struct lwm_str line = { 0 };

	begin_line(&line, "save", step);
	lwm_str_printf(&line, ",\"seconds\":%.4f,\"blocking\":%.4f", seconds, blocking);
	return add_line(h, &line, e);
}

int lwm_history_end(struct lwm_history *h, const struct lwm_history_end *end, struct lwm_err *e)
{
	struct lwm_str line = { 0 };

	begin_line(&line, "end", end->step);
	lwm_str_printf(&line, ",\"code\":%d,\"why\":", end->code < 0 ? -end->code : end->code);
	lwm_str_json(&line, end->why, strlen(end->why));
	if (end->rank >= 0) {
		lwm_str_printf(&line, ",\"rank\":%d,\"host\":", end->rank);
		lwm_str_json(&line, end->host, strlen(end->host));
	}
	return add_line(h, &line, e);
}

void lwm_history_close(struct lwm_history *h)
{
	struct lwm_err why = { 0 };

	if (!h)
		return;
	if (lwm_jsonl_close(h->file, &why) < 0)
		lwm_log(LWM_WARN, "%s", why.msg);
	free(h);
}

/* ---- last words ---- */

void lwm_history_words(struct lwm_history_words *w, const char *dir, int rank)
{
	*w = (struct lwm_history_words){ .rank = rank };
	if ((size_t)snprintf(w->path, sizeof w->path, "%s/history.jsonl", dir) >= sizeof w->path)
		w->path[0] = 0;
	if (gethostname(w->host, sizeof w->host - 1))
		w->host[0] = 0;
	for (char *p = w->host; *p; p++)
		if (*p < ' ' || *p == '"' || *p == '\\' || *p > '~') /* so that it stands in JSON as it is */
			*p = '_';
}

void lwm_history_reached(struct lwm_history_words *w, int64_t step)
{
	atomic_store(&w->step, step);
}

/* Another thread may hold whatever lock there is, that of malloc too: only system calls, and a line on the stack. */
void lwm_history_stuck(void *ctx, const struct lwm_watchdog_end *end)
{
	struct lwm_history_words *w = ctx;
	struct timespec t;
	char line[1024];

	clock_gettime(CLOCK_REALTIME, &t);
	int n = snprintf(line, sizeof line,
			 "{\"event\":\"end\",\"time\":%" PRId64 ".%03ld,\"step\":%" PRId64 ",\"code\":%d,\"why\":\"rank %d on %s: %s for "
			 "%" PRId64 " s in '%s'\",\"rank\":%d,\"host\":\"%s\",\"section\":\"%s\",\"waited\":%s}\n",
			 (int64_t)t.tv_sec, t.tv_nsec / 1000000, atomic_load(&w->step), LWM_ERANK, w->rank, w->host,
			 end->waited ? "waited for other ranks" : "no progress", (int64_t)end->silent, end->where, w->rank, w->host,
			 end->where, end->waited ? "true" : "false");
	int fd = *w->path && n > 0 && n < (int)sizeof line ?
			 open(w->path, O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : -1;
	if (fd < 0)
		return;
	ssize_t done = write(fd, line, (size_t)n);
	(void)done; /* nobody is left who could be told */
	close(fd);
}
