/* A library to preload: at the k-th call that touches a file below a folder something happens to the process.
 *
 *	FAULT_ROOT=DIR    only files at or below it (an absolute path); descriptors 0 to 2 never
 *	FAULT=HOW@K,...   what at which call, from 1; none: calls are only counted
 *	      kill        SIGKILL in its place
 *	      stop, save  SIGUSR1, SIGUSR2 before it: what a batch system sends
 *	      short       of a read or write only half is done
 *	      memory      not a file: the K-th allocation of the program itself (or of jansson, libyaml) finds no memory
 *	      NUMBER      it fails with this errno
 *	FAULT_OPS=change  only calls that change something (write, sync, rename, ...); default: all, opening and reading too
 *	FAULT_RANK=R      only in that rank of an MPI job
 *	FAULT_COUNT=FILE  gets the number of calls seen, at the end
 *	FAULT_LOG=DIR     DIR/RANK (0 without MPI) gets a line for each call: what, bytes moved, path
 *
 *	cc -shared -fPIC -O1 -o fault.so fault.c -ldl      (-DFAULT_NO_MEMORY: under a sanitizer, which has a malloc of its own)
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum how { NONE, KILL, STOP, SAVE, SHORT, MEMORY, ERRNO };
enum op { READ, CHANGE };
enum { FAULTS = 4 };

static struct {
	bool ready, memory, changes_only;
	int log; /* 0: none */
	char root[2048], count_to[2048];
	struct fault {
		enum how how;
		int error;
		long at;
	} fault[FAULTS];
	int nfault;
} g;
static atomic_long seen;

#define REAL(ret, name, args)                                     \
	static ret(*real) args;                                   \
	if (!real)                                                \
		real = (ret(*) args)(uintptr_t)dlsym(RTLD_NEXT, name)

static enum how how_of(const char *name, size_t n)
{
	static const struct {
		const char *name;
		enum how how;
	} known[] = { { "kill", KILL }, { "stop", STOP }, { "save", SAVE }, { "short", SHORT }, { "memory", MEMORY } };

	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (strlen(known[i].name) == n && !strncmp(name, known[i].name, n))
			return known[i].how;
	return ERRNO;
}

static void read_faults(const char *s)
{
	while (s && *s && g.nfault < FAULTS) {
		struct fault *f = &g.fault[g.nfault++];
		const char *at = strchr(s, '@');
		if (!at)
			abort(); /* a test that asks for nothing proves nothing */
		f->how = how_of(s, (size_t)(at - s));
		f->error = f->how == ERRNO ? (int)strtol(s, NULL, 10) : 0;
		f->at = strtol(at + 1, NULL, 10);
		g.memory |= f->how == MEMORY;
		s = strchr(at, ',');
		s += s != NULL;
	}
}

__attribute__((constructor)) static void setup(void)
{
	const char *root = getenv("FAULT_ROOT"), *ops = getenv("FAULT_OPS"), *rank = getenv("FAULT_RANK");
	const char *mine = getenv("OMPI_COMM_WORLD_RANK"), *count = getenv("FAULT_COUNT");

	if (g.ready || !root || (rank && (!mine || strcmp(rank, mine))))
		return;
	snprintf(g.root, sizeof g.root, "%s", root);
	snprintf(g.count_to, sizeof g.count_to, "%s", count ? count : "");
	read_faults(getenv("FAULT"));
	g.changes_only = ops && !strcmp(ops, "change");
	if (getenv("FAULT_LOG")) {
		char path[2100];
		snprintf(path, sizeof path, "%s/%s", getenv("FAULT_LOG"), mine ? mine : "0");
		g.log = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
		if (g.log < 0)
			abort();
	}
	g.ready = true;
}

static void record(const char *what, ssize_t bytes, const char *path)
{
	char line[8300];
	int n = snprintf(line, sizeof line, "%s %zd %s\n", what, bytes < 0 ? 0 : bytes, path);
	if (g.log && syscall(SYS_write, g.log, line, (size_t)n) != n)
		abort();
}

__attribute__((destructor)) static void say(void)
{
	char text[32];
	int n = snprintf(text, sizeof text, "%ld\n", atomic_load(&seen)), fd;

	if (!g.ready || !g.count_to[0])
		return;
	g.ready = false;
	fd = open(g.count_to, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd >= 0) {
		ssize_t ignored = write(fd, text, (size_t)n);
		(void)ignored;
		close(fd);
	}
}

/* What happens to this call; signals are sent here, and a kill does not come back. */
static enum how turn(void)
{
	long k = atomic_fetch_add(&seen, 1) + 1;

