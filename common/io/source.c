/* A model that stands in files, a checkpoint of a run or a folder that other programs open, read as one thing. */
#include "common/io/source.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/path.h"
#include "common/base/str.h"
#include "common/tensor/adapter.h"

void lwm_source_passed_over(void *ctx, const char *dir, const struct lwm_err *why)
{
	(void)ctx;
	(void)dir;
	lwm_log(LWM_WARN, "passing over %s", why->msg);
}

/* "checkpoint:ROOT" -> the step folder to read, malloc'ed. */
static int step_folder(char **dir, const char *path, bool older_ok, enum lwm_ckpt_check how, struct lwm_err *e)
{
	char *record = lwm_path_join(path, "COMMIT.json");
	int is_step = record ? lwm_path_there(record, e) : lwm_fail_memory(e, path);
	free(record);
	LWM_TRY(is_step);
	if (is_step) {
		*dir = strdup(path);
		return *dir ? 0 : lwm_fail_memory(e, path);
	}
	LWM_TRY(lwm_ckpt_latest(dir, path, older_ok, how, lwm_source_passed_over, NULL, e));
	if (*dir)
		return 0;
	return lwm_fail(e, LWM_ENOINPUT, lwm_path_exists(path) ? "%s: no checkpoint in it" : "%s: is not there", path);
}

static const char average_prefix[] = "ema:";

int lwm_source_parse(const char *text, enum lwm_source_kind *kind, const char **path, struct lwm_err *e)
{
	static const char *const prefix[] = { [LWM_SOURCE_CHECKPOINT] = "checkpoint:", [LWM_SOURCE_AVERAGE] = average_prefix,
						[LWM_SOURCE_MODEL] = "model:" };
	for (int k = LWM_SOURCE_CHECKPOINT; k <= LWM_SOURCE_MODEL; k++) {
		size_t n = strlen(prefix[k]);
		if (strncmp(text, prefix[k], n))
			continue;
		*kind = (enum lwm_source_kind)k;
		*path = text + n;
		return 0;
	}
	return lwm_fail(e, LWM_EUSAGE, "'%s': expected random, checkpoint:DIR, model:DIR or ema:DIR, each of these also after text- or trunk-",
			text);
}

int lwm_source_settle(struct lwm_source *s, enum lwm_source_kind kind, struct lwm_err *e)
{
	s->group = kind == LWM_SOURCE_AVERAGE ? LWM_CKPT_EMA : LWM_CKPT_PARAMS;
	LWM_TRY(lwm_ckpt_holds(s->ckpt, s->group, e));
	return lwm_fold_open(&s->fold, s->ckpt, e);
}

int lwm_source_open(struct lwm_source *s, const char *text, bool older_ok, enum lwm_ckpt_check how, struct lwm_err *e)
{
	enum lwm_source_kind kind;
	const char *path;
	memset(s, 0, sizeof *s);
	LWM_TRY(lwm_source_parse(text, &kind, &path, e));
	if (kind != LWM_SOURCE_MODEL) {
		LWM_TRY(step_folder(&s->dir, path, older_ok, how, e));
		LWM_TRY(how == LWM_CKPT_SEAL ? lwm_ckpt_open_record(&s->ckpt, s->dir, LWM_CKPT_QUICK, e) :
					       lwm_ckpt_open(&s->ckpt, s->dir, e));
		return lwm_source_settle(s, kind, e);
	}
	s->dir = strdup(path);
	if (!s->dir)
		return lwm_fail_memory(e, text);
	return lwm_model_open(&s->model, s->dir, e);
}

void lwm_source_close(struct lwm_source *s)
{
	lwm_fold_close(&s->fold);
	lwm_ckpt_close(s->ckpt);
	lwm_model_close(s->model);
	free(s->dir);
}

