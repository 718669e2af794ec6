/* Files that are read again and again, in a list from newest to oldest use. When as many are open as may be, the oldest that
 * nobody is reading from gives its descriptor up. */
#include "common/io/openfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct lwm_openfile *newest, *oldest; /* those that are open */
static long nopen;

static long most_open(void)
{
	struct rlimit r;
	long n = LWM_OPEN_MOST;
	if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur / 4 < (rlim_t)n)
		n = (long)(r.rlim_cur / 4);
	return n < 1 ? 1 : n;
}

static void unlist_file(struct lwm_openfile *f)
{
	*(f->newer ? &f->newer->older : &newest) = f->older;
	*(f->older ? &f->older->newer : &oldest) = f->newer;
	f->newer = f->older = NULL;
	f->listed = false;
	nopen--;
}

static void list_first(struct lwm_openfile *f)
{
	f->older = newest;
	f->newer = NULL;
	*(newest ? &newest->newer : &oldest) = f;
	newest = f;
	f->listed = true;
	nopen++;
}

/* Closes the one that was used longest ago. */
static bool park_one(void)
{
	struct lwm_openfile *f = oldest;
	while (f && f->busy)
		f = f->newer;
	if (!f)
		return false;
	unlist_file(f);
	close(f->fd);
	f->fd = -1;
	f->parked(f);
	return true;
}

static void make_room(void)
{
	while (nopen >= most_open() && park_one())
		;
}

static int none_left(const char *path, struct lwm_err *e)
{
	struct rlimit r = { 0 };
	getrlimit(RLIMIT_NOFILE, &r);
	return lwm_fail(e, LWM_EMEMORY,
			"%s: cannot be opened, this process has as many files open as it may (ulimit -n: %" PRIu64 ")", path,
			(uint64_t)r.rlim_cur);
}

static bool is_want(int err)
{
	return err == EMFILE || err == ENFILE;
}

static int open_again(struct lwm_openfile *f, struct lwm_err *e)
{
	struct stat st;
	int fd;
	do
		fd = open(f->path, O_RDONLY | O_CLOEXEC);
	while (fd < 0 && is_want(errno) && park_one());
	if (fd < 0 && is_want(errno))
		return none_left(f->path, e);
	if (fd < 0)
		return lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot be opened again", f->path);
	if (fstat(fd, &st) || st.st_ino != f->number || st.st_size != f->size) {
		close(fd);
		return lwm_fail(e, LWM_EDATA, "%s: is another file than before: it was replaced while it was being read", f->path);
	}
	make_room();
	f->fd = fd;
	return 0;
}

int lwm_openfile_adopt(struct lwm_openfile *f, int fd, struct lwm_err *e)
{
	struct stat st;
	if (fstat(fd, &st)) {
		int rc = lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot be looked at", f->path);
		close(fd);
		return rc;
	}
	f->fd = fd;
	f->number = st.st_ino;
	f->size = st.st_size;
	pthread_mutex_lock(&lock);
	make_room();
	list_first(f);
	pthread_mutex_unlock(&lock);
	return 0;
}

int lwm_openfile_use(struct lwm_openfile *f, struct lwm_err *e)
{
	int rc = 0;
	pthread_mutex_lock(&lock);
	if (!f->listed)
		rc = open_again(f, e);
	else if (f != newest)
		unlist_file(f);
	if (rc == 0 && !f->listed)
		list_first(f);
	f->busy = rc == 0;
	pthread_mutex_unlock(&lock);
	return rc;
}

void lwm_openfile_done(struct lwm_openfile *f)
{
	pthread_mutex_lock(&lock);
	f->busy = false;
	pthread_mutex_unlock(&lock);
}

void lwm_openfile_close(struct lwm_openfile *f)
{
	pthread_mutex_lock(&lock);
	if (f->listed) {
		unlist_file(f);
		close(f->fd);
		f->fd = -1;
	}
	pthread_mutex_unlock(&lock);
}

int lwm_openfile_room(const char *path, struct lwm_err *e)
{
	int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		close(fd);
		return 0;
	}
	if (!is_want(errno))
		return 0;
	pthread_mutex_lock(&lock);
	bool freed = park_one();
	pthread_mutex_unlock(&lock);
	return freed ? 1 : none_left(path, e);
}
