/* Values whose number is not known yet: kept in a temporary file without a name, and copied to their place when it is. */
#include "common/io/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/io/pio.h"

enum { SPOOL_MEMORY = 1 << 20 };

static int open_file(struct lwm_spool *s, const char *path, struct lwm_err *e)
{
	char *name;
	if (asprintf(&name, "%s.tmp.XXXXXX", path) < 0)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	s->fd = mkostemp(name, O_CLOEXEC);
	int err = errno;
	if (s->fd >= 0)
		unlink(name);
	free(name);
	return s->fd < 0
		       ? lwm_fail_errno(e, LWM_ECANTCREATE, err, "%s: cannot create a temporary file beside it", path)
		       : 0;
}

static int flush_buffer(struct lwm_spool *s, const char *path, struct lwm_err *e)
{
	if (s->filed == 0)
		LWM_TRY(open_file(s, path, e));
	int rc = lwm_pwrite_all(s->fd, s->buf, s->have, s->filed, path, e);
	s->filed += s->have; /* also after a failure: the file is open and must be closed */
	s->have = 0;
	return rc;
}

int lwm_spool_add(struct lwm_spool *s, const void *p, int64_t bytes, const char *path, struct lwm_err *e)
{
	const char *from = p;
	if (!s->buf && !(s->buf = malloc(SPOOL_MEMORY)))
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	while (bytes) {
		if (s->have == SPOOL_MEMORY)
			LWM_TRY(flush_buffer(s, path, e));
		int64_t k = SPOOL_MEMORY - s->have < bytes ? SPOOL_MEMORY - s->have : bytes;
		memcpy(s->buf + s->have, from, (size_t)k);
		s->have += k;
		from += k;
		bytes -= k;
	}
	return 0;
}

int lwm_spool_cut(struct lwm_spool *s, int64_t bytes, const char *path, struct lwm_err *e)
{
	int64_t part = bytes % SPOOL_MEMORY;
	if (bytes >= s->filed) {
		s->have = bytes - s->filed;
		return 0;
	}
	/* the file keeps whole buffers; the rest of the one that is cut comes back into memory */
	LWM_TRY(lwm_pread_all(s->fd, s->buf, part, bytes - part, path, e));
	s->filed = bytes - part;
	s->have = part;
	if (s->filed == 0)
		close(s->fd);
	return 0;
}

int64_t lwm_spool_bytes(const struct lwm_spool *s)
{
	return s->filed + s->have;
}

int lwm_spool_copy(struct lwm_spool *s, struct lwm_vfw *w, int vec, int size, const char *path, struct lwm_err *e)
{
	if (s->filed && s->have)
		LWM_TRY(flush_buffer(s, path, e));
	if (!s->filed)
		return lwm_vfw_put(w, vec, s->buf, s->have / size, e);
	for (int64_t at = 0; at < s->filed;) {
		int64_t n = s->filed - at < SPOOL_MEMORY ? s->filed - at : SPOOL_MEMORY;
		LWM_TRY(lwm_pread_all(s->fd, s->buf, n, at, path, e));
		LWM_TRY(lwm_vfw_put(w, vec, s->buf, n / size, e));
		at += n;
	}
	return 0;
}

void lwm_spool_release(struct lwm_spool *s)
{
	if (s->filed)
		close(s->fd);
	free(s->buf);
	memset(s, 0, sizeof *s);
}
