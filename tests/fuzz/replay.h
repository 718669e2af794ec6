/* replay.h - main of a fuzz target: runs fuzz_one on each file of a folder and on changed copies of it.
 *
 *	fuzz_yaml CORPUS [COPIES]
 *
 * Copies are a function of the file and their number: bits flipped, pieces cut, doubled and swapped. A target must come
 * back from any input; what it returns does not matter. With -DLWM_LIBFUZZER (clang -fsanitize=fuzzer) the same function
 * is called by libFuzzer instead.
 */
#ifndef TESTS_FUZZ_REPLAY_H
#define TESTS_FUZZ_REPLAY_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/base/path.h"

static void fuzz_one(const uint8_t *p, size_t n);

#ifdef LWM_LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	fuzz_one(p, n);
	return 0;
}
#else
static uint64_t fuzz_next(uint64_t *s)
{
	*s = *s * 6364136223846793005u + 1442695040888963407u;
	return *s >> 33;
}

/* Changes p in place, returns the new length (never longer). */
static size_t fuzz_change(uint8_t *p, size_t n, uint64_t *s)
{
	size_t a = n ? fuzz_next(s) % n : 0, b = n ? fuzz_next(s) % n : 0, len;
	if (!n)
		return 0;
	len = fuzz_next(s) % 16 + 1;
	len = len > n - (a > b ? a : b) ? n - (a > b ? a : b) : len;
	switch (fuzz_next(s) % 5) {
	case 0:
		p[a] ^= (uint8_t)(1u << fuzz_next(s) % 8);
		return n;
	case 1:
		p[a] = (uint8_t)"[]{}:,-&*!|>'\"%@`#?\n\t 0~\\\xff\x00"[fuzz_next(s) % 28];
		return n;
	case 2:
		memmove(p + a, p + b, len);
		return n;
	case 3:
		memmove(p + a, p + a + len, n - a - len);
		return n - len;
	default:
		return a;
	}
}

int main(int argc, char **argv)
{
	struct lwm_paths files = { 0 };
	struct lwm_err e = { 0 };
	int64_t copies = 300, runs = 0;
	if (argc < 2 || (argc > 2 && lwm_parse_int(argv[2], 0, 1000000000, &copies, "COPIES", &e) < 0) ||
	    lwm_paths_expand(&files, argv[1], NULL, &e) < 0) {
		fprintf(stderr, "%s CORPUS [COPIES]: %s\n", argv[0], e.msg);
		return 64;
	}
	for (int64_t i = 0; i < files.n; i++) {
		char *text;
		size_t n;
		if (lwm_read_file(files.v[i], 1 << 22, &text, &n, &e) < 0) {
			fprintf(stderr, "%s\n", e.msg);
			return 66;
		}
		for (int64_t k = 0; k <= copies; k++, runs++) {
			uint64_t s = (uint64_t)k * 7919 + n;
			uint8_t *copy = malloc(n + 1); /* of its own, so that a read behind the end is seen */
			size_t m = n;
			if (!copy)
				return 71;
			memcpy(copy, text, n);
			for (uint64_t c = k ? fuzz_next(&s) % 4 + 1 : 0; c > 0; c--)
				m = fuzz_change(copy, m, &s);
			fuzz_one(copy, m);
			free(copy);
		}
		free(text);
	}
	printf("%lld inputs came back\n%lld passed, 0 failed, 0 skipped\n", (long long)runs, (long long)files.n);
	lwm_paths_release(&files);
	return runs ? 0 : 1;
}
#endif
#endif
