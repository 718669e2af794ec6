/* vqgan_mem.c - memory of one pass, carved from one block by walking the nodes. */
#include <string.h>

#include "common/comm/device.h"
#include "common/model/vqgan_int.h"

struct carver {
	char *base; /* NULL: sizes only */
	int64_t used;
};

static void *carve_bytes(struct carver *c, int64_t bytes)
{
	char *p = c->base ? c->base + c->used : NULL;
	c->used += lwm_round64(bytes);
	return p;
}

static struct lk_view carve4(struct carver *c, int act, int64_t n, int64_t h, int64_t w, int64_t ch)
{
	return lk_view4(carve_bytes(c, n * h * w * ch * (int64_t)lk_dtype_size(act)), act, n, h, w, ch);
}

/* Elements of the largest input or output of the first nodes at n frames. */
static int64_t largest_activation(const struct lwm_vq_layout *l, int64_t nodes, int64_t n, int64_t h, int64_t w)
{
	int64_t most = n * h * w * 3;
	for (int64_t i = 0; i < nodes; i++) {
		const struct lwm_vq_node *nd = &l->node[i];
		int64_t in = n * h * w * nd->cin;
		h = lwm_vq_resized(nd, h);
		w = lwm_vq_resized(nd, w);
		int64_t out = n * h * w * nd->cout;
		most = in > most ? in : most;
		most = out > most ? out : most;
	}
	return most;
}

static void keep_stats(struct carver *c, float **mean, float **rstd, int64_t count)
{
	*mean = carve_bytes(c, count * (int64_t)sizeof(float));
	*rstd = carve_bytes(c, count * (int64_t)sizeof(float));
}

/* What the backward wants of every node. The input is the output of the node before. */
static void keep_nodes(struct lwm_vq_mem *m, const struct lwm_vq_layout *l, struct carver *c)
{
	int64_t n = m->n, h = m->height, w = m->width, stats = n * l->cfg.groups;
	struct lk_view in = carve4(c, m->act, n, h, w, 3);
	for (int64_t i = 0; i < l->n; i++) {
		const struct lwm_vq_node *nd = &l->node[i];
		struct lwm_vq_saved s = { 0 };
		if (i == l->encoder)
			in = lk_view4(m->q, m->act, n, h, w, nd->cin);
		s.in = in;
		if (nd->op != LWM_VQ_OP_CONV)
			keep_stats(c, &s.mean1, &s.rstd1, stats);
		if (nd->op == LWM_VQ_OP_RES) {
			s.n1 = carve4(c, m->act, n, h, w, nd->cin);
			s.h1 = carve4(c, m->act, n, h, w, nd->cout);
			s.n2 = carve4(c, m->act, n, h, w, nd->cout);
			keep_stats(c, &s.mean2, &s.rstd2, stats);
		}
		h = lwm_vq_resized(nd, h);
		w = lwm_vq_resized(nd, w);
		if (i + 1 == l->encoder)
			s.out = lk_view4(m->z, m->act, n, h, w, nd->cout);
		else
			s.out = carve4(c, m->act, n, h, w, nd->cout);
		in = s.out;
		if (m->saved)
			m->saved[i] = s;
	}
}

void lwm_vq_carve(struct lwm_vq_mem *m, const struct lwm_vq_layout *l, char *base)
{
	struct carver c = { base, 0 };
	int64_t elem = (int64_t)lk_dtype_size(m->act), f = lwm_vqgan_factor(&l->cfg);
	int64_t pixels = m->n * m->height * m->width * 3, most = largest_activation(l, l->n, m->n, m->height, m->width);
	m->codes = m->n * (m->height / f) * (m->width / f);
	int64_t latent = m->codes * l->cfg.embed_dim;
	for (int i = 0; i < 4; i++)
		m->buf[i] = carve_bytes(&c, most * elem);
	keep_stats(&c, &m->mean, &m->rstd, m->n * l->cfg.groups);
	m->pixels = carve_bytes(&c, pixels);
	m->ones = l->cfg.unit_pixels ? carve_bytes(&c, pixels * (int64_t)sizeof(float)) : NULL;
	m->idx = carve_bytes(&c, m->codes * (int64_t)sizeof(int32_t));
	m->z = carve_bytes(&c, latent * elem);
	m->q = carve_bytes(&c, latent * elem);
	m->diff = carve_bytes(&c, latent * (int64_t)sizeof(float));
	m->diff_act = m->act == LK_F32 ? m->diff : carve_bytes(&c, latent * elem);
	m->target = NULL;
	if (m->training) {
		m->target = carve_bytes(&c, pixels * elem);
		keep_nodes(m, l, &c);
	}
	m->bytes = c.used;
}

