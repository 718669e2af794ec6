/* lwm-merge-ckpt - the parts of a checkpoint become one model folder; or, with --ranks or --mesh, a checkpoint in other parts.
 *
 * The work is common/io/merge.h; here are the choice of the checkpoint, the tokenizer beside a model, and the report. */
#include <ctype.h>
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
#include "common/comm/device.h"
#include "common/comm/mesh.h"
#include "common/eval/logits_probe.h"
#include "common/infer/load_adapted.h"
#include "common/io/merge.h"
#include "common/io/model.h"
#include "common/io/safetensors.h"
#include "common/io/source.h"
#include "common/text/tokenizer.h"

static struct {
	const char *output, *tokenizer, *mesh;
	int64_t ranks, max_file, logits;
	int dtype;
	bool verify, older_ok, ema, fold;
} a = { .max_file = 5LL << 30, .logits = -1 };

static const char *const dtypes[] = { "auto", "bf16", "fp32", NULL };
static const struct lwm_opt opts[] = {
	LWM_OPT_HEAD("Output"),
	LWM_OPT_STR('o', "output", &a.output, "DIR", "model folder; with --ranks or --mesh, a folder of checkpoints",
		    LWM_OPT_REQUIRED),
	LWM_OPT_FLAG(0, "verify", &a.verify, "read everything back and compare it with the checkpoint"),
	LWM_OPT_OLDER(&a.older_ok),
	LWM_OPT_HEAD("Model"),
	LWM_OPT_CHOICE(0, "dtype", &a.dtype, dtypes, "auto: bf16 for language models, fp32 for the VQGAN", 0),
	LWM_OPT_FLAG(0, "ema", &a.ema, "of the average that training with --ema keeps, not of the weights; read back, and --logits 32"),
	LWM_OPT_FLAG(0, "fold-lora", &a.fold, "adapters become part of their matrices; read back, and --logits 32"),
	LWM_OPT_INT(0, "logits", &a.logits, -1, 512, "N",
		    "compare logits after each of N made-up tokens, of checkpoint and model; -1: 32 with --ema or --fold-lora, else none", 0),
	LWM_OPT_INT(0, "max-file-size", &a.max_file, 0, 1LL << 50, "BYTES",
		    "larger models become several files; 0: one", 0),
	LWM_OPT_STR('t', "tokenizer", &a.tokenizer, "SPEC",
		    "put beside the model (default: the recorded one); or 'none'", 0),
	LWM_OPT_HEAD("Checkpoint for another number of ranks"),
	LWM_OPT_INT(0, "ranks", &a.ranks, 0, 1 << 20, "N", "cut into N parts", 0),
	LWM_OPT_STR(0, "mesh", &a.mesh, "DP,FSDP,TP,SP", "cut for this mesh, and write it down", 0),
	LWM_OPT_END
};

static const struct lwm_tool tool = {
	.name = "lwm-merge-ckpt",
	.summary = "a checkpoint into a model that other programs open",
	.operands = "CHECKPOINT",
	.min_operands = 1,
	.max_operands = 1,
	.opts = opts,
	.stops = true,
	.details = "CHECKPOINT is a folder step_XXXXXXXX, or a folder of them: then the newest that\n"
		   "verifies. The model folder has config.json, safetensors in Hugging Face names and\n"
		   "layout (diffusers for a VQGAN), manifest.json and the tokenizer. Nothing else than\n"
		   "weights is kept. With --ranks or --mesh the output is a checkpoint again, optimizer\n"
		   "state included; training goes on from a checkpoint of any mesh, so this is needed\n"
		   "only to spread the reading. With --logits N the model proves itself: it is opened as any\n"
		   "program does, and its logits have to be those of the checkpoint's weights, rounded to the\n"
		   "model's type, to the last bit; that takes the memory of the model in fp32. Folded adapters\n"
		   "are added anew for that, by the products that training uses: within 1e-4 of the largest\n"
		   "logit, 1e-2 in bf16, where single weights may be rounded the other way. Every block read is\n"
		   "checked. Run again it says that the output is complete, or makes a damaged one again; one of\n"
		   "another origin is replaced only with --force.\n",
	.examples = "lwm-merge-ckpt run/ckpt -o model/ --verify\n"
		    "lwm-merge-ckpt run/ckpt/step_00001200 -o model/ --dtype fp32\n"
		    "lwm-merge-ckpt run/ckpt -o average/ --ema\n"
		    "lwm-merge-ckpt run/ckpt -o adapted/ --fold-lora\n"
		    "lwm-merge-ckpt run/ckpt -o run8/ckpt --ranks 8\n",
};

