/* common/base by itself: random numbers against a second program, numbers, texts, names, files, failures. */
#include "tests/unit/io_fault.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>

#include "common/base/arena.h"
#include "common/base/hash.h"
#include "common/base/launch.h"
#include "common/base/num.h"
#include "common/base/outfile.h"
#include "common/base/rng.h"
#include "common/base/str.h"
#include "common/base/threads.h"
#include "common/base/tmpname.h"
#include "common/base/utf8.h"

/* ---- random numbers ---- */

static const struct {
	uint64_t seed;
	enum lwm_purpose purpose;
	uint64_t step, sample;
	uint32_t want[10];
} streams[] = {
#include "tests/golden/order-1/rng.inc"
};

static const struct {
	uint64_t seed;
	enum lwm_purpose purpose;
	uint64_t step;
	int64_t n;
	int count;
	int64_t want[12];
} permutations[] = {
#include "tests/golden/order-1/permute.inc"
};

static void random_numbers(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof streams / sizeof *streams; i++) {
		struct lwm_rng r = lwm_rng_at(streams[i].seed, streams[i].purpose, streams[i].step, streams[i].sample), again = r;
		const uint32_t *w = streams[i].want;
		for (int k = 0; k < 10; k++)
			assert_int_equal(lwm_rng_u32(&r), w[k]);
		r = again;
		assert_true(lwm_rng_u64(&r) == ((uint64_t)w[0] << 32 | w[1]));
		assert_true(lwm_rng_double(&r) == (double)(((uint64_t)w[2] << 32 | w[3]) >> 11) / 9007199254740992.0);
		r = again;
		double u = 1 - (double)(((uint64_t)w[0] << 32 | w[1]) >> 11) / 9007199254740992.0;
		double v = (double)(((uint64_t)w[2] << 32 | w[3]) >> 11) / 9007199254740992.0;
		assert_true(fabs(lwm_rng_normal(&r) - sqrt(-2 * log(u)) * cos(2 * acos(-1) * v)) < 1e-14);
	}
}

static void permutations_of_any_length(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof permutations / sizeof *permutations; i++)
		for (int k = 0; k < permutations[i].count; k++)
			assert_true(lwm_rng_permute(permutations[i].seed, permutations[i].purpose, permutations[i].step,
						    permutations[i].n, k) == permutations[i].want[k]);
	for (int64_t n = 1; n < 70; n++) {
		bool seen[70] = { false };
		for (int64_t k = 0; k < n; k++) {
			int64_t to = lwm_rng_permute(1, LWM_RNG_TEST, 5, n, k);
			assert_true(to >= 0 && to < n && !seen[to]);
			seen[to] = true;
		}
	}
	static const int64_t sizes[] = { 1, 2, 3, 4, 5, 63, 64, 65, 255, 256, 257, 4097, 65536, 65537 };
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		int64_t n = sizes[i], *all = malloc((size_t)n * sizeof *all);
		assert_non_null(all);
		lwm_rng_permutation(7, LWM_RNG_TEST, 11, n, all);
		for (int64_t k = 0; k < n; k += n > 5000 ? 97 : 1)
			assert_int_equal(all[k], lwm_rng_permute(7, LWM_RNG_TEST, 11, n, k));
		free(all);
	}
}

static void numbers_below(void **state)
{
	struct lwm_rng r = lwm_rng_at(1, LWM_RNG_TEST, 0, 0);
	int count[7] = { 0 };
	double sum = 0, square = 0;
	(void)state;
	for (int i = 0; i < 70000; i++)
		count[lwm_rng_below(&r, 7)]++;
	for (int i = 0; i < 7; i++)
		assert_in_range(count[i], 9600, 10400); /* 4 deviations of 92 */
	for (int i = 0; i < 100; i++)
		assert_int_equal(lwm_rng_below(&r, 1), 0);
	/* 2^64 is 8/3 of this n: unless the rest is drawn again, the lowest third comes 9 times where it should come 8 times */
	int64_t n = (int64_t)3 << 61;
	int low = 0;
	for (int i = 0; i < 6000; i++)
		low += lwm_rng_below(&r, n) < n / 3;
	assert_in_range(low, 1880, 2120);
	for (int i = 0; i < 40000; i++) {
		double x = lwm_rng_normal(&r);
		sum += x;
		square += x * x;
	}
	assert_true(fabs(sum / 40000) < 0.025 && fabs(square / 40000 - 1) < 0.04);
}

