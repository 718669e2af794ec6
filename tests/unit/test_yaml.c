/* YAML reading: values with their places, limits, typed access, --set paths, suggestions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "common/cli/yaml.h"

static struct lwm_yaml *parse(const char *text)
{
	struct lwm_yaml *y;
	struct lwm_err e = { 0 };
	if (lwm_yaml_parse(&y, "t.yaml", text, strlen(text), &e) < 0)
		fail_msg("%s", e.msg);
	return y;
}

/* The text is refused with exit code 64 and a message that contains `part`. */
static void refused_n(const char *text, size_t n, const char *part)
{
	struct lwm_yaml *y;
	struct lwm_err e = { 0 };
	assert_int_equal(lwm_yaml_parse(&y, "t.yaml", text, n, &e), -LWM_EUSAGE);
	assert_null(y);
	if (!strstr(e.msg, part))
		fail_msg("'%s' lacks '%s'", e.msg, part);
}

static void refused(const char *text, const char *part)
{
	refused_n(text, strlen(text), part);
}

static void tree(void **state)
{
	struct lwm_yaml *y = parse("a: 1\nb:\n  - x\n  - {c: 'q', d: ~}\n");
	struct lwm_node *r = lwm_yaml_root(y), *b = lwm_node_get(r, "b");
	(void)state;
	assert_int_equal(r->kind, LWM_MAP);
	assert_int_equal(r->n, 2);
	assert_int_equal(b->kind, LWM_SEQ);
	assert_int_equal(b->line, 3);
	assert_string_equal(b->child[0]->text, "x");
	assert_true(lwm_node_get(b->child[1], "c")->quoted);
	assert_string_equal(lwm_node_get(b->child[1], "d")->text, "");
	assert_int_equal(lwm_node_get(b->child[1], "d")->line, 4);
	assert_null(lwm_node_get(r, "z"));
	lwm_yaml_free(y);
	y = parse("");
	assert_int_equal(lwm_yaml_root(y)->kind, LWM_MAP);
	lwm_yaml_free(y);
}

static void syntax(void **state)
{
	(void)state;
	refused("a: 1\nb: [1, 2\n", "t.yaml:3:1");
	refused("a:\n\t- 1\n", "t.yaml:2:");
	refused("a: 1\nb: 2\na: 3\n", "t.yaml:3:1: key 'a' was already given in line 1");
	refused("a: &x 1\n", "anchors and tags");
	refused("a: *x\n", "aliases");
	refused("a: !!str 1\n", "anchors and tags");
	refused("a: !<x> [1]\n", "anchors and tags");
	refused("%TAG ! tag:x,2000:\n---\na: 1\n", "anchors and tags");
	refused("a: 1\n---\nb: 2\n", "second document");
	refused("? [a, b]\n: 1\n", "a key must be a plain word");
	refused("'': 1\n", "key is empty");
	refused("a: \"x\\0y\"\n", "zero byte");
	refused("a: \xff\xfe\xff\n", "t.yaml: ");
	refused_n("a\0b: 1", 6, "t.yaml: ");
}

/* Each must be refused, and at a cost that does not depend on what it pretends to be. */
static void bombs(void **state)
{
	size_t n = 1 << 20;
	char *big = malloc(n + 2);
	static const char *const unit[] = { "[", "{a: ", "- ", "a,", "? ", "[a,", "\"", "a: &a [*a]\n" };
	(void)state;
	assert_non_null(big);
	for (size_t u = 0; u < sizeof unit / sizeof unit[0]; u++) {
		struct lwm_yaml *y;
		struct lwm_err e = { 0 };
		size_t k = strlen(unit[u]);
		clock_t cpu = clock();
		for (size_t i = 0; i < n; i++)
			big[i] = unit[u][i % k];
		if (u == 3) /* one list of half a million values */
			memcpy(big, "[a", 2);
		assert_int_equal(lwm_yaml_parse(&y, "bomb", big, n, &e), -LWM_EUSAGE);
		print_message("%-12.3s refused in %.1f ms: %s\n", unit[u], 1e3 * (double)(clock() - cpu) / CLOCKS_PER_SEC, e.msg);
	}
	memset(big, 'a', n + 1);
	refused_n(big, n + 1, "1 MiB");
	free(big);
	refused("a: &a [x,x]\nb: &b [*a,*a,*a]\n", "anchors");
}

static void depth(void **state)
{
	char text[300];
	(void)state;
	for (int d = 63; d <= 65; d++) {
		struct lwm_yaml *y;
		struct lwm_err e = { 0 };
		memset(text, '[', (size_t)d);
		memset(text + d, ']', (size_t)d);
		assert_int_equal(lwm_yaml_parse(&y, "d", text, (size_t)d * 2, &e), d <= 64 ? 0 : -LWM_EUSAGE);
		lwm_yaml_free(y);
	}
}

