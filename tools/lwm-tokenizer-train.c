/* lwm-tokenizer-train - a SentencePiece model from text files (common/text/tokenizer.h). */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/cli/opt.h"
#include "common/data/ingest/ingest.h"
#include "common/text/action.h"
#include "common/text/tokenizer.h"

static struct {
	const char *output, *symbols_file;
	struct lwm_paths symbols;
	int64_t vocab, sample;
	bool actions;
} a = { .vocab = 1024 };

static const struct lwm_opt opts[] = {
	LWM_OPT_STR('o', "output", &a.output, "FILE", "the model", LWM_OPT_REQUIRED),
	LWM_OPT_INT(0, "vocab", &a.vocab, 300, 1 << 20, "N", "pieces, with 3 special ones and 256 bytes", 0),
	LWM_OPT_LIST('s', "symbol", &a.symbols, "TEXT", "a string that becomes one piece; spaces count", 0),
	LWM_OPT_STR(0, "symbols", &a.symbols_file, "FILE", "such strings, one a line", 0),
	LWM_OPT_FLAG(0, "actions", &a.actions, "the words of a driver's actions too, one piece each: <|left|>, ..."),
	LWM_OPT_INT(0, "sample", &a.sample, 0, 1e12, "N", "read about N lines, evenly spread; 0: all", 0),
	LWM_OPT_END
};

static const struct lwm_tool tool = {
	.name = "lwm-tokenizer-train",
	.summary = "a SentencePiece model from text files",
	.operands = "TEXT...",
	.min_operands = 1,
	.max_operands = -1,
	.opts = opts,
	.details =
		"BPE with byte fallback, no normalisation, digits one by one, spaces kept: the same\n"
		"kind of model as LLaMA's. Ids: 0 <unk>, 1 <s>, 2 </s>, symbols, 256 bytes, pieces.\n"
		"Inputs are text, plain, .gz or .zst, read line by line; folders are searched for\n"
		".txt and .jsonl (whose lines are read as they stand). What is no text is refused.\n"
		"The same inputs give the same model.\n",
	.examples = "lwm-tokenizer-train --vocab 1024 --symbols symbols.txt -o tokenizer.model books/ chats.jsonl\n",
};

/* Lines of a file, spaces kept. */
static int read_symbols(const char *path, struct lwm_paths *out, struct lwm_err *e)
{
	char *text;
	size_t n;
	int rc = 0;
	LWM_TRY(lwm_read_file(path, 16 << 20, &text, &n, e));
	for (char *s = text; *s && rc == 0;) {
		char *end = s + strcspn(s, "\r\n");
		char *next = end + strspn(end, "\r\n");
		*end = 0;
		if (end > s)
			rc = lwm_paths_add(out, s, e);
		s = next;
	}
	free(text);
	return rc;
}

static int add_actions(struct lwm_paths *out, struct lwm_err *e)
{
	char name[LWM_ACTION_NAME];
	for (int i = 0; i < LWM_ACTION_WORDS; i++)
		LWM_TRY(lwm_paths_add(out, lwm_action_word(i, name), e));
	return 0;
}

static int train_tokenizer(const struct lwm_args *args, struct lwm_err *e)
{
	struct lwm_paths in = { 0 };
	struct lwm_tokenizer *t = NULL;
	int rc = 0;
	for (int i = 0; i < args->noperand && rc == 0; i++)
		rc = lwm_ingest_find(&in, args->operand[i], true, e);
	if (rc == 0 && a.symbols_file)
		rc = read_symbols(a.symbols_file, &a.symbols, e);
	if (rc == 0 && a.actions)
		rc = add_actions(&a.symbols, e);
	if (rc < 0)
		goto out;
	if (args->common.plan) {
		lwm_log(LWM_INFO, "%" PRId64 " files, %" PRId64 " symbols -> %s", in.n, a.symbols.n, a.output);
		goto out;
	}
	const struct lwm_tokenizer_train_cfg how = { .inputs = (const char *const *)in.v, .ninputs = in.n,
						     .symbols = (const char *const *)a.symbols.v, .nsymbols = a.symbols.n,
						     .vocab = a.vocab, .sample = a.sample,
						     .threads = args->common.threads };
	LWM_GO(lwm_tokenizer_train(&how, a.output, args->common.force, e));
	LWM_GO(lwm_tokenizer_open(&t, a.output, e));
	lwm_log(LWM_INFO, "%s: %" PRId32 " pieces (%" PRId64 " asked for) from %" PRId64 " files", a.output,
		lwm_tokenizer_vocab(t), a.vocab, in.n);
out:
	lwm_tokenizer_free(t);
	lwm_paths_release(&in);
	lwm_paths_release(&a.symbols);
	return rc;
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, train_tokenizer);
}