/* ---- numbers from outside ---- */

static void whole_numbers(void **state)
{
	static const struct {
		const char *text;
		int64_t want;
	} good[] = { { "0", 0 }, { "1200", 1200 }, { "-7", -7 }, { "32K", 32768 }, { "32k", 32768 }, { "32Ki", 32768 }, { "1M", 1048576 },
		     { "2G", (int64_t)2 << 30 }, { "1T", (int64_t)1 << 40 }, { "1e6", 1000000 }, { "1.5K", 1536 }, { "2.5e3", 2500 },
		     { "9223372036854775807", INT64_MAX } };
	static const char *const bad[] = { "", " 1", "1 ", "x", "1x", "1KB", "1.5", "1e-1", "0x", "9223372036854775808", "9000000T", "1e30",
					   "nan", "--1", "1K1", "K" };
	struct lwm_err e = { 0 };
	int64_t v;
	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		must(lwm_parse_int(good[i].text, INT64_MIN, INT64_MAX, &v, "--n", &e), &e);
		assert_true(v == good[i].want);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		lwm_err_clear(&e);
		if (lwm_parse_int(bad[i], INT64_MIN, INT64_MAX, &v, "--n", &e) != -LWM_EUSAGE || !strstr(e.msg, "--n"))
			fail_msg("'%s' was taken for %" PRId64, bad[i], v);
	}
	v = 5;
	{
		static const char *const no[] = { "", "x", "3x", "x3", "3x4x5", "0x3", "3x65", "65", "3 x 4", "3X4" };
		int64_t w = 1, h = 2;

		assert_int_equal(lwm_parse_size(NULL, 64, &w, &h, "--size", &e), 0);
		for (size_t i = 0; i < sizeof no / sizeof *no; i++) {
			struct lwm_err why = { 0 };

			if (lwm_parse_size(no[i], 64, &w, &h, "--size", &why) != -LWM_EUSAGE || !strstr(why.msg, "--size"))
				fail_msg("'%s' is a size of %d x %d", no[i], (int)w, (int)h);
		}
		assert_true(w == 1 && h == 2);
		must(lwm_parse_size("64x3", 64, &w, &h, "--size", &e), &e);
		assert_true(w == 64 && h == 3);
		must(lwm_parse_size("7", 64, &w, &h, "--size", &e), &e);
		assert_true(w == 7 && h == 7);
	}
	assert_int_equal(lwm_parse_int("10", 10, 20, &v, "n", NULL), 0);
	assert_int_equal(lwm_parse_int("20", 10, 20, &v, "n", NULL), 0);
	assert_int_equal(lwm_parse_int("9", 10, 20, &v, "n", NULL), -LWM_EUSAGE);
	assert_int_equal(lwm_parse_int("21", 10, 20, &v, "n", NULL), -LWM_EUSAGE);
	assert_int_equal(v, 20);
}

