/* vqgan.c - the net on a device: convolutions, passes, encode and decode. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/comm/device.h"
#include "common/model/vqgan_int.h"

#define EPS 1e-6f

/* ---- making it ---- */

static const struct lwm_group *group_of(const struct lwm_vqgan *m, int64_t i)
{
	return i < m->layout.n ? &m->layout.node[i].group : &m->layout.codebook;
}

static int acquire_weights(struct lwm_vqgan *m, struct lwm_err *e)
{
	int rc = 0;
	for (; rc == 0 && m->held <= m->layout.n; m->held++) {
		struct lwm_supplied s = { NULL, NULL };
		rc = lwm_supply_acquire(m->w, group_of(m, m->held), LWM_WEIGHTS, &s, 0, e);
		*(m->held < m->layout.n ? &m->at[m->held] : &m->book) = s.w;
	}
	return rc;
}

static void release_weights(struct lwm_vqgan *m)
{
	for (; m->held > 0; m->held--)
		lwm_supply_release(m->w, group_of(m, m->held - 1));
}

static int make_convs(struct lwm_vqgan *m, struct lwm_err *e)
{
	for (int64_t i = 0; i < m->layout.n; i++) {
		const struct lwm_vq_node *nd = &m->layout.node[i];
		for (int j = 0; j < 3; j++) {
			struct lk_conv_geom g = lwm_vq_geom(nd, j);
			if (nd->conv[j] >= 0)
				LWM_TRY(lwm_dev_check(m->dev, lk_conv_new(m->dev, &m->convs[i].c[j], &g, m->at[i] + nd->conv[j],
									  m->at[i] + nd->bias[j]), e));
		}
	}
	return 0;
}

static int refresh_codebook(struct lwm_vqgan *m, struct lwm_err *e)
{
	const struct lwm_vqgan_cfg *c = &m->layout.cfg;
	void *fp32 = (void *)(uintptr_t)m->book;
	if (lk_dev_dtype(m->dev) == LK_F32) {
		m->codebook = fp32;
		return 0;
	}
	struct lk_view x = lk_view2(fp32, LK_F32, c->num_embeddings, c->embed_dim);
	struct lk_view y = lk_view2(m->codebook, lk_dev_dtype(m->dev), c->num_embeddings, c->embed_dim);
	return lwm_dev_check(m->dev, lk_cast(m->dev, &y, &x), e);
}

int lwm_vqgan_new(struct lwm_vqgan **out, struct lk_dev *dev, const struct lwm_vqgan_cfg *c, struct lwm_supply *w,
		  int64_t frames_per_pass, struct lwm_err *e)
{
	int rc;
	struct lwm_vqgan *m = calloc(1, sizeof *m);
	*out = NULL;
	if (!m)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for the VQGAN");
	m->dev = dev;
	m->w = w;
	m->per_pass = frames_per_pass > 0 ? frames_per_pass : 1;
	LWM_GO(lwm_vq_layout_init(&m->layout, c, e));
	m->convs = calloc((size_t)m->layout.n, sizeof *m->convs);
	m->saved = calloc((size_t)m->layout.n, sizeof *m->saved);
	m->at = calloc((size_t)m->layout.n, sizeof *m->at);
	if (!m->convs || !m->saved || !m->at)
		LWM_GO(lwm_fail(e, LWM_EMEMORY, "out of memory for the VQGAN"));
	LWM_GO(acquire_weights(m, e));
	LWM_GO(make_convs(m, e));
	if (lk_dev_dtype(dev) != LK_F32)
		LWM_GO(lwm_dev_check(dev, lk_mem_alloc(dev, (size_t)c->num_embeddings * (size_t)c->embed_dim *
						       lk_dtype_size(lk_dev_dtype(dev)), &m->codebook), e));
	LWM_GO(refresh_codebook(m, e));
	*out = m;
	return 0;
out:
	lwm_vqgan_free(m);
	return rc;
}

