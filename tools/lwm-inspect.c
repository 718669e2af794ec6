/* lwm-inspect - what is in this file, and is it intact; what a model says of given tokens.
 *
 * Four programs in one: a description of each thing found (the default), --check of it, one document or row, and --logits. What
 * things there are is known to common/io/inspect.h alone. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/num.h"
#include "common/base/path.h"
#include "common/base/str.h"
#include "common/cli/opt.h"
#include "common/comm/device.h"
#include "common/eval/logits.h"
#include "common/infer/load.h"
#include "common/io/docshard.h"
#include "common/io/inspect.h"
#include "common/io/model.h"
#include "common/io/rowshard.h"
#include "common/text/tokenizer.h"

static struct {
	bool check, tensors, text, older_ok;
	int64_t doc, row, tokens, top;
	const char *tokenizer, *logits, *device;
} a = { .doc = -1, .row = -1, .tokens = 256, .top = -1, .device = "auto" };

static const struct lwm_opt opts[] = {
	LWM_OPT_FLAG('c', "check", &a.check, "is it intact? Reads every byte; prints what is damaged, nothing else"),
	LWM_OPT_FLAG(0, "tensors", &a.tensors, "list the tensors of models and checkpoints"),
	LWM_OPT_INT(0, "doc", &a.doc, -1, INT64_MAX, "N", "show document N of a document shard, counted from 0", 0),
	LWM_OPT_INT(0, "row", &a.row, -1, INT64_MAX, "N", "show row N of a row shard", 0),
	LWM_OPT_INT(0, "tokens", &a.tokens, -1, INT64_MAX, "N", "show so many tokens of it; -1: all", 0),
	LWM_OPT_STR('t', "tokenizer", &a.tokenizer, "SPEC", "show tokens as text too", 0),
	LWM_OPT_HEAD("What a model thinks of tokens"),
	LWM_OPT_STR(0, "logits", &a.logits, "MODEL", "logits behind each token of PATH, and the loss of the next", 0),
	LWM_OPT_FLAG(0, "text", &a.text, "PATH is text itself; <s> and its tokens are taken"),
	LWM_OPT_INT(0, "top", &a.top, -1, INT64_MAX, "N", "only the N largest logits; -1: all, in the order of ids", 0),
	LWM_OPT_DEVICE(&a.device),
	LWM_OPT_OLDER(&a.older_ok),
	LWM_OPT_END
};

static const struct lwm_tool tool = {
	.name = "lwm-inspect",
	.summary = "what is in shards, checkpoints and models, and are they intact",
	.operands = "PATH...",
	.min_operands = 1,
	.max_operands = -1,
	.opts = opts,
	.details = "PATH is a document or row shard (.h5), a checkpoint (step_...), a model folder, a\n"
		   "file of weights (.safetensors, .bin), or a folder of these, which is searched.\n"
		   "\n"
		   "--check ends with 0 when all is intact, 65 when something is damaged or unfinished,\n"
		   "66 when it does not exist, 1 when it carries no hashes to compare with (models made by\n"
		   "other programs). --json prints one object a line.\n"
		   "\n"
		   "--logits MODEL computes with the model: PATH is a document shard (--doc N of it, else\n"
		   "document 0), a file of token ids separated by blanks or commas, - for standard input, such\n"
		   "ids themselves, or with --text a text. A line a token: its position, id and modality, the\n"
		   "next id and its loss in nats, then head:id:logit; with --json an object each. A model of text\n"
		   "and vision has a head for each; vision code c has id c + the text vocabulary.\n",
	.examples = "lwm-inspect books.docs.h5\n"
		    "lwm-inspect --check shards/ run/ckpt && echo fine\n"
		    "lwm-inspect --doc 17 --tokenizer model/ books.docs.h5\n"
		    "lwm-inspect --logits model/ --json 1,450,7483 >logits.jsonl\n",
};

/* ---- finding things in folders ---- */

static int by_name(const struct dirent **x, const struct dirent **y)
{
	return strcmp((*x)->d_name, (*y)->d_name);
}

static int is_visible(const struct dirent *d)
{
	return d->d_name[0] != '.' && !strstr(d->d_name, ".tmp.");
}

