/* tokenizer.json as written: applied by its own rules (Hugging Face's BPE with byte fallback) it gives the ids of the model. */
#include "tests/unit/data_fixture.h"

#include "common/base/json.h"
#include "common/base/outfile.h"
#include "common/base/utf8.h"
#include "common/text/tokenizer.h"

#define SPACE "\xe2\x96\x81"
static const char *const words[] = { "the", "ship", "sailed", "over", "a", "quiet", "sea", "don't", "naïve", "日本", "🙂", "12,5", "end.", "x" };
enum { WORDS = sizeof words / sizeof *words };

static void make_line(uint64_t seed, uint64_t i, struct lwm_str *out)
{
	struct lwm_rng r = lwm_rng_at(seed, LWM_RNG_TEST, 9, i);
	for (int64_t k = lwm_rng_below(&r, 12); k >= 0; k--) {
		lwm_str_puts(out, words[lwm_rng_below(&r, WORDS)]);
		lwm_str_puts(out, lwm_rng_below(&r, 9) ? " " : "  ");
	}
}

static const char *model_of(const char *name, const char *const *symbols, int64_t n)
{
	struct lwm_str text = { 0 };
	const char *input = in_scratch("train.txt"), *model = in_scratch(name);
	for (uint64_t i = 0; i < 2000; i++) {
		make_line(1, i, &text);
		lwm_str_putc(&text, '\n');
	}
	OK(lwm_write_file(input, text.s, text.len, true, &err));
	lwm_str_release(&text);
	struct lwm_tokenizer_train_cfg how = { .inputs = &input, .ninputs = 1, .symbols = symbols, .nsymbols = n, .vocab = 340 };
	OK(lwm_tokenizer_train(&how, model, true, &err));
	return model;
}

/* Rank of "a b" among the merges, or -1. */
static int64_t rank_of(const json_t *ranks, const char *a, const char *b)
{
	struct lwm_str pair = { 0 };
	lwm_str_printf(&pair, "%s %s", a, b);
	const json_t *v = json_object_get(ranks, lwm_str_get(&pair));
	lwm_str_release(&pair);
	return v ? json_integer_value(v) : -1;
}

/* Prepend, replace; characters, or bytes of those the vocabulary lacks; then the best merge, leftmost, while there is one. */
static int64_t apply(const json_t *vocab, const json_t *ranks, const char *text, size_t n, int32_t *ids)
{
	static char piece[4000][160];
	int64_t k = 0;
	struct lwm_str s = { 0 };
	if (n)
		lwm_str_puts(&s, SPACE);
	for (size_t i = 0; i < n; i++)
		if (text[i] == ' ')
			lwm_str_puts(&s, SPACE);
		else
			lwm_str_putc(&s, text[i]);
	for (size_t i = 0, len; i < s.len; i += len) {
		len = lwm_utf8_len(s.s + i, s.len - i);
		snprintf(piece[k++], sizeof piece[0], "%.*s", (int)len, s.s + i);
		if (json_object_get(vocab, piece[k - 1]))
			continue;
		k--;
		for (size_t b = 0; b < len; b++)
			snprintf(piece[k++], sizeof piece[0], "<0x%02X>", (unsigned)(unsigned char)s.s[i + b]);
	}
	lwm_str_release(&s);
	for (;;) {
		int64_t best = -1, at = -1;
		for (int64_t i = 0; i + 1 < k; i++) {
			int64_t r = rank_of(ranks, piece[i], piece[i + 1]);
			if (r >= 0 && (best < 0 || r < best)) {
				best = r;
				at = i;
			}
		}
		if (best < 0)
			break;
		size_t have = strlen(piece[at]), add = strlen(piece[at + 1]);
		assert_true(have + add < sizeof piece[0]);
		memmove(piece[at] + have, piece[at + 1], add + 1);
		memmove(piece[at + 1], piece[at + 2], (size_t)(k - at - 2) * sizeof piece[0]);
		k--;
	}
	for (int64_t i = 0; i < k; i++)
		ids[i] = (int32_t)json_integer_value(json_object_get(vocab, piece[i]));
	return k;
}

static void gives_the_same_ids(void **state)
{
	static const char *const more[] = { "", " ", "  ", " leading", "trailing ", "a\tb\nc", "é ü \xc2\xa0 Ω", "<s></s><0x0A>", "🙂🙂", SPACE "x" };
	struct lwm_tokenizer *t;
	json_t *o, *c, *ranks = json_object(), *merge;
	size_t i;
	(void)state;
	OK(lwm_tokenizer_open(&t, model_of("plain.model", NULL, 0), &err));
	const char *dir = in_scratch("plain");
	OK(lwm_mkdirs(dir, &err));
	assert_int_equal(lwm_tokenizer_write_hf(t, dir, 4096, &err), 1);
	OK(lwm_json_read(&o, in_scratch("plain/tokenizer.json"), 1 << 24, &err));
	OK(lwm_json_read(&c, in_scratch("plain/tokenizer_config.json"), 1 << 20, &err));
	assert_string_equal(json_string_value(json_object_get(c, "tokenizer_class")), "PreTrainedTokenizerFast");
	assert_int_equal(json_integer_value(json_object_get(c, "model_max_length")), 4096);
	const json_t *model = json_object_get(o, "model"), *vocab = json_object_get(model, "vocab");
	assert_int_equal(json_object_size(vocab), lwm_tokenizer_vocab(t));
	json_array_foreach(json_object_get(model, "merges"), i, merge)
		json_object_set_new(ranks, json_string_value(merge), json_integer((json_int_t)i));
	assert_true(json_object_size(ranks) > 30 && json_object_size(ranks) == i); /* none stands twice */
	for (uint64_t k = 0; k < 300 + sizeof more / sizeof *more; k++) {
		struct lwm_str text = { 0 };
		struct lwm_ids want = { 0 };
		static int32_t got[4000];
		if (k < 300)
			make_line(2, k, &text);
		else
			lwm_str_puts(&text, more[k - 300]);
		OK(lwm_tokenizer_encode(t, lwm_str_get(&text), text.len, &want, &err));
		int64_t n = apply(vocab, ranks, lwm_str_get(&text), text.len, got);
		if (n != want.n || (n && memcmp(got, want.v, (size_t)n * sizeof *got)))
			fail_msg("other ids of '%s': %d, not %d", lwm_str_get(&text), (int)n, (int)want.n);
		lwm_ids_release(&want);
		lwm_str_release(&text);
	}
	json_decref(ranks);
	json_decref(o);
	json_decref(c);
	lwm_tokenizer_free(t);
}

/* What that format says in another way is not said at all. */
static void or_is_not_written(void **state)
{
	static const char *const symbols[] = { "<vision>" };
	const char *specs[] = { "bytes", model_of("symbols.model", symbols, 1) };
	(void)state;
	for (int i = 0; i < 2; i++) {
		struct lwm_tokenizer *t;
		OK(lwm_tokenizer_open(&t, specs[i], &err));
		assert_int_equal(lwm_tokenizer_write_hf(t, in_scratch(""), 4096, &err), 0);
		assert_false(lwm_path_exists(in_scratch("tokenizer.json")));
		assert_false(lwm_path_exists(in_scratch("tokenizer_config.json")));
		lwm_tokenizer_free(t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(gives_the_same_ids), cmocka_unit_test(or_is_not_written) };
	return cmocka_run_group_tests_name("hf_json", tests, scratch_make, scratch_remove);
}
