/* The grid of ranks: its text, its groups. Everything about an axis follows from its line in LWM_MESH_AXES (mesh.h).
 *
 * A rank's coordinates are the digits of its number, the last axis fastest. A group is a set of axes, as bits: its members have
 * equal coordinates on the other axes, whose row-major index is the color of the split, and are ordered by those on its own. */
#include "common/comm/mesh.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* mesh_dim always has the axes of the published system; those added after them are 1 where they are left out. */
enum { PUBLISHED = 4 };

#define AXIS_ROW(constant, name, data, grad, missing) { name, data, grad, missing },
static const struct axis {
	const char *name;
	int data, grad;
	const char *missing;
} axes[LWM_AXES] = { LWM_MESH_AXES(AXIS_ROW) };
const char *const lwm_ring_layouts[] = { "contiguous", "zigzag", "striped", "balanced", NULL };

static int bad_text(const char *text, struct lwm_err *e)
{
	return lwm_fail(e, LWM_EUSAGE,
			"mesh_dim '%s': expected four numbers dp,fsdp,tp,sp like 1,-1,4,1, or dp:1,fsdp:-1,tp:2,sp:1", text);
}

/* One item, "4" or "tp:4": which axis and how many. */
static int parse_item(const char *text, char *s, int index, int dim[LWM_AXES], struct lwm_err *e)
{
	char *colon = strchr(s, ':'), *end;
	int axis = index;
	if (colon) {
		*colon = 0;
		for (axis = 0; axis < LWM_AXES && strcmp(axes[axis].name, s); axis++)
			;
		s = colon + 1;
	}
	long v = strtol(s, &end, 10);
	if (axis >= LWM_AXES || end == s || *end || v == 0 || v < -1 || v > 1 << 20 || dim[axis])
		return bad_text(text, e);
	dim[axis] = (int)v;
	return 0;
}

/* Numbers as they are written, -1 among them. */
static int parse_items(const char *text, int dim[LWM_AXES], struct lwm_err *e)
{
	char copy[128], *save = NULL, *s;
	int n = 0;
	memset(dim, 0, LWM_AXES * sizeof *dim);
	if (snprintf(copy, sizeof copy, "%s", text + (*text == '!')) >= (int)sizeof copy)
		return bad_text(text, e);
	for (s = strtok_r(copy, ",", &save); s; s = strtok_r(NULL, ",", &save))
		LWM_TRY(parse_item(text, s, n++, dim, e));
	for (int a = 0; a < LWM_AXES; a++) {
		if (!dim[a] && a < PUBLISHED)
			return bad_text(text, e);
		if (!dim[a])
			dim[a] = 1;
	}
	return 0;
}

