/* JSON records that carry their own hash: "self" is the XXH3-128 of the compact text with sorted keys and without that member. A
 * record whose hash does not fit is damaged, however well it parses. */
#include "common/io/seal.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/json.h"

#define RECORD_LIMIT (256LL << 20)

void lwm_put(json_t *object, const char *key, json_t *value, bool *failed)
{
	if (!value || json_object_set_new(object, key, value))
		*failed = true;
}

/* The hash of the record without "self", in one fixed spelling. */
static int self_hash(json_t *record, struct lwm_hash *out, const char *path, struct lwm_err *e)
{
	json_object_del(record, "self");
	char *text;
	LWM_TRY(lwm_json_dump(record, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17), path, &text, e));
	*out = lwm_hash_bytes(text, strlen(text));
	free(text);
	return 0;
}

int lwm_seal_write(json_t *record, const char *path, struct lwm_err *e)
{
	struct lwm_hash h;
	LWM_TRY(self_hash(record, &h, path, e));
	if (json_object_set_new(record, "self", json_string(h.hex)))
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	return lwm_json_write(record, path, true, e);
}

static int check_self(json_t *record, const char *path, const char *const *schemas, struct lwm_err *e)
{
	const char *const *known = schemas, *have, *self;
	char kept[33];
	struct lwm_hash h;
	if (!json_is_object(record))
		return lwm_fail(e, LWM_EDATA, "%s: must be an object", path);
	LWM_TRY(lwm_json_str(record, "schema", &have, path, e));
	while (*known && strcmp(have, *known))
		known++;
	if (!*known)
		return lwm_fail(e, LWM_EDATA, "%s: is a %.60s, expected %s", path, have, schemas[0]);
	LWM_TRY(lwm_json_str(record, "self", &self, path, e));
	if (strlen(self) != 32)
		return lwm_fail(e, LWM_EDATA, "%s: 'self' is not a hash", path);
	memcpy(kept, self, sizeof kept);
	LWM_TRY(self_hash(record, &h, path, e));
	if (strcmp(kept, h.hex))
		return lwm_fail(e, LWM_EDATA, "%s: damaged: its content does not fit the hash it carries", path);
	return 0;
}

int lwm_seal_read_any(json_t **out, const char *path, const char *const *schemas, struct lwm_err *e)
{
	json_t *record = NULL;
	*out = NULL;
	LWM_TRY(lwm_json_read(&record, path, RECORD_LIMIT, e));
	int rc = check_self(record, path, schemas, e);
	if (rc < 0)
		json_decref(record);
	else
		*out = record;
	return rc;
}

int lwm_seal_read(json_t **out, const char *path, const char *schema, struct lwm_err *e)
{
	const char *const schemas[] = { schema, NULL };
	return lwm_seal_read_any(out, path, schemas, e);
}
