/* The configuration of a VQGAN as the config.json of diffusers' VQModel, and the hash that names a net by it and its weights. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/json.h"
#include "common/comm/device.h"
#include "common/model/vqgan.h"

int lwm_vqgan_cfg_to_json(const struct lwm_vqgan_cfg *c, json_t **out, struct lwm_err *e)
{
	json_t *channels = json_array(), *down = json_array(), *up = json_array();
	bool lost = false; /* a level left out for want of memory would be another net */
	for (int i = 0; i < c->levels; i++) {
		lost |= json_array_append_new(channels, json_integer((json_int_t)c->mult[i] * c->hidden)) < 0;
		lost |= json_array_append_new(down, json_string("DownEncoderBlock2D")) < 0;
		lost |= json_array_append_new(up, json_string("UpDecoderBlock2D")) < 0;
	}
	*out = json_pack("{s:s, s:s, s:o, s:o, s:o, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:b, s:{s:s}}",
			 "_class_name", "VQModel", "act_fn", "silu", "block_out_channels", channels,
			 "down_block_types", down, "up_block_types", up, "in_channels", 3, "out_channels", 3,
			 "latent_channels", c->z_channels, "vq_embed_dim", c->embed_dim, "layers_per_block",
			 c->res_blocks, "norm_num_groups", c->groups, "num_vq_embeddings", c->num_embeddings,
			 "sample_size", c->resolution, "mid_block_add_attention", 0, "lookup_from_codebook", 1, "lwm",
			 "pixel_range", c->unit_pixels ? "[0,1]" : "[-1,1]");
	if (*out && !lost)
		return 0;
	json_decref(*out);
	*out = NULL;
	return lwm_fail(e, LWM_EMEMORY, "out of memory for the VQGAN's config.json");
}

static int32_t gcd(int32_t a, int32_t b)
{
	while (b) {
		int32_t r = a % b;
		a = b;
		b = r;
	}
	return a;
}

static int read_channels(struct lwm_vqgan_cfg *c, const json_t *o, const char *name, struct lwm_err *e)
{
	json_t *a;
	int32_t ch[LWM_VQGAN_MAX_LEVELS], g = 0;
	LWM_TRY(lwm_json_get(o, "block_out_channels", JSON_ARRAY, &a, name, e));
	size_t n = json_array_size(a);
	if (n < 1 || n > LWM_VQGAN_MAX_LEVELS)
		return lwm_fail(e, LWM_EDATA, "%s: block_out_channels has %zu levels, 1 to %d are possible", name, n,
				LWM_VQGAN_MAX_LEVELS);
	for (size_t i = 0; i < n; i++) {
		json_int_t v = json_integer_value(json_array_get(a, i));
		if (v < 1 || v > 16384)
			return lwm_fail(e, LWM_EDATA, "%s: block_out_channels[%zu] is not between 1 and 16384", name, i);
		ch[i] = (int32_t)v;
		g = gcd(ch[i], g);
	}
	c->levels = (int32_t)n;
	c->hidden = g;
	for (size_t i = 0; i < n; i++)
		c->mult[i] = ch[i] / g;
	return 0;
}

static int read_int(const json_t *o, const char *key, int32_t *out, const char *name, struct lwm_err *e)
{
	int64_t v;
	LWM_TRY(lwm_json_int(o, key, &v, name, e));
	if (v < 0 || v > 1 << 24)
		return lwm_fail(e, LWM_EDATA, "%s: %s = %" PRId64 " is out of range", name, key, v);
	*out = (int32_t)v;
	return 0;
}

/* Without our "lwm" object the file is diffusers' own, whose pipelines feed pixels in [0,1] and whose mid block has
 * attention unless the file says otherwise. */
