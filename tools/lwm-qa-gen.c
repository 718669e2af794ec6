/* lwm-qa-gen - questions and answers about long documents, written by a short-context model.
 *
 * One shard for each input. A document of the input is a unit of its shard: finished ones are kept whatever ends the run, and taken
 * over by the next. How a document is cut, asked about and put together is common/eval/qa.h. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/progress.h"
#include "common/base/stop.h"
#include "common/cli/opt.h"
#include "common/comm/device.h"
#include "common/eval/qa.h"
#include "common/infer/load.h"
#include "common/text/tokenizer.h"

enum {
	MARKS = 32, /* tokens around a pair at most: <s>, " USER: ", " ASSISTANT:", </s> */
	SAVE_SECONDS = 600 /* between two times that finished documents are put aside */
};

static struct {
	const char *model, *tokenizer, *device, *out_dir;
	int64_t chunk, target, min_pairs, answer, prefill, batch, task, tasks, top_k;
	double temperature, top_p;
	bool older_ok;
} o = { .device = "auto", .chunk = 1000, .target = 32768, .min_pairs = 1, .answer = 128, .prefill = 2048, .batch = 8, .tasks = 1,
	.temperature = 0.7, .top_p = 1 };

static const struct lwm_opt opts[] = {
	LWM_OPT_STR('m', "model", &o.model, "DIR", "merged model or checkpoint that writes the pairs", LWM_OPT_REQUIRED),
	LWM_OPT_OLDER(&o.older_ok),
	LWM_OPT_STR('d', "out-dir", &o.out_dir, "DIR", "one shard for each input: DIR/NAME.qa.h5", LWM_OPT_REQUIRED),
	LWM_OPT_MODEL_TOKENIZER('t', &o.tokenizer),
	LWM_OPT_DEVICE(&o.device),
	LWM_OPT_TASKS(&o.task, &o.tasks),
	LWM_OPT_HEAD("Documents"),
	LWM_OPT_INT(0, "chunk-tokens", &o.chunk, 16, 1 << 20, "N", "tokens that a pair is written about", 0),
	LWM_OPT_INT(0, "target-tokens", &o.target, 32, 1 << 30, "N", "length of a finished document at most", 0),
	LWM_OPT_INT(0, "min-pairs", &o.min_pairs, 1, 1 << 20, "N", "documents with fewer pairs are left out", 0),
	LWM_OPT_HEAD("Writing"),
	LWM_OPT_INT(0, "answer-tokens", &o.answer, 4, 1 << 20, "N", "most tokens of a question with its answer", 0),
	LWM_OPT_DOUBLE(0, "temperature", &o.temperature, 0, 100, "X", "0: always the likeliest token", 0),
	LWM_OPT_INT(0, "top-k", &o.top_k, 0, 1 << 24, "N", "draw from the N likeliest; 0: all", 0),
	LWM_OPT_DOUBLE(0, "top-p", &o.top_p, 0.01, 1, "X", "draw from the likeliest that make up X", 0),
	LWM_OPT_INT(0, "batch", &o.batch, 1, 4096, "N", "chunks that are asked about side by side; --plan says what memory that takes", 0),
	LWM_OPT_PREFILL(&o.prefill),
	LWM_OPT_END,
};

static const struct lwm_tool tool = {
	.name = "lwm-qa-gen",
	.summary = "Cuts long documents into chunks, writes a question and answer for each, appends them as chat.",
	.operands = "SHARD...",
	.min_operands = 1,
	.max_operands = -1,
	.opts = opts,
	.stops = true,
	.details = "Inputs are document shards of lwm-tokenize. Loss stands on answers only. An output that is complete is left alone, one\n"
		   "that was stopped (75) resumes behind its finished documents: a failed or stopped array task is simply run again.\n"
		   "On the CPU --batch changes the speed and not a token; on a GPU, where sums are rounded otherwise, it may choose\n"
		   "between two tokens that are as likely as each other.",
	.examples = "  lwm-qa-gen -m runs/short-model -d qa/ books.docs.h5\n"
		    "  lwm-qa-gen -m model -d qa/ --task $SLURM_ARRAY_TASK_ID --tasks 100 shards/",
};

