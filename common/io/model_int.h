/* model_int.h - inside common/io: how tensors change between memory and disk. */
#ifndef LWM_IO_MODEL_INT_H
#define LWM_IO_MODEL_INT_H

#include "common/io/model.h"

#define LWM_MODEL_MANIFEST "manifest.json"
#define LWM_MODEL_CONFIG "config.json"
#define LWM_MODEL_SCHEMA "lwm-model-2"
#define LWM_MODEL_SCHEMA_1 "lwm-model-1" /* names weights only; still read */

/* ---- the manifest of a folder ---- */

struct lwm_model_record { /* zero-initialised: the folder has none */
	char *path;
	json_t *record, *files; /* files: name -> identity of safetensors, XXH3-128 of others; part of the record */
	const char *tokenizer;  /* lwm_tokenizer_hash of the model's, "" unknown */
	bool weights_only;      /* of the first schema: nothing but weights can be checked */
};
/* A folder without one (made by another program) gives no record. Damaged: -LWM_EDATA. */
int lwm_record_read(struct lwm_model_record *r, const char *dir, struct lwm_err *e);
void lwm_record_release(struct lwm_model_record *r);
int64_t lwm_record_weights(const struct lwm_model_record *r);                 /* safetensors it names */
const char *lwm_record_hash(const struct lwm_model_record *r, const char *name); /* NULL: does not name it */
/* The n bytes of text that were read from the file `name`: not named or another hash is -LWM_EDATA. Without a record,
 * and with one of the first schema, there is nothing to compare with. */
int lwm_record_check(const struct lwm_model_record *r, const char *name, const char *text, size_t n, struct lwm_err *e);
/* The named file in dir; not there is -LWM_EDATA too. */
int lwm_record_check_file(const struct lwm_model_record *r, const char *dir, const char *name, struct lwm_err *e);
/* Did a program of ours write the folder's manifest, however damaged it may be? */
bool lwm_record_is_ours(const char *dir);
bool lwm_is_safetensors(const char *name);

/* ---- layouts ---- */

enum lwm_change { LWM_SAME, LWM_QK /* rows of each head */, LWM_CONV /* OIHW on disk, (kh,kw,cin,cout) in memory */ };

/* What happens to a tensor of this name and shape (either layout); *head gets the rows per head. vqgan: kind is
 * "vqgan". */
int lwm_change_of(const char *name, int ndim, const int64_t *shape, bool vqgan, const json_t *config,
		  enum lwm_change *how, int64_t *head, const char *where, struct lwm_err *e);
/* conv: shape[4] of the memory layout (kh, kw, cin, cout) */
void lwm_conv_to_disk(const float *mem, const int64_t shape[4], float *disk);
void lwm_conv_to_memory(const float *disk, const int64_t shape[4], float *mem);
bool lwm_model_is_vqgan(const json_t *config);
/* "model" or "diffusion_pytorch_model" */
const char *lwm_model_stem(bool vqgan);

#endif
