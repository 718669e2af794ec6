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

const char *const lwm_dtype_names[] = { "auto", "fp32", "bf16", "fp16", NULL };

static int open_settled(struct lk_dev **out, const char *spec, const char *settled, int64_t threads, struct lwm_err *e)
{
	char why[256] = "";
	int rc = lk_dev_open(out, settled, (int)threads, why, sizeof why);
	if (rc)
		return lwm_fail(e, rc == LK_ENOMEM ? LWM_EMEMORY : LWM_EUNAVAIL, "--device %s: %s", spec, why);
	if (*lk_dev_warning(*out))
		lwm_log(LWM_WARN, "%s", lk_dev_warning(*out));
	lwm_log(LWM_INFO, "device: %s", lk_dev_name(*out));
	return 0;
}

/* The CPU is a device for fp32 and one for fp16; every other device has one type of number. */
static int check_dtype(const struct lk_dev *dev, enum lwm_dtype dtype, struct lwm_err *e)
{
	static const int wanted[] = { [LWM_DTYPE_FP32] = LK_F32, [LWM_DTYPE_BF16] = LK_BF16, [LWM_DTYPE_FP16] = LK_F16 };
	int have = lk_dev_dtype(dev);
	if (dtype == LWM_DTYPE_AUTO || have == wanted[dtype])
		return 0;
	return lwm_fail(e, LWM_ECONFIG, "--dtype %s: the device %s computes in %s (fp32 and fp16: --device cpu; bf16: --device cuda)",
			lwm_dtype_names[dtype], lk_dev_name(dev), have == LK_F32 ? "fp32" : have == LK_BF16 ? "bf16" : "fp16");
}

int lwm_device_open_as(struct lk_dev **out, const char *spec, enum lwm_dtype dtype, int64_t threads, struct lwm_err *e)
{
	char settled[32];
	*out = NULL;
	if (!strcmp(spec, "auto") || !strcmp(spec, "cuda"))
		LWM_TRY(settle_spec(spec, settled, sizeof settled, e));
	else
		snprintf(settled, sizeof settled, "%s", spec);
	if (dtype == LWM_DTYPE_FP16 && !strcmp(settled, "cpu"))
		snprintf(settled, sizeof settled, "cpu-fp16");
	LWM_TRY(open_settled(out, spec, settled, threads, e));
	int rc = check_dtype(*out, dtype, e);
	if (rc < 0) {
		lk_dev_close(*out);
		*out = NULL;
	}
	return rc;
}

int lwm_device_open(struct lk_dev **out, const char *spec, int64_t threads, struct lwm_err *e)
{
	return lwm_device_open_as(out, spec, LWM_DTYPE_AUTO, threads, e);
}

int lwm_dev_check(struct lk_dev *dev, int status, struct lwm_err *e)
{
	int code = status == LK_ENOMEM ? LWM_EMEMORY : status == LK_EINVAL ? LWM_EINTERNAL : LWM_EUNAVAIL;

	if (!status)
		return 0;
	return lwm_fail(e, code, "%s: %s", lk_dev_name(dev), lk_dev_error(dev));
}
