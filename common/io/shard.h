/* shard.h - inside common/io: what document and row shards share.
 *
 *	writing           lwm_shard_begin(&s, path, kind, schema, tool, config, force, e)
 *	                  lwm_spool_add, lwm_tokens_add                      values of each vector, into a spool of its own
 *	                  lwm_put(s.meta, ...), s.manifest.in, .out, .tokens   what the shard says of itself
 *	                  lwm_shard_commit(&s, schema, v, spool, nv, e)      file and manifest
 *	                  lwm_shard_release(&s)                              whether or not that went well
 *
 *	reading           lwm_shard_open(&s, path, kind, schema, v, nv, e)   or lwm_shard_open_known, without the manifest
 *	                  lwm_vfr_read(s.r, ...), lwm_tokens_read(s.r, ...)
 *	                  lwm_shard_close(&s)
 *
 * A shard is a vecfile whose last vector `meta` is JSON text (with `content`, the hash of everything else), and a manifest. Shards
 * are read in small pieces: their blocks are fine (vecfile.h).
 */
#ifndef LWM_IO_SHARD_H
#define LWM_IO_SHARD_H

#include <jansson.h>
#include <stdbool.h>

#include "common/io/manifest.h"
#include "common/io/spool.h"
#include "common/io/vecfile.h"

struct lwm_shard_out {
	char *path;
	struct lwm_manifest manifest;
	json_t *meta; /* the caller adds its members until commit */
	bool failed;  /* out of memory while adding to meta */
};

/* Refuses a finished shard without force; one without manifest was never finished and is replaced. */
int lwm_shard_begin(struct lwm_shard_out *s, const char *path, const char *kind, const char *schema, const char *tool,
		    const char *config, bool force, struct lwm_err *e);
/* v[i].n is filled from the spools. manifest.in, out, tokens must be set. */
int lwm_shard_commit(struct lwm_shard_out *s, const char *schema, struct lwm_vec *v, struct lwm_spool *spool, int nv,
		     struct lwm_err *e);
void lwm_shard_release(struct lwm_shard_out *s);

struct lwm_shard_in {
	struct lwm_vfr *r;
	struct lwm_manifest manifest;
	json_t *meta;
};

/* v without `meta`. The manifest, size and content id. */
int lwm_shard_open(struct lwm_shard_in *s, const char *path, const char *kind, const char *schema,
		   const struct lwm_vec *v, int nv, struct lwm_err *e);
/* The same with bytes and content of s->manifest filled by the caller, who knows them; all else of *s is zero. */
int lwm_shard_open_known(struct lwm_shard_in *s, const char *path, const char *schema, const struct lwm_vec *v, int nv,
			 struct lwm_err *e);
void lwm_shard_close(struct lwm_shard_in *s);
/* Is it a file of that schema? For formats that have two, after it turned out not to be the first. */
bool lwm_shard_holds(const char *path, const char *schema);

/* Token vectors hold 2 or 4 bytes each. */
enum lwm_vtype lwm_token_type(int64_t vocab);
/* Adds tokens to a spool in the type of the shard; *bad gets the index of the first id outside 0 .. vocab-1 and
 * nothing is added, else -1. */
int lwm_tokens_add(struct lwm_spool *s, const int32_t *tokens, int64_t n, int64_t vocab, int64_t *bad,
		   const char *path, struct lwm_err *e);
/* n tokens of vector `vec` from `first`; an id outside the vocabulary is -LWM_EDATA. */
int lwm_tokens_read(struct lwm_vfr *r, int vec, int64_t first, int64_t n, int64_t vocab, int32_t *out,
		    const char *path, struct lwm_err *e);

#endif