static void other_numbers(void **state)
{
	static const struct { double v; const char *rate; } rates[] = { { 17900, "17.9k" }, { 950, "950" }, { 999.6, "1k" },
		{ 1.25e6, "1.25M" }, { 8.35, "8.35" }, { 3.2e13, "32T" } };
	double d = 0;
	bool b = false;
	int64_t n = 0;
	char buf[32];
	(void)state;
	assert_int_equal(lwm_parse_double("2.5e-1", 0, 1, &d, "x", NULL), 0);
	assert_true(d == 0.25);
	assert_int_equal(lwm_parse_double("1.01", 0, 1, &d, "x", NULL), -LWM_EUSAGE);
	assert_int_equal(lwm_parse_double("-0.01", 0, 1, &d, "x", NULL), -LWM_EUSAGE);
	assert_int_equal(lwm_parse_double("inf", 0, INFINITY, &d, "x", NULL), -LWM_EUSAGE);
	assert_int_equal(lwm_parse_double("nan", 0, 1, &d, "x", NULL), -LWM_EUSAGE);
	assert_int_equal(lwm_parse_double("1x", 0, 1, &d, "x", NULL), -LWM_EUSAGE);
	assert_int_equal(lwm_parse_bool("Yes", &b, "x", NULL), 0);
	assert_true(b);
	assert_int_equal(lwm_parse_bool("off", &b, "x", NULL), 0);
	assert_false(b);
	assert_int_equal(lwm_parse_bool("2", &b, "x", NULL), -LWM_EUSAGE);
	static const struct {
		const char *text;
		double want;
	} times[] = { { "90", 90 }, { "90s", 90 }, { "15m", 900 }, { "2h", 7200 }, { "3d", 259200 }, { "1:30:00", 5400 }, { "2:05", 125 } };
	for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
		assert_int_equal(lwm_parse_seconds(times[i].text, &d, "x", NULL), 0);
		assert_true(d == times[i].want);
	}
	assert_int_equal(lwm_parse_seconds("5x", &d, "x", NULL), -LWM_EUSAGE);
	assert_int_equal(lwm_parse_seconds("-5", &d, "x", NULL), -LWM_EUSAGE);
	assert_int_equal(lwm_parse_seconds("", &d, "x", NULL), -LWM_EUSAGE);
	assert_int_equal(lwm_mul((int64_t)1 << 31, (int64_t)1 << 31, &n), 0);
	assert_true(n == (int64_t)1 << 62);
	assert_int_equal(lwm_mul((int64_t)1 << 32, (int64_t)1 << 31, &n), -1);
	assert_int_equal(lwm_mul(-1, 1, &n), -1);
	assert_int_equal(lwm_mul3((int64_t)1 << 21, (int64_t)1 << 21, (int64_t)1 << 20, &n), 0);
	assert_int_equal(lwm_mul3((int64_t)1 << 21, (int64_t)1 << 21, (int64_t)1 << 21, &n), -1);
	assert_string_equal(lwm_count_text(32768, buf, sizeof buf), "32K");
	assert_string_equal(lwm_count_text(1023, buf, sizeof buf), "1023");
	assert_string_equal(lwm_count_text((int64_t)3 << 20, buf, sizeof buf), "3M");
	assert_string_equal(lwm_count_text(9999, buf, sizeof buf), "9999");
	assert_string_equal(lwm_count_text(999600, buf, sizeof buf), "1M");
	assert_string_equal(lwm_count_text(1000000, buf, sizeof buf), "1M");
	assert_string_equal(lwm_count_text(6738415616, buf, sizeof buf), "6.74B");
	for (size_t i = 0; i < sizeof rates / sizeof *rates; i++)
		assert_string_equal(lwm_rate_text(rates[i].v, buf, sizeof buf), rates[i].rate);
	assert_string_equal(lwm_bytes_text(1023, buf, sizeof buf), "1023 B");
	assert_string_equal(lwm_bytes_text(1536, buf, sizeof buf), "1.5 KiB");
}

/* ---- text ---- */

static void utf8(void **state)
{
	static const struct {
		const char *text;
		size_t n, good;
	} t[] = { { "plain", 5, 5 },          { "\xc3\xa4", 2, 2 },           { "\xc3", 1, 0 },             { "a\xc3(", 3, 1 },
		  { "\xc0\x80", 2, 0 },       { "\xc1\xbf", 2, 0 },           { "\xc2\x80", 2, 2 },         { "\xe0\x9f\xbf", 3, 0 },
		  { "\xe0\xa0\x80", 3, 3 },   { "\xed\x9f\xbf", 3, 3 },       { "\xed\xa0\x80", 3, 0 },     { "\xef\xbf\xbf", 3, 3 },
		  { "\xe2\x82", 2, 0 },       { "\xf0\x8f\xbf\xbf", 4, 0 },   { "\xf0\x90\x80\x80", 4, 4 }, { "\xf4\x8f\xbf\xbf", 4, 4 },
		  { "\xf4\x90\x80\x80", 4, 0 }, { "\xf5\x80\x80\x80", 4, 0 }, { "\x80", 1, 0 },             { "\xf0\x9f\x98", 3, 0 },
		  { "\xf0\x9f\x98\x80!", 5, 5 }, { "\xdf\xbf", 2, 2 },        { "", 0, 0 } };
	(void)state;
	for (size_t i = 0; i < sizeof t / sizeof *t; i++)
		if (lwm_utf8_check(t[i].text, t[i].n) != t[i].good)
			fail_msg("text %zu: %zu good bytes, expected %zu", i, lwm_utf8_check(t[i].text, t[i].n), t[i].good);
}

