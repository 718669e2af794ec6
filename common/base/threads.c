#include "common/base/threads.h"

#include <stdlib.h>
#include <unistd.h>

void lwm_threads_settle(char **argv)
{
	if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT"))
		return;
	if (setenv("GOMP_SPINCOUNT", "1000", 1))
		return;
	execv("/proc/self/exe", argv); /* where that cannot be done the program only runs slower */
}
