/* What is this path, what is in it, is it intact: one line a kind of thing; who speaks for it is inspect_shards.c,
 * inspect_weights.c. */
#include "common/io/inspect.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/path.h"
#include "common/io/inspect_int.h"
#include "common/io/manifest.h"
#include "common/io/seal.h"
#include "common/io/vecfile.h"

static const struct lwm_thing_ops unknown = { .name = "unknown" };
static const struct lwm_thing_ops *const things[] = {
	[LWM_THING_OTHER] = &unknown,
	[LWM_THING_DOCS] = &lwm_thing_docs,
	[LWM_THING_ROWS] = &lwm_thing_rows,
	[LWM_THING_CKPT] = &lwm_thing_ckpt,
	[LWM_THING_PART] = &lwm_thing_part,
	[LWM_THING_ST] = &lwm_thing_st,
	[LWM_THING_MODEL] = &lwm_thing_model,
	[LWM_THING_INDEX] = &lwm_thing_index,
	[LWM_THING_INPUTS] = &lwm_thing_inputs,
};
enum { THINGS = sizeof things / sizeof *things };

const char *lwm_thing_name(enum lwm_thing what)
{
	return things[what]->name;
}

/* A failure that says something of the file, as opposed to one to read it. */
static bool is_verdict(int rc)
{
	return rc == -LWM_EDATA || rc == -LWM_ENOINPUT;
}

static bool is_listed(const char *const *list, const char *word)
{
	for (; list && *list; list++)
		if (!strcmp(*list, word))
			return true;
	return false;
}

/* By the folder, or by the name of the file. */
static enum lwm_thing by_name(const char *path, bool folder)
{
	for (int i = 0; i < THINGS; i++) {
		bool (*is)(const char *) = folder ? things[i]->is_folder : things[i]->is_named;
		if (is && is(path))
			return (enum lwm_thing)i;
	}
	return LWM_THING_OTHER;
}

static enum lwm_thing by_schema(const char *schema)
{
	for (int i = 0; i < THINGS; i++)
		if (is_listed(things[i]->schemas, schema))
			return (enum lwm_thing)i;
	return LWM_THING_OTHER;
}

/* A damaged shard may no longer say what it is; the manifest beside it still does. */
static int by_manifest(const char *path, enum lwm_thing *out, struct lwm_err *e)
{
	struct lwm_manifest m;
	struct lwm_err why = { 0 };
	int rc = lwm_manifest_read(&m, path, &why);
	if (rc < 0)
		return is_verdict(rc) ? 0 : lwm_fail(e, -rc, "%s", why.msg);
	for (int i = 0; i < THINGS; i++)
		if (things[i]->manifest && !strcmp(m.kind, things[i]->manifest))
			*out = (enum lwm_thing)i;
	lwm_manifest_release(&m);
	return 0;
}

int lwm_thing_of(const char *path, enum lwm_thing *out, struct lwm_err *e)
{
	char *schema = NULL;
	struct lwm_err why = { 0 };
	*out = LWM_THING_OTHER;
	if (access(path, R_OK))
		return lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot read", path);
	bool folder = lwm_path_is_dir(path);
	*out = by_name(path, folder);
	if (folder || *out != LWM_THING_OTHER)
		return 0;
	int rc = lwm_vf_schema(path, &schema, &why);
	if (rc < 0)
		return is_verdict(rc) ? by_manifest(path, out, e) : lwm_fail(e, -rc, "%s", why.msg);
	*out = by_schema(schema);
	free(schema);
	return 0;
}

static int is_none(const char *path, struct lwm_err *e)
{
	return lwm_fail(e, LWM_EDATA, "%s: not a file or folder of this system", path);
}

int lwm_describe(const char *path, enum lwm_thing what, bool tensors, json_t **out, struct lwm_err *e)
{
	const struct lwm_thing_ops *t = things[what];
	bool failed = false;
	json_t *o = json_object();
	*out = NULL;
	lwm_put(o, "path", json_string(path), &failed);
	lwm_put(o, "kind", json_string(t->name), &failed);
	int rc = t->describe ? t->describe(path, tensors, o, &failed, e) : is_none(path, e);
	if (rc == 0 && failed)
		rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory, or a name that is not UTF-8", path);
	if (rc < 0)
		json_decref(o);
	else
		*out = o;
	return rc;
}

int lwm_check_thing(const char *path, enum lwm_thing what, struct lwm_err *e)
{
	return things[what]->check ? things[what]->check(path, e) : is_none(path, e);
}
