/* model.h - models as folders that other programs open: config.json, *.safetensors (and their index), the tokenizer beside them;
 * and, to be read, those of torch.save (pytorch_model.bin) and of LWM for JAX (README.md).
 *
 *	reading           lwm_model_open(&m, dir, e)
 *	                  lwm_model_config, lwm_model_tokenizer ...                 what model it is
 *	                  lwm_model_read_named(m, &tensor, offset, n, out, e)       or by number: lwm_model_find, lwm_model_read
 *	                  lwm_model_check(m, e)                                     every byte, where that is wanted
 *	                  lwm_model_close(m)
 *
 *	writing           lwm_model_create(&w, dir, &spec, &tensors, force, e)
 *	                  lwm_model_add(w, data, e), lwm_model_add_from(w, source, ctx, e)   tensor by tensor, in their order
 *	                  lwm_model_commit(w, e)                                    the folder appears; or lwm_model_discard(w)
 *
 * Local calls; one thread per handle. What is returned is borrowed from the handle. Errors: -LWM_ENOINPUT no such model,
 * -LWM_EDATA damaged, or not what its manifest says, -LWM_ECONFIG not the model that is expected, -LWM_ECANTCREATE exists.
 *
 * In all calls values are fp32 and lie as they do in memory: q/k rows interleaved (rotary pairs 2i, 2i+1), convolutions
 * (kh, kw, cin, cout), linear weights (out, in) row-major. On disk rows of q_proj and k_proj are in Hugging Face's half-split RoPE
 * order and convolutions are OIHW: converted on the way.
 *
 * Language model ("lwm"): Hugging Face LLaMA names, vision tensors `model.vision_embed_tokens.weight` (vte) and
 * `vision_head.weight`, an "lwm" object in config.json (vision_vocab, codes, eof, eov, vqgan). Tokenizer model
 * ("vqgan"): diffusers VQModel names, `_class_name` "VQModel". Layers trained on clips ("trunk"): the names of a language model's layers,
 * beside them those of the objective; `_class_name` "LwmTrunk", `input_dim`, and an "lwm_clips" object that says what a patch is.
 *
 * manifest.json names every file of the folder: safetensors by identity (safetensors.h), the others by XXH3-128 of their
 * bytes, and under "tokenizer" the hash of the model's tokenizer. In a folder that has one, opening checks what is opened: a file
 * that is not as it says is -LWM_EDATA and is not used. Files beside the named ones are nobody's business, but the
 * configuration and the index must be named. Folders of the first schema (lwm-model-1) name weights only.
 */
#ifndef LWM_IO_MODEL_H
#define LWM_IO_MODEL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/io/ckpt.h"
#include "common/io/safetensors.h"
#include "common/tensor/tensor.h"

/* ---- kinds ---- */

/* A kind of model; model_kinds.c has the table of them. */
struct lwm_model_kind {
	const char *name;        /* in records of checkpoints and in manifests */
	const char *stem;        /* what files of weights are called */
	const char *class_name;  /* `_class_name` of its config.json, by which it is known; NULL: of none */
	enum lwm_st_dtype dtype; /* what its weights are written as, unless another type is asked for */
	bool reads_text;         /* a tokenizer belongs to it */
	bool rotary_rows;        /* rows of q and k lie on disk in another order */
	bool convolutions;       /* tensors of four dimensions are such, and lie on disk with other axes */
};
/* One of no known name is treated as "lwm". Static. */
const struct lwm_model_kind *lwm_model_kind_named(const char *name);

/* ---- reading ---- */

struct lwm_model;

/* dir, or a single file of weights (.safetensors, .bin) with config.json beside it, or the pickle of LWM's frame tokenizer. */
int lwm_model_open(struct lwm_model **out, const char *dir, struct lwm_err *e);
void lwm_model_close(struct lwm_model *m);
/* Is this folder a model, or this file the one that a model is? Looks at names, and into a file that has none. */
bool lwm_model_lies_in(const char *path);
const json_t *lwm_model_config(const struct lwm_model *m); /* borrowed */
const struct lwm_model_kind *lwm_model_get_kind(const struct lwm_model *m);
/* What lwm_tokenizer_open takes: the folder's tokenizer.model, or the folder when it has a tokenizer.txt; NULL:
 * neither. Borrowed. */
