/* source.c - how FFmpeg reads: one file and no other, and a disk that fails is remembered, because demuxers take it for the end of
 * the file or for damage. */
#include "common/media/media_int.h"

#include <errno.h>
#include <fcntl.h>
#include <libavformat/avio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER = 64 << 10 };

struct handle {
	struct lwm_av_source *src;
	int fd;
};

static int note_failure(struct lwm_av_source *src)
{
	src->error = errno;
	return AVERROR(errno);
}

static int read_some(void *opaque, uint8_t *buf, int n)
{
	struct handle *h = opaque;
	ssize_t got;
	do
		got = read(h->fd, buf, (size_t)n);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return note_failure(h->src);
	return got ? (int)got : AVERROR_EOF;
}

static int64_t seek_to(void *opaque, int64_t at, int whence)
{
	struct handle *h = opaque;
	struct stat st;
	if (whence & AVSEEK_SIZE)
		return fstat(h->fd, &st) ? note_failure(h->src) : st.st_size;
	off_t now = lseek(h->fd, at, whence & ~AVSEEK_FORCE);
	return now < 0 ? AVERROR(errno) : now; /* beyond what a file can have: the numbers in it are bad, not the disk */
}

static int open_one(AVFormatContext *s, AVIOContext **pb, const char *url, int flags, AVDictionary **options)
{
	struct lwm_av_source *src = s->opaque;
	(void)options;
	*pb = NULL;
	if (!strncmp(url, "file:", 5))
		url += 5;
	if ((flags & AVIO_FLAG_WRITE) || strcmp(url, src->path))
		return AVERROR(EACCES);
	struct handle *h = malloc(sizeof *h);
	uint8_t *buffer = av_malloc(BUFFER);
	int fd = h && buffer ? open(src->path, O_RDONLY | O_CLOEXEC) : -1, rc = AVERROR(ENOMEM);
	if (h && buffer && fd < 0)
		rc = note_failure(src);
	if (fd >= 0) {
		*h = (struct handle){ src, fd };
		*pb = avio_alloc_context(buffer, BUFFER, 0, h, read_some, NULL, seek_to);
	}
	if (*pb)
		return 0;
	if (fd >= 0)
		close(fd);
	av_free(buffer);
	free(h);
	return rc;
}

static int close_one(AVFormatContext *s, AVIOContext *pb)
{
	(void)s;
	if (!pb)
		return 0;
	struct handle *h = pb->opaque;
	close(h->fd);
	free(h);
	av_freep(&pb->buffer);
	avio_context_free(&pb);
	return 0;
}

#if LIBAVFORMAT_VERSION_MAJOR < 59
static void close_void(AVFormatContext *s, AVIOContext *pb)
{
	close_one(s, pb);
}
#endif

int lwm_av_source_open(struct lwm_av_source *src, AVFormatContext *fmt)
{
	fmt->opaque = src;
	fmt->flags |= AVFMT_FLAG_CUSTOM_IO; /* nobody but lwm_av_source_close closes it */
	fmt->io_open = open_one;            /* a demuxer of images opens them itself */
#if LIBAVFORMAT_VERSION_MAJOR < 59
	fmt->io_close = close_void;
#else
	fmt->io_close2 = close_one;
#endif
	int av = open_one(fmt, &src->pb, src->path, AVIO_FLAG_READ, NULL);
	fmt->pb = src->pb;
	return av;
}

void lwm_av_source_close(struct lwm_av_source *src)
{
	close_one(NULL, src->pb);
	src->pb = NULL;
}
