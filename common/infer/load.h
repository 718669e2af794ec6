/* load.h - whole models for inference: configuration and weights in files become weights on a device, the tokenizer beside them.
 *
 *	lwm_lm_open_with_tokenizer(&lm, &tok, dir, false, NULL, dev, e)   or lwm_lm_open(&lm, dir, false, dev, e): ids only
 *	lwm_engine_new(&g, dev, &lm.cfg, lm.weights, ...)                 engine.h
 *	lwm_tokenizer_free(tok), lwm_lm_close(&lm)                        after the engine
 *
 *	lwm_vq_open(&vq, dir, false, frames_per_pass, dev, e)
 *	lwm_vqgan_encode(vq.net, ...), lwm_vqgan_decode(vq.net, ...)      model/vqgan.h
 *	lwm_vq_close(&vq)
 *
 * dir: a merged model folder, the folder of another program with config.json and safetensors, or a checkpoint ROOT or step folder;
 * "ema:" before one of the latter is the average that it keeps of its weights.
 * older_ok: of a ROOT whose newest step is damaged the one before it will do (as in lwm_ckpt_latest). Local, all of it: every rank
 * reads for itself. Nothing there is -LWM_ENOINPUT, damaged is -LWM_EDATA, another shape than the configuration says -LWM_ECONFIG.
 */
#ifndef LWM_INFER_LOAD_H
#define LWM_INFER_LOAD_H

#include "common/model/llama.h"
#include "common/model/vqgan.h"
#include "common/text/tokenizer.h"

/* A language model. */
struct lwm_lm {
	struct lwm_llama_cfg cfg;
	void *weights;      /* device, flat, in the device's dtype, in the order of lwm_llama_tensors; freed by lwm_lm_close */
	char *dir;          /* as given */
	char *tokenizer;    /* path of the tokenizer beside the model, NULL if none */
	char tokenizer_hash[33]; /* of the one it was trained with, "" not recorded */
	char hash[33];      /* of the configuration and of its manifest or record (a folder of another program: of the
			     * configuration alone): names the model in reports */
	int64_t step;       /* of training, -1 unknown */
	struct lk_dev *dev; /* borrowed */
};
/* On failure nothing is left to close, and a second close does nothing. */
int lwm_lm_open(struct lwm_lm *m, const char *dir, bool older_ok, struct lk_dev *dev, struct lwm_err *e);
void lwm_lm_close(struct lwm_lm *m);
/* Warns, once in a process, where `tokens` in one context are more than the model says it was made for. what: the option or file
 * that asks for them. */
void lwm_lm_warn_length(const struct lwm_lm *m, int64_t tokens, const char *what);

/* A model and its tokenizer: `spec`, or the one beside it when that is NULL (-LWM_EUSAGE: there is none). One that the
 * model was not trained with, or of another number of pieces, is -LWM_ECONFIG. On failure nothing is left to free. */
int lwm_lm_open_with_tokenizer(struct lwm_lm *m, struct lwm_tokenizer **tok, const char *dir, bool older_ok,
			       const char *spec, struct lk_dev *dev, struct lwm_err *e);
/* For plans: all but the weights, m->weights stays NULL. lwm_tokenizer_free and lwm_lm_close them; on failure nothing is left. */
int lwm_lm_look(struct lwm_lm *m, struct lwm_tokenizer **tok, const char *dir, bool older_ok, const char *spec, struct lwm_err *e);
/* For plans: would lwm_lm_open_with_tokenizer take this model and tokenizer? Weights are not looked at. */
int lwm_lm_check_files(const char *dir, bool older_ok, const char *spec, struct lwm_err *e);

/* A VQGAN: the net that encodes and decodes frames, with its weights. The net points into the struct, which must not be moved
 * while it is open. */
struct lwm_vq {
	struct lwm_vqgan_cfg cfg;
	struct lwm_vqgan *net;
	struct lwm_flat_weights weights; /* of `flat`, as the net and lwm_vqgan_hash take them */
	float *flat;                     /* device, fp32, in the order of lwm_vqgan_tensors; freed by lwm_vq_close */
	struct lk_dev *dev;              /* borrowed */
};
/* frames_per_pass: how many frames are in device memory at once, at most. On failure nothing is left to close. */
int lwm_vq_open(struct lwm_vq *v, const char *dir, bool older_ok, int64_t frames_per_pass, struct lk_dev *dev, struct lwm_err *e);
void lwm_vq_close(struct lwm_vq *v); /* zero-initialised or closed before: does nothing */
int lwm_vqgan_check_files(const char *dir, bool older_ok, struct lwm_err *e); /* for plans, likewise */

#endif