struct writer {
	struct lk_dev *dev;
	struct lwm_lm model;
	struct lwm_tokenizer *tok;
	struct lwm_engine *gen;
};

static struct lwm_qa way_to_ask(const struct lwm_args *a, struct lwm_engine *g, struct lwm_tokenizer *tok)
{
	return (struct lwm_qa){ .writer = { .g = g, .tok = tok, .most = o.answer,
					    .sampler = { o.temperature, o.top_k, o.top_p, (uint64_t)a->common.seed } },
				.chunk_tokens = o.chunk, .target_tokens = o.target, .min_pairs = o.min_pairs, .batch = o.batch };
}

/* Is the longest prompt, a chunk in the words that ask about it, with its answer more than the model was made for? */
static int warn_length(const struct writer *w, const struct lwm_args *a, struct lwm_err *e)
{
	struct lwm_qa q = way_to_ask(a, NULL, w->tok);
	int64_t longest;
	LWM_TRY(lwm_qa_longest(&q, &longest, e));
	lwm_lm_warn_length(&w->model, longest + o.answer, "--chunk-tokens and --answer-tokens");
	return 0;
}

static int writer_open(struct writer *w, const struct lwm_args *a, struct lwm_err *e)
{
	memset(w, 0, sizeof *w);
	LWM_TRY(lwm_device_open(&w->dev, o.device, a->common.threads, e));
	LWM_TRY(lwm_lm_open_with_tokenizer(&w->model, &w->tok, o.model, o.older_ok, o.tokenizer, w->dev, e));
	LWM_TRY(warn_length(w, a, e));
	return lwm_engine_new(&w->gen, w->dev, &w->model.cfg, w->model.weights, o.prefill, o.batch, e);
}

static void writer_close(struct writer *w)
{
	lwm_engine_free(w->gen);
	lwm_tokenizer_free(w->tok);
	if (w->dev)
		lwm_lm_close(&w->model);
	lk_dev_close(w->dev);
}

static char *output_name(const char *input)
{
	const char *base = lwm_path_base(input);
	size_t n = strlen(base);
	char *name = NULL, *path = NULL;
	if (lwm_path_has_suffix(base, ".docs.h5"))
		n -= 8;
	else if (lwm_path_has_suffix(base, ".h5"))
		n -= 3;
	if (asprintf(&name, "%.*s.qa.h5", (int)n, base) < 0)
		return NULL;
	path = lwm_path_join(o.out_dir, name);
	free(name);
	return path;
}

/* Everything but the input that decides a byte of the output. */
static void settings_text(char *config, size_t size, const struct writer *w, const struct lwm_args *a)
{
	snprintf(config, size,
		 "{\"chunk_tokens\":%" PRId64 ",\"target_tokens\":%" PRId64 ",\"min_pairs\":%" PRId64 ",\"answer_tokens\":%" PRId64
		 ",\"temperature\":%.9g,\"top_k\":%" PRId64 ",\"top_p\":%.9g,\"seed\":%" PRId64 ",\"model\":\"%s\"}",
		 o.chunk, o.target, o.min_pairs, o.answer, o.temperature, o.top_k, o.top_p, a->common.seed, w->model.hash);
}

static int create_shard(struct lwm_docs_writer **out, const char *path, const char *config, const struct writer *w, bool force,
			struct lwm_err *e)
{
	struct lwm_docs_meta m = { .vocab_text = lwm_tokenizer_vocab(w->tok),
				   .vocab_vision = 0,
				   .tokenizer = lwm_tokenizer_hash(w->tok)->hex,
				   .tool = "lwm-qa-gen " LWM_VERSION,
				   .config = config,
				   .policy = "bos,eos" };
	return lwm_docs_create(out, path, &m, force, e);
}

