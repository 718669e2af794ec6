/* h5_mem.h - inside common/io: an HDF5 file driver that keeps what is written in memory, and the rest as holes. */
#ifndef LWM_IO_H5_MEM_H
#define LWM_IO_H5_MEM_H

#include <hdf5.h>
#include <stdint.h>

#include "common/base/err.h"

/* The structure of a file with a dozen vectors takes some six pages. All memory is taken at the start: HDF5 survives
 * no failed write. */
enum { LWM_MEM_PAGE = 4096, LWM_MEM_PAGES = 64 };

struct lwm_mem_file {
	char *page;                /* LWM_MEM_PAGES of them */
	int64_t at[LWM_MEM_PAGES]; /* their places in the file, multiples of LWM_MEM_PAGE */
	int64_t npages, size;      /* size: of the file, holes included */
};

/* Makes files of this access list go to *m. -1: HDF5 refuses, or out of memory. The caller releases *m in any case. */
herr_t lwm_mem_set(hid_t fapl, struct lwm_mem_file *m);
/* The same for a file that is there already, to be read. */
herr_t lwm_mem_reopen(hid_t fapl, struct lwm_mem_file *m);
/* Writes pages and size to an empty file. */
int lwm_mem_copy(const struct lwm_mem_file *m, int fd, const char *path, struct lwm_err *e);
void lwm_mem_release(struct lwm_mem_file *m);

#endif
