/* The option table: sources and their order, strict values, help, errors, exit codes. Each case is a child process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/outfile.h"
#include "common/base/path.h"
#include "common/cli/opt.h"

static int64_t seq = 32768;
static double rate = 3e-4, limit = 90;
static const char *out, *label = "plain";
static bool fast;
static int mode;
static struct lwm_paths list;
static const char *const modes[] = { "masked", "concat", NULL };

/* in parts: a table within a table within the tool's */
static const struct lwm_opt ends[] = {
	LWM_OPT_SECONDS(0, "limit", &limit, "TIME", "stop after", 0),
	LWM_OPT_STR(0, "label", &label, "TEXT", "a label", 0),
	LWM_OPT_END
};
static const struct lwm_opt work[] = {
	LWM_OPT_HEAD("Work:"),
	LWM_OPT_INT(0, "seq-length", &seq, 2, 1 << 24, "N", "tokens in one row", 0),
	LWM_OPT_DOUBLE(0, "rate", &rate, 0, 1, "X", "learning rate", 0),
	LWM_OPT_TABLE(ends),
	LWM_OPT_END
};
static const struct lwm_opt opts[] = {
	LWM_OPT_HEAD("Output:"),
	LWM_OPT_STR('o', "output", &out, "FILE", "where it goes", LWM_OPT_REQUIRED),
	LWM_OPT_TABLE(work),
	LWM_OPT_CHOICE('m', "mode", &mode, modes, "how", 0),
	LWM_OPT_LIST('l', "list", &list, "X", "several", 0),
	LWM_OPT_FLAG('f', "fast", &fast, "be quick"),
	LWM_OPT_END
};
static const struct lwm_tool tool = { .name = "lwm-probe", .summary = "A tool for tests.", .operands = "FILE...",
				      .min_operands = 1, .max_operands = 3, .opts = opts,
				      .examples = "  lwm-probe -o x a\n  lwm-probe --fast -o x a b\n" };

static int run(const struct lwm_args *a, struct lwm_err *e)
{
	if (!strcmp(a->operand[0], "fail"))
		return lwm_fail(e, LWM_EDATA, "fail: \"quoted\" sentence");
	if (!strcmp(a->operand[0], "no"))
		return LWM_ENO;
	printf("%s %ld %g %g %s %s %d n%d v%ld t%ld%s:", out, (long)seq, rate, limit, label, modes[mode], fast, a->noperand,
	       (long)a->common.verbose, (long)a->common.threads, a->common.plan ? " plan" : "");
	for (int64_t i = 0; i < list.n; i++)
		printf(" %s", list.v[i]);
	return 0;
}

static char text_out[20000], text_err[20000];

static void slurp(int fd, char *buf, size_t size)
{
	size_t n = 0;
	ssize_t k;
	while (n + 1 < size && (k = read(fd, buf + n, size - 1 - n)) > 0)
		n += (size_t)k;
	buf[n] = 0;
	close(fd);
}

/* Runs the tool on a command line of words separated by blanks; returns its exit status. */
static int call(const char *words)
{
	char copy[1000], *argv[40], *save = NULL;
	int argc = 0, po[2], pe[2], status;
	pid_t pid;
	snprintf(copy, sizeof copy, "lwm-probe %s", words);
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	argv[argc] = NULL;
	if (pipe(po) || pipe(pe))
		fail_msg("pipe");
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		dup2(po[1], 1);
		dup2(pe[1], 2);
		_exit(lwm_tool_main(&tool, argc, argv, run));
	}
	close(po[1]);
	close(pe[1]);
	slurp(po[0], text_out, sizeof text_out);
	slurp(pe[0], text_err, sizeof text_err);
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("'%s' lacks '%s'", text, part);
}

