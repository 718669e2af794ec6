/* main.c - measures a GPU's kernels and the models on them, against ceilings of the same run.
 *
 *	bench_gpu [DEVICE] [--dry] [--only PART,PART] [--seconds S] [--json FILE] [--probe]
 *
 * DEVICE: cuda:0. Needs kernels/, the models of common/model, libc and the backend's library: no MPI, HDF5, YAML or other library.
 * --probe: only opens the device. Exit: 0 also where there is no GPU (a line says so), 1 when the backend cannot be loaded
 * or a call failed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/cuda/bench_gpu.h"

static const struct {
	const char *name;
	void (*run)(struct gpu_bench *b);
} parts[] = {
	{ "attention", gpu_part_attention }, { "packed", gpu_part_packed }, { "memory", gpu_part_memory },
	{ "images", gpu_part_images },       { "train", gpu_part_train },   { "decode", gpu_part_decode },
};
enum { PARTS = sizeof parts / sizeof *parts };

static int usage(FILE *f)
{
	fprintf(f, "usage: bench_gpu [cuda[:N]|cpu] [--dry] [--only PART,PART] [--seconds S] [--json FILE]\nparts:");
	for (int i = 0; i < PARTS; i++)
		fprintf(f, " %s", parts[i].name);
	fprintf(f, "\n");
	return f == stdout ? 0 : 64;
}

/* Is name one of the comma-separated words? */
static bool listed(const char *list, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = list; p && *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
		if (strncmp(p, name, n) == 0 && (p[n] == 0 || p[n] == ','))
			return true;
	return false;
}

static void run_parts(struct gpu_bench *b, const char *only)
{
	double start = gpu_clock();

	gpu_part_ceilings(b);
	gpu_release(b);
	for (int i = 0; i < PARTS; i++) {
		if (only && !listed(only, parts[i].name))
			continue;
		parts[i].run(b);
		lk_sync(b->dev); // whatever a failed part left in the queue ends before its memory goes
		gpu_release(b);
		printf("# %s done after %.1f s\n", parts[i].name, gpu_clock() - start);
	}
}

int main(int argc, char **argv)
{
	struct gpu_bench *b = calloc(1, sizeof *b);
	const char *device = "cuda:0", *only = NULL, *json = NULL;
	char why[256];
	int failed, probe = 0, rc;

	if (!b)
		return 71;
	b->seconds = 0.25;
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (strcmp(argv[i], "--help") == 0)
			return usage(stdout);
		if (strcmp(argv[i], "--dry") == 0)
			b->dry = true;
		else if (strcmp(argv[i], "--probe") == 0)
			probe = 1;
		else if (strcmp(argv[i], "--only") == 0 && value)
			only = argv[++i];
		else if (strcmp(argv[i], "--json") == 0 && value)
			json = argv[++i];
		else if (strcmp(argv[i], "--seconds") == 0 && value)
			b->seconds = strtod(argv[++i], NULL);
		else if (argv[i][0] != '-')
			device = argv[i];
		else
			return usage(stderr);
	}
	rc = lk_dev_open(&b->dev, device, b->dry, why, sizeof why);
	if (rc || probe) {
		printf("%s%s\n", rc ? "skipped: " : "", rc ? why : lk_dev_name(b->dev));
		return rc != 0 && rc != LK_EDEVICE;
	}
	b->act = lk_dev_dtype(b->dev);
	if (b->dry)
		b->seconds = 0;
	printf("# %s%s\n", lk_dev_name(b->dev), b->dry ? ", sizes of a dry run: its figures mean nothing" : "");
	gpu_heading();
	run_parts(b, only);
	failed = (int)b->failures;
	printf("%d rows, %d failed\n", b->rows, failed);
	if (json && gpu_json(b, json)) {
		perror(json);
		failed = 1;
	}
	lk_dev_close(b->dev);
	free(b);
	return failed ? 1 : 0;
}