/* Is the shard there, whole, from this input and these settings? 1 yes, 0 it is to be made, negative: another one is. */
static int is_made(const char *path, const char *input, const char *config, bool *replace, struct lwm_err *e)
{
	struct lwm_manifest m, in;
	bool same = false;
	int rc = lwm_manifest_done(path, "docs", &m, replace, e);
	if (rc != 1)
		return rc;
	rc = lwm_manifest_read(&in, input, e);
	if (rc == 0) {
		same = m.ninput == 1 && !strcmp(m.input[0].hash, in.hash) &&
		       !strcmp(m.config_hash, lwm_hash_bytes(config, strlen(config)).hex);
		lwm_manifest_release(&in);
	}
	lwm_manifest_release(&m);
	LWM_TRY(rc);
	return same ? 1 : lwm_fail(e, LWM_ECANTCREATE, "%s: exists, made from another input or settings (use --force to replace it)",
				   path);
}

static void print_stats(const char *path, const struct lwm_qa_stats *s)
{
	struct lwm_str name = { 0 };
	lwm_str_json(&name, lwm_path_base(path), strlen(lwm_path_base(path)));
	printf("{\"output\":%s,\"documents_in\":%" PRId64 ",\"chunks\":%" PRId64 ",\"pairs\":%" PRId64 ",\"unparsed\":%" PRId64
	       ",\"unfinished\":%" PRId64 ",\"documents_out\":%" PRId64 ",\"without_enough_pairs\":%" PRId64 ",\"tokens\":%" PRId64 "}\n",
	       lwm_str_get(&name), s->docs_in, s->chunks, s->pairs, s->unparsed, s->unfinished, s->docs_out, s->docs_short,
	       s->tokens_out);
	lwm_str_release(&name);
}

static void to_counts(const struct lwm_qa_stats *x, int64_t v[LWM_UNIT_STATS])
{
	const int64_t all[LWM_UNIT_STATS] = { x->docs_in,    x->chunks,   x->pairs,      x->unparsed,
					      x->unfinished, x->docs_out, x->docs_short, x->tokens_out };
	memcpy(v, all, sizeof all);
}

static void add_counts(struct lwm_qa_stats *x, const int64_t v[LWM_UNIT_STATS])
{
	x->docs_in += v[0];
	x->chunks += v[1];
	x->pairs += v[2];
	x->unparsed += v[3];
	x->unfinished += v[4];
	x->docs_out += v[5];
	x->docs_short += v[6];
	x->tokens_out += v[7];
}

/* Document i of the input is a unit of the output: taken from an earlier run, or written now, asked about with those after it. */
struct asked {
	struct lwm_qa_said *said;
	int64_t end; /* the documents before it were asked about */
};

static int one_document(const struct lwm_qa *q, struct lwm_docs *d, int64_t i, struct asked *x, struct lwm_docs_writer *out,
			struct lwm_qa_stats *st, struct lwm_err *e)
{
	struct lwm_qa_stats mine = { 0 };
	int64_t v[LWM_UNIT_STATS], n;
	char key[64];
	snprintf(key, sizeof key, "%.32s %" PRId64, lwm_docs_manifest(d)->hash, i);
	int rc = lwm_docs_take(out, key, v, e);
	LWM_TRY(rc);
	if (rc == 0) {
		double start = lwm_now();
		if (i >= x->end) {
			lwm_qa_said_free(x->said);
			x->said = NULL;
			LWM_TRY(lwm_qa_group(q, d, i, &n, e));
			LWM_TRY(lwm_qa_ask(&x->said, q, d, i, n, e));
			x->end = i + n;
			lwm_stop_cost(lwm_now() - start, 0);
		}
		lwm_docs_unit_begin(out);
		LWM_TRY(lwm_qa_put_documents(q, x->said, d, i, out, &mine, e));
		to_counts(&mine, v);
		LWM_TRY(lwm_docs_unit_end(out, key, v, e));
	}
	add_counts(st, v);
	return 0;
}

static int all_documents(const struct lwm_qa *q, struct lwm_docs *d, struct asked *x, struct lwm_docs_writer *out,
			 struct lwm_qa_stats *st, struct lwm_err *e)
{
	struct lwm_progress p;
	double saved = lwm_now();
	lwm_progress_begin(&p, "document", "documents", lwm_docs_count(d));
	for (int64_t i = 0; i < lwm_docs_count(d); i++) {
		if (i >= x->end && lwm_stop_wanted() >= LWM_STOP_END) /* what was asked is written, too */
			return lwm_fail(e, LWM_ESAVED, "stopped (%s) after %" PRId64 " of %" PRId64 " documents, which are kept: run me again",
					lwm_stop_reason(), i, lwm_docs_count(d));
		LWM_TRY(one_document(q, d, i, x, out, st, e));
		lwm_progress_at(&p, i + 1);
		if (lwm_now() - saved > SAVE_SECONDS) {
			LWM_TRY(lwm_docs_save(out, e));
			saved = lwm_now();
		}
	}
	lwm_progress_end(&p);
	return 0;
}