/* Adds `path`, or what is known below it. Unfinished checkpoints count: they are what --check is asked about. */
static int find_things(struct lwm_paths *out, const char *path, int depth, struct lwm_err *e)
{
	enum lwm_thing what;
	struct dirent **list;
	int rc = 0;
	LWM_TRY(lwm_thing_of(path, &what, e));
	if (what != LWM_THING_OTHER || !lwm_path_is_dir(path))
		return what != LWM_THING_OTHER || depth == 0 ? lwm_paths_add(out, path, e) : 0;
	if (depth > 16)
		return lwm_fail(e, LWM_EUSAGE, "%s: folders are nested more than 16 deep", path);
	int n = scandir(path, &list, is_visible, by_name);
	if (n < 0)
		return lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot list the folder", path);
	for (int i = 0; i < n; i++) {
		char *sub = lwm_path_join(path, list[i]->d_name);
		if (rc == 0)
			rc = sub ? find_things(out, sub, depth + 1, e) : lwm_fail_memory(e, NULL);
		free(sub);
		free(list[i]);
	}
	free(list);
	return rc;
}

/* ---- printing ---- */

static void print_indent(int depth)
{
	printf("%*s", depth * 2, "");
}

static bool plain_list(const json_t *v)
{
	size_t i;
	json_t *x;
	json_array_foreach((json_t *)(uintptr_t)v, i, x)
		if (json_is_object(x) || json_is_array(x))
			return false;
	return true;
}

/* What a file says must not steer the terminal. */
static void print_text(const char *s, size_t n)
{
	for (const char *end = s + n; s < end; s++)
		putchar(((unsigned char)*s < 0x20 && *s != '\n' && *s != '\t') || *s == 0x7f ? '?' : *s);
}

static void print_value(const json_t *v)
{
	size_t i;
	json_t *x;
	if (json_is_string(v)) {
		print_text(json_string_value(v), json_string_length(v));
	} else if (json_is_integer(v)) {
		printf("%" JSON_INTEGER_FORMAT, json_integer_value(v));
	} else if (json_is_real(v)) {
		printf("%.6g", json_real_value(v));
	} else if (json_is_array(v)) {
		json_array_foreach((json_t *)(uintptr_t)v, i, x) {
			printf("%s", i ? " " : "");
			print_value(x);
		}
	} else {
		printf("%s", json_is_true(v) ? "yes" : json_is_false(v) ? "no" : "-");
	}
}

static void print_object(json_t *o, int depth);

static void print_member(const char *key, json_t *v, int depth)
{
	size_t i;
	json_t *x;
	print_indent(depth);
	if (json_is_object(v)) {
		printf("%s\n", key);
		print_object(v, depth + 1);
	} else if (json_is_array(v) && !plain_list(v)) {
		printf("%s\n", key);
		json_array_foreach(v, i, x) {
			print_indent(depth + 1);
			char *text = json_dumps(x, JSON_COMPACT | JSON_ENCODE_ANY);
			printf("%s\n", text ? text : "?");
			free(text);
		}
	} else {
		printf("%-16s ", key);
		print_value(v);
		putchar('\n');
	}
}

static void print_object(json_t *o, int depth)
{
	const char *key;
	json_t *v;
	json_object_foreach(o, key, v)
		if (depth || (strcmp(key, "path") && strcmp(key, "kind")))
			print_member(key, v, depth + (depth == 0));
}

static int print_description(json_t *o, bool json, struct lwm_err *e)
{
	if (json) {
		char *text;
		LWM_TRY(lwm_json_dump(o, JSON_COMPACT, "the description", &text, e));
		puts(text);
		free(text);
		return 0;
	}
	printf("%s: %s\n", json_string_value(json_object_get(o, "path")),
	       json_string_value(json_object_get(o, "kind")));
	print_object(o, 0);
	return 0;
}

/* ---- one document or row ---- */

static json_t *list_numbers(const int32_t *v, int64_t n)
{
	json_t *list = json_array();
	for (int64_t i = 0; i < n; i++)
		if (json_array_append_new(list, json_integer(v[i]))) {
			json_decref(list);
			return NULL;
		}
	return list;
}

/* Text of the tokens; vision codes and ids of other vocabularies are named. */
static int put_text(json_t *o, const int32_t *v, int64_t n, int64_t vocab_text, const char *tokenizer, struct lwm_err *e)
{
	struct lwm_tokenizer *t;
	struct lwm_str s = { 0 };
	if (!a.tokenizer)
		return 0;
	LWM_TRY(lwm_tokenizer_open_as(&t, a.tokenizer, lwm_model_check_file, tokenizer, "the shard", e));
	for (int64_t i = 0; i < n;) {
		int64_t k = i;
		while (k < n && v[k] < vocab_text)
			k++;
		lwm_tokenizer_decode(t, v + i, k - i, &s);
		if (k < n)
			lwm_str_printf(&s, "<v%" PRId64 ">", v[k] - vocab_text);
		i = k + 1;
	}
	lwm_tokenizer_free(t);
	struct lwm_str quoted = { 0 };
	lwm_str_json(&quoted, lwm_str_get(&s), s.len); /* malformed bytes become U+FFFD */
	json_t *text = quoted.s ? json_loads(quoted.s, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL) : NULL;
	int rc = text && !json_object_set_new(o, "text", text) ? 0 : lwm_fail_memory(e, NULL);
	lwm_str_release(&quoted);
	lwm_str_release(&s);
	return rc;
}

