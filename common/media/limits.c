/* limits.c - how large a picture may be, and how much memory FFmpeg may take for what a header claims. */
#include "common/media/media_int.h"

#include <inttypes.h>
#include <libavutil/mem.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

int64_t lwm_media_limit(int64_t max_pixels)
{
	return max_pixels > 0 ? max_pixels : LWM_MEDIA_MAX_PIXELS;
}

/* FFmpeg knows one limit for all allocations of the process. Eight bytes are what the largest kinds of pixel take; the rest is
 * for edges and tables. It only grows: a larger picture may be on its way in another thread. */
void lwm_av_room(int64_t pixels)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static int64_t most;
	int64_t bytes = 8 * pixels + (80LL << 20);
	pthread_mutex_lock(&lock);
	if (bytes > most) {
		most = bytes;
		av_max_alloc((size_t)most);
	}
	pthread_mutex_unlock(&lock);
}

int lwm_media_too_large(const char *path, int64_t width, int64_t height, int64_t limit, struct lwm_err *e)
{
	return lwm_fail(e, LWM_EDATA, "%s: %" PRId64 " x %" PRId64 " pixels are more than the limit of %" PRId64
			" (--max-pixels raises it)", path, width, height, limit);
}

/* A size that FFmpeg would not take is told in its log only: "Picture size 60000x60000 is invalid", "... exceeds ...". The second
 * is for a limit we gave, which is lower than ours while streams are looked for. */
bool lwm_media_refused(int64_t limit, char *text, size_t n)
{
	static const char mark[] = "Picture size ";
	int64_t w, h;
	char verb[16];
	for (const char *p = lwm_av_reason(); (p = strstr(p, mark)); p += sizeof mark - 1) {
		if (sscanf(p + sizeof mark - 1, "%" SCNd64 "x%" SCNd64 " %15s", &w, &h, verb) != 3 || w < 1 || h < 1 ||
		    w >> 31 || h >> 31)
			continue;
		if (w * h > limit)
			snprintf(text, n, "%" PRId64 " x %" PRId64 " pixels are more than the limit of %" PRId64
				 " (--max-pixels raises it)", w, h, limit);
		else if (!strcmp(verb, "is"))
			snprintf(text, n, "%" PRId64 " x %" PRId64 " pixels are more than FFmpeg decodes", w, h);
		else
			continue;
		return true;
	}
	return false;
}
