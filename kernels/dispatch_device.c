/* dispatch_device.c - device.h: devices, memory, transfers and queues; checks what it is handed and calls the backend. */
#include <stdlib.h>
#include <string.h>

#include "kernels/check.h"

int lk_dev_fork(struct lk_dev **out, struct lk_dev *dev)
{
	struct lk_dev *d;
	int rc;

	*out = NULL;
	if (!dev->ops.device.fork)
		return lk_missing(dev, "fork");
	d = malloc(sizeof *d);
	if (!d)
		return lk_fail(dev, LK_ENOMEM, "fork: out of memory");
	*d = *dev;
	d->impl = NULL;
	d->err[0] = '\0';
	rc = dev->ops.device.fork(d, dev);
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
	if (dev->ops.device.close)
		dev->ops.device.close(dev);
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

int lk_dev_memory(struct lk_dev *dev, size_t *free_bytes, size_t *total_bytes)
{
	return LK_CALL(dev, device, memory, dev, free_bytes, total_bytes);
}

int lk_dev_is_host(const struct lk_dev *dev)
{
	return dev->is_host;
}

/* ---- memory ---- */

int lk_mem_alloc(struct lk_dev *dev, size_t bytes, void **out)
{
	*out = NULL;
	return LK_CALL(dev, memory, mem_alloc, dev, bytes ? bytes : 1, out);
}

int64_t lk_mem_own(const struct lk_dev *dev, int64_t bytes)
{
	return dev->ops.memory.mem_own && bytes > 0 ? dev->ops.memory.mem_own(bytes) : bytes;
}

void lk_mem_free(struct lk_dev *dev, void *p)
{
	if (p)
		dev->ops.memory.mem_free(dev, p);
}

int lk_host_alloc(struct lk_dev *dev, size_t bytes, void **out)
{
	*out = NULL;
	return LK_CALL(dev, memory, host_alloc, dev, bytes ? bytes : 1, out);
}

void lk_host_free(struct lk_dev *dev, void *p)
{
	if (p)
		dev->ops.memory.host_free(dev, p);
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
	return LK_CALL(dev, memory, upload, dev, dst, host_src, bytes);
}

int lk_download(struct lk_dev *dev, void *host_dst, const void *src, size_t bytes)
{
	int rc = check_transfer(dev, "download", host_dst, src, bytes);

	if (rc || !bytes)
		return rc;
	return LK_CALL(dev, memory, download, dev, host_dst, src, bytes);
}

int lk_copy(struct lk_dev *dev, void *dst, const void *src, size_t bytes)
{
	struct lk_check c = { dev, "copy", check_transfer(dev, "copy", dst, src, bytes) };
	uintptr_t d = (uintptr_t)dst, s = (uintptr_t)src;

	LK_WANT(&c, d + bytes <= s || s + bytes <= d, "source and destination overlap");
	if (c.rc || !bytes)
		return c.rc;
	return LK_CALL(dev, memory, copy, dev, dst, src, bytes);
}

int lk_copy_out(struct lk_dev *dev, void *host_dst, const void *src, size_t bytes)
{
	int rc = check_transfer(dev, "copy_out", host_dst, src, bytes);

	if (rc || !bytes)
		return rc;
	return LK_CALL(dev, memory, copy_out, dev, host_dst, src, bytes);
}

int lk_copy_in(struct lk_dev *dev, void *dst, const void *host_src, size_t bytes)
{
	int rc = check_transfer(dev, "copy_in", dst, host_src, bytes);

	if (rc || !bytes)
		return rc;
	return LK_CALL(dev, memory, copy_in, dev, dst, host_src, bytes);
}

/* ---- queues ---- */

int lk_event_new(struct lk_dev *dev, struct lk_event **out)
{
	int rc;

	*out = NULL;
	rc = LK_CALL(dev, queue, event_new, dev, out);
	if (!rc)
		(*out)->free = dev->ops.queue.event_free;
	return rc;
}

void lk_event_free(struct lk_event *ev)
{
	if (ev)
		ev->free(ev);
}

int lk_record(struct lk_dev *dev, struct lk_event *ev)
{
	return LK_CALL(dev, queue, record, dev, ev);
}

int lk_wait(struct lk_dev *dev, const struct lk_event *ev)
{
	return LK_CALL(dev, queue, wait, dev, ev);
}

int lk_sync(struct lk_dev *dev)
{
	return LK_CALL(dev, queue, sync, dev);
}