int lwm_mesh_parse(const char *text, int ranks, int dim[LWM_AXES], struct lwm_err *e)
{
	int open = -1;
	int64_t product = 1;
	LWM_TRY(parse_items(text, dim, e));
	for (int a = 0; a < LWM_AXES; a++) {
		if (dim[a] > 0) /* what is beyond any number of ranks stays there, whatever else it would be multiplied by */
			product = product > INT32_MAX ? product : product * dim[a];
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

int lwm_mesh_check(const int dim[LWM_AXES], const char *text, struct lwm_err *e)
{
	for (int a = 0; a < LWM_AXES; a++)
		if (dim[a] > 1 && axes[a].missing)
			return lwm_fail(e, LWM_ECONFIG, "mesh_dim '%s': %s (%s > 1) is not available", text, axes[a].missing,
					axes[a].name);
	return 0;
}

char *lwm_mesh_text(const int dim[LWM_AXES], char buf[LWM_MESH_TEXT])
{
	int n = 0, last = PUBLISHED;
	for (int a = PUBLISHED; a < LWM_AXES; a++)
		last = dim[a] == 1 ? last : a + 1;
	for (int a = 0; a < last && n < LWM_MESH_TEXT; a++)
		n += snprintf(buf + n, (size_t)(LWM_MESH_TEXT - n), "%s%d", a ? "," : "", dim[a]);
	return buf;
}

char *lwm_mesh_words(const int dim[LWM_AXES], bool all, char buf[LWM_MESH_TEXT])
{
	int n = 0;
	for (int a = 0; a < LWM_AXES && n < LWM_MESH_TEXT; a++)
		if (all || !axes[a].missing)
			n += snprintf(buf + n, (size_t)(LWM_MESH_TEXT - n), "%s%s %d", n ? ", " : "", axes[a].name, dim[a]);
	return buf;
}

/* The axes of a group as bits. */
static unsigned group_axes(int group)
{
	unsigned bits = 0;
	if (group < LWM_AXES)
		return 1u << group;
	for (int a = 0; a < LWM_AXES; a++)
		if (group == LWM_DATA ? axes[a].data : axes[a].grad)
			bits |= 1u << a;
	return group == LWM_SHARD ? bits & ~(1u << LWM_DP) : bits;
}

/* Those of them that are longer than 1: groups with the same ones are the same ranks. */
static unsigned long_axes(const struct lwm_mesh *m, int group)
{
	unsigned bits = group_axes(group);
	for (int a = 0; a < LWM_AXES; a++)
		if (m->dim[a] == 1)
			bits &= ~(1u << a);
	return bits;
}

/* The first group of the same ranks, at the latest `group` itself. */
static int first_alike(const struct lwm_mesh *m, int group)
{
	int g = 0;
	while (long_axes(m, g) != long_axes(m, group))
		g++;
	return g;
}

/* Row-major index of this rank's coordinates on some axes. */
static int index_on(const struct lwm_mesh *m, unsigned bits)
{
	int index = 0;
	for (int a = 0; a < LWM_AXES; a++)
		if (bits >> a & 1)
			index = index * m->dim[a] + m->coord[a];
	return index;
}

int lwm_mesh_ranks(const struct lwm_mesh *m, int group)
{
	unsigned bits = group_axes(group);
	int n = 1;
	for (int a = 0; a < LWM_AXES; a++)
		if (bits >> a & 1)
			n *= m->dim[a];
	return n;
}

int lwm_mesh_rank(const struct lwm_mesh *m, int group)
{
	return index_on(m, group_axes(group));
}

int lwm_mesh_span(const struct lwm_mesh *m, int group)
{
	unsigned bits = long_axes(m, group);
	int span = 1, a = 0;

	while (a < LWM_AXES && !(bits >> a & 1))
		a++;
	for (; a < LWM_AXES; a++)
		span *= m->dim[a];
	return span;
}

bool lwm_mesh_same(const struct lwm_mesh *m, int group, int other)
{
	return long_axes(m, group) == long_axes(m, other);
}

void lwm_mesh_place(struct lwm_mesh *m, int rank)
{
	for (int a = LWM_AXES; a-- > 0; rank /= m->dim[a])
		m->coord[a] = rank % m->dim[a];
}

int lwm_mesh_new(struct lwm_mesh *m, const char *text, struct lwm_comm *world, struct lwm_err *e)
{
	memset(m, 0, sizeof *m);
	m->world = world;
	LWM_TRY(lwm_mesh_parse(text, lwm_comm_size(world), m->dim, e));
	lwm_mesh_place(m, lwm_comm_rank(world));
	for (int g = 0; g < LWM_GROUPS; g++) {
		unsigned mine = group_axes(g);
		if (first_alike(m, g) == g)
			LWM_TRY(lwm_comm_split(world, index_on(m, ~mine), index_on(m, mine), &m->comm[g], e));
		else
			m->comm[g] = m->comm[first_alike(m, g)];
	}
	return 0;
}

/* A group of the same ranks may have one already. */
int lwm_mesh_attach_group(struct lwm_mesh *m, int group, struct lk_dev *dev, struct lwm_err *e)
{
	for (int g = 0; g < LWM_GROUPS && !m->dev[group]; g++)
		if (m->dev[g] && m->comm[g] == m->comm[group])
			m->dev[group] = m->dev[g];
	if (m->dev[group])
		return 0;
	return lwm_agree(m->world, lwm_devcomm_new(&m->dev[group], dev, m->comm[group], e), e);
}

int lwm_mesh_attach(struct lwm_mesh *m, struct lk_dev *dev, struct lwm_err *e)
{
	LWM_TRY(lwm_mesh_attach_group(m, LWM_GRAD, dev, e));
	for (int a = 0; a < LWM_AXES; a++)
		if (!axes[a].data && m->dim[a] > 1)
			LWM_TRY(lwm_mesh_attach_group(m, a, dev, e));
	return 0;
}

void lwm_mesh_detach(struct lwm_mesh *m)
{
	for (int g = 0; g < LWM_GROUPS; g++) {
		struct lwm_devcomm *d = m->dev[g];
		for (int same = g; same < LWM_GROUPS; same++)
			if (m->dev[same] == d)
				m->dev[same] = NULL;
		lwm_devcomm_free(d);
	}
}

void lwm_mesh_release(struct lwm_mesh *m)
{
	lwm_mesh_detach(m);
	for (int g = 0; g < LWM_GROUPS; g++)
		if (m->comm[g] && first_alike(m, g) == g)
			lwm_comm_free(m->comm[g]);
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
