/* Whole models for inference: configuration and weights from files onto a device, and the tokenizer beside them. */
#include "common/infer/load.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/path.h"
#include "common/comm/device.h"
#include "common/io/source.h"
#include "common/model/llama_json.h"

/* One tensor at a time through host memory onto the device, in its compute dtype. */
static int upload(struct lk_dev *dev, char *weights, int64_t at, const float *host, float *stage, int64_t n,
		  struct lwm_err *e)
{
	size_t size = lk_dtype_size(lk_dev_dtype(dev));
	int rc;
	if (lk_dev_dtype(dev) == LK_F32) {
		rc = lk_upload(dev, weights + (size_t)at * size, host, (size_t)n * size);
	} else {
		struct lk_view y = lk_view1(weights + (size_t)at * size, lk_dev_dtype(dev), n),
			       x = lk_view1(stage, LK_F32, n);
		rc = lk_upload(dev, stage, host, (size_t)n * sizeof *host);
		if (rc == 0)
			rc = lk_cast(dev, &y, &x);
	}
	return lwm_dev_check(dev, rc, e);
}

static int fill_device(struct lwm_lm *m, struct lwm_source *s, const struct lwm_tensors *p, struct lwm_err *e)
{
	int64_t most = 0;
	float *host = NULL;
	void *stage = NULL;
	int rc = 0;
	LWM_TRY(lwm_source_all_placed(s, p, e));
	for (int64_t i = 0; i < p->n; i++)
		if (p->list[i].count > most)
			most = p->list[i].count;
	host = malloc((size_t)most * sizeof *host);
	if (!host || lk_mem_alloc(m->dev, (size_t)p->total * lk_dtype_size(lk_dev_dtype(m->dev)), &m->weights) ||
	    (lk_dev_dtype(m->dev) != LK_F32 && lk_mem_alloc(m->dev, (size_t)most * sizeof *host, &stage))) {
		rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory for %" PRId64 " weights", s->dir, p->total);
		goto out;
	}
	for (int64_t i = 0; i < p->n; i++) {
		const struct lwm_tensor *t = &p->list[i];
		LWM_GO(lwm_source_read(s, t, false, 0, t->count, host, e));
		LWM_GO(upload(m->dev, m->weights, t->offset, host, stage, t->count, e));
	}
	rc = lwm_dev_check(m->dev, lk_sync(m->dev), e);
out:
	lk_mem_free(m->dev, stage);
	free(host);
	return rc;
}

/* Names a model by its configuration and by what stands for its bytes: the record of a checkpoint, the manifest of a folder. */
static int name_it(struct lwm_lm *m, const struct lwm_source *s, const json_t *config, struct lwm_err *e)
{
	struct lwm_str all = { 0 };
	struct lwm_hash h;
	char *text, *record = NULL;
	int rc = lwm_json_dump(config, JSON_SORT_KEYS | JSON_COMPACT, s->dir, &text, e);
	const char *path = s->model ? lwm_model_manifest(s->model) : (record = lwm_path_join(s->dir, "COMMIT.json"));
	if (rc == 0 && !path && !s->model)
		rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory", s->dir);
	if (rc == 0)
		lwm_str_puts(&all, text);
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
	const char *tok = s->model ? lwm_model_tokenizer(s->model) : lwm_ckpt_meta(s->ckpt)->tokenizer_path;
	snprintf(m->tokenizer_hash, sizeof m->tokenizer_hash, "%s", lwm_source_tokenizer(s));
	m->step = s->ckpt ? lwm_ckpt_meta(s->ckpt)->step : -1;
	if (!(m->dir = strdup(dir)) || (tok && *tok && !(m->tokenizer = strdup(tok))))
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", dir);
	return 0;
}

int lwm_lm_open(struct lwm_lm *m, const char *dir, bool older_ok, struct lk_dev *dev, struct lwm_err *e)
{
	struct lwm_source s;
	const json_t *config;
	struct lwm_tensors p = { 0 };
	memset(m, 0, sizeof *m);
	m->dev = dev;
	int rc = lwm_source_open_folder(&s, dir, older_ok, LWM_CKPT_FULL, &config, e);
	if (rc < 0)
		goto out;
	LWM_GO(lwm_llama_from_json(&m->cfg, config, dir, e));
	LWM_GO(name_it(m, &s, config, e));
	LWM_GO(take_records(m, &s, dir, e));
	LWM_GO(lwm_llama_tensors(&p, &m->cfg, e));
	LWM_GO(fill_device(m, &s, &p, e));
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

int lwm_lm_check_files(const char *dir, bool older_ok, const char *spec, struct lwm_err *e)
{
	struct lwm_lm m = { .step = -1 };
	struct lwm_tokenizer *tok = NULL;
	struct lwm_source s;
	const json_t *config;
	int rc = lwm_source_open_folder(&s, dir, older_ok, LWM_CKPT_QUICK, &config, e);
	if (rc == 0)
		rc = lwm_llama_from_json(&m.cfg, config, dir, e);
	if (rc == 0)
		rc = take_records(&m, &s, dir, e);
	if (rc == 0)
		rc = open_tokenizer(&m, &tok, spec, e);
	lwm_tokenizer_free(tok);
	lwm_lm_close(&m);
	lwm_source_close(&s);
	return rc;
}
