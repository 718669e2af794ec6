/* lwm-pack - document shards become rows of exactly the sequence length.
 *
 * Shards are collected by source, each with its share of the tokens; common/data/pack/pack.h does the rest. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/num.h"
#include "common/base/stop.h"
#include "common/cli/opt.h"
#include "common/data/pack/pack.h"
#include "common/io/docshard.h"

static struct {
	struct lwm_paths sources;
	const char *output, *report;
	int64_t seq, min_tokens, window, epochs, max_tokens, rows_per_shard, task, tasks;
	double hold_out;
	int mode, longer, part;
	bool no_shuffle, drop_lossless, drop_tail;
} a = { .epochs = 1, .tasks = 1 };

static const char *const modes[] = { "masked", "concat", "padded", NULL };
static const char *const longs[] = { "split", "drop", "truncate", NULL };
static const char *const parts[] = { "train", "held-out", NULL };
static const struct lwm_opt opts[] = {
	LWM_OPT_HEAD("Input and output"),
	LWM_OPT_LIST('s', "source", &a.sources, "NAME=WEIGHT=PATH", "shards of a source, its share of tokens", 0),
	LWM_OPT_STR('o', "output", &a.output, "PATH", "the row shard, or a folder (--rows-per-shard, --tasks)",
		    LWM_OPT_REQUIRED),
	LWM_OPT_INT(0, "rows-per-shard", &a.rows_per_shard, 0, 1e12, "N", "several shards of N rows; 0: one file (a task)", 0),
	LWM_OPT_STR(0, "report", &a.report, "FILE", "write the report as JSON", 0),
	LWM_OPT_INT(0, "task", &a.task, 0, 1e9, "I", "pack part I of --tasks, from 0", 0),
	LWM_OPT_INT(0, "tasks", &a.tasks, 1, 1e9, "N", "number of tasks that share the documents", 0),
	LWM_OPT_HEAD("Rows"),
	LWM_OPT_INT('n', "seq-length", &a.seq, 2, 1 << 30, "N", "tokens of a row (32K = 32768)", LWM_OPT_REQUIRED),
	LWM_OPT_CHOICE('m', "mode", &a.mode, modes, "how documents share rows", 0),
	LWM_OPT_CHOICE('l', "long", &a.longer, longs, "documents of more than a row", 0),
	LWM_OPT_INT(0, "min-tokens", &a.min_tokens, 0, 1e12, "N", "shorter documents are rejected", 0),
	LWM_OPT_FLAG(0, "drop-tail", &a.drop_tail, "concat: leave out a last row that is not full"),
	LWM_OPT_FLAG(0, "drop-lossless", &a.drop_lossless, "reject documents in which no token has a loss"),
	LWM_OPT_DOUBLE(0, "hold-out", &a.hold_out, 0, 0.999, "X", "share of documents that are held out, by a hash of their tokens", 0),
	LWM_OPT_CHOICE(0, "part", &a.part, parts, "which side is packed: held-out documents, or all others", 0),
	LWM_OPT_HEAD("Mixture and order"),
	LWM_OPT_INT(0, "epochs", &a.epochs, 1, 1e6, "N", "use a document at most N times", 0),
	LWM_OPT_INT(0, "max-tokens", &a.max_tokens, 0, 1e15, "N", "take about N tokens in all; 0: what there is", 0),
	LWM_OPT_INT(0, "window", &a.window, 0, 1e9, "N", "documents packed at once; 0: 65536", 0),
	LWM_OPT_FLAG(0, "no-shuffle", &a.no_shuffle, "keep the order of the shards as far as packing allows"),
	LWM_OPT_END
};

static const struct lwm_tool tool = {
	.name = "lwm-pack",
	.summary = "document shards to rows of equal length",
	.operands = "SHARD...",
	.min_operands = 0,
	.max_operands = -1,
	.opts = opts,
	.stops = true,
	.details =
		"masked: several documents a row, each attends only to itself, positions restart,\n"
		"loss weights as in padded training; best fit. concat: documents end\n"
		"to end, attention crosses them; a row holds one token more, its last target, with\n"
		"which the next row begins. padded: one document a row.\n"
		"\n"
		"Shards are files, folders and @LIST files, given as operands (one source) or with\n"
		"--source, several times: -s books=84=books/ -s chat=16=chat.docs.h5. As many tokens\n"
		"are taken as the shares allow when no document is used more than --epochs times;\n"
		"without weights, every document. Documents in = used + left + rejected (+ aside:\n"
		"those of the other side, with --hold-out, which depends on nothing but the document).\n"
		"\n"
		"A folder of shards gets rows.index.json, by the last of its --tasks: what a trainer\n"
		"must know of all shards without opening them. Without it the manifests are read.\n",
	.examples = "lwm-pack -n 32K -o rows.h5 books/\n"
		    "lwm-pack -n 1M --long split --rows-per-shard 64 -s text=16=text/ -s video=84=video/ -o rows/\n",
};

enum { MAX_SOURCES = 256 };
static struct lwm_pack_source source[MAX_SOURCES];
static int64_t nsources;

static int add_shards(struct lwm_pack_source *s, const char *path, struct lwm_err *e)
{
	static const char *const ends[] = { ".h5", NULL };
	return lwm_paths_expand(&s->shards, path, ends, e);
}

/* The source of that name; a new one if there is none. The name is not 0-terminated. */
static struct lwm_pack_source *find_source(const char *name, size_t n)
{
	for (int64_t i = 0; i < nsources; i++)
		if (strlen(source[i].name) == n && !strncmp(source[i].name, name, n))
			return &source[i];
	if (nsources == MAX_SOURCES)
		return NULL;
	source[nsources].name = strndup(name, n);
	source[nsources].weight = -1;
	return source[nsources].name ? &source[nsources++] : NULL;
}

