/* pio.h - inside common/io: reading and writing at a place, until done. */
#ifndef LWM_IO_PIO_H
#define LWM_IO_PIO_H

#include <stdint.h>

#include "common/base/err.h"

int lwm_pwrite_all(int fd, const void *p, int64_t n, int64_t at, const char *path, struct lwm_err *e);
/* An early end of the file is -LWM_EDATA. */
int lwm_pread_all(int fd, void *p, int64_t n, int64_t at, const char *path, struct lwm_err *e);

#endif
