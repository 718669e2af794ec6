/* hash.h - XXH3-128, written as 32 hex digits: integrity of every file we publish.
 *
 *	h = lwm_hasher_new(); lwm_hasher_add(h, p, n) ...; digest = lwm_hasher_end(h)
 *
 * It finds damage, not malice: it is no cryptographic hash. Digests and lwm_hash64 stand in files, so they never change.
 */
#ifndef LWM_BASE_HASH_H
#define LWM_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

struct lwm_hash {
	char hex[33]; /* 32 digits and a 0 */
};

struct lwm_hasher; /* of bytes that come in parts, wherever these are cut */
struct lwm_hasher *lwm_hasher_new(void); /* NULL: out of memory */
void lwm_hasher_add(struct lwm_hasher *h, const void *p, size_t n);
struct lwm_hash lwm_hasher_end(struct lwm_hasher *h); /* frees h */

struct lwm_hash lwm_hash_bytes(const void *p, size_t n);
/* Reads the whole file; *bytes (may be NULL) gets its size. -LWM_ENOINPUT, -LWM_EIO. */
int lwm_hash_file(const char *path, struct lwm_hash *out, int64_t *bytes, struct lwm_err *e);
uint64_t lwm_hash64(const void *p, size_t n, uint64_t seed); /* XXH3-64: for tables and seeds */

#endif
