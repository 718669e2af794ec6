/* bench_data.c - tokenizing held against spm_encode on the same text, and packing.
 *
 *	bench_data [MEGABYTES [TOKENS]]
 *
 * The text (16 MB) has 60,000 different made-up words, as often as words of a language are (Zipf); the model is
 * trained on a part of it. spm_encode reads the same file line by line, as ours is read, so the ids are the same;
 * of_spm_encode is the ratio of processor times. Packing: TOKENS (64M) tokens in documents of 20 to 400 tokens to
 * rows of 8192, and a quarter of them in documents of 14, from shard to shard in the folder TMPDIR, checksums, syncs and reading
 * back included. MEGABYTES 0: packing alone.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/outfile.h"
#include "common/base/path.h"
#include "common/base/rng.h"
#include "common/data/ingest/ingest.h"
#include "common/data/pack/pack.h"
#include "common/io/docshard.h"
#include "common/text/tokenizer.h"
#include "tests/bench/bench.h"

static struct lwm_err err;
static char dir[256];

static void must(int rc)
{
	if (rc < 0) {
		fprintf(stderr, "bench_data: %s\n", err.msg);
		lwm_remove_tree(dir, NULL);
		exit(1);
	}
}

static const char *in_dir(const char *name)
{
	static char path[4][512];
	static int next;
	char *p = path[next++ % 4];
	snprintf(p, sizeof path[0], "%s/%s", dir, name);
	return p;
}

struct text {
	struct lwm_tokenizer *t;
	char **line;
	size_t *len;
	int64_t n, bytes;
	int threads;
};

static int encode_lines(void *arg)
{
	const struct text *x = arg;
	int failed = 0;
#pragma omp parallel num_threads(x->threads)
	{
		struct lwm_ids ids = { 0 };
#pragma omp for schedule(dynamic, 256) reduction(+ : failed)
		for (int64_t i = 0; i < x->n; i++) {
			ids.n = 0;
			failed += lwm_tokenizer_encode(x->t, x->line[i], x->len[i], &ids, NULL) < 0;
		}
		lwm_ids_release(&ids);
	}
	return failed;
}

/* Word number k, of one to four syllables: always the same letters. */
static void add_word(int64_t k, struct lwm_str *out)
{
	struct lwm_rng r = lwm_rng_at(1, LWM_RNG_TEST, 1, (uint64_t)k);
	for (int64_t n = 1 + lwm_rng_below(&r, 3) + (k > 1000); n > 0; n--) {
		lwm_str_putc(out, "bcdfghklmnprstvw"[lwm_rng_below(&r, 16)]);
		lwm_str_putc(out, "aeiou"[lwm_rng_below(&r, 5)]);
		if (lwm_rng_below(&r, 3) == 0)
			lwm_str_putc(out, "nrstl"[lwm_rng_below(&r, 5)]);
	}
}

static void add_line(uint64_t i, struct lwm_str *out)
{
	struct lwm_rng r = lwm_rng_at(1, LWM_RNG_TEST, 2, i);
	for (int k = 0; k < 12; k++) {
		if (k)
			lwm_str_putc(out, ' ');
		add_word((int64_t)exp(lwm_rng_double(&r) * log(60000.0)) - 1, out); /* density 1/k */
	}
	lwm_str_puts(out, ".\n");
}

static void make_text(int64_t megabytes, struct lwm_str *all)
{
	for (uint64_t i = 0; (int64_t)all->len < megabytes << 20; i++)
		add_line(i, all);
	must(lwm_str_ok(all, &err));
	must(lwm_write_file(in_dir("text.txt"), all->s, all->len, true, &err));
	size_t part = all->len < 1 << 20 ? all->len : 1 << 20;
	must(lwm_write_file(in_dir("part.txt"), all->s, part, true, &err));
}

