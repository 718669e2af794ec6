/* load_vqgan.c - a VQGAN for inference. Its weights stay in fp32, whatever the device computes in. */
#include "common/infer/load.h"
#include "common/infer/load_int.h"

static int open_source(struct lwm_source *s, struct lwm_vqgan_cfg *c, const char *dir, bool older_ok, enum lwm_ckpt_check how,
		       struct lwm_err *e)
{
	const json_t *config;

	LWM_TRY(lwm_source_open_folder(s, dir, older_ok, how, &config, e));
	return lwm_vqgan_cfg_from_json(c, config, dir, e);
}

/* v->cfg and v->flat from files. */
static int load_flat(struct lwm_vq *v, const char *dir, bool older_ok, struct lwm_err *e)
{
	struct lwm_tensors p = { 0 };
	struct lwm_source s;
	void *mem = NULL;
	int rc = open_source(&s, &v->cfg, dir, older_ok, LWM_CKPT_FULL, e);

	if (rc == 0)
		rc = lwm_vqgan_tensors(&p, &v->cfg, e);
	if (rc == 0)
		rc = lwm_load_weights(&mem, v->dev, LK_F32, &s, &p, dir, e);
	v->flat = mem;
	lwm_tensors_release(&p);
	lwm_source_close(&s);
	return rc;
}

int lwm_vq_open(struct lwm_vq *v, const char *dir, bool older_ok, int64_t frames_per_pass, struct lk_dev *dev, struct lwm_err *e)
{
	int rc;

	*v = (struct lwm_vq){ .dev = dev };
	LWM_GO(load_flat(v, dir, older_ok, e));
	v->weights = lwm_flat_weights_of(v->flat, LK_F32, NULL);
	rc = lwm_vqgan_new(&v->net, dev, &v->cfg, &v->weights.base, frames_per_pass, e);
out:
	if (rc < 0)
		lwm_vq_close(v);
	return rc;
}

void lwm_vq_close(struct lwm_vq *v)
{
	lwm_vqgan_free(v->net);
	if (v->flat)
		lk_mem_free(v->dev, v->flat);
	*v = (struct lwm_vq){ 0 };
}

int lwm_vqgan_check_files(const char *dir, bool older_ok, struct lwm_err *e)
{
	struct lwm_vqgan_cfg c;
	struct lwm_source s;
	int rc = open_source(&s, &c, dir, older_ok, LWM_CKPT_QUICK, e);

	lwm_source_close(&s);
	return rc;
}
