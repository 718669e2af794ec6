/* lwm-convert - a model of another program becomes a folder that every program opens.
 *
 * The work is common/io/convert.h; here are the configuration, the tokenizer beside it, and the report. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/num.h"
#include "common/base/path.h"
#include "common/base/stop.h"
#include "common/cli/opt.h"
#include "common/io/convert.h"
#include "common/model/llama_json.h"
#include "common/model/vqgan.h"
#include "common/text/tokenizer.h"

static struct {
	const char *output, *tokenizer;
	int64_t max_file;
	int dtype;
	bool verify;
} a = { .max_file = 5LL << 30 };

static const char *const dtypes[] = { "auto", "bf16", "fp32", NULL };
static const struct lwm_opt opts[] = {
	LWM_OPT_HEAD("Output"),
	LWM_OPT_STR('o', "output", &a.output, "DIR", "model folder", LWM_OPT_REQUIRED),
	LWM_OPT_CHOICE(0, "dtype", &a.dtype, dtypes, "auto: bf16 where all weights are that, else fp32", 0),
	LWM_OPT_INT(0, "max-file-size", &a.max_file, 0, 1LL << 50, "BYTES", "larger models become several files; 0: one", 0),
	LWM_OPT_STR('t', "tokenizer", &a.tokenizer, "SPEC", "put beside the model (default: the one beside it); or 'none'", 0),
	LWM_OPT_FLAG(0, "verify", &a.verify, "read everything back and compare it"),
	LWM_OPT_END
};

static const struct lwm_tool tool = {
	.name = "lwm-convert",
	.summary = "a model of another program into a folder that every program opens",
	.operands = "MODEL",
	.min_operands = 1,
	.max_operands = 1,
	.opts = opts,
	.stops = true,
	.details = "MODEL is a folder with config.json and weights in safetensors (model.safetensors or an\n"
		   "index), of PyTorch (pytorch_model.bin or an index), or of LWM for JAX (params,\n"
		   "streaming_params, streaming_train_state); or the pickle of LWM's frame tokenizer. Every\n"
		   "program opens these by themselves; a folder made of them is in the names and the layout of\n"
		   "Hugging Face (diffusers for a VQGAN), carries checksums, and is opened faster.\n"
		   "\n"
		   "What the configuration asks for and is not computed here is refused by name. Nothing of a\n"
		   "pickle is executed. Run again, an output that holds the same is complete; another one is\n"
		   "replaced only with --force.\n",
	.examples = "lwm-convert LWM-Text-1M/ -o models/text-1m --verify\n"
		    "lwm-convert LWM-Chat-1M-Jax/vqgan -o models/vqgan\n"
		    "lwm-convert Llama-2-7b-hf/ -o models/llama --dtype fp32\n",
};

struct beside {
	const struct lwm_tokenizer *t;
	int64_t context;
};

static int put_tokenizer(void *ctx, const char *dir, struct lwm_err *e)
{
	const struct beside *b = ctx;
	LWM_TRY(lwm_tokenizer_copy_to(b->t, dir, false, e));
	int rc = lwm_tokenizer_write_hf(b->t, dir, b->context, e);
	return rc < 0 ? rc : 0;
}

/* A language model, or layers of one: what is computed with goes in, and the ids of <s> and </s> as they were. */
static int describe_lm(const json_t *config, const char *name, bool trunk, json_t **out, struct lwm_tensors *table, int64_t *vocab,
		       struct lwm_err *e)
{
	static const char *const ids[] = { "bos_token_id", "eos_token_id", "pad_token_id" };
	struct lwm_llama_cfg c;
	bool failed = false;
	if (trunk)
		return lwm_fail(e, LWM_ECONFIG, "%s: layers trained on clips are a folder of ours as they are", name);
	LWM_TRY(lwm_llama_from_json(&c, config, name, e));
	LWM_TRY(lwm_llama_tensors(table, &c, e));
	LWM_TRY(lwm_llama_to_json(&c, out, e));
	for (int i = 0; i < 3; i++) {
		json_t *v = json_object_get(config, ids[i]);
		if (v && !json_is_null(v))
			failed |= json_object_set(*out, ids[i], v) < 0;
	}
	*vocab = c.vocab_text;
	return failed ? lwm_fail_memory(e, "the configuration") : 0;
}

