/* What tools with many inputs share: which of them a task takes, and where what comes of them goes. */
#include "common/cli/opt.h"

#include <inttypes.h>

int lwm_tool_tasks(int64_t task, int64_t tasks, struct lwm_err *e)
{
	return task < tasks ? 0 : lwm_fail(e, LWM_EUSAGE, "--task %" PRId64 " is not below --tasks %" PRId64, task, tasks);
}

int lwm_tool_inputs(const struct lwm_args *a, const char *const *suffixes, int64_t task, int64_t tasks, struct lwm_paths *out,
		    struct lwm_err *e)
{
	struct lwm_paths all = { 0 };
	int rc = 0;
	for (int i = 0; i < a->noperand && rc == 0; i++)
		rc = lwm_paths_expand(&all, a->operand[i], suffixes, e);
	for (int64_t i = task; i < all.n && rc == 0; i += tasks)
		rc = lwm_paths_add(out, all.v[i], e);
	lwm_paths_release(&all);
	return rc;
}

int lwm_tool_outputs(const char *output, const char *out_dir, int64_t task, int64_t tasks, struct lwm_err *e)
{
	if (!output == !out_dir)
		return lwm_fail(e, LWM_EUSAGE, "give one of --output and --out-dir");
	if (output && tasks > 1)
		return lwm_fail(e, LWM_EUSAGE, "--tasks needs --out-dir: several tasks cannot write one file");
	return lwm_tool_tasks(task, tasks, e);
}
