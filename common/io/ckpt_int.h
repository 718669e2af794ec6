/* ckpt_int.h - inside common/io: shared by the writer, the record and the reader of checkpoints. */
#ifndef LWM_IO_CKPT_INT_H
#define LWM_IO_CKPT_INT_H

#include "common/io/ckpt.h"
#include "common/io/vecfile.h"

#define LWM_CKPT_RECORD "COMMIT.json"
extern const char lwm_ckpt_schema[], lwm_ckpt_part_schema[];

enum { LWM_PART_SLICES = LWM_CKPT_GROUPS, LWM_PART_NAMES, LWM_PART_STATE, LWM_PART_VECS };
enum { LWM_SLICE_TENSOR, LWM_SLICE_OFFSET, LWM_SLICE_RUN, LWM_SLICE_COUNT, LWM_SLICE_STRIDE, LWM_SLICE_COLS };
extern const struct lwm_vec lwm_part_layout[LWM_PART_VECS];

/* Values of a tensor, -1 when its shape is no shape. */
int64_t lwm_ckpt_tensor_size(const struct lwm_ckpt_tensor *t);
/* Does the slice lie inside a tensor of `size` values? *n gets its values. */
int lwm_ckpt_slice_check(const struct lwm_ckpt_slice *s, int64_t size, int64_t *n, const char *where,
			 struct lwm_err *e);
/* Names end to end, each with its 0: malloc'ed. */
char *lwm_ckpt_names(const struct lwm_ckpt_tensor *t, int64_t n, int64_t *bytes);
void lwm_ckpt_part_name(char out[32], int rank);
/* Is it a name that lwm_ckpt_dir would give? */
bool lwm_ckpt_step_of(const char *name, int64_t *step);

#endif
