/* rowshard_int.h - inside common/io: the vectors of row shards, for their writer and their reader. */
#ifndef LWM_IO_ROWSHARD_INT_H
#define LWM_IO_ROWSHARD_INT_H

#include "common/io/rowshard.h"
#include "common/io/shard.h"

extern const char lwm_rows_schema[], lwm_rows_kind[];
extern const char *const lwm_rows_schemas[]; /* those that are read, ending in NULL */
enum {
	LWM_ROW_TOKENS, LWM_ROW_SEG, LWM_ROW_SEG_LEN, LWM_ROW_SEG_DOC, LWM_ROW_FLIP, LWM_ROW_FLIP_AT, LWM_ROW_VECS
};
extern const struct lwm_vec lwm_rows_layout[LWM_ROW_VECS];

#define LWM_ROW_MOST (INT64_C(1) << 30) /* tokens */
#define LWM_ROW_GAP (-2)                /* document of an entry that is padding; -1: none */
#define LWM_ROW_DOCS32 (UINT32_MAX - 1LL) /* so many documents can be numbered in 4 bytes, of which the two largest are those */

int lwm_rows_check_meta(const char *path, const struct lwm_rows_meta *m, struct lwm_err *e);
int lwm_rows_check_segments(const char *path, int64_t row, const struct lwm_segment *seg, int64_t nseg, int64_t seq,
			    struct lwm_err *e);
int lwm_rows_check_runs(const char *path, int64_t row, const struct lwm_loss_run *runs, int64_t nruns, int64_t seq,
			struct lwm_err *e);

#endif