/* Every byte but the control characters that texts do not have: as file(1) judges. */
static void what_is_text(void **state)
{
	(void)state;
	for (int b = 0; b < 256; b++) {
		const char s[3] = { 'a', (char)b, 'b' };
		bool control = b < 32 || b == 127, fine = (b >= 7 && b <= 13) || b == 27;
		assert_int_equal(lwm_text_check(s, 3), control && !fine ? 1 : 3);
	}
	assert_int_equal(lwm_text_check("", 0), 0);
}

static void strings(void **state)
{
	struct lwm_str s = { 0 };
	(void)state;
	assert_string_equal(lwm_str_get(&s), "");
	for (int i = 0; i < 1000; i++)
		lwm_str_printf(&s, "%d,", i);
	assert_int_equal(s.len, 10 * 2 + 90 * 3 + 900 * 4);
	assert_int_equal(strlen(s.s), s.len);
	assert_true(s.cap > s.len);
	lwm_str_reset(&s);
	assert_string_equal(lwm_str_get(&s), "");
	static const char odd[] = "a\"b\\c\n\t\x01\x1f \xc3\xa4\xff/";
	lwm_str_json(&s, odd, sizeof odd - 1);
	assert_string_equal(s.s, "\"a\\\"b\\\\c\\n\\u0009\\u0001\\u001f \xc3\xa4\xef\xbf\xbd/\"");
	assert_int_equal(lwm_str_ok(&s, NULL), 0);
	lwm_str_release(&s);
	assert_null(s.s);
}

static void nearest_names(void **state)
{
	static const char *const names[] = { "seq-length", "output", "threads" }, *const up = "up";
	char hint[LWM_HINT];
	(void)state;
	assert_string_equal(lwm_nearest("pu", &up, 1), "up"); /* two letters in the wrong order are one mistake */
	assert_null(lwm_nearest("po", &up, 1));
	assert_string_equal(lwm_nearest("seq-lenght", names, 3), "seq-length");
	assert_string_equal(lwm_nearest("ouput", names, 3), "output");
	assert_null(lwm_nearest("zzzzzz", names, 3));
	assert_null(lwm_nearest("x", names, 0));
	assert_string_equal(lwm_hint(hint, "ouput", names, 3), " (did you mean 'output'?)");
	assert_string_equal(lwm_hint(hint, "zzzzzz", names, 3), "");
}

static void what_a_launcher_says(void **state)
{
	static const char *const names[] = { "OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_TASKS_PER_NODE", "OMPI_COMM_WORLD_SIZE", "PMIX_RANK",
					     "PMI_RANK", "PMI_SIZE", "SLURM_JOB_ID", "SLURM_JOB_END_TIME" };
	int64_t end = 7;
	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		unsetenv(names[i]);
	assert_int_equal(lwm_launch_local_size(), 0);
	assert_false(lwm_launch_by_mpi());
	assert_null(lwm_launch_job());
	assert_false(lwm_launch_job_end(&end));
	assert_int_equal(end, 7);
	setenv("SLURM_TASKS_PER_NODE", "16(x2),8", 1);
	assert_int_equal(lwm_launch_local_size(), 16);
	setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "3", 1); /* mpirun knows better than the job it runs in */
	assert_int_equal(lwm_launch_local_size(), 3);
	assert_false(lwm_launch_by_mpi());
	setenv("PMIX_RANK", "1", 1);
	assert_true(lwm_launch_by_mpi());
	setenv("SLURM_JOB_ID", "12_3", 1);
	assert_string_equal(lwm_launch_job(), "12_3");
	setenv("SLURM_JOB_END_TIME", "soon", 1);
	assert_false(lwm_launch_job_end(&end));
	setenv("SLURM_JOB_END_TIME", "1700000000", 1);
	assert_true(lwm_launch_job_end(&end));
	assert_int_equal(end, 1700000000);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		unsetenv(names[i]);
}