static int describe(const struct lwm_model *m, const char *name, json_t **out, struct lwm_tensors *table, int64_t *vocab,
		    struct lwm_err *e)
{
	const struct lwm_model_kind *kind = lwm_model_get_kind(m);
	struct lwm_vqgan_cfg c;
	if (strcmp(kind->name, "vqgan"))
		return describe_lm(lwm_model_config(m), name, !kind->reads_text, out, table, vocab, e);
	LWM_TRY(lwm_vqgan_cfg_from_json(&c, lwm_model_config(m), name, e));
	LWM_TRY(lwm_vqgan_tensors(table, &c, e));
	return lwm_vqgan_cfg_to_json(&c, out, e);
}

/* The tokenizer to put beside it; NULL: none. */
static int open_tokenizer(struct lwm_tokenizer **out, const struct lwm_model *m, int64_t vocab, struct lwm_err *e)
{
	const char *spec = a.tokenizer ? a.tokenizer : lwm_model_tokenizer(m);
	if (!lwm_model_get_kind(m)->reads_text || (a.tokenizer && !strcmp(a.tokenizer, "none")))
		return 0;
	if (!spec) {
		lwm_log(LWM_WARN, "there is no tokenizer.model beside the model; --tokenizer SPEC puts one into its folder");
		return 0;
	}
	LWM_TRY(lwm_tokenizer_open_as(out, spec, lwm_model_check_file, lwm_model_tokenizer_hash(m), "the model", e));
	if (lwm_tokenizer_vocab(*out) != vocab)
		return lwm_fail(e, LWM_ECONFIG, "the tokenizer %s has %d pieces, the model %" PRId64, spec, lwm_tokenizer_vocab(*out), vocab);
	return 0;
}

struct job {
	struct lwm_source s;
	struct lwm_tensors table;
	struct lwm_model_spec spec;
	struct lwm_tokenizer *t;
	struct beside beside;
	json_t *config;
	const char *from;
};

/* 1: the output holds that already; 0: it is to be made. */
static int find_done(struct job *j, struct lwm_err *e)
{
	struct lwm_model *m = NULL;
	struct lwm_err why = { 0 };
	int rc = lwm_path_there(a.output, e);
	if (rc <= 0)
		return rc;
	rc = lwm_model_open(&m, a.output, &why);
	const char *hash = rc == 0 ? lwm_model_tokenizer_hash(m) : "";
	bool same = rc == 0 && lwm_model_manifest(m) && json_equal(lwm_model_config(m), j->config) &&
		    lwm_model_dtype(m) == j->spec.dtype && !strcmp(hash, j->spec.tokenizer) &&
		    !lwm_model_tokenizer(m) == !j->t;
	lwm_model_close(m);
	if (same)
		rc = lwm_convert_compare(&j->s, &j->table, a.output, j->spec.dtype, NULL, &why);
	if (rc == -LWM_ESAVED)
		return lwm_fail(e, LWM_ESAVED, "%s", why.msg);
	return same && rc == 0; /* else lwm_model_create says what stands in the way */
}