int lwm_source_read(struct lwm_source *s, const struct lwm_tensor *t, bool may_lack, int64_t offset, int64_t n, float *out,
		    struct lwm_err *e)
{
	int64_t i = s->ckpt ? lwm_ckpt_find(s->ckpt, t->name) : lwm_model_find(s->model, t->name);
	if (s->fold.any && lwm_adapter_is_name(t->name))
		i = -1;
	if (i < 0 && may_lack)
		return 0;
	if (s->model)
		return lwm_model_read_named(s->model, t, offset, n, out, e);
	if (i < 0)
		return lwm_fail(e, LWM_ECONFIG, "%s: has no tensor '%s'", s->dir, t->name);
	const struct lwm_tensor *have = lwm_ckpt_tensor(s->ckpt, i);
	if (!lwm_tensor_same_shape(have, t))
		return lwm_fail(e, LWM_ECONFIG,
				"%s: tensor '%s' is %" PRId64 " x %" PRId64 ", this model wants %" PRId64 " x %" PRId64,
				s->dir, t->name, have->shape[0], have->ndim > 1 ? have->shape[1] : 1, t->shape[0],
				t->ndim > 1 ? t->shape[1] : 1);
	return lwm_fold_read(&s->fold, s->group, i, offset, n, out, e);
}

/* Parts of other programs' files that hold no weights: tables of angles, masks; and a head that is the embedding again. */
static bool is_no_weight(const char *name, bool tied)
{
	return lwm_path_has_suffix(name, ".rotary_emb.inv_freq") || lwm_path_has_suffix(name, ".masked_bias") ||
	       (tied && !strcmp(name, "lm_head.weight"));
}

int lwm_source_all_placed(const struct lwm_source *s, const struct lwm_tensors *t, struct lwm_err *e)
{
	int64_t count = s->model ? lwm_model_count(s->model) : lwm_ckpt_count(s->ckpt);
	bool tied = !lwm_tensors_find(t, "lm_head.weight");
	for (int64_t k = 0; k < count; k++) {
		const char *name = (s->model ? lwm_model_tensor(s->model, k) : lwm_ckpt_tensor(s->ckpt, k))->name;
		bool known = is_no_weight(name, tied) || lwm_tensor_is_beside(name) || (s->fold.any && lwm_adapter_is_name(name));
		for (int64_t i = 0; i < t->n && !known; i++) /* most sources have the same order: the k-th first */
			known = !strcmp(t->list[(i + k) % t->n].name, name);
		if (!known)
			return lwm_fail(e, LWM_ECONFIG, "%s: has a tensor '%s' that this model has no place for", s->dir, name);
	}
	return 0;
}

/* What a source records: a hash of the tokenizer, "" when it does not say. */
const char *lwm_source_tokenizer(const struct lwm_source *s)
{
	const char *hash = s->model ? lwm_model_tokenizer_hash(s->model) : lwm_ckpt_get_meta(s->ckpt)->tokenizer;
	return hash ? hash : "";
}

const json_t *lwm_source_config(const struct lwm_source *s)
{
	return s->model ? lwm_model_config(s->model) : json_object_get(lwm_ckpt_get_meta(s->ckpt)->config, "model");
}

/* 1 yes, 0 no: then it is a checkpoint, or nothing. What has a configuration beside it is said to lack weights, if it does. */
static int is_model_folder(const char *dir, struct lwm_err *e)
{
	char *config = lwm_path_join(dir, "config.json");
	int rc = config ? lwm_path_there(config, e) : lwm_fail_memory(e, dir);
	free(config);
	return rc == 0 ? lwm_model_lies_in(dir) : rc;
}

int lwm_source_open_folder(struct lwm_source *s, const char *dir, bool older_ok, enum lwm_ckpt_check how, const json_t **config,
			   struct lwm_err *e)
{
	struct lwm_str text = { 0 };
	bool average = !strncmp(dir, average_prefix, strlen(average_prefix));
	int rc = average ? 0 : is_model_folder(dir, e);
	memset(s, 0, sizeof *s);
	if (rc >= 0) {
		lwm_str_printf(&text, "%s%s", average ? "" : rc ? "model:" : "checkpoint:", dir);
		rc = lwm_str_ok(&text, e);
	}
	if (rc == 0)
		rc = lwm_source_open(s, text.s, older_ok, how, e);
	lwm_str_release(&text);
	if (rc < 0)
		return rc;
	*config = lwm_source_config(s);
	return *config ? 0 : lwm_fail(e, LWM_EDATA, "%s: its record holds no model configuration", s->dir);
}
