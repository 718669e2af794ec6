/* inplace.c - opening files that are written where they lie. */
#include "common/base/inplace.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *kind_text(mode_t m)
{
	return S_ISLNK(m)			? "a symbolic link"
	       : S_ISFIFO(m)			? "a FIFO"
	       : S_ISDIR(m)			? "a folder"
	       : S_ISCHR(m) || S_ISBLK(m)	? "a device"
						: "no regular file";
}

static int refuse_kind(const char *path, mode_t m, struct lwm_err *e)
{
	return lwm_fail(e, LWM_ECANTCREATE, "%s: is %s, and only a regular file is written here", path, kind_text(m));
}

/* O_NOFOLLOW and O_NONBLOCK hold even when the name changes its meaning between the look at it and the open. */
static int open_checked(int *fd, const char *path, int flags, struct lwm_err *e)
{
	struct stat st;
	*fd = open(path, (flags & ~O_TRUNC) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0666);
	if (*fd < 0 && (errno == ELOOP || errno == ENXIO))
		return refuse_kind(path, errno == ELOOP ? S_IFLNK : S_IFIFO, e);
	if (*fd < 0)
		return lwm_fail_errno(e, LWM_ECANTCREATE, errno, "%s: cannot be opened", path);
	if (fstat(*fd, &st))
		return lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot be looked at", path);
	if (!S_ISREG(st.st_mode))
		return refuse_kind(path, st.st_mode, e);
	/* programs that inherit the descriptor do not expect it */
	if (fcntl(*fd, F_SETFL, flags & O_APPEND) || ((flags & O_TRUNC) && ftruncate(*fd, 0)))
		return lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot be cut to nothing", path);
	return 0;
}

int lwm_inplace_open(int *fd, const char *path, int flags, struct lwm_err *e)
{
	struct stat st;
	int rc;
	*fd = -1;
	/* first, because opening alone can do something to a device */
	if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return refuse_kind(path, st.st_mode, e);
	rc = open_checked(fd, path, flags, e);
	if (rc < 0 && *fd >= 0) {
		close(*fd);
		*fd = -1;
	}
	return rc;
}

int lwm_inplace_free(const char *path, struct lwm_err *e)
{
	struct stat st;
	if (lstat(path, &st) || S_ISREG(st.st_mode) || S_ISLNK(st.st_mode))
		return 0;
	return refuse_kind(path, st.st_mode, e);
}