	for (int i = 0; i < g.nfault; i++) {
		const struct fault *f = &g.fault[i];
		if (f->at != k)
			continue;
		if (f->how == STOP || f->how == SAVE) {
			kill(getpid(), f->how == STOP ? SIGUSR1 : SIGUSR2);
			return NONE;
		}
		if (f->how == KILL) {
			kill(getpid(), SIGKILL);
			for (;;)
				pause();
		}
		errno = f->error;
		return f->how;
	}
	return NONE;
}

/* what NULL: data, which are recorded when they have moved */
static enum how at_path(const char *what, enum op op, int dir, const char *path)
{
	char full[8192], link[64];
	size_t n = 0;
	ssize_t k;

	if (!g.ready || g.memory || !path || (g.changes_only && op == READ))
		return NONE;
	if (path[0] != '/') {
		snprintf(link, sizeof link, dir == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", dir);
		k = readlink(link, full, sizeof full / 2);
		if (k < 0)
			return NONE;
		n = (size_t)k;
		full[n++] = '/';
	}
	snprintf(full + n, sizeof full - n, "%s", path);
	if (strncmp(full, g.root, strlen(g.root)))
		return NONE;
	if (what)
		record(what, 0, full);
	return turn();
}

/* The file behind a descriptor: false for a socket, a pipe. */
static bool name_of(int fd, char path[4096])
{
	char link[64];
	ssize_t n;

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	n = readlink(link, path, 4095);
	path[n < 0 ? 0 : n] = 0;
	return path[0] == '/';
}

static enum how at_fd(const char *what, enum op op, int fd)
{
	char path[4096];

	if (!g.ready || g.memory || fd < 3 || (g.changes_only && op == READ) || !name_of(fd, path))
		return NONE;
	return at_path(what, op, AT_FDCWD, path);
}

static ssize_t moved(const char *what, int fd, ssize_t bytes)
{
	char path[4096];
	int why = errno;

	if (g.log && g.ready && fd > 2 && name_of(fd, path) && !strncmp(path, g.root, strlen(g.root)))
		record(what, bytes, path);
	errno = why;
	return bytes;
}

static size_t half(size_t n)
{
	return n > 1 ? n / 2 : n;
}

/* ---- data ---- */

ssize_t read(int fd, void *p, size_t n)
{
	REAL(ssize_t, "read", (int, void *, size_t));
	enum how how = at_fd(NULL, READ, fd);
	return how == ERRNO ? -1 : moved("read", fd, real(fd, p, how == SHORT ? half(n) : n));
}

ssize_t pread(int fd, void *p, size_t n, off_t at)
{
	REAL(ssize_t, "pread64", (int, void *, size_t, off_t));
	enum how how = at_fd(NULL, READ, fd);
	return how == ERRNO ? -1 : moved("read", fd, real(fd, p, how == SHORT ? half(n) : n, at));
}

ssize_t pread64(int fd, void *p, size_t n, off64_t at)
{
	return pread(fd, p, n, at);
}

ssize_t write(int fd, const void *p, size_t n)
{
	REAL(ssize_t, "write", (int, const void *, size_t));
	enum how how = at_fd(NULL, CHANGE, fd);
	return how == ERRNO ? -1 : moved("write", fd, real(fd, p, how == SHORT ? half(n) : n));
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
	REAL(ssize_t, "pwrite64", (int, const void *, size_t, off_t));
	enum how how = at_fd(NULL, CHANGE, fd);
	return how == ERRNO ? -1 : moved("write", fd, real(fd, p, how == SHORT ? half(n) : n, at));
}

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at)
{
	return pwrite(fd, p, n, at);
}

