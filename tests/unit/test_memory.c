/* Out of memory is never bad data: whichever allocation fails while a corpus is tokenised, the run ends with the code for
 * memory and no finished shard, or with the very shard it always makes; never with a shard of fewer documents, never with
 * the code for bad data, never with a crash. (HDF5 and libgomp break or end the program when an allocation of their own
 * fails: such a run may die, but leaves no shard that is not the right one. Before they are called, memory is asked for;
 * what that is worth is what the test with a budget shows, in which nothing dies.)
 *
 * Each run is a process of its own, so that every library begins anew. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#include "tests/unit/io_fault.h"

static void has_its_own_malloc(void **state)
{
	(void)state;
	print_message("[  SKIPPED ] has_its_own_malloc: the sanitizer has its own malloc\n");
	skip();
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(has_its_own_malloc) };
	return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
#else
#include "tests/unit/memory_fault.h"

#include <execinfo.h>
#include <link.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <zlib.h>
#include <zstd.h>

#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/cli/yaml.h"
#include "common/data/ingest/ingest.h"
#include "common/text/lines.h"
#include "common/io/inspect.h"

enum { MOST = 1 << 16, WORKERS = 4, ALL_BELOW = 2000, STEP = 37 };

/* ---- who asks ---- */

/* What the parent wants to know of a run that nothing disturbs, and of one that went wrong. */
static struct {
	int64_t asked, peak;
	bool theirs[MOST]; /* [k]: the k-th allocation is HDF5's or libgomp's */
	char wrong[2000];
} *seen;

static struct {
	const char *from, *to;
} foreign[2];
static int nforeign;

extern char __executable_start, etext;

static int find_library(struct dl_phdr_info *l, size_t size, void *ctx)
{
	(void)size;
	(void)ctx;
	if (!strstr(l->dlpi_name, "libhdf5_serial.so") && !strstr(l->dlpi_name, "libhdf5.so") &&
	    !strstr(l->dlpi_name, "libgomp"))
		return 0;
	for (int i = 0; i < l->dlpi_phnum && nforeign < 2; i++)
		if (l->dlpi_phdr[i].p_type == PT_LOAD && (l->dlpi_phdr[i].p_flags & PF_X)) {
			foreign[nforeign].from = (const char *)l->dlpi_addr + l->dlpi_phdr[i].p_vaddr;
			foreign[nforeign].to = foreign[nforeign].from + l->dlpi_phdr[i].p_memsz;
			nforeign++;
		}
	return 0;
}

/* Does HDF5 or libgomp stand between the allocation and our own code? The first frames are those of the watch. */
static __attribute__((noinline)) bool is_theirs(void)
{
	void *frame[60];
	int n = backtrace(frame, 60);
	for (int i = 4; i < n; i++) {
		const char *at = frame[i];
		if (at >= &__executable_start && at < &etext)
			return false;
		for (int k = 0; k < nforeign; k++)
			if (at >= foreign[k].from && at < foreign[k].to)
				return true;
	}
	return false;
}

static void watch(int64_t k, int64_t bytes)
{
	if (k < MOST)
		seen->theirs[k] = is_theirs();
	if (bytes > seen->peak)
		seen->peak = bytes;
}

/* ---- the corpus ---- */

static void text_of(struct lwm_str *s)
{
	for (int i = 0; i < 40; i++)
		lwm_str_printf(s, "Line %d of a book in which %d ships sail to sea.\n", i, i * 3);
}

static void chats_of(struct lwm_str *s)
{
	for (int i = 0; i < 40; i++)
		lwm_str_printf(s, "{\"question\": \"How many are %d \\u00e9toiles,\\n and why?\", \"answer\": \"They are %d.\"}\n", i,
			       i * 2);
}

static void write_gz(const char *path, const struct lwm_str *s)
{
	gzFile f = gzopen(path, "wb");
	assert_true(f && gzwrite(f, s->s, (unsigned)s->len) == (int)s->len && gzclose(f) == Z_OK);
}

static void write_zst(const char *path, const struct lwm_str *s)
{
	size_t cap = ZSTD_compressBound(s->len);
	char *out = malloc(cap);
	size_t n = ZSTD_compress(out, cap, s->s, s->len, 3);
	assert_false(ZSTD_isError(n));
	spill(path, out, n);
	free(out);
}

