/* ops.c - holds the ops of each backend against ref. Installed as lwm-kernel-ops: it needs nothing but the kernels, so it
 * runs on a bare machine to tell whether the arithmetic there is right.
 *
 *	lwm-kernel-ops                  cpu with each instruction set, cuda if there is one, gradients, wrong calls
 *	lwm-kernel-ops cuda:0 --case attn -v
 *
 * The last line is "N passed, N failed, N skipped"; exit 1 when something failed or nothing ran. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/kernels/ops_int.h"

static const struct ops_family *const families[] = { &ops_family_dense, &ops_family_transformer, &ops_family_attn,
						    &ops_family_image, &ops_family_feature, &ops_family_gen, &ops_family_calls };
enum { FAMILIES = sizeof families / sizeof *families };

struct plan {
	const char *device, *only;
	unsigned long long seed;
	int number, threads, list, verbose, grad;
	long every, seconds;   /* every: takes only each Nth case; seconds: starts none after so long; 0: all */
	time_t start;
	int late;              /* cases that --seconds left out */
	int passed, failed, skipped;
};

static void report(struct plan *p, const char *dev, const char *family, const struct ops_case *c, int number,
		   const char *verdict, const char *text)
{
	if (strcmp(verdict, "ok") != 0 || p->verbose)
		printf("%-4s %3d %s/%s [%s]%s%s\n", verdict, number, family, c->name, dev, *text ? ": " : "", text);
}

static void failed(struct plan *p, const char *dev, const char *family, const struct ops_case *c, int number,
		   const char *text)
{
	p->failed++;
	report(p, dev, family, c, number, "FAIL", text);
}

/* One run of the case; 0, LK_EUNSUP, or 1 with a sentence. */
static int run_case(struct ops_run *r, struct lk_dev *dev, const struct ops_case *c, uint64_t seed, int bf16, char *why,
		    size_t n)
{
	int rc;

	ops_start(r, dev, seed, bf16);
	rc = c->run(r, c->arg);
	if (!rc)
		rc = lk_sync(dev);
	if (rc || r->why[0]) {
		snprintf(why, n, "%s", r->why[0] ? r->why : lk_dev_error(dev));
		return rc == LK_EUNSUP ? rc : 1;
	}
	return 0;
}

/* Both runs are of one device: every output must have the same bits. */
static int same_bits(struct ops_run *a, struct ops_run *b, char *why, size_t n)
{
	for (int i = 0; i < a->nt && i < b->nt; i++) {
		int bad;

		if (ops_fetch(b, &b->t[i]))
			return 1;
		if (a->t[i].role == OPS_VALUE)
			bad = memcmp(&a->t[i].value, &b->t[i].value, sizeof a->t[i].value) != 0;
		else
			bad = memcmp(a->t[i].host, b->t[i].host, a->t[i].bytes + 2 * OPS_GUARD) != 0;
		if (bad) {
			snprintf(why, n, "%s: a second run gave other bits", a->t[i].name);
			return 1;
		}
	}
	return 0;
}

static void compare_case(struct plan *p, struct lk_dev *ref, struct lk_dev *dev, const char *family,
			 const struct ops_case *c, int number)
{
	struct ops_run *runs = malloc(3 * sizeof *runs), *want = runs, *got = runs + 1, *again = runs + 2;
	int bf16 = lk_dev_dtype(dev) != LK_F32, rc; /* inputs are exact in 8 bits: in fp16 too */
	uint64_t seed = p->seed + (uint64_t)number;
	char why[400] = "", text[480];
	double worst = 0;

	if (!runs) {
		failed(p, lk_dev_name(dev), family, c, number, "out of memory");
		return;
	}
	memset(runs, 0, 3 * sizeof *runs);
	rc = run_case(want, ref, c, seed, bf16, why, sizeof why);
	if (!rc)
		rc = run_case(got, dev, c, seed, bf16, why, sizeof why);
	if (!rc)
		rc = ops_compare(want, got, c, &worst, why, sizeof why);
	if (!rc)
		rc = run_case(again, dev, c, seed, bf16, why, sizeof why);
	if (!rc)
		rc = same_bits(got, again, why, sizeof why);
	if (rc == LK_EUNSUP) {
		p->skipped++;
		report(p, lk_dev_name(dev), family, c, number, "skip", why);
	} else if (rc) {
		snprintf(text, sizeof text, "%s%s%s", why, c->why ? "; the bound: " : "", c->why ? c->why : "");
		failed(p, lk_dev_name(dev), family, c, number, text);
	} else {
		p->passed++;
		snprintf(text, sizeof text, "error %.2g of %.2g", worst, bf16 ? c->tol16 : c->tol32);
		report(p, lk_dev_name(dev), family, c, number, "ok", text);
	}
	for (int i = 0; i < 3; i++)
		ops_release(&runs[i]);
	free(runs);
}

