/* pread and pwrite until all bytes are there: interrupted and short calls are continued, a file that ends too early is damaged. */
#include "common/io/pio.h"

#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

int lwm_pwrite_all(int fd, const void *p, int64_t n, int64_t at, const char *path, struct lwm_err *e)
{
	const char *s = p;
	while (n) {
		ssize_t k = pwrite(fd, s, (size_t)n, (off_t)at);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return lwm_fail_errno(e, LWM_EIO, errno, "%s: write failed at byte %" PRId64, path, at);
		s += k;
		at += k;
		n -= k;
	}
	return 0;
}

int lwm_pread_all(int fd, void *p, int64_t n, int64_t at, const char *path, struct lwm_err *e)
{
	char *s = p;
	while (n) {
		ssize_t k = pread(fd, s, (size_t)n, (off_t)at);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return lwm_fail_errno(e, LWM_EIO, errno, "%s: read failed at byte %" PRId64, path, at);
		if (k == 0)
			return lwm_fail(e, LWM_EDATA, "%s: ends at byte %" PRId64 ", %" PRId64 " more are needed",
					path, at, n);
		s += k;
		at += k;
		n -= k;
	}
	return 0;
}
