/* Units of a shard that is not finished: whatever was finished when, and in how many runs, the shard has the same bytes. */
#include "tests/unit/io_fault.h"

#include <signal.h>
#include <sys/wait.h>

#include "common/base/log.h"
#include "common/base/rng.h"
#include "common/io/docshard.h"
#include "common/io/manifest.h"

enum { UNITS = 12 };

static const struct lwm_docs_meta meta = { 50000, 0, "tok", "test 1", "{}", "none" };

static void key_of(int u, char key[64])
{
	snprintf(key, 64, "unit %d", u);
}

/* Unit u: some documents, some of many tokens, rejections, an input. */
static int make(struct lwm_docs_writer *w, int u, struct lwm_err *e)
{
	static int32_t t[300000];
	struct lwm_rng r = lwm_rng_at(1, LWM_RNG_TEST, 0, (uint64_t)u);
	int64_t docs = lwm_rng_below(&r, 4), stats[LWM_UNIT_STATS] = { u, docs };
	char key[64], id[32];
	key_of(u, key);
	lwm_docs_unit_begin(w);
	for (int64_t i = 0; i < docs; i++) {
		int64_t n = 1 + lwm_rng_below(&r, u % 3 ? 200 : 300000);
		struct lwm_loss_run runs[2] = { { 0, 0 }, { n / 2, 1 } };
		for (int64_t k = 0; k < n; k++)
			t[k] = (int32_t)lwm_rng_below(&r, 50000);
		snprintf(id, sizeof id, "%d.%d", u, (int)i);
		LWM_TRY(lwm_docs_append(w, id, "here", t, n, n > 1 ? runs : NULL, n > 1 ? 2 : 0, e));
	}
	if (u % 4 == 0)
		LWM_TRY(lwm_docs_reject(w, "bad json", u + 1, e));
	LWM_TRY(lwm_docs_input(w, key, 100 + u, "00112233445566778899aabbccddeeff", u % 4 ? 0 : u + 1, e));
	return lwm_docs_unit_end(w, key, stats, e);
}

static struct lwm_docs_writer *begin(const char *path)
{
	struct lwm_docs_writer *w;
	struct lwm_err e = { 0 };
	must(lwm_docs_create(&w, path, &meta, false, &e), &e);
	return w;
}

static void put_unit(struct lwm_docs_writer *w, int u, int *made)
{
	int64_t stats[LWM_UNIT_STATS];
	char key[64];
	struct lwm_err e = { 0 };
	key_of(u, key);
	int rc = lwm_docs_take(w, key, stats, &e);
	must(rc, &e);
	if (rc == 1) {
		assert_int_equal(stats[0], u);
		return;
	}
	must(make(w, u, &e), &e);
	++*made;
}

static void whole(const char *path)
{
	struct lwm_err e = { 0 };
	struct lwm_docs_writer *w = begin(path);
	int made = 0;
	for (int u = 0; u < UNITS; u++)
		put_unit(w, u, &made);
	assert_int_equal(made, UNITS);
	must(lwm_docs_commit(w, &e), &e);
	struct lwm_manifest m;
	must(lwm_manifest_read(&m, path, &e), &e);
	assert_int_equal(m.ninput, UNITS);
	for (int u = 0; u < UNITS; u++)
		assert_int_equal(m.input[u].malformed, u % 4 ? 0 : u + 1);
	lwm_manifest_release(&m);
}

static void same_files(const char *a, const char *b)
{
	size_t n, m;
	char *x = slurp(a, &n), *y = slurp(b, &m);
	assert_int_equal(n, m);
	assert_memory_equal(x, y, n);
	free(x);
	free(y);
}

static void same_shards(const char *a, const char *b)
{
	char x[300], y[300];
	same_files(a, b);
	snprintf(x, sizeof x, "%s.manifest.json", a);
	snprintf(y, sizeof y, "%s.manifest.json", b);
	same_files(x, y);
}

static int left(void)
{
	return lwm_path_exists(at("x.h5.aside.0")) + lwm_path_exists(at("x.h5.aside.1")) + lwm_path_exists(at("x.h5.aside.0.manifest.json")) +
	       lwm_path_exists(at("x.h5.aside.1.manifest.json"));
}