static int open_input(struct lwm_ckpt **out, const char *path, struct lwm_err *e)
{
	char *dir = NULL, *record = lwm_path_join(path, "COMMIT.json");
	int there = record ? lwm_path_there(record, e) : lwm_fail_memory(e, NULL);
	int rc = there < 0 ? there : 0;
	if (rc == 0 && !lwm_path_exists(path))
		rc = lwm_fail(e, LWM_ENOINPUT, "%s: there is no such folder", path);
	else if (rc == 0 && !there && strncmp(lwm_path_base(path), "step_", 5))
		rc = lwm_ckpt_latest(&dir, path, a.older_ok, LWM_CKPT_FULL, lwm_source_passed_over, NULL, e);
	else if (rc == 0 && !(dir = strdup(path)))
		rc = lwm_fail_memory(e, NULL);
	if (rc == 0 && !dir)
		rc = lwm_fail(e, LWM_EDATA, "%s: holds no finished checkpoint", path);
	if (rc == 0)
		rc = lwm_ckpt_open(out, dir, e);
	free(dir);
	free(record);
	return rc;
}

/* ---- the tokenizer beside a model ---- */

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

/* The checkpoint's, with the ids of <s> and </s> that its tokenizer has. NULL: out of memory, or it has none. */
static json_t *config_with(const struct lwm_ckpt_meta *m, const struct lwm_tokenizer *t)
{
	json_t *o = lwm_json_copy(json_object_get(m->config, "model"));
	if (o && !json_object_set_new(o, "bos_token_id", json_integer(lwm_tokenizer_bos(t))) &&
	    !json_object_set_new(o, "eos_token_id", json_integer(lwm_tokenizer_eos(t))))
		return o;
	json_decref(o);
	return NULL;
}

/* NULL when there is none to put. One that the model was not trained with is refused. */
static int open_tokenizer(struct lwm_tokenizer **out, const struct lwm_ckpt_meta *m, struct lwm_err *e)
{
	const char *spec = a.tokenizer ? a.tokenizer : m->tokenizer_path;
	*out = NULL;
	if (!lwm_model_kind_named(m->kind)->reads_text || (a.tokenizer && !strcmp(a.tokenizer, "none")))
		return 0;
	if (!*spec) {
		lwm_log(LWM_WARN, "the checkpoint names no tokenizer; --tokenizer SPEC puts one beside the model");
		return 0;
	}
	int rc = lwm_tokenizer_open_as(out, spec, lwm_model_check_file, m->tokenizer, "the checkpoint", e);
	return rc < 0 ? lwm_context(e, "the tokenizer to put beside the model (--tokenizer SPEC, or 'none')") : 0;
}

/* ---- the two outputs ---- */

static int64_t total_values(const struct lwm_ckpt *c)
{
	int64_t n = 0;
	for (int64_t i = 0; i < lwm_ckpt_count(c); i++)
		n += lwm_ckpt_size(c, i);
	return n;
}

/* What was written: a model, of some of a checkpoint's tensors, or all of a checkpoint. */
struct written {
	const char *what;
	int64_t tensors, values, bytes;
	bool was_there;
};

static int report_done(const struct lwm_ckpt *c, const struct written *w, double seconds, bool json, struct lwm_err *e)
{
	char size[32], speed[32];
	if (w->was_there)
		lwm_log(LWM_INFO, "%s: step %" PRId64 " is complete%s, nothing to do", a.output, lwm_ckpt_get_meta(c)->step,
			a.verify ? " and verified" : "");
	else
		lwm_log(LWM_INFO, "%s: step %" PRId64 ", %" PRId64 " tensors, %s in %.2f s (%s/s)%s", a.output,
			lwm_ckpt_get_meta(c)->step, w->tensors, lwm_bytes_text((double)w->bytes, size, sizeof size), seconds,
			lwm_bytes_text((double)w->bytes / (seconds > 0 ? seconds : 1), speed, sizeof speed),
			a.verify ? ", verified" : "");
	if (!json)
		return 0;
	json_t *o = json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:f,s:b,s:b}", "output", a.output, "what", w->what, "step",
			      (json_int_t)lwm_ckpt_get_meta(c)->step, "tensors", (json_int_t)w->tensors, "values",
			      (json_int_t)w->values, "bytes", (json_int_t)w->bytes, "seconds", seconds, "verified",
			      a.verify, "skipped", w->was_there);
	return lwm_tool_json(o, e);
}

/* ---- do both say the same? ---- */

/* Of the model in `dir`, as an inference program opens it, or with its adapters added as training does; its weights rounded to
 * dtype, which changes nothing of one that was. */
