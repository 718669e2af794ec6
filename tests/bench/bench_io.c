/* bench_io.c - checkpoints, models and shards: saving, checking, merging beside plain copying of the same bytes,
 * random rows.
 *
 *	bench_io [MIB [SHARD_MIB]]
 *
 * MIB of fp32 values (512) and a shard of SHARD_MIB (64) of tokens, in the folder TMPDIR, else in /dev/shm where there is
 * one: what the code costs, not the disk. rows_cold opens the shard and reads one row that no cache holds any more.
 * save_of_cp_sync and save_of_cp_sync_read: copying the parts and syncing them, and reading them back from the disk too, beside
 * ckpt_save, which does all three and compares. verify_of_cat: cat to /dev/null beside ckpt_verify, of the same warm files.
 * of_cat: processor time of copying the checkpoint in pieces of 128 KiB (as cat does) over that of merging it to fp32.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/base/path.h"
#include "common/base/rng.h"
#include "common/io/merge.h"
#include "common/io/rowshard.h"
#include "tests/bench/bench.h"
#include "tests/unit/tensor_table.h"

enum { RANKS = 4, TENSORS = 16, SEQ = 4096, PICKS = 2000 };

static struct {
	char dir[256], step[300], model[300], rows[300], copy[300];
	int64_t nrows, pick;
	char name[TENSORS][64];
	struct lwm_tensor tensor[TENSORS];
	int64_t side; /* tensors are side x side */
	float *values;
	enum lwm_st_dtype dtype;
	bool read_back;
	struct lwm_ckpt *c;
	struct lwm_rows_reader *r;
	struct lwm_err e;
} b;

static int failed(int rc)
{
	if (rc < 0)
		fprintf(stderr, "bench_io: %s\n", b.e.msg);
	return rc < 0;
}

static int save(void *arg)
{
	struct lwm_ckpt_part part[RANKS];
	int rc = 0;
	(void)arg;
	struct lwm_ckpt_slice all[RANKS * TENSORS];
	for (int r = 0; rc == 0 && r < RANKS; r++) {
		struct lwm_ckpt_slice *s = all + r * TENSORS;
		int64_t n = b.side * b.side, w = b.side / RANKS;
		for (int i = 0; i < TENSORS; i++) /* every fourth one cut by columns */
			s[i] = i % 4 ? (struct lwm_ckpt_slice){ i, n / RANKS * r, n / RANKS, 1, 0, { b.values } }
				     : (struct lwm_ckpt_slice){ i, w * r, w, b.side, b.side, { b.values } };
		struct lwm_ckpt_out o = { b.step, r, TABLE(b.tensor, TENSORS), s, TENSORS, 1, NULL, NULL, NULL };
		rc = lwm_ckpt_write_part(&o, &part[r], &b.e);
	}
	json_t *config = json_pack("{s:{s:i,s:i}}", "model", "hidden_size", 1024, "num_attention_heads", 8);
	struct lwm_ckpt_meta m = { "lwm", 1, "1,1,4,1", RANKS, config, NULL, "", "", 1 };
	if (rc == 0)
		rc = lwm_ckpt_commit(b.step, &m, TABLE(b.tensor, TENSORS), part, RANKS, all, &b.e);
	json_decref(config);
	return failed(rc);
}

static int verify(void *arg)
{
	(void)arg;
	return failed(lwm_ckpt_verify(b.step, LWM_CKPT_FULL, &b.e));
}

static int merge(void *arg)
{
	struct lwm_model_spec spec = { .dtype = b.dtype };
	(void)arg;
	return failed(lwm_merge_model(b.c, LWM_CKPT_PARAMS, false, b.model, &spec, true, NULL, &b.e));
}

static int copy_file(const char *from, int out)
{
	static char buf[128 << 10];
	ssize_t n = -1;
	int in = open(from, O_RDONLY);
	while (in >= 0 && (n = read(in, buf, sizeof buf)) > 0)
		if (write(out, buf, (size_t)n) != n)
			return -1;
	close(in);
	return n < 0 ? -1 : 0;
}