int lwm_vqgan_cfg_from_json(struct lwm_vqgan_cfg *c, const json_t *o, const char *name, struct lwm_err *e)
{
	const json_t *ours = json_object_get(o, "lwm");
	const char *range = json_string_value(json_object_get(ours, "pixel_range"));
	memset(c, 0, sizeof *c);
	LWM_TRY(read_channels(c, o, name, e));
	LWM_TRY(read_int(o, "latent_channels", &c->z_channels, name, e));
	LWM_TRY(read_int(o, "layers_per_block", &c->res_blocks, name, e));
	LWM_TRY(read_int(o, "norm_num_groups", &c->groups, name, e));
	LWM_TRY(read_int(o, "num_vq_embeddings", &c->num_embeddings, name, e));
	c->embed_dim = c->z_channels;
	if (json_is_integer(json_object_get(o, "vq_embed_dim")))
		LWM_TRY(read_int(o, "vq_embed_dim", &c->embed_dim, name, e));
	if (!json_is_false(json_object_get(o, "mid_block_add_attention")))
		return lwm_fail(e, LWM_EDATA, "%s: mid_block_add_attention must be false: this VQGAN has no attention",
				name);
	c->resolution = 256;
	if (ours)
		LWM_TRY(read_int(o, "sample_size", &c->resolution, name, e));
	c->unit_pixels = !ours || (range && strcmp(range, "[0,1]") == 0);
	return lwm_vqgan_check(c, e) < 0 ? lwm_context(e, "%s", name) : 0;
}

/* The configuration as text: the padding between and after the members of a struct means nothing. */
static int add_settings(struct lwm_hasher *h, const struct lwm_vqgan_cfg *c, struct lwm_err *e)
{
	json_t *o;
	LWM_TRY(lwm_vqgan_cfg_to_json(c, &o, e));
	char *text;
	int rc = lwm_json_dump(o, JSON_SORT_KEYS | JSON_COMPACT, "the settings of a VQGAN", &text, e);
	json_decref(o);
	LWM_TRY(rc);
	lwm_hasher_add(h, text, strlen(text) + 1);
	free(text);
	return 0;
}

static int add_tensor(struct lwm_hasher *h, struct lk_dev *dev, const struct lwm_tensor *t, const float *from, struct lwm_err *e)
{
	size_t bytes = (size_t)t->count * sizeof *from;
	float *host = malloc(bytes);
	int rc = host ? lwm_dev_check(dev, lk_download(dev, host, from, bytes), e)
		      : lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " weights", t->count);
	if (rc == 0)
		lwm_hasher_add(h, host, bytes);
	free(host);
	return rc;
}

/* Values in the order of the table, without the gaps between them. */
static int add_weights(struct lwm_hasher *h, struct lk_dev *dev, const struct lwm_tensors *p, struct lwm_supply *w,
		       struct lwm_err *e)
{
	int rc = 0;
	for (int64_t i = 0; rc == 0 && i < p->n;) {
		struct lwm_group g = lwm_tensors_group(p, p->list[i].group);
		struct lwm_supplied at;
		rc = lwm_supply_acquire(w, &g, LWM_WEIGHTS, &at, 0, e);
		for (; rc == 0 && i < p->n && p->list[i].group == g.index; i++)
			rc = add_tensor(h, dev, &p->list[i], (const float *)at.w + (p->list[i].offset - g.offset), e);
		lwm_supply_release(w, &g);
	}
	return rc;
}

int lwm_vqgan_hash(struct lk_dev *dev, const struct lwm_vqgan_cfg *c, struct lwm_supply *w, char hex[33], struct lwm_err *e)
{
	struct lwm_tensors p;
	LWM_TRY(lwm_vqgan_tensors(&p, c, e));
	struct lwm_hasher *h = lwm_hasher_new();
	int rc = h ? add_settings(h, c, e) : lwm_fail(e, LWM_EMEMORY, "out of memory for a hash");
	if (rc == 0)
		rc = add_weights(h, dev, &p, w, e);
	if (h) {
		struct lwm_hash sum = lwm_hasher_end(h);
		memcpy(hex, sum.hex, sizeof sum.hex);
	}
	lwm_tensors_release(&p);
	return rc;
}