static int take_logits(const char *dir, bool adapted, enum lwm_st_dtype dtype, struct lk_dev *dev, float **out, int64_t *n,
		       struct lwm_err *e)
{
	struct lwm_tensors p = { 0 };
	struct lwm_lm m;
	LWM_TRY(adapted ? lwm_lm_open_adapted(&m, dir, dev, e) : lwm_lm_open(&m, dir, false, dev, e));
	int rc = lwm_llama_tensors(&p, &m.cfg, e);
	if (rc == 0) {
		lwm_st_round(dtype, m.weights, p.total); /* the device is a host's, and keeps fp32 */
		rc = lwm_logits_probe(&m, a.logits, out, n, e);
	}
	lwm_tensors_release(&p);
	lwm_lm_close(&m);
	return rc;
}

static int compare_models(const char *before, enum lwm_st_dtype dtype, struct lk_dev *dev, struct lwm_logits_apart *d,
			  struct lwm_err *e)
{
	float *x = NULL, *y = NULL;
	int64_t n, m;
	double most = !a.fold ? 0 : dtype == LWM_ST_BF16 ? 1e-2 : 1e-4;
	int rc = take_logits(before, a.fold, dtype, dev, &x, &n, e);
	if (rc == 0)
		rc = take_logits(a.output, false, dtype, dev, &y, &m, e);
	if (rc == 0 && n != m)
		rc = lwm_fail(e, LWM_ENO, "%s: has %" PRId64 " logits where the checkpoint has %" PRId64, a.output, m, n);
	if (rc == 0)
		*d = lwm_logits_compare(x, y, n);
	if (rc == 0 && !(d->largest <= most * d->scale))
		rc = lwm_fail(e, LWM_ENO, "%s: its logits differ from the checkpoint's by up to %g, where the largest is %g", a.output,
			      d->largest, d->scale);
	free(x);
	free(y);
	return rc;
}

static int prove_model(struct lwm_ckpt *c, enum lwm_st_dtype dtype, struct lwm_err *e)
{
	struct lwm_str before = { 0 };
	struct lwm_logits_apart d = { 0 };
	struct lk_dev *dev = NULL;
	int rc;
	if (!a.logits)
		return 0;
	lwm_str_printf(&before, "%s%s", a.ema ? "ema:" : "", lwm_ckpt_path(c));
	rc = lwm_str_ok(&before, e);
	if (rc == 0)
		rc = lwm_device_open(&dev, "cpu", 0, e);
	if (rc == 0)
		rc = compare_models(lwm_str_get(&before), dtype, dev, &d, e);
	if (rc == 0)
		lwm_log(LWM_INFO, "%s: logits are the checkpoint's %s%g; the largest is %g", a.output, d.largest > 0 ? "to within " :
			"to the last bit, differences are ", d.largest, d.scale);
	lk_dev_close(dev);
	lwm_str_release(&before);
	return rc;
}

/* Language models alone have logits. */
static int choose_proof(const struct lwm_ckpt_meta *m, struct lwm_err *e)
{
	bool reads_text = lwm_model_kind_named(m->kind)->reads_text;
	if (a.logits > 0 && !reads_text)
		return lwm_fail(e, LWM_ECONFIG, "--logits: a %s has none (--verify compares its weights)", m->kind);
	if (a.logits < 0)
		a.logits = (a.ema || a.fold) && reads_text ? 32 : 0;
	a.verify = a.verify || a.ema || a.fold;
	return 0;
}

static int to_model(struct lwm_ckpt *c, const struct lwm_common *o, struct lwm_err *e)
{
	const struct lwm_ckpt_meta *m = lwm_ckpt_get_meta(c);
	bool bf16 = a.dtype == 1 || (a.dtype == 0 && lwm_model_kind_named(m->kind)->dtype == LWM_ST_BF16);
	struct lwm_model_spec spec = { .dtype = bf16 ? LWM_ST_BF16 : LWM_ST_F32, .max_file_bytes = a.max_file };
	struct lwm_tokenizer *t = NULL;
	struct beside b;
	struct lwm_progress p;
	json_t *config = NULL;
	struct written made = { .what = "model" };
	double start = lwm_now();
	enum lwm_ckpt_group group = a.ema ? LWM_CKPT_EMA : LWM_CKPT_PARAMS;
	int rc = choose_proof(m, e);
	if (rc == 0)
		rc = lwm_merge_size(c, &made.tensors, &made.values, e);
	made.bytes = made.values * (bf16 ? 2 : 4);
	if (rc == 0)
		rc = lwm_ckpt_holds(c, group, e);
	if (rc == 0)
		rc = open_tokenizer(&t, m, e);
	if (rc < 0 || o->plan)
		goto out;
	config = t ? config_with(m, t) : NULL;
	if (t && !config && json_object_get(m->config, "model")) {
		rc = lwm_fail(e, LWM_EMEMORY, "out of memory for the configuration");
		goto out;
	}
	b = (struct beside){ t, json_integer_value(json_object_get(config, "max_position_embeddings")) };
	spec.config = config;
	spec.extra = t ? put_tokenizer : NULL;
	spec.ctx = &b;
	spec.tokenizer = t ? lwm_tokenizer_hash(t)->hex : m->tokenizer;
	lwm_progress_begin(&p, "merge", "bytes", made.values * 4);
	rc = lwm_merge_model(c, group, a.fold, a.output, &spec, o->force, &p, e);
	lwm_progress_end(&p);
	made.was_there = rc == 1;
	if (rc >= 0 && a.verify) {
		lwm_progress_begin(&p, "verify", "bytes", made.values * 4);
		rc = lwm_merge_verify_model(c, group, a.fold, a.output, spec.dtype, &p, e);
		lwm_progress_end(&p);
	}
	if (rc >= 0)
		rc = prove_model(c, spec.dtype, e);
	if (rc >= 0)
		rc = report_done(c, &made, lwm_now() - start, o->json, e);
out:
	if (rc == 0 && o->plan)
		printf("%s step %" PRId64 ", %" PRId64 " values -> %s, %s, %s tokenizer\n", m->kind, m->step, made.values,
		       a.output, bf16 ? "bf16" : "fp32", t ? "with" : "no");
	lwm_tokenizer_free(t);
	json_decref(config);
	return rc;
}

