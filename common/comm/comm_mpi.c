/* Ranks are MPI processes. The only file that includes mpi.h. MPI-3.1 calls; messages go in pieces of at most 1 GiB
 * because counts are int. MPI is told to return errors, which become -LWM_ERANK with its text. */
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/launch.h"
#include "common/comm/comm_int.h"

enum { PIECE = 1 << 30, MAX_PIECES = 64, TAG = 77 };

struct exchange {
	MPI_Request req[2 * MAX_PIECES];
	int n;
};

struct mpi_impl {
	MPI_Comm comm;
	int world; /* owns MPI itself */
	struct exchange queue[LWM_COMM_INFLIGHT];
	unsigned first, last;
};

static MPI_Comm mpi_of(struct lwm_comm *c)
{
	return ((struct mpi_impl *)c->impl)->comm;
}

static int check_mpi(int code, const char *what, struct lwm_err *e)
{
	char text[MPI_MAX_ERROR_STRING];
	int n = 0;
	if (code == MPI_SUCCESS)
		return 0;
	MPI_Error_string(code, text, &n);
	return lwm_fail(e, LWM_ERANK, "MPI %s failed: %.*s", what, n, text);
}

static int mpi_barrier(struct lwm_comm *c, struct lwm_err *e)
{
	return check_mpi(MPI_Barrier(mpi_of(c)), "barrier", e);
}

static int mpi_bcast(struct lwm_comm *c, void *p, size_t bytes, int root, struct lwm_err *e)
{
	for (size_t at = 0; at < bytes; at += PIECE) {
		size_t n = bytes - at < PIECE ? bytes - at : PIECE;
		LWM_TRY(check_mpi(MPI_Bcast((char *)p + at, (int)n, MPI_BYTE, root, mpi_of(c)), "broadcast", e));
	}
	return 0;
}

/* Large blocks go rank by rank, so that no count overflows. */
static int mpi_allgather(struct lwm_comm *c, const void *mine, size_t bytes, void *all, struct lwm_err *e)
{
	char *place = (char *)all + (size_t)c->rank * bytes;
	if (bytes * (size_t)c->size <= PIECE)
		return check_mpi(MPI_Allgather(mine == place ? MPI_IN_PLACE : mine, (int)bytes, MPI_BYTE, all, (int)bytes,
					       MPI_BYTE, mpi_of(c)), "all-gather", e);
	memmove(place, mine, bytes);
	for (int r = 0; r < c->size; r++)
		LWM_TRY(mpi_bcast(c, (char *)all + (size_t)r * bytes, bytes, r, e));
	return 0;
}

static int mpi_alltoall(struct lwm_comm *c, const void *send, void *recv, size_t bytes, struct lwm_err *e)
{
	if (bytes > PIECE)
		return lwm_fail(e, LWM_EINTERNAL, "all-to-all of %zu bytes a rank", bytes);
	return check_mpi(MPI_Alltoall(send, (int)bytes, MPI_BYTE, recv, (int)bytes, MPI_BYTE, mpi_of(c)), "all-to-all", e);
}

static int mpi_start(struct lwm_comm *c, int to, const void *send, size_t send_bytes, int from, void *recv,
		     size_t recv_bytes, struct lwm_err *e)
{
	struct mpi_impl *m = c->impl;
	struct exchange *x = &m->queue[m->last % LWM_COMM_INFLIGHT];
	size_t most = (size_t)PIECE * MAX_PIECES;
	if (m->last - m->first == LWM_COMM_INFLIGHT || send_bytes > most || recv_bytes > most)
		return lwm_fail(e, LWM_EINTERNAL, "an exchange of %zu and %zu bytes does not fit the queue", send_bytes,
				recv_bytes);
	m->last++;
	x->n = 0;
	for (size_t at = 0; at < recv_bytes; at += PIECE) {
		size_t n = recv_bytes - at < PIECE ? recv_bytes - at : PIECE;
		LWM_TRY(check_mpi(MPI_Irecv((char *)recv + at, (int)n, MPI_BYTE, from, TAG, m->comm, &x->req[x->n]),
				  "receive", e));
		x->n++;
	}
	for (size_t at = 0; at < send_bytes; at += PIECE) {
		size_t n = send_bytes - at < PIECE ? send_bytes - at : PIECE;
		LWM_TRY(check_mpi(MPI_Isend((const char *)send + at, (int)n, MPI_BYTE, to, TAG, m->comm, &x->req[x->n]),
				  "send", e));
		x->n++;
	}
	return 0;
}