static void clean(void)
{
	static const char *const names[] = { "x.h5", "x.h5.manifest.json", "x.h5.aside.0", "x.h5.aside.1", "x.h5.aside.0.manifest.json",
					     "x.h5.aside.1.manifest.json" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		unlink(at(names[i]));
}

/* Suspended after every possible unit, with another one begun and dropped; saved and gone on with on the way. */
static void any_number_of_runs(void **state)
{
	struct lwm_err e = { 0 };
	(void)state;
	whole(at("ref.h5"));
	for (int step = 1; step <= 5; step++) {
		int made = 0, runs = 0;
		clean();
		for (int done = 0; done < UNITS; runs++) {
			struct lwm_docs_writer *w = begin(at("x.h5"));
			int end = done + step < UNITS ? done + step : UNITS;
			for (int u = 0; u < end; u++) {
				put_unit(w, u, &made);
				if (u == end - 2)
					must(lwm_docs_save(w, &e), &e);
			}
			done = end;
			if (done == UNITS) {
				must(lwm_docs_commit(w, &e), &e);
				break;
			}
			lwm_docs_unit_begin(w);
			must(lwm_docs_append(w, "half", "of it", (int32_t[]){ 1, 2, 3 }, 3, NULL, 0, &e), &e);
			must(lwm_docs_reject(w, "never", 9, &e), &e);
			int64_t units;
			must(lwm_docs_suspend(w, &units, &e), &e);
			assert_int_equal(units, done);
			assert_false(lwm_path_exists(at("x.h5"))); // not published
			assert_int_equal(left(), 2);
		}
		assert_int_equal(made, UNITS);
		assert_int_equal(left(), 0);
		same_shards(at("x.h5"), at("ref.h5"));
	}
}

/* Some units fail in the first run and are made in the second; what was finished behind them is not made again. */
static void units_in_between(void **state)
{
	struct lwm_err e = { 0 };
	int made = 0;
	(void)state;
	clean();
	struct lwm_docs_writer *w = begin(at("x.h5"));
	for (int u = 0; u < UNITS; u++)
		if (u % 5 != 2)
			put_unit(w, u, &made);
	must(lwm_docs_suspend(w, NULL, &e), &e);
	/* stopped before it comes to the later ones: they stay aside */
	w = begin(at("x.h5"));
	for (int u = 0; u < 4; u++)
		put_unit(w, u, &made);
	must(lwm_docs_suspend(w, NULL, &e), &e);
	w = begin(at("x.h5"));
	for (int u = 0; u < UNITS; u++)
		put_unit(w, u, &made);
	must(lwm_docs_commit(w, &e), &e);
	assert_int_equal(made, UNITS);
	same_shards(at("x.h5"), at("ref.h5"));
	assert_int_equal(left(), 0);
}

/* Other settings, another content: nothing is taken. */
static void only_the_same_is_taken(void **state)
{
	struct lwm_err e = { 0 };
	struct lwm_docs_meta other = meta;
	struct lwm_docs_writer *w;
	struct lwm_paths keys = { 0 };
	int made = 0;
	int64_t stats[LWM_UNIT_STATS];
	(void)state;
	clean();
	w = begin(at("x.h5"));
	put_unit(w, 3, &made);
	must(lwm_docs_suspend(w, NULL, &e), &e);
	must(lwm_docs_aside_keys(at("x.h5"), &meta, &keys, &e), &e);
	assert_int_equal(keys.n, 1);
	assert_string_equal(keys.v[0], "unit 3");
	lwm_paths_release(&keys);
	for (int i = 0; i < 6; i++) {
		other = meta;
		switch (i) {
		case 0: other.vocab_text++; break;
		case 1: other.vocab_vision++; break;
		case 2: other.tokenizer = "other"; break;
		case 3: other.tool = "other 1"; break;
		case 4: other.policy = "bos"; break;
		default: other.config = "{\"other\":1}"; break;
		}
		must(lwm_docs_aside_keys(at("x.h5"), &other, &keys, &e), &e);
		assert_int_equal(keys.n, 0);
	}
	must(lwm_docs_create(&w, at("x.h5"), &other, false, &e), &e);
	assert_int_equal(lwm_docs_take(w, "unit 3", stats, &e), 0);
	lwm_docs_discard(w);
	w = begin(at("x.h5"));
	assert_int_equal(lwm_docs_take(w, "unit 4", stats, &e), 0);
	assert_int_equal(lwm_docs_take(w, "unit 3", stats, &e), 1);
	assert_int_equal(lwm_docs_take(w, "unit 3", stats, &e), 0); // once
	lwm_docs_discard(w);
	must(lwm_docs_create(&w, at("x.h5"), &meta, true, &e), &e); // --force: from the beginning
	assert_int_equal(lwm_docs_take(w, "unit 3", stats, &e), 0);
	assert_int_equal(left(), 0);
	lwm_docs_discard(w);
}

/* A flipped bit anywhere in what lies aside: the unit is made anew, the shard is the same. */
static void damage_is_made_anew(void **state)
{
	struct lwm_err e = { 0 };
	size_t n;
	int made = 0, again = 0;
	(void)state;
	clean();
	struct lwm_docs_writer *w = begin(at("x.h5"));
	for (int u = 0; u < UNITS; u++)
		put_unit(w, u, &made);
	must(lwm_docs_suspend(w, NULL, &e), &e);
	const char *name = lwm_path_exists(at("x.h5.aside.0")) ? "x.h5.aside.0" : "x.h5.aside.1";
	char *copy = slurp(at(name), &n), *record, manifest[64];
	size_t k;
	snprintf(manifest, sizeof manifest, "%s.manifest.json", name);
	record = slurp(at(manifest), &k);
	for (int round = 0; round < 25; round++) {
		int before = made;
		flip(at(name), n / 25 * (size_t)round + 11, 16);
		w = begin(at("x.h5"));
		for (int u = 0; u < UNITS; u++)
			put_unit(w, u, &made);
		must(lwm_docs_commit(w, &e), &e);
		again += made > before;
		same_shards(at("x.h5"), at("ref.h5"));
		clean();
		spill(at(name), copy, n);
		spill(at(manifest), record, k);
	}
	assert_int_equal(again, 25);
	free(copy);
	free(record);
}

/* Killed at any moment of any save: what an earlier save kept is there still. */
static void killed_while_saving(void **state)
{
	struct lwm_err e = { 0 };
	int made = 0, more = 0;
	(void)state;
	clean();
	struct lwm_docs_writer *w = begin(at("x.h5"));
	for (int u = 0; u < 4; u++)
		put_unit(w, u, &made);
	must(lwm_docs_suspend(w, NULL, &e), &e);
	for (int round = 0; round < 30; round++) {
		struct lwm_paths keys = { 0 };
		pid_t pid = fork();
		if (pid == 0) {
			w = begin(at("x.h5"));
			for (int u = 0; u < 8; u++)
				put_unit(w, u, &made);
			lwm_docs_save(w, &e);
			lwm_docs_save(w, &e);
			_exit(0);
		}
		usleep(1000u * (unsigned)round);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		must(lwm_docs_aside_keys(at("x.h5"), &meta, &keys, &e), &e);
		assert_in_range(keys.n, 4, 8);
		more += keys.n == 8;
		lwm_paths_release(&keys);
	}
	int before = made;
	w = begin(at("x.h5"));
	for (int u = 0; u < UNITS; u++)
		put_unit(w, u, &made);
	must(lwm_docs_commit(w, &e), &e);
	assert_true(made - before <= UNITS - 4);
	same_shards(at("x.h5"), at("ref.h5"));
	assert_int_equal(left(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_number_of_runs),	    cmocka_unit_test(units_in_between),
		cmocka_unit_test(only_the_same_is_taken), cmocka_unit_test(damage_is_made_anew),
		cmocka_unit_test(killed_while_saving),
	};
	lwm_log_init("test", LWM_ERROR);
	return cmocka_run_group_tests_name("io_unit", tests, scratch_make, scratch_remove);
}