/* What saving does to the disk, without looking at a byte: written, synced, read back from the disk. */
static int copy_sync_read(void *arg)
{
	static char buf[128 << 10];
	int rc = 0;
	(void)arg;
	for (int r = 0; rc == 0 && r < RANKS; r++) {
		int fd = open(b.copy, O_RDWR | O_CREAT | O_TRUNC, 0666);
		char path[320];
		ssize_t n;
		snprintf(path, sizeof path, "%s/part_%05d.h5", b.step, r);
		rc = fd < 0 ? -1 : copy_file(path, fd);
		if (rc == 0 && b.read_back) {
			rc = fsync(fd) || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) || lseek(fd, 0, SEEK_SET);
			while (rc == 0 && (n = read(fd, buf, sizeof buf)) != 0)
				rc = n < 0 ? -1 : 0;
		} else if (rc == 0) {
			rc = fsync(fd);
		}
		close(fd);
	}
	return rc;
}

/* All parts, end to end. */
static int cat_to(const char *path, int flags)
{
	int out = open(path, O_WRONLY | flags, 0666), rc = out < 0;
	for (int r = 0; rc == 0 && r < RANKS; r++) {
		char part[320];
		snprintf(part, sizeof part, "%s/part_%05d.h5", b.step, r);
		rc = copy_file(part, out);
	}
	close(out);
	return rc;
}

static int read_parts(void *arg)
{
	(void)arg;
	return cat_to("/dev/null", 0);
}

static int cat(void *arg)
{
	(void)arg;
	return cat_to(b.copy, O_CREAT | O_TRUNC);
}

static int write_rows(void *arg)
{
	struct lwm_rows_meta m = { SEQ, 32000, 8448, "", "bench", "", "per_token" };
	struct lwm_rows_writer *w;
	struct lwm_segment seg[2] = { { 0, SEQ / 2, 0, 1 }, { SEQ / 2, SEQ / 2 - 7, 0, 2 } };
	static int32_t t[SEQ];
	(void)arg;
	if (failed(lwm_rows_create(&w, b.rows, &m, true, &b.e)))
		return 1;
	for (int64_t i = 0; i < b.nrows; i++) {
		for (int k = 0; k < SEQ; k++)
			t[k] = (int32_t)((i * 31 + k) % 40000);
		if (failed(lwm_rows_append(w, t, seg, 2, NULL, 0, &b.e)))
			return 1;
	}
	return failed(lwm_rows_commit(w, &b.e));
}

static int open_rows(void *arg)
{
	(void)arg;
	lwm_rows_close(b.r);
	return failed(lwm_rows_open(&b.r, b.rows, &b.e));
}

static int random_rows(void *arg)
{
	struct lwm_row row = { 0 };
	int rc = 0;
	(void)arg;
	for (int i = 0; rc == 0 && i < PICKS; i++)
		rc = lwm_rows_read(b.r, lwm_rng_permute(1, LWM_RNG_TEST, 0, (uint64_t)b.nrows, (uint64_t)i), &row, &b.e);
	lwm_row_release(&row);
	return failed(rc);
}

static int cold_row(void *arg)
{
	struct lwm_row row = { 0 };
	int rc = open_rows(arg);
	if (rc == 0)
		rc = failed(lwm_rows_read(b.r, (int64_t)lwm_rng_permute(2, LWM_RNG_TEST, 0, (uint64_t)b.nrows, (uint64_t)b.pick++),
					  &row, &b.e));
	lwm_row_release(&row);
	return rc;
}

/* Milliseconds of each of `runs` first reads after the system forgot the file; the best of them. */
static double cold(int runs)
{
	double best = -1;
	for (int i = 0; i < runs; i++) {
		int fd = open(b.rows, O_RDONLY);
		bool forgot = fd >= 0 && fdatasync(fd) == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0;
		close(fd);
		double start = bench_clock(CLOCK_MONOTONIC);
		if (!forgot || cold_row(NULL))
			return -1;
		double s = bench_clock(CLOCK_MONOTONIC) - start;
		best = best < 0 || s < best ? s : best;
	}
	return 1e3 * best;
}

