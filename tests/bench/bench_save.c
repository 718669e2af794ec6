/* bench_save.c - how long training waits for its checkpoints: written behind the computation, and while it waits.
 *
 *	bench_save [LAYERS]
 *
 * LAYERS of 7.1M weights each (4: a checkpoint of 340 MB) are trained twice in the folder TMPDIR, else /tmp, with a save every 8
 * steps. wait: all of a save, as --save-behind false does it; behind: from its begin until it was committed; blocking: what
 * training waited of that, percent of `wait`. The save at the end of a run, which is always waited for, is not counted.
 * step_beside: a step during which something is written, percent of one without.
 */
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"
#include "tests/bench/bench.h"
#include "tests/unit/train_fixture.h"

enum { EVERY = 8, SAVES = 3, LAST = EVERY * SAVES + 1 };

struct times { /* medians */
	double save, blocking, beside, alone;
};

static int run_on(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	return lwm_stage_run(arg, c, e);
}

static double median(double *v, int n)
{
	if (n == 0)
		return 0;
	qsort(v, (size_t)n, sizeof *v, bench_cmp);
	return v[n / 2];
}

static double number(const json_t *o, const char *key)
{
	return json_number_value(json_object_get(o, key));
}

/* Steps whose line comes between a save's begin and its own line were made beside it. */
static int read_times(const char *out, struct times *t, struct lwm_err *e)
{
	double save[LAST], blocking[LAST], beside[LAST], alone[LAST], step[LAST + 1] = { 0 };
	int ns = 0, nb = 0, na = 0, done = 0;
	char path[400], *text, *p, *end;
	size_t n;
	snprintf(path, sizeof path, "%s/metrics.jsonl", out);
	LWM_TRY(lwm_read_file(path, 1 << 24, &text, &n, e));
	for (p = text; (end = memchr(p, '\n', n - (size_t)(p - text))); p = end + 1) {
		json_t *o = json_loadb(p, (size_t)(end - p), 0, NULL);
		const char *event = json_string_value(json_object_get(o, "event"));
		int at = (int)number(o, "step");
		if (event && !strcmp(event, "step"))
			step[done = at] = number(o, "seconds");
		if (event && !strcmp(event, "save") && at < LAST) {
			save[ns] = number(o, "seconds");
			blocking[ns++] = number(o, "blocking");
			for (int i = at + 1; i <= done; i++) {
				beside[nb++] = step[i];
				step[i] = 0;
			}
		}
		json_decref(o);
	}
	for (int i = 2; i <= LAST; i++) /* the first one meets cold memory */
		if (step[i] > 0)
			alone[na++] = step[i];
	*t = (struct times){ median(save, ns), median(blocking, ns), median(beside, nb), median(alone, na) };
	free(text);
	return ns == SAVES ? 0 : lwm_fail(e, LWM_EINTERNAL, "%d saves", ns);
}

static int train(const char *root, const char *rows, int layers, int behind, struct times *t, struct lwm_err *e)
{
	struct lwm_stage s;
	char out[300];
	snprintf(out, sizeof out, "%s/out%d", root, behind);
	LWM_TRY(fx_stage(&s, rows, out, e));
	struct lwm_next_token *n = lwm_next_token_of(&s);
	n->dim = 768; /* few tokens: the checkpoint is what counts */
	n->ffn = 2048;
	n->layers = layers;
	n->heads = n->kv_heads = 12;
	n->micro_rows = 2;
	n->tokens_per_batch = FX_SEQ * 2;
	s.threads = 2;
	s.steps = LAST;
	s.checkpoint_every = EVERY;
	s.keep = 1;
	s.save_behind = behind;
	int rc = lwm_comm_threads(1, run_on, &s, e);
	if (rc == 0)
		rc = read_times(out, t, e);
	lwm_stage_release(&s);
	return rc;
}

int main(int argc, char **argv)
{
	int layers = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 4;
	const char *tmp = getenv("TMPDIR");
	struct times wait, behind;
	struct lwm_err e = { 0 };
	char root[200], rows[240];
	lwm_log_init("bench_save", LWM_WARN);
	snprintf(root, sizeof root, "%s/lwm_bench_XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(root))
		return 1;
	snprintf(rows, sizeof rows, "%s/rows.h5", root);
	int rc = fx_rows(rows, &e);
	if (rc == 0)
		rc = train(root, rows, layers, LWM_BEHIND_FALSE, &wait, &e);
	if (rc == 0)
		rc = train(root, rows, layers, LWM_BEHIND_TRUE, &behind, &e);
	lwm_remove_tree(root, NULL);
	if (rc < 0) {
		fprintf(stderr, "bench_save: %s\n", e.msg);
		return 1;
	}
	printf("op=save_wait ms=%.1f\n", 1e3 * wait.save);
	printf("op=save_behind ms=%.1f blocking_ms=%.2f percent=%.2f\n", 1e3 * behind.save, 1e3 * behind.blocking,
	       100 * behind.blocking / wait.save);
	printf("op=step_beside ms=%.1f alone_ms=%.1f percent=%.1f\n", 1e3 * behind.beside, 1e3 * behind.alone,
	       100 * behind.beside / behind.alone);
	return 0;
}
