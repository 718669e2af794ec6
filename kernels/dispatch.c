/* dispatch.c - devices, memory, queues and sequences: finds the backend and checks what it is handed.
 *
 * The ops are in dispatch_ops.c and dispatch_nn.c, the open calls of the backends in dispatch_open.c. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"

int lk_fail(struct lk_dev *dev, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(dev->err, sizeof dev->err, fmt, ap);
	va_end(ap);
	return code;
}

int lk_dev_fork(struct lk_dev **out, struct lk_dev *dev)
{
	struct lk_dev *d;
	int rc;

	*out = NULL;
	if (!dev->ops.fork)
		return lk_missing(dev, "fork");
	d = malloc(sizeof *d);
	if (!d)
		return lk_fail(dev, LK_ENOMEM, "fork: out of memory");
	*d = *dev;
	d->impl = NULL;
	d->err[0] = '\0';
	rc = dev->ops.fork(d, dev);
	if (rc) {
		memcpy(dev->err, d->err, sizeof dev->err);
		free(d);
		return rc;
	}
	*out = d;
	return 0;
}

void lk_dev_close(struct lk_dev *dev)
{
	if (!dev)
		return;
	if (dev->ops.close)
		dev->ops.close(dev);
	free(dev);
}

int lk_dev_dtype(const struct lk_dev *dev)
{
	return dev->dtype;
}

int lk_dev_threads(const struct lk_dev *dev)
{
	return dev->threads;
}

const char *lk_dev_name(const struct lk_dev *dev)
{
	return dev->name;
}

const char *lk_dev_error(const struct lk_dev *dev)
{
	return dev->err;
}

const char *lk_dev_warning(const struct lk_dev *dev)
{
	return dev->warning;
}

void *lk_dev_native(struct lk_dev *dev)
{
	return dev->ops.native ? dev->ops.native(dev) : NULL;
}

int lk_dev_memory(struct lk_dev *dev, size_t *free_bytes, size_t *total_bytes)
{
	return LK_CALL(dev, memory, dev, free_bytes, total_bytes);
}

int lk_dev_is_host(const struct lk_dev *dev)
{
	return dev->is_host;
}

/* ---- memory ---- */

int lk_mem_alloc(struct lk_dev *dev, size_t bytes, void **out)
{
	*out = NULL;
	return LK_CALL(dev, mem_alloc, dev, bytes ? bytes : 1, out);
}

void lk_mem_free(struct lk_dev *dev, void *p)
{
	if (p)
		dev->ops.mem_free(dev, p);
}

int lk_host_alloc(struct lk_dev *dev, size_t bytes, void **out)
{
	*out = NULL;
	return LK_CALL(dev, host_alloc, dev, bytes ? bytes : 1, out);
}

void lk_host_free(struct lk_dev *dev, void *p)
{
	if (p)
		dev->ops.host_free(dev, p);
}

static int check_transfer(struct lk_dev *dev, const char *op, const void *dst, const void *src, size_t bytes)
{
	struct lk_check c = { dev, op, 0 };

	LK_WANT(&c, bytes <= INT64_MAX, "the size of %zu bytes is beyond any memory", bytes);
	lk_check_ptr(&c, "destination", dst, (int64_t)bytes);
	lk_check_ptr(&c, "source", src, (int64_t)bytes);
	return c.rc;
}

int lk_upload(struct lk_dev *dev, void *dst, const void *host_src, size_t bytes)
{
	int rc = check_transfer(dev, "upload", dst, host_src, bytes);

	if (rc || !bytes)
		return rc;
	return LK_CALL(dev, upload, dev, dst, host_src, bytes);
}

int lk_download(struct lk_dev *dev, void *host_dst, const void *src, size_t bytes)
{
	int rc = check_transfer(dev, "download", host_dst, src, bytes);

	if (rc || !bytes)
		return rc;
	return LK_CALL(dev, download, dev, host_dst, src, bytes);
}

int lk_copy(struct lk_dev *dev, void *dst, const void *src, size_t bytes)
{
	struct lk_check c = { dev, "copy", check_transfer(dev, "copy", dst, src, bytes) };
	uintptr_t d = (uintptr_t)dst, s = (uintptr_t)src;

	LK_WANT(&c, d + bytes <= s || s + bytes <= d, "source and destination overlap");
	if (c.rc || !bytes)
		return c.rc;
	return LK_CALL(dev, copy, dev, dst, src, bytes);
}

int lk_copy_out(struct lk_dev *dev, void *host_dst, const void *src, size_t bytes)
{
	int rc = check_transfer(dev, "copy_out", host_dst, src, bytes);

	if (rc || !bytes)
		return rc;
	return LK_CALL(dev, copy_out, dev, host_dst, src, bytes);
}

int lk_copy_in(struct lk_dev *dev, void *dst, const void *host_src, size_t bytes)
{
	int rc = check_transfer(dev, "copy_in", dst, host_src, bytes);

	if (rc || !bytes)
		return rc;
	return LK_CALL(dev, copy_in, dev, dst, host_src, bytes);
}

/* ---- queues ---- */

int lk_event_new(struct lk_dev *dev, struct lk_event **out)
{
	int rc;

	*out = NULL;
	rc = LK_CALL(dev, event_new, dev, out);
	if (!rc)
		(*out)->free = dev->ops.event_free;
	return rc;
}

void lk_event_free(struct lk_event *ev)
{
	if (ev)
		ev->free(ev);
}

