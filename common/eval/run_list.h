/* run_list.h - a folder with several runs: the stages of a pipeline, and what lwm-run noted of its tasks. Local calls; nothing is
 * written.
 *
 *	lwm_run_list_read(&l, dir, now, verify, e), lwm_run_list_show or _json, lwm_run_list_release(&l)
 */
#ifndef LWM_EVAL_RUN_LIST_H
#define LWM_EVAL_RUN_LIST_H

#include "common/eval/run_status.h"

struct lwm_run_list {
	char *dir;
	struct lwm_run_status *v; /* in the order in which they began; those of which that is not known come last, by name */
	int64_t n;
	int64_t done, open;       /* tasks of lwm-run: complete when last looked at; begun and not complete */
	struct lwm_paths failed;  /* of these the ones whose last try failed: "LABEL ended with 65: see DIR/logs/LABEL.log" */
};
/* Runs are looked for in the folder and three levels below. -LWM_ENOINPUT: there are none, and no records of lwm-run. After a
 * failure it is to be released, too. */
int lwm_run_list_read(struct lwm_run_list *l, const char *dir, double now, bool verify, struct lwm_err *e);
void lwm_run_list_release(struct lwm_run_list *l);

void lwm_run_list_show(const struct lwm_run_list *l, struct lwm_str *out);
/* {"schema":"lwm-status-list/1","run":DIR,"tasks":{"done":,"open":,"failed":[...]},"runs":[...],"next":}, a line without newline */
void lwm_run_list_json(const struct lwm_run_list *l, struct lwm_str *out);

#endif
