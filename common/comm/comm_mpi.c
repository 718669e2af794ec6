/* Ranks are MPI processes. The only file that includes mpi.h. MPI-3.1 calls; counts are int, so a call moves at most 1 GiB. MPI is
 * told to return errors, which become -LWM_ERANK with its text.
 *
 * MPI moves nothing while nobody calls it. So the communicator's thread (comm_queue.c) carries out what was begun with sends and
 * receives that it asks about again and again, asleep in between, and asks about exchanges too. Its messages have a tag of their
 * own; a request is asked about by one thread at a time. */
#include <mpi.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/launch.h"
#include "common/comm/comm_int.h"

/* Bytes. FEW: the library's own all-to-all is faster. */
enum { FEW = 1 << 16, MOST = 1 << 30, SMALL_PIECE = 4 << 20, PIECES = 128 };
enum { TAG_EXCHANGE = 77, TAG_BESIDE };

/* Requests under way together. A block is sent in up to PIECES pieces, and as much is received at once. */
struct transfer {
	MPI_Request req[2 * PIECES];
	int n, rc; /* rc: of MPI, the first failure */
};

struct mpi_impl {
	MPI_Comm comm;
	int world;            /* owns MPI itself */
	pthread_mutex_t lock; /* of what follows: two threads look at exchanges */
	struct transfer queue[LWM_COMM_INFLIGHT];
	unsigned first, last;
	struct transfer beside;
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
	for (size_t at = 0; at < bytes; at += MOST) {
		size_t n = bytes - at < MOST ? bytes - at : MOST;
		LWM_TRY(check_mpi(MPI_Bcast((char *)p + at, (int)n, MPI_BYTE, root, mpi_of(c)), "broadcast", e));
	}
	return 0;
}

/* Large blocks go rank by rank, so that no count overflows. */
static int mpi_allgather(struct lwm_comm *c, const void *mine, size_t bytes, void *all, struct lwm_err *e)
{
	char *place = (char *)all + (size_t)c->rank * bytes;
	if (bytes * (size_t)c->size <= MOST)
		return check_mpi(MPI_Allgather(mine == place ? MPI_IN_PLACE : mine, (int)bytes, MPI_BYTE, all, (int)bytes,
					       MPI_BYTE, mpi_of(c)), "all-gather", e);
	memmove(place, mine, bytes);
	for (int r = 0; r < c->size; r++)
		LWM_TRY(mpi_bcast(c, (char *)all + (size_t)r * bytes, bytes, r, e));
	return 0;
}

/* ---- blocks ---- */

/* Both sides find the same size for the same bytes. */
static size_t piece_size(size_t bytes)
{
	size_t even = (bytes + PIECES - 1) / PIECES;
	return even > SMALL_PIECE ? even : SMALL_PIECE;
}

static void post_block(struct transfer *t, MPI_Comm comm, int peer, int tag, void *in, const void *out, size_t bytes)
{
	size_t most = piece_size(bytes);
	for (size_t at = 0; at < bytes && t->rc == MPI_SUCCESS; at += most) {
		int n = (int)(bytes - at < most ? bytes - at : most);
		t->rc = in ? MPI_Irecv((char *)in + at, n, MPI_BYTE, peer, tag, comm, &t->req[t->n]) :
			     MPI_Isend((const char *)out + at, n, MPI_BYTE, peer, tag, comm, &t->req[t->n]);
		t->n += t->rc == MPI_SUCCESS;
	}
}

/* What one rank sends and receives at once. Afterwards t->rc is looked at. */
static void post_pair(struct transfer *t, MPI_Comm comm, int tag, int to, const void *send, size_t send_bytes, int from, void *recv,
		      size_t recv_bytes)
{
	t->n = 0;
	t->rc = MPI_SUCCESS;
	post_block(t, comm, from, tag, recv, NULL, recv_bytes);
	post_block(t, comm, to, tag, NULL, send, send_bytes);
}

/* Asks once. True: there is something to wait for still. *moved: some piece is done since the last time. */
static bool ask_transfer(struct transfer *t, bool *moved)
{
	int done, which[2 * PIECES];
	if (t->rc != MPI_SUCCESS)
		return false;
	t->rc = MPI_Testsome(t->n, t->req, &done, which, MPI_STATUSES_IGNORE);
	if (t->rc != MPI_SUCCESS || done == MPI_UNDEFINED)
		return false;
	*moved = *moved || done > 0;
	return true;
}

/* ---- exchanges ---- */

static bool mpi_advance(struct lwm_comm *c, bool *moved)
{
	struct mpi_impl *m = c->impl;
	bool more = false;
	pthread_mutex_lock(&m->lock);
	for (unsigned i = m->first; i != m->last; i++)
		more = ask_transfer(&m->queue[i % LWM_COMM_INFLIGHT], moved) || more;
	pthread_mutex_unlock(&m->lock);
	return more;
}

