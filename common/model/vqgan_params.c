/* vqgan_params.c - the list of nodes, the parameter table, and weights in and out of it. */
#include <math.h>
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

static int64_t add_param(struct lwm_vqgan_params *p, enum lwm_vqgan_kind kind, int32_t ndim, int64_t a, int64_t b,
			 int64_t k, const char *node, const char *part)
{
	struct lwm_vqgan_param *q = &p->v[p->n++];
	snprintf(q->name, sizeof q->name, "%s%s", node, part); // 55 + 22 bytes at most
	q->kind = kind;
	q->ndim = ndim;
	q->shape[0] = a;
	q->shape[1] = ndim > 1 ? b : 1;
	q->shape[2] = q->shape[3] = ndim > 2 ? k : 1;
	q->count = a * q->shape[1] * q->shape[2] * q->shape[3];
	q->offset = p->floats;
	p->count += q->count;
	p->floats += (q->count + ALIGN - 1) / ALIGN * ALIGN;
	return q->offset;
}

static void conv_params(struct lwm_vqgan_params *p, struct lwm_vq_node *nd, int i, int32_t cin, int32_t kernel,
			const char *part)
{
	char name[32];
	snprintf(name, sizeof name, "%s.weight", part);
	nd->conv[i] = add_param(p, LWM_VQ_CONV, 4, nd->cout, cin, kernel, nd->name, name);
	snprintf(name, sizeof name, "%s.bias", part);
	nd->bias[i] = add_param(p, LWM_VQ_BIAS, 1, nd->cout, 1, 1, nd->name, name);
}

static void norm_params(struct lwm_vqgan_params *p, const struct lwm_vq_node *nd, int64_t *scale, int64_t *bias,
			int32_t channels, const char *part)
{
	char name[32];
	snprintf(name, sizeof name, "%s.weight", part);
	*scale = add_param(p, LWM_VQ_SCALE, 1, channels, 1, 1, nd->name, name);
	snprintf(name, sizeof name, "%s.bias", part);
	*bias = add_param(p, LWM_VQ_BIAS, 1, channels, 1, 1, nd->name, name);
}

static void node_params(struct lwm_vqgan_params *p, struct lwm_vq_node *nd)
{
	nd->norm1 = nd->norm2 = nd->conv[0] = nd->conv[1] = nd->conv[2] = -1;
	if (nd->op == LWM_VQ_OP_CONV) {
		conv_params(p, nd, 0, nd->cin, nd->kernel, "");
	} else if (nd->op == LWM_VQ_OP_NORM) {
		norm_params(p, nd, &nd->norm1, &nd->norm1_bias, nd->cin, "");
	} else {
		norm_params(p, nd, &nd->norm1, &nd->norm1_bias, nd->cin, ".norm1");
		conv_params(p, nd, 0, nd->cin, 3, ".conv1");
		norm_params(p, nd, &nd->norm2, &nd->norm2_bias, nd->cout, ".norm2");
		conv_params(p, nd, 1, nd->cout, 3, ".conv2");
		if (nd->cin != nd->cout)
			conv_params(p, nd, 2, nd->cin, 1, ".conv_shortcut");
	}
}

int lwm_vq_layout_init(struct lwm_vq_layout *l, const struct lwm_vqgan_cfg *c, struct lwm_err *e)
{
	memset(l, 0, sizeof *l);
	LWM_TRY(lwm_vqgan_check(c, e));
	size_t nodes = 16 + (size_t)c->levels * (size_t)(2 * c->res_blocks + 3);
	l->cfg = *c;
	l->node = calloc(nodes, sizeof *l->node);
	l->params.v = calloc(nodes * 10, sizeof *l->params.v);
	if (!l->node || !l->params.v) {
		lwm_vq_layout_release(l);
		return lwm_fail(e, LWM_EMEMORY, "out of memory for the VQGAN's table");
	}
	encoder_nodes(l);
	decoder_nodes(l);
	for (int64_t i = 0; i < l->n; i++) {
		if (i == l->encoder)
			l->codebook = add_param(&l->params, LWM_VQ_CODEBOOK, 2, c->num_embeddings, c->embed_dim, 1,
						"quantize.embedding", ".weight");
		node_params(&l->params, &l->node[i]);
	}
	return 0;
}

