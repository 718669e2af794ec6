/* The manifest of a model folder: which files it has and what their bytes are. */
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/path.h"
#include "common/io/model_int.h"
#include "common/io/seal.h"

#define MANIFEST_LIMIT (64LL << 20)

/* Every name is one of the same folder, every value a hash. */
static int check_files(const struct lwm_model_record *r, struct lwm_err *e)
{
	const char *name;
	json_t *v;
	json_object_foreach(r->files, name, v) {
		const char *hash = json_string_value(v);
		if (!lwm_name_is_plain(name) || !hash || strlen(hash) != 32)
			return lwm_fail(e, LWM_EDATA, "%s: '%.80s' is not a file of the same folder with its hash", r->path,
					name);
	}
	return 0;
}

static int read_record(struct lwm_model_record *r, struct lwm_err *e)
{
	static const char *const schemas[] = { LWM_MODEL_SCHEMA, LWM_MODEL_SCHEMA_1, NULL };
	const char *schema;
	LWM_TRY(lwm_seal_read_any(&r->record, r->path, schemas, e));
	LWM_TRY(lwm_json_str(r->record, "schema", &schema, r->path, e));
	LWM_TRY(lwm_json_get(r->record, "files", JSON_OBJECT, &r->files, r->path, e));
	r->weights_only = !strcmp(schema, LWM_MODEL_SCHEMA_1);
	r->tokenizer = "";
	if (!r->weights_only)
		LWM_TRY(lwm_json_str(r->record, "tokenizer", &r->tokenizer, r->path, e));
	if (*r->tokenizer && strlen(r->tokenizer) != 32)
		return lwm_fail(e, LWM_EDATA, "%s: 'tokenizer' is not a hash", r->path);
	return check_files(r, e);
}

int lwm_record_read(struct lwm_model_record *r, const char *dir, struct lwm_err *e)
{
	memset(r, 0, sizeof *r);
	r->tokenizer = "";
	r->path = lwm_path_join(dir, LWM_MODEL_MANIFEST);
	int rc = r->path ? lwm_path_there(r->path, e) : lwm_fail_memory(e, dir);
	if (rc > 0)
		rc = read_record(r, e);
	if (rc < 0)
		lwm_record_release(r);
	return rc;
}

void lwm_record_release(struct lwm_model_record *r)
{
	json_decref(r->record);
	free(r->path);
	memset(r, 0, sizeof *r);
}

bool lwm_folder_has(const char *dir, const char *name)
{
	char *path = lwm_path_join(dir, name);
	bool yes = path && lwm_path_exists(path);
	free(path);
	return yes;
}

int64_t lwm_record_count(const struct lwm_model_record *r, const char *suffix)
{
	const char *name;
	json_t *v;
	int64_t n = 0;
	json_object_foreach(r->files, name, v)
		n += lwm_path_has_suffix(name, suffix);
	return n;
}

const char *lwm_record_hash(const struct lwm_model_record *r, const char *name)
{
	return json_string_value(json_object_get(r->files, name));
}

static int compare(const struct lwm_model_record *r, const char *name, const struct lwm_hash *have, struct lwm_err *e)
{
	const char *want = lwm_record_hash(r, name);
	if (!want)
		return lwm_fail(e, LWM_EDATA, "%s: does not name the %s that lies beside it", r->path, name);
	if (strcmp(want, have->hex))
		return lwm_fail(e, LWM_EDATA, "%s: names a %s whose hash is %s, the one beside it has %s (damaged, stale or swapped)",
				r->path, name, want, have->hex);
	return 0;
}

static int check_text(const struct lwm_model_record *r, const char *name, const char *text, size_t n, struct lwm_err *e)
{
	struct lwm_hash have = lwm_hash_bytes(text, n);
	return r->record && !r->weights_only ? compare(r, name, &have, e) : 0;
}

int lwm_record_json(const struct lwm_model_record *r, const char *dir, const char *name, int64_t limit, json_t **out,
		    struct lwm_err *e)
{
	char *text = NULL, *path = lwm_path_join(dir, name);
	size_t n;
	int rc = path ? lwm_read_file(path, limit, &text, &n, e) : lwm_fail_memory(e, dir);
	if (rc == 0)
		rc = check_text(r, name, text, n, e);
	if (rc == 0)
		rc = lwm_json_parse(out, text, n, path, e);
	free(text);
	free(path);
	return rc;
}

int lwm_record_check_file(const struct lwm_model_record *r, const char *dir, const char *name, struct lwm_err *e)
{
	struct lwm_hash have;
	char *path = lwm_path_join(dir, name);
	int rc = path ? lwm_path_there(path, e) : lwm_fail_memory(e, dir);
	if (rc == 0)
		rc = lwm_fail(e, LWM_EDATA, "%s: is named in %s and is not there", path, LWM_MODEL_MANIFEST);
	if (rc > 0)
		rc = lwm_hash_file(path, &have, NULL, e);
	free(path);
	return rc < 0 ? rc : compare(r, name, &have, e);
}

/* Only beside a config.json: other people's folders may hold a manifest.json of their own. */
static int record_of_model(struct lwm_model_record *r, const char *dir, struct lwm_err *e)
{
	char *config = lwm_path_join(dir, LWM_MODEL_CONFIG);
	int rc = config ? lwm_path_there(config, e) : lwm_fail_memory(e, dir);
	free(config);
	return rc > 0 ? lwm_record_read(r, dir, e) : rc;
}

int lwm_model_check_file(const char *path, struct lwm_err *e)
{
	struct lwm_model_record r = { 0 };
	const char *name = lwm_path_base(path);
	char *dir = lwm_path_dir(path);
	int rc = dir ? record_of_model(&r, dir, e) : lwm_fail_memory(e, path);
	if (rc == 0 && r.record && !r.weights_only && lwm_record_hash(&r, name))
		rc = lwm_record_check_file(&r, dir, name, e);
	lwm_record_release(&r);
	free(dir);
	return rc;
}

bool lwm_record_is_ours(const char *dir)
{
	char *path = lwm_path_join(dir, LWM_MODEL_MANIFEST), *text = NULL;
	size_t n;
	bool yes = path && lwm_read_file(path, MANIFEST_LIMIT, &text, &n, NULL) == 0 && strstr(text, LWM_MODEL_SCHEMA);

	free(path);
	free(text);
	return yes;
}
