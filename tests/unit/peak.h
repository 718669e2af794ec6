/* peak.h - how much memory a piece of work takes at its peak, in a process of its own. */
#ifndef TESTS_UNIT_PEAK_H
#define TESTS_UNIT_PEAK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* The sanitizers keep shadows and freed memory: there only the work itself is done. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { PEAK_COUNTS = 0 };
#else
enum { PEAK_COUNTS = 1 };
#endif

typedef bool peak_fn(void *arg); /* was everything as it should be? */

static inline int64_t peak_of(peak_fn *f, void *arg, bool *ok)
{
	struct rusage u;
	int status;
	pid_t pid = fork();
	if (pid == 0)
		_exit(!f || f(arg) ? 0 : 1);
	*ok = pid > 0 && wait4(pid, &status, 0, &u) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
	return (int64_t)u.ru_maxrss << 10;
}

/* Bytes beyond those of a process that does nothing; negative when the work was not as it should be. */
static inline int64_t peak_bytes(peak_fn *f, void *arg)
{
	bool idle, ok;
	int64_t none = peak_of(NULL, NULL, &idle), most = peak_of(f, arg, &ok);
	return !idle || !ok ? -1 : !PEAK_COUNTS || most < none ? 0 : most - none;
}

#endif