static void grad_case(struct plan *p, struct lk_dev *ref, const char *family, const struct ops_case *c, int number)
{
	char why[400] = "", text[64];
	double worst = 0;

	if (ops_check_grad(ref, c, p->seed + (uint64_t)number, &worst, why, sizeof why)) {
		failed(p, "ref", family, c, number, why);
		return;
	}
	p->passed++;
	snprintf(text, sizeof text, "error %.2g of %.2g", worst, c->tol32);
	report(p, "ref", family, c, number, "ok", text);
}

static void bad_case(struct plan *p, struct lk_dev *dev, const char *family, const struct ops_case *c, int number)
{
	struct ops_run *r = malloc(sizeof *r);
	char text[400];
	int rc;

	if (!r) {
		failed(p, lk_dev_name(dev), family, c, number, "out of memory");
		return;
	}
	ops_start(r, dev, p->seed + (uint64_t)number, 0);
	rc = c->run(r, c->arg);
	if (rc == LK_EINVAL && !r->why[0] && strlen(lk_dev_error(dev)) > 8) {
		p->passed++;
		report(p, lk_dev_name(dev), family, c, number, "ok", lk_dev_error(dev));
	} else {
		snprintf(text, sizeof text, "a wrong call returned %d (%s)", rc, r->why[0] ? r->why : lk_dev_error(dev));
		failed(p, lk_dev_name(dev), family, c, number, text);
	}
	ops_release(r);
	free(r);
}

/* Of a device without images and generation: nothing is said of the cases that it has no ops for. */
static int offered(const struct lk_dev *dev, const char *family)
{
	return lk_dev_dtype(dev) != LK_F16 || (strcmp(family, "image") != 0 && strcmp(family, "feature") != 0 && strcmp(family, "gen") != 0);
}

static int wanted(const struct plan *p, const struct ops_case *c, const char *family, int number)
{
	if (p->number >= 0 && p->number != number)
		return 0;
	if (p->grad && c->kind != OPS_GRAD)
		return 0;
	if (p->every > 1 && number % p->every)
		return 0;
	return !p->only || strstr(c->name, p->only) || strcmp(family, p->only) == 0;
}

/* All cases on one device. dev == ref: the gradients and the wrong calls. */
static void run_device(struct plan *p, struct lk_dev *ref, struct lk_dev *dev)
{
	int number = 0;

	for (int f = 0; f < FAMILIES; f++) {
		for (int i = 0; i < families[f]->n; i++, number++) {
			const struct ops_case *c = &families[f]->cases[i];

			if (!wanted(p, c, families[f]->name, number) || !offered(dev, families[f]->name))
				continue;
			if (p->seconds && time(NULL) - p->start >= p->seconds) {
				p->late++;
				continue;
			}
			if (c->kind == OPS_BAD)
				bad_case(p, dev, families[f]->name, c, number);
			else if (c->kind == OPS_GRAD && dev == ref)
				grad_case(p, ref, families[f]->name, c, number);
			else if (c->kind == OPS_CMP && dev != ref)
				compare_case(p, ref, dev, families[f]->name, c, number);
		}
	}
}

static void open_and_run(struct plan *p, struct lk_dev *ref, const char *spec, const char *isa)
{
	struct lk_dev *dev;
	char why[256];
	int failed_before = p->failed, passed_before = p->passed;

	if (isa)
		setenv("LWM_ISA", isa, 1);
	if (lk_dev_open(&dev, spec, p->threads, why, sizeof why)) {
		printf("skip %s%s%s: %s\n", spec, isa ? " " : "", isa ? isa : "", why);
		p->skipped++;
		return;
	}
	run_device(p, ref, dev);
	printf("%s: %d passed, %d failed\n", lk_dev_name(dev), p->passed - passed_before, p->failed - failed_before);
	if (*lk_dev_warning(dev))
		printf("warning: %s\n", lk_dev_warning(dev));
	lk_dev_close(dev);
}

static void run_groups(struct plan *p)
{
	struct ops_tally t = { 0, 0, 0 };

	if (p->number >= 0 || p->every > 1 || (p->only && strcmp(p->only, "group") != 0))
		return;
	ops_groups(&t, p->verbose);
	printf("groups of GPUs: %d passed, %d failed\n", t.passed, t.failed);
	p->passed += t.passed;
	p->failed += t.failed;
	p->skipped += t.skipped;
}

