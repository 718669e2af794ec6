#include "common/base/threads.h"

#include <stdlib.h>
#include <unistd.h>

void lwm_threads_settle(char **argv)
{
	char self[4096];
	ssize_t n;
	if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT"))
		return;
	/* by its own path: as /proc/self/exe the process would be called "exe" in ps and top */
	n = readlink("/proc/self/exe", self, sizeof self - 1);
	if (n <= 0 || setenv("GOMP_SPINCOUNT", "1000", 1))
		return;
	self[n] = 0;
	execv(self, argv); /* where that cannot be done the program only runs slower */
}