static int add_source(const char *text, struct lwm_err *e)
{
	char number[64];
	const char *w = strchr(text, '='), *path = w ? strchr(w + 1, '=') : NULL;
	double weight;
	if (!path || w == text || path - w > (int)sizeof number)
		return lwm_fail(e, LWM_EUSAGE, "--source '%s': expected NAME=WEIGHT=PATH", text);
	snprintf(number, sizeof number, "%.*s", (int)(path - w - 1), w + 1);
	LWM_TRY(lwm_parse_double(number, 0, 1e12, &weight, "--source: weight", e));
	struct lwm_pack_source *s = find_source(text, (size_t)(w - text));
	if (!s)
		return lwm_fail(e, LWM_EUSAGE, "more than %d sources", MAX_SOURCES);
	if (s->weight >= 0 && s->weight != weight)
		return lwm_fail(e, LWM_EUSAGE, "--source: '%s' has two weights, %g and %g", s->name, s->weight, weight);
	s->weight = weight;
	return add_shards(s, path + 1, e);
}

static int collect_sources(const struct lwm_args *args, struct lwm_err *e)
{
	if (!args->noperand == !a.sources.n)
		return lwm_fail(e, LWM_EUSAGE, "give shards either as operands or with --source");
	for (int64_t i = 0; i < a.sources.n; i++)
		LWM_TRY(add_source(a.sources.v[i], e));
	if (args->noperand) {
		struct lwm_pack_source *s = find_source("data", 4);
		if (!s)
			return lwm_fail_memory(e, NULL);
		s->weight = 0;
		for (int i = 0; i < args->noperand; i++)
			LWM_TRY(add_shards(s, args->operand[i], e));
	}
	return 0;
}

