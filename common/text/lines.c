/* Text files as lines, in bounded memory: bytes of the file, unpacked where they are packed (unpack.c), cut at line ends.
 *
 *	file -> raw[RAW] -> unpack -> buf: | given | the line being looked for | room |
 *	                                          at                          have    cap
 */
#include "common/text/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/text/unpack.h"

enum { RAW = 1 << 17 };
#define MOST (SIZE_MAX / 8) /* no file has such a line; sums with it are in range */

struct lwm_lines {
	char *path;
	int fd;
	const struct lwm_unpacker *packed; /* NULL: the file is plain */
	void *unpacking;                   /* its state */
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

static int fail_broken(const struct lwm_lines *l, const char *what, struct lwm_err *e)
{
	return lwm_fail(e, LWM_EDATA, "%s: %s", l->path, what);
}

/* *made gets the bytes added to what buf has. */
static int unpack_step(struct lwm_lines *l, size_t room, size_t *made, struct lwm_err *e)
{
	struct lwm_unpack_step x = { .in = l->raw + l->raw_at, .n = l->raw_n - l->raw_at, .out = l->buf + l->have, .room = room };
	LWM_TRY(l->packed->step(l->unpacking, &x, l->path, e));
	l->raw_at += x.used;
	*made = x.made;
	l->inside = x.inside;
	return 0;
}

/* Adds at least one byte to buf, or sets l->end. */
static int fill_buffer(struct lwm_lines *l, struct lwm_err *e)
{
	size_t made = 0;
	while (!made && !l->end) {
		LWM_TRY(fill_raw(l, e));
		size_t left = l->raw_n - l->raw_at, room = l->cap - l->have;
		if (l->packed && l->raw_end && left == 0 && l->inside) {
			/* the decoder may still hold output */
			LWM_TRY(unpack_step(l, room, &made, e));
			if (!made && l->inside)
				return fail_broken(l, "its compressed data ends in the middle", e);
		} else if (l->raw_end && left == 0) {
			l->end = true;
		} else if (!l->packed) {
			made = left < room ? left : room;
			memcpy(l->buf + l->have, l->raw + l->raw_at, made);
			l->raw_at += made;
		} else {
			LWM_TRY(unpack_step(l, room, &made, e));
		}
		l->have += made;
	}
	return 0;
}

static int start_reading(struct lwm_lines *l, struct lwm_err *e)
{
	LWM_TRY(fill_raw(l, e));
	l->packed = lwm_unpacker_of(l->raw, l->raw_n);
	if (l->packed)
		LWM_TRY(l->packed->begin(&l->unpacking, l->path, e));
	l->inside = l->packed != NULL;
	while (l->have < 3 && !l->end)
		LWM_TRY(fill_buffer(l, e));
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
	LWM_GO(start_reading(l, e));
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
	if (l->unpacking)
		l->packed->end(l->unpacking);
	free(l->buf);
	free(l->path);
	free(l);
}

/* Makes room after buf[have]: moves the open line to the front, grows, or starts to throw an overlong line away. */
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
			LWM_TRY(fill_buffer(l, e));
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

int lwm_lines_bytes(struct lwm_lines *l, const char **bytes, size_t *n, struct lwm_err *e)
{
	if (l->at == l->have && !l->end) {
		l->at = l->have = 0;
		LWM_TRY(fill_buffer(l, e));
	}
	*bytes = l->buf + l->at;
	*n = l->have - l->at;
	l->at = l->have;
	return *n > 0;
}

int64_t lwm_lines_read(const struct lwm_lines *l)
{
	return l->consumed - (int64_t)(l->raw_n - l->raw_at);
}