void lwm_vq_layout_release(struct lwm_vq_layout *l)
{
	free(l->node);
	lwm_vqgan_params_release(&l->params);
	memset(l, 0, sizeof *l);
}

int lwm_vqgan_params_init(struct lwm_vqgan_params *p, const struct lwm_vqgan_cfg *c, struct lwm_err *e)
{
	struct lwm_vq_layout l;
	memset(p, 0, sizeof *p);
	LWM_TRY(lwm_vq_layout_init(&l, c, e));
	*p = l.params;
	memset(&l.params, 0, sizeof l.params);
	lwm_vq_layout_release(&l);
	return 0;
}

void lwm_vqgan_params_release(struct lwm_vqgan_params *p)
{
	free(p->v);
	memset(p, 0, sizeof *p);
}

/* ---- values ---- */

/* OIHW of the file <-> (kh,kw,cin,cout) of the flat vector; everything else is the same in both. */
static void permute(const struct lwm_vqgan_param *p, float *file, float *flat, bool into_flat)
{
	int64_t taps = p->shape[2] * p->shape[3], cin = p->shape[1], cout = p->shape[0];
	if (p->kind != LWM_VQ_CONV) {
		memcpy(into_flat ? flat : file, into_flat ? file : flat, (size_t)p->count * sizeof *flat);
		return;
	}
	for (int64_t o = 0; o < cout; o++) {
		for (int64_t i = 0; i < cin; i++) {
			for (int64_t t = 0; t < taps; t++) {
				float *a = &file[(o * cin + i) * taps + t], *b = &flat[(t * cin + i) * cout + o];
				if (into_flat)
					*b = *a;
				else
					*a = *b;
			}
		}
	}
}

int lwm_vqgan_import(const struct lwm_vqgan_params *p, float *flat, lwm_vqgan_source *fn, void *ctx, struct lwm_err *e)
{
	int64_t most = 1;
	int rc = 0;
	for (int64_t i = 0; i < p->n; i++)
		most = p->v[i].count > most ? p->v[i].count : most;
	float *tmp = malloc((size_t)most * sizeof *tmp);
	if (!tmp)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a tensor of %lld numbers", (long long)most);
	memset(flat, 0, (size_t)p->floats * sizeof *flat);
	for (int64_t i = 0; i < p->n; i++) {
		LWM_GO(fn(ctx, &p->v[i], tmp, e));
		permute(&p->v[i], tmp, flat + p->v[i].offset, true);
	}
out:
	free(tmp);
	return rc;
}

void lwm_vqgan_export(const struct lwm_vqgan_param *p, const float *flat, float *dst)
{
	permute(p, dst, (float *)(uintptr_t)(flat + p->offset), false);
}

double lwm_psnr(double mse_pm1)
{
	return mse_pm1 > 0 ? 10 * log10(4 / mse_pm1) : INFINITY;
}

/* The VQGAN's own table speaks of file layout; files and checkpoints are read in memory layout (kh,kw,cin,cout). */
void lwm_vqgan_tensor(struct lwm_tensor *t, const struct lwm_vqgan_param *p)
{
	memset(t, 0, sizeof *t);
	snprintf(t->name, sizeof t->name, "%s", p->name);
	t->ndim = p->ndim;
	memcpy(t->shape, p->shape, sizeof t->shape);
	if (p->kind == LWM_VQ_CONV) {
		t->shape[0] = p->shape[2];
		t->shape[1] = p->shape[3];
		t->shape[2] = p->shape[1];
		t->shape[3] = p->shape[0];
	}
	t->offset = p->offset;
	t->count = p->count;
	t->no_decay = p->kind != LWM_VQ_CONV;
}
