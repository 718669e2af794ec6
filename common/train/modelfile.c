#include "common/train/modelfile.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/path.h"
#include "common/io/ckpt.h"
#include "common/io/model.h"
#include "common/model/device.h"
#include "common/train/objective.h"
#include "common/train/share.h"

/* "checkpoint:ROOT" -> the step folder to read, malloc'ed. */
static int step_folder(char **dir, const char *path, bool older_ok, enum lwm_ckpt_check how, struct lwm_err *e)
{
	char *record = lwm_path_join(path, "COMMIT.json");
	int is_step = record ? lwm_path_there(record, e) : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	free(record);
	LWM_TRY(is_step);
	if (is_step) {
		*dir = strdup(path);
		return *dir ? 0 : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	}
	LWM_TRY(lwm_ckpt_latest(dir, path, older_ok, how, lwm_share_passed_over, NULL, e));
	if (*dir)
		return 0;
	return lwm_fail(e, LWM_ENOINPUT, lwm_path_exists(path) ? "%s: no checkpoint in it" : "%s: is not there", path);
}

static struct lwm_ckpt_tensor shape_of(const struct lwm_tensor *t)
{
	struct lwm_ckpt_tensor c = { .name = t->name, .ndim = t->ndim };
	memcpy(c.shape, t->shape, sizeof c.shape);
	return c;
}

/* What both kinds of source offer. */
struct source {
	struct lwm_ckpt *ckpt;
	struct lwm_model *model;
	char *dir;
};

static int source_open(struct source *s, const char *text, bool older_ok, enum lwm_ckpt_check how, struct lwm_err *e)
{
	memset(s, 0, sizeof *s);
	if (!strncmp(text, "checkpoint:", 11)) {
		LWM_TRY(step_folder(&s->dir, text + 11, older_ok, how, e));
		return how == LWM_CKPT_SEAL ? lwm_ckpt_open_record(&s->ckpt, s->dir, LWM_CKPT_QUICK, e) :
					      lwm_ckpt_open(&s->ckpt, s->dir, e);
	}
	if (!strncmp(text, "model:", 6)) {
		s->dir = strdup(text + 6);
		if (!s->dir)
			return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", text);
		return lwm_model_open(&s->model, s->dir, e);
	}
	return lwm_fail(e, LWM_EUSAGE, "'%s': expected random, checkpoint:DIR, model:DIR, text-checkpoint:DIR or text-model:DIR", text);
}

/* The same on many ranks, a checkpoint with one search for all. Collective. */
static int source_open_shared(struct source *s, struct lwm_comm *comm, const char *text, bool older_ok, struct lwm_err *e)
{
	if (strncmp(text, "checkpoint:", 11))
		return lwm_agree(comm, source_open(s, text, older_ok, LWM_CKPT_FULL, e), e);
	memset(s, 0, sizeof *s);
	LWM_TRY(lwm_share_open(&s->ckpt, comm, text + 11, older_ok, e));
	s->dir = strdup(lwm_ckpt_path(s->ckpt));
	return s->dir ? 0 : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", text);
}

static void source_close(struct source *s)
{
	lwm_ckpt_close(s->ckpt);
	lwm_model_close(s->model);
	free(s->dir);
}

static int source_read(struct source *s, const struct lwm_tensor *t, bool may_lack, int64_t offset, int64_t n, float *out,
		       struct lwm_err *e)
{
	struct lwm_ckpt_tensor want = shape_of(t);
	int64_t i = s->ckpt ? lwm_ckpt_find(s->ckpt, t->name) : lwm_model_find(s->model, t->name);
	if (i < 0 && may_lack)
		return 0;
	if (s->model)
		return lwm_model_read_named(s->model, &want, offset, n, out, e);
	if (i < 0)
		return lwm_fail(e, LWM_ECONFIG, "%s: has no tensor '%s'", s->dir, t->name);
	const struct lwm_ckpt_tensor *have = lwm_ckpt_tensor(s->ckpt, i);
	if (have->ndim != want.ndim || memcmp(have->shape, want.shape, (size_t)want.ndim * sizeof *want.shape))
		return lwm_fail(e, LWM_ECONFIG,
				"%s: tensor '%s' is %" PRId64 " x %" PRId64 ", this model wants %" PRId64 " x %" PRId64,
				s->dir, t->name, have->shape[0], have->ndim > 1 ? have->shape[1] : 1, want.shape[0],
				want.ndim > 1 ? want.shape[1] : 1);
	return lwm_ckpt_read(s->ckpt, LWM_CKPT_PARAMS, i, offset, n, out, e);
}