static int mpi_start(struct lwm_comm *c, int to, const void *send, size_t send_bytes, int from, void *recv,
		     size_t recv_bytes, struct lwm_err *e)
{
	struct mpi_impl *m = c->impl;
	struct transfer *t = &m->queue[m->last % LWM_COMM_INFLIGHT];
	size_t most = (size_t)MOST * PIECES;
	if (m->last - m->first == LWM_COMM_INFLIGHT || send_bytes > most || recv_bytes > most)
		return lwm_fail(e, LWM_EINTERNAL, "an exchange of %zu and %zu bytes does not fit the queue", send_bytes,
				recv_bytes);
	post_pair(t, m->comm, TAG_EXCHANGE, to, send, send_bytes, from, recv, recv_bytes);
	pthread_mutex_lock(&m->lock);
	m->last++;
	pthread_mutex_unlock(&m->lock);
	return check_mpi(t->rc, "exchange", e);
}

/* Taken from the queue first: the communicator's thread does not ask about it any more, and is not kept from others. */
static int mpi_finish(struct lwm_comm *c, struct lwm_err *e)
{
	struct mpi_impl *m = c->impl;
	if (m->first == m->last)
		return lwm_fail(e, LWM_EINTERNAL, "no exchange in flight");
	pthread_mutex_lock(&m->lock);
	struct transfer *t = &m->queue[m->first++ % LWM_COMM_INFLIGHT];
	pthread_mutex_unlock(&m->lock);
	LWM_TRY(check_mpi(t->rc, "exchange", e));
	return check_mpi(MPI_Waitall(t->n, t->req, MPI_STATUSES_IGNORE), "wait", e);
}

/* ---- all-to-all, now and beside computation ---- */

static int finish_now(struct lwm_comm *c, struct transfer *t, struct lwm_err *e)
{
	(void)c;
	LWM_TRY(check_mpi(t->rc, "exchange", e));
	return check_mpi(MPI_Waitall(t->n, t->req, MPI_STATUSES_IGNORE), "wait", e);
}

/* Asleep between two questions, and exchanges are asked about too. */
static int finish_beside(struct lwm_comm *c, struct transfer *t, struct lwm_err *e)
{
	double since = lwm_now();
	for (;;) {
		bool moved = false;
		if (!ask_transfer(t, &moved))
			return check_mpi(t->rc, "exchange", e);
		mpi_advance(c, &moved);
		if (moved)
			since = lwm_now();
		lwm_comm_pause(c, since);
	}
}

typedef int finish_fn(struct lwm_comm *c, struct transfer *t, struct lwm_err *e);

/* Round k: to the rank k after this one, from the rank k before it. Block j of send begins at j * send_stride, of recv at
 * j * bytes. */
static int go_round(struct lwm_comm *c, const char *send, size_t send_stride, char *recv, size_t bytes, finish_fn *finish,
		    struct lwm_err *e)
{
	struct mpi_impl *m = c->impl;
	for (int k = 1; k < c->size; k++) {
		int to = (c->rank + k) % c->size, from = (c->rank + c->size - k) % c->size;
		post_pair(&m->beside, m->comm, TAG_BESIDE, to, send + (size_t)to * send_stride, bytes, from,
			  recv + (size_t)from * bytes, bytes);
		LWM_TRY(finish(c, &m->beside, e));
	}
	return 0;
}

static int mpi_alltoall(struct lwm_comm *c, const void *send, size_t stride, void *recv, size_t bytes, struct lwm_err *e)
{
	if (stride != bytes || bytes > FEW)
		return go_round(c, send, stride, recv, bytes, finish_now, e);
	return check_mpi(MPI_Alltoall(send, (int)bytes, MPI_BYTE, recv, (int)bytes, MPI_BYTE, mpi_of(c)), "all-to-all", e);
}

static int beside_alltoall(struct lwm_comm *c, const void *send, size_t stride, void *recv, size_t bytes, struct lwm_err *e)
{
	return go_round(c, send, stride, recv, bytes, finish_beside, e);
}

static int beside_allgather(struct lwm_comm *c, const void *mine, size_t bytes, void *all, struct lwm_err *e)
{
	char *place = (char *)all + (size_t)c->rank * bytes;
	if (mine != place)
		memmove(place, mine, bytes);
	return go_round(c, place, 0, all, bytes, finish_beside, e);
}

/* ---- groups ---- */

static void mpi_free(struct lwm_comm *c)
{
	struct mpi_impl *m = c->impl;
	int world = m->world;
	if (!world)
		MPI_Comm_free(&m->comm);
	pthread_mutex_destroy(&m->lock);
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
					 .now = { mpi_allgather, mpi_alltoall },
					 .beside = { beside_allgather, beside_alltoall },
					 .start = mpi_start,
					 .finish = mpi_finish,
					 .advance = mpi_advance };

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
	pthread_mutex_init(&m->lock, NULL);
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
	if (MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &provided) != MPI_SUCCESS)
		return lwm_fail(e, LWM_EUNAVAIL, "MPI could not be started");
	if (provided < MPI_THREAD_MULTIPLE)
		return lwm_fail(e, LWM_EUNAVAIL, "this MPI library lets one thread alone call it (no MPI_THREAD_MULTIPLE), "
				"and communication beside computation needs several");
	LWM_TRY(wrap_mpi(MPI_COMM_WORLD, 1, world, e));
	if ((*world)->size > 1 || may_be_alone(tasks))
		return 0;
	lwm_comm_free(*world);
	*world = NULL;
	return refuse_to_be_many(tasks, e);
}