static void values(void **state)
{
	(void)state;
	assert_int_equal(call("a -o x"), 0);
	assert_string_equal(text_out, "x 32768 0.0003 90 plain masked 0 n1 v0 t0:");
	assert_string_equal(text_err, "");
	assert_int_equal(call("-ox a --seq-length=1M --rate 1e-2 b --limit 2h --mode concat -f -vv --threads 3 --plan"
			      " -l p --list=q"), 0);
	assert_string_equal(text_out, "x 1048576 0.01 7200 plain concat 1 n2 v2 t3 plan: p q");
	assert_int_equal(call("-o x --fast --no-fast -- --label"), 0);
	assert_string_equal(text_out, "x 32768 0.0003 90 plain masked 0 n1 v0 t0:");
	assert_int_equal(call("-o x --verbose=3 a"), 0);
	has(text_out, " v3 ");
}

static void refusals(void **state)
{
	static const struct { const char *words, *part; } c[] = {
		{ "a", "--output is needed" },
		{ "-o x", "expected FILE..." },
		{ "-o x a b c d", "4 operands given, at most 3" },
		{ "-o x a --seq-lenght 5", "unknown option --seq-lenght (did you mean --seq-length?)" },
		{ "-o x a -z", "unknown option -z" },
		{ "-o x a --zzzzzzzzzz", "unknown option --zzzzzzzzzz (see --help)" },
		{ "-o x a --seq-length 12x", "--seq-length: '12x' is not a whole number" },
		{ "-o x a --seq-length 1", "--seq-length: 1 is not in 2..16777216" },
		{ "-o x a --seq-length", "--seq-length needs a value" },
		{ "a -o", "-o needs a value" },
		{ "-o x a --rate nan", "--rate: 'nan' is not a number" },
		{ "-o x a --mode other", "--mode: 'other' is none of masked, concat" },
		{ "-o x a --fast=maybe", "--fast: 'maybe' is neither" },
		{ "-o x a --help=5", "--help takes no value" },
		{ "-o x a --l 5", "--l fits several options" },
		{ "-o x a --set rate", "expected NAME=VALUE" },
		{ "-o x a --set rat=1", "did you mean 'rate'" },
		{ "-o x a --set rate=2", "--set rate: 2 is not in 0..1" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
		assert_int_equal(call(c[i].words), LWM_EUSAGE);
		assert_string_equal(text_out, "");
		has(text_err, "lwm-probe: ");
		has(text_err, c[i].part);
	}
	assert_int_equal(call("-o x a --config /nonexistent.yaml"), LWM_ENOINPUT);
}

static void precedence(void **state)
{
	char path[] = "/tmp/lwm_opt_XXXXXX", words[400];
	int fd = mkstemp(path);
	static const char yaml[] = "rate: 0.1\nlabel: file\nlwm-probe:\n  seq_length: 64\n  list: [a, b]\n  output: o\nlwm-other: {x: 1}\n";
	(void)state;
	assert_int_equal(write(fd, yaml, sizeof yaml - 1), (int)sizeof yaml - 1);
	close(fd);
	snprintf(words, sizeof words, "--config %s a", path);
	assert_int_equal(call(words), 0);
	assert_string_equal(text_out, "o 64 0.1 90 file masked 0 n1 v0 t0: a b");
	setenv("LWM_LABEL", "env", 1);
	setenv("LWM_SEQ_LENGTH", "128", 1);
	assert_int_equal(call(words), 0);
	assert_string_equal(text_out, "o 128 0.1 90 env masked 0 n1 v0 t0: a b");
	snprintf(words, sizeof words, "--config %s a --set label=set --set seq_length=256 -l z", path);
	assert_int_equal(call(words), 0);
	assert_string_equal(text_out, "o 256 0.1 90 set masked 0 n1 v0 t0: z");
	snprintf(words, sizeof words, "--seq-length 512 --config %s a --set seq-length=256 --print-config", path);
	assert_int_equal(call(words), 0);
	has(text_out, "seq-length: 512  # command line\n");
	has(text_out, "label: \"env\"  # LWM_LABEL\n");
	has(text_out, "limit: 90  # default\n");
	has(text_out, ":1\n");
	has(text_out, "list: [\"a\", \"b\"]  # /tmp/lwm_opt_");
	snprintf(words + strlen(words), 20, " --json");
	assert_int_equal(call(words), 0);
	has(text_out, "\"label\": {\"value\": \"env\", \"origin\": \"LWM_LABEL\"}");
	setenv("LWM_SEQ_LENGTH", "many", 1);
	snprintf(words, sizeof words, "--config %s a", path);
	assert_int_equal(call(words), LWM_EUSAGE);
	has(text_err, "LWM_SEQ_LENGTH: 'many'");
	unsetenv("LWM_SEQ_LENGTH");
	unsetenv("LWM_LABEL");
	assert_int_equal(lwm_write_file(path, "lable: x\n", 9, true, NULL), 0);
	assert_int_equal(call(words), LWM_EUSAGE);
	has(text_err, ":1: unknown option 'lable' (did you mean 'label'?)");
	remove(path);
}

static void texts(void **state)
{
	int lines = 0;
	(void)state;
	assert_int_equal(call("--help --output"), LWM_EUSAGE);
	assert_int_equal(call("--help"), 0);
	assert_string_equal(text_err, "");
	for (char *s = text_out; *s; s++)
		lines += *s == '\n';
	assert_in_range(lines, 15, 60);
	has(text_out, "Usage: lwm-probe [options] FILE...\nA tool for tests.\n");
	has(text_out, "tokens in one row (default 32K)");
	has(text_out, "where it goes (needed)");
	has(text_out, "(masked|concat; default masked)");
	has(text_out, "Examples:\n");
	assert_int_equal(call("--version"), 0);
	assert_string_equal(text_out, "lwm-probe " LWM_VERSION "\n");
	assert_int_equal(call("--version -v"), 0);
	has(text_out, "built with gcc");
	assert_int_equal(call("--help-man"), 0);
	has(text_out, ".TH lwm-probe 1");
	has(text_out, "\\fB\\-\\-seq\\-length\\fR \\fIN\\fR");
	has(text_out, ".SH EXIT STATUS");
	assert_int_equal(call("--help-completion"), 0);
	has(text_out, "complete -o default -F _lwm_probe lwm-probe");
	has(text_out, "'masked concat'");
	has(text_out, "--output --seq-length --rate --limit --label --mode --list --fast --plan"); /* the parts where they stand */
}

static void results(void **state)
{
	(void)state;
	assert_int_equal(call("-o x fail"), LWM_EDATA);
	assert_string_equal(text_err, "lwm-probe: fail: \"quoted\" sentence\n");
	assert_string_equal(text_out, "");
	assert_int_equal(call("-o x fail --json"), LWM_EDATA);
	assert_string_equal(text_out, "{\"error\": {\"code\": 65, \"name\": \"data\", \"message\": "
				      "\"fail: \\\"quoted\\\" sentence\"}}\n");
	assert_int_equal(call("--json --nothing"), LWM_EUSAGE);
	has(text_out, "{\"error\": {\"code\": 64, ");
	assert_int_equal(call("-o x no"), LWM_ENO);
	assert_string_equal(text_err, "");
}

static void full_stdout(void **state)
{
	int status;
	pid_t pid;
	(void)state;
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		char w[4][10] = { "lwm-probe", "-o", "x", "a" }, *argv[] = { w[0], w[1], w[2], w[3], NULL };
		int fd = open("/dev/full", O_WRONLY), null = open("/dev/null", O_WRONLY);
		dup2(fd, 1);
		dup2(null, 2);
		_exit(lwm_tool_main(&tool, 4, argv, run));
	}
	waitpid(pid, &status, 0);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), LWM_EIO);
}

int main(void)
{
	setenv("GOMP_SPINCOUNT", "1000", 0); /* or the first call would start this program anew */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values), cmocka_unit_test(refusals), cmocka_unit_test(precedence),
		cmocka_unit_test(texts), cmocka_unit_test(results), cmocka_unit_test(full_stdout),
	};
	return cmocka_run_group_tests_name("opt", tests, NULL, NULL);
}