int lwm_vqgan_refresh(struct lwm_vqgan *m, struct lwm_err *e)
{
	for (int64_t i = 0; i < m->layout.n; i++)
		for (int j = 0; j < 3; j++)
			if (m->convs[i].c[j])
				LWM_TRY(lwm_dev_check(m->dev, lk_conv_refresh(m->dev, m->convs[i].c[j]), e));
	return refresh_codebook(m, e);
}

void lwm_vqgan_free(struct lwm_vqgan *m)
{
	if (!m)
		return;
	for (int64_t i = 0; m->convs && i < m->layout.n; i++)
		for (int j = 0; j < 3; j++)
			lk_conv_free(m->convs[i].c[j]);
	if (lk_dev_dtype(m->dev) != LK_F32)
		lk_mem_free(m->dev, m->codebook);
	lk_mem_free(m->dev, m->block);
	lk_mem_free(m->dev, m->judged);
	release_weights(m);
	lwm_vq_layout_release(&m->layout);
	free(m->convs);
	free(m->saved);
	free(m->at);
	free(m);
}

/* ---- one pass ---- */

int lwm_vq_check_frames(const struct lwm_vqgan *m, int64_t n, int64_t height, int64_t width, struct lwm_err *e)
{
	int64_t f = lwm_vqgan_factor(&m->layout.cfg);
	if (n < 0 || n > 1 << 30 || height < f || width < f || height > 1 << 15 || width > 1 << 15 || height % f ||
	    width % f)
		return lwm_fail(e, LWM_ECONFIG, "frames of %" PRId64 " x %" PRId64 ": this VQGAN takes multiples of %" PRId64, width,
				height, f);
	return 0;
}

int lwm_vq_prepare(struct lwm_vqgan *m, int64_t n, int64_t height, int64_t width, bool training, struct lwm_err *e)
{
	struct lwm_vq_mem *mem = &m->mem;
	if (mem->n == n && mem->height == height && mem->width == width && mem->training == training)
		return 0;
	memset(mem, 0, sizeof *mem);
	struct lwm_vq_mem want = { .n = n, .height = height, .width = width, .training = training,
				   .act = lk_dev_dtype(m->dev) };
	lwm_vq_carve(&want, &m->layout, NULL);
	if (want.bytes > m->block_bytes) {
		void *p = NULL;
		lk_mem_free(m->dev, m->block);
		m->block = NULL;
		m->block_bytes = 0;
		LWM_TRY(lwm_dev_check(m->dev, lk_mem_alloc(m->dev, (size_t)want.bytes, &p), e));
		m->block = p;
		m->block_bytes = want.bytes;
	}
	want.saved = training ? m->saved : NULL;
	lwm_vq_carve(&want, &m->layout, m->block);
	if (want.ones)
		LWM_TRY(lwm_dev_check(m->dev, lk_fill(m->dev, want.ones, n * height * width * 3, 1), e));
	*mem = want;
	return 0;
}

/* x = a x + b 1, where 1 is mem.ones. */
static int apply_affine(struct lwm_vqgan *m, const struct lk_view *x, float a, float b, struct lwm_err *e)
{
	struct lk_view ones = lk_view4(m->mem.ones, LK_F32, x->n[0], x->n[1], x->n[2], x->n[3]);
	LWM_TRY(lwm_dev_check(m->dev, lk_scale(m->dev, x, a), e));
	return lwm_dev_check(m->dev, lk_axpy(m->dev, x, b, &ones), e);
}

int lwm_vq_load(struct lwm_vqgan *m, const uint8_t *rgb, const struct lk_view *x, struct lwm_err *e)
{
	struct lk_view u8 = lk_view4(m->mem.pixels, LK_U8, x->n[0], x->n[1], x->n[2], 3);
	size_t bytes = (size_t)(x->n[0] * x->n[1] * x->n[2] * 3);
	LWM_TRY(lwm_dev_check(m->dev, lk_upload(m->dev, m->mem.pixels, rgb, bytes), e));
	LWM_TRY(lwm_dev_check(m->dev, lk_pixels(m->dev, x, &u8), e));
	return m->mem.ones ? apply_affine(m, x, 0.5f, 0.5f, e) : 0;
}