static int fill_shard(struct lwm_docs *d, struct lwm_docs_writer *out, struct writer *w, const struct lwm_args *a,
		      struct lwm_qa_stats *st, struct lwm_err *e)
{
	struct lwm_qa q = way_to_ask(a, w->gen, w->tok);
	struct asked x = { 0 };
	if (strcmp(lwm_docs_get_meta(d)->tokenizer, lwm_tokenizer_hash(w->tok)->hex))
		return lwm_fail(e, LWM_ECONFIG, "made with another tokenizer than the model's");
	int rc = all_documents(&q, d, &x, out, st, e);
	lwm_qa_said_free(x.said);
	LWM_TRY(rc);
	LWM_TRY(lwm_docs_reject(out, "too few pairs", st->docs_short, e));
	return st->docs_out ? 0 : lwm_fail(e, LWM_EDATA, "the model wrote no usable pair in %" PRId64 " chunks", st->chunks);
}

/* Whatever ended the work, finished documents are kept for the next run. */
static void keep_finished(struct lwm_docs_writer *out)
{
	struct lwm_err why = { 0 };
	if (out && lwm_docs_suspend(out, NULL, &why) < 0)
		lwm_log(LWM_WARN, "finished documents could not be kept: %s", why.msg);
}

/* The shard of one input: what an earlier run kept of it, and the rest written now. */
static int make_shard(const char *input, const char *path, const char *config, bool force, struct writer *w,
		      const struct lwm_args *a, struct lwm_err *e)
{
	struct lwm_docs *d = NULL;
	struct lwm_docs_writer *out = NULL;
	struct lwm_qa_stats st = { 0 };
	int rc = lwm_docs_open(&d, input, e);
	if (rc == 0)
		rc = create_shard(&out, path, config, w, force, e);
	if (rc == 0)
		rc = lwm_docs_input(out, input, lwm_docs_manifest(d)->bytes, lwm_docs_manifest(d)->hash, 0, e);
	if (rc == 0 && (rc = fill_shard(d, out, w, a, &st, e)) < 0)
		lwm_context(e, "%s", input);
	if (rc == 0) {
		rc = lwm_docs_commit(out, e);
		out = NULL;
	}
	if (rc == 0)
		print_stats(path, &st);
	if (out && rc == -LWM_EDATA && !st.docs_out) { /* there is nothing in it worth keeping */
		lwm_docs_discard(out);
		out = NULL;
	}
	keep_finished(out);
	lwm_docs_close(d);
	return rc;
}

static int convert_input(const char *input, struct writer *w, const struct lwm_args *a, struct lwm_err *e)
{
	char config[400], *path = output_name(input);
	bool replace = false;
	int rc = path ? 0 : lwm_fail_memory(e, NULL);
	settings_text(config, sizeof config, w, a);
	if (rc == 0 && !a->common.force)
		rc = is_made(path, input, config, &replace, e);
	if (rc == 1)
		lwm_log(LWM_INFO, "%s: complete, nothing to do", path);
	else if (rc == 0)
		rc = make_shard(input, path, config, a->common.force || replace, w, a, e);
	free(path);
	return rc < 0 ? rc : 0;
}

