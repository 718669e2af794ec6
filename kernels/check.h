/* check.h - how dispatch_*.c check the arguments of a call: one struct collects the first complaint.
 *
 *	struct lk_check c = { dev, "swiglu_fwd", 0 };
 *
 *	lk_check_view(&c, "y", y, 2, lk_act(dev), 0);
 *	LK_WANT(&c, lk_same(y, g), "y and g differ in shape");       evaluated only while nothing was wrong
 *	if (c.rc) return c.rc;
 */
#ifndef LK_CHECK_H
#define LK_CHECK_H

#include "kernels/kernels_int.h"

struct lk_check {
	struct lk_dev *dev;
	const char *op;
	int rc;
};

#define LK_WANT(c, cond, ...) \
	do { \
		if (!(c)->rc && !(cond)) \
			(c)->rc = lk_complain((c), __VA_ARGS__); \
	} while (0)

/* dev->ops.part.op(...), or LK_EUNSUP with a sentence where the backend has none */
#define LK_CALL(dev, part, op, ...) ((dev)->ops.part.op ? (dev)->ops.part.op(__VA_ARGS__) : lk_missing((dev), #op))

enum { LK_DENSE = 1 }; /* flag of lk_check_view: rows must follow each other without a gap */
enum { LK_ANY = 0 };   /* as ndim: 1 to 4 */
enum { LK_FLOATS = 1u << LK_F32 | 1u << LK_BF16 };

/* What float views may be: fp32 on host devices; also bf16 or fp16 where the device computes in it. */
static inline unsigned lk_act(const struct lk_dev *dev)
{
	return 1u << LK_F32 | 1u << dev->dtype;
}

/* Of element-wise ops: every type of float that the device knows. */
static inline unsigned lk_floats(const struct lk_dev *dev)
{
	return LK_FLOATS | lk_act(dev);
}

int lk_complain(const struct lk_check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* v not NULL, ndim extents >= 0, dtype one of the bits, last stride 1, strides that keep rows apart, data not NULL
 * unless the view is empty. */
void lk_check_view(struct lk_check *c, const char *arg, const struct lk_view *v, int ndim, unsigned dtypes, int flags);
void lk_check_ptr(struct lk_check *c, const char *arg, const void *p, int64_t n); /* n == 0: NULL is fine */
/* The two views share no element. */
void lk_check_apart(struct lk_check *c, const char *an, const struct lk_view *a, const char *bn,
		    const struct lk_view *b);

int64_t lk_count(const struct lk_view *v);                            /* elements */
int lk_same(const struct lk_view *a, const struct lk_view *b);        /* same ndim and extents */
int lk_is(const struct lk_view *v, int64_t a, int64_t b, int64_t c);  /* leading extents; -1 skips the rest */

#endif