static int make_corpus(void **state)
{
	struct lwm_str text = { 0 }, chats = { 0 };
	struct lwm_err e = { 0 };
	if (scratch_make(state))
		return -1;
	seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	dl_iterate_phdr(find_library, NULL);
	text_of(&text);
	chats_of(&chats);
	spill(at("book.txt"), text.s, text.len);
	write_gz(at("book.txt.gz"), &text);
	write_zst(at("chats.jsonl.zst"), &chats);
	lwm_str_reset(&text);
	lwm_str_putc(&text, '[');
	for (int i = 0; i < 12; i++)
		lwm_str_printf(&text, "%s{\"system\": \"Be %d.\", \"vision\": [%d, 1], \"image\": \"x\", \"conversations\": [{\"from\": \"human\","
			       "\"value\": \"<image>What?\"}, {\"from\": \"gpt\", \"value\": \"That %d.\"}]}\n", i ? ", " : "", i, i, i);
	lwm_str_putc(&text, ']');
	spill(at("turns.json"), text.s, text.len);
	lwm_str_release(&text);
	lwm_str_release(&chats);
	const char *input = at("book.txt");
	struct lwm_tokenizer_train_cfg train = { .inputs = &input, .ninputs = 1, .vocab = 320, .threads = 1 };
	/* in a process of its own: this one stays as it was, and the runs are forked from it */
	pid_t pid = fork();
	if (pid == 0)
		_exit(lwm_tokenizer_train(&train, at("t.model"), false, &e) < 0);
	int status;
	return waitpid(pid, &status, 0) == pid && status == 0 ? 0 : -1;
}

/* ---- a run ---- */

struct corpus {
	const char *tokenizer, *input, *fields; /* no tokenizer: the input is a shard, which is read */
	const char *finished;                   /* this shard is there already, and is not to be made anew */
};

static int ingest(const struct corpus *c, const char *shard, struct lwm_err *e)
{
	struct lwm_tokenizer *t = NULL;
	struct lwm_fields *f = NULL;
	struct lwm_paths in = { 0 }, out = { 0 };
	struct lwm_ingest_stats st;
	const struct lwm_fields_cfg fc = { .fields = &c->fields, .nfields = 1, .index = -1, .frame_codes = 2, .chat.vision = true };
	int rc;
	LWM_GO(lwm_tokenizer_open(&t, strcmp(c->tokenizer, "bytes") ? at(c->tokenizer) : c->tokenizer, e));
	LWM_GO(lwm_fields_open(&f, &fc, t, e));
	LWM_GO(lwm_paths_add(&in, at(c->input), e));
	LWM_GO(lwm_paths_add(&out, shard, e));
	/* any number of malformed records is fine: a record that is lost for want of memory would not be noticed */
	struct lwm_ingest_cfg cfg = { .tokenizer = t, .fields = f, .split_lines = 1, .max_bad = -1, .threads = 1, .tool = "test",
				      .config = "{}", .policy = "bos,eos", .force = !c->finished,
				      .vision_table = lwm_fields_has_vision(f) ? LWM_VISION_CODES + 2 : 0 };
	rc = lwm_ingest_run(&cfg, &in, &out, &st, e);
out:
	lwm_paths_release(&in);
	lwm_paths_release(&out);
	lwm_fields_free(f);
	lwm_tokenizer_free(t);
	return rc;
}

static int hash_documents(struct lwm_docs *d, struct lwm_hash *out, struct lwm_err *e)
{
	struct lwm_str all = { 0 };
	struct lwm_doc doc;
	int32_t v[256];
	int rc = 0;
	for (int64_t i = 0; i < lwm_docs_count(d); i++) {
		LWM_GO(lwm_docs_get(d, i, &doc, e));
		LWM_GO(lwm_docs_read(d, i, 0, doc.n, v, e));
		lwm_str_printf(&all, "%s %d:", doc.id, (int)doc.n);
		lwm_str_add(&all, v, (size_t)doc.n * sizeof *v);
	}
	rc = lwm_str_ok(&all, e);
	if (rc == 0)
		*out = lwm_hash_bytes(all.s, all.len);
out:
	lwm_str_release(&all);
	return rc;
}

/* What was read goes where the other kind of run puts its shard. */
static int read_shard(const char *path, const char *result, struct lwm_err *e)
{
	struct lwm_docs *d;
	struct lwm_hash h;
	enum lwm_thing what;
	char manifest[300];
	LWM_TRY(lwm_thing_of(path, &what, e));
	if (what != LWM_THING_DOCS)
		return lwm_fail(e, LWM_EDATA, "taken for a thing of kind %s", lwm_thing_name(what));
	LWM_TRY(lwm_docs_open(&d, path, e));
	int rc = hash_documents(d, &h, e);
	lwm_docs_close(d);
	LWM_TRY(rc);
	snprintf(manifest, sizeof manifest, "%s.manifest.json", result);
	spill(result, h.hex, 32);
	spill(manifest, "{}", 2);
	return 0;
}

