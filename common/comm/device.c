/* Which device a rank computes on: what --device says, or, for "cuda" and "auto", the GPU of this rank among those of its node. */
#include "common/comm/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/launch.h"
#include "common/base/log.h"

int lwm_device_gpu(int gpus, int *index, struct lwm_err *e)
{
	int rank = lwm_launch_local_rank();

	if (rank >= gpus && !lwm_launch_gpus_own())
		return lwm_fail(e, LWM_EUNAVAIL, "rank %d of this node (counted from 0) finds %d GPU%s: start one rank for each "
				"GPU, or name the GPU with --device cuda:N and share it", rank, gpus, gpus == 1 ? "" : "s");
	*index = rank % gpus;
	return 0;
}

/* "auto" where no GPU can be used. Hours of a job that was given GPUs are not spent on a CPU: that has to be asked for. */
static int without_gpu(const char *why, char *out, size_t size, struct lwm_err *e)
{
	const char *given = lwm_launch_gpus();

	if (given)
		return lwm_fail(e, LWM_EUNAVAIL, "GPUs were given (%s) and cannot be used: %s (--device cpu computes without them)",
				given, why);
	if (access("/dev/nvidiactl", F_OK) == 0)
		lwm_log(LWM_WARN, "a GPU is here and is not used: %s", why);
	else
		lwm_log(LWM_DEBUG, "no GPU: %s", why);
	snprintf(out, size, "cpu");
	return 0;
}

/* "cuda" and "auto": the GPU of this rank as "cuda:N", or "cpu" where auto finds none. */
static int settle_spec(const char *spec, char *out, size_t size, struct lwm_err *e)
{
	char why[256] = "";
	int index, gpus = lk_dev_count("cuda", why, sizeof why);

	if (gpus < 1 && !strcmp(spec, "cuda"))
		return lwm_fail(e, LWM_EUNAVAIL, "--device cuda: %s", why);
	if (gpus < 1)
		return without_gpu(*why ? why : "there is none", out, size, e);
	LWM_TRY(lwm_device_gpu(gpus, &index, e));
	snprintf(out, size, "cuda:%d", index);
	return 0;
}

int lwm_device_open(struct lk_dev **out, const char *spec, int64_t threads, struct lwm_err *e)
{
	char why[256] = "", settled[32];
	int rc;

	*out = NULL;
	if (!strcmp(spec, "auto") || !strcmp(spec, "cuda"))
		LWM_TRY(settle_spec(spec, settled, sizeof settled, e));
	else
		snprintf(settled, sizeof settled, "%s", spec);
	rc = lk_dev_open(out, settled, (int)threads, why, sizeof why);
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