/* Back to the host. */
static int store_pixels(struct lwm_vqgan *m, const struct lk_view *x, uint8_t *rgb, struct lwm_err *e)
{
	struct lk_view u8 = lk_view4(m->mem.pixels, LK_U8, x->n[0], x->n[1], x->n[2], 3);
	size_t bytes = (size_t)(x->n[0] * x->n[1] * x->n[2] * 3);
	if (m->mem.ones)
		LWM_TRY(apply_affine(m, x, 2, -1, e));
	LWM_TRY(lwm_dev_check(m->dev, lk_pixels(m->dev, &u8, x), e));
	return lwm_dev_check(m->dev, lk_download(m->dev, rgb, m->mem.pixels, bytes), e);
}

static struct lk_view out_view(const struct lwm_vq_node *nd, const struct lk_view *x, void *data)
{
	return lk_view4(data, x->dtype, x->n[0], lwm_vq_resized(nd, x->n[1]), lwm_vq_resized(nd, x->n[2]), nd->cout);
}

/* w: the node's weights. */
static int apply_norm(struct lwm_vqgan *m, const struct lk_view *y, const struct lk_view *x, const float *w, int64_t scale,
		      int64_t bias, struct lwm_err *e)
{
	return lwm_dev_check(m->dev, lk_groupnorm_fwd(m->dev, y, m->mem.mean, m->mem.rstd, x, w + scale, w + bias,
						      m->layout.cfg.groups, EPS, 1), e);
}

/* y may be any of the free buffers b[0..2]; *y tells which it is. */
static int forward_res(struct lwm_vqgan *m, int64_t i, const struct lk_view *x, void *const b[3], struct lk_view *y,
		       struct lwm_err *e)
{
	const struct lwm_vq_node *nd = &m->layout.node[i];
	const struct lwm_vq_convs *c = &m->convs[i];
	const float *w = m->at[i];
	struct lk_view a = lk_view4(b[0], x->dtype, x->n[0], x->n[1], x->n[2], nd->cin);
	struct lk_view h = out_view(nd, x, b[1]), s = out_view(nd, x, b[0]);
	const struct lk_view *add = x;
	LWM_TRY(apply_norm(m, &a, x, w, nd->norm1, nd->norm1_bias, e));
	LWM_TRY(lwm_dev_check(m->dev, lk_conv_fwd(m->dev, c->c[0], &h, &a, NULL), e));
	LWM_TRY(apply_norm(m, &h, &h, w, nd->norm2, nd->norm2_bias, e));
	if (c->c[2]) {
		LWM_TRY(lwm_dev_check(m->dev, lk_conv_fwd(m->dev, c->c[2], &s, x, NULL), e));
		add = &s;
	}
	*y = out_view(nd, x, b[2]);
	return lwm_dev_check(m->dev, lk_conv_fwd(m->dev, c->c[1], y, &h, add), e);
}

/* Nodes [first, last) from x, without keeping anything; *y is a view of one of mem.buf. */
static int forward_nodes(struct lwm_vqgan *m, int64_t first, int64_t last, const struct lk_view *x, struct lk_view *y,
			 struct lwm_err *e)
{
	*y = *x;
	for (int64_t i = first; i < last; i++) {
		const struct lwm_vq_node *nd = &m->layout.node[i];
		struct lk_view in = *y;
		void *b[3];
		for (int j = 0, k = 0; j < 4 && k < 3; j++)
			if (m->mem.buf[j] != in.data)
				b[k++] = m->mem.buf[j];
		if (nd->op == LWM_VQ_OP_NORM) {
			LWM_TRY(apply_norm(m, &in, &in, m->at[i], nd->norm1, nd->norm1_bias, e));
		} else if (nd->op == LWM_VQ_OP_RES) {
			LWM_TRY(forward_res(m, i, &in, b, y, e));
		} else {
			*y = out_view(nd, &in, b[0]);
			LWM_TRY(lwm_dev_check(m->dev, lk_conv_fwd(m->dev, m->convs[i].c[0], y, &in, NULL), e));
		}
	}
	return 0;
}