/* A program that makes the shard; its status as of wait. */
static int run(const struct corpus *c, const char *shard, const char *log)
{
	int status;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		const struct rlimit none = { 0, 0 };
		struct lwm_err e = { 0 };
		int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0666);
		setrlimit(RLIMIT_CORE, &none);
		for (int i = 1; i < 32; i++) /* cmocka's: a crash here is no failure of a test there */
			signal(i, SIG_DFL);
		dup2(fd, 2);
		in_use = asked = 0;
		int rc = c->tokenizer ? ingest(c, shard, &e) : read_shard(at(c->input), shard, &e);
		how.countdown = -1;
		how.budget = 0;
		if (how.watch)
			seen->asked = asked;
		dprintf(2, "%s\n", e.msg);
		exit(-rc);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* Hash of the shard and its manifest; "" when there is no finished one. */
static struct lwm_hash finished(const char *shard)
{
	struct lwm_hash a = { "" }, b = { "" };
	char manifest[300], both[70];
	snprintf(manifest, sizeof manifest, "%s.manifest.json", shard);
	if (!lwm_path_exists(manifest))
		return a;
	assert_int_equal(lwm_hash_file(shard, &a, NULL, NULL), 0);
	assert_int_equal(lwm_hash_file(manifest, &b, NULL, NULL), 0);
	snprintf(both, sizeof both, "%s%s", a.hex, b.hex);
	return lwm_hash_bytes(both, strlen(both));
}

static void clean(const char *shard)
{
	char name[320];
	snprintf(name, sizeof name, "%s.manifest.json", shard);
	unlink(name);
	unlink(shard);
}

/* What a run may come to; false: something else, and seen->wrong says what. */
static bool judge(const struct corpus *c, int status, const char *shard, const char *log, const struct lwm_hash *want,
		  bool may_die, const char *what)
{
	struct lwm_hash have = finished(shard);
	bool same = !strcmp(have.hex, want->hex), none = !have.hex[0];
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	bool died = code < 0 || code == 1 || code == 255; /* signals; libgomp; HDF5 */
	size_t n;
	if (((code == 0 || code == LWM_EMEMORY) && same) || (code == LWM_EMEMORY && none) || (may_die && died && (same || none)))
		return true;
	char *said = slurp(log, &n);
	snprintf(seen->wrong, sizeof seen->wrong, "%s of %s%s: %s %d, %s shard; it said: %s", what, c->input,
		 may_die ? " (a library's own allocation)" : "", code < 0 ? "signal" : "exit",
		 code < 0 ? WTERMSIG(status) : code, same ? "the same" : none ? "no" : "ANOTHER", said);
	free(said);
	return false;
}

static void copy(const char *from, const char *to)
{
	size_t n;
	char *s = slurp(from, &n);
	spill(to, s, n);
	free(s);
}

static void put_finished(const struct corpus *c, const char *shard)
{
	char from[300], to[300];
	copy(at(c->finished), shard);
	snprintf(from, sizeof from, "%s.manifest.json", at(c->finished));
	snprintf(to, sizeof to, "%s.manifest.json", shard);
	copy(from, to);
}

/* The run that nothing disturbs: its shard, who asks for memory, how often, and how much there is at once. */
static struct lwm_hash undisturbed(const struct corpus *c)
{
	const char *shard = at("whole.docs.h5");
	memset(seen, 0, sizeof *seen);
	if (c->finished)
		put_finished(c, shard);
	how.watch = watch;
	int status = run(c, shard, at("log"));
	how.watch = NULL;
	assert_int_equal(status, 0);
	assert_in_range(seen->asked, 500, MOST - 1);
	struct lwm_hash want = finished(shard);
	assert_int_equal(strlen(want.hex), 32);
	clean(shard);
	return want;
}