static void arenas(void **state)
{
	struct lwm_arena *a = NULL;
	char *p[300];
	(void)state;
	for (size_t i = 0; i < 300; i++) {
		size_t n = i * i % 5000 + 1;
		p[i] = lwm_arena_alloc(&a, n);
		assert_non_null(p[i]);
		assert_int_equal((uintptr_t)p[i] % 16, 0);
		for (size_t k = 0; k < n; k++)
			assert_int_equal(p[i][k], 0);
		memset(p[i], (int)(i % 127) + 1, n);
	}
	for (size_t i = 0; i < 300; i++)
		for (size_t k = 0; k < i * i % 5000 + 1; k++)
			assert_int_equal(p[i][k], (int)(i % 127) + 1);
	assert_string_equal(lwm_arena_strdup(&a, "text"), "text");
	assert_string_equal(lwm_arena_printf(&a, "%d-%s", 7, "x"), "7-x");
	lwm_arena_free(&a);
	assert_null(a);
}

/* Reference values of the published XXH3. */
static void hashes(void **state)
{
	struct lwm_hasher *h = lwm_hasher_new();
	struct lwm_err e = { 0 };
	struct lwm_hash file, parts;
	int64_t bytes;
	char *text = malloc(300000);
	(void)state;
	assert_string_equal(lwm_hash_bytes("", 0).hex, "99aa06d3014798d86001c324468d497f");
	assert_true(lwm_hash64("", 0, 0) == 0x2d06800538d394c2u);
	for (int i = 0; i < 300000; i++)
		text[i] = (char)(i * 31 % 251);
	spill(at("hashed"), text, 300000);
	must(lwm_hash_file(at("hashed"), &file, &bytes, &e), &e);
	assert_int_equal(bytes, 300000);
	assert_string_equal(file.hex, lwm_hash_bytes(text, 300000).hex);
	for (size_t i = 0; i < 300000; i += 100000)
		lwm_hasher_add(h, text + i, 100000);
	parts = lwm_hasher_end(h);
	assert_string_equal(parts.hex, file.hex);
	assert_int_equal(lwm_hash_file(at("absent"), &file, NULL, &e), -LWM_ENOINPUT);
	free(text);
}

/* ---- names and files ---- */

static void names(void **state)
{
	static const char *const plain[] = { "a", "a.b", "...", "x y", "\xc3\xa4" }, *const not[] = { "", ".", "..", "a/b", "/", "a\n", "\x7f" };
	char *s;
	(void)state;
	for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
		assert_true(lwm_name_is_plain(plain[i]));
	for (size_t i = 0; i < sizeof not / sizeof *not; i++)
		assert_false(lwm_name_is_plain(not[i]));
	assert_string_equal(lwm_path_base("a/b/c"), "c");
	assert_string_equal(lwm_path_base("c"), "c");
	assert_true(lwm_path_has_suffix("x.MP4", ".mp4"));
	assert_false(lwm_path_has_suffix("mp4", ".mp4"));
	static const char *const dirs[][2] = { { "a/b", "a" }, { "a", "." }, { "/a", "/" }, { "a/b/c", "a/b" } };
	for (size_t i = 0; i < 4; i++) {
		s = lwm_path_dir(dirs[i][0]);
		assert_string_equal(s, dirs[i][1]);
		free(s);
	}
	s = lwm_path_join("a/", "b");
	assert_string_equal(s, "a/b");
	free(s);
	s = lwm_path_join("a", "b");
	assert_string_equal(s, "a/b");
	free(s);
}

