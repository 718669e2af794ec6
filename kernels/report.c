/* report.c - what a device says beside its results: the sentence of its last failure, and signs of life from long operations.
 *
 * The lowest file of kernels/: every other one may call it, it calls none. */
#include <stdarg.h>
#include <stdio.h>

#include "kernels/kernels_int.h"

int lk_fail(struct lk_dev *dev, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(dev->err, sizeof dev->err, fmt, ap);
	va_end(ap);
	return code;
}

int lk_missing(struct lk_dev *dev, const char *op)
{
	return lk_fail(dev, LK_EUNSUP, "%s: the device %s has no such operation", op, dev->name);
}

void (*lk_progress_fn)(void);

void lk_on_progress(void (*fn)(void))
{
	lk_progress_fn = fn;
}
