/* seen.h - inside common/pipeline: what was hashed and verified before, so that a restart only looks at files.
 *
 * OUT/.lwm-run/LABEL.seen.json keeps, for a task, the hash of each input and one mark of all outputs, each beside what the files
 * looked like then: size, time of modification, time of change, inode. A file that looks the same is taken to be the same. Nothing
 * is lost with such a file, and none is made where OUT/.lwm-run does not exist.
 *
 * A file may be written again within the grain of its clock and look the same. So what was touched less than a grain before it was
 * hashed is not noted down, and hashed again: 20 ms, or 2 s where a time has no fractions of a second, as on FAT and Lustre.
 * Local calls; tasks may be looked at by several threads, each task by one.
 */
#ifndef LWM_PIPELINE_SEEN_H
#define LWM_PIPELINE_SEEN_H

#include <jansson.h>
#include <sys/stat.h>

#include "common/pipeline/pipeline.h"

struct lwm_run_seen {
	char *path;
	json_t *o;  /* what the file holds, and what was learnt since */
	bool dirty; /* and that is more than the file holds */
};

/* fresh: what was noted down before does not count. */
int lwm_run_seen_open(struct lwm_run_seen *s, const struct lwm_pipeline *p, const struct lwm_pipe_task *t, bool fresh,
		      struct lwm_err *e);
void lwm_run_seen_close(struct lwm_run_seen *s); /* writes it when something is new */
/* XXH3-128 of a file. */
int lwm_run_seen_hash(struct lwm_run_seen *s, const char *path, const struct stat *st, char hex[33], struct lwm_err *e);

/* What all outputs of a task look like, and when the last of them was touched. */
struct lwm_run_look {
	char hex[33];   /* "": there is nothing to look at, or it cannot be done */
	int64_t settled; /* ns of the wall clock from when on a look means something */
	bool coarse;    /* by a clock of whole seconds */
};
void lwm_run_look_at(const struct lwm_pipe_task *t, int check, struct lwm_run_look *l);
int64_t lwm_run_wall_time(void); /* ns */
bool lwm_run_seen_whole(const struct lwm_run_seen *s, const struct lwm_run_look *l);
/* They looked like `l` before they were verified, from `began` on. */
void lwm_run_seen_verified(struct lwm_run_seen *s, const struct lwm_run_look *l, int64_t began);

#endif
