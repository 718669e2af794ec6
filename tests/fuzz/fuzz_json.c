/* JSON records: manifests, commit records, configurations. */
#include "common/base/json.h"
#include "tests/fuzz/replay.h"

static void fuzz_one(const uint8_t *p, size_t n)
{
	json_t *o;
	struct lwm_err e = { 0 };
	const char *s;
	int64_t i;
	if (lwm_json_parse(&o, (const char *)p, n, "fuzz", &e) < 0) {
		if (!e.code || !*e.msg)
			abort();
		return;
	}
	if (lwm_json_str(o, "schema", &s, "fuzz", &e) < 0)
		lwm_err_clear(&e);
	if (lwm_json_int(o, "bytes", &i, "fuzz", &e) < 0)
		lwm_err_clear(&e);
	json_decref(o);
}