/* Parts of other programs' files that hold no weights: tables of angles, masks; and a head that is the embedding again. */
static bool is_no_weight(const char *name, bool tied)
{
	return lwm_path_has_suffix(name, ".rotary_emb.inv_freq") || lwm_path_has_suffix(name, ".masked_bias") ||
	       (tied && !strcmp(name, "lm_head.weight"));
}

/* Every tensor of the source has a place among t[0..n): what is left out would be lost in silence. */
static int all_have_places(const struct source *s, const struct lwm_tensor *t, int64_t n, struct lwm_err *e)
{
	int64_t count = s->model ? lwm_model_count(s->model) : lwm_ckpt_count(s->ckpt);
	bool tied = true;
	for (int64_t i = 0; i < n && tied; i++)
		tied = strcmp(t[i].name, "lm_head.weight") != 0;
	for (int64_t k = 0; k < count; k++) {
		const char *name = (s->model ? lwm_model_tensor(s->model, k) : lwm_ckpt_tensor(s->ckpt, k))->name;
		bool known = is_no_weight(name, tied);
		for (int64_t i = 0; i < n && !known; i++)
			known = !strcmp(t[(i + k) % n].name, name);
		if (!known)
			return lwm_fail(e, LWM_ECONFIG, "%s: has a tensor '%s' that this model has no place for", s->dir, name);
	}
	return 0;
}

/* What a source records: a hash of the tokenizer, "" when it does not say. */
static const char *tokenizer_of(const struct source *s)
{
	const char *hash = s->model ? lwm_model_tokenizer_hash(s->model) : lwm_ckpt_meta(s->ckpt)->tokenizer;
	return hash ? hash : "";
}

static int same_tokenizer(const struct source *s, const char *want, struct lwm_err *e)
{
	const char *have = tokenizer_of(s);
	if (!want || !*want || !*have || !strcmp(want, have))
		return 0;
	return lwm_fail(e, LWM_ECONFIG, "%s was made with the tokenizer of hash %s; the data with the one of hash %s", s->dir,
			have, want);
}

/* Does what was opened belong to the data and to t[0..n)? */
static int belongs(const struct source *s, const char *tokenizer, const struct lwm_tensor *t, int64_t n, struct lwm_err *e)
{
	LWM_TRY(same_tokenizer(s, tokenizer, e));
	return all_have_places(s, t, n, e);
}

int lwm_weights_look(const char *source, bool older_ok, const char *tokenizer, const struct lwm_tensor *t, int64_t n,
		     struct lwm_err *e)
{
	struct source s;
	int rc = source_open(&s, source, older_ok, LWM_CKPT_QUICK, e);
	if (rc == 0)
		rc = belongs(&s, tokenizer, t, n, e);
	source_close(&s);
	return rc;
}

int lwm_weights_read(struct lwm_comm *comm, const char *source, bool older_ok, const char *tokenizer, const struct lwm_tensor *t,
		     int64_t n, bool may_lack_vision, int64_t first, int64_t count, float *host_out, struct lwm_err *e)
{
	struct source s;
	int rc = source_open_shared(&s, comm, source, older_ok, e);
	if (rc == 0)
		rc = belongs(&s, tokenizer, t, n, e);
	for (int64_t i = 0; rc == 0 && i < n; i++) {
		int64_t a = t[i].offset > first ? t[i].offset : first;
		int64_t b = t[i].offset + t[i].count < first + count ? t[i].offset + t[i].count : first + count;
		if (a < b)
			rc = source_read(&s, &t[i], may_lack_vision && t[i].vision, a - t[i].offset, b - a,
					 host_out + (a - first), e);
	}
	source_close(&s);
	return rc;
}

