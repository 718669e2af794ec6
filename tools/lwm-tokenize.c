/* lwm-tokenize - text and JSON lines become document shards.
 *
 * Inputs of this task, an output for each or one for all, the tokenizer and the fields of a document; common/data/ingest/ingest.h
 * does the rest. */
#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/num.h"
#include "common/base/stop.h"
#include "common/cli/opt.h"
#include "common/data/ingest/ingest.h"
#include "common/data/ingest/shelf.h"
#include "common/io/model.h"
#include "common/text/tokenizer.h"

static struct {
	const char *output, *out_dir, *tokenizer, *fields_key, *join, *prepend, *split_at, *system;
	struct lwm_paths fields, codes;
	int64_t fields_index, frame_codes, max_frames, min_tokens, max_tokens, split_lines, max_bytes, max_bad;
	int64_t vision_codes, task, tasks;
	bool no_bos, no_eos, replace, escape;
	int format, layout, actions;
	double drop;
} a = { .drop = LWM_WORLD_DROP, .fields_index = -1, .frame_codes = 256, .vision_codes = LWM_VISION_CODES, .max_bytes = 256 << 20,
      .max_bad = 100, .tasks = 1, .join = " " };

static const struct lwm_opt opts[] = {
	LWM_OPT_HEAD("Input and output"),
	LWM_OPT_STR('o', "output", &a.output, "FILE", "one shard for all inputs", 0),
	LWM_OPT_STR('d', "out-dir", &a.out_dir, "DIR", "one shard for each input: DIR/NAME.docs.h5", 0),
	LWM_OPT_CHOICE(0, "format", &a.format, lwm_text_format_names, "what the inputs are; auto: .jsonl and .json by name, else text", 0),
	LWM_OPT_INT(0, "split-lines", &a.split_lines, 0, 1e12, "N", "text: N lines a document; 0: the whole file", 0),
	LWM_OPT_STR(0, "split-at", &a.split_at, "LINE", "text: a line equal to this ends a document", 0),
	LWM_OPT_TASKS(&a.task, &a.tasks),
	LWM_OPT_HEAD("Documents"),
	LWM_OPT_STR('t', "tokenizer", &a.tokenizer, "SPEC", "bytes, a SentencePiece model, or a folder with one",
		    LWM_OPT_REQUIRED),
	LWM_OPT_LIST('f', "fields", &a.fields, "FIELDS", "parts of a record, [part] without loss (default: "
		     "text); given several times, each document gets one by seed", 0),
	LWM_OPT_STR(0, "fields-key", &a.fields_key, "KEY", "JSON key that holds the fields of its record", 0),
	LWM_OPT_INT(0, "fields-index", &a.fields_index, -1, 1e6, "I", "always this alternative; -1: by seed", 0),
	LWM_OPT_STR(0, "join", &a.join, "TEXT", "between parts joined by +", 0),
	LWM_OPT_STR(0, "prepend", &a.prepend, "TEXT", "put before the first part", 0),
	LWM_OPT_MARKS(&a.no_bos, &a.no_eos),
	LWM_OPT_INT(0, "frame-codes", &a.frame_codes, 1, 1 << 20, "N", "codes of one vision frame", 0),
	LWM_OPT_INT(0, "vision-codes", &a.vision_codes, 1, 1 << 24, "N", "size of the codebook", 0),
	LWM_OPT_INT(0, "max-frames", &a.max_frames, 0, 1e9, "N", "keep so many frames, evenly spread; 0: all", 0),
	LWM_OPT_HEAD("Chats"),
	LWM_OPT_CHAT(&a.layout, lwm_chat_layout_names, &a.system, &a.escape),
	LWM_OPT_WORLD(&a.actions, lwm_world_actions_names, &a.drop),
	LWM_OPT_LIST(0, "codes", &a.codes, "PATH", "shards of lwm-vqgan-encode: clips that chats name by their paths", 0),
	LWM_OPT_HEAD("What is left out"),
	LWM_OPT_INT(0, "min-tokens", &a.min_tokens, 0, 1e12, "N", "shorter documents are left out", 0),
	LWM_OPT_INT(0, "max-tokens", &a.max_tokens, 0, 1e12, "N", "longer ones too; 0: any length", 0),
	LWM_OPT_INT(0, "max-bad", &a.max_bad, -1, 1e12, "N", "more malformed records fail an input; -1: any number", 0),
	LWM_OPT_INT(0, "max-bytes", &a.max_bytes, 1, 1LL << 31, "N", "longest line or text that is read, newlines between its lines counted", 0),
	LWM_OPT_FLAG(0, "replace-bad-utf8", &a.replace, "malformed bytes become U+FFFD; else their record is refused"),
	LWM_OPT_END
};

