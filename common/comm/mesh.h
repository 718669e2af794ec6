/* mesh.h - how the ranks of a run form a grid, who shares what with whom, and which tokens of a row a sequence rank holds.
 *
 * lwm_mesh_new cuts the world, lwm_mesh_attach lets the ranks exchange memory of their devices; comm[] and dev[] are then used;
 * lwm_mesh_detach before the device's memory goes, lwm_mesh_release at the end. Planning needs no ranks: lwm_mesh_parse into dim.
 *
 * mesh_dim as the published system writes it: "1,-1,4,1" (dp,fsdp,tp,sp), one entry may be -1 (what is left), a leading '!'
 * is accepted (plain enumeration order is what we do), named form "dp:1,fsdp:-1,tp:2,sp:1" in any order.
 * Rank order is row-major over the axes: neighbours in the ring are neighbours in rank.
 * Rows are spread over dp*fsdp, the sequence over sp, weights and optimizer state over tp and fsdp*sp; dp replicates weights.
 */
#ifndef LWM_COMM_MESH_H
#define LWM_COMM_MESH_H

#include "common/comm/devcomm.h"

/* Every axis of the mesh, slowest first, one line each; nothing else lists them. A new one goes to the end, so that mesh_dim of
 * four numbers still means what it meant. Columns:
 *	data     1: ranks along it hold different rows
 *	grad     1: weight gradients are summed along it
 *	missing  NULL, or the name of a parallelism that training cannot do yet: more than 1 is refused by lwm_mesh_check */
#define LWM_MESH_AXES(axis)                                \
	/*   constant  name   data grad missing */         \
	axis(LWM_DP,   "dp",   1,   1,  NULL)                 \
	axis(LWM_FSDP, "fsdp", 1,   1,  NULL)                 \
	axis(LWM_TP,   "tp",   0,   0,  NULL)                 \
	axis(LWM_SP,   "sp",   0,   1,  NULL)

#define LWM_MESH_CONSTANT(constant, name, data, grad, missing) constant,
enum lwm_axis { LWM_MESH_AXES(LWM_MESH_CONSTANT) LWM_AXES };

/* Groups of ranks that differ in some coordinates and agree in all others. The group of one axis has the number of that axis. */
enum lwm_mesh_group {
	LWM_DATA = LWM_AXES, /* different rows of the same step: dp*fsdp */
	LWM_GRAD,            /* weight gradients are summed: dp*fsdp*sp */
	LWM_SHARD,           /* weights may be cut over them: LWM_GRAD without dp, fsdp*sp */
	LWM_GROUPS
};

struct lwm_mesh {
	int dim[LWM_AXES];      /* product = number of ranks */
	int coord[LWM_AXES];    /* of this rank */
	struct lwm_comm *world; /* borrowed */
	/* The group that this rank is in, in rank order; owned. Groups of the same ranks are the same communicator. */
	struct lwm_comm *comm[LWM_GROUPS];
	/* The same on device memory, from lwm_mesh_attach until lwm_mesh_detach; owned. There is one for LWM_GRAD and for each axis
	 * along which ranks share a row (tp, sp), NULL where the axis is 1 long; for others from lwm_mesh_attach_group on. */
	struct lwm_devcomm *dev[LWM_GROUPS];
};

/* Local: how many ranks a group of the mesh has (needs dim only), and which of them this one is. `group`: an axis or a set. */
int lwm_mesh_ranks(const struct lwm_mesh *m, int group);
int lwm_mesh_rank(const struct lwm_mesh *m, int group);
/* Local (needs dim only): among how many consecutive ranks of the world a group lies; 1 where it has one rank. And do two groups
 * have the same ranks? */
int lwm_mesh_span(const struct lwm_mesh *m, int group);
bool lwm_mesh_same(const struct lwm_mesh *m, int group, int other);
/* Local: the coordinates of a rank of the world (needs dim only), to ask about another one in a copy of the mesh. */
void lwm_mesh_place(struct lwm_mesh *m, int rank);

/* Local: text -> dims for `ranks` ranks. -LWM_EUSAGE: not a mesh; -LWM_ECONFIG: of another number of ranks. */
int lwm_mesh_parse(const char *text, int ranks, int dim[LWM_AXES], struct lwm_err *e);
/* Local: -LWM_ECONFIG when an axis is longer than 1 that training cannot use yet. `text` is for the sentence. */
int lwm_mesh_check(const int dim[LWM_AXES], const char *text, struct lwm_err *e);
/* Local: what lwm_mesh_parse reads, "1,3,1,1", and for people, "dp 1, fsdp 3, tp 1, sp 1" (without `all`: of the axes that training
 * can use). Both return buf; 128 bytes suffice. */
enum { LWM_MESH_TEXT = 128 };
char *lwm_mesh_text(const int dim[LWM_AXES], char buf[LWM_MESH_TEXT]);
char *lwm_mesh_words(const int dim[LWM_AXES], bool all, char buf[LWM_MESH_TEXT]);

/* Collective over world. After a failure, lwm_mesh_release. */
int lwm_mesh_new(struct lwm_mesh *m, const char *text, struct lwm_comm *world, struct lwm_err *e);
/* Collective over world: lets the ranks exchange memory of their devices (borrowed). All return the same. */
int lwm_mesh_attach(struct lwm_mesh *m, struct lk_dev *dev, struct lwm_err *e);
/* Collective over world: the same for one group, an axis or a set, if it has none. */
int lwm_mesh_attach_group(struct lwm_mesh *m, int group, struct lk_dev *dev, struct lwm_err *e);
/* Collective. Ends what lwm_mesh_attach began; before the device's memory is freed, so that nothing waits for an exchange
 * with a rank that is gone. */
void lwm_mesh_detach(struct lwm_mesh *m);
void lwm_mesh_release(struct lwm_mesh *m); /* collective; detaches */

/* Which global positions of a row of `seq` tokens sequence rank r of n holds, in local order. contiguous: one slab;
 * zigzag: the chunks r and 2n-1-r of 2n (equal causal work for everyone); striped: r, r+n, r+2n, ...; balanced: equal work
 * whatever the documents of the rows, so it depends on them (ring_deal.h, which knows the others too). seq must divide by n
 * (zigzag: by 2n). */
enum lwm_ring_layout { LWM_RING_CONTIGUOUS, LWM_RING_ZIGZAG, LWM_RING_STRIPED, LWM_RING_BALANCED };
extern const char *const lwm_ring_layouts[]; /* names, NULL-terminated, for option tables */
int lwm_ring_check(enum lwm_ring_layout layout, int64_t seq, int n, struct lwm_err *e);
/* Local index -> row position; not of the balanced layout. */
int64_t lwm_ring_global(enum lwm_ring_layout layout, int64_t seq, int n, int r, int64_t local);

#endif
