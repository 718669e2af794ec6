/* lock.c - the lock of a folder: a write lock of fcntl on DIR/.lock, whose text says who holds it.
 *
 * The kernel or the NFS server gives the lock back when its process ends, so a file that lies there means nothing by itself. Who
 * waits reads the holder's text: a process that is seen to live on this node will not let go soon, one of another node may be
 * dead without the server knowing yet.
 */
#include "common/base/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/inplace.h"
#include "common/base/launch.h"
#include "common/base/log.h"
#include "common/base/path.h"

struct lwm_lock {
	int fd; /* -1: no locks on this file system */
};

/* As the file says it: "host pid 123, job 45". */
struct holder {
	char host[64], text[192];
	long pid;
};

static void my_host(char *out, size_t size)
{
	if (gethostname(out, size - 1))
		out[0] = 0;
	out[size - 1] = 0;
	out[strcspn(out, " \n")] = 0;
}

static void write_holder(int fd)
{
	const char *job = lwm_launch_job();
	char host[64] = "", text[192];
	int n;

	my_host(host, sizeof host);
	n = snprintf(text, sizeof text, "%s pid %ld%s%.32s\n", host, (long)getpid(), job ? ", job " : "", job ? job : "");
	if (ftruncate(fd, 0) || pwrite(fd, text, (size_t)n, 0) != n)
		lwm_log(LWM_DEBUG, "the lock does not say whose it is: %s", strerror(errno)); // it holds all the same
}

static void read_holder(int fd, struct holder *h)
{
	ssize_t n = pread(fd, h->text, sizeof h->text - 1, 0);

	h->host[0] = 0;
	h->pid = 0;
	h->text[n > 0 ? n : 0] = 0;
	h->text[strcspn(h->text, "\n")] = 0;
	if (sscanf(h->text, "%63s pid %ld", h->host, &h->pid) != 2)
		snprintf(h->text, sizeof h->text, "another process");
}

static bool lives_here(const struct holder *h)
{
	char host[64] = "";

	my_host(host, sizeof host);
	return h->pid > 0 && !strcmp(host, h->host) && (kill((pid_t)h->pid, 0) == 0 || errno == EPERM);
}

enum answer { OURS, THEIRS, NO_LOCKS };

static enum answer try_lock(int fd)
{
	struct flock f = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_SETLK, &f) == 0)
		return OURS;
	return errno == EAGAIN || errno == EACCES || errno == EINTR ? THEIRS : NO_LOCKS;
}

/* Until it is ours, or not to be had: *ours says whether this file system has locks at all. */
static int wait_for_lock(int fd, const char *dir, double seconds, bool *ours, struct lwm_err *e)
{
	enum { NAPS = 6 }; // a run that was just killed takes a moment to end
	const struct timespec nap = { 0, 500000000 };
	double end = lwm_now() + seconds;
	enum answer got;
	struct holder h;

	for (int tries = 0; (got = try_lock(fd)) == THEIRS; tries++) {
		read_holder(fd, &h);
		if ((lives_here(&h) && tries >= NAPS) || lwm_now() > end)
			return lwm_fail(e, LWM_ECANTCREATE, "%s: another run works in this folder (%s)", dir, h.text);
		if (tries == NAPS)
			lwm_log(LWM_WARN, "%s is locked by another run (%s); waiting %.0f s for its end", dir, h.text, seconds);
		nanosleep(&nap, NULL);
	}
	if (got == NO_LOCKS)
		lwm_log(LWM_WARN, "%s: no locks on this file system (%s): see to it that only one run works here", dir,
			strerror(errno));
	*ours = got == OURS;
	return 0;
}

int lwm_lock_take(struct lwm_lock **out, const char *dir, double seconds, struct lwm_err *e)
{
	char *path = lwm_path_join(dir, ".lock");
	struct lwm_lock *l = calloc(1, sizeof *l);
	bool ours = false;
	int rc = 0, fd = -1;

	*out = NULL;
	if (!path || !l)
		LWM_GO(lwm_fail_memory(e, dir));
	LWM_GO(lwm_inplace_open(&fd, path, O_RDWR | O_CREAT, e));
	LWM_GO(wait_for_lock(fd, dir, seconds, &ours, e));
	if (ours)
		write_holder(fd);
	l->fd = ours ? fd : -1;
	*out = l;
out:
	if (!ours && fd >= 0)
		close(fd);
	if (rc < 0)
		free(l);
	free(path);
	return rc;
}

enum lwm_lock_state lwm_lock_look(const char *dir, char *holder, size_t size)
{
	struct flock f = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	enum lwm_lock_state state = LWM_LOCK_FREE;
	char *path = lwm_path_join(dir, ".lock"), host[64] = "";
	struct holder h;
	struct stat st;
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;

	*holder = 0;
	free(path);
	if (fd < 0)
		return LWM_LOCK_FREE;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
		read_holder(fd, &h);
		if (st.st_size > 0)
			snprintf(holder, size, "%s", h.text);
		my_host(host, sizeof host);
		if (fcntl(fd, F_GETLK, &f))
			state = LWM_LOCK_UNSEEN;
		else if (f.l_type != F_UNLCK)
			state = LWM_LOCK_HELD;
		else if (st.st_size > 0 && h.host[0] && strcmp(host, h.host))
			state = LWM_LOCK_UNSEEN;
	}
	close(fd);
	return state;
}

void lwm_lock_free(struct lwm_lock *l)
{
	if (!l)
		return;
	if (l->fd >= 0) {
		if (ftruncate(l->fd, 0))
			lwm_log(LWM_DEBUG, "the lock still names its last holder: %s", strerror(errno));
		close(l->fd);
	}
	free(l);
}