static const json_t *config_of(const struct source *s)
{
	return s->model ? lwm_model_config(s->model) : json_object_get(lwm_ckpt_meta(s->ckpt)->config, "model");
}

int lwm_source_config(struct lwm_llama_cfg *c, const char *source, bool older_ok, struct lwm_err *e)
{
	struct source s;
	int rc = source_open(&s, source, older_ok, LWM_CKPT_SEAL, e); /* whoever wants the weights looks at them */
	if (rc == 0 && !config_of(&s))
		rc = lwm_fail(e, LWM_EDATA, "%s: its record holds no model configuration", s.dir);
	if (rc == 0)
		rc = lwm_llama_from_json(c, config_of(&s), s.dir, e);
	source_close(&s);
	return rc;
}

/* ---- whole models for inference ---- */

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

/* The table of a model as tensors in files. */
static struct lwm_tensor *tensors_of(const struct lwm_params *p)
{
	struct lwm_tensor *t = calloc((size_t)p->n, sizeof *t);
	for (int64_t i = 0; t && i < p->n; i++) {
		t[i] = (struct lwm_tensor){ .ndim = p->list[i].ndim, .offset = p->list[i].offset, .count = p->list[i].count };
		snprintf(t[i].name, sizeof t[i].name, "%s", p->list[i].name);
		memcpy(t[i].shape, p->list[i].shape, sizeof t[i].shape);
	}
	return t;
}

static int fill_device(struct lwm_loaded *m, struct source *s, const struct lwm_params *p, struct lwm_err *e)
{
	int64_t most = 0;
	float *host = NULL;
	void *stage = NULL;
	int rc = 0;
	struct lwm_tensor *t = tensors_of(p);
	if (!t)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", s->dir);
	LWM_GO(all_have_places(s, t, p->n, e));
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
		LWM_GO(source_read(s, &t[i], false, 0, t[i].count, host, e));
		LWM_GO(upload(m->dev, m->weights, t[i].offset, host, stage, t[i].count, e));
	}
	rc = lwm_dev_check(m->dev, lk_sync(m->dev), e);
out:
	lk_mem_free(m->dev, stage);
	free(host);
	free(t);
	return rc;
}

/* 1 yes, 0 no: then it is a checkpoint, or nothing. */
static int is_model_folder(const char *dir, struct lwm_err *e)
{
	char *config = lwm_path_join(dir, "config.json");
	int rc = config ? lwm_path_there(config, e) : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", dir);
	free(config);
	return rc;
}

static int open_either(struct source *s, const char *dir, bool older_ok, enum lwm_ckpt_check how, const json_t **config,
		       struct lwm_err *e)
{
	struct lwm_str text = { 0 };
	int rc = is_model_folder(dir, e);
	memset(s, 0, sizeof *s);
	if (rc >= 0) {
		lwm_str_printf(&text, "%s:%s", rc ? "model" : "checkpoint", dir);
		rc = lwm_str_ok(&text, e);
	}
	if (rc == 0)
		rc = source_open(s, text.s, older_ok, how, e);
	lwm_str_release(&text);
	if (rc < 0)
		return rc;
	*config = config_of(s);
	return *config ? 0 : lwm_fail(e, LWM_EDATA, "%s: its record holds no model configuration", s->dir);
}

/* Names a model by its configuration and by what stands for its bytes: the record of a checkpoint, the manifest of a folder. */
static int name_it(struct lwm_loaded *m, const struct source *s, const json_t *config, struct lwm_err *e)
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

static int take_records(struct lwm_loaded *m, const struct source *s, const char *dir, struct lwm_err *e)
{
	const char *tok = s->model ? lwm_model_tokenizer(s->model) : lwm_ckpt_meta(s->ckpt)->tokenizer_path;
	snprintf(m->tokenizer_hash, sizeof m->tokenizer_hash, "%s", tokenizer_of(s));
	m->step = s->ckpt ? lwm_ckpt_meta(s->ckpt)->step : -1;
	if (!(m->dir = strdup(dir)) || (tok && *tok && !(m->tokenizer = strdup(tok))))
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", dir);
	return 0;
}