int lwm_vq_quantize(struct lwm_vqgan *m, const struct lk_view *z, struct lwm_err *e)
{
	const struct lwm_vqgan_cfg *c = &m->layout.cfg;
	int64_t k = c->num_embeddings, d = c->embed_dim, n = m->mem.codes;
	struct lk_view zv = lk_view2(z->data, m->mem.act, n, d), q = lk_view2(m->mem.q, m->mem.act, n, d);
	struct lk_view book = lk_view2((void *)(uintptr_t)m->book, LK_F32, k, d);
	struct lk_view table = lk_view2(m->codebook, m->mem.act, k, d);
	LWM_TRY(lwm_dev_check(m->dev, lk_nearest_code(m->dev, m->mem.idx, &zv, &book), e));
	return lwm_dev_check(m->dev, lk_embed_fwd(m->dev, &q, m->mem.idx, &table, 0), e);
}

/* ---- encode, decode ---- */

static int encode_pass(struct lwm_vqgan *m, const uint8_t *rgb, int64_t n, int64_t h, int64_t w, int32_t *codes,
		       float *z, struct lwm_err *e)
{
	struct lk_view x, y;
	LWM_TRY(lwm_vq_prepare(m, n, h, w, false, e));
	x = lk_view4(m->mem.buf[0], m->mem.act, n, h, w, 3);
	LWM_TRY(lwm_vq_load(m, rgb, &x, e));
	LWM_TRY(forward_nodes(m, 0, m->layout.encoder, &x, &y, e));
	int64_t latent = m->mem.codes * m->layout.cfg.embed_dim;
	if (z) {
		struct lk_view from = lk_view1(y.data, y.dtype, latent), to = lk_view1(m->mem.diff, LK_F32, latent);
		LWM_TRY(lwm_dev_check(m->dev, lk_cast(m->dev, &to, &from), e));
		LWM_TRY(lwm_dev_check(m->dev, lk_download(m->dev, z, m->mem.diff, (size_t)latent * sizeof *z), e));
	}
	if (!codes)
		return 0;
	LWM_TRY(lwm_vq_quantize(m, &y, e));
	return lwm_dev_check(m->dev, lk_download(m->dev, codes, m->mem.idx, (size_t)m->mem.codes * sizeof *codes), e);
}

int lwm_vqgan_latents(struct lwm_vqgan *m, const uint8_t *rgb, int64_t n, int64_t height, int64_t width,
		      int32_t *codes, float *z, struct lwm_err *e)
{
	int64_t per = lwm_vqgan_codes(&m->layout.cfg, height, width), d = m->layout.cfg.embed_dim;
	LWM_TRY(lwm_vq_check_frames(m, n, height, width, e));
	for (int64_t i = 0; i < n; i += m->per_pass) {
		int64_t k = n - i < m->per_pass ? n - i : m->per_pass;
		LWM_TRY(encode_pass(m, rgb + i * height * width * 3, k, height, width, codes ? codes + i * per : NULL,
				    z ? z + i * per * d : NULL, e));
	}
	return 0;
}

int lwm_vqgan_encode(struct lwm_vqgan *m, const uint8_t *rgb, int64_t n, int64_t height, int64_t width, int32_t *codes,
		     struct lwm_err *e)
{
	return lwm_vqgan_latents(m, rgb, n, height, width, codes, NULL, e);
}

/* The frames of a pass from mem.q. */
static int decode_vectors(struct lwm_vqgan *m, uint8_t *rgb, struct lwm_err *e)
{
	const struct lwm_vqgan_cfg *c = &m->layout.cfg;
	int64_t f = lwm_vqgan_factor(c);
	struct lk_view q = lk_view4(m->mem.q, m->mem.act, m->mem.n, m->mem.height / f, m->mem.width / f, c->embed_dim), y;
	LWM_TRY(forward_nodes(m, m->layout.encoder, m->layout.n, &q, &y, e));
	return store_pixels(m, &y, rgb, e);
}