/* The devices that are held against ref where none is named. */
static const char *const devices[] = { "cpu", "cpu-fp16", "cuda:0" };

/* cpu with each instruction set that this processor has, or with the one that LWM_ISA names. */
static void run_cpu(struct plan *p, struct lk_dev *ref)
{
	static const char *const isas[] = { "base", "avx2", "avx512" };

	if (getenv("LWM_ISA")) {
		open_and_run(p, ref, "cpu", NULL);
		return;
	}
	for (size_t i = 0; i < sizeof isas / sizeof *isas; i++)
		open_and_run(p, ref, "cpu", isas[i]);
}

static void run_all(struct plan *p, struct lk_dev *ref)
{
	if (!p->device || strcmp(p->device, "ref") == 0) {
		run_device(p, ref, ref);
		printf("ref, gradients and wrong calls: %d passed, %d failed\n", p->passed, p->failed);
	}
	if (p->grad)
		return;
	for (size_t i = 0; i < (p->device ? 1 : sizeof devices / sizeof *devices); i++) {
		const char *spec = p->device ? p->device : devices[i];

		if (strcmp(spec, "cpu") == 0)
			run_cpu(p, ref);
		else if (strcmp(spec, "ref") != 0)
			open_and_run(p, ref, spec, NULL);
	}
	if (!p->device || strncmp(p->device, "cuda", 4) == 0)
		run_groups(p);
}

static void list_cases(void)
{
	static const char *const kinds[] = { "compare", "gradient", "wrong call" };
	int number = 0;

	for (int f = 0; f < FAMILIES; f++)
		for (int i = 0; i < families[f]->n; i++, number++)
			printf("%3d %-10s %s/%s\n", number, kinds[families[f]->cases[i].kind], families[f]->name,
			       families[f]->cases[i].name);
}

static int usage(FILE *f)
{
	fprintf(f, "usage: lwm-kernel-ops [ref|cpu|cuda[:N]] [--grad] [--case NUMBER|TEXT] [--every N] [--seconds N]\n"
		   "                      [--seed N] [--threads N] [--list] [-v]\n"
		   "Holds the kernels of a device against plain reference loops.\n");
	return f == stdout ? 0 : 64;
}

/* Reads a whole number of at most 9 digits; -1 if it is none. */
static long number_of(const char *s)
{
	long n = 0;

	if (!*s || strlen(s) > 9)
		return -1;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return -1;
		n = n * 10 + (*s - '0');
	}
	return n;
}

/* 0: continue, else the exit status */
static int parse(struct plan *p, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (strcmp(a, "--grad") == 0) {
			p->grad = 1;
		} else if (strcmp(a, "--list") == 0) {
			p->list = 1;
		} else if (strcmp(a, "-v") == 0) {
			p->verbose = 1;
		} else if (strcmp(a, "--case") == 0 && value) {
			p->number = (int)number_of(value);
			p->only = p->number < 0 ? value : NULL;
			i++;
		} else if (strcmp(a, "--seed") == 0 && value && number_of(value) >= 0) {
			p->seed = (unsigned long long)number_of(value);
			i++;
		} else if (strcmp(a, "--every") == 0 && value && number_of(value) >= 1) {
			p->every = number_of(value);
			i++;
		} else if (strcmp(a, "--seconds") == 0 && value && number_of(value) >= 1) {
			p->seconds = number_of(value);
			i++;
		} else if (strcmp(a, "--threads") == 0 && value && number_of(value) >= 1 && number_of(value) <= 1024) {
			p->threads = (int)number_of(value);
			i++;
		} else if (*a != '-') {
			p->device = a;
		} else {
			return usage(stderr);
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct plan p = { .seed = 20, .number = -1, .threads = 3, .start = time(NULL) };
	struct lk_dev *ref;
	char why[256];
	int rc;

	if (argc == 2 && strcmp(argv[1], "--help") == 0)
		return usage(stdout);
	rc = parse(&p, argc, argv);
	if (rc)
		return rc;
	if (p.list) {
		list_cases();
		return 0;
	}
	if (lk_dev_open(&ref, "ref", 0, why, sizeof why)) {
		fprintf(stderr, "lwm-kernel-ops: %s\n", why);
		return 69;
	}
	printf("seed %llu\n", p.seed);
	run_all(&p, ref);
	lk_dev_close(ref);
	if (p.late)
		printf("%d cases not begun in %ld seconds\n", p.late, p.seconds);
	printf("%d passed, %d failed, %d skipped\n", p.passed, p.failed, p.skipped);
	return p.failed || !p.passed ? 1 : 0;
}
