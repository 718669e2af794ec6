/* manifest.h - X.manifest.json beside a shard X: who made it, from what, how much, and its XXH3-128. Written last.
 *
 * Opening a shard compares size and content id (a hash of the payload that the shard itself also carries, so that a
 * stale or swapped neighbour of the same size is seen); files below LWM_MANIFEST_FULL bytes are hashed as well.
 * Larger ones are covered by the checksum of each chunk when it is read, and hashed as a whole by lwm_manifest_check.
 * Local calls.
 */
#ifndef LWM_IO_MANIFEST_H
#define LWM_IO_MANIFEST_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/hash.h"

#define LWM_MANIFEST_FULL (64LL << 20)

struct lwm_manifest_input {
	char *path; /* its last component: shards may move between machines */
	int64_t bytes;
	char hash[33];
};

struct lwm_manifest_count {
	char *reason;
	int64_t count;
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
	struct lwm_manifest_count *reject;
	int64_t nreject;
};

/* The manifest beside `path`; absent is -LWM_EDATA: whoever wrote the file did not finish. */
int lwm_manifest_read(struct lwm_manifest *m, const char *path, struct lwm_err *e);
int lwm_manifest_write(const struct lwm_manifest *m, const char *path, struct lwm_err *e);
/* Is the file the one the manifest speaks of? full: hash it all whatever its size. -LWM_EDATA when not. */
int lwm_manifest_check(const struct lwm_manifest *m, const char *path, bool full, struct lwm_err *e);
/* 1 when `path` and a manifest whose size and kind fit are there: an array task has nothing left to do. 0: they are not, or
 * not whole. What cannot be told (memory, a failing disk) is an error. */
int lwm_manifest_done(const char *path, const char *kind, struct lwm_err *e);
int lwm_manifest_add_input(struct lwm_manifest *m, const char *path, int64_t bytes, const char *hash,
			   struct lwm_err *e);
int lwm_manifest_add_reject(struct lwm_manifest *m, const char *reason, int64_t count, struct lwm_err *e);
void lwm_manifest_release(struct lwm_manifest *m);
char *lwm_manifest_path(const char *path); /* malloc'ed; NULL = out of memory */

#endif
