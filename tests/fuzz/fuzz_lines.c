/* JSON lines that are read whole: a haystack, metrics and times of a run for its page, metrics and history for its status, results
 * of a needle sweep. The page of whatever it is made of is well-formed UTF-8 without a tag from outside; a status is always had, as
 * JSON and as lines without control characters. */
#include <fcntl.h>
#include <math.h>
#include <unistd.h>

#include "common/base/utf8.h"
#include "common/eval/needle_eval.h"
#include "common/eval/run_report.h"
#include "common/eval/run_status.h"
#include "tests/fuzz/replay.h"

static char dir[40], haystack[64], text[64], stage[96], metrics[64], history[64], times[64], results[64];
static struct lwm_tokenizer *bytes;

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void clean_up(void)
{
	lwm_remove_tree(dir, NULL);
	lwm_tokenizer_free(bytes);
}

static void set_up(void)
{
	if (bytes)
		return;
	snprintf(dir, sizeof dir, "%s/lwm_fuzz_XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	must(mkdtemp(dir) != NULL && atexit(clean_up) == 0);
	must(lwm_tokenizer_open(&bytes, "bytes", NULL) == 0);
	snprintf(haystack, sizeof haystack, "%s/h.jsonl", dir);
	snprintf(text, sizeof text, "%s/h.txt", dir);
	snprintf(metrics, sizeof metrics, "%s/metrics.jsonl", dir);
	snprintf(history, sizeof history, "%s/history.jsonl", dir);
	snprintf(stage, sizeof stage, "s=%s", dir);
	snprintf(times, sizeof times, "%s/timing.jsonl", dir);
	snprintf(results, sizeof results, "%s/results.jsonl", dir);
}

static void put(const char *path, const uint8_t *p, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
	must(fd >= 0 && write(fd, p, n) == (ssize_t)n);
	close(fd);
}

/* Sentences lie one behind the other and fill the text. */
static void read_haystack(char *path)
{
	struct lwm_haystack h;
	struct lwm_err e = { 0 };
	struct lwm_paths files = { &path, 1, 1 };
	if (lwm_haystack_read(&h, &files, bytes, &e) < 0) {
		must(e.code && *e.msg);
		return;
	}
	must(h.n >= 2 && h.start[0] == 0 && h.start[h.n] == (int64_t)h.text.len);
	for (int64_t i = 0; i < h.n; i++)
		must(h.start[i] < h.start[i + 1] && h.tokens[i] <= h.tokens[i + 1]);
	must(h.tokens[h.n] <= (int64_t)h.text.len);
	lwm_haystack_release(&h);
}

static void make_page(void)
{
	struct lwm_run_report r = { .title = "t", .timing = times };
	struct lwm_str page = { 0 }, failures = { 0 };
	struct lwm_err e = { 0 };
	char *one = stage;
	int64_t failed;
	r.stages = (struct lwm_paths){ &one, 1, 1 };
	if (lwm_run_report_make(&r, &page, &failures, &failed, &e) < 0) {
		must(e.code && *e.msg);
		must(e.code != -LWM_EMEMORY); /* bad data is never that */
	} else {
		must(strlen(page.s) == page.len && lwm_utf8_check(page.s, page.len) == page.len);
		must(!strstr(page.s, "<script") && !strstr(page.s, "<svg"));
	}
	lwm_str_release(&page);
	lwm_str_release(&failures);
}

static void ask_status(void)
{
	struct lwm_run_status st;
	struct lwm_str page = { 0 }, json = { 0 };
	struct lwm_err e = { 0 };
	double sum = 0;
	must(lwm_run_status_read(&st, dir, 2e9, false, &e) == 0);
	lwm_run_status_show(&st, &page);
	lwm_run_status_json(&st, &json);
	must(!page.failed && lwm_utf8_check(page.s, page.len) == page.len);
	for (size_t i = 0; i < page.len; i++)
		must((unsigned char)page.s[i] >= 0x20 || page.s[i] == '\n');
	json_t *o = json_loadb(json.s, json.len, JSON_ALLOW_NUL, NULL);
	must(json_is_object(o));
	for (int p = 0; p < LWM_LEDGER_PARTS; p++) {
		must(st.ledger.seconds[p] >= 0);
		sum += st.ledger.seconds[p];
	}
	must(fabs(sum - st.ledger.total) <= 1e-9 * st.ledger.total);
	json_decref(o);
	lwm_str_release(&page);
	lwm_str_release(&json);
	lwm_run_status_release(&st);
}

static void fuzz_one(const uint8_t *p, size_t n)
{
	struct lwm_needle_results res;
	struct lwm_err e = { 0 };
	set_up();
	put(haystack, p, n);
	put(text, p, n);
	put(metrics, p, n);
	put(history, p, n);
	put(times, p, n);
	put(results, p, n);
	read_haystack(haystack);
	read_haystack(text);
	make_page();
	ask_status();
	if (lwm_results_read(&res, results, &e) == 0)
		lwm_results_release(&res);
	else
		must(e.code && *e.msg);
}
