/* vqgan_tensors.c - the list of nodes, and the table of their weights. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/vqgan_int.h"

enum { ALIGN = 16 }; /* floats */

/* ---- nodes ---- */

static struct lwm_vq_node *add_node(struct lwm_vq_layout *l, enum lwm_vq_op op, int32_t cin, int32_t cout,
				    int32_t kernel, int32_t resize)
{
	struct lwm_vq_node *nd = &l->node[l->n++];
	memset(nd, 0, sizeof *nd);
	nd->op = op;
	nd->cin = cin;
	nd->cout = cout;
	nd->kernel = kernel;
	nd->resize = resize;
	return nd;
}

#define NAMED(node, ...) snprintf((node)->name, sizeof(node)->name, __VA_ARGS__)

static void encoder_nodes(struct lwm_vq_layout *l)
{
	const struct lwm_vqgan_cfg *c = &l->cfg;
	int32_t ch = c->hidden * c->mult[0];
	NAMED(add_node(l, LWM_VQ_OP_CONV, 3, ch, 3, 0), "encoder.conv_in");
	for (int i = 0; i < c->levels; i++) {
		int32_t out = c->hidden * c->mult[i];
		for (int j = 0; j < c->res_blocks; j++) {
			NAMED(add_node(l, LWM_VQ_OP_RES, ch, out, 3, 0), "encoder.down_blocks.%d.resnets.%d", i, j);
			ch = out;
		}
		if (i + 1 < c->levels)
			NAMED(add_node(l, LWM_VQ_OP_CONV, ch, ch, 3, -1), "encoder.down_blocks.%d.downsamplers.0.conv", i);
	}
	for (int j = 0; j < 2; j++)
		NAMED(add_node(l, LWM_VQ_OP_RES, ch, ch, 3, 0), "encoder.mid_block.resnets.%d", j);
	NAMED(add_node(l, LWM_VQ_OP_NORM, ch, ch, 0, 0), "encoder.conv_norm_out");
	NAMED(add_node(l, LWM_VQ_OP_CONV, ch, c->z_channels, 3, 0), "encoder.conv_out");
	NAMED(add_node(l, LWM_VQ_OP_CONV, c->z_channels, c->embed_dim, 1, 0), "quant_conv");
	l->encoder = l->n;
}

static void decoder_nodes(struct lwm_vq_layout *l)
{
	const struct lwm_vqgan_cfg *c = &l->cfg;
	int32_t ch = c->hidden * c->mult[c->levels - 1];
	NAMED(add_node(l, LWM_VQ_OP_CONV, c->embed_dim, c->z_channels, 1, 0), "post_quant_conv");
	NAMED(add_node(l, LWM_VQ_OP_CONV, c->z_channels, ch, 3, 0), "decoder.conv_in");
	for (int j = 0; j < 2; j++)
		NAMED(add_node(l, LWM_VQ_OP_RES, ch, ch, 3, 0), "decoder.mid_block.resnets.%d", j);
	for (int i = 0; i < c->levels; i++) { // numbered from the coarse end
		int32_t out = c->hidden * c->mult[c->levels - 1 - i];
		for (int j = 0; j < c->res_blocks + 1; j++) {
			NAMED(add_node(l, LWM_VQ_OP_RES, ch, out, 3, 0), "decoder.up_blocks.%d.resnets.%d", i, j);
			ch = out;
		}
		if (i + 1 < c->levels)
			NAMED(add_node(l, LWM_VQ_OP_CONV, ch, ch, 3, 1), "decoder.up_blocks.%d.upsamplers.0.conv", i);
	}
	NAMED(add_node(l, LWM_VQ_OP_NORM, ch, ch, 0, 0), "decoder.conv_norm_out");
	NAMED(add_node(l, LWM_VQ_OP_CONV, ch, 3, 3, 0), "decoder.conv_out");
}

/* ---- table ---- */

/* Adds the tensors of a node, which are a group; the first failure is kept. */
struct adder {
	struct lwm_tensors *p;
	int group, rc;
	int64_t start; /* of the group */
	struct lwm_err *e;
};

/* Returns its place from the start of the group. */
static int64_t add_tensor(struct adder *a, struct lwm_tensor t, const char *node, const char *part)
{
	char name[96];
	int64_t at = a->p->total - a->start;
	snprintf(name, sizeof name, "%s%s", node, part);
	t.name = name;
	t.modality = LWM_MODALITIES;
	t.split = LWM_SPLIT_NONE;
	t.trainable = true;
	t.decays = t.role == LWM_ROLE_CONV;
	t.group = a->group;
	if (!a->rc)
		a->rc = lwm_tensors_add(a->p, &t, a->e);
	return at;
}

