/* What is in the tree of a pickle. */
#include <string.h>

#include "common/io/pickle.h"

static bool same(const char *s, int64_t len, const char *text)
{
	return (int64_t)strlen(text) == len && !memcmp(s, text, (size_t)len);
}

bool lwm_pk_is_text(const struct lwm_pk *p, const char *text)
{
	return p && p->kind == LWM_PK_TEXT && same(p->s, p->len, text);
}

bool lwm_pk_is_global(const struct lwm_pk *p, const char *module, const char *name)
{
	return p && p->kind == LWM_PK_GLOBAL && same(p->s, p->len, module) && same(p->name, p->name_len, name);
}

const struct lwm_pk *lwm_pk_call(const struct lwm_pk *p, const char *module, const char *name)
{
	return p && p->kind == LWM_PK_CALL && lwm_pk_is_global(p->of, module, name) ? p->args : NULL;
}

bool lwm_pk_is_dict(const struct lwm_pk *p)
{
	return p && (p->kind == LWM_PK_DICT || lwm_pk_call(p, "collections", "OrderedDict") ||
		     lwm_pk_call(p, "collections", "defaultdict"));
}

const struct lwm_pk *lwm_pk_get(const struct lwm_pk *dict, const char *key)
{
	if (!lwm_pk_is_dict(dict))
		return NULL;
	for (int64_t i = dict->n / 2; i-- > 0;)
		if (lwm_pk_is_text(dict->v[2 * i], key))
			return dict->v[2 * i + 1];
	return NULL;
}
