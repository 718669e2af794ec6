/* seal.h - inside common/io: JSON records that carry the hash of themselves under "self".
 *
 *	lwm_put(record, key, value, &failed)        member by member; one look at `failed` in the end
 *	lwm_seal_write(record, path, e)
 *
 *	lwm_seal_read(&record, path, schema, e)     -LWM_EDATA: damaged, or of another schema
 *
 * "self" is the XXH3-128 of the compact JSON with sorted keys, without that member. Local calls.
 */
#ifndef LWM_IO_SEAL_H
#define LWM_IO_SEAL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

/* Sets "self" and writes the file. */
int lwm_seal_write(json_t *record, const char *path, struct lwm_err *e);
/* Reads, compares "self" and "schema". The caller json_decref()s *out. */
int lwm_seal_read(json_t **out, const char *path, const char *schema, struct lwm_err *e);
/* The same for any of several schemas (a list that ends in NULL). */
int lwm_seal_read_any(json_t **out, const char *path, const char *const *schemas, struct lwm_err *e);
/* object[key] = value (stolen, NULL allowed); remembers out of memory in *failed. */
void lwm_put(json_t *object, const char *key, json_t *value, bool *failed);

#endif
