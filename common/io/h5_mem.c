/* A file that is nowhere but in memory: the driver below HDF5 when it writes, so that no failing disk ever meets it. */
#include "common/io/h5_mem.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/io/pio.h"

enum { PAGE = LWM_MEM_PAGE };

struct mem { /* what HDF5 holds; the first member is HDF5's */
	H5FD_t base;
	struct lwm_mem_file *m;
	haddr_t eoa;
};

static H5FD_t *mem_open(const char *name, unsigned flags, hid_t fapl, haddr_t maxaddr)
{
	struct lwm_mem_file *const *info = H5Pget_driver_info(fapl);
	struct mem *f = info ? calloc(1, sizeof *f) : NULL;
	(void)name;
	(void)flags;
	(void)maxaddr;
	if (!f)
		return NULL;
	f->m = *info;
	return &f->base;
}

static herr_t mem_close(H5FD_t *file)
{
	free(file);
	return 0;
}

static herr_t mem_query(const H5FD_t *file, unsigned long *flags)
{
	(void)file;
	*flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
		 H5FD_FEAT_AGGREGATE_SMALLDATA;
	return 0;
}

static haddr_t mem_get_eoa(const H5FD_t *file, H5FD_mem_t type)
{
	(void)type;
	return ((const struct mem *)file)->eoa;
}

static herr_t mem_set_eoa(H5FD_t *file, H5FD_mem_t type, haddr_t addr)
{
	(void)type;
	((struct mem *)file)->eoa = addr;
	return 0;
}

static haddr_t mem_get_eof(const H5FD_t *file, H5FD_mem_t type)
{
	(void)type;
	return (haddr_t)((const struct mem *)file)->m->size;
}

/* The page at a place, NULL when nothing was written there. */
static char *find(const struct lwm_mem_file *m, int64_t at)
{
	for (int64_t i = 0; i < m->npages; i++)
		if (m->at[i] == at)
			return m->page + i * PAGE;
	return NULL;
}

static char *find_or_add(struct lwm_mem_file *m, int64_t at)
{
	char *p = find(m, at);
	if (p || m->npages == LWM_MEM_PAGES)
		return p;
	m->at[m->npages] = at;
	return m->page + m->npages++ * PAGE;
}

static herr_t mem_read(H5FD_t *file, H5FD_mem_t type, hid_t dxpl, haddr_t addr, size_t size, void *buffer)
{
	const struct lwm_mem_file *m = ((struct mem *)file)->m;
	char *out = buffer;
	(void)type;
	(void)dxpl;
	while (size) {
		size_t in = addr % PAGE, n = PAGE - in < size ? PAGE - in : size;
		const char *p = find(m, (int64_t)(addr - in));
		if (p)
			memcpy(out, p + in, n);
		else
			memset(out, 0, n);
		addr += n;
		out += n;
		size -= n;
	}
	return 0;
}

static herr_t mem_write(H5FD_t *file, H5FD_mem_t type, hid_t dxpl, haddr_t addr, size_t size, const void *buffer)
{
	struct lwm_mem_file *m = ((struct mem *)file)->m;
	const char *from = buffer;
	(void)type;
	(void)dxpl;
	while (size) {
		size_t in = addr % PAGE, n = PAGE - in < size ? PAGE - in : size;
		char *p = find_or_add(m, (int64_t)(addr - in));
		if (!p)
			return -1;
		memcpy(p + in, from, n);
		addr += n;
		from += n;
		size -= n;
		if ((int64_t)addr > m->size)
			m->size = (int64_t)addr;
	}
	return 0;
}

static herr_t mem_truncate(H5FD_t *file, hid_t dxpl, hbool_t closing)
{
	struct mem *f = (struct mem *)file;
	(void)dxpl;
	(void)closing;
	f->m->size = (int64_t)f->eoa;
	return 0;
}

static const H5FD_class_t class = {
	.name = "lwm_mem",
	.maxaddr = (haddr_t)INT64_MAX,
	.fc_degree = H5F_CLOSE_WEAK,
	.fapl_size = sizeof(struct lwm_mem_file *),
	.open = mem_open,
	.close = mem_close,
	.query = mem_query,
	.get_eoa = mem_get_eoa,
	.set_eoa = mem_set_eoa,
	.get_eof = mem_get_eof,
	.read = mem_read,
	.write = mem_write,
	.truncate = mem_truncate,
	.fl_map = H5FD_FLMAP_DICHOTOMY,
};
static hid_t driver = -1;

static void register_once(void)
{
	driver = H5FDregister(&class);
}

herr_t lwm_mem_set(hid_t fapl, struct lwm_mem_file *m)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	memset(m, 0, sizeof *m);
	m->page = calloc(LWM_MEM_PAGES, PAGE);
	pthread_once(&once, register_once);
	return driver < 0 || !m->page ? -1 : H5Pset_driver(fapl, driver, &m);
}

herr_t lwm_mem_reopen(hid_t fapl, struct lwm_mem_file *m)
{
	return H5Pset_driver(fapl, driver, &m);
}

int lwm_mem_copy(const struct lwm_mem_file *m, int fd, const char *path, struct lwm_err *e)
{
	if (ftruncate(fd, (off_t)m->size))
		return lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot be given its size", path);
	for (int64_t i = 0; i < m->npages; i++) {
		int64_t left = m->size - m->at[i];
		LWM_TRY(lwm_pwrite_all(fd, m->page + i * PAGE, left < PAGE ? left : PAGE, m->at[i], path, e));
	}
	return 0;
}

void lwm_mem_release(struct lwm_mem_file *m)
{
	free(m->page);
	memset(m, 0, sizeof *m);
}
