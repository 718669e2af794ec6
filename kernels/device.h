/* device.h - places to compute: views of their memory, opening and asking them, memory, transfers, queues, events.
 *
 * A chapter of kernels.h, which outside code includes instead. A device is a place (a GPU, or the CPU with a number of threads)
 * and one queue in which work runs in call order. lk_dev_fork adds a second queue to the same place:
 *
 *	lk_dev_fork(&side, dev);                  side copies while dev computes
 *	lk_event_new(dev, &ready);
 *	... work on dev ...
 *	lk_record(dev, ready);                    a point after all of that
 *	lk_wait(side, ready);                     later work on side begins after that point
 *	lk_copy_out(side, host, p, bytes);        host from lk_host_alloc
 *	lk_sync(side);                            now host can be read
 */
#ifndef LK_DEVICE_H
#define LK_DEVICE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum lk_status {
	LK_OK = 0,
	LK_EINVAL = -1, /* a wrong call */
	LK_ENOMEM = -2, /* out of memory, of the host or of the device */
	LK_EUNSUP = -3, /* this device, or this build, does not do that */
	LK_EDEVICE = -4 /* no usable device, or it failed */
};
enum lk_dtype { LK_F32, LK_BF16, LK_I32, LK_U8, LK_I8, LK_F16, LK_DTYPE_COUNT };

struct lk_dev;   /* a place to compute and one in-order queue */
struct lk_event; /* a point in a queue */

/* ---- views ---- */

/* Borrowed memory as a tensor: n[0..ndim) extents, stride[0..ndim) in elements. The last stride is always 1; ops accept any
 * stride in the other dimensions unless they say "dense". */
struct lk_view {
	void *data;
	int64_t n[4];
	int64_t stride[4];
	int32_t ndim;
	int32_t dtype; /* enum lk_dtype */
};

static inline size_t lk_dtype_size(int dtype)
{
	return dtype == LK_BF16 || dtype == LK_F16 ? 2 : dtype == LK_U8 || dtype == LK_I8 ? 1 : 4;
}

/* Dense views of 4, 3, 2 and 1 dimensions. */
static inline struct lk_view lk_view4(void *data, int dtype, int64_t a, int64_t b, int64_t c, int64_t d)
{
	struct lk_view v = { data, { a, b, c, d }, { b * c * d, c * d, d, 1 }, 4, dtype };
	return v;
}

static inline struct lk_view lk_view3(void *data, int dtype, int64_t a, int64_t b, int64_t c)
{
	struct lk_view v = { data, { a, b, c, 1 }, { b * c, c, 1, 0 }, 3, dtype };
	return v;
}

static inline struct lk_view lk_view2(void *data, int dtype, int64_t a, int64_t b)
{
	struct lk_view v = { data, { a, b, 1, 1 }, { b, 1, 0, 0 }, 2, dtype };
	return v;
}

static inline struct lk_view lk_view1(void *data, int dtype, int64_t a)
{
	struct lk_view v = { data, { a, 1, 1, 1 }, { 1, 0, 0, 0 }, 1, dtype };
	return v;
}

/* ---- devices ---- */

/* spec: "ref", "cpu", "cpu-fp16", "cuda" (the first GPU) or "cuda:N". threads: CPU threads to use, 0 = all the process may use; ignored
 * by ref and cuda. On failure *out is NULL and why (n bytes) holds one sentence: LK_EUNSUP no such backend in this build or
 * its library cannot be loaded, LK_EDEVICE no usable device, LK_EINVAL, LK_ENOMEM. */
int lk_dev_open(struct lk_dev **out, const char *spec, int threads, char *why, size_t n);
/* A second queue at the same place, for copies and ring traffic. It has scratch of its own; memory of one may be used on
 * the other. */
int lk_dev_fork(struct lk_dev **out, struct lk_dev *dev);
void lk_dev_close(struct lk_dev *dev); /* NULL is fine */
/* How many devices of a kind ("ref", "cpu", "cuda") there are: 1 or more, or a status < 0 with the reason in why. */
int lk_dev_count(const char *kind, char *why, size_t n);

int lk_dev_dtype(const struct lk_dev *dev);           /* dtype of activations and compute weights */
int lk_dev_threads(const struct lk_dev *dev);         /* CPU threads that it computes with */
int lk_dev_is_host(const struct lk_dev *dev);         /* 1: device memory is host memory (ref, cpu, cpu-fp16) */
const char *lk_dev_name(const struct lk_dev *dev);    /* "cpu (avx512, OpenBLAS SkylakeX, 2 threads)" */
const char *lk_dev_error(const struct lk_dev *dev);   /* the sentence of the last failure, "" if none */
const char *lk_dev_warning(const struct lk_dev *dev); /* e.g. the BLAS runs with the wrong core type; "" if none */
/* Bytes of memory. Of a host, free is what programs can have: what caches of files hold counts as free. */
int lk_dev_memory(struct lk_dev *dev, size_t *free_bytes, size_t *total_bytes);

/* fn is called now and then by operations that may take minutes on a CPU, from any of their threads: a sign of life. For the whole
 * process; NULL: nobody listens. */
void lk_on_progress(void (*fn)(void));

/* What a device takes for itself to do an op, beside the memory of its callers: see lk_attn_own, lk_conv_own. */
struct lk_own {
	int64_t kept;    /* bytes that stay: until the device is closed, of a convolution until it is freed */
	int64_t scratch; /* bytes that all calls share: of several ops, the largest counts */
};

/* ---- memory and transfers ---- */

int lk_mem_alloc(struct lk_dev *dev, size_t bytes, void **out); /* 64-byte aligned, contents undefined */
/* Bytes of memory that an allocation of so many takes: where it is the host's, with what is left of its last large page. */
int64_t lk_mem_own(const struct lk_dev *dev, int64_t bytes);
void lk_mem_free(struct lk_dev *dev, void *p);                  /* NULL is fine */
int lk_host_alloc(struct lk_dev *dev, size_t bytes, void **out); /* host memory, pinned where that helps */
void lk_host_free(struct lk_dev *dev, void *p);                  /* NULL is fine */

int lk_upload(struct lk_dev *dev, void *dst, const void *host_src, size_t bytes);   /* host_src may be reused at once */
int lk_download(struct lk_dev *dev, void *host_dst, const void *src, size_t bytes); /* waits */
int lk_copy(struct lk_dev *dev, void *dst, const void *src, size_t bytes);          /* within the device, no overlap */
/* Between device memory and memory of lk_host_alloc, queued and not waited for: neither side may be touched before the queue
 * has passed (lk_sync, or an event). On a device made by lk_dev_fork they run beside the arithmetic. */
int lk_copy_out(struct lk_dev *dev, void *host_dst, const void *src, size_t bytes);
int lk_copy_in(struct lk_dev *dev, void *dst, const void *host_src, size_t bytes);

/* ---- queues ---- */

int lk_event_new(struct lk_dev *dev, struct lk_event **out);
void lk_event_free(struct lk_event *ev);                    /* NULL is fine */
int lk_record(struct lk_dev *dev, struct lk_event *ev);     /* ev = all that was called on dev so far */
int lk_wait(struct lk_dev *dev, const struct lk_event *ev); /* later work on dev begins after ev; the host does not wait */
int lk_sync(struct lk_dev *dev);                            /* the host waits for all that was called on dev */

#ifdef __cplusplus
}
#endif
#endif