static int mpi_finish(struct lwm_comm *c, struct lwm_err *e)
{
	struct mpi_impl *m = c->impl;
	if (m->first == m->last)
		return lwm_fail(e, LWM_EINTERNAL, "no exchange in flight");
	struct exchange *x = &m->queue[m->first++ % LWM_COMM_INFLIGHT];
	return check_mpi(MPI_Waitall(x->n, x->req, MPI_STATUSES_IGNORE), "wait", e);
}

static void mpi_free(struct lwm_comm *c)
{
	struct mpi_impl *m = c->impl;
	int world = m->world;
	if (!world)
		MPI_Comm_free(&m->comm);
	free(m);
	lwm_comm_free_handle(c);
	if (world)
		MPI_Finalize();
}

static void mpi_abort(struct lwm_comm *c, int status)
{
	MPI_Abort(mpi_of(c), status);
}

static int mpi_split(struct lwm_comm *c, int color, int key, struct lwm_comm **out, struct lwm_err *e);

static const struct lwm_comm_ops ops = { .free = mpi_free,
					 .abort = mpi_abort,
					 .split = mpi_split,
					 .barrier = mpi_barrier,
					 .bcast = mpi_bcast,
					 .allgather = mpi_allgather,
					 .alltoall = mpi_alltoall,
					 .start = mpi_start,
					 .finish = mpi_finish };

static int wrap_mpi(MPI_Comm comm, int world, struct lwm_comm **out, struct lwm_err *e)
{
	struct mpi_impl *m = calloc(1, sizeof *m);
	int rank, size;
	MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
	LWM_TRY(check_mpi(MPI_Comm_rank(comm, &rank), "rank", e));
	LWM_TRY(check_mpi(MPI_Comm_size(comm, &size), "size", e));
	*out = m ? lwm_comm_new_handle(&ops, rank, size, m) : NULL;
	if (!*out) {
		free(m);
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a communicator");
	}
	m->comm = comm;
	m->world = world;
	return 0;
}

static int mpi_split(struct lwm_comm *c, int color, int key, struct lwm_comm **out, struct lwm_err *e)
{
	MPI_Comm part;
	LWM_TRY(check_mpi(MPI_Comm_split(mpi_of(c), color < 0 ? MPI_UNDEFINED : color, key, &part), "split", e));
	return part == MPI_COMM_NULL ? 0 : wrap_mpi(part, 0, out, e);
}

/* Ranks that share cores must give them away while they wait: an all-reduce over 4 ranks on 2 cores is a hundred times
 * faster so. mpirun on one host does this by itself, srun does not. */
static void yield_when_crowded(void)
{
	int local = lwm_launch_local_size();
	cpu_set_t set;
	if (!local || sched_getaffinity(0, sizeof set, &set))
		return;
	if (local > CPU_COUNT(&set) || CPU_COUNT(&set) == 1)
		setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
}

/* Tasks that a launcher started together, and MPI knows nothing of each other: each would do the whole work, and write where
 * the others write. One of them says so; the others stay a moment, because a launcher may end all when one has left. */
static int refuse_to_be_many(int tasks, struct lwm_err *e)
{
	const struct timespec moment = { 1, 0 };
	lwm_fail(e, LWM_EUNAVAIL,
		 "%d tasks were started together, but MPI sees each of them alone: start them with srun --mpi=pmix (srun "
		 "--mpi=list says what there is) or mpirun, or let each run by itself with LWM_ALONE=1", tasks);
	if (lwm_launch_rank() > 0) {
		e->who = LWM_ERR_HEARD;
		nanosleep(&moment, NULL);
	}
	return -LWM_EUNAVAIL;
}

static bool may_be_alone(int tasks)
{
	const char *s = getenv("LWM_ALONE");
	return tasks < 2 || (s && !strcmp(s, "1"));
}

int lwm_comm_mpi(struct lwm_comm **world, int *argc, char ***argv, struct lwm_err *e)
{
	int provided, tasks = lwm_launch_size();
	*world = NULL;
	if (!lwm_launch_by_mpi())
		return may_be_alone(tasks) ? lwm_comm_self(world, e) : refuse_to_be_many(tasks, e);
	yield_when_crowded();
	if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS)
		return lwm_fail(e, LWM_EUNAVAIL, "MPI could not be started");
	if (provided < MPI_THREAD_FUNNELED)
		return lwm_fail(e, LWM_EUNAVAIL, "this MPI library does not allow threads beside it");
	LWM_TRY(wrap_mpi(MPI_COMM_WORLD, 1, world, e));
	if ((*world)->size > 1 || may_be_alone(tasks))
		return 0;
	lwm_comm_free(*world);
	*world = NULL;
	return refuse_to_be_many(tasks, e);
}
