/* The packings that text files may have. To add one: its three functions and its line in the table at the end. */
#include "common/text/unpack.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "common/text/lines.h"

enum { INFLATE_MOST = 1 << 30 }; /* zlib counts in unsigned */

static int no_memory(const char *path, struct lwm_err *e)
{
	return lwm_fail(e, LWM_EMEMORY, "%s: out of memory for decompressing", path);
}

/* ---- gzip: members, one after the other ---- */

static int begin_gzip(void **state, const char *path, struct lwm_err *e)
{
	z_stream *z = calloc(1, sizeof *z);
	if (!z || inflateInit2(z, 15 + 32) != Z_OK) {
		free(z);
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	}
	*state = z;
	return 0;
}

static int step_gzip(void *state, struct lwm_unpack_step *x, const char *path, struct lwm_err *e)
{
	z_stream *z = state;
	unsigned room = (unsigned)(x->room > INFLATE_MOST ? INFLATE_MOST : x->room);
	z->next_in = (unsigned char *)(size_t)x->in;
	z->avail_in = (unsigned)x->n;
	z->next_out = (unsigned char *)x->out;
	z->avail_out = room;
	int r = inflate(z, Z_NO_FLUSH);
	x->used = x->n - z->avail_in;
	x->made = room - z->avail_out;
	if (r == Z_MEM_ERROR)
		return no_memory(path, e);
	if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR)
		return lwm_fail(e, LWM_EDATA, "%s: its gzip data is damaged", path);
	x->inside = r != Z_STREAM_END;
	if (r == Z_STREAM_END && inflateReset(z) != Z_OK)
		return lwm_fail(e, LWM_EDATA, "%s: its gzip data cannot be read on", path);
	return 0;
}

static void end_gzip(void *state)
{
	inflateEnd(state);
	free(state);
}

/* ---- zstd: frames, one after the other ---- */

static int begin_zstd(void **state, const char *path, struct lwm_err *e)
{
	*state = ZSTD_createDStream();
	return *state ? 0 : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
}

static int step_zstd(void *state, struct lwm_unpack_step *x, const char *path, struct lwm_err *e)
{
	ZSTD_inBuffer in = { x->in, x->n, 0 };
	ZSTD_outBuffer out = { x->out, x->room, 0 };
	size_t r = ZSTD_decompressStream(state, &out, &in);
	if (ZSTD_isError(r) && ZSTD_getErrorCode(r) == ZSTD_error_memory_allocation)
		return no_memory(path, e);
	if (ZSTD_isError(r))
		return lwm_fail(e, LWM_EDATA, "%s: its zstd data is damaged", path);
	x->used = in.pos;
	x->made = out.pos;
	x->inside = r != 0;
	return 0;
}

static void end_zstd(void *state)
{
	ZSTD_freeDStream(state);
}

/* ---- the table ---- */

static const struct lwm_unpacker unpackers[] = {
	{ ".gz", "\x1f\x8b", 2, begin_gzip, step_gzip, end_gzip },
	{ ".zst", "\x28\xb5\x2f\xfd", 4, begin_zstd, step_zstd, end_zstd },
};
enum { UNPACKERS = sizeof unpackers / sizeof *unpackers };

const struct lwm_unpacker *lwm_unpacker_of(const unsigned char *first, size_t n)
{
	for (int i = 0; i < UNPACKERS; i++)
		if (n >= unpackers[i].nmagic && !memcmp(first, unpackers[i].magic, unpackers[i].nmagic))
			return &unpackers[i];
	return NULL;
}

const char *lwm_lines_suffix(int i)
{
	return i < UNPACKERS ? unpackers[i].suffix : NULL;
}