static int prepare(struct job *j, struct lwm_err *e)
{
	struct lwm_str text = { 0 };
	int64_t vocab = 0;
	if (!lwm_path_exists(j->from))
		return lwm_fail(e, LWM_ENOINPUT, "%s: there is no such model", j->from);
	lwm_str_printf(&text, "model:%s", j->from);
	int rc = lwm_str_ok(&text, e);
	if (rc == 0)
		rc = lwm_source_open(&j->s, text.s, false, LWM_CKPT_FULL, e);
	lwm_str_release(&text);
	LWM_TRY(rc);
	LWM_TRY(describe(j->s.model, j->from, &j->config, &j->table, &vocab, e));
	LWM_TRY(open_tokenizer(&j->t, j->s.model, vocab, e));
	bool bf16 = a.dtype == 1 || (a.dtype == 0 && lwm_model_dtype(j->s.model) == LWM_ST_BF16);
	if (json_object_get(j->config, "torch_dtype") &&
	    json_object_set_new(j->config, "torch_dtype", json_string(bf16 ? "bfloat16" : "float32")) < 0)
		return lwm_fail_memory(e, "the configuration");
	j->beside = (struct beside){ j->t, json_integer_value(json_object_get(j->config, "max_position_embeddings")) };
	j->spec = (struct lwm_model_spec){
		.kind = lwm_model_get_kind(j->s.model)->name, .config = j->config, .dtype = bf16 ? LWM_ST_BF16 : LWM_ST_F32,
		.max_file_bytes = a.max_file, .extra = j->t ? put_tokenizer : NULL, .ctx = &j->beside,
		.tokenizer = j->t ? lwm_tokenizer_hash(j->t)->hex : lwm_model_tokenizer_hash(j->s.model),
	};
	return lwm_source_all_placed(&j->s, &j->table, e);
}

static int report(const struct job *j, bool was_there, double seconds, bool json, struct lwm_err *e)
{
	char size[32];
	int64_t bytes = j->table.params * lwm_st_dtype_bytes(j->spec.dtype);
	if (was_there)
		lwm_log(LWM_INFO, "%s: is complete, every value compared; nothing to do", a.output);
	else
		lwm_log(LWM_INFO, "%s: %" PRId64 " tensors, %s of %s in %.2f s%s", a.output, j->table.n,
			lwm_bytes_text((double)bytes, size, sizeof size), lwm_st_dtype_name(j->spec.dtype), seconds,
			a.verify ? ", verified" : "");
	if (!json)
		return 0;
	return lwm_tool_json(json_pack("{s:s,s:I,s:I,s:I,s:f,s:b,s:b}", "output", a.output, "tensors", (json_int_t)j->table.n, "values",
				       (json_int_t)j->table.params, "bytes", (json_int_t)bytes, "seconds", seconds, "verified",
				       a.verify || was_there, "skipped", was_there), e);
}

static int convert(struct job *j, const struct lwm_common *o, struct lwm_err *e)
{
	struct lwm_progress p;
	double start = lwm_now();
	int64_t bytes = j->table.params * 4;
	int done = o->force ? 0 : find_done(j, e);
	if (done)
		return done < 0 ? done : report(j, true, 0, o->json, e);
	lwm_progress_begin(&p, "convert", "bytes", bytes);
	int rc = lwm_convert(&j->s, &j->table, a.output, &j->spec, o->force, &p, e);
	lwm_progress_end(&p);
	if (rc == 0 && a.verify) {
		lwm_progress_begin(&p, "verify", "bytes", bytes);
		rc = lwm_convert_compare(&j->s, &j->table, a.output, j->spec.dtype, &p, e);
		lwm_progress_end(&p);
	}
	return rc < 0 ? rc : report(j, false, lwm_now() - start, o->json, e);
}

static int run(const struct lwm_args *args, struct lwm_err *e)
{
	struct job j = { .from = args->operand[0] };
	lwm_stop_install(LWM_STOP_GRACE, NULL);
	int rc = prepare(&j, e);
	if (rc == 0 && args->common.plan)
		printf("%s, %" PRId64 " tensors, %" PRId64 " values -> %s, %s, %s tokenizer\n", j.spec.kind, j.table.n, j.table.params,
		       a.output, lwm_st_dtype_name(j.spec.dtype), j.t ? "with" : "no");
	else if (rc == 0)
		rc = convert(&j, &args->common, e);
	lwm_tokenizer_free(j.t);
	json_decref(j.config);
	lwm_tensors_release(&j.table);
	lwm_source_close(&j.s);
	return rc;
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, run);
}