static const struct lwm_tool tool = {
	.name = "lwm-tokenize",
	.summary = "text and JSON lines to document shards",
	.operands = "INPUT...",
	.min_operands = 1,
	.max_operands = -1,
	.opts = opts,
	.stops = true,
	.details =
		"Inputs are files, folders (searched for .txt, .jsonl and .ndjson, also .gz and\n"
		".zst) and @LIST files; a .json file, given by name, is a list of records. Fields are separated by commas: 'a,[b]' trains on a and\n"
		"shows b; 'a+b' joins two keys; <|bos|> and <|eos|> are marks; a key with 'vision'\n"
		"in its name is a list of codes. A text file is a record with the one key 'text':\n"
		"its lines joined by newlines. CR LF ends a line like LF; a byte order mark and the\n"
		"newline at the end are no part of it. JSON texts stay as they are, \\u0000 too.\n"
		"\n"
		"-f '<|chat|>' reads turn lists (ShareGPT, UltraChat, LLaVA, Valley, Video-ChatGPT):\n"
		"answers have loss, and each is ended by </s>. The codes of an image or clip that a\n"
		"record names come from --codes: the one whose path ends in that name; or from its\n"
		"own field 'vision'. --max-frames thins it. -f '<|world|>' reads drives: 'vision' with\n"
		"'actions', one for each frame.\n"
		"\n"
		"Documents in = documents out + rejected; the reasons are counted in the manifest\n"
		"beside each shard. A shard that is complete and was made from the same inputs and\n"
		"settings is left alone, so a failed array task is simply run again.\n",
	.examples = "lwm-tokenize -t bytes books/ -o books.docs.h5\n"
		    "lwm-tokenize -t tokenizer.model -f '[question],answer' -d shards/ --task 3 "
		    "--tasks 100 qa/\n"
		    "lwm-tokenize -t tokenizer.model -f '<|chat|>' --codes images.docs.h5 chats.json -o chats.docs.h5\n",
};

static int list_inputs(const struct lwm_args *args, struct lwm_paths *in, struct lwm_err *e)
{
	struct lwm_paths all = { 0 };
	int rc = 0;
	for (int i = 0; i < args->noperand && rc == 0; i++)
		rc = lwm_ingest_find(&all, args->operand[i], false, e);
	for (int64_t i = a.task; i < all.n && rc == 0; i += a.tasks)
		rc = lwm_paths_add(in, all.v[i], e);
	lwm_paths_release(&all);
	return rc;
}

static int list_outputs(const struct lwm_paths *in, struct lwm_paths *out, struct lwm_err *e)
{
	LWM_TRY(lwm_tool_outputs(a.output, a.out_dir, a.task, a.tasks, e));
	if (a.out_dir)
		return lwm_ingest_names(in, a.out_dir, out, e);
	for (int64_t i = 0; i < in->n; i++)
		LWM_TRY(lwm_paths_add(out, a.output, e));
	return 0;
}

/* What chats and drives add to that, where it is not the default: the text of other settings is that of earlier versions. */
static bool add_others(json_t *o, const struct lwm_shelf *shelf)
{
	bool lost = false;
	if (a.layout)
		lost |= json_object_set_new(o, "chat_layout", json_string(lwm_chat_layout_names[a.layout])) < 0;
	if (a.system)
		lost |= json_object_set_new(o, "system", json_string(a.system)) < 0;
	if (a.escape)
		lost |= json_object_set_new(o, "escape_special", json_true()) < 0;
	if (a.actions)
		lost |= json_object_set_new(o, "actions", json_string(lwm_world_actions_names[a.actions])) < 0;
	if (a.drop != LWM_WORLD_DROP)
		lost |= json_object_set_new(o, "action_drop", json_real(a.drop)) < 0;
	if (shelf)
		lost |= json_object_set_new(o, "codes", json_string(lwm_shelf_hash(shelf).hex)) < 0;
	return !lost;
}