static int verify_recut(struct lwm_ckpt *c, struct lwm_progress *p, struct lwm_err *e)
{
	struct lwm_ckpt *out = NULL;
	char *dir = lwm_ckpt_dir(a.output, lwm_ckpt_get_meta(c)->step);
	int rc = dir ? lwm_ckpt_open(&out, dir, e) : lwm_fail_memory(e, NULL);
	if (rc == 0)
		rc = lwm_merge_verify_ckpt(c, out, p, e);
	lwm_ckpt_close(out);
	free(dir);
	return rc;
}

/* Number of ranks that a mesh without -1 needs: the product of its numbers. */
static int64_t mesh_ranks(const char *text)
{
	int64_t n = 1;
	for (const char *s = text; *s;) {
		char *end;
		if (*s == '-')
			return 0;
		if (!isdigit((unsigned char)*s)) {
			s++;
			continue;
		}
		if (lwm_mul(n, strtol(s, &end, 10), &n) || n > 1 << 20)
			return 0;
		s = end;
	}
	return n;
}

static int to_ranks(struct lwm_ckpt *c, const struct lwm_common *o, struct lwm_err *e)
{
	char mesh[LWM_MESH_TEXT];
	int dim[LWM_AXES], groups = 0;
	struct lwm_progress p;
	double start = lwm_now();
	int64_t ranks = a.ranks ? a.ranks : mesh_ranks(a.mesh);
	struct written made = { .what = "checkpoint", .tensors = lwm_ckpt_count(c), .values = total_values(c) };
	if (ranks < 1)
		return lwm_fail(e, LWM_EUSAGE, "--mesh %s leaves the number of ranks open: give --ranks too", a.mesh);
	if (a.ema || a.fold || a.logits > 0)
		return lwm_fail(e, LWM_EUSAGE, "--ema, --fold-lora and --logits are of models; with --ranks or --mesh all of the checkpoint is kept");
	LWM_TRY(lwm_mesh_parse(a.mesh ? a.mesh : "1,-1,1,1", (int)ranks, dim, e));
	lwm_mesh_text(dim, mesh);
	for (unsigned g = lwm_ckpt_get_meta(c)->groups; g; g >>= 1)
		groups += g & 1;
	made.bytes = made.values * 4 * groups;
	if (o->plan) {
		printf("step %" PRId64 ", %" PRId64 " bytes of values -> %s, %" PRId64 " parts, mesh %s\n",
		       lwm_ckpt_get_meta(c)->step, made.bytes, a.output, ranks, mesh);
		return 0;
	}
	lwm_progress_begin(&p, "cut", "bytes", made.bytes);
	int rc = lwm_merge_recut(c, a.output, (int)ranks, mesh, o->force, &p, e);
	lwm_progress_end(&p);
	made.was_there = rc == 1;
	if (rc >= 0 && a.verify) {
		lwm_progress_begin(&p, "verify", "bytes", made.bytes);
		rc = verify_recut(c, &p, e);
		lwm_progress_end(&p);
	}
	return rc < 0 ? rc : report_done(c, &made, lwm_now() - start, o->json, e);
}

static int merge_checkpoint(const struct lwm_args *args, struct lwm_err *e)
{
	struct lwm_ckpt *c = NULL;
	lwm_stop_install(LWM_STOP_GRACE, NULL);
	int rc = open_input(&c, args->operand[0], e);
	if (rc == 0)
		rc = a.ranks || a.mesh ? to_ranks(c, &args->common, e) : to_model(c, &args->common, e);
	lwm_ckpt_close(c);
	return rc;
}

int main(int argc, char **argv)
{
	return lwm_tool_main(&tool, argc, argv, merge_checkpoint);
}