#define BY_FD(name, op, args, call)            \
	int name args                          \
	{                                      \
		REAL(int, #name, args);        \
		if (at_fd(#name, op, fd) == ERRNO) \
			return -1;             \
		return real call;              \
	}
BY_FD(fsync, CHANGE, (int fd), (fd))
BY_FD(fdatasync, CHANGE, (int fd), (fd))
BY_FD(syncfs, CHANGE, (int fd), (fd))
BY_FD(ftruncate, CHANGE, (int fd, off_t n), (fd, n))
BY_FD(ftruncate64, CHANGE, (int fd, off64_t n), (fd, n))
BY_FD(fstat, READ, (int fd, struct stat *st), (fd, st))
BY_FD(fstat64, READ, (int fd, struct stat64 *st), (fd, st))

int close(int fd)
{
	REAL(int, "close", (int));
	bool hit = at_fd("close", CHANGE, fd) == ERRNO;
	int why = errno, rc = real(fd); /* it is closed even so */

	if (hit)
		errno = why;
	return hit ? -1 : rc;
}

/* ---- names ---- */

#define BY_NAME(name, op, dir, path, args, call)             \
	int name args                                        \
	{                                                    \
		REAL(int, #name, args);                      \
		if (at_path(#name, op, dir, path) == ERRNO) \
			return -1;                           \
		return real call;                            \
	}
BY_NAME(rename, CHANGE, AT_FDCWD, to, (const char *from, const char *to), (from, to))
BY_NAME(renameat, CHANGE, d2, to, (int d1, const char *from, int d2, const char *to), (d1, from, d2, to))
BY_NAME(renameat2, CHANGE, d2, to, (int d1, const char *from, int d2, const char *to, unsigned f), (d1, from, d2, to, f))
BY_NAME(mkdir, CHANGE, AT_FDCWD, p, (const char *p, mode_t m), (p, m))
BY_NAME(unlink, CHANGE, AT_FDCWD, p, (const char *p), (p))
BY_NAME(unlinkat, CHANGE, d, p, (int d, const char *p, int f), (d, p, f))
BY_NAME(rmdir, CHANGE, AT_FDCWD, p, (const char *p), (p))
BY_NAME(remove, CHANGE, AT_FDCWD, p, (const char *p), (p))
BY_NAME(access, READ, AT_FDCWD, p, (const char *p, int m), (p, m))
BY_NAME(stat, READ, AT_FDCWD, p, (const char *p, struct stat *st), (p, st))
BY_NAME(stat64, READ, AT_FDCWD, p, (const char *p, struct stat64 *st), (p, st))
BY_NAME(lstat, READ, AT_FDCWD, p, (const char *p, struct stat *st), (p, st))
BY_NAME(lstat64, READ, AT_FDCWD, p, (const char *p, struct stat64 *st), (p, st))

DIR *opendir(const char *p)
{
	REAL(DIR *, "opendir", (const char *));
	if (at_path("opendir", READ, AT_FDCWD, p) == ERRNO)
		return NULL;
	return real(p);
}

static int open_it(int dir, const char *path, int flags, mode_t mode)
{
	REAL(int, "openat64", (int, const char *, int, ...));
	if (at_path("open", (flags & O_ACCMODE) == O_RDONLY ? READ : CHANGE, dir, path) == ERRNO)
		return -1;
	return real(dir, path, flags, mode);
}

#define MODE                                               \
	mode_t mode = 0;                                   \
	va_list ap;                                        \
	va_start(ap, flags);                               \
	if (flags & (O_CREAT | __O_TMPFILE))               \
		mode = va_arg(ap, mode_t);                 \
	va_end(ap)
int open(const char *path, int flags, ...)
{
	MODE;
	return open_it(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	MODE;
	return open_it(AT_FDCWD, path, flags, mode);
}

int openat(int dir, const char *path, int flags, ...)
{
	MODE;
	return open_it(dir, path, flags, mode);
}

int openat64(int dir, const char *path, int flags, ...)
{
	MODE;
	return open_it(dir, path, flags, mode);
}

/* ---- memory ---- */

#ifndef FAULT_NO_MEMORY
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
static struct {
	uintptr_t from, to;
} ours[8];
static int nours;

static int look(struct dl_phdr_info *info, size_t size, void *ctx)
{
	bool *first = ctx;
	(void)size;
	if (*first || strstr(info->dlpi_name, "libjansson") || strstr(info->dlpi_name, "libyaml"))
		for (int i = 0; i < info->dlpi_phnum && nours < 8; i++)
			if (info->dlpi_phdr[i].p_type == PT_LOAD && info->dlpi_phdr[i].p_flags & PF_X) {
				ours[nours].from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
				ours[nours].to = ours[nours].from + info->dlpi_phdr[i].p_memsz;
				nours++;
			}
	*first = false;
	return 0;
}

static bool no_memory(const void *caller)
{
	static _Thread_local bool looking;
	bool first = true, mine = false;

	if (!g.memory || looking)
		return false;
	looking = true;
	if (!nours)
		dl_iterate_phdr(look, &first);
	for (int i = 0; i < nours; i++)
		mine = mine || ((uintptr_t)caller >= ours[i].from && (uintptr_t)caller < ours[i].to);
	mine = mine && turn() == MEMORY;
	looking = false;
	if (mine)
		errno = ENOMEM;
	return mine;
}

void *malloc(size_t n)
{
	return no_memory(__builtin_return_address(0)) ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
	return no_memory(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
	return no_memory(__builtin_return_address(0)) ? NULL : __libc_realloc(p, n);
}

int posix_memalign(void **out, size_t align, size_t n)
{
	REAL(int, "posix_memalign", (void **, size_t, size_t));
	return no_memory(__builtin_return_address(0)) ? ENOMEM : real(out, align, n);
}

void *aligned_alloc(size_t align, size_t n)
{
	REAL(void *, "aligned_alloc", (size_t, size_t));
	return no_memory(__builtin_return_address(0)) ? NULL : real(align, n);
}
#endif