/* A large shard is written once. */
static int bench_rows(void)
{
	double mb = (double)SEQ * (double)b.nrows * 2e-6, start = bench_clock(CLOCK_MONOTONIC);
	struct bench_time t;
	int bad = write_rows(NULL);
	if (!bad)
		printf("op=rows_write threads=1 ms=%.3f MBs=%.1f\n", 1e3 * (bench_clock(CLOCK_MONOTONIC) - start),
		       mb / (bench_clock(CLOCK_MONOTONIC) - start));
	double ms = bad ? -1 : cold(5);
	printf("op=rows_cold threads=1 ms=%.3f MB=%.1f\n", ms, mb);
	t = bench_run(open_rows, NULL, 5);
	bad += ms < 0 || bench_row("rows_open", 1, t, "MB", mb);
	t = bench_run(random_rows, NULL, 5);
	return bad + bench_row("rows_random", 1, t, "us_each", 1e6 * t.best / PICKS);
}

static void prepare(int64_t mib, int64_t shard_mib)
{
	const char *tmp = getenv("TMPDIR");

	static const char *const names[4] = { "o_proj", "up_proj", "q_proj", "k_proj" };
	snprintf(b.dir, sizeof b.dir, "%s/lwm_bench_XXXXXX", tmp ? tmp : access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	b.nrows = (shard_mib << 20) / (SEQ * 2);
	if (!mkdtemp(b.dir))
		exit(1);
	snprintf(b.step, sizeof b.step, "%s/step_00000001", b.dir);
	snprintf(b.model, sizeof b.model, "%s/model", b.dir);
	snprintf(b.rows, sizeof b.rows, "%s/rows.h5", b.dir);
	snprintf(b.copy, sizeof b.copy, "%s/copy", b.dir);
	for (b.side = 1024; b.side * b.side * 4 * TENSORS < mib << 20; b.side += 512)
		;
	for (int i = 0; i < TENSORS; i++) {
		snprintf(b.name[i], sizeof b.name[i], "model.layers.%d.self_attn.%s.weight", i / 4, names[i % 4]);
		b.tensor[i] = (struct lwm_tensor){ .name = b.name[i], .ndim = 2, .shape = { b.side, b.side } };
	}
	b.values = malloc((size_t)(b.side * b.side) * sizeof *b.values);
	for (int64_t i = 0; b.values && i < b.side * b.side; i++)
		b.values[i] = (float)(i * 2654435761 % 1000003) * 1e-3f;
}

int main(int argc, char **argv)
{
	int64_t mib = argc > 1 ? strtol(argv[1], NULL, 10) : 512;
	int64_t shard_mib = argc > 2 ? strtol(argv[2], NULL, 10) : 64;
	int bad = 0;
	prepare(mib, shard_mib < 1 ? 1 : shard_mib);
	double bytes = (double)(b.side * b.side) * 4 * TENSORS;
	struct bench_time t = bench_run(save, NULL, 3), c;
	bad += bench_row("ckpt_save", 1, t, "MBs", bytes / t.best * 1e-6);
	for (int i = 0; i < 2; i++) {
		b.read_back = i;
		c = bench_run(copy_sync_read, NULL, 3);
		bad += bench_row(i ? "save_of_cp_sync_read" : "save_of_cp_sync", 1, c, "percent", 100 * c.best / t.best);
	}
	unlink(b.copy);
	t = bench_run(verify, NULL, 5);
	bad += bench_row("ckpt_verify", 1, t, "MBs", bytes / t.best * 1e-6);
	c = bench_run(read_parts, NULL, 5);
	bad += bench_row("verify_of_cat", 1, c, "percent", 100 * c.best / t.best);
	bad += failed(lwm_ckpt_open(&b.c, b.step, &b.e));
	c = bench_run(cat, NULL, 5);
	bad += bench_row("ckpt_cat", 1, c, "MBs", bytes / c.best * 1e-6);
	unlink(b.copy);
	b.dtype = LWM_ST_F32;
	t = bench_run(merge, NULL, 5);
	bad += bench_row("merge_fp32", 1, t, "of_cat_percent", 100 * c.cpu / t.cpu);
	b.dtype = LWM_ST_BF16;
	t = bench_run(merge, NULL, 5);
	bad += bench_row("merge_bf16", 1, t, "of_cat_percent", 100 * c.cpu / t.cpu);
	bad += bench_rows();
	lwm_rows_close(b.r);
	lwm_ckpt_close(b.c);
	free(b.values);
	lwm_remove_tree(b.dir, NULL);
	return bad != 0;
}