const char *lwm_model_tokenizer(const struct lwm_model *m);
/* Hash of the tokenizer that the model was trained with, whether one lies in the folder or not; "" unknown. Borrowed. */
const char *lwm_model_tokenizer_hash(const struct lwm_model *m);
const char *lwm_model_manifest(const struct lwm_model *m); /* its path, NULL when the folder has none. Borrowed. */
int64_t lwm_model_count(const struct lwm_model *m); /* tensors */
/* What all of its tensors lie there as; LWM_ST_OTHER: several types. */
enum lwm_st_dtype lwm_model_dtype(const struct lwm_model *m);
/* Name and shape in memory layout. */
const struct lwm_tensor *lwm_model_tensor(const struct lwm_model *m, int64_t i);
int64_t lwm_model_find(const struct lwm_model *m, const char *name); /* -1: none of that name */
/* Values offset .. offset+n-1 of the flattened tensor in memory layout. */
int lwm_model_read(struct lwm_model *m, int64_t i, int64_t offset, int64_t n, float *out, struct lwm_err *e);
/* The same by name and with the shape that is expected: absent or other shape is -LWM_ECONFIG naming both. */
int lwm_model_read_named(struct lwm_model *m, const struct lwm_tensor *want, int64_t offset, int64_t n,
			 float *out, struct lwm_err *e);
/* Every file against its recorded hash; one that is missing is -LWM_EDATA. -LWM_ENO when the folder carries none (made
 * elsewhere). */
int lwm_model_check(struct lwm_model *m, struct lwm_err *e);
/* A single file that may lie in a model folder whose manifest names it: then it must be that file (-LWM_EDATA). */
int lwm_model_check_file(const char *path, struct lwm_err *e);

/* ---- writing ---- */

struct lwm_model_spec {
	const char *kind; /* name of a struct lwm_model_kind */
	const json_t *config; /* config.json to be written; of "lwm" the sizes of heads are used for q/k */
	enum lwm_st_dtype dtype; /* LWM_ST_F32 or LWM_ST_BF16 */
	int64_t max_file_bytes;  /* 0: one file */
	/* Puts further files (the tokenizer) into `dir` before the folder gets its name; may be NULL. */
	int (*extra)(void *ctx, const char *dir, struct lwm_err *e);
	void *ctx;
	const char *tokenizer; /* lwm_tokenizer_hash of the one the model was trained with; NULL, "": unknown */
	const char *format;    /* how weights are written; NULL: as safetensors */
	const char *source;    /* what it is made of, for the manifest; NULL: not told */
};

struct lwm_model_writer;
/* Refuses an existing folder without force; with it only what is a model is replaced. tensors: names and shapes in memory layout,
 * in the order in which they will be added. The folder appears at commit. */
int lwm_model_create(struct lwm_model_writer **out, const char *dir, const struct lwm_model_spec *spec,
		     const struct lwm_tensors *tensors, bool force, struct lwm_err *e);
/* The next tensor, whole, in memory layout. */
int lwm_model_add(struct lwm_model_writer *w, const float *data, struct lwm_err *e);
/* The same from a callback that gives values offset .. offset+n-1: asked for in ascending pieces, so that no more
 * than one head or convolution is in memory. */
typedef int lwm_model_source_fn(void *ctx, int64_t offset, int64_t n, float *out, struct lwm_err *e);
int lwm_model_add_from(struct lwm_model_writer *w, lwm_model_source_fn *source, void *ctx, struct lwm_err *e);
int lwm_model_commit(struct lwm_model_writer *w, struct lwm_err *e); /* w is gone either way */
void lwm_model_discard(struct lwm_model_writer *w);

#endif