/* Everything but the inputs that decides a byte of the output. */
static int config_text(const struct lwm_tokenizer *t, const struct lwm_shelf *shelf, int64_t seed, char **out, struct lwm_err *e)
{
	json_t *fields = lwm_json_strings(a.fields.v, a.fields.n);
	json_t *o = json_pack("{s:s,s:o,s:s?,s:I,s:s,s:s?,s:b,s:b,s:I,s:I,s:I,s:I,s:I,s:s?,s:I,s:b,s:s,s:I,s:I}",
			      "tokenizer", lwm_tokenizer_hash(t)->hex, "fields", fields, "fields_key", a.fields_key,
			      "fields_index", (json_int_t)a.fields_index, "join", a.join, "prepend", a.prepend,
			      "no_bos", a.no_bos, "no_eos", a.no_eos, "frame_codes", (json_int_t)a.frame_codes,
			      "max_frames", (json_int_t)a.max_frames, "min_tokens", (json_int_t)a.min_tokens,
			      "max_tokens", (json_int_t)a.max_tokens, "split_lines", (json_int_t)a.split_lines,
			      "split_at", a.split_at, "max_bytes", (json_int_t)a.max_bytes, "replace_bad_utf8",
			      a.replace, "format", lwm_text_format_names[a.format], "seed", (json_int_t)seed,
			      "vision_codes", (json_int_t)a.vision_codes);
	int rc = lwm_json_dump(o && add_others(o, shelf) ? o : NULL, JSON_SORT_KEYS | JSON_COMPACT, "the settings", out, e);
	json_decref(o);
	return rc;
}

static int open_fields(struct lwm_fields **out, struct lwm_tokenizer *t, struct lwm_shelf *shelf, int64_t seed, struct lwm_err *e)
{
	const struct lwm_fields_cfg cfg = {
		.fields = (const char *const *)a.fields.v, .nfields = a.fields.n, .from_example = a.fields_key,
		.index = a.fields_index, .separator = a.join, .prepend = a.prepend, .no_bos = a.no_bos,
		.no_eos = a.no_eos, .frame_codes = a.frame_codes,
		.vision_codes = a.vision_codes, .max_frames = a.max_frames, .seed = (uint64_t)seed,
		.replace_bad_utf8 = a.replace, .max_bytes = a.max_bytes,
		.chat = { .layout = (enum lwm_chat_layout)a.layout, .system = a.system, .escape = a.escape,
			  .vision = shelf || (a.layout && lwm_chat_layout_has_clips((enum lwm_chat_layout)a.layout)),
			  .codes = shelf ? lwm_shelf_codes : NULL, .user = shelf },
		.world = { (enum lwm_world_actions)a.actions, a.drop }
	};
	return lwm_fields_open(out, &cfg, t, e);
}

static int report_stats(const struct lwm_ingest_stats *s, double seconds, bool json, struct lwm_err *e)
{
	char tokens[32], bytes[32];
	lwm_log(LWM_INFO, "%" PRId64 " documents = %" PRId64 " written + %" PRId64 " malformed + %" PRId64 " filtered; "
		"%s tokens from %s in %.1f s; %" PRId64 " shards written, %" PRId64 " complete before", s->in, s->out,
		s->malformed, s->filtered, lwm_count_text(s->tokens, tokens, sizeof tokens),
		lwm_bytes_text((double)s->bytes, bytes, sizeof bytes), seconds, s->shards, s->skipped);
	if (!json)
		return 0;
	json_t *o = json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f}", "documents_in", (json_int_t)s->in,
			      "documents_out", (json_int_t)s->out, "malformed", (json_int_t)s->malformed,
			      "filtered", (json_int_t)s->filtered, "tokens", (json_int_t)s->tokens,
			      "loss_tokens", (json_int_t)s->loss_tokens, "frames", (json_int_t)s->frames,
			      "bytes", (json_int_t)s->bytes, "shards", (json_int_t)s->shards,
			      "skipped", (json_int_t)s->skipped, "seconds", seconds);
	return lwm_tool_json(o, e);
}

