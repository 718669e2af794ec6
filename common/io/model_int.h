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
int64_t lwm_record_count(const struct lwm_model_record *r, const char *suffix); /* files it names that end so */
const char *lwm_record_hash(const struct lwm_model_record *r, const char *name); /* NULL: does not name it */
/* The named file in dir; not there is -LWM_EDATA too. */
int lwm_record_check_file(const struct lwm_model_record *r, const char *dir, const char *name, struct lwm_err *e);
/* Did a program of ours write the folder's manifest, however damaged it may be? */
bool lwm_record_is_ours(const char *dir);
/* A JSON file of the folder: what is parsed is what was compared with the manifest, and not named or another hash is -LWM_EDATA.
 * Without a record, and with one of the first schema, there is nothing to compare with. *out is the caller's. */
int lwm_record_json(const struct lwm_model_record *r, const char *dir, const char *name, int64_t limit, json_t **out,
		    struct lwm_err *e);

bool lwm_folder_has(const char *dir, const char *name);

/* ---- formats: how weights lie on disk ---- */

struct lwm_model_place {
	const char *dir;  /* the folder of the model */
	const char *file; /* the one file in it that was asked for; NULL: all of the folder */
	const struct lwm_model_record *record; /* the folder's manifest, or an empty one */
};

/* A format of weights. To add one: fill such a struct in a file of its own, as model_st.c does, and name it in model_formats.c. All
 * that is not the weights themselves (configuration, tokenizer, manifest) is model_read.c's and model_write.c's. A stored tensor is
 * told by name, dtype, ndim, shape, size (values) and begin and end (bytes that it takes; where from does not matter); its name is
 * the one that Hugging Face and diffusers use for it, whatever the file calls it.
 *
 *	open, then count, tensor, read ..., check, and close at last       reading
 *	create, then write ..., then commit or discard                     writing: a file after the other, named with the suffix;
 *	                                                                   create NULL: it is only read
 */
struct lwm_model_format {
	const char *name;
	const char *suffix;               /* of files: one with config.json beside it is a model; NULL: folders only */
	bool (*is_file)(const char *path); /* is it a file of this format? Looks into it; NULL: by its suffix */
	bool (*lies_in)(const char *dir); /* is dir a model of this format? Looks at names alone */
	bool as_in_memory;                /* rows of q and k and the axes of convolutions lie as they do in memory (see below) */
	/* The model's configuration, the caller's. NULL: it is config.json of the folder. */
	int (*config)(const struct lwm_model_place *from, json_t **out, struct lwm_err *e);

	/* dir and record outlive what is opened. What the record names is compared with it. */
	int (*open)(void **weights, const struct lwm_model_place *from, struct lwm_err *e);
	void (*close)(void *weights);
	int64_t (*count)(const void *weights);
	const struct lwm_st_tensor *(*tensor)(const void *weights, int64_t i); /* borrowed until close */
	/* Values offset .. offset+n-1 of tensor i, flattened as it lies on disk, as fp32. */
	int (*read)(void *weights, int64_t i, int64_t offset, int64_t n, float *out, struct lwm_err *e);
	/* All values against the sums that the files carry; -LWM_ENO when they carry none. */
	int (*check)(void *weights, struct lwm_err *e);

	int (*create)(void **file, const char *path, const struct lwm_st_tensor *t, int64_t n, struct lwm_err *e);
	int (*write)(void *file, const float *v, int64_t n, struct lwm_err *e); /* the next values; tensors follow each other */
	/* The file is gone either way. identity: what stands for every byte of it in the manifest. */
	int (*commit)(void *file, struct lwm_hash *identity, struct lwm_err *e);
	void (*discard)(void *file); /* NULL is fine */
};
extern const struct lwm_model_format lwm_model_safetensors, lwm_model_torch, lwm_model_vqpickle, lwm_model_stream;

/* A kind of file that weights lie in: one, or several and an index beside them (NAME.index.json). A format of such files has the
 * functions below; open and lies_in it gives its constant. */
struct lwm_weight_file {
	const char *suffix;
	const char *names[3]; /* what the one file is called, NULL-terminated: the first that is there */
	int (*open)(void **out, const char *path, struct lwm_err *e);
	void (*close)(void *file);
	int64_t (*count)(const void *file);
	const struct lwm_st_tensor *(*tensor)(const void *file, int64_t i); /* borrowed until close */
	int (*read)(void *file, int64_t i, int64_t offset, int64_t n, float *out, struct lwm_err *e);
	int (*check)(void *file, struct lwm_err *e);      /* -LWM_ENO: it carries no sums */
	struct lwm_hash (*identity)(const void *file);    /* as a manifest has it; NULL: none names such a file */
};
int lwm_folder_open(void **out, const struct lwm_weight_file *kind, const struct lwm_model_place *from, struct lwm_err *e);
void lwm_folder_close(void *weights);
int64_t lwm_folder_count(const void *weights);
const struct lwm_st_tensor *lwm_folder_tensor(const void *weights, int64_t i);
int lwm_folder_read(void *weights, int64_t i, int64_t offset, int64_t n, float *out, struct lwm_err *e);
int lwm_folder_check(void *weights, struct lwm_err *e);
bool lwm_folder_lies_in(const char *dir, const struct lwm_weight_file *kind);

const struct lwm_model_format *lwm_model_format_of(const char *path); /* never NULL */
/* NULL as name: the usual one. NULL: none of that name can be written. */
const struct lwm_model_format *lwm_model_format_to_write(const char *name, struct lwm_err *e);
bool lwm_model_is_file(const struct lwm_model_format *f, const char *path);
bool lwm_model_is_weights(const char *name); /* of any format, by its name: no look at the disk */

/* ---- kinds of models (model_kinds.c) ---- */

const struct lwm_model_kind *lwm_model_kind_at(int i); /* of the table; NULL after the last */
const struct lwm_model_kind *lwm_model_kind_of(const json_t *config);

/* ---- layouts ---- */

enum lwm_change { LWM_SAME, LWM_QK /* rows of each head */, LWM_CONV /* OIHW on disk, (kh,kw,cin,cout) in memory */ };

/* What happens to a tensor of this name and shape (either layout); *head gets the rows per head. */
int lwm_change_of(const char *name, int ndim, const int64_t *shape, const struct lwm_model_kind *kind, const json_t *config,
		  enum lwm_change *how, int64_t *head, const char *where, struct lwm_err *e);
/* conv: shape[4] of the memory layout (kh, kw, cin, cout) */
void lwm_conv_to_disk(const float *mem, const int64_t shape[4], float *disk);
void lwm_conv_to_memory(const float *disk, const int64_t shape[4], float *mem);

#endif
