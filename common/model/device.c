#include "common/model/device.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/launch.h"
#include "common/base/log.h"

/* Has the scheduler given this process GPUs that others on the node do not see? */
static bool has_own_gpus(void)
{
	const char *visible = getenv("CUDA_VISIBLE_DEVICES");

	return getenv("SLURM_GPUS_PER_TASK") || (visible && *visible && !strchr(visible, ','));
}

int lwm_device_gpu(int gpus, int *index, struct lwm_err *e)
{
	int rank = lwm_launch_local_rank();

	if (rank >= gpus && !has_own_gpus())
		return lwm_fail(e, LWM_EUNAVAIL, "rank %d of this node (counted from 0) finds %d GPU%s: start one rank for each "
				"GPU, or name the GPU with --device cuda:N and share it", rank, gpus, gpus == 1 ? "" : "s");
	*index = rank % gpus;
	return 0;
}

/* "cuda" and "auto": the GPU of this rank as "cuda:N", or "cpu" where auto finds none. */
static int settle_spec(const char *spec, char *out, size_t size, struct lwm_err *e)
{
	char why[256] = "";
	int index, gpus = lk_dev_count("cuda", why, sizeof why);

	if (gpus < 1 && !strcmp(spec, "cuda"))
		return lwm_fail(e, LWM_EUNAVAIL, "--device cuda: %s", why);
	if (gpus < 1) {
		lwm_log(LWM_DEBUG, "no GPU: %s", why);
		snprintf(out, size, "cpu");
		return 0;
	}
	LWM_TRY(lwm_device_gpu(gpus, &index, e));
	snprintf(out, size, "cuda:%d", index);
	return 0;
}

int lwm_device_open(struct lk_dev **out, const char *spec, int64_t threads, struct lwm_err *e)
{
	char why[256] = "", settled[32];
	bool any = !strcmp(spec, "auto");
	int rc;

	*out = NULL;
	if (any || !strcmp(spec, "cuda"))
		LWM_TRY(settle_spec(spec, settled, sizeof settled, e));
	else
		snprintf(settled, sizeof settled, "%s", spec);
	rc = lk_dev_open(out, settled, (int)threads, why, sizeof why);
	if (rc && any && strcmp(settled, "cpu")) {
		lwm_log(LWM_DEBUG, "no GPU: %s", why);
		rc = lk_dev_open(out, "cpu", (int)threads, why, sizeof why);
	}
	if (rc)
		return lwm_fail(e, rc == LK_ENOMEM ? LWM_EMEMORY : LWM_EUNAVAIL, "--device %s: %s", spec, why);
	if (*lk_dev_warning(*out))
		lwm_log(LWM_WARN, "%s", lk_dev_warning(*out));
	lwm_log(LWM_INFO, "device: %s", lk_dev_name(*out));
	return 0;
}

int lwm_dev_check(struct lk_dev *dev, int status, struct lwm_err *e)
{
	int code = status == LK_ENOMEM ? LWM_EMEMORY : status == LK_EINVAL ? LWM_EINTERNAL : LWM_EUNAVAIL;

	if (!status)
		return 0;
	return lwm_fail(e, code, "%s: %s", lk_dev_name(dev), lk_dev_error(dev));
}
