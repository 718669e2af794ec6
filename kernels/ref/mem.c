/* mem.c - host memory as device memory: for ref, and for every backend that computes in host memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/ref/ref_int.h"

/* From 4 MiB on in 2 MiB pages where the system has them: products walk through memory in long strides. */
static size_t page_of(size_t bytes)
{
	return bytes >= (size_t)4 << 20 ? (size_t)2 << 20 : 64;
}

static size_t round_up(size_t bytes)
{
	return (bytes + page_of(bytes) - 1) / page_of(bytes) * page_of(bytes);
}

static int64_t mem_own(int64_t bytes)
{
	return (int64_t)round_up((size_t)bytes);
}

static int mem_alloc(struct lk_dev *dev, size_t bytes, void **out)
{
	size_t align = page_of(bytes), whole = round_up(bytes);

	*out = whole < bytes ? NULL : aligned_alloc(align, whole);
	if (!*out)
		return lk_fail(dev, LK_ENOMEM, "no memory for %zu bytes", bytes);
	if (align > 64)
		madvise(*out, whole, MADV_HUGEPAGE); // advice: a refusal changes nothing
	return 0;
}

static void mem_free(struct lk_dev *dev, void *p)
{
	(void)dev;
	free(p);
}

static int mem_copy(struct lk_dev *dev, void *dst, const void *src, size_t bytes)
{
	(void)dev;
	memmove(dst, src, bytes);
	return 0;
}

static int mem_zero(struct lk_dev *dev, void *p, size_t bytes)
{
	(void)dev;
	memset(p, 0, bytes);
	return 0;
}

static int same_place(struct lk_dev *child, struct lk_dev *parent)
{
	child->impl = parent->impl;
	return 0;
}

/* Work is done when its call returns, so a point in the queue is always in the past. */
static int event_new(struct lk_dev *dev, struct lk_event **out)
{
	*out = calloc(1, sizeof **out);
	return *out ? 0 : lk_fail(dev, LK_ENOMEM, "no memory for an event");
}

static void event_free(struct lk_event *ev)
{
	free(ev);
}

static int event_record(struct lk_dev *dev, struct lk_event *ev)
{
	(void)dev;
	(void)ev;
	return 0;
}

static int event_wait(struct lk_dev *dev, const struct lk_event *ev)
{
	(void)dev;
	(void)ev;
	return 0;
}

static int nothing_pending(struct lk_dev *dev)
{
	(void)dev;
	return 0;
}

/* What the kernel could give: free pages and those it would take back from its caches; 0: it does not say. */
static size_t available(void)
{
	char line[256];
	unsigned long long kib = 0;
	FILE *f = fopen("/proc/meminfo", "re");

	while (f && !kib && fgets(line, sizeof line, f))
		if (sscanf(line, "MemAvailable: %llu kB", &kib) != 1)
			kib = 0;
	if (f)
		fclose(f);
	return (size_t)kib << 10;
}

static int physical_memory(struct lk_dev *dev, size_t *free_bytes, size_t *total_bytes)
{
	long page = sysconf(_SC_PAGESIZE), total = sysconf(_SC_PHYS_PAGES), avail = sysconf(_SC_AVPHYS_PAGES);
	size_t most = available();

	if (page <= 0 || total <= 0 || avail < 0)
		return lk_fail(dev, LK_EDEVICE, "the system does not tell its memory size");
	*free_bytes = most ? most : (size_t)avail * (size_t)page;
	*total_bytes = (size_t)total * (size_t)page;
	return 0;
}

void lk_ref_fill_mem(struct lk_ops *o)
{
	o->device.fork = same_place;
	o->memory.mem_alloc = mem_alloc;
	o->memory.mem_own = mem_own;
	o->memory.mem_free = mem_free;
	o->memory.host_alloc = mem_alloc;
	o->memory.host_free = mem_free;
	o->memory.upload = mem_copy;
	o->memory.download = mem_copy;
	o->memory.copy = mem_copy;
	o->memory.copy_out = mem_copy;
	o->memory.copy_in = mem_copy;
	o->dense.zero = mem_zero;
	o->queue.event_new = event_new;
	o->queue.event_free = event_free;
	o->queue.record = event_record;
	o->queue.wait = event_wait;
	o->queue.sync = nothing_pending;
	o->device.memory = physical_memory;
}
