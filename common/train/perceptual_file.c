/* The network of a perceptual loss out of a file. */
#include "common/train/perceptual_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/io/safetensors.h"

static int64_t find(const struct lwm_st *s, const char *name)
{
	for (int64_t i = 0; i < lwm_st_count(s); i++)
		if (!strcmp(lwm_st_get_tensor(s, i)->name, name))
			return i;
	return -1;
}

/* The convolution of the smallest number above `after`; -1: there is none. */
static int64_t next_conv(const struct lwm_st *s, int after, int *index)
{
	int64_t found = -1;
	int n, end;
	for (int64_t i = 0; i < lwm_st_count(s); i++) {
		const struct lwm_st_tensor *t = lwm_st_get_tensor(s, i);
		end = 0;
		if (sscanf(t->name, "features.%4d.weight%n", &n, &end) != 1 || !end || t->name[end] || n <= after ||
		    (found >= 0 && n > *index))
			continue;
		*index = n;
		found = i;
	}
	return found;
}

static int read_shape(struct lwm_perceptual_cfg *c, const struct lwm_st *s, struct lwm_err *e)
{
	const char *path = lwm_st_path(s);
	int32_t cin = 3;
	int at = -1, index = 0;
	int64_t i;
	memset(c, 0, sizeof *c);
	while ((i = next_conv(s, at, &index)) >= 0) {
		const struct lwm_st_tensor *t = lwm_st_get_tensor(s, i);
		if (c->convs == LWM_PERCEPTUAL_CONVS)
			return lwm_fail(e, LWM_EDATA, "%s: more than %d convolutions", path, LWM_PERCEPTUAL_CONVS);
		if (c->convs == 0 ? index != 0 : index != at + 2 && index != at + 3)
			return lwm_fail(e, LWM_EDATA, "%s: '%s' follows features.%d; expected two more (a relu between) or three more "
					"(and a pooling), from features.0 on", path, t->name, at);
		if (t->ndim != 4 || t->shape[1] != cin || t->shape[2] != 3 || t->shape[3] != 3 || t->shape[0] < 1 ||
		    t->shape[0] > 1 << 14)
			return lwm_fail(e, LWM_EDATA, "%s: '%s' is no convolution of 3 x 3 from %d channels", path, t->name, cin);
		c->conv[c->convs] = (struct lwm_perceptual_conv){ index, cin, (int32_t)t->shape[0], c->convs && index == at + 3 };
		c->convs++;
		cin = (int32_t)t->shape[0];
		at = index;
	}
	if (c->convs)
		return 0;
	return lwm_fail(e, LWM_EDATA, "%s: has no 'features.0.weight': expected convolutions as torchvision names them, and heads of LPIPS", path);
}

/* On disk a convolution is (out, in, 3, 3), a head (1, channels, 1, 1). */
static bool same_shape(const struct lwm_st_tensor *have, const struct lwm_tensor *t)
{
	if (t->role == LWM_ROLE_CONV)
		return have->ndim == 4 && have->shape[0] == t->shape[3] && have->shape[1] == t->shape[2];
	if (t->role == LWM_ROLE_BIAS)
		return have->ndim == 1 && have->shape[0] == t->shape[0];
	return have->ndim == 4 && have->shape[0] == 1 && have->shape[1] == t->shape[0] && have->size == t->shape[0];
}

static int check_tensors(const struct lwm_st *s, const struct lwm_tensors *t, struct lwm_err *e)
{
	for (int64_t k = 0; k < t->n; k++) {
		int64_t i = find(s, t->list[k].name);
		if (i < 0)
			return lwm_fail(e, LWM_EDATA, "%s: has no '%s'%s", lwm_st_path(s), t->list[k].name,
					t->list[k].role == LWM_ROLE_SCALE ? ": expected the weights of LPIPS for each block of convolutions" : "");
		if (!same_shape(lwm_st_get_tensor(s, i), &t->list[k]))
			return lwm_fail(e, LWM_EDATA, "%s: '%s' has another shape than its convolution wants", lwm_st_path(s), t->list[k].name);
	}
	for (int64_t i = 0; i < lwm_st_count(s); i++) {
		const char *name = lwm_st_get_tensor(s, i)->name;
		int n, end = 0;
		bool head = sscanf(name, "lin%4d.model.1.weight%n", &n, &end) == 1 && end && !name[end];
		if ((head || !strncmp(name, "features.", 9)) && !lwm_tensors_find(t, name))
			return lwm_fail(e, LWM_EDATA, "%s: '%s' has no place in a stack of convolutions, relus and poolings", lwm_st_path(s), name);
	}
	return 0;
}

/* to: of tensor t, from the order of the file. */
static int read_values(struct lwm_st *s, const struct lwm_tensor *t, float *to, struct lwm_err *e)
{
	int64_t cin = t->shape[2], cout = t->shape[3];
	float *from = malloc((size_t)t->count * sizeof *from);
	int rc = from ? lwm_st_read(s, find(s, t->name), 0, t->count, from, e) : lwm_fail_memory(e, t->name);
	for (int64_t i = 0; rc == 0 && i < t->count; i++) {
		int64_t tap = i % 9, c = i / 9;
		to[t->role == LWM_ROLE_CONV ? (tap * cin + c % cin) * cout + c / cin : i] = from[i];
		if (!isfinite(from[i]) || (t->role == LWM_ROLE_SCALE && from[i] < 0))
			rc = lwm_fail(e, LWM_EDATA, "%s: value %" PRId64 " of '%s' is %g: expected %s", lwm_st_path(s), i, t->name,
				      (double)from[i], t->role == LWM_ROLE_SCALE ? "weights of 0 or more" : "numbers");
	}
	free(from);
	return rc;
}

int lwm_perceptual_read(struct lwm_perceptual_file *f, const char *path, bool values, struct lwm_err *e)
{
	struct lwm_tensors t = { 0 };
	struct lwm_hash hash;
	struct lwm_st *s = NULL;
	int rc;
	memset(f, 0, sizeof *f);
	LWM_GO(lwm_st_open(&s, path, e));
	LWM_GO(read_shape(&f->cfg, s, e));
	LWM_GO(lwm_perceptual_tensors(&t, &f->cfg, e));
	LWM_GO(check_tensors(s, &t, e));
	if (values) {
		f->values = calloc((size_t)t.total, sizeof *f->values);
		if (!f->values)
			LWM_GO(lwm_fail_memory(e, path));
		for (int64_t i = 0; i < t.n; i++)
			LWM_GO(read_values(s, &t.list[i], f->values + t.list[i].offset, e));
		LWM_GO(lwm_hash_file(path, &hash, NULL, e));
		memcpy(f->hash, hash.hex, sizeof f->hash);
	}
out:
	lwm_tensors_release(&t);
	lwm_st_close(s);
	return rc;
}

void lwm_perceptual_release(struct lwm_perceptual_file *f)
{
	free(f->values);
	memset(f, 0, sizeof *f);
}
