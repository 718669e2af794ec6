/* ckpt_int.h - inside common/io: shared by the writer, the record and the reader of checkpoints. */
#ifndef LWM_IO_CKPT_INT_H
#define LWM_IO_CKPT_INT_H

#include "common/base/str.h"
#include "common/io/ckpt.h"
#include "common/io/vecfile.h"

#define LWM_CKPT_RECORD "COMMIT.json"
extern const char *const lwm_ckpt_schemas[]; /* of records that are read, ending in NULL; the first one is written */
extern const char lwm_ckpt_part_schema[];

/* The vectors of a part: those of the first groups, three tables, those of all further groups. One of the first groups that is not
 * held is empty; one of the others does not exist, so that parts without it are the same as before there was such a group. */
enum {
	LWM_PART_SLICES = LWM_CKPT_TRAINED,
	LWM_PART_NAMES,
	LWM_PART_STATE,
	LWM_PART_TABLES = 3,
	LWM_PART_VECS = LWM_CKPT_GROUPS + LWM_PART_TABLES
};
#define LWM_PART_FIRST(group) ((int)(group) < (int)LWM_PART_SLICES) /* is the group one of the first? */
#define LWM_PART_VEC(group) (LWM_PART_FIRST(group) ? (int)(group) : (int)(group) + LWM_PART_TABLES)
enum { LWM_SLICE_TENSOR, LWM_SLICE_OFFSET, LWM_SLICE_RUN, LWM_SLICE_COUNT, LWM_SLICE_STRIDE, LWM_SLICE_COLS };
extern const struct lwm_vec lwm_part_layout[LWM_PART_VECS];

/* Names of the groups of a mask, as records list them. */
json_t *lwm_ckpt_groups_json(unsigned groups, bool *failed);
/* Does the slice lie inside a tensor of `size` values? *n gets its values. */
int lwm_ckpt_slice_check(const struct lwm_ckpt_slice *s, int64_t size, int64_t *n, const char *where,
			 struct lwm_err *e);
/* Names end to end, each with its 0: malloc'ed. */
char *lwm_ckpt_names(const struct lwm_tensors *t, int64_t *bytes);
void lwm_ckpt_part_name(char out[32], int rank);

/* Slices as text, a blank between: TENSOR:OFFSET+RUN, of more than one run TENSOR:OFFSET+RUN*COUNT/STRIDE. */
void lwm_ckpt_slices_text(const struct lwm_ckpt_slice *s, int64_t n, struct lwm_str *out);
/* The next one of such a text as a row of the vector `slices`: 1, 0 at the end, -1 when it is no slice. */
int lwm_ckpt_slice_next(const char **text, int64_t row[LWM_SLICE_COLS]);

/* The record of a folder, whose name it fits; the caller json_decref()s *out. */
int lwm_ckpt_record_read(json_t **out, const char *dir, struct lwm_err *e);
/* An entry of its `files`. */
int lwm_ckpt_file_entry(const json_t *o, const char *dir, const char **name, int64_t *bytes, const char **hash, struct lwm_err *e);
int lwm_ckpt_check_file(const char *path, int64_t bytes, const char *hash, enum lwm_ckpt_check how, struct lwm_err *e);
/* Is it a name that lwm_ckpt_dir would give? */
bool lwm_ckpt_step_of(const char *name, int64_t *step);

#endif
