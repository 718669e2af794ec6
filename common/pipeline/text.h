/* text.h - inside common/pipeline: text with ${variables}. What they are called: pipelines/README.md. Local calls. */
#ifndef LWM_PIPELINE_TEXT_H
#define LWM_PIPELINE_TEXT_H

#include "common/pipeline/pipeline.h"

struct lwm_pipe_scope {
	struct lwm_pipeline *p;
	const char *stage, *item; /* NULL outside of a stage, of a task of foreach */
	int64_t index; /* the task's number, with item */
};
/* Replaces each ${name}; "$$" is a dollar sign. The result lives in the pipeline's arena. -LWM_EUSAGE, with the place of `at`,
 * for an unknown name, for variables in a circle, for more than 64 KiB, for control characters. */
int lwm_pipeline_expand_text(const struct lwm_pipe_scope *s, const struct lwm_node *at, const char *text, const char **out,
			     struct lwm_err *e);
/* The option's stronger value from the environment (LWM_NAME), or NULL. */
const char *lwm_pipeline_option_env(const char *option);

#endif
