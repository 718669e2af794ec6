#include "common/text/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

enum { RAW = 1 << 17 };
#define MOST (SIZE_MAX / 8) /* no file has such a line; sums with it are in range */

struct lwm_lines {
	char *path;
	int fd;
	enum { PLAIN, GZIP, ZSTD } kind;
	z_stream z;
	ZSTD_DStream *zd;
	unsigned char raw[RAW]; /* as in the file */
	size_t raw_at, raw_n;
	bool raw_end, inside;   /* inside: of a compressed frame */
	int64_t consumed;
	char *buf;              /* decompressed; the line being looked for starts at buf[at] */
	size_t at, have, cap, max_line;
	bool end, skipping;
};

static int fill_raw(struct lwm_lines *l, struct lwm_err *e)
{
	ssize_t k;
	if (l->raw_at < l->raw_n || l->raw_end)
		return 0;
	do
		k = read(l->fd, l->raw, RAW);
	while (k < 0 && errno == EINTR);
	if (k < 0)
		return lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot read", l->path);
	l->raw_at = 0;
	l->raw_n = (size_t)k;
	l->raw_end = k == 0;
	l->consumed += k;
	return 0;
}

static int broken(const struct lwm_lines *l, const char *what, struct lwm_err *e)
{
	return lwm_fail(e, LWM_EDATA, "%s: %s", l->path, what);
}

/* One step of inflate; *made gets the bytes put at out. */
static int step_gzip(struct lwm_lines *l, char *out, size_t room, size_t *made, struct lwm_err *e)
{
	l->z.next_in = l->raw + l->raw_at;
	l->z.avail_in = (unsigned)(l->raw_n - l->raw_at);
	l->z.next_out = (unsigned char *)out;
	l->z.avail_out = (unsigned)(room > 1 << 30 ? 1 << 30 : room);
	unsigned before = l->z.avail_out;
	int r = inflate(&l->z, Z_NO_FLUSH);
	l->raw_at = l->raw_n - l->z.avail_in;
	*made = before - l->z.avail_out;
	if (r == Z_MEM_ERROR)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory for decompressing", l->path);
	if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR)
		return broken(l, "its gzip data is damaged", e);
	l->inside = r != Z_STREAM_END;
	if (r == Z_STREAM_END && inflateReset(&l->z) != Z_OK)
		return broken(l, "its gzip data cannot be read on", e);
	return 0;
}

static int step_zstd(struct lwm_lines *l, char *out, size_t room, size_t *made, struct lwm_err *e)
{
	ZSTD_inBuffer in = { l->raw, l->raw_n, l->raw_at };
	ZSTD_outBuffer o = { out, room, 0 };
	size_t r = ZSTD_decompressStream(l->zd, &o, &in);
	if (ZSTD_isError(r) && ZSTD_getErrorCode(r) == ZSTD_error_memory_allocation)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory for decompressing", l->path);
	if (ZSTD_isError(r))
		return broken(l, "its zstd data is damaged", e);
	l->raw_at = in.pos;
	*made = o.pos;
	l->inside = r != 0;
	return 0;
}

/* Adds at least one byte to buf, or sets l->end. */
static int fill(struct lwm_lines *l, struct lwm_err *e)
{
	size_t made = 0;
	while (!made && !l->end) {
		LWM_TRY(fill_raw(l, e));
		size_t left = l->raw_n - l->raw_at, room = l->cap - l->have;
		if (l->kind != PLAIN && l->raw_end && left == 0 && l->inside) {
			/* the decoder may still hold output */
			LWM_TRY(l->kind == GZIP ? step_gzip(l, l->buf + l->have, room, &made, e)
						: step_zstd(l, l->buf + l->have, room, &made, e));
			if (!made && l->inside)
				return broken(l, "its compressed data ends in the middle", e);
		} else if (l->raw_end && left == 0) {
			l->end = true;
		} else if (l->kind == PLAIN) {
			made = left < room ? left : room;
			memcpy(l->buf + l->have, l->raw + l->raw_at, made);
			l->raw_at += made;
		} else {
			LWM_TRY(l->kind == GZIP ? step_gzip(l, l->buf + l->have, room, &made, e)
						: step_zstd(l, l->buf + l->have, room, &made, e));
		}
		l->have += made;
	}
	return 0;
}

