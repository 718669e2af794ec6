/* inspect_int.h - inside common/io: what a kind of file or folder is known by, and who speaks for it. */
#ifndef LWM_IO_INSPECT_INT_H
#define LWM_IO_INSPECT_INT_H

#include "common/io/inspect.h"

/* One kind of thing. It is known by is_folder, is_named, schemas or manifest; NULL: not by that. */
struct lwm_thing_ops {
	const char *name; /* as users read it */
	bool (*is_folder)(const char *path);
	bool (*is_named)(const char *path); /* a file, by its name alone */
	const char *const *schemas;         /* an HDF5 file, by its schema: a list that ends in NULL */
	const char *manifest;               /* what its manifest calls it, for a file too damaged to say its schema */
	/* Adds what is to be shown to o, in order; *failed: out of memory on the way. tensors: names, shapes and types too. */
	int (*describe)(const char *path, bool tensors, json_t *o, bool *failed, struct lwm_err *e);
	int (*check)(const char *path, struct lwm_err *e); /* as lwm_check_thing */
};

extern const struct lwm_thing_ops lwm_thing_docs, lwm_thing_rows, lwm_thing_index, lwm_thing_inputs; /* inspect_shards.c */
extern const struct lwm_thing_ops lwm_thing_ckpt, lwm_thing_part, lwm_thing_model, lwm_thing_st; /* inspect_weights.c */

#endif
