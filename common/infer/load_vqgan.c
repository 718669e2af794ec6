/* A VQGAN for inference, from files onto a device. */
#include <inttypes.h>
#include <stdlib.h>

#include "common/comm/device.h"
#include "common/infer/load.h"
#include "common/io/source.h"

int lwm_vqgan_load(struct lwm_vqgan_cfg *c, float **flat, const char *dir, bool older_ok, struct lk_dev *dev,
		   struct lwm_err *e)
{
	struct lwm_source s;
	const json_t *config;
	struct lwm_tensors p = { 0 };
	float *host = NULL;
	void *mem = NULL;
	*flat = NULL;
	int rc = lwm_source_open_folder(&s, dir, older_ok, LWM_CKPT_FULL, &config, e);
	if (rc < 0)
		goto out;
	LWM_GO(lwm_vqgan_cfg_from_json(c, config, dir, e));
	LWM_GO(lwm_vqgan_tensors(&p, c, e));
	host = calloc((size_t)p.total, sizeof *host);
	if (!host || lk_mem_alloc(dev, (size_t)p.total * sizeof *host, &mem)) {
		rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory for %" PRId64 " weights", dir, p.params);
		goto out;
	}
	for (int64_t i = 0; i < p.n; i++)
		LWM_GO(lwm_source_read(&s, &p.list[i], false, 0, p.list[i].count, host + p.list[i].offset, e));
	rc = lwm_dev_check(dev, lk_upload(dev, mem, host, (size_t)p.total * sizeof *host), e);
	*flat = mem;
out:
	if (rc < 0 && mem) {
		lk_mem_free(dev, mem);
		*flat = NULL;
	}
	free(host);
	lwm_tensors_release(&p);
	lwm_source_close(&s);
	return rc;
}

int lwm_vqgan_check_files(const char *dir, bool older_ok, struct lwm_err *e)
{
	struct lwm_vqgan_cfg c;
	struct lwm_source s;
	const json_t *config;
	int rc = lwm_source_open_folder(&s, dir, older_ok, LWM_CKPT_QUICK, &config, e);
	if (rc == 0)
		rc = lwm_vqgan_cfg_from_json(&c, config, dir, e);
	lwm_source_close(&s);
	return rc;
}
