/* Files that appear whole or not at all. */
#include "common/base/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/path.h"
#include "common/base/tmpname.h"

static bool batch; /* lwm_outfile_batch_begin: commits leave the waiting to its end */

static void free_outfile(struct lwm_outfile *o)
{
	free(o->path);
	free(o->tmp);
	free(o);
}

/* Thousands of small files: one look at the folder is enough, and the first one had it. */
static void sweep_beside(const char *path)
{
	char *dir = batch ? NULL : lwm_path_dir(path);

	if (dir)
		lwm_tmp_sweep(dir);
	free(dir);
}

int lwm_outfile_open(struct lwm_outfile **out, const char *path, bool force, struct lwm_err *e)
{
	*out = NULL;
	if (!force && lwm_path_exists(path))
		return lwm_fail(e, LWM_ECANTCREATE, "%s: exists (use --force to replace it)", path);
	sweep_beside(path);
	return lwm_outfile_open_among(out, path, e);
}

int lwm_outfile_open_among(struct lwm_outfile **out, const char *path, struct lwm_err *e)
{
	struct lwm_outfile *o = calloc(1, sizeof *o);
	int rc;

	*out = NULL;
	if (!o)
		return lwm_fail_memory(e, path);
	o->fd = -1;
	o->path = strdup(path);
	rc = o->path ? lwm_tmp_file(path, &o->tmp, &o->fd, e) : lwm_fail_memory(e, path);
	if (rc < 0)
		free_outfile(o);
	else
		*out = o;
	return rc;
}

int lwm_write_all(int fd, const void *p, size_t n, const char *path, struct lwm_err *e)
{
	const char *s = p;
	while (n) {
		ssize_t k = write(fd, s, n);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return lwm_fail_errno(e, LWM_EIO, errno, "%s: write failed", path);
		s += k;
		n -= (size_t)k;
	}
	return 0;
}

int lwm_outfile_write(struct lwm_outfile *o, const void *p, size_t n, struct lwm_err *e)
{
	return lwm_write_all(o->fd, p, n, o->path, e);
}

void lwm_drop_cache(int fd)
{
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

int lwm_fsync_dir(const char *dir, struct lwm_err *e)
{
	int rc = 0, fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot open the folder to sync it", dir);
	/* some network file systems cannot sync a folder: EINVAL there is not a failure */
	if (fsync(fd) && errno != EINVAL)
		rc = lwm_fail_errno(e, LWM_EIO, errno, "%s: fsync of the folder failed", dir);
	close(fd);
	return rc;
}

void lwm_outfile_batch_begin(void)
{
	batch = true;
}

int lwm_outfile_batch_end(const char *dir, struct lwm_err *e)
{
	int rc = 0, fd;

	batch = false;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot open the folder to sync it", dir);
	if (syncfs(fd))
		rc = lwm_fail_errno(e, LWM_EIO, errno, "%s: syncing its file system failed", dir);
	close(fd);
	return rc;
}

/* Quota and network file systems report a failed write when a descriptor is closed. The lock must outlive the rename, so it is
 * another one that is closed here. */
static int sync_tmp(struct lwm_outfile *o, struct lwm_err *e)
{
	int again;

	if (!batch && fsync(o->fd))
		return lwm_fail_errno(e, LWM_EIO, errno, "%s: fsync failed", o->path);
	again = dup(o->fd);
	if (again < 0 || close(again))
		return lwm_fail_errno(e, LWM_EIO, errno, "%s: close failed", o->path);
	return 0;
}

int lwm_outfile_commit(struct lwm_outfile *o, struct lwm_err *e)
{
	char *dir = NULL;
	int rc = sync_tmp(o, e);
	if (rc < 0)
		goto out;
	if (rename(o->tmp, o->path)) {
		rc = lwm_fail_errno(e, LWM_ECANTCREATE, errno, "%s: cannot rename the finished file to it", o->path);
		goto out;
	}
	free(o->tmp);
	o->tmp = NULL;
	if (batch)
		goto out;
	dir = lwm_path_dir(o->path);
	rc = dir ? lwm_fsync_dir(dir, e) : lwm_fail_memory(e, o->path);
out:
	free(dir);
	lwm_outfile_discard(o);
	return rc;
}

void lwm_outfile_discard(struct lwm_outfile *o)
{
	if (!o)
		return;
	if (o->tmp)
		unlink(o->tmp);
	close(o->fd);
	free_outfile(o);
}

int lwm_write_file(const char *path, const void *p, size_t n, bool force, struct lwm_err *e)
{
	struct lwm_outfile *o;
	int rc;
	LWM_TRY(lwm_outfile_open(&o, path, force, e));
	rc = lwm_outfile_write(o, p, n, e);
	if (rc < 0) {
		lwm_outfile_discard(o);
		return rc;
	}
	return lwm_outfile_commit(o, e);
}
