#include "common/model/device.h"

#include <string.h>

#include "common/base/log.h"

int lwm_device_open(struct lk_dev **out, const char *spec, int64_t threads, struct lwm_err *e)
{
	char why[256] = "";
	int rc = LK_EUNSUP;

	if (!strcmp(spec, "auto")) {
		rc = lk_dev_open(out, "cuda", (int)threads, why, sizeof why);
		if (rc)
			lwm_log(LWM_DEBUG, "no GPU: %s", why);
	}
	if (rc)
		rc = lk_dev_open(out, strcmp(spec, "auto") ? spec : "cpu", (int)threads, why, sizeof why);
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