static void print_plan(const struct lwm_paths *in, const struct lwm_paths *out)
{
	for (int64_t i = 0; i < in->n; i++)
		printf("%s -> %s\n", in->v[i], out->v[i]);
}

static int64_t total_bytes(const struct lwm_paths *in)
{
	struct stat s;
	int64_t n = 0;
	for (int64_t i = 0; i < in->n; i++)
		n += stat(in->v[i], &s) == 0 ? (int64_t)s.st_size : 0;
	return n;
}

static void log_line(bool warning, const char *text)
{
	lwm_log(warning ? LWM_WARN : LWM_INFO, "%s", text);
}

static int write_shards(const struct lwm_args *args, struct lwm_tokenizer *t, const struct lwm_fields *f, char *config,
			const struct lwm_paths *in, const struct lwm_paths *out, struct lwm_err *e)
{
	struct lwm_progress progress;
	struct lwm_ingest_stats stats = { 0 };
	double start = lwm_now();
	const struct lwm_ingest_cfg cfg = {
		.tokenizer = t, .fields = f, .format = (enum lwm_text_format)a.format,
		.vision_table = lwm_fields_has_vision(f) ? a.vision_codes + 2 : 0,
		.min_tokens = a.min_tokens,
		.max_tokens = a.max_tokens, .split_lines = a.split_lines, .separator = a.split_at,
		.max_bytes = a.max_bytes, .max_bad = a.max_bad, .replace_bad_utf8 = a.replace,
		.force = args->common.force,
		.threads = args->common.threads ? (int)args->common.threads : omp_get_max_threads(),
		.tool = "lwm-tokenize " LWM_VERSION, .config = config,
		.policy = a.no_bos ? a.no_eos ? "none" : "eos" : a.no_eos ? "bos" : "bos,eos", .say = log_line,
		.progress = &progress
	};
	int rc = a.out_dir ? lwm_mkdirs(a.out_dir, e) : 0;
	lwm_stop_install(LWM_STOP_GRACE, NULL);
	lwm_progress_begin(&progress, "read", "bytes", total_bytes(in));
	if (rc == 0)
		rc = lwm_ingest_run(&cfg, in, out, &stats, e);
	lwm_progress_end(&progress);
	return rc < 0 ? rc : report_stats(&stats, lwm_now() - start, args->common.json, e);
}

static int tokenize_inputs(const struct lwm_args *args, struct lwm_err *e)
{
	struct lwm_paths in = { 0 }, out = { 0 };
	struct lwm_tokenizer *t = NULL;
	struct lwm_fields *f = NULL;
	struct lwm_shelf *shelf = NULL;
	char *config = NULL;
	int rc;
	if (a.fields.n == 0 && !a.fields_key)
		LWM_GO(lwm_paths_add(&a.fields, "text", e));
	LWM_GO(list_inputs(args, &in, e));
	LWM_GO(list_outputs(&in, &out, e));
	LWM_GO(lwm_tokenizer_open_as(&t, a.tokenizer, lwm_model_check_file, NULL, NULL, e));
	if (a.codes.n)
		LWM_GO(lwm_shelf_open(&shelf, &a.codes, t, a.vision_codes, a.frame_codes, e));
	LWM_GO(open_fields(&f, t, shelf, args->common.seed, e));
	LWM_GO(config_text(t, shelf, args->common.seed, &config, e));
	if (args->common.plan)
		print_plan(&in, &out);
	else
		LWM_GO(write_shards(args, t, f, config, &in, &out, e));
out:
	free(config);
	lwm_fields_free(f);
	lwm_shelf_close(shelf);
	lwm_tokenizer_free(t);
	lwm_paths_release(&in);
	lwm_paths_release(&out);
	lwm_paths_release(&a.fields);
	lwm_paths_release(&a.codes);
	return rc;
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, tokenize_inputs);
}
