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

int lwm_vqgan_load(struct lwm_vqgan_cfg *c, float **flat, const char *dir, bool older_ok, struct lk_dev *dev,
		   struct lwm_err *e)
{
	struct lwm_tensors p = { 0 };
	struct lwm_source s;
	void *mem = NULL;
	int rc = open_source(&s, c, dir, older_ok, LWM_CKPT_FULL, e);

	if (rc == 0)
		rc = lwm_vqgan_tensors(&p, c, e);
	if (rc == 0)
		rc = lwm_load_weights(&mem, dev, LK_F32, &s, &p, dir, e);
	*flat = mem;
	lwm_tensors_release(&p);
	lwm_source_close(&s);
	return rc;
}

int lwm_vqgan_check_files(const char *dir, bool older_ok, struct lwm_err *e)
{
	struct lwm_vqgan_cfg c;
	struct lwm_source s;
	int rc = open_source(&s, &c, dir, older_ok, LWM_CKPT_QUICK, e);

	lwm_source_close(&s);
	return rc;
}