/* The k-th allocation of a run fails, and with for_good all behind it for which nothing was given back. */
static bool fail_kth(const struct corpus *c, int64_t k, bool for_good, const struct lwm_hash *want, int worker)
{
	char shard[200], log[200], what[100], name[40];
	snprintf(name, sizeof name, "out-%d.docs.h5", worker);
	snprintf(shard, sizeof shard, "%s", at(name));
	snprintf(name, sizeof name, "log-%d", worker);
	snprintf(log, sizeof log, "%s", at(name));
	snprintf(what, sizeof what, "allocation %d%s", (int)k, for_good ? " and the memory as full as that for good" : "");
	if (c->finished)
		put_finished(c, shard);
	how.countdown = k;
	how.for_good = for_good;
	int status = run(c, shard, log);
	how.countdown = -1;
	how.for_good = false;
	bool fine = judge(c, status, shard, log, want, seen->theirs[k], what);
	clean(shard);
	return fine;
}

/* Every one, or of many a part of them; `worker` of WORKERS takes its share. */
static bool fail_share(const struct corpus *c, const struct lwm_hash *want, int worker)
{
	int64_t turn = 0, all_below = c->tokenizer ? ALL_BELOW : 0, step = c->tokenizer ? STEP : 11;
	for (int64_t k = 0; k < seen->asked; k += k < all_below ? 1 : step)
		if (turn++ % WORKERS == worker && !fail_kth(c, k, false, want, worker))
			return false;
	for (int64_t k = 0; k < seen->asked; k += 3 * STEP)
		if (!seen->theirs[k] && turn++ % WORKERS == worker && !fail_kth(c, k, true, want, worker))
			return false;
	return true;
}

static void fail_each(const struct corpus *c)
{
	struct lwm_hash want = undisturbed(c);
	pid_t pid[WORKERS];
	bool fine = true;
	for (int i = 0; i < WORKERS; i++) {
		pid[i] = fork();
		if (pid[i] == 0)
			_exit(!fail_share(c, &want, i));
	}
	for (int i = 0; i < WORKERS; i++) {
		int status;
		fine = waitpid(pid[i], &status, 0) == pid[i] && status == 0 && fine;
	}
	if (!fine)
		fail_msg("%s", seen->wrong[0] ? seen->wrong : "a worker died");
}

static const struct corpus book = { "bytes", "book.txt.gz", "text", NULL },
			   chats = { "t.model", "chats.jsonl.zst", "[question],answer", NULL },
			   turns = { "bytes", "turns.json", "<|chat|>", NULL };

static void text_by_bytes(void **state)
{
	(void)state;
	fail_each(&book);
}

/* Nothing is left to do, and that is what it comes to, or to want of memory: the shard stays, and is not in the way. */
static void a_finished_shard(void **state)
{
	(void)state;
	const struct corpus again = { "bytes", "book.txt.gz", "text", "done.docs.h5" };
	assert_int_equal(run(&book, at("done.docs.h5"), at("log")), 0);
	fail_each(&again);
}

static void reading_a_shard(void **state)
{
	(void)state;
	const struct corpus shard = { .input = "in.docs.h5", .fields = "" };
	assert_int_equal(run(&book, at("in.docs.h5"), at("log")), 0);
	fail_each(&shard);
}

static void turns_by_bytes(void **state)
{
	(void)state;
	fail_each(&turns);
}

static void chats_by_pieces(void **state)
{
	(void)state;
	fail_each(&chats);
}

/* As on a machine that is too small, by a little or by a lot: nothing dies. */
static void a_budget(void **state)
{
	(void)state;
	enum { STEPS = 150 };
	struct lwm_hash want = undisturbed(&chats);
	char shard[200], log[200], what[100];
	int made = 0;
	snprintf(shard, sizeof shard, "%s", at("out.docs.h5"));
	snprintf(log, sizeof log, "%s", at("log"));
	for (int i = 1; i <= STEPS; i++) {
		how.budget = seen->peak * i / STEPS;
		snprintf(what, sizeof what, "a budget of %lld bytes", (long long)how.budget);
		int status = run(&chats, shard, log);
		how.budget = 0;
		made += status == 0;
		if (!judge(&chats, status, shard, log, &want, false, what))
			fail_msg("%s", seen->wrong);
		clean(shard);
	}
	assert_in_range(made, 1, STEPS / 2);
}

/* ---- where a library loses a piece and goes on, or calls it damage ---- */

/* f with the k-th allocation failing: 0 that it never came to that. */
static bool tried(int64_t k, int (*f)(struct lwm_err *e), int *rc)
{
	struct lwm_err e = { 0 };
	how.countdown = k;
	*rc = f(&e);
	bool failed = how.countdown < 0;
	how.countdown = -1;
	return failed;
}

