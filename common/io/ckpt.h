/* ckpt.h - training checkpoints: ROOT/step_00000120/ with one HDF5 part for each rank that owns data, and COMMIT.json last.
 *
 *	saving            lwm_ckpt_write_part(&out, &part, e)             every rank: its slices
 *	                  gather the parts (plain bytes), agree that all went well: the caller's communicator
 *	                  lwm_ckpt_commit(dir, &meta, ...)                rank 0: from here on the checkpoint exists
 *	                  lwm_ckpt_keeper_saved(keeper, step, e)          rank 0: older ones that are too many go
 *	                  lwm_ckpt_take_back(dir, part.name)              instead of the last two, when a rank failed
 *
 *	reading           lwm_ckpt_latest(&dir, root, ...)                which step; or the caller knows
 *	                  lwm_ckpt_open(&c, dir, e)
 *	                  i = lwm_ckpt_find(c, name)
 *	                  lwm_ckpt_read(c, group, i, offset, n, out, e)   any range, whatever parts hold it
 *	                  lwm_ckpt_close(c)
 *
 *	by many ranks     lwm_ckpt_open_record, lwm_ckpt_pack             one rank: reads the record
 *	                  lwm_ckpt_unpack                                 the others: from its text, without a file
 *	                  lwm_ckpt_check_part                             each checks some of the parts
 *
 * Every call is local; any thread, one at a time per handle: a part may be written while its owner computes. Strings and tables
 * that a call returns are borrowed from its handle unless they are said to be malloc'ed. Errors: -LWM_EDATA unfinished or damaged,
 * -LWM_ENOINPUT no such folder, -LWM_EIO it cannot be read or written now, which says nothing of what is in it, -LWM_EMEMORY.
 *
 * A tensor is named as in model.h and lies in our memory layout. A rank stores slices of it: `count` runs of `run`
 * values, the k-th at offset + k*stride of the flattened tensor (count 1: a plain range; a column shard of a matrix
 * is count = rows).
 * All slices of all parts together cover each tensor exactly once; any mesh can then read any range. Of each slice a part holds the
 * values of every group of the checkpoint.
 *
 *	part_00000.h5:  params, adam_m, adam_v   float32: the values of all slices in the order of `slices`
 *	                slices                   int64, 5 per slice: tensor, offset, run, count, stride
 *	                names                    uint8: tensor names, each followed by a 0
 *	                state                    uint8: JSON text of this rank
 *	                further groups           float32, as the first; only where the checkpoint holds them
 *	                sums                     uint64: XXH3-64 of each 64 KiB of the vectors above, and one over these
 *	COMMIT.json:    schema, kind, step, mesh, ranks, config, state, tokenizer, tensors, groups, files (name, bytes,
 *	                XXH3-128, slices), and the hash of the record itself
 *
 * The record says which slices lie in which part: only parts that are read from are opened. Records of lwm-checkpoint-1 lack
 * that, and opening one of these opens all of its parts.
 */
#ifndef LWM_IO_CKPT_H
#define LWM_IO_CKPT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/tensor/tensor.h"

/* ---- named groups of values ---- */

/* Every named group of values that a checkpoint may hold, one line each; nothing else lists them. A group has one float32 for each
 * value of each tensor. A checkpoint holds those of its mask. A new one goes to the end: its vector then follows all others in the
 * parts that hold it, and parts that do not are what they were. */
#define LWM_CKPT_GROUP_TABLE(group)         \
	/*    constant         name */      \
	group(LWM_CKPT_PARAMS, "params") \
	group(LWM_CKPT_ADAM_M, "adam_m") \
	group(LWM_CKPT_ADAM_V, "adam_v") \
	group(LWM_CKPT_EMA, "ema") /* an average of params */

#define LWM_CKPT_GROUP_CONSTANT(constant, name) constant,
enum lwm_ckpt_group { LWM_CKPT_GROUP_TABLE(LWM_CKPT_GROUP_CONSTANT) LWM_CKPT_GROUPS };
extern const char *const lwm_ckpt_group_names[]; /* NULL-terminated */

/* The first three, weights and moments of AdamW, are what every stage of training saves; LWM_CKPT_TRAINED_ALL is their mask. */
enum { LWM_CKPT_TRAINED = LWM_CKPT_ADAM_V + 1 };
#define LWM_CKPT_TRAINED_ALL ((1u << LWM_CKPT_TRAINED) - 1)

/* ---- saving ---- */

struct lwm_ckpt_slice {
	int64_t tensor;                     /* index into the tensor table; the table is the same on all ranks */
	int64_t offset, run, count, stride; /* count 1: stride is ignored */
	const float *data[LWM_CKPT_GROUPS]; /* run * count packed values per group of the mask, else NULL */
};