/* An input that cannot be used is left out; the run continues and ends with the first failure's code. */
static int convert_all(const struct lwm_paths *in, struct writer *w, const struct lwm_args *a, struct lwm_err *e)
{
	struct lwm_err first = { 0 };
	int64_t failed = 0;
	for (int64_t i = 0; i < in->n; i++) {
		struct lwm_err why = { 0 };
		int rc = convert_input(in->v[i], w, a, &why);
		if (rc == -LWM_EDATA || rc == -LWM_ENOINPUT || rc == -LWM_ECANTCREATE) {
			lwm_log(LWM_WARN, "not used: %s", why.msg);
			first = failed++ ? first : why;
		} else if (rc < 0) {
			*e = why;
			return rc;
		}
	}
	return failed ? lwm_fail(e, -first.code, "%" PRId64 " of %" PRId64 " inputs could not be used, the others are done; the first: %.700s",
				 failed, in->n, first.msg) : 0;
}

static int check_options(struct lwm_err *e)
{
	LWM_TRY(lwm_tool_tasks(o.task, o.tasks, e));
	if (o.target < o.chunk + o.answer + MARKS)
		return lwm_fail(e, LWM_EUSAGE,
				"--target-tokens %" PRId64 " cannot hold a chunk of %" PRId64 " tokens and its pair of %" PRId64
				" and %d of marks", o.target, o.chunk, o.answer, MARKS);
	return 0;
}

/* What the run takes on a device that computes in this type: weights, caches of the batch, work of the largest step. */
static void print_memory(const struct lwm_llama_cfg *c, int64_t longest, int dtype, const char *where)
{
	int64_t size = (int64_t)lk_dtype_size(dtype), v = c->vocab_text > c->vision_rows ? c->vocab_text : c->vision_rows;
	struct lwm_llama_run run = { .tokens = o.prefill > o.batch ? o.prefill : o.batch, .loss_bytes = o.batch * v * 4 };
	double gib = 1.0 / (1 << 30), weights = gib * (double)(size * lwm_llama_count(c));
	double caches = gib * (double)o.batch * (double)lwm_cache_bytes(c, longest + o.answer, dtype);
	double work = gib * (double)lwm_llama_memory(c, &run, dtype, 1, 1).total;
	printf("memory %s: %.3g GiB: weights %.3g, caches of %" PRId64 " prompts with their answers %.3g, work %.3g\n", where,
	       weights + caches + work, weights, o.batch, caches, work);
}

static int print_plan(const struct lwm_paths *in, const struct lwm_args *a, struct lwm_err *e)
{
	struct lwm_tokenizer *tok;
	struct lwm_lm m;
	int64_t longest;
	LWM_TRY(lwm_lm_look(&m, &tok, o.model, o.older_ok, o.tokenizer, e));
	struct lwm_qa q = way_to_ask(a, NULL, tok);
	int rc = lwm_qa_longest(&q, &longest, e);
	for (int64_t i = 0; rc == 0 && i < in->n; i++) {
		char *path = output_name(in->v[i]);
		if (!path)
			rc = lwm_fail_memory(e, NULL);
		else
			printf("%s %s -> %s\n", !a->common.force && lwm_path_exists(path) ? "there already:" : "to make:", in->v[i], path);
		free(path);
	}
	if (rc == 0 && in->n && strncmp(o.device, "cuda", 4))
		print_memory(&m.cfg, longest, LK_F32, "on a CPU");
	if (rc == 0 && in->n && (!strncmp(o.device, "cuda", 4) || !strcmp(o.device, "auto")))
		print_memory(&m.cfg, longest, LK_BF16, "on a GPU");
	lwm_tokenizer_free(tok);
	lwm_lm_close(&m);
	return rc;
}

static int generate_pairs(const struct lwm_args *a, struct lwm_err *e)
{
	static const char *const suffixes[] = { ".h5", NULL };
	struct lwm_paths in = { 0 };
	struct writer w = { 0 };
	int rc = check_options(e);
	if (rc == 0)
		rc = lwm_tool_inputs(a, suffixes, o.task, o.tasks, &in, e);
	if (rc == 0 && a->common.plan) {
		rc = print_plan(&in, a, e);
		goto out;
	}
	if (rc == 0)
		rc = lwm_mkdirs(o.out_dir, e);
	lwm_stop_install(LWM_STOP_GRACE, NULL);
	if (rc == 0)
		rc = writer_open(&w, a, e);
	if (rc == 0)
		rc = convert_all(&in, &w, a, e);
	writer_close(&w);
out:
	lwm_paths_release(&in);
	return rc;
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, generate_pairs);
}
