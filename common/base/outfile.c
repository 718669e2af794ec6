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

static bool batch; /* lwm_outfile_batch_begin: commits leave the waiting to its end */

static void release(struct lwm_outfile *o)
{
	free(o->path);
	free(o->tmp);
	free(o);
}

int lwm_outfile_name(struct lwm_outfile **out, const char *path, bool force, struct lwm_err *e)
{
	struct lwm_outfile *o;
	*out = NULL;
	if (!force && lwm_path_exists(path))
		return lwm_fail(e, LWM_ECANTCREATE, "%s: exists (use --force to replace it)", path);
	o = calloc(1, sizeof *o);
	if (!o)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	o->fd = -1;
	o->path = strdup(path);
	if (!o->path || asprintf(&o->tmp, "%s.tmp.%ld", path, (long)getpid()) < 0) {
		o->tmp = NULL;
		release(o);
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	}
	*out = o;
	return 0;
}

int lwm_outfile_open(struct lwm_outfile **out, const char *path, bool force, struct lwm_err *e)
{
	LWM_TRY(lwm_outfile_name(out, path, force, e));
	(*out)->fd = open((*out)->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
	if ((*out)->fd < 0) {
		int err = errno;
		release(*out);
		*out = NULL;
		return lwm_fail_errno(e, LWM_ECANTCREATE, err, "%s: cannot create", path);
	}
	return 0;
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

static int sync_tmp(struct lwm_outfile *o, struct lwm_err *e)
{
	int rc = 0;
	if (o->fd < 0)
		o->fd = open(o->tmp, O_RDONLY | O_CLOEXEC);
	if (o->fd < 0)
		return lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot reopen", o->tmp);
	if (!batch && fsync(o->fd))
		rc = lwm_fail_errno(e, LWM_EIO, errno, "%s: fsync failed", o->path);
	/* quota and network file systems report a failed write here */
	if (close(o->fd) && rc == 0)
		rc = lwm_fail_errno(e, LWM_EIO, errno, "%s: close failed", o->path);
	o->fd = -1;
	return rc;
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
	rc = dir ? lwm_fsync_dir(dir, e) : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", o->path);
out:
	free(dir);
	lwm_outfile_discard(o);
	return rc;
}

void lwm_outfile_discard(struct lwm_outfile *o)
{
	if (!o)
		return;
	if (o->fd >= 0)
		close(o->fd);
	if (o->tmp)
		unlink(o->tmp);
	release(o);
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