static void log_stats(const struct lwm_pack_stats *s, double seconds)
{
	char in[32], out[32];
	if (s->complete_before) {
		lwm_log(LWM_INFO, "%s: complete, nothing to do", a.output);
		return;
	}
	lwm_log(LWM_INFO, "%" PRId64 " documents = %" PRId64 " used + %" PRId64 " left + %" PRId64 " too short + "
		"%" PRId64 " too long + %" PRId64 " without loss", s->docs_in - s->docs_aside, s->docs_used, s->docs_left,
		s->rejected_short, s->rejected_long, s->rejected_lossless);
	if (a.hold_out > 0)
		lwm_log(LWM_INFO, "%s: %" PRId64 " of %" PRId64 " documents; %" PRId64 " are of the other side", parts[a.part],
			s->docs_in - s->docs_aside, s->docs_in, s->docs_aside);
	lwm_log(LWM_INFO, "%s tokens to %" PRId64 " rows of %s: %.2f %% full; %" PRId64 " split, %" PRId64 " cut, "
		"%" PRId64 " repeated; %.1f s", lwm_count_text(s->tokens_out, in, sizeof in), s->rows,
		lwm_count_text(a.seq, out, sizeof out), 100 * s->fill, s->docs_split, s->docs_truncated, s->repeats,
		seconds);
}

static int print_json(json_t *report, double seconds, struct lwm_err *e)
{
	json_t *o = report ? lwm_json_copy(report) : json_object();
	bool ok = o && json_object_set_new(o, "complete_before", json_boolean(!report)) == 0 &&
		  json_object_set_new(o, "seconds", json_real(seconds)) == 0;
	if (!ok) {
		json_decref(o);
		o = NULL;
	}
	return lwm_tool_json(o, e);
}

static int pack_rows(const struct lwm_args *args, struct lwm_err *e)
{
	struct lwm_progress progress;
	struct lwm_pack_stats stats;
	json_t *report = NULL;
	double start = lwm_now(), seconds;
	const struct lwm_pack_cfg cfg = {
		.source = source, .nsources = nsources, .seq_length = a.seq, .mode = (enum lwm_pack_mode)a.mode,
		.longer = (enum lwm_pack_long)a.longer, .min_tokens = a.min_tokens, .window = a.window,
		.epochs = a.epochs, .max_tokens = a.max_tokens, .seed = (uint64_t)args->common.seed,
		.shuffle = !a.no_shuffle, .drop_lossless = a.drop_lossless, .drop_tail = a.drop_tail,
		.hold_out = a.hold_out, .held_out = a.part == 1, .force = args->common.force,
		.output = a.output, .rows_per_shard = a.rows_per_shard, .task = a.task, .tasks = a.tasks,
		.tool = "lwm-pack " LWM_VERSION, .progress = &progress
	};
	lwm_stop_install(LWM_STOP_GRACE, NULL);
	lwm_progress_begin(&progress, "packed", "tokens", 0);
	int rc = lwm_pack_run(&cfg, &stats, &report, e);
	lwm_progress_end(&progress);
	seconds = lwm_now() - start;
	if (rc == 0)
		log_stats(&stats, seconds);
	if (rc == 0 && a.report && report)
		rc = lwm_json_write(report, a.report, true, e);
	if (rc == 0 && args->common.json)
		rc = print_json(report, seconds, e);
	json_decref(report);
	return rc;
}

static int print_plan(struct lwm_err *e)
{
	for (int64_t i = 0; i < nsources; i++)
		for (int64_t k = 0; k < source[i].shards.n; k++) {
			struct lwm_docs *d;
			LWM_TRY(lwm_docs_open(&d, source[i].shards.v[k], e)); /* is it one? */
			lwm_docs_close(d);
			printf("%s %g %s\n", source[i].name, source[i].weight, source[i].shards.v[k]);
		}
	return 0;
}

static int pack_documents(const struct lwm_args *args, struct lwm_err *e)
{
	int rc;
	LWM_GO(collect_sources(args, e));
	if (args->common.plan) {
		LWM_GO(print_plan(e));
	} else {
		LWM_GO(pack_rows(args, e));
	}
out:
	for (int64_t i = 0; i < nsources; i++) {
		lwm_paths_release(&source[i].shards);
		free((char *)source[i].name);
	}
	lwm_paths_release(&a.sources);
	return rc;
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, pack_documents);
}