static void typed(void **state)
{
	static const char *const words[] = { "red", "green", NULL };
	struct lwm_yaml *y = parse("i: 32K\nf: 2.5e7\nb: yes\ns: hello\nt: 1:30:00\nc: green\nm: {a: 1}\n"
				   "bad: 3e-4x\nhalf: 12.5\n");
	struct lwm_node *r = lwm_yaml_root(y);
	double t = 0;
	bool b = false;
	int c = 0;
	struct lwm_err e = { 0 };
	(void)state;
	assert_int_equal(lwm_node_bool(r, "b", &b, &e), 0);
	assert_true(b);
	assert_int_equal(lwm_node_bool(r, "absent", &b, &e), 0);
	assert_true(b);
	assert_int_equal(lwm_node_seconds(r, "t", &t, &e), 0);
	assert_true(t == 5400);
	assert_int_equal(lwm_node_choice(r, "c", words, &c, &e), 0);
	assert_int_equal(c, 1);
	assert_int_equal(lwm_node_choice(r, "s", words, &c, &e), -LWM_EUSAGE);
	assert_string_equal(e.msg, "t.yaml:4: s: 'hello' is none of red, green");
	lwm_err_clear(&e);
	assert_int_equal(lwm_node_seconds(r, "bad", &t, &e), -LWM_EUSAGE);
	lwm_err_clear(&e);
	assert_int_equal(lwm_node_bool(r, "half", &b, &e), -LWM_EUSAGE);
	lwm_err_clear(&e);
	assert_int_equal(lwm_node_bool(r, "m", &b, &e), -LWM_EUSAGE);
	assert_string_equal(e.msg, "t.yaml:7: m: expected a plain value, found a map");
	lwm_yaml_free(y);
}

static void unknown_keys(void **state)
{
	struct lwm_yaml *y = parse("seq_length: 5\nmodle: x\ninner: {stepz: 3}\nfree: {any: 1}\n");
	struct lwm_node *r = lwm_yaml_root(y);
	struct lwm_err e = { 0 };
	(void)state;
	lwm_node_get(r, "seq_length");
	lwm_node_get(r, "model");
	lwm_node_get(r, "free");
	assert_int_equal(lwm_node_done(r, &e), -LWM_EUSAGE);
	assert_string_equal(e.msg, "t.yaml:2: unknown key 'modle' (did you mean 'model'?)");
	lwm_err_clear(&e);
	lwm_node_get(r, "modle");
	lwm_node_get(lwm_node_get(r, "inner"), "steps");
	assert_int_equal(lwm_node_done(r, &e), -LWM_EUSAGE);
	assert_string_equal(e.msg, "t.yaml:3: unknown key 'stepz' (did you mean 'steps'?)");
	lwm_err_clear(&e);
	lwm_node_get(lwm_node_get(r, "inner"), "stepz");
	assert_int_equal(lwm_node_done(r, &e), 0);
	lwm_yaml_free(y);
}

static void set_paths(void **state)
{
	struct lwm_yaml *y = parse("vars: {a: 1}\nstages:\n- name: one\n  steps: 5\n- name: two\n");
	struct lwm_node *r = lwm_yaml_root(y), *n;
	struct lwm_err e = { 0 };
	(void)state;
	assert_int_equal(lwm_yaml_set(y, "vars.a=2", "--set", &e), 0);
	assert_int_equal(lwm_yaml_set(y, "vars.b=x=y", "--set", &e), 0);
	assert_int_equal(lwm_yaml_set(y, "new.deep.key=1", "--set", &e), 0);
	assert_int_equal(lwm_yaml_set(y, "stages.0.steps=9", "--set", &e), 0);
	assert_int_equal(lwm_yaml_set(y, "stages.two.list=[1, {k: v}]", "--set", &e), 0);
	assert_string_equal(lwm_node_get(lwm_node_get(r, "vars"), "a")->text, "2");
	assert_string_equal(lwm_node_get(lwm_node_get(r, "vars"), "b")->text, "x=y");
	assert_string_equal(lwm_node_get(lwm_node_get(lwm_node_get(r, "new"), "deep"), "key")->text, "1");
	n = lwm_node_get(r, "stages");
	assert_string_equal(lwm_node_get(n->child[0], "steps")->text, "9");
	assert_int_equal(lwm_node_get(n->child[1], "list")->n, 2);
	assert_int_equal(lwm_yaml_set(y, "stages.7.x=1", "--set", &e), -LWM_EUSAGE);
	lwm_err_clear(&e);
	assert_int_equal(lwm_yaml_set(y, "stages.2.x=1", "--set", &e), -LWM_EUSAGE); /* one behind the last */
	lwm_err_clear(&e);
	assert_int_equal(lwm_yaml_set(y, "vars.a.b=1", "--set", &e), -LWM_EUSAGE);
	lwm_err_clear(&e);
	assert_int_equal(lwm_yaml_set(y, "=1", "--set", &e), -LWM_EUSAGE);
	lwm_err_clear(&e);
	assert_int_equal(lwm_yaml_set(y, "a..b=1", "--set", &e), -LWM_EUSAGE);
	lwm_err_clear(&e);
	assert_int_equal(lwm_yaml_set(y, "a.b", "--set", &e), -LWM_EUSAGE);
	lwm_yaml_free(y);
}

static void files(void **state)
{
	struct lwm_yaml *y;
	struct lwm_err e = { 0 };
	(void)state;
	assert_int_equal(lwm_yaml_read(&y, "/nonexistent/x.yaml", &e), -LWM_ENOINPUT);
	lwm_err_clear(&e);
	assert_int_equal(lwm_yaml_read(&y, "/tmp", &e), -LWM_ENOINPUT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tree), cmocka_unit_test(syntax), cmocka_unit_test(bombs), cmocka_unit_test(depth),
		cmocka_unit_test(typed), cmocka_unit_test(unknown_keys), cmocka_unit_test(set_paths),
		cmocka_unit_test(files),
	};
	return cmocka_run_group_tests_name("yaml", tests, NULL, NULL);
}
