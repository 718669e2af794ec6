/* modelfile.h - between models in memory and models in files: configuration as JSON, weights from wherever they lie. */
#ifndef LWM_TRAIN_MODELFILE_H
#define LWM_TRAIN_MODELFILE_H

#include <jansson.h>

#include "common/base/err.h"
#include "common/dist/comm.h"
#include "common/model/llama.h"
#include "common/model/vqgan.h"
#include "common/text/tokenizer.h"
#include "kernels/kernels.h"

/* Hugging Face's LlamaForCausalLM config.json plus our "lwm" object. *out is decref'ed by the caller. Reading takes what versions 4
 * and 5 of transformers write; another family, a window, biases, another activation, scaled rotation, heads of another size or
 * quantized weights are -LWM_ECONFIG naming the key and its value. */
int lwm_llama_to_json(const struct lwm_llama_cfg *c, json_t **out, struct lwm_err *e);
int lwm_llama_from_json(struct lwm_llama_cfg *c, const json_t *o, const char *name, struct lwm_err *e);

struct lwm_tensor; /* objective.h */
/* Where weights come from: "checkpoint:ROOT" or "checkpoint:ROOT/step_N", "model:DIR". Values of tensors t[0..n) that lie in
 * flat [first, first+count) go to host_out. vision tensors that are missing stay as they are when may_lack_vision.
 * older_ok: as in lwm_ckpt_latest. tokenizer: hash of the one the data were made with, NULL or "": none; a source that records
 * another one is -LWM_ECONFIG naming both, as is one with a tensor that is not among t. COLLECTIVE in opening the source (share.h);
 * what fails behind that is this rank's to tell. */
int lwm_weights_read(struct lwm_comm *comm, const char *source, bool older_ok, const char *tokenizer, const struct lwm_tensor *t,
		     int64_t n, bool may_lack_vision, int64_t first, int64_t count, float *host_out, struct lwm_err *e);

/* What lwm_weights_read finds out before it reads: is it there, and of this kind? Its bytes are not looked at. Local. */
int lwm_weights_look(const char *source, bool older_ok, const char *tokenizer, const struct lwm_tensor *t, int64_t n,
		     struct lwm_err *e);

/* The configuration of a language model that weights may come from, as above; -LWM_ENOINPUT: nothing is there. Of a checkpoint only
 * the record is looked at. Local. */
int lwm_source_config(struct lwm_llama_cfg *c, const char *source, bool older_ok, struct lwm_err *e);

/* A whole language model for inference: configuration and weights in compute dtype on dev. */
struct lwm_loaded {
	struct lwm_llama_cfg cfg;
	void *weights;      /* device; freed by lwm_loaded_free */
	char *dir;          /* as given */
	char *tokenizer;    /* path of the tokenizer beside the model, NULL if none */
	char tokenizer_hash[33]; /* of the one it was trained with, "" not recorded */
	char hash[33];      /* of the configuration and of its manifest or record (a folder of another program: of the
			     * configuration alone): names the model in reports */
	int64_t step;       /* of training, -1 unknown */
	struct lk_dev *dev; /* borrowed */
};
/* dir: a merged model folder, or a checkpoint ROOT or step folder. older_ok: as in lwm_ckpt_latest, for a ROOT. */
int lwm_loaded_open(struct lwm_loaded *m, const char *dir, bool older_ok, struct lk_dev *dev, struct lwm_err *e);
void lwm_loaded_free(struct lwm_loaded *m);
/* Warns, once in a process, where `tokens` in one context are more than the model says it was made for. what: the option or file
 * that asks for them. */
void lwm_loaded_warn_length(const struct lwm_loaded *m, int64_t tokens, const char *what);

/* ---- the tokenizer of a model ---- */

/* Opens `spec` (tokenizer.h says what it may be). A tokenizer that lies in a model folder must be the one its manifest
 * names: -LWM_EDATA. `hash` is what `who` records of its tokenizer, NULL or "": nothing; another tokenizer than that is
 * -LWM_ECONFIG naming both. */
int lwm_tokenizer_open_as(struct lwm_tokenizer **out, const char *spec, const char *hash, const char *who,
			  struct lwm_err *e);
/* A model and its tokenizer: `spec`, or the one beside it when that is NULL (-LWM_EUSAGE: there is none). One that the
 * model was not trained with, or of another number of pieces, is -LWM_ECONFIG. On failure nothing is left to free. */
int lwm_loaded_open_text(struct lwm_loaded *m, struct lwm_tokenizer **tok, const char *dir, bool older_ok,
			 const char *spec, struct lk_dev *dev, struct lwm_err *e);
/* Local, for plans: would lwm_loaded_open_text take this model and tokenizer? Weights are not looked at. */
int lwm_loaded_look(const char *dir, bool older_ok, const char *spec, struct lwm_err *e);

/* The VQGAN's table entry as a tensor in memory layout. */
void lwm_vqgan_tensor(struct lwm_tensor *t, const struct lwm_vqgan_param *p);
/* A VQGAN likewise; *flat is device memory that the caller gives to lk_mem_free after the net. */
int lwm_vqgan_load(struct lwm_vqgan_cfg *c, float **flat, const char *dir, bool older_ok, struct lk_dev *dev,
		   struct lwm_err *e);
int lwm_vqgan_look(const char *dir, bool older_ok, struct lwm_err *e); /* likewise */

#endif
