/* lwm-eval-chat - puts the questions of turn lists to a model, turn after turn, and compares its answers with those of the lists.
 *
 * What a conversation is, and how a file holds them, is common/eval/dialogue.h. */
#include <stdio.h>

#include "common/cli/opt.h"
#include "common/eval/dialogue.h"
#include "common/infer/session.h"

static struct {
	const char *model, *tokenizer, *device, *output;
	int64_t most, context, prefill;
	struct lwm_sampler draw;
	int cache;
	bool older_ok;
} o = { .device = "auto", .most = 128, .prefill = 1024, .draw = { .temperature = 0, .top_p = 1 } };

static const struct lwm_opt opts[] = {
	LWM_OPT_STR('m', "model", &o.model, "DIR", "merged model, or a checkpoint folder", LWM_OPT_REQUIRED),
	LWM_OPT_OLDER(&o.older_ok),
	LWM_OPT_STR('o', "output", &o.output, "FILE", "how many answers were right, by turn, as JSON", 0),
	LWM_OPT_MODEL_TOKENIZER('t', &o.tokenizer),
	LWM_OPT_DEVICE(&o.device),
	LWM_OPT_CHOICE(0, "cache", &o.cache, lwm_cache_kinds, "how keys and values are kept; int8 takes half of bf16's memory", 0),
	LWM_OPT_HEAD("Answers"),
	LWM_OPT_INT(0, "max-tokens", &o.most, 1, 1 << 24, "N", "most tokens of an answer", 0),
	LWM_OPT_DOUBLE(0, "temperature", &o.draw.temperature, 0, 100, "X", "0 takes the likeliest token", 0),
	LWM_OPT_INT(0, "top-k", &o.draw.top_k, 0, 1 << 24, "K", "only the K likeliest; 0 = all", 0),
	LWM_OPT_DOUBLE(0, "top-p", &o.draw.top_p, 0.0001, 1, "P", "only the likeliest that make up P", 0),
	LWM_OPT_INT(0, "context", &o.context, 0, 1 << 30, "N", "most tokens of a conversation; default: the model's", 0),
	LWM_OPT_PREFILL(&o.prefill),
	LWM_OPT_END,
};

static const struct lwm_tool tool = {
	.name = "lwm-eval-chat",
	.summary = "Holds conversations of several turns with a model and compares its answers with the right ones.",
	.operands = "FILE...",
	.min_operands = 1,
	.max_operands = -1,
	.opts = opts,
	.details = "A FILE is .jsonl, or .json with one list. Each record is a conversation: a turn list of any layout that\n"
		   "lwm-tokenize knows, or a list of questions whose answers are not known. The model sees what it answered itself,\n"
		   "not what the record says; an answer is right when </s> ends it and its words are those of the record. What was\n"
		   "said goes to standard output. Exit code 0 however many are right: the count is data, for lwm-report --check.",
	.examples = "  lwm-eval-chat -m model -o right.json held-out.jsonl >said.txt\n"
		    "  lwm-eval-chat -m model --json held-out.jsonl",
};

static int show_turn(void *arg, const struct lwm_dialogue_turn *t, struct lwm_err *e)
{
	const struct lwm_args *a = arg;
	struct lwm_str b = { 0 };
	lwm_dialogue_turn_text(t, a->common.json, &b);
	int rc = lwm_str_ok(&b, e);
	if (rc == 0 && (fputs(b.s, stdout) < 0 || fflush(stdout)))
		rc = lwm_fail(e, LWM_EIO, "cannot write to standard output");
	lwm_str_release(&b);
	return rc;
}

static int hold_files(struct lwm_dialogue *d, const struct lwm_args *a, struct lwm_err *e)
{
	struct lwm_dialogue_scores scores = { 0 };
	for (int i = 0; i < a->noperand; i++)
		LWM_TRY(lwm_dialogue_hold(d, a->operand[i], show_turn, (void *)a, &scores, e));
	return o.output ? lwm_dialogue_scores_write(&scores, o.output, a->common.force, e) : 0;
}

static int look_at_inputs(const struct lwm_args *a, struct lwm_err *e)
{
	for (int i = 0; i < a->noperand; i++)
		LWM_TRY(lwm_path_want(a->operand[i], e));
	if (o.output && !a->common.force && lwm_path_exists(o.output))
		return lwm_fail(e, LWM_ECANTCREATE, "%s: exists (use --force to replace it)", o.output);
	return lwm_lm_check_files(o.model, o.older_ok, o.tokenizer, e);
}

static int hold_all(const struct lwm_args *a, struct lwm_session *s, struct lwm_err *e)
{
	struct lwm_generate w = { s->g, s->tok, o.draw, o.most };
	struct lwm_dialogue *d;
	if (o.context)
		lwm_lm_warn_length(&s->m, o.context, "--context");
	LWM_TRY(lwm_dialogue_new(&d, &w, s->context, false, e));
	int rc = hold_files(d, a, e);
	lwm_dialogue_free(d);
	return rc;
}

static int eval_chat(const struct lwm_args *a, struct lwm_err *e)
{
	struct lwm_session_how how = { .model = o.model, .tokenizer = o.tokenizer, .device = o.device, .older_ok = o.older_ok,
				       .cache = (enum lwm_cache_kind)o.cache, .threads = a->common.threads,
				       .prefill_chunk = o.prefill, .streams = 1, .context = o.context };
	struct lwm_session s = { 0 };
	LWM_TRY(look_at_inputs(a, e));
	if (a->common.plan) {
		for (int i = 0; i < a->noperand; i++)
			printf("to hold: %s\n", a->operand[i]);
		return 0;
	}
	o.draw.seed = (uint64_t)a->common.seed;
	int rc = lwm_session_open(&s, &how, e);
	if (rc == 0)
		rc = hold_all(a, &s, e);
	lwm_session_close(&s);
	return rc;
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, eval_chat);
}