static void folders(void **state)
{
	static const char *const suffixes[] = { ".txt", NULL };
	static const char *const made[] = { "in/b.txt", "in/a.TXT", "in/a/z.txt", "in/c.bin", "in/.hidden.txt", "in/d.txt.tmp.12" };
	static const char *const want[] = { "in/a.TXT", "in/b.txt" };
	struct lwm_paths p = { 0 };
	struct lwm_err e = { 0 };
	(void)state;
	must(lwm_mkdirs(at("in/a"), &e), &e);
	for (size_t i = 0; i < sizeof made / sizeof *made; i++)
		spill(at(made[i]), "x", 1);
	must(lwm_paths_expand(&p, at("in"), suffixes, &e), &e);
	assert_int_equal(p.n, 3);
	assert_string_equal(p.v[0], at("in/a/z.txt")); /* the folder "a" comes before "a.TXT" */
	for (int i = 0; i < 2; i++)
		assert_string_equal(p.v[i + 1], at(want[i]));
	lwm_paths_release(&p);
	char list[600];
	int n = snprintf(list, sizeof list, "# comment\n\n%s\r\n%s", at("in/b.txt"), at("in/c.bin"));
	spill(at("list"), list, (size_t)n);
	snprintf(list, sizeof list, "@%s", at("list"));
	must(lwm_paths_expand(&p, list, suffixes, &e), &e);
	assert_int_equal(p.n, 2);
	assert_string_equal(p.v[1], at("in/c.bin"));
	lwm_paths_release(&p);
	must(lwm_mkdirs(at("none"), &e), &e);
	assert_int_equal(lwm_paths_expand(&p, at("none"), suffixes, &e), -LWM_ENOINPUT);
	lwm_err_clear(&e);
	assert_int_equal(lwm_paths_expand(&p, at("absent"), suffixes, &e), -LWM_ENOINPUT);
	lwm_err_clear(&e);
	lwm_paths_release(&p);
	must(lwm_paths_expand(&p, at("in"), NULL, &e), &e); /* all but hidden and half-written ones */
	assert_int_equal(p.n, 4);
	lwm_paths_release(&p);
	assert_int_equal(lwm_mkdirs(at("list/below"), &e), -LWM_ECANTCREATE);
	must(lwm_remove_tree(at("in"), NULL), &e);
	assert_false(lwm_path_exists(at("in")));
	assert_int_equal(lwm_remove_tree(at("in"), NULL), 0);
	/* what cannot be told is not absent, and no folder either */
	assert_int_equal(symlink(at("loop"), at("loop")), 0);
	assert_true(lwm_path_exists(at("loop")));
	assert_int_equal(lwm_path_there(at("loop"), &e), -LWM_ENOINPUT);
	lwm_err_clear(&e);
	assert_int_equal(lwm_path_folder(at("loop"), &e), 0);
	assert_int_equal(lwm_path_folder(at("none"), &e), 1);
	assert_int_equal(lwm_path_folder(at("list"), &e), 0);
	assert_int_equal(lwm_path_folder(at("list/below"), &e), 0);
}

static void whole_files(void **state)
{
	struct lwm_outfile *o;
	struct lwm_err e = { 0 };
	size_t n;
	char *text;
	(void)state;
	must(lwm_write_file(at("f"), "old", 3, false, &e), &e);
	assert_int_equal(lwm_write_file(at("f"), "new", 3, false, &e), -LWM_ECANTCREATE);
	lwm_err_clear(&e);
	must(lwm_outfile_open(&o, at("f"), true, &e), &e);
	must(lwm_outfile_write(o, "new!", 4, &e), &e);
	text = slurp(at("f"), &n);
	assert_string_equal(text, "old"); /* until it is committed */
	free(text);
	must(lwm_outfile_commit(o, &e), &e);
	text = slurp(at("f"), &n);
	assert_string_equal(text, "new!");
	assert_int_equal(n, 4);
	free(text);
	must(lwm_outfile_open(&o, at("g"), false, &e), &e);
	char tmp[512];
	snprintf(tmp, sizeof tmp, "%s", o->tmp);
	assert_true(lwm_path_exists(tmp));
	lwm_outfile_discard(o);
	assert_false(lwm_path_exists(tmp) || lwm_path_exists(at("g")));
	assert_int_equal(lwm_read_file(at("f"), 3, &text, &n, &e), -LWM_EDATA);
	lwm_err_clear(&e);
	must(lwm_read_file(at("f"), 4, &text, &n, &e), &e);
	free(text);
}

static void failures(void **state)
{
	struct lwm_err e = { 0 };
	(void)state;
	assert_int_equal(lwm_fail(&e, LWM_EDATA, "row %d", 3), -LWM_EDATA);
	assert_int_equal(lwm_fail(&e, LWM_EIO, "later"), -LWM_EIO); /* the first one stays */
	assert_string_equal(e.msg, "row 3");
	assert_int_equal(e.code, -LWM_EDATA);
	assert_int_equal(lwm_context(&e, "file %s", "x"), -LWM_EDATA);
	assert_string_equal(e.msg, "file x: row 3");
	lwm_err_clear(&e);
	assert_int_equal(lwm_fail_errno(&e, LWM_EIO, ENOENT, "x"), -LWM_ENOINPUT);
	assert_string_equal(e.msg, "x: No such file or directory");
	lwm_err_clear(&e);
	assert_int_equal(lwm_fail_errno(&e, LWM_ECANTCREATE, ENOSPC, "x"), -LWM_EIO);
	lwm_err_clear(&e);
	assert_int_equal(lwm_fail_errno(&e, LWM_ECANTCREATE, ENOMEM, "x"), -LWM_EMEMORY);
	lwm_err_clear(&e);
	assert_int_equal(lwm_fail_errno(&e, LWM_ECANTCREATE, EACCES, "x"), -LWM_ECANTCREATE);
	assert_int_equal(lwm_fail(NULL, LWM_ENO, "x"), -LWM_ENO);
}

