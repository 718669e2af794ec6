/* manifest.h - X.manifest.json beside a shard X: who made it, from what, how much, and its XXH3-128. Written last. Those of row
 * shards (lwm-manifest-2) say also what a loader must know of them.
 *
 *	writing           fill a struct lwm_manifest; lwm_manifest_add_input, lwm_manifest_add_reject
 *	                  lwm_manifest_share(&m, dir, e)         inputs as one list for many shards; lwm_manifest_hash_inputs
 *	                  lwm_manifest_write(&m, path, e)        makes the shard finished
 *
 *	reading           lwm_manifest_read(&m, path, e)         or lwm_manifest_done: is a shard there and whole?
 *	                  lwm_manifest_check(&m, path, full, e)
 *	                  lwm_manifest_release(&m)               after either
 *
 * `path` is the shard's, not the manifest's.
 * Opening a shard compares size and content id (a hash of the payload that the shard itself also carries, so that a
 * stale or swapped neighbour of the same size is seen). What is read of it is covered by the sum of each block, all of it is hashed
 * by lwm_manifest_check. Local calls.
 */
#ifndef LWM_IO_MANIFEST_H
#define LWM_IO_MANIFEST_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/hash.h"

struct lwm_manifest_input {
	char *path; /* its last component: shards may move between machines */
	int64_t bytes;
	char hash[33];
	int64_t malformed; /* records of it that were left out because they were no data; written down when there are any */
};

struct lwm_manifest_count {
	char *reason;
	int64_t count;
};

/* What a reader of rows must know of a shard before it opens it. */
struct lwm_manifest_rows {
	int64_t rows, seq, vocab_text, vocab_vision;
	char tokenizer[33];
};

/* Inputs that many shards have in common are listed in a file of their own beside these: inputs-H.json, H the first 16 digits of
 * the hash of the list. */
struct lwm_manifest_list {
	char hash[33];  /* XXH3-128 of "BYTES XXH3" of each input, a line each: names may change */
	int64_t count;  /* 0: there is no such list, the manifest names its inputs itself */
};

struct lwm_manifest {
	char *kind;                /* "docs", "rows" */
	char *tool;                /* name and version */
	char config_hash[33];      /* of the configuration text */
	char content[33];          /* of the payload, equal to the attribute in the file */
	char hash[33];             /* XXH3-128 of the file */
	int64_t bytes;             /* of the file */
	int64_t in, out, rejected; /* documents: in = out + rejected */
	int64_t tokens;
	struct lwm_manifest_input *input;
	int64_t ninput;
	struct lwm_manifest_list list;
	struct lwm_manifest_count *reject;
	int64_t nreject;
	struct lwm_manifest_rows rows; /* of a row shard; seq 0: it does not say (lwm-manifest-1, and documents) */
};

/* The manifest beside `path`; absent is -LWM_EDATA: whoever wrote the file did not finish. */
int lwm_manifest_read(struct lwm_manifest *m, const char *path, struct lwm_err *e);
/* Over a manifest that may stand there. */
int lwm_manifest_write(const struct lwm_manifest *m, const char *path, struct lwm_err *e);
/* Has the file the size of which the manifest speaks, and (full: reads it all) its hash? -LWM_EDATA when not. */
int lwm_manifest_check(const struct lwm_manifest *m, const char *path, bool full, struct lwm_err *e);
/* Is a finished shard of that kind at `path`? 1: yes, every byte of it verified, and *m is filled; 0: no, whatever is there instead
 * was never finished, or is damaged (which is said) and may be replaced; negative: it cannot be told, or it is a shard of another
 * kind (-LWM_ECANTCREATE). *replace: a manifest stands there that must be replaced. */
int lwm_manifest_done(const char *path, const char *kind, struct lwm_manifest *m, bool *replace, struct lwm_err *e);
/* hash NULL: it and bytes are taken from the file itself. */
int lwm_manifest_add_input(struct lwm_manifest *m, const char *path, int64_t bytes, const char *hash,
			   struct lwm_err *e);
/* Counts of the same reason add up. */
int lwm_manifest_add_reject(struct lwm_manifest *m, const char *reason, int64_t count, struct lwm_err *e);
/* Hash and number of the inputs of m. */
int lwm_manifest_hash_inputs(const struct lwm_manifest *m, struct lwm_manifest_list *out, struct lwm_err *e);
/* The inputs of m as a list in `dir`, unless it is there already. */
int lwm_manifest_share(const struct lwm_manifest *m, const char *dir, struct lwm_err *e);
/* Is the list at `path` whole, and that of its name? -LWM_EDATA when not. *inputs (may be NULL): how many. */
int lwm_manifest_check_list(const char *path, int64_t *inputs, struct lwm_err *e);
void lwm_manifest_release(struct lwm_manifest *m);
char *lwm_manifest_path(const char *path); /* malloc'ed; NULL = out of memory */

#endif
