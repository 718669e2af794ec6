#include "common/comm/mesh.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"

static const char *const axis_names[LWM_AXES] = { "dp", "fsdp", "tp", "sp" };
const char *const lwm_ring_layouts[] = { "contiguous", "zigzag", "striped", NULL };

static int bad(const char *text, struct lwm_err *e)
{
	return lwm_fail(e, LWM_EUSAGE,
			"mesh_dim '%s': expected four numbers dp,fsdp,tp,sp like 1,-1,4,1, or dp:1,fsdp:-1,tp:2,sp:1", text);
}

/* One item, "4" or "tp:4": which axis and how many. */
static int item(const char *text, char *s, int index, int dim[LWM_AXES], struct lwm_err *e)
{
	char *colon = strchr(s, ':'), *end;
	int axis = index;
	if (colon) {
		*colon = 0;
		for (axis = 0; axis < LWM_AXES && strcmp(axis_names[axis], s); axis++)
			;
		s = colon + 1;
	}
	long v = strtol(s, &end, 10);
	if (axis >= LWM_AXES || end == s || *end || v == 0 || v < -1 || v > 1 << 20 || dim[axis])
		return bad(text, e);
	dim[axis] = (int)v;
	return 0;
}

int lwm_mesh_parse(const char *text, int ranks, int dim[LWM_AXES], struct lwm_err *e)
{
	char copy[128], *save = NULL, *s;
	int n = 0, open = -1;
	int64_t product = 1;
	memset(dim, 0, LWM_AXES * sizeof *dim);
	if (snprintf(copy, sizeof copy, "%s", text + (*text == '!')) >= (int)sizeof copy)
		return bad(text, e);
	for (s = strtok_r(copy, ",", &save); s; s = strtok_r(NULL, ",", &save))
		if (n == LWM_AXES || item(text, s, n++, dim, e) < 0)
			return bad(text, e);
	if (n != LWM_AXES)
		return bad(text, e);
	for (int a = 0; a < LWM_AXES; a++) {
		if (dim[a] > 0)
			product *= dim[a];
		else if (open >= 0)
			return lwm_fail(e, LWM_EUSAGE, "mesh_dim '%s': only one entry may be -1", text);
		else
			open = a;
	}
	if (open >= 0 && ranks % product == 0) {
		dim[open] = (int)(ranks / product);
		product = ranks;
	}
	if (product != ranks)
		return lwm_fail(e, LWM_ECONFIG, "mesh_dim '%s' does not fit %d rank%s", text, ranks, ranks == 1 ? "" : "s");
	return 0;
}

int lwm_mesh_new(struct lwm_mesh *m, const char *text, struct lwm_comm *world, struct lwm_err *e)
{
	int rest = lwm_comm_rank(world), *c = m->coord;
	memset(m, 0, sizeof *m);
	m->world = world;
	LWM_TRY(lwm_mesh_parse(text, lwm_comm_size(world), m->dim, e));
	for (int a = LWM_AXES; a-- > 0; rest /= m->dim[a])
		c[a] = rest % m->dim[a];
	int row = c[LWM_DP] * m->dim[LWM_FSDP] + c[LWM_FSDP];
	LWM_TRY(lwm_comm_split(world, row * m->dim[LWM_TP] + c[LWM_TP], c[LWM_SP], &m->sp, e));
	LWM_TRY(lwm_comm_split(world, c[LWM_TP] * m->dim[LWM_SP] + c[LWM_SP], row, &m->data, e));
	LWM_TRY(lwm_comm_split(world, c[LWM_TP], lwm_comm_rank(world), &m->grad, e));
	return 0;
}

int lwm_mesh_attach(struct lwm_mesh *m, struct lk_dev *dev, struct lwm_err *e)
{
	int rc = lwm_agree(m->world, lwm_devcomm_new(&m->grad_dev, dev, m->grad, e), e);

	if (rc < 0 || m->dim[LWM_SP] == 1)
		return rc;
	m->sp_dev = m->grad_dev; // where one row is all there is, they are the same ranks
	if (lwm_comm_size(m->sp) == lwm_comm_size(m->grad))
		return 0;
	m->sp_dev = NULL;
	return lwm_agree(m->world, lwm_devcomm_new(&m->sp_dev, dev, m->sp, e), e);
}

void lwm_mesh_detach(struct lwm_mesh *m)
{
	if (m->sp_dev != m->grad_dev)
		lwm_devcomm_free(m->sp_dev);
	lwm_devcomm_free(m->grad_dev);
	m->sp_dev = m->grad_dev = NULL;
}

void lwm_mesh_release(struct lwm_mesh *m)
{
	lwm_mesh_detach(m);
	lwm_comm_free(m->sp);
	lwm_comm_free(m->data);
	lwm_comm_free(m->grad);
	memset(m, 0, sizeof *m);
}

int lwm_ring_check(enum lwm_ring_layout layout, int64_t seq, int n, struct lwm_err *e)
{
	int64_t unit = layout == LWM_RING_ZIGZAG && n > 1 ? 2 * (int64_t)n : n;
	if (seq % unit)
		return lwm_fail(e, LWM_ECONFIG, "seq_length %" PRId64 " must be a multiple of %" PRId64
				" for a %s ring of %d ranks", seq, unit, lwm_ring_layouts[layout], n);
	return 0;
}

int64_t lwm_ring_global(enum lwm_ring_layout layout, int64_t seq, int n, int r, int64_t local)
{
	int64_t half;
	switch (layout) {
	case LWM_RING_STRIPED:
		return local * n + r;
	case LWM_RING_ZIGZAG:
		if (n == 1)
			return local;
		half = seq / (2 * (int64_t)n);
		return local < half ? r * half + local : (2 * (int64_t)n - 1 - r) * half + (local - half);
	default:
		return r * (seq / n) + local;
	}
}