struct lwm_ckpt_part { /* to be gathered as bytes; name "" = this rank owns nothing */
	char name[32];
	char hash[33];
	int64_t bytes, nslice;
};

/* Where a slice's data[g] is NULL its values come from this callback: values first .. first+n-1 of the packed values of slice
 * number `slice` in group `group`, asked for in ascending order, slice after slice and group after group. */
typedef int lwm_ckpt_fill_fn(void *ctx, int group, int64_t slice, int64_t first, int64_t n, float *out,
			     struct lwm_err *e);

struct lwm_ckpt_out {    /* what one rank writes */
	const char *dir; /* created when missing */
	int rank;
	const struct lwm_tensors *tensors; /* of each entry the name and the shape are used */
	const struct lwm_ckpt_slice *slice;
	int64_t nslice;
	unsigned groups;        /* mask: bit 1 << g for group g */
	const char *state;      /* JSON text of this rank, NULL for none */
	lwm_ckpt_fill_fn *fill; /* may be NULL */
	void *ctx;
};

/* Checks the space, writes, reads back and compares with memory, renames. nslice 0 and state NULL: writes nothing. */
int lwm_ckpt_write_part(const struct lwm_ckpt_out *o, struct lwm_ckpt_part *part, struct lwm_err *e);

struct lwm_ckpt_meta {
	const char *kind; /* of the model: struct lwm_model_kind has those that can become a model folder */
	int64_t step;
	const char *mesh; /* "1,2,1,2", as lwm_mesh_text writes it */
	int ranks;        /* of the run that saves; each writes one part at the most */
	const json_t *config;       /* object: at least what config.json of the model needs under "model" */
	const json_t *state;        /* object: seed, tokens seen, ...; may be NULL */
	const char *tokenizer;      /* hash, "" */
	const char *tokenizer_path; /* where it was, "" */
	unsigned groups;            /* mask of what the parts hold */
};

/* Removes whatever lies in the folder beside the parts (of a save that was killed), then writes the record. slice: those of part
 * 0, of part 1, ... end to end, as the parts were written with; their data are not looked at. */
int lwm_ckpt_commit(const char *dir, const struct lwm_ckpt_meta *m, const struct lwm_tensors *tensors,
		    const struct lwm_ckpt_part *part, int nparts, const struct lwm_ckpt_slice *slice, struct lwm_err *e);
/* "ROOT/step_00000120", malloc'ed */
char *lwm_ckpt_dir(const char *root, int64_t step);

/* ---- which checkpoint ---- */

enum lwm_ckpt_check {
	LWM_CKPT_SEAL,  /* the record alone: no other file is looked at */
	LWM_CKPT_QUICK, /* and the sizes of files */
	LWM_CKPT_FULL   /* and the hash of every file, by as many threads as there are processors */
};
/* -LWM_EDATA: unfinished, damaged, or not the step that the folder's name says. -LWM_EIO: it cannot be read now, which says nothing
 * of what is in it. */
int lwm_ckpt_verify(const char *dir, enum lwm_ckpt_check how, struct lwm_err *e);
/* A folder without a record: a save that is going on, or that was killed. Nothing ever stood there. */
bool lwm_ckpt_unfinished(const char *dir);

/* Called for each folder that is passed over, newest first, with the reason. */
typedef void lwm_ckpt_bad_fn(void *ctx, const char *dir, const struct lwm_err *why);
/* The newest whole checkpoint of a root. *dir is malloc'ed; 0 with *dir NULL: none was ever finished. Unfinished folders are passed
 * over. Damaged ones too when older_ok; otherwise, and when nothing is whole, they are -LWM_EDATA, each named with what is wrong. A
 * folder that cannot be read is that failure, whatever older ones there are. bad may be NULL. */
int lwm_ckpt_latest(char **dir, const char *root, bool older_ok, enum lwm_ckpt_check how, lwm_ckpt_bad_fn *bad, void *ctx,
		    struct lwm_err *e);

/* The same with a judge of the caller's: 0 whole, -LWM_EDATA not, anything else: it cannot be told. ctx is that of both. */
typedef int lwm_ckpt_look_fn(void *ctx, const char *dir, struct lwm_err *e);
int lwm_ckpt_search(char **dir, const char *root, bool older_ok, lwm_ckpt_look_fn *look, lwm_ckpt_bad_fn *bad, void *ctx,
		    struct lwm_err *e);

/* ---- reading ---- */

struct lwm_ckpt;

/* Checks as LWM_CKPT_QUICK does, and that the slices add up. */
int lwm_ckpt_open(struct lwm_ckpt **out, const char *dir, struct lwm_err *e);
/* As LWM_CKPT_SEAL does, and that the slices add up: the parts are the caller's to check. Of lwm-checkpoint-1 all of them are
 * opened here, and before that checked as `old` says. */
