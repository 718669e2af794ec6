/* Finds the tensors in the object that a file of torch.save holds. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/io/torch_int.h"

static const struct {
	const char *name;
	enum lwm_st_dtype dtype;
	int width;
} storages[] = {
	{ "FloatStorage", LWM_ST_F32, 4 }, { "BFloat16Storage", LWM_ST_BF16, 2 }, { "HalfStorage", LWM_ST_F16, 2 },
	{ "DoubleStorage", LWM_ST_F64, 8 }, { "LongStorage", LWM_ST_I64, 8 },	  { "IntStorage", LWM_ST_I32, 4 },
	{ "ByteStorage", LWM_ST_U8, 1 },   { "ShortStorage", LWM_ST_OTHER, 2 },  { "CharStorage", LWM_ST_OTHER, 1 },
	{ "BoolStorage", LWM_ST_OTHER, 1 },
};
enum { STORAGES = sizeof storages / sizeof *storages };

static int text_of(struct lwm_torch *t, const struct lwm_pk *p, const char **out, struct lwm_err *e)
{
	if (p->kind != LWM_PK_TEXT || memchr(p->s, 0, (size_t)p->len))
		return lwm_fail(e, LWM_EDATA, "%s: a name in it is no text", t->path);
	char *s = lwm_arena_alloc(&t->names, (size_t)p->len + 1);
	if (!s)
		return lwm_fail_memory(e, t->path);
	memcpy(s, p->s, (size_t)p->len);
	*out = s;
	return 0;
}

/* ('storage', torch.FloatStorage, '0', 'cpu', 24), in the older form with None, or a view, behind it. */
static int find_storage(struct lwm_torch *t, struct lwm_torch_entry *x, const struct lwm_pk *p, struct lwm_err *e)
{
	const struct lwm_pk *id = p->kind == LWM_PK_STORED ? p->args : NULL;
	int k = 0;
	if (!id || id->kind != LWM_PK_TUPLE || id->n < 5 || !lwm_pk_is_text(id->v[0], "storage") || id->v[4]->kind != LWM_PK_INT ||
	    id->v[4]->i < 0)
		return lwm_fail(e, LWM_EDATA, "%s: '%.80s' is not stored as tensors are", t->path, x->t.name);
	if (id->n > 5 && id->v[5]->kind != LWM_PK_NONE)
		return lwm_fail(e, LWM_EDATA, "%s: '%.80s' is a view in the form of PyTorch 0.3, which is not read", t->path, x->t.name);
	while (k < STORAGES && !lwm_pk_is_global(id->v[1], "torch", storages[k].name))
		k++;
	if (k == STORAGES)
		return lwm_fail(e, LWM_EDATA, "%s: '%.80s' is of a type that is not read here", t->path, x->t.name);
	x->t.dtype = storages[k].dtype;
	x->width = storages[k].width;
	x->stored = id->v[4]->i;
	return text_of(t, id->v[2], &x->key, e);
}

static int unusable(const struct lwm_torch *t, const struct lwm_torch_entry *x, struct lwm_err *e)
{
	return lwm_fail(e, LWM_EDATA, "%s: '%.80s' has no usable shape, or reaches beyond what is stored", t->path, x->t.name);
}

/* Sizes and strides; all that it spans lies in the storage. */
static int shape_of(struct lwm_torch *t, struct lwm_torch_entry *x, const struct lwm_pk *size, const struct lwm_pk *stride,
		    struct lwm_err *e)
{
	const struct lwm_pk *called = lwm_pk_call(size, "torch", "Size");
	int64_t dense = 1;
	size = called && called->n == 1 ? called->v[0] : size;
	if (size->kind != LWM_PK_TUPLE || stride->kind != LWM_PK_TUPLE || size->n != stride->n || size->n > LWM_ST_DIMS)
		return unusable(t, x, e);
	x->t.ndim = (int)size->n;
	x->t.size = 1;
	x->dense = true;
	for (int d = x->t.ndim; d-- > 0;) {
		const struct lwm_pk *n = size->v[d], *s = stride->v[d];
		int64_t reach;
		if (n->kind != LWM_PK_INT || s->kind != LWM_PK_INT || n->i < 0 || s->i < 0 || lwm_mul(x->t.size, n->i, &x->t.size))
			return unusable(t, x, e);
		x->t.shape[d] = n->i;
		x->stride[d] = s->i;
		if (n->i > 1 && (lwm_mul(n->i - 1, s->i, &reach) || reach > x->stored - x->span))
			return unusable(t, x, e);
		x->span += n->i > 1 ? reach : 0;
		x->dense = x->dense && (n->i < 2 || s->i == dense);
		dense = x->t.size;
	}
	x->span = x->t.size ? x->span + 1 : 0;
	if (x->offset < 0 || x->offset > x->stored - x->span)
		return unusable(t, x, e);
	x->t.end = x->t.size * x->width;
	return 0;
}

/* torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...), or the one before it. NULL: no tensor. */
static const struct lwm_pk *tensor_of(const struct lwm_pk *p)
{
	const struct lwm_pk *parameter = lwm_pk_call(p, "torch._utils", "_rebuild_parameter");
	if (parameter && parameter->n > 0)
		p = parameter->v[0];
	const struct lwm_pk *args = lwm_pk_call(p, "torch._utils", "_rebuild_tensor_v2");
	args = args ? args : lwm_pk_call(p, "torch._utils", "_rebuild_tensor");
	return args && args->n >= 4 ? args : NULL;
}

static int add_tensor(struct lwm_torch *t, const struct lwm_pk *key, const struct lwm_pk *args, struct lwm_err *e)
{
	if (t->n == t->cap) {
		int64_t cap = t->cap ? t->cap * 2 : 64;
		struct lwm_torch_entry *v = realloc(t->entry, (size_t)cap * sizeof *v);
		if (!v)
			return lwm_fail_memory(e, t->path);
		t->entry = v;
		t->cap = cap;
	}
	struct lwm_torch_entry *x = &t->entry[t->n];
	memset(x, 0, sizeof *x);
	LWM_TRY(text_of(t, key, &x->t.name, e));
	LWM_TRY(find_storage(t, x, args->v[0], e));
	if (args->v[1]->kind != LWM_PK_INT)
		return unusable(t, x, e);
	x->offset = args->v[1]->i;
	LWM_TRY(shape_of(t, x, args->v[2], args->v[3], e));
	t->n++;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	const struct lwm_torch_entry *x = a, *y = b;
	return strcmp(x->t.name, y->t.name);
}

static bool all_begin(const struct lwm_torch *t, const char *prefix)
{
	for (int64_t i = 0; i < t->n; i++)
		if (strncmp(t->entry[i].t.name, prefix, strlen(prefix)))
			return false;
	return t->n > 0;
}

static bool one_begins(const struct lwm_torch *t, const char *prefix)
{
	for (int64_t i = 0; i < t->n; i++)
		if (!strncmp(t->entry[i].t.name, prefix, strlen(prefix)))
			return true;
	return false;
}

/* What wrappers put before the names of all: DataParallel, Lightning's strategies, torch.compile, a module that holds the model. */
static void strip_prefixes(struct lwm_torch *t)
{
	static const char *const prefixes[] = { "module.", "_forward_module.", "_orig_mod.", "model." };
	for (int i = 0; i < 4; i++) {
		if (!all_begin(t, prefixes[i]) || (i == 3 && !one_begins(t, "model.model.")))
			continue;
		for (int64_t k = 0; k < t->n; k++)
			t->entry[k].t.name += strlen(prefixes[i]);
		i = -1; /* there may be several */
	}
}

int lwm_torch_find(struct lwm_torch *t, const struct lwm_pk *root, struct lwm_err *e)
{
	static const char *const wrappers[] = { "state_dict", "module", "model" };
	const struct lwm_pk *dict = root;
	for (int i = 0; i < 3; i++)
		if (lwm_pk_is_dict(lwm_pk_get(root, wrappers[i])))
			dict = lwm_pk_get(root, wrappers[i]);
	if (!lwm_pk_is_dict(dict))
		return lwm_fail(e, LWM_EDATA, "%s: holds no dict of tensors by name (save model.state_dict(), not the model)", t->path);
	for (int64_t i = 0; i + 1 < dict->n; i += 2) {
		const struct lwm_pk *key = dict->v[i], *args = tensor_of(dict->v[i + 1]);
		if (args)
			LWM_TRY(add_tensor(t, key, args, e));
		else if (lwm_pk_call(dict->v[i + 1], "torch._utils", "_rebuild_tensor_v3"))
			return lwm_fail(e, LWM_EDATA, "%s: '%.*s' is of a type that is not read here", t->path,
					key->len < 80 ? (int)key->len : 80, key->kind == LWM_PK_TEXT ? key->s : "");
	}
	if (!t->n)
		return lwm_fail(e, LWM_EDATA, "%s: holds no tensors by name", t->path);
	strip_prefixes(t);
	qsort(t->entry, (size_t)t->n, sizeof *t->entry, by_name);
	for (int64_t i = 1; i < t->n; i++)
		if (!strcmp(t->entry[i - 1].t.name, t->entry[i].t.name))
			return lwm_fail(e, LWM_EDATA, "%s: has '%.80s' twice", t->path, t->entry[i].t.name);
	return 0;
}