static int64_t add_vector(struct adder *a, enum lwm_role role, int32_t n, const char *node, const char *part)
{
	struct lwm_tensor t = { .ndim = 1, .shape = { n }, .role = role, .init = LWM_INIT_CONST, .value = role == LWM_ROLE_SCALE };
	return add_tensor(a, t, node, part);
}

/* conv: the i-th of the node. A residual branch starts small: the net begins nearly linear and does not fall into a grey mean. */
static void add_conv(struct adder *a, struct lwm_vq_node *nd, int i, int32_t cin, int32_t kernel, const char *part)
{
	struct lwm_tensor t = { .ndim = 4, .shape = { kernel, kernel, cin, nd->cout }, .role = LWM_ROLE_CONV,
				.init = LWM_INIT_FAN_IN, .value = i == 1 ? 0.1 : 1 };
	char name[32];
	snprintf(name, sizeof name, "%s.weight", part);
	nd->conv[i] = add_tensor(a, t, nd->name, name);
	snprintf(name, sizeof name, "%s.bias", part);
	nd->bias[i] = add_vector(a, LWM_ROLE_BIAS, nd->cout, nd->name, name);
}

static void add_norm(struct adder *a, const struct lwm_vq_node *nd, int64_t *scale, int64_t *bias, int32_t channels,
		     const char *part)
{
	char name[32];
	snprintf(name, sizeof name, "%s.weight", part);
	*scale = add_vector(a, LWM_ROLE_SCALE, channels, nd->name, name);
	snprintf(name, sizeof name, "%s.bias", part);
	*bias = add_vector(a, LWM_ROLE_BIAS, channels, nd->name, name);
}

static struct lwm_group end_group(struct adder *a)
{
	struct lwm_group g = { a->group++, a->start, a->p->total - a->start };
	a->start = a->p->total;
	return g;
}

static void add_weights(struct adder *a, struct lwm_vq_node *nd)
{
	nd->norm1 = nd->norm2 = nd->conv[0] = nd->conv[1] = nd->conv[2] = -1;
	if (nd->op == LWM_VQ_OP_CONV) {
		add_conv(a, nd, 0, nd->cin, nd->kernel, "");
	} else if (nd->op == LWM_VQ_OP_NORM) {
		add_norm(a, nd, &nd->norm1, &nd->norm1_bias, nd->cin, "");
	} else {
		add_norm(a, nd, &nd->norm1, &nd->norm1_bias, nd->cin, ".norm1");
		add_conv(a, nd, 0, nd->cin, 3, ".conv1");
		add_norm(a, nd, &nd->norm2, &nd->norm2_bias, nd->cout, ".norm2");
		add_conv(a, nd, 1, nd->cout, 3, ".conv2");
		if (nd->cin != nd->cout)
			add_conv(a, nd, 2, nd->cin, 1, ".conv_shortcut");
	}
	nd->group = end_group(a);
}

static void add_codebook(struct adder *a, struct lwm_vq_layout *l)
{
	struct lwm_tensor t = { .ndim = 2, .shape = { l->cfg.num_embeddings, l->cfg.embed_dim }, .role = LWM_ROLE_CODEBOOK,
				.init = LWM_INIT_INVERSE, .value = l->cfg.num_embeddings };
	add_tensor(a, t, "quantize.embedding", ".weight");
	l->codebook = end_group(a);
}

int lwm_vq_layout_init(struct lwm_vq_layout *l, const struct lwm_vqgan_cfg *c, struct lwm_err *e)
{
	struct adder a = { .p = &l->tensors, .e = e };
	memset(l, 0, sizeof *l);
	LWM_TRY(lwm_vqgan_check(c, e));
	size_t nodes = 16 + (size_t)c->levels * (size_t)(2 * c->res_blocks + 3);
	l->cfg = *c;
	l->tensors.align = ALIGN;
	l->node = calloc(nodes, sizeof *l->node);
	if (!l->node)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for the VQGAN's table");
	encoder_nodes(l);
	decoder_nodes(l);
	for (int64_t i = 0; i < l->n; i++) {
		if (i == l->encoder)
			add_codebook(&a, l);
		add_weights(&a, &l->node[i]);
	}
	if (a.rc < 0)
		lwm_vq_layout_release(l);
	return a.rc;
}

void lwm_vq_layout_release(struct lwm_vq_layout *l)
{
	free(l->node);
	lwm_tensors_release(&l->tensors);
	memset(l, 0, sizeof *l);
}

int lwm_vqgan_tensors(struct lwm_tensors *p, const struct lwm_vqgan_cfg *c, struct lwm_err *e)
{
	struct lwm_vq_layout l;
	memset(p, 0, sizeof *p);
	LWM_TRY(lwm_vq_layout_init(&l, c, e));
	*p = l.tensors;
	memset(&l.tensors, 0, sizeof l.tensors);
	lwm_vq_layout_release(&l);
	return 0;
}