int lwm_ckpt_open_record(struct lwm_ckpt **out, const char *dir, enum lwm_ckpt_check old, struct lwm_err *e);
void lwm_ckpt_close(struct lwm_ckpt *c);
/* What was read of the record, as text for another rank (malloc'ed, 0-terminated); and the same checkpoint from it, without opening
 * a file. */
int lwm_ckpt_pack(const struct lwm_ckpt *c, char **text, struct lwm_err *e);
int lwm_ckpt_unpack(struct lwm_ckpt **out, const char *dir, const char *text, size_t n, struct lwm_err *e);
int lwm_ckpt_parts(const struct lwm_ckpt *c); /* how many files */
/* Part k by size, or size and hash; as lwm_ckpt_verify. */
int lwm_ckpt_check_part(const struct lwm_ckpt *c, int k, enum lwm_ckpt_check how, struct lwm_err *e);
const char *lwm_ckpt_path(const struct lwm_ckpt *c); /* the folder */
const struct lwm_ckpt_meta *lwm_ckpt_get_meta(const struct lwm_ckpt *c);
int64_t lwm_ckpt_count(const struct lwm_ckpt *c); /* tensors */
const struct lwm_tensors *lwm_ckpt_tensors(const struct lwm_ckpt *c); /* names and shapes. Borrowed */
const struct lwm_tensor *lwm_ckpt_tensor(const struct lwm_ckpt *c, int64_t i);
int64_t lwm_ckpt_size(const struct lwm_ckpt *c, int64_t i);        /* values */
int64_t lwm_ckpt_find(const struct lwm_ckpt *c, const char *name); /* -1: none of that name */
/* -LWM_ECONFIG: it does not hold that group. */
int lwm_ckpt_holds(const struct lwm_ckpt *c, enum lwm_ckpt_group g, struct lwm_err *e);
/* n values of tensor i from offset, whatever parts hold them; every block touched is checked. -LWM_ECONFIG: the checkpoint does not
 * hold the group. */
int lwm_ckpt_read(struct lwm_ckpt *c, enum lwm_ckpt_group g, int64_t i, int64_t offset, int64_t n, float *out,
		  struct lwm_err *e);
/* The state text of a part, by the rank that wrote it; 0 with *text NULL: that rank stored none. malloc'ed. */
int lwm_ckpt_state(struct lwm_ckpt *c, int rank, char **text, struct lwm_err *e);

/* That the slices cover each tensor exactly once, run by run, and that each part holds those that the record gives it; open
 * only compares totals. */
int lwm_ckpt_covers(struct lwm_ckpt *c, struct lwm_err *e);

/* ---- the folders of a root: for the one run that works in it ---- */

/* Keeps the newest keep_last (at least 1) checkpoints that are whole and every one whose step divides by keep_every (0: none). */
struct lwm_ckpt_keeper;
int lwm_ckpt_keeper_new(struct lwm_ckpt_keeper **out, const char *root, int64_t keep_last, int64_t keep_every,
			struct lwm_err *e);
void lwm_ckpt_keeper_free(struct lwm_ckpt_keeper *k); /* NULL is fine */
/* Who judges whether a checkpoint is whole; look NULL: lwm_ckpt_verify, LWM_CKPT_FULL. */
void lwm_ckpt_keeper_look(struct lwm_ckpt_keeper *k, lwm_ckpt_look_fn *look, void *ctx);
/* Step was seen whole; until somebody touches its files it need not be hashed again. */
int lwm_ckpt_keeper_seen(struct lwm_ckpt_keeper *k, int64_t step, struct lwm_err *e);
/* After lwm_ckpt_commit of `step`, which is never dropped. Others count as kept only when they are whole, by their hashes; what is
 * too many, what was never finished and what is damaged goes (a folder is renamed to .trash-NAME first). What cannot be read now
 * stays and counts for nothing. */
int lwm_ckpt_keeper_saved(struct lwm_ckpt_keeper *k, int64_t step, struct lwm_err *e);
/* defer: what goes is from now on only renamed, which takes no time; removing files of gigabytes does. lwm_ckpt_sweep does that,
 * on any thread, but not beside lwm_ckpt_keeper_saved. */
void lwm_ckpt_keeper_defer(struct lwm_ckpt_keeper *k, bool defer);
int lwm_ckpt_sweep(const char *root, struct lwm_err *e);

/* Moves ROOT/NAME to ROOT/damaged/NAME, NAME.1, ...: nothing is deleted that was ever finished. */
int lwm_ckpt_set_aside(const char *root, const char *path, struct lwm_err *e);
/* Every finished folder of a later step than `step`. */
int lwm_ckpt_set_aside_newer(const char *root, int64_t step, struct lwm_err *e);
/* What a failed save wrote: this rank's part (name "": none), and the folder when it is empty then. */
void lwm_ckpt_take_back(const char *dir, const char *part);

#endif