int lwm_loaded_open(struct lwm_loaded *m, const char *dir, bool older_ok, struct lk_dev *dev, struct lwm_err *e)
{
	struct source s;
	const json_t *config;
	struct lwm_params p = { 0 };
	memset(m, 0, sizeof *m);
	m->dev = dev;
	int rc = open_either(&s, dir, older_ok, LWM_CKPT_FULL, &config, e);
	if (rc < 0)
		goto out;
	LWM_GO(lwm_llama_from_json(&m->cfg, config, dir, e));
	LWM_GO(name_it(m, &s, config, e));
	LWM_GO(take_records(m, &s, dir, e));
	LWM_GO(lwm_llama_params(&p, &m->cfg, e));
	LWM_GO(fill_device(m, &s, &p, e));
out:
	lwm_params_release(&p);
	source_close(&s);
	if (rc < 0)
		lwm_loaded_free(m);
	return rc;
}

void lwm_loaded_free(struct lwm_loaded *m)
{
	if (m->weights)
		lk_mem_free(m->dev, m->weights);
	free(m->tokenizer);
	free(m->dir);
	memset(m, 0, sizeof *m);
}

void lwm_loaded_warn_length(const struct lwm_loaded *m, int64_t tokens, const char *what)
{
	static bool warned;
	if (tokens <= m->cfg.max_seq || warned)
		return;
	warned = true;
	lwm_log(LWM_WARN, "%s: %" PRId64 " tokens in one context, %s was made for %" PRId64
		" (max_position_embeddings): what it says of positions behind that is worth little", what, tokens, m->dir, m->cfg.max_seq);
}

/* ---- the tokenizer of a model ---- */

/* The file that a spec stands for, when it may lie in a model folder, against the folder's manifest. */
static int check_spec(const char *spec, struct lwm_err *e)
{
	static const char *const name[] = { "tokenizer.model", "tokenizer.txt" };
	if (!strcmp(spec, "bytes"))
		return 0;
	int folder = lwm_path_folder(spec, e);
	LWM_TRY(folder);
	if (!folder)
		return lwm_model_check_file(spec, e);
	for (int i = 0; i < 2; i++) {
		char *path = lwm_path_join(spec, name[i]);
		int rc = path ? lwm_path_there(path, e) : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", spec);
		if (rc > 0)
			rc = lwm_model_check_file(path, e);
		free(path);
		LWM_TRY(rc);
	}
	return 0;
}

int lwm_tokenizer_open_as(struct lwm_tokenizer **out, const char *spec, const char *hash, const char *who,
			  struct lwm_err *e)
{
	struct lwm_tokenizer *t;
	*out = NULL;
	LWM_TRY(check_spec(spec, e));
	LWM_TRY(lwm_tokenizer_open(&t, spec, e));
	const char *have = lwm_tokenizer_hash(t)->hex;
	if (hash && *hash && strcmp(hash, have)) {
		int rc = lwm_fail(e, LWM_ECONFIG, "the tokenizer %s has the hash %s; %s was made with the one of hash %s", spec,
				  have, who, hash);
		lwm_tokenizer_free(t);
		return rc;
	}
	*out = t;
	return 0;
}

static int open_tokenizer(const struct lwm_loaded *m, struct lwm_tokenizer **tok, const char *spec, struct lwm_err *e)
{
	spec = spec ? spec : m->tokenizer;
	if (!spec)
		return lwm_fail(e, LWM_EUSAGE, "%s: has no tokenizer beside it; give --tokenizer", m->dir);
	LWM_TRY(lwm_tokenizer_open_as(tok, spec, m->tokenizer_hash, m->dir, e));
	if (lwm_tokenizer_vocab(*tok) == m->cfg.vocab_text)
		return 0;
	return lwm_fail(e, LWM_ECONFIG, "the tokenizer %s has %d pieces, the model %s %" PRId64, spec, lwm_tokenizer_vocab(*tok),
			m->dir, m->cfg.vocab_text);
}