static void split_lines(struct lwm_str *all, struct text *x)
{
	for (size_t i = 0; i < all->len; i++)
		x->n += all->s[i] == '\n';
	x->line = malloc((size_t)x->n * sizeof *x->line);
	x->len = malloc((size_t)x->n * sizeof *x->len);
	if (!x->line || !x->len)
		must(lwm_fail(&err, LWM_EMEMORY, "out of memory"));
	char *s = all->s;
	for (int64_t i = 0; i < x->n; i++) {
		char *end = strchr(s, '\n');
		x->line[i] = s;
		x->len[i] = (size_t)(end - s);
		s = end + 1;
	}
	x->bytes = (int64_t)all->len;
}

static double used(const struct rusage *r)
{
	return (double)(r->ru_utime.tv_sec + r->ru_stime.tv_sec) +
	       1e-6 * (double)(r->ru_utime.tv_usec + r->ru_stime.tv_usec);
}

/* CPU seconds of spm_encode on the file, its start and model reading included; negative when it does not exist. */
static double spm_encode(void)
{
	char model[600];
	struct rusage before, after;
	int status;
	snprintf(model, sizeof model, "--model=%s", in_dir("m.model"));
	getrusage(RUSAGE_CHILDREN, &before);
	pid_t p = fork();
	if (p == 0) {
		int in = open(in_dir("text.txt"), O_RDONLY), null = open("/dev/null", O_RDWR);
		dup2(in, 0);
		dup2(null, 1);
		dup2(null, 2);
		execlp("spm_encode", "spm_encode", model, "--output_format=id", (char *)NULL);
		_exit(127);
	}
	if (p < 0 || waitpid(p, &status, 0) != p || !WIFEXITED(status) || WEXITSTATUS(status))
		return -1;
	getrusage(RUSAGE_CHILDREN, &after);
	return used(&after) - used(&before);
}

/* Files of text to shards, a document a line: what lwm-tokenize does after its start. */
struct ingesting {
	struct lwm_ingest_cfg cfg;
	struct lwm_paths in, out;
	int64_t bytes;
};

static int ingest(void *arg)
{
	struct ingesting *x = arg;
	struct lwm_ingest_stats st;
	int rc = lwm_ingest_run(&x->cfg, &x->in, &x->out, &st, &err);
	x->bytes = st.bytes;
	return rc;
}

static int bench_ingest(struct lwm_tokenizer *t, const struct lwm_str *all)
{
	enum { FILES = 4 };
	static const char *const text[] = { "text" };
	const struct lwm_fields_cfg how = { .fields = text, .nfields = 1, .index = -1 };
	struct ingesting x = { .cfg = { .tokenizer = t, .split_lines = 1, .force = true, .tool = "bench",
					.config = "{}", .policy = "bos,eos" } };
	struct lwm_fields *f;
	int most = omp_get_max_threads(), rc = 0;
	must(lwm_fields_open(&f, &how, t, &err));
	x.cfg.fields = f;
	for (int i = 0; i < FILES; i++) {
		char name[32];
		snprintf(name, sizeof name, "part%d.txt", i);
		must(lwm_write_file(in_dir(name), all->s, all->len / FILES, true, &err));
		must(lwm_paths_add(&x.in, in_dir(name), &err));
	}
	must(lwm_ingest_names(&x.in, dir, &x.out, &err));
	for (x.cfg.threads = 1; x.cfg.threads <= most; x.cfg.threads = x.cfg.threads == most ? most + 1 : most) {
		struct bench_time b = bench_run(ingest, &x, 3);
		rc |= bench_row("tokenize_files", x.cfg.threads, b, "MBs", (double)x.bytes / b.best * 1e-6);
	}
	lwm_paths_release(&x.in);
	lwm_paths_release(&x.out);
	lwm_fields_free(f);
	return rc;
}

