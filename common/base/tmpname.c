/* tmpname.c - temporary names and the sweep of those that nobody writes any more. */
#include "common/base/tmpname.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/path.h"

enum { RANDOM = 8, HOST = 24, BASE_MAX = 200 /* of 255 bytes of a name */, TRIES = 100, IDLE = 3600, SWEPT = 16 };
static const char mark[] = ".tmp.", digit[] = "abcdefghijklmnopqrstuvwxyz234567";

static void host_name(char out[HOST + 1])
{
	char name[256] = "";
	size_t n = 0;

	if (gethostname(name, sizeof name - 1))
		name[0] = 0;
	for (const char *s = name; *s && *s != '.' && n < HOST; s++)
		out[n++] = strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", *s) ? *s : '_';
	if (!n)
		out[n++] = '_';
	out[n] = 0;
}

static void random_text(char out[RANDOM + 1])
{
	unsigned char bytes[RANDOM];
	struct timespec t;

	if (getrandom(bytes, sizeof bytes, GRND_NONBLOCK) != (ssize_t)sizeof bytes) {
		clock_gettime(CLOCK_REALTIME, &t); // early in a boot; the name is made exclusively all the same
		uint64_t h = lwm_hash64(&t, sizeof t, (uint64_t)getpid());
		memcpy(bytes, &h, sizeof bytes);
	}
	for (int i = 0; i < RANDOM; i++)
		out[i] = digit[bytes[i] & 31];
	out[RANDOM] = 0;
}

/* A name too long to carry the mark after it is cut, and told from its like by a hash. */
static char *make_name(const char *path)
{
	char host[HOST + 1], text[RANDOM + 1], *out;
	const char *base = lwm_path_base(path);
	int keep = (int)strlen(path), n;

	host_name(host);
	random_text(text);
	if (strlen(base) <= BASE_MAX) {
		n = asprintf(&out, "%s%s%s-%s", path, mark, host, text);
	} else {
		keep -= (int)strlen(base) - BASE_MAX + 16;
		n = asprintf(&out, "%.*s%016" PRIx64 "%s%s-%s", keep, path, lwm_hash64(base, strlen(base), 0), mark,
			     host, text);
	}
	return n < 0 ? NULL : out;
}

bool lwm_tmp_is(const char *name)
{
	const char *at = NULL, *dash;

	for (const char *s = strstr(name, mark); s; s = strstr(s + 1, mark))
		at = s + strlen(mark);
	dash = at ? strrchr(at, '-') : NULL;
	return dash && dash > at && strlen(dash + 1) == RANDOM && strspn(dash + 1, digit) == RANDOM &&
	       strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == (size_t)(dash - at);
}

/* Holds the lock, or lives on a file system without locks. False: a sweep was faster than we, the file is gone. */
static bool hold_lock(int fd)
{
	struct stat st;

	if (flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
		return false;
	return fstat(fd, &st) == 0 && st.st_nlink > 0;
}

static int fail_create(const char *path, int err, struct lwm_err *e)
{
	return lwm_fail_errno(e, LWM_ECANTCREATE, err, "%s: cannot create", path);
}

int lwm_tmp_file(const char *path, char **name, int *fd, struct lwm_err *e)
{
	int err = EEXIST;

	for (int i = 0; i < TRIES && err == EEXIST; i++) {
		*name = make_name(path);
		if (!*name)
			return lwm_fail_memory(e, path);
		*fd = open(*name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
		err = errno;
		if (*fd >= 0 && hold_lock(*fd))
			return 0;
		if (*fd >= 0) {
			unlink(*name); /* where it is not gone: its state could not be told */
			close(*fd);
			err = EEXIST;
		}
		free(*name);
	}
	*name = NULL;
	*fd = -1;
	return fail_create(path, err, e);
}

int lwm_tmp_hold(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB)) {
		int err = errno;
		close(fd);
		errno = err;
		return -1;
	}
	return fd;
}

