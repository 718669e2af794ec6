/* saver.h - a stage's state out to checkpoints, while it trains on or while it waits.
 *
 *	lwm_saver_new(&v, o, &w, e)
 *	lwm_saver_reserve(v, e)                  where saves are to be behind the computation: memory for the copy
 *	lwm_saver_begin(v, &st, true)            after a step: the copy is made, a thread begins to write this rank's part of it
 *	... steps; between two of them the ranks tell each other lwm_saver_writing(v), until it is false on all ...
 *	lwm_saver_settle(v)                      all have written: a thread of rank 0 begins to commit the record
 *	... steps, likewise ...
 *	lwm_saver_finish(v, keeper, e)           it is there: older checkpoints are retired, their files behind, too
 *	lwm_saver_free(v)
 *
 * One save at a time: finish comes before the next begin, and waits for what is still being written. What makes it a checkpoint is
 * the record: until that is committed the folder is an unfinished one, which nobody reads and the next commit sweeps, so a process
 * may die at any instant. The threads call nothing but lwm_ckpt_write_part, lwm_ckpt_commit and what is told of below, on memory of
 * their own.
 */
#ifndef LWM_TRAIN_SAVER_H
#define LWM_TRAIN_SAVER_H

#include "common/train/save.h"

struct lwm_saver;
/* Local. o and w are borrowed until lwm_saver_free. */
int lwm_saver_new(struct lwm_saver **out, const struct lwm_objective *o, struct lwm_weights *w, struct lwm_err *e);
/* NULL is fine. Gives up a save that was not settled, which leaves an unfinished folder; waits for a record that is being
 * written. */
void lwm_saver_free(struct lwm_saver *v);
/* Local. What rank 0 calls before each commit, of a save behind the computation in the thread. */
typedef void lwm_saver_before_fn(void *ctx);
void lwm_saver_before_commit(struct lwm_saver *v, lwm_saver_before_fn *fn, void *ctx);

/* Bytes of the copy for a rank with this cut, with an average or without; pure. */
int64_t lwm_saver_copy_bytes(const struct lwm_cut *cut, bool average);
/* Local. Takes that much host memory, pinned where the device has memory of its own, and touches all of it. -LWM_EMEMORY. */
int lwm_saver_reserve(struct lwm_saver *v, struct lwm_err *e);
void lwm_saver_unreserve(struct lwm_saver *v); /* gives it back; fine when there is none */

/* Local. Begins to save the weights and moments as they are now, with st. behind: they are copied, and written beside what the
 * caller does next; without memory for the copy, or else, this rank's part is on disk on return. A failure is said by finish. */
void lwm_saver_begin(struct lwm_saver *v, const struct lwm_train_state *st, bool behind);
/* Local: is this rank's part, or the record, still being written? NULL: no. */
bool lwm_saver_writing(const struct lwm_saver *v);
/* Local: of the save that was begun and not finished, -1 none; the same on all ranks. NULL: none. */
int64_t lwm_saver_step(const struct lwm_saver *v);
double lwm_saver_seconds(const struct lwm_saver *v); /* local: what writing a part took last, of the thread or in begin */
/* COLLECTIVE over the ranks of w, once for each save. Waits for the parts of all ranks and begins to commit. A failure is said by
 * finish. */
void lwm_saver_settle(struct lwm_saver *v);
bool lwm_saver_settled(const struct lwm_saver *v); /* has the save that was begun come so far? The same on all ranks */
/* COLLECTIVE over the ranks of w. Settles, if that was not done, waits for the record, and removes what rank 0's keeper (NULL on
 * the others) no longer wants: of a save behind the computation, files are removed by a thread, which the next finish, retire and
 * free wait for. A failure is one of this save alone: its own parts are removed again, older checkpoints stay. */
int lwm_saver_finish(struct lwm_saver *v, struct lwm_ckpt_keeper *keeper, struct lwm_err *e);
/* COLLECTIVE, the same. Removes what is too many now that the checkpoint of `step` is whole, and waits for it. */
int lwm_saver_retire(struct lwm_saver *v, struct lwm_ckpt_keeper *keeper, int64_t step, struct lwm_err *e);

#endif