static int decode_pass(struct lwm_vqgan *m, const int32_t *codes, int64_t n, int64_t h, int64_t w, uint8_t *rgb,
		       struct lwm_err *e)
{
	const struct lwm_vqgan_cfg *c = &m->layout.cfg;
	LWM_TRY(lwm_vq_prepare(m, n, h, w, false, e));
	struct lk_view q = lk_view2(m->mem.q, m->mem.act, m->mem.codes, c->embed_dim);
	struct lk_view table = lk_view2(m->codebook, m->mem.act, c->num_embeddings, c->embed_dim);
	LWM_TRY(lwm_dev_check(m->dev, lk_upload(m->dev, m->mem.idx, codes, (size_t)m->mem.codes * sizeof *codes), e));
	LWM_TRY(lwm_dev_check(m->dev, lk_embed_fwd(m->dev, &q, m->mem.idx, &table, 0), e));
	return decode_vectors(m, rgb, e);
}

static int decode_latents_pass(struct lwm_vqgan *m, const float *z, bool snap, int64_t n, int64_t h, int64_t w, uint8_t *rgb,
			       struct lwm_err *e)
{
	LWM_TRY(lwm_vq_prepare(m, n, h, w, false, e));
	int64_t latent = m->mem.codes * m->layout.cfg.embed_dim;
	struct lk_view from = lk_view1(m->mem.diff, LK_F32, latent);
	struct lk_view to = lk_view1(snap ? m->mem.buf[0] : m->mem.q, m->mem.act, latent);
	LWM_TRY(lwm_dev_check(m->dev, lk_upload(m->dev, m->mem.diff, z, (size_t)latent * sizeof *z), e));
	LWM_TRY(lwm_dev_check(m->dev, lk_cast(m->dev, &to, &from), e));
	if (snap)
		LWM_TRY(lwm_vq_quantize(m, &to, e));
	return decode_vectors(m, rgb, e);
}

int lwm_vqgan_decode(struct lwm_vqgan *m, const int32_t *codes, int64_t n, int64_t height, int64_t width, uint8_t *rgb,
		     struct lwm_err *e)
{
	int64_t per = lwm_vqgan_codes(&m->layout.cfg, height, width);
	LWM_TRY(lwm_vq_check_frames(m, n, height, width, e));
	for (int64_t i = 0; i < n * per; i++)
		if (codes[i] < 0 || codes[i] >= m->layout.cfg.num_embeddings)
			return lwm_fail(e, LWM_EDATA, "frame %" PRId64 ", code %" PRId64 " is %d: the codebook has 0 to %d",
					i / per, i % per, codes[i],
					m->layout.cfg.num_embeddings - 1);
	for (int64_t i = 0; i < n; i += m->per_pass) {
		int64_t k = n - i < m->per_pass ? n - i : m->per_pass;
		LWM_TRY(decode_pass(m, codes + i * per, k, height, width, rgb + i * height * width * 3, e));
	}
	return 0;
}

int lwm_vqgan_decode_latents(struct lwm_vqgan *m, const float *z, bool snap, int64_t n, int64_t height, int64_t width, uint8_t *rgb,
			     struct lwm_err *e)
{
	int64_t per = lwm_vqgan_codes(&m->layout.cfg, height, width) * m->layout.cfg.embed_dim;
	LWM_TRY(lwm_vq_check_frames(m, n, height, width, e));
	for (int64_t i = 0; i < n; i += m->per_pass) {
		int64_t k = n - i < m->per_pass ? n - i : m->per_pass;
		LWM_TRY(decode_latents_pass(m, z + i * per, snap, k, height, width, rgb + i * height * width * 3, e));
	}
	return 0;
}