/* The folder and its lock, or why not; EEXIST: the name is taken, or a sweep was faster than we. */
static int make_locked(const char *dir, int *fd)
{
	int err = 0, hold;
	char *lock;

	if (mkdir(dir, 0777))
		return errno;
	hold = lwm_tmp_hold(dir); /* until the lock is there */
	if (hold < 0 && (errno == EWOULDBLOCK || errno == ENOENT))
		return EEXIST;
	lock = lwm_path_join(dir, LWM_TMP_LOCK);
	*fd = lock ? open(lock, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666) : -1;
	if (*fd < 0)
		err = lock ? errno : ENOMEM;
	else if (!hold_lock(*fd))
		err = EEXIST;
	if (err && *fd >= 0) {
		unlink(lock);
		close(*fd);
		*fd = -1;
	}
	if (err)
		rmdir(dir);
	if (hold >= 0)
		close(hold);
	free(lock);
	return err;
}

int lwm_tmp_dir(const char *path, char **name, int *fd, struct lwm_err *e)
{
	int err = EEXIST;

	*fd = -1;
	for (int i = 0; i < TRIES && err == EEXIST; i++) {
		*name = make_name(path);
		if (!*name)
			return lwm_fail_memory(e, path);
		err = make_locked(*name, fd);
		if (!err)
			return 0;
		free(*name);
	}
	*name = NULL;
	return fail_create(path, err, e);
}

/* ---- sweeping ---- */

/* Locks of flock hold between all processes that see the file. */
static bool is_local(const char *dir)
{
	static const long kinds[] = { EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, TMPFS_MAGIC, OVERLAYFS_SUPER_MAGIC,
				      0x2fc12fc1 /* zfs */, F2FS_SUPER_MAGIC };
	struct statfs fs;

	if (statfs(dir, &fs))
		return false;
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if ((unsigned long)fs.f_type == (unsigned long)kinds[i])
			return true;
	return false;
}

static bool of_this_host(const char *name)
{
	char host[HOST + 1];
	size_t n, len = strlen(name);

	host_name(host);
	n = strlen(host);
	return len > n + RANDOM + 1 && !strncmp(name + len - RANDOM - 1 - n, host, n) && name[len - RANDOM - 2 - n] == '.';
}

static bool is_idle(const struct stat *st)
{
	return time(NULL) - st->st_mtime > IDLE;
}

/* A folder without its lock is held itself, by who finishes it; where folders cannot be locked it is young. */
static void sweep_dir(const char *path, const struct stat *st)
{
	char *lock = lwm_path_join(path, LWM_TMP_LOCK);
	int fd = lock ? open(lock, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;
	bool dead = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;

	if (fd < 0 && lock && errno == ENOENT) {
		fd = lwm_tmp_hold(path);
		dead = fd >= 0 ? access(lock, F_OK) && errno == ENOENT : errno != EWOULDBLOCK && is_idle(st);
	}
	if (dead && lwm_remove_tree(path, NULL) == 0)
		lwm_log(LWM_DEBUG, "removed what a killed writer left: %s", path);
	if (fd >= 0)
		close(fd);
	free(lock);
}

static void sweep_file(const char *path, const struct stat *st)
{
	struct stat now;
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (fd < 0)
		return;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &now) == 0 && now.st_ino == st->st_ino && now.st_nlink > 0 &&
	    unlink(path) == 0)
		lwm_log(LWM_DEBUG, "removed what a killed writer left: %s", path);
	close(fd);
}

static void sweep_one(const char *dir, const char *name, bool local)
{
	char *path = lwm_path_join(dir, name);
	struct stat st;

	if (path && lstat(path, &st) == 0 && (local || of_this_host(name) || is_idle(&st))) {
		if (S_ISDIR(st.st_mode))
			sweep_dir(path, &st);
		else if (S_ISREG(st.st_mode))
			sweep_file(path, &st);
	}
	free(path);
}

/* Was it looked at before? Remembers the last few folders. */
static bool was_swept(const char *dir)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static uint64_t seen[SWEPT];
	static int next;
	uint64_t h = lwm_hash64(dir, strlen(dir), 1);
	bool was = false;

	pthread_mutex_lock(&lock);
	for (int i = 0; i < SWEPT; i++)
		was = was || seen[i] == h;
	if (!was)
		seen[next++ % SWEPT] = h;
	pthread_mutex_unlock(&lock);
	return was;
}

void lwm_tmp_sweep(const char *dir)
{
	struct dirent *d;
	DIR *list = was_swept(dir) ? NULL : opendir(dir);
	bool local = list && is_local(dir);

	while (list && (d = readdir(list)))
		if (lwm_tmp_is(d->d_name))
			sweep_one(dir, d->d_name, local);
	if (list)
		closedir(list);
}
