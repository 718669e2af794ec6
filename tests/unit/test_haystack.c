/* Haystacks: which files are read, what is no text, where sentences end. */
#include "tests/unit/eval_fixture.h"

static void cut_into(const char *text, const char *const *want, int n)
{
	struct lwm_tokenizer *t = fx_tokenizer(false);
	struct lwm_haystack h;
	fx_haystack(&h, fx_write("cut.txt", text), t);
	assert_int_equal(h.n, n);
	for (int i = 0; i < n; i++) {
		size_t len = strlen(want[i]);
		assert_int_equal(h.start[i + 1] - h.start[i], len);
		assert_memory_equal(h.text.s + h.start[i], want[i], len);
	}
	assert_int_equal(h.start[n], h.text.len);
	size_t end = h.text.len;
	while (strchr(" \t\r\n", h.text.s[end - 1]))
		end--;
	/* a byte is a token; blanks behind the last mark are not counted */
	assert_true((size_t)h.tokens[n] >= end && (size_t)h.tokens[n] <= h.text.len);
	lwm_haystack_release(&h);
	lwm_tokenizer_free(t);
}

static void test_cutting(void **state)
{
	(void)state;
	cut_into("One. Two!  Three?\n\nFour.", (const char *const[]){ "One. ", "Two!  ", "Three?\n\n", "Four.\n" }, 4);
	/* no end inside of numbers and dots; blanks belong to the sentence before them */
	cut_into("Pi is 3.14... or so. v1.2 is out", (const char *const[]){ "Pi is 3.14... ", "or so. ", "v1.2 is out\n" }, 3);
	cut_into("A.\r\n\tB", (const char *const[]){ "A.\n\t", "B\n" }, 2);
}

static void test_haystack_files(void **state)
{
	struct lwm_tokenizer *t = fx_tokenizer(false);
	struct lwm_haystack h, again;
	struct lwm_paths p = { 0 };
	(void)state;
	OK(lwm_paths_add(&p, fx_write("a.jsonl", "{\"text\":\"One. Two.\"}\n\n{\"x\":1,\"text\":\"Three.\"}"), err));
	OK(lwm_paths_add(&p, fx_write("b.txt", "Four."), err));
	OK(lwm_haystack_read(&h, &p, t, err));
	assert_string_equal(h.text.s, "One. Two.\nThree.\nFour.\n");
	assert_int_equal(h.n, 4);
	OK(lwm_haystack_read(&again, &p, t, err));
	assert_string_equal(h.hash.hex, again.hash.hex);
	lwm_haystack_release(&again);
	lwm_haystack_release(&h);
	lwm_paths_release(&p);

	OK(lwm_paths_add(&p, fx_write("c.txt", "no end of a sentence"), err));
	FAILS(lwm_haystack_read(&h, &p, t, err), LWM_EDATA, "no sentences");
	lwm_paths_release(&p);
	OK(lwm_paths_add(&p, fx_write("d.jsonl", "{\"text\":\"One. Two.\"}\n{\"txt\":\"x\"}\n"), err));
	FAILS(lwm_haystack_read(&h, &p, t, err), LWM_EDATA, "line 2");
	lwm_paths_release(&p);
	OK(lwm_paths_add(&p, fx_path("absent.txt"), err));
	FAILS(lwm_haystack_read(&h, &p, t, err), LWM_ENOINPUT, "absent.txt");
	lwm_paths_release(&p);
	OK(lwm_paths_add(&p, fx_write("e.txt", "One.\nTwo\x01.\n"), err));
	FAILS(lwm_haystack_read(&h, &p, t, err), LWM_EDATA, "byte 0x01, 3 behind the start of the line: this is no text");
	lwm_paths_release(&p);
	lwm_tokenizer_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_cutting), cmocka_unit_test(test_haystack_files) };
	return cmocka_run_group_tests(tests, fx_set_up, fx_tear_down);
}