static int64_t count_shown(int64_t n)
{
	return a.tokens < 0 || a.tokens > n ? n : a.tokens;
}

static int show_doc(const char *path, bool json, struct lwm_err *e)
{
	struct lwm_docs *d;
	struct lwm_doc doc;
	int32_t *v = NULL;
	json_t *o = NULL, *runs = json_array();
	int rc = lwm_docs_open(&d, path, e);
	if (rc < 0) {
		json_decref(runs);
		return rc;
	}
	if (a.doc >= lwm_docs_count(d)) {
		rc = lwm_fail(e, LWM_EUSAGE, "--doc %" PRId64 ": %s has %" PRId64 " documents", a.doc, path,
			      lwm_docs_count(d));
		goto out;
	}
	LWM_GO(lwm_docs_get(d, a.doc, &doc, e));
	v = malloc(((size_t)count_shown(doc.n) + 1) * sizeof *v);
	if (!v) {
		rc = lwm_fail_memory(e, NULL);
		goto out;
	}
	LWM_GO(lwm_docs_read(d, a.doc, 0, count_shown(doc.n), v, e));
	for (int64_t i = 0; i < doc.nruns; i++)
		if (json_array_append_new(runs, json_pack("{s:I,s:I,s:b}", "from", (json_int_t)doc.runs[i].start, "to",
							  (json_int_t)(i + 1 < doc.nruns ? doc.runs[i + 1].start : doc.n),
							  "loss", doc.runs[i].loss)))
			LWM_GO(lwm_fail_memory(e, NULL));
	o = json_pack("{s:s,s:s,s:I,s:s?,s:s?,s:I,s:O,s:o}", "path", path, "kind", "document", "document",
		      (json_int_t)a.doc, "id", doc.id, "source", doc.source, "length", (json_int_t)doc.n, "runs",
		      runs, "tokens", list_numbers(v, count_shown(doc.n)));
	if (!o) {
		rc = lwm_fail(e, LWM_EDATA, "%s: document %" PRId64 " has a name that is not UTF-8", path, a.doc);
		goto out;
	}
	LWM_GO(put_text(o, v, count_shown(doc.n), lwm_docs_get_meta(d)->vocab_text, lwm_docs_get_meta(d)->tokenizer, e));
	rc = print_description(o, json, e);
out:
	json_decref(o);
	json_decref(runs);
	free(v);
	lwm_docs_close(d);
	return rc;
}

static int show_row(const char *path, bool json, struct lwm_err *e)
{
	struct lwm_rows_reader *r;
	struct lwm_row row = { 0 };
	json_t *o = NULL, *segs = json_array();
	int rc = lwm_rows_open(&r, path, e);
	if (rc < 0) {
		json_decref(segs);
		return rc;
	}
	if (a.row >= lwm_rows_count(r)) {
		rc = lwm_fail(e, LWM_EUSAGE, "--row %" PRId64 ": %s has %" PRId64 " rows", a.row, path,
			      lwm_rows_count(r));
		goto out;
	}
	LWM_GO(lwm_rows_read(r, a.row, &row, e));
	for (int64_t i = 0; i < row.nseg; i++)
		if (json_array_append_new(segs, json_pack("{s:I,s:I,s:I,s:I}", "start", (json_int_t)row.seg[i].start, "length",
							  (json_int_t)row.seg[i].len, "labels",
							  (json_int_t)row.seg[i].n_loss, "document",
							  (json_int_t)row.seg[i].doc)))
			LWM_GO(lwm_fail_memory(e, NULL));
	o = json_pack("{s:s,s:s,s:I,s:I,s:O,s:o}", "path", path, "kind", "row", "row", (json_int_t)a.row,
		      "seq_length", (json_int_t)row.seq, "segments", segs, "tokens",
		      list_numbers(row.tokens, count_shown(row.seq)));
	if (!o) {
		rc = lwm_fail_memory(e, NULL);
		goto out;
	}
	LWM_GO(put_text(o, row.tokens, count_shown(row.seq), lwm_rows_get_meta(r)->vocab_text, lwm_rows_get_meta(r)->tokenizer, e));
	rc = print_description(o, json, e);
out:
	json_decref(o);
	json_decref(segs);
	lwm_row_release(&row);
	lwm_rows_close(r);
	return rc;
}