static int start(struct lwm_lines *l, struct lwm_err *e)
{
	LWM_TRY(fill_raw(l, e));
	if (l->raw_n >= 2 && l->raw[0] == 0x1f && l->raw[1] == 0x8b) {
		l->kind = GZIP;
		if (inflateInit2(&l->z, 15 + 32) != Z_OK)
			return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", l->path);
	} else if (l->raw_n >= 4 && !memcmp(l->raw, "\x28\xb5\x2f\xfd", 4)) {
		l->kind = ZSTD;
		l->zd = ZSTD_createDStream();
		if (!l->zd)
			return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", l->path);
	}
	l->inside = l->kind != PLAIN;
	while (l->have < 3 && !l->end)
		LWM_TRY(fill(l, e));
	if (l->have >= 3 && !memcmp(l->buf, "\xef\xbb\xbf", 3))
		l->at = 3;
	return 0;
}

int lwm_lines_open(struct lwm_lines **out, const char *path, size_t max_line, struct lwm_err *e)
{
	struct lwm_lines *l = calloc(1, sizeof *l);
	int rc;
	*out = NULL;
	if (!l)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	l->fd = -1;
	l->path = strdup(path);
	l->cap = RAW;
	l->buf = malloc(l->cap);
	l->max_line = max_line < MOST ? max_line : MOST;
	if (!l->path || !l->buf) {
		rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
		goto out;
	}
	l->fd = strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC) : dup(0);
	if (l->fd < 0) {
		rc = lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot open", path);
		goto out;
	}
	LWM_GO(start(l, e));
	*out = l;
out:
	if (rc < 0)
		lwm_lines_close(l);
	return rc;
}

void lwm_lines_close(struct lwm_lines *l)
{
	if (!l)
		return;
	if (l->fd >= 0)
		close(l->fd);
	if (l->kind == GZIP)
		inflateEnd(&l->z);
	ZSTD_freeDStream(l->zd);
	free(l->buf);
	free(l->path);
	free(l);
}

/* Makes room behind buf[have]: moves the open line to the front, grows, or starts to throw an overlong line away. */
static int make_room(struct lwm_lines *l, struct lwm_err *e)
{
	if (l->at) {
		memmove(l->buf, l->buf + l->at, l->have - l->at);
		l->have -= l->at;
		l->at = 0;
	}
	if (l->skipping || l->have > l->max_line + 2) {
		l->skipping = true;
		l->have = 0;
	}
	size_t most = l->max_line + 2 + RAW, cap = 2 * l->cap < most ? 2 * l->cap : most;
	if (l->have < l->cap / 2 || l->cap >= most)
		return 0;
	char *b = realloc(l->buf, cap);
	if (!b)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory for a line of more than %zu bytes", l->path, l->cap);
	l->buf = b;
	l->cap = cap;
	return 0;
}

int lwm_lines_next(struct lwm_lines *l, const char **line, size_t *n, bool *too_long, struct lwm_err *e)
{
	size_t seen = l->at;
	for (;;) {
		char *end = memchr(l->buf + seen, '\n', l->have - seen);
		if (!end && !l->end) {
			seen = l->have - l->at;
			LWM_TRY(make_room(l, e));
			seen = l->skipping ? 0 : seen;
			LWM_TRY(fill(l, e));
			continue;
		}
		size_t stop = end ? (size_t)(end - l->buf) : l->have;
		if (!end && stop == l->at && !l->skipping)
			return 0;
		*line = l->buf + l->at;
		*n = stop - l->at;
		if (end && *n && (*line)[*n - 1] == '\r')
			--*n;
		*too_long = l->skipping || *n > l->max_line;
		if (*too_long)
			*n = 0;
		l->skipping = false;
		l->at = end ? stop + 1 : stop;
		return 1;
	}
}

int64_t lwm_lines_read(const struct lwm_lines *l)
{
	return l->consumed - (int64_t)(l->raw_n - l->raw_at);
}
