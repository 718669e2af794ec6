/* load.c - a language model for inference: configuration and weights from files onto a device, and the tokenizer beside them. */
#include "common/infer/load.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/path.h"
#include "common/infer/load_int.h"
#include "common/model/llama_json.h"

/* Names a model by its configuration and by what stands for its bytes: the record of a checkpoint, the manifest of a folder. */
static int name_model(struct lwm_lm *m, const struct lwm_source *s, const json_t *config, struct lwm_err *e)
{
	struct lwm_str all = { 0 };
	struct lwm_hash h;
	char *text, *record = NULL;
	int rc = lwm_json_dump(config, JSON_SORT_KEYS | JSON_COMPACT, s->dir, &text, e);
	const char *path = s->model ? lwm_model_manifest(s->model) : (record = lwm_path_join(s->dir, "COMMIT.json"));
	if (rc == 0 && !path && !s->model)
		rc = lwm_fail_memory(e, s->dir);
	if (rc == 0)
		lwm_str_puts(&all, text);
	if (rc == 0 && s->group != LWM_CKPT_PARAMS)
		lwm_str_puts(&all, lwm_ckpt_group_names[s->group]);
	if (rc == 0 && path)
		rc = lwm_hash_file(path, &h, NULL, e);
	if (rc == 0 && path)
		lwm_str_puts(&all, h.hex);
	if (rc == 0)
		rc = lwm_str_ok(&all, e);
	if (rc == 0)
		memcpy(m->hash, lwm_hash_bytes(all.s, all.len).hex, sizeof m->hash);
	lwm_str_release(&all);
	free(text);
	free(record);
	return rc;
}

static int take_records(struct lwm_lm *m, const struct lwm_source *s, const char *dir, struct lwm_err *e)
{
	const char *tok = s->model ? lwm_model_tokenizer(s->model) : lwm_ckpt_get_meta(s->ckpt)->tokenizer_path;
	snprintf(m->tokenizer_hash, sizeof m->tokenizer_hash, "%s", lwm_source_tokenizer(s));
	m->step = s->ckpt ? lwm_ckpt_get_meta(s->ckpt)->step : -1;
	if (!(m->dir = strdup(dir)) || (tok && *tok && !(m->tokenizer = strdup(tok))))
		return lwm_fail_memory(e, dir);
	return 0;
}

/* What is known without the weights. */
static int open_source(struct lwm_lm *m, struct lwm_source *s, const json_t **config, const char *dir, bool older_ok,
		       enum lwm_ckpt_check how, struct lwm_err *e)
{
	LWM_TRY(lwm_source_open_folder(s, dir, older_ok, how, config, e));
	LWM_TRY(lwm_llama_from_json(&m->cfg, *config, dir, e));
	if (m->cfg.input_dim)
		return lwm_fail(e, LWM_ECONFIG, "%s: holds layers that were trained on clips, no language model: one can start from them "
				"(--start-from trunk-model:DIR)", dir);
	return take_records(m, s, dir, e);
}

int lwm_lm_open(struct lwm_lm *m, const char *dir, bool older_ok, struct lk_dev *dev, struct lwm_err *e)
{
	struct lwm_tensors p = { 0 };
	struct lwm_source s;
	const json_t *config;
	int rc;

	memset(m, 0, sizeof *m);
	m->dev = dev;
	LWM_GO(open_source(m, &s, &config, dir, older_ok, LWM_CKPT_FULL, e));
	LWM_GO(name_model(m, &s, config, e));
	LWM_GO(lwm_llama_tensors(&p, &m->cfg, e));
	LWM_GO(lwm_source_all_placed(&s, &p, e));
	LWM_GO(lwm_load_weights(&m->weights, dev, lk_dev_dtype(dev), &s, &p, s.dir, e));
out:
	lwm_tensors_release(&p);
	lwm_source_close(&s);
	if (rc < 0)
		lwm_lm_close(m);
	return rc;
}

void lwm_lm_close(struct lwm_lm *m)
{
	if (m->weights)
		lk_mem_free(m->dev, m->weights);
	free(m->tokenizer);
	free(m->dir);
	memset(m, 0, sizeof *m);
}

void lwm_lm_warn_length(const struct lwm_lm *m, int64_t tokens, const char *what)
{
	static bool warned;

	if (tokens <= m->cfg.max_seq || warned)
		return;
	warned = true;
	lwm_log(LWM_WARN, "%s: %" PRId64 " tokens in one context, %s was made for %" PRId64
		" (max_position_embeddings): what it says of positions behind that is worth little", what, tokens, m->dir, m->cfg.max_seq);
}

/* ---- the tokenizer of a model ---- */

static int open_tokenizer(const struct lwm_lm *m, struct lwm_tokenizer **tok, const char *spec, struct lwm_err *e)
{
	spec = spec ? spec : m->tokenizer;
	if (!spec)
		return lwm_fail(e, LWM_EUSAGE, "%s: has no tokenizer beside it; give --tokenizer", m->dir);
	LWM_TRY(lwm_tokenizer_open_as(tok, spec, lwm_model_check_file, m->tokenizer_hash, m->dir, e));
	if (lwm_tokenizer_vocab(*tok) == m->cfg.vocab_text)
		return 0;
	return lwm_fail(e, LWM_ECONFIG, "the tokenizer %s has %d pieces, the model %s %" PRId64, spec, lwm_tokenizer_vocab(*tok),
			m->dir, m->cfg.vocab_text);
}

int lwm_lm_open_with_tokenizer(struct lwm_lm *m, struct lwm_tokenizer **tok, const char *dir, bool older_ok,
			       const char *spec, struct lk_dev *dev, struct lwm_err *e)
{
	*tok = NULL;
	LWM_TRY(lwm_lm_open(m, dir, older_ok, dev, e));
	int rc = open_tokenizer(m, tok, spec, e);
	if (rc < 0) {
		lwm_tokenizer_free(*tok);
		*tok = NULL;
		lwm_lm_close(m);
	}
	return rc;
}

int lwm_lm_look(struct lwm_lm *m, struct lwm_tokenizer **tok, const char *dir, bool older_ok, const char *spec, struct lwm_err *e)
{
	struct lwm_source s;
	const json_t *config;

	*m = (struct lwm_lm){ .step = -1 };
	*tok = NULL;
	int rc = open_source(m, &s, &config, dir, older_ok, LWM_CKPT_QUICK, e);
	rc = rc < 0 ? rc : open_tokenizer(m, tok, spec, e);
	lwm_source_close(&s);
	if (rc < 0) {
		lwm_tokenizer_free(*tok);
		*tok = NULL;
		lwm_lm_close(m);
	}
	return rc;
}

int lwm_lm_check_files(const char *dir, bool older_ok, const char *spec, struct lwm_err *e)
{
	struct lwm_lm m;
	struct lwm_tokenizer *tok;

	LWM_TRY(lwm_lm_look(&m, &tok, dir, older_ok, spec, e));
	lwm_tokenizer_free(tok);
	lwm_lm_close(&m);
	return 0;
}