/* ---- what a model thinks of tokens ---- */

static int read_numbers(struct lwm_ids *ids, const char *name, const char *text, struct lwm_err *e)
{
	static const char between[] = " \t\r\n,";
	for (const char *p = text + strspn(text, between); *p; p += strspn(p, between)) {
		char word[32];
		int64_t v;
		size_t n = strcspn(p, between);
		snprintf(word, sizeof word, "%.*s", (int)(n < sizeof word ? n : sizeof word - 1), p);
		LWM_TRY(lwm_parse_int(word, 0, INT32_MAX, &v, name, e));
		LWM_TRY(lwm_ids_add(ids, &(int32_t){ (int32_t)v }, 1, e));
		p += n;
	}
	return 0;
}

static int read_number_file(struct lwm_ids *ids, const char *path, struct lwm_err *e)
{
	char *text;
	size_t n;
	LWM_TRY(lwm_read_file(strcmp(path, "-") ? path : "/dev/stdin", 1 << 28, &text, &n, e));
	int rc = memchr(text, 0, n) ? lwm_fail(e, LWM_EDATA, "%s: is no list of token ids", path) : read_numbers(ids, path, text, e);
	free(text);
	return rc;
}

static int read_doc(struct lwm_ids *ids, const char *path, const struct lwm_lm *m, struct lwm_err *e)
{
	struct lwm_docs *d;
	struct lwm_doc doc;
	int64_t at = a.doc < 0 ? 0 : a.doc;
	int rc = 0;
	LWM_TRY(lwm_docs_open(&d, path, e));
	if (at >= lwm_docs_count(d))
		LWM_GO(lwm_fail(e, LWM_EUSAGE, "--doc %" PRId64 ": %s has %" PRId64 " documents", at, path, lwm_docs_count(d)));
	if (lwm_docs_get_meta(d)->vocab_text != m->cfg.vocab_text)
		LWM_GO(lwm_fail(e, LWM_ECONFIG, "%s: a text vocabulary of %" PRId64 ", %s has %" PRId64, path,
				lwm_docs_get_meta(d)->vocab_text, a.logits, m->cfg.vocab_text));
	LWM_GO(lwm_docs_get(d, at, &doc, e));
	LWM_GO(lwm_ids_reserve(ids, doc.n, e));
	LWM_GO(lwm_docs_read(d, at, 0, doc.n, ids->v, e));
	ids->n = doc.n;
out:
	lwm_docs_close(d);
	return rc;
}

static int read_text(struct lwm_ids *ids, const char *text, struct lwm_tokenizer *tok, struct lwm_err *e)
{
	int32_t bos = lwm_tokenizer_bos(tok);
	LWM_TRY(lwm_ids_add(ids, &bos, 1, e));
	return *text ? lwm_tokenizer_encode(tok, text, strlen(text), ids, e) : 0;
}

static int read_tokens(struct lwm_ids *ids, const char *from, const struct lwm_lm *m, struct lwm_tokenizer *tok,
		       struct lwm_err *e)
{
	enum lwm_thing what = LWM_THING_OTHER;
	int rc;
	if (tok)
		rc = read_text(ids, from, tok, e);
	else if (from[strspn(from, "0123456789 ,")] == 0 && access(from, F_OK)) /* a list may be longer than a path can be */
		rc = read_numbers(ids, "a token id", from, e);
	else {
		if (strcmp(from, "-"))
			LWM_TRY(lwm_thing_of(from, &what, e));
		rc = what == LWM_THING_DOCS ? read_doc(ids, from, m, e) : read_number_file(ids, from, e);
	}
	if (rc == 0 && ids->n == 0)
		rc = lwm_fail(e, LWM_EUSAGE, "%s: holds no tokens", from);
	for (int64_t i = 0; rc == 0 && i < ids->n; i++)
		if (ids->v[i] < 0 || ids->v[i] >= lwm_llama_ids(&m->cfg))
			rc = lwm_fail(e, LWM_EDATA, "token %" PRId64 " is %d, %s knows 0 to %" PRId64, i, (int)ids->v[i], a.logits,
				      lwm_llama_ids(&m->cfg) - 1);
	return rc;
}