int64_t lwm_vqgan_memory(const struct lwm_vqgan_cfg *c, int64_t n, int64_t height, int64_t width, bool training)
{
	struct lwm_vq_layout l;
	struct lwm_vq_mem m = { .n = n, .height = height, .width = width, .training = training, .act = LK_F32 };
	if (lwm_vq_layout_init(&l, c, NULL) < 0)
		return -1;
	lwm_vq_carve(&m, &l, NULL);
	lwm_vq_layout_release(&l);
	return m.bytes;
}

int64_t lwm_vqgan_encode_fills(const struct lwm_vqgan_cfg *c, int64_t n, int64_t height, int64_t width)
{
	int64_t all = lwm_vqgan_memory(c, n, height, width, false);
	struct lwm_vq_layout l;
	if (all < 0 || lwm_vq_layout_init(&l, c, NULL) < 0)
		return -1;
	all -= 4 * (int64_t)sizeof(float) *
	       (largest_activation(&l, l.n, n, height, width) - largest_activation(&l, l.encoder, n, height, width));
	lwm_vq_layout_release(&l);
	return all;
}

struct lk_conv_geom lwm_vq_geom(const struct lwm_vq_node *nd, int i)
{
	bool shortcut = i == 2;
	int32_t cin = i == 1 ? nd->cout : nd->cin, k = shortcut ? 1 : nd->kernel, p = k / 2;
	struct lk_conv_geom g = { cin, nd->cout, k, k, 1, p, p, p, p, nd->resize > 0 ? 2 : 1 };
	if (nd->resize < 0) { // stride 2, one row and column of zeros at the far sides only
		g.stride = 2;
		g.pad_top = g.pad_left = 0;
	}
	return g;
}

/* Of node i at (n,h,w): kept bytes are added up, of scratch the most counts. */
static int own_of(struct lk_dev *dev, const struct lwm_vq_layout *l, int64_t i, const int64_t size[3], bool training,
		  struct lk_own *sum)
{
	const struct lwm_vq_node *nd = &l->node[i];
	for (int j = 0; j < 3; j++) {
		struct lk_own own;
		if (nd->conv[j] < 0)
			continue;
		struct lk_conv_geom g = lwm_vq_geom(nd, j);
		int rc = lk_conv_own(dev, &g, size[0], size[1], size[2], training, &own);
		if (rc)
			return rc;
		sum->kept += own.kept;
		sum->scratch = own.scratch > sum->scratch ? own.scratch : sum->scratch;
	}
	return 0;
}

/* Of all nodes, scratch of all or of those of the encoder alone. */
static struct lk_own own_of_nodes(struct lk_dev *dev, const struct lwm_vqgan_cfg *c, int64_t n, int64_t height, int64_t width,
				  bool training, bool all)
{
	int64_t size[3] = { n, height, width };
	struct lk_own sum = { 0, 0 };
	struct lwm_vq_layout l;
	int rc = 0;
	if (lwm_vq_layout_init(&l, c, NULL) < 0)
		return sum;
	for (int64_t i = 0; !rc && i < l.n; i++) {
		int64_t before = sum.scratch;
		rc = own_of(dev, &l, i, size, training, &sum);
		if (!all && i >= l.encoder)
			sum.scratch = before;
		size[1] = lwm_vq_resized(&l.node[i], size[1]);
		size[2] = lwm_vq_resized(&l.node[i], size[2]);
	}
	lwm_vq_layout_release(&l);
	return rc ? (struct lk_own){ 0, 0 } : sum;
}

int64_t lwm_vqgan_own(struct lk_dev *dev, const struct lwm_vqgan_cfg *c, int64_t n, int64_t height, int64_t width, bool training)
{
	struct lk_own own = own_of_nodes(dev, c, n, height, width, training, true);
	return own.kept + own.scratch;
}

struct lk_own lwm_vqgan_encode_own(struct lk_dev *dev, const struct lwm_vqgan_cfg *c, int64_t n, int64_t height, int64_t width)
{
	return own_of_nodes(dev, c, n, height, width, false, false);
}