static int bench_text(int64_t megabytes)
{
	struct lwm_str all = { 0 };
	struct text x = { 0 };
	const char *inputs[1];
	int most = omp_get_max_threads(), rc = 0;
	make_text(megabytes, &all);
	inputs[0] = in_dir("part.txt");
	struct lwm_tokenizer_train_cfg how = { .inputs = inputs, .ninputs = 1, .vocab = 2000 };
	must(lwm_tokenizer_train(&how, in_dir("m.model"), true, &err));
	must(lwm_tokenizer_open(&x.t, in_dir("m.model"), &err));
	split_lines(&all, &x);
	double spm = spm_encode();
	if (spm > 0)
		printf("op=spm_encode threads=1 cpu_ms=%.3f MBs=%.1f\n", 1e3 * spm, (double)x.bytes / spm * 1e-6);
	else
		printf("op=spm_encode skipped=not_installed\n");
	for (x.threads = 1; x.threads <= most; x.threads = x.threads == most ? most + 1 : most) {
		struct bench_time t = bench_run(encode_lines, &x, 5);
		rc |= bench_row("tokenize", x.threads, t, "MBs", (double)x.bytes / t.best * 1e-6);
		if (x.threads == 1 && spm > 0 && t.cpu > 0)
			printf("op=tokenize_ratio threads=1 of_spm_encode=%.2f\n", spm / t.cpu);
	}
	rc |= bench_ingest(x.t, &all);
	lwm_tokenizer_free(x.t);
	free(x.line);
	free(x.len);
	lwm_str_release(&all);
	return rc;
}

static void make_docs(int64_t tokens, int64_t least, int64_t most)
{
	const struct lwm_docs_meta meta = { .vocab_text = 32000, .tokenizer = "", .tool = "bench", .config = "",
					    .policy = "none" };
	struct lwm_docs_writer *w;
	int32_t tok[400];
	must(lwm_docs_create(&w, in_dir("docs.h5"), &meta, true, &err));
	for (int64_t n = 0, i = 0; n < tokens; i++) {
		struct lwm_rng r = lwm_rng_at(1, LWM_RNG_TEST, 0, (uint64_t)i);
		int64_t len = least + lwm_rng_below(&r, most - least + 1);
		for (int64_t k = 0; k < len; k++)
			tok[k] = (int32_t)((i + k * 7) % 32000);
		must(lwm_docs_append(w, "d", NULL, tok, len, NULL, 0, &err));
		n += len;
	}
	must(lwm_docs_commit(w, &err));
}

struct packing {
	struct lwm_pack_cfg cfg;
	struct lwm_pack_stats st;
};

static int pack_all(void *arg)
{
	struct packing *p = arg;
	return lwm_pack_run(&p->cfg, &p->st, NULL, &err);
}

static int bench_pack(const char *op, int64_t tokens, int64_t least, int64_t most)
{
	struct stat file = { 0 };
	struct lwm_pack_source src = { .name = "docs" };
	struct packing p = { .cfg = { .source = &src, .nsources = 1, .seq_length = 8192, .shuffle = true, .force = true,
				      .output = in_dir("rows.h5"), .tool = "bench" } };
	make_docs(tokens, least, most);
	must(lwm_paths_add(&src.shards, in_dir("docs.h5"), &err));
	struct bench_time t = bench_run(pack_all, &p, 3);
	int rc = bench_row(op, 1, t, "Mtoks", (double)p.st.tokens_out / t.best * 1e-6);
	stat(in_dir("rows.h5"), &file);
	printf("op=%s_fill fill=%.5f documents=%" PRId64 " rows=%" PRId64 " Mtoks_cpu=%.1f bytes_per_token=%.2f\n", op, p.st.fill,
	       p.st.docs_used, p.st.rows, (double)p.st.tokens_out / t.cpu * 1e-6, (double)file.st_size / (double)p.st.tokens_out);
	lwm_paths_release(&src.shards);
	return rc;
}

int main(int argc, char **argv)
{
	int64_t megabytes = argc > 1 ? strtoll(argv[1], NULL, 10) : 16;
	int64_t tokens = argc > 2 ? strtoll(argv[2], NULL, 10) : 64 << 20;
	const char *tmp = getenv("TMPDIR");
	snprintf(dir, sizeof dir, "%s/lwm-bench-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(dir)) {
		perror(dir);
		return 1;
	}
	int rc = megabytes ? bench_text(megabytes) : 0;
	rc |= bench_pack("pack", tokens, 20, 400) | bench_pack("pack_short", tokens / 4, 14, 14);
	lwm_remove_tree(dir, NULL);
	return rc;
}