int lwm_loaded_open_text(struct lwm_loaded *m, struct lwm_tokenizer **tok, const char *dir, bool older_ok,
			 const char *spec, struct lk_dev *dev, struct lwm_err *e)
{
	*tok = NULL;
	LWM_TRY(lwm_loaded_open(m, dir, older_ok, dev, e));
	int rc = open_tokenizer(m, tok, spec, e);
	if (rc < 0) {
		lwm_tokenizer_free(*tok);
		*tok = NULL;
		lwm_loaded_free(m);
	}
	return rc;
}

int lwm_loaded_look(const char *dir, bool older_ok, const char *spec, struct lwm_err *e)
{
	struct lwm_loaded m = { .step = -1 };
	struct lwm_tokenizer *tok = NULL;
	struct source s;
	const json_t *config;
	int rc = open_either(&s, dir, older_ok, LWM_CKPT_QUICK, &config, e);
	if (rc == 0)
		rc = lwm_llama_from_json(&m.cfg, config, dir, e);
	if (rc == 0)
		rc = take_records(&m, &s, dir, e);
	if (rc == 0)
		rc = open_tokenizer(&m, &tok, spec, e);
	lwm_tokenizer_free(tok);
	lwm_loaded_free(&m);
	source_close(&s);
	return rc;
}

/* The VQGAN's own table speaks of file layout; files and checkpoints are read in memory layout (kh,kw,cin,cout). */
void lwm_vqgan_tensor(struct lwm_tensor *t, const struct lwm_vqgan_param *p)
{
	memset(t, 0, sizeof *t);
	snprintf(t->name, sizeof t->name, "%s", p->name);
	t->ndim = p->ndim;
	memcpy(t->shape, p->shape, sizeof t->shape);
	if (p->kind == LWM_VQ_CONV) {
		t->shape[0] = p->shape[2];
		t->shape[1] = p->shape[3];
		t->shape[2] = p->shape[1];
		t->shape[3] = p->shape[0];
	}
	t->offset = p->offset;
	t->count = p->count;
	t->no_decay = p->kind != LWM_VQ_CONV;
}

int lwm_vqgan_load(struct lwm_vqgan_cfg *c, float **flat, const char *dir, bool older_ok, struct lk_dev *dev,
		   struct lwm_err *e)
{
	struct source s;
	const json_t *config;
	struct lwm_vqgan_params p = { 0 };
	float *host = NULL;
	void *mem = NULL;
	*flat = NULL;
	int rc = open_either(&s, dir, older_ok, LWM_CKPT_FULL, &config, e);
	if (rc < 0)
		goto out;
	LWM_GO(lwm_vqgan_cfg_from_json(c, config, dir, e));
	LWM_GO(lwm_vqgan_params_init(&p, c, e));
	host = calloc((size_t)p.floats, sizeof *host);
	if (!host || lk_mem_alloc(dev, (size_t)p.floats * sizeof *host, &mem)) {
		rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory for %" PRId64 " weights", dir, p.count);
		goto out;
	}
	for (int64_t i = 0; i < p.n; i++) {
		struct lwm_tensor t;
		lwm_vqgan_tensor(&t, &p.v[i]);
		LWM_GO(source_read(&s, &t, false, 0, t.count, host + t.offset, e));
	}
	rc = lwm_dev_check(dev, lk_upload(dev, mem, host, (size_t)p.floats * sizeof *host), e);
	*flat = mem;
out:
	if (rc < 0 && mem) {
		lk_mem_free(dev, mem);
		*flat = NULL;
	}
	free(host);
	lwm_vqgan_params_release(&p);
	source_close(&s);
	return rc;
}

int lwm_vqgan_look(const char *dir, bool older_ok, struct lwm_err *e)
{
	struct lwm_vqgan_cfg c;
	struct source s;
	const json_t *config;
	int rc = open_either(&s, dir, older_ok, LWM_CKPT_QUICK, &config, e);
	if (rc == 0)
		rc = lwm_vqgan_cfg_from_json(&c, config, dir, e);
	source_close(&s);
	return rc;
}
