/* mesh.h - dp, fsdp, tp, sp: how ranks form a grid, and which tokens of a row a sequence rank holds.
 *
 * mesh_dim as the published system writes it: "1,-1,4,1" (dp,fsdp,tp,sp), one entry may be -1 (what is left), a leading '!'
 * is accepted (plain enumeration order is what we do), named form "dp:1,fsdp:-1,tp:2,sp:1" in any order.
 * Rank order is row-major over (dp, fsdp, tp, sp): neighbours in the ring are neighbours in rank.
 * Rows are spread over dp*fsdp, the sequence over sp, weights and optimizer state over tp and fsdp*sp.
 */
#ifndef LWM_COMM_MESH_H
#define LWM_COMM_MESH_H

#include "common/comm/devcomm.h"

enum lwm_axis { LWM_DP, LWM_FSDP, LWM_TP, LWM_SP, LWM_AXES };

struct lwm_mesh {
	int dim[LWM_AXES];   /* product = number of ranks */
	int coord[LWM_AXES]; /* of this rank */
	struct lwm_comm *world; /* borrowed */
	struct lwm_comm *sp;    /* ranks that share a row, in ring order; owned */
	struct lwm_comm *data;  /* ranks with the same (tp, sp) and different rows: dp*fsdp; owned */
	struct lwm_comm *grad;  /* ranks whose weight gradients are summed: all of equal tp (dp*fsdp*sp); owned */
	/* of lwm_mesh_attach: sp (NULL when a rank holds whole rows) and grad on device memory; owned */
	struct lwm_devcomm *sp_dev, *grad_dev;
};

/* Local: how many ranks hold different rows, and which of them this one is. */
static inline int lwm_mesh_row_ranks(const struct lwm_mesh *m)
{
	return m->dim[LWM_DP] * m->dim[LWM_FSDP];
}
static inline int lwm_mesh_row_rank(const struct lwm_mesh *m)
{
	return m->coord[LWM_DP] * m->dim[LWM_FSDP] + m->coord[LWM_FSDP];
}

/* Local: text -> dims for `ranks` ranks. */
int lwm_mesh_parse(const char *text, int ranks, int dim[LWM_AXES], struct lwm_err *e);
/* Collective over world. */
int lwm_mesh_new(struct lwm_mesh *m, const char *text, struct lwm_comm *world, struct lwm_err *e);
/* Collective over world: lets the ranks exchange memory of their devices (borrowed). All return the same. */
int lwm_mesh_attach(struct lwm_mesh *m, struct lk_dev *dev, struct lwm_err *e);
/* Collective. Ends what lwm_mesh_attach began; before the device's memory is freed, so that nothing waits for an exchange
 * with a rank that is gone. */
void lwm_mesh_detach(struct lwm_mesh *m);
void lwm_mesh_release(struct lwm_mesh *m); /* collective; detaches */

/* Which global positions of a row of `seq` tokens sequence rank r of n holds, in local order. contiguous: one slab;
 * zigzag: the chunks r and 2n-1-r of 2n (equal causal work for everyone); striped: r, r+n, r+2n, ... seq must divide
 * by n (zigzag: by 2n). */
enum lwm_ring_layout { LWM_RING_CONTIGUOUS, LWM_RING_ZIGZAG, LWM_RING_STRIPED };
extern const char *const lwm_ring_layouts[]; /* names, NULL-terminated, for option tables */
int lwm_ring_check(enum lwm_ring_layout layout, int64_t seq, int n, struct lwm_err *e);
int64_t lwm_ring_global(enum lwm_ring_layout layout, int64_t seq, int n, int r, int64_t local); /* local index -> row position */

#endif
