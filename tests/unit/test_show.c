/* What is shown of names from outside: a line of the log stays one line, and no terminal is steered. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/rng.h"
#include "common/base/show.h"
#include "common/base/utf8.h"

/* What lwm_log writes to standard error for this text, behind "HH:MM:SS name: ". */
static size_t logged(int level, const char *text, char *out, size_t size)
{
	char name[] = "/tmp/lwm_show_XXXXXX";
	int file = mkstemp(name), saved = dup(2);
	assert_true(file >= 0 && saved >= 0);
	unlink(name);
	assert_int_equal(dup2(file, 2), 2);
	lwm_log(level, "%s", text);
	assert_int_equal(dup2(saved, 2), 2);
	ssize_t n = pread(file, out, size - 1, 0);
	assert_true(n > 0);
	out[n] = 0;
	close(file);
	close(saved);
	return (size_t)n;
}

static void check_log(const char *text, const char *want)
{
	char line[16384], end[8192];
	size_t n = logged(LWM_WARN, text, line, sizeof line);
	snprintf(end, sizeof end, "name: warning: %s\n", want);
	assert_true(n > strlen(end));
	assert_string_equal(line + n - strlen(end), end);
	assert_ptr_equal(strchr(line, '\n'), line + n - 1);
}

static void test_log(void **state)
{
	(void)state;
	lwm_log_init("name", LWM_INFO);
	check_log("plain ü 漢 🙂", "plain ü 漢 🙂");
	check_log("in/a\nerror: forged.txt", "in/a\\nerror: forged.txt");
	check_log("\x1b[2J\x1b]0;title\a", "\\x1b[2J\\x1b]0;title\\x07");
	check_log("tab\there\rback\bspace\x7f", "tab\\there\\rback\\x08space\\x7f");
	check_log("c1 \xc2\x9b" "31m \xc2\x80 but \xc2\xa0 stays", "c1 \\u009b31m \\u0080 but \xc2\xa0 stays");
	check_log("bad \xff \xc3 \x9b" "31m \xed\xa0\x80", "bad \\xff \\xc3 \\x9b31m \\xed\\xa0\\x80");
}

/* Whatever comes, however long: one line of well-formed UTF-8 without a control character. */
static void test_log_random(void **state)
{
	char text[3000], line[16384];
	struct lwm_rng r = lwm_rng_at(7, LWM_RNG_TEST, 0, 0);
	(void)state;
	lwm_log_init("name", LWM_INFO);
	for (int k = 0; k < 300; k++) {
		size_t n = (size_t)lwm_rng_below(&r, sizeof text - 1);
		bool high = k % 3 == 0;
		for (size_t i = 0; i < n; i++)
			text[i] = (char)(1 + lwm_rng_below(&r, high ? 255 : 127));
		text[n] = 0;
		n = logged(LWM_INFO, text, line, sizeof line);
		assert_int_equal(line[n - 1], '\n');
		assert_int_equal(lwm_utf8_check(line, n), n);
		for (size_t i = 0; i + 1 < n; i++)
			assert_true((unsigned char)line[i] >= 0x20 && line[i] != 0x7f);
	}
}

static void test_cut(void **state)
{
	char out[8];
	(void)state;
	assert_int_equal(lwm_show(out, sizeof out, "abc\nde\n"), 7);
	assert_string_equal(out, "abc\\nde");
	assert_int_equal(lwm_show(out, sizeof out, "abcde\x1b"), 5); /* never half an escape */
	assert_string_equal(out, "abcde");
	assert_int_equal(lwm_show(out, 4, "aüü"), 3); /* nor half a character */
	assert_string_equal(out, "aü");
	assert_int_equal(lwm_show(out, 1, "a"), 0);
	assert_string_equal(out, "");
	struct lwm_str s = { 0 };
	lwm_show_add(&s, "a\nb");
	assert_string_equal(lwm_str_get(&s), "a\\nb");
	lwm_str_release(&s);
}

static void test_check(void **state)
{
	(void)state;
	for (int c = 1; c < 256; c++) {
		struct lwm_err e = { 0 };
		char name[] = { 'a', (char)c, 'b', 0 }, byte[8];
		bool bad = c < 0x20 || c == 0x7f;
		assert_int_equal(lwm_show_check(name, "the thing", &e), bad ? -LWM_EUSAGE : 0);
		if (!bad)
			continue;
		snprintf(byte, sizeof byte, c == '\n' ? "\\n" : c == '\t' ? "\\t" : c == '\r' ? "\\r" : "\\x%02x", c);
		assert_non_null(strstr(e.msg, "the thing"));
		assert_non_null(strstr(e.msg, byte));
		assert_null(strchr(e.msg, c));
	}
	assert_int_equal(lwm_show_check("", "the thing", NULL), 0);
	assert_int_equal(lwm_show_check("ü 漢.txt", "the thing", NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_log),
		cmocka_unit_test(test_log_random),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_check),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
