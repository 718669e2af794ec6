/* vqgan_int.h - the net as a list of nodes, and the memory of one pass. For vqgan_*.c only. */
#ifndef LWM_MODEL_VQGAN_INT_H
#define LWM_MODEL_VQGAN_INT_H

#include "common/model/vqgan.h"

enum lwm_vq_op {
	LWM_VQ_OP_CONV, /* y = conv(x): 3x3, or 1x1; down: stride 2; up: on the doubled input */
	LWM_VQ_OP_RES,  /* y = x' + conv2(silu(norm2(conv1(silu(norm1(x)))))), x' = x or its 1x1 shortcut */
	LWM_VQ_OP_NORM  /* y = silu(norm1(x)) */
};

struct lwm_vq_node {
	char name[56];
	enum lwm_vq_op op;
	int32_t cin, cout, kernel;
	int32_t resize; /* -1: half the size comes out, +1: double, 0: the same */
	struct lwm_group group;           /* its weights */
	/* places of them from the start of the group; -1: the node has none */
	int64_t norm1, norm2;             /* scales; their biases lie at norm1_bias, norm2_bias */
	int64_t norm1_bias, norm2_bias;
	int64_t conv[3], bias[3];         /* conv1, conv2, shortcut; a CONV node uses the first */
};

struct lwm_vq_layout {
	struct lwm_vqgan_cfg cfg;
	struct lwm_vq_node *node;
	int64_t n, encoder; /* nodes; the first `encoder` of them come before the quantizer */
	struct lwm_group codebook;
	struct lwm_tensors tensors;
};
int lwm_vq_layout_init(struct lwm_vq_layout *l, const struct lwm_vqgan_cfg *c, struct lwm_err *e);
void lwm_vq_layout_release(struct lwm_vq_layout *l);

/* What training keeps of a node for the backward; views of the pass. */
struct lwm_vq_saved {
	struct lk_view in, n1, h1, n2, out;
	float *mean1, *rstd1, *mean2, *rstd2;
};

/* Memory of one pass of n frames, carved from one block. */
struct lwm_vq_mem {
	int64_t n, height, width, codes; /* codes: of all n frames */
	bool training;
	int act; /* dtype of activations */
	void *buf[4];       /* each holds the largest activation */
	float *mean, *rstd; /* (n, groups) where nothing is kept */
	uint8_t *pixels;    /* (n,H,W,3) */
	float *ones;        /* n H W 3 of them, for nets on [0,1]; else NULL */
	int32_t *idx;       /* codes */
	void *z, *q;        /* (codes, embed_dim) act: before and after the quantizer */
	float *diff;        /* (codes, embed_dim) fp32 */
	void *diff_act;     /* the same in act where that is not fp32 */
	void *target;       /* training: (n,H,W,3) act */
	struct lwm_vq_saved *saved; /* host, layout->n of them; training only */
	int64_t bytes;
};
/* Fills m for a block at base; base NULL: only m->bytes is meaningful. m->saved (host) is the caller's. */
void lwm_vq_carve(struct lwm_vq_mem *m, const struct lwm_vq_layout *l, char *base);
/* Height or width after a node. */
static inline int64_t lwm_vq_resized(const struct lwm_vq_node *nd, int64_t size)
{
	return nd->resize < 0 ? size / 2 : nd->resize > 0 ? size * 2 : size;
}

struct lk_conv_geom lwm_vq_geom(const struct lwm_vq_node *nd, int i); /* of conv[i] */

struct lwm_vq_convs {
	struct lk_conv *c[3];
};

struct lwm_vqgan {
	struct lk_dev *dev;
	struct lwm_vq_layout layout;
	struct lwm_supply *w; /* borrowed */
	/* Where the weights of each node and of the codebook lie. A convolution is made for one place, so all are held for the life
	 * of the net; of gradients one node's at a time. */
	const float **at;
	const float *book;
	int64_t held;   /* groups that were acquired: of the nodes, then of the codebook */
	void *codebook; /* in act; owned where act is not fp32, else book */
	struct lwm_vq_convs *convs;
	struct lwm_vq_saved *saved;
	int64_t per_pass;
	struct lwm_vq_mem mem; /* of the last pass */
	char *block;
	int64_t block_bytes;
	char *judged; /* what a step against a discriminator keeps from its first round */
	int64_t judged_bytes;
};

/* Makes m->mem for n frames. */
int lwm_vq_prepare(struct lwm_vqgan *m, int64_t n, int64_t height, int64_t width, bool training, struct lwm_err *e);
int lwm_vq_check_frames(const struct lwm_vqgan *m, int64_t n, int64_t height, int64_t width, struct lwm_err *e);
/* Pixels of the host into x (n,H,W,3) as the net sees them. */
int lwm_vq_load(struct lwm_vqgan *m, const uint8_t *rgb, const struct lk_view *x, struct lwm_err *e);
/* Of a pass that lwm_vq_prepare made for training: forward, with what the quantizer loses; the other losses, added to *st, with d
 * (NULL: not wanted) their gradient at the output, for the loss times scale; and from that, or another, back to the weights. */
int lwm_vq_forward(struct lwm_vqgan *m, const uint8_t *rgb, bool continuous, double *vq, struct lwm_err *e);
int lwm_vq_losses(struct lwm_vqgan *m, const struct lwm_vqgan_loss *loss, float scale, double vq, const struct lk_view *d,
		  struct lwm_vqgan_stats *st, struct lwm_err *e);
int lwm_vq_backward(struct lwm_vqgan *m, const struct lwm_vqgan_loss *loss, float scale, struct lk_view *d, struct lwm_supply *w,
		    struct lwm_err *e);
/* mem.z from the encoder's output, mem.idx and mem.q from mem.z. */
int lwm_vq_quantize(struct lwm_vqgan *m, const struct lk_view *z, struct lwm_err *e);

#endif