static int show_logits(const char *from, const struct lwm_common *common, struct lwm_err *e)
{
	const struct lwm_logits how = { .top = a.top, .json = common->json };
	struct lwm_lm m = { 0 };
	struct lwm_tokenizer *tok = NULL;
	struct lwm_ids ids = { 0 };
	struct lk_dev *dev;
	LWM_TRY(lwm_device_open(&dev, a.device, common->threads, e));
	int rc = a.text ? lwm_lm_open_with_tokenizer(&m, &tok, a.logits, a.older_ok, a.tokenizer, dev, e) :
			  lwm_lm_open(&m, a.logits, a.older_ok, dev, e);
	if (rc == 0) {
		rc = read_tokens(&ids, from, &m, tok, e);
		if (rc == 0) {
			lwm_lm_warn_length(&m, ids.n, "--logits");
			rc = lwm_logits_write(stdout, &how, dev, &m.cfg, m.weights, ids.v, ids.n, e);
		}
		lwm_tokenizer_free(tok);
		lwm_lm_close(&m);
	}
	lwm_ids_release(&ids);
	lk_dev_close(dev);
	return rc;
}

/* ---- the two questions ---- */

static int describe_one(const char *path, bool json, struct lwm_err *e)
{
	enum lwm_thing what;
	json_t *o = NULL;
	LWM_TRY(lwm_thing_of(path, &what, e));
	LWM_TRY(lwm_describe(path, what, a.tensors, &o, e));
	int rc = print_description(o, json, e);
	json_decref(o);
	return rc;
}

static int check_one(const char *path, bool json, struct lwm_err *e)
{
	enum lwm_thing what;
	int rc = lwm_thing_of(path, &what, e);
	if (rc == 0)
		rc = lwm_check_thing(path, what, e);
	if (!json)
		return rc;
	json_t *o = json_pack("{s:s,s:s,s:b,s:s}", "path", path, "kind", lwm_thing_name(what), "intact", rc == 0,
			      "reason", rc < 0 ? e->msg : "");
	if (o)
		print_description(o, true, NULL);
	json_decref(o);
	return rc;
}

/* All of them; the first failure decides the exit code, and is not told twice. */
static int inspect_all(const struct lwm_paths *list, bool json, struct lwm_err *e)
{
	int64_t bad = 0;
	int first = 0;
	for (int64_t i = 0; i < list->n; i++) {
		struct lwm_err why = { 0 };
		int rc = a.check ? check_one(list->v[i], json, &why) : describe_one(list->v[i], json, &why);
		if (rc == 0)
			continue;
		first = first ? first : rc;
		if (bad++ == 0)
			*e = why;
		else
			lwm_log(LWM_ERROR, "%s", why.msg);
	}
	if (bad > 1) {
		lwm_log(LWM_ERROR, "%s", e->msg);
		lwm_err_clear(e);
		lwm_fail(e, -first, "%" PRId64 " of %" PRId64 " are not intact", bad, list->n);
	}
	return first;
}

static int inspect_paths(const struct lwm_args *args, struct lwm_err *e)
{
	struct lwm_paths list = { 0 };
	int rc = 0;
	if (a.logits && (a.row >= 0 || a.check || a.tensors || args->noperand != 1))
		return lwm_fail(e, LWM_EUSAGE, "--logits takes the tokens of one PATH, and none of --row, --check and --tensors");
	if (!a.logits && (a.text || a.top >= 0))
		return lwm_fail(e, LWM_EUSAGE, "--text and --top belong to --logits");
	if (a.logits)
		return show_logits(args->operand[0], &args->common, e);
	if ((a.doc >= 0) + (a.row >= 0) + a.check > 1)
		return lwm_fail(e, LWM_EUSAGE, "give one of --check, --doc and --row");
	if ((a.doc >= 0 || a.row >= 0) && args->noperand != 1)
		return lwm_fail(e, LWM_EUSAGE, "--doc and --row show one shard");
	if (a.doc >= 0)
		return show_doc(args->operand[0], args->common.json, e);
	if (a.row >= 0)
		return show_row(args->operand[0], args->common.json, e);
	for (int i = 0; i < args->noperand && rc == 0; i++) {
		char *path = args->operand[i];
		for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
			path[n - 1] = 0;
		rc = find_things(&list, path, 0, e);
	}
	if (rc == 0 && list.n == 0)
		rc = lwm_fail(e, LWM_ENOINPUT, "%s: no shards, checkpoints or models in it", args->operand[0]);
	if (rc == 0)
		rc = inspect_all(&list, args->common.json, e);
	lwm_paths_release(&list);
	return rc;
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, inspect_paths);
}