static const char object[] = "{\"name\": \"a rather long text, \\u00e9 and so on, that does not fit into the first buffer of all\","
			     " \"list\": [1, 2.5, \"three\", {\"four\": null}], \"another name of some length to be kept\": true}";

static int json_there_and_back(struct lwm_err *e)
{
	json_t *v;
	char *text;
	LWM_TRY(lwm_json_parse(&v, object, strlen(object), "object", e));
	int rc = lwm_json_dump(v, JSON_SORT_KEYS | JSON_INDENT(2), "object", &text, e);
	json_decref(v);
	LWM_TRY(rc);
	static struct lwm_hash first;
	struct lwm_hash now = lwm_hash_bytes(text, strlen(text));
	free(text);
	if (!first.hex[0])
		first = now;
	assert_string_equal(now.hex, first.hex);
	return 0;
}

static int json_built(struct lwm_err *e)
{
	char *text;
	json_t *v = json_object(), *copy = NULL;
	if (!json_object_set_new(v, "a", json_string("with")) &&
	    !json_object_set_new(v, "the rest of the members", json_pack("[i,s,{s:b}]", 1, "two", "three", 1)))
		copy = lwm_json_copy(v);
	int rc = lwm_json_dump(copy, JSON_SORT_KEYS | JSON_COMPACT, "built", &text, e);
	json_decref(v);
	json_decref(copy);
	LWM_TRY(rc);
	assert_string_equal(text, "{\"a\":\"with\",\"the rest of the members\":[1,\"two\",{\"three\":true}]}");
	free(text);
	return 0;
}

static int yaml_read(struct lwm_err *e)
{
	static const char text[] = "name: value\nlist: [1, 2, {three: 'four'}]\nmap:\n  key: |\n    lines\n    of text\n";
	struct lwm_yaml *y;
	LWM_TRY(lwm_yaml_parse(&y, "text", text, strlen(text), e));
	lwm_yaml_free(y);
	return 0;
}

/* More than fits into the buffers, so that the decompressor needs a window of its own. */
enum { LINES = 6000 };

static int count_lines(const char *name, struct lwm_err *e)
{
	struct lwm_lines *l;
	const char *line;
	size_t n;
	bool too_long;
	int64_t lines = 0;
	int rc;
	LWM_TRY(lwm_lines_open(&l, at(name), 1 << 20, e));
	while ((rc = lwm_lines_next(l, &line, &n, &too_long, e)) > 0)
		lines++;
	lwm_lines_close(l);
	LWM_TRY(rc);
	assert_int_equal(lines, LINES);
	return 0;
}

static int lines_of_gz(struct lwm_err *e)
{
	return count_lines("long.gz", e);
}

static int lines_of_zst(struct lwm_err *e)
{
	return count_lines("long.zst", e);
}

static void make_long_files(void)
{
	struct lwm_str s = { 0 };
	for (int i = 0; i < LINES; i++)
		lwm_str_printf(&s, "line %d of many, with the number %u at its end\n", i, (unsigned)i * 2654435761u);
	write_gz(at("long.gz"), &s);
	write_zst(at("long.zst"), &s);
	lwm_str_release(&s);
}

static void nothing_is_lost_or_called_damaged(void **state)
{
	(void)state;
	static int (*const f[])(struct lwm_err *) = { json_there_and_back, json_built, yaml_read, lines_of_gz, lines_of_zst };
	int64_t refused = 0;
	make_long_files();
	for (int i = 0; i < 5; i++) {
		struct lwm_err e = { 0 };
		int rc;
		int64_t k;
		must(f[i](&e), &e);
		for (k = 0; tried(k, f[i], &rc); k++)
			if (rc != 0 && rc != -LWM_EMEMORY)
				fail_msg("function %d, allocation %d: %d", i, (int)k, rc);
		assert_int_equal(rc, 0);
		assert_in_range(k, 3, 2000);
		refused += k;
	}
	printf("T5: %d allocations in five readers refused once each\n", (int)refused);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_by_bytes),
		cmocka_unit_test(chats_by_pieces),
		cmocka_unit_test(turns_by_bytes),
		cmocka_unit_test(a_finished_shard),
		cmocka_unit_test(reading_a_shard),
		cmocka_unit_test(a_budget),
		cmocka_unit_test(nothing_is_lost_or_called_damaged),
	};
	return cmocka_run_group_tests_name("memory", tests, make_corpus, scratch_remove);
}
#endif