int lk_record(struct lk_dev *dev, struct lk_event *ev)
{
	return LK_CALL(dev, record, dev, ev);
}

int lk_wait(struct lk_dev *dev, const struct lk_event *ev)
{
	return LK_CALL(dev, wait, dev, ev);
}

int lk_sync(struct lk_dev *dev)
{
	return LK_CALL(dev, sync, dev);
}

/* ---- sequences ---- */

static void summarize_tiles(struct lk_seq *s)
{
	for (int64_t i = 0; i < s->ntiles; i++) {
		struct lk_seq_tile t = { INT32_MAX, INT32_MIN, INT32_MAX, INT32_MIN };
		int64_t end = (i + 1) * LK_SEQ_TILE < s->n ? (i + 1) * LK_SEQ_TILE : s->n;

		for (int64_t j = i * LK_SEQ_TILE; j < end; j++) {
			if (s->seg[j] < 0)
				continue;
			t.pos_min = s->pos[j] < t.pos_min ? s->pos[j] : t.pos_min;
			t.pos_max = s->pos[j] > t.pos_max ? s->pos[j] : t.pos_max;
			t.seg_min = s->seg[j] < t.seg_min ? s->seg[j] : t.seg_min;
			t.seg_max = s->seg[j] > t.seg_max ? s->seg[j] : t.seg_max;
		}
		s->tiles[i] = t;
	}
}

static int copy_sequence(struct lk_seq *s, const int32_t *pos, const int32_t *seg)
{
	size_t n = s->n > 0 ? (size_t)s->n : 1, tiles = s->ntiles > 0 ? (size_t)s->ntiles : 1;

	s->pos = malloc(n * sizeof *s->pos);
	s->seg = calloc(n, sizeof *s->seg);
	s->tiles = malloc(tiles * sizeof *s->tiles);
	if (!s->pos || !s->seg || !s->tiles)
		return LK_ENOMEM;
	if (s->n > 0) {
		memcpy(s->pos, pos, (size_t)s->n * sizeof *pos);
		if (seg)
			memcpy(s->seg, seg, (size_t)s->n * sizeof *seg);
	}
	summarize_tiles(s);
	if (s->dev->is_host) {
		s->dev_pos = s->pos;
		s->dev_seg = s->seg;
	}
	return 0;
}

static void drop_sequence(struct lk_seq *s)
{
	free(s->pos);
	free(s->seg);
	free(s->tiles);
	free(s);
}

int lk_seq_new(struct lk_dev *dev, struct lk_seq **out, int64_t n, const int32_t *host_pos, const int32_t *host_seg)
{
	struct lk_check c = { dev, "seq_new", 0 };
	struct lk_seq *s;

	*out = NULL;
	LK_WANT(&c, n >= 0 && n <= INT64_MAX / 64, "the length %lld is out of range", (long long)n);
	lk_check_ptr(&c, "host_pos", host_pos, n);
	if (!c.rc && !dev->is_host && !dev->ops.seq_new)
		return lk_missing(dev, "seq_new");
	if (c.rc)
		return c.rc;
	s = calloc(1, sizeof *s);
	if (!s)
		return lk_fail(dev, LK_ENOMEM, "seq_new: out of memory");
	s->dev = dev;
	s->n = n;
	s->ntiles = (n + LK_SEQ_TILE - 1) / LK_SEQ_TILE;
	c.rc = copy_sequence(s, host_pos, host_seg);
	if (c.rc)
		lk_fail(dev, c.rc, "seq_new: no memory for %lld positions", (long long)n);
	else if (dev->ops.seq_new)
		c.rc = dev->ops.seq_new(dev, s);
	if (c.rc) {
		drop_sequence(s);
		return c.rc;
	}
	*out = s;
	return 0;
}

void lk_seq_free(struct lk_seq *s)
{
	if (!s)
		return;
	if (s->dev->ops.seq_free)
		s->dev->ops.seq_free(s);
	drop_sequence(s);
}

const int32_t *lk_seq_pos(const struct lk_seq *s)
{
	return s->dev_pos;
}

static int tile_sees(const struct lk_seq_tile *q, const struct lk_seq_tile *k, int causal)
{
	return q->seg_min <= k->seg_max && k->seg_min <= q->seg_max && (!causal || k->pos_min <= q->pos_max);
}

static struct lk_seq_tile whole(const struct lk_seq *s)
{
	struct lk_seq_tile w = { INT32_MAX, INT32_MIN, INT32_MAX, INT32_MIN };

	for (int64_t i = 0; i < s->ntiles; i++) {
		const struct lk_seq_tile *t = &s->tiles[i];

		w.pos_min = t->pos_min < w.pos_min ? t->pos_min : w.pos_min;
		w.pos_max = t->pos_max > w.pos_max ? t->pos_max : w.pos_max;
		w.seg_min = t->seg_min < w.seg_min ? t->seg_min : w.seg_min;
		w.seg_max = t->seg_max > w.seg_max ? t->seg_max : w.seg_max;
	}
	return w;
}

int lk_seq_sees(const struct lk_seq *q, const struct lk_seq *k, int causal)
{
	struct lk_seq_tile kw = whole(k);

	for (int64_t i = 0; i < q->ntiles; i++) {
		if (!tile_sees(&q->tiles[i], &kw, causal))
			continue;
		for (int64_t j = 0; j < k->ntiles; j++)
			if (tile_sees(&q->tiles[i], &k->tiles[j], causal))
				return 1;
	}
	return 0;
}