/* What is swept away when it seems to have no writer. */
static void temporary_names(void **state)
{
	static const char *const ours[] = { "a.tmp.host-abcdefgh", "a.h5.tmp.node_17-22334455", "a.tmp.b.tmp.host-zzzz7777",
					    ".tmp._-abcdefgh" };
	static const char *const not_ours[] = { "a.tmp.host-abcdefg", "a.tmp.host-abcdefghi", "a.tmp.host-abcdefg1", "a.tmp.-abcdefgh",
						"a.tmp.ho.st-abcdefgh", "a-abcdefgh", "a.tmp.host-abcdefgh.h5", "a.tmp.host", "a.tmp.", "" };
	(void)state;
	for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
		assert_true(lwm_tmp_is(ours[i]));
	for (size_t i = 0; i < sizeof not_ours / sizeof *not_ours; i++)
		assert_false(lwm_tmp_is(not_ours[i]));
}

static struct {
	atomic_int done[300];
	int64_t bad; /* this one and every 7th behind it fail */
} pieces;

static int one_piece(void *ctx, int64_t i, struct lwm_err *e)
{
	(void)ctx;
	pieces.done[i]++;
	if (i < pieces.bad || (i - pieces.bad) % 7)
		return 0;
	return lwm_fail(e, LWM_EDATA, "piece %d", (int)i);
}

/* The first of two fails behind the second. */
static int second_first(void *ctx, int64_t i, struct lwm_err *e)
{
	atomic_bool *failed = ctx;
	while (i == 0 && !*failed)
		usleep(1000);
	if (i == 0)
		usleep(20000); /* the other one comes home: nothing depends on it but what this would find wrong */
	*failed = true;
	return lwm_fail(e, i ? LWM_EIO : LWM_EDATA, "piece %d", (int)i);
}

static void pieces_of_work(void **state)
{
	atomic_bool failed = false;
	struct lwm_err late = { 0 };
	char want[30];
	(void)state;
	assert_int_equal(lwm_work(2, 2, second_first, &failed, &late), -LWM_EDATA);
	assert_string_equal(late.msg, "piece 0");
	for (int threads = 0; threads < 9; threads++) {
		struct lwm_err e = { 0 };
		memset(&pieces, 0, sizeof pieces);
		pieces.bad = 300;
		must(lwm_work(300, threads, one_piece, NULL, &e), &e);
		for (int i = 0; i < 300; i++)
			assert_int_equal(pieces.done[i], 1);
		must(lwm_work(0, threads, one_piece, NULL, &e), &e);
		memset(&pieces, 0, sizeof pieces);
		pieces.bad = threads * 20;
		snprintf(want, sizeof want, "piece %d", threads * 20);
		assert_int_equal(lwm_work(300, threads, one_piece, NULL, &e), -LWM_EDATA);
		assert_string_equal(e.msg, want); /* the lowest, as if they had been done one by one */
		for (int i = 0; i <= pieces.bad; i++)
			assert_int_equal(pieces.done[i], 1);
		if (threads == 1)
			assert_int_equal(pieces.done[21], 0); /* behind a failure nothing is begun */
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_of_work),
		cmocka_unit_test(random_numbers), cmocka_unit_test(permutations_of_any_length), cmocka_unit_test(numbers_below),
		cmocka_unit_test(whole_numbers),  cmocka_unit_test(other_numbers),              cmocka_unit_test(utf8),
		cmocka_unit_test(strings),        cmocka_unit_test(arenas),                     cmocka_unit_test(hashes),
		cmocka_unit_test(names),          cmocka_unit_test(folders),                    cmocka_unit_test(whole_files),
		cmocka_unit_test(failures),       cmocka_unit_test(temporary_names),            cmocka_unit_test(what_is_text),
		cmocka_unit_test(nearest_names),  cmocka_unit_test(what_a_launcher_says),
	};
	return cmocka_run_group_tests_name("base", tests, scratch_make, scratch_remove);
}
