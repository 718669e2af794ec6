/* Threads as ranks: one process, shared memory. A message is a pointer that the receiver copies from, and in a collective all read
 * what each of them shows.
 *
 * A rank that returns with an error breaks its group and all that were split from it: everyone who waits then, or later, gets
 * LWM_ERANK instead of hanging; but not before the others have done reading what it shows, since its memory may go then.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/comm/comm_int.h"

struct message {
	const void *p;
	size_t bytes;
};

/* First in, first out from one rank to another. */
struct channel {
	struct message box[LWM_COMM_INFLIGHT];
	unsigned put, taken;
	bool reading; /* the receiver copies */
};

/* A group and all that were split from it. Its lock comes before theirs. */
struct family {
	pthread_mutex_t lock;
	struct group *first;
	int refs; /* groups, and lwm_comm_threads */
	bool broken;
};

struct group {
	int size, refs;
	struct family *family;
	struct group *next; /* of the family */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	int arrived;
	unsigned turn;
	int reading; /* ranks that read what others show */
	bool broken;
	const void **slot;       /* per rank: what it shows to the others during a collective */
	struct channel *channel; /* from * size + to */
};

struct pending {
	int to, from;
	void *recv;
	size_t send_bytes, recv_bytes;
	unsigned ticket;
};

struct rank_impl {
	struct group *g;
	struct pending queue[LWM_COMM_INFLIGHT];
	unsigned first, last;
};

static struct family *family_new(void)
{
	struct family *f = calloc(1, sizeof *f);
	if (!f)
		return NULL;
	pthread_mutex_init(&f->lock, NULL);
	f->refs = 1;
	return f;
}

static void family_release(struct family *f)
{
	pthread_mutex_lock(&f->lock);
	int left = f->refs -= 1;
	pthread_mutex_unlock(&f->lock);
	if (left)
		return;
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static void family_break(struct family *f)
{
	pthread_mutex_lock(&f->lock);
	f->broken = true;
	for (struct group *g = f->first; g; g = g->next) {
		pthread_mutex_lock(&g->lock);
		g->broken = true;
		pthread_cond_broadcast(&g->wake);
		pthread_mutex_unlock(&g->lock);
	}
	pthread_mutex_unlock(&f->lock);
}

static void join_family(struct group *g, struct family *f)
{
	pthread_mutex_lock(&f->lock);
	g->family = f;
	g->next = f->first;
	g->broken = f->broken;
	f->first = g;
	f->refs++;
	pthread_mutex_unlock(&f->lock);
}

static void leave_family(struct group *g)
{
	pthread_mutex_lock(&g->family->lock);
	struct group **at = &g->family->first;
	while (*at != g)
		at = &(*at)->next;
	*at = g->next;
	pthread_mutex_unlock(&g->family->lock);
	family_release(g->family);
}

static struct group *group_new(int size, struct family *f)
{
	struct group *g = calloc(1, sizeof *g);
	if (!g)
		return NULL;
	g->size = g->refs = size;
	g->slot = calloc((size_t)size, sizeof *g->slot);
	g->channel = calloc((size_t)size * (size_t)size, sizeof *g->channel);
	if (!g->slot || !g->channel) {
		free(g->slot);
		free(g->channel);
		free(g);
		return NULL;
	}
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->wake, NULL);
	join_family(g, f);
	return g;
}

static void group_release(struct group *g)
{
	pthread_mutex_lock(&g->lock);
	int left = --g->refs;
	pthread_mutex_unlock(&g->lock);
	if (left)
		return;
	leave_family(g);
	pthread_cond_destroy(&g->wake);
	pthread_mutex_destroy(&g->lock);
	free(g->slot);
	free(g->channel);
	free(g);
}

static struct group *group_of(struct lwm_comm *c)
{
	return ((struct rank_impl *)c->impl)->g;
}

static int fail_lost(struct lwm_err *e)
{
	return lwm_fail(e, LWM_ERANK, "another rank left the group with an error");
}

/* What a meeting of all ranks is for: nothing else; from here on they read what each shows; none of them does any longer. */
enum meeting { MEET, SHOWN, READ };

static int meet_ranks(struct lwm_comm *c, enum meeting what, struct lwm_err *e)
{
	struct group *g = group_of(c);
	pthread_mutex_lock(&g->lock);
	unsigned turn = g->turn;
	if (what == READ && --g->reading == 0)
		pthread_cond_broadcast(&g->wake);
	if (!g->broken && ++g->arrived == g->size) {
		g->arrived = 0;
		g->turn++;
		g->reading = what == SHOWN ? g->size : 0;
		pthread_cond_broadcast(&g->wake);
	}
	while (turn == g->turn && !g->broken)
		pthread_cond_wait(&g->wake, &g->lock);
	bool ok = turn != g->turn;
	while (!ok && what == READ && g->reading)
		pthread_cond_wait(&g->wake, &g->lock);
	pthread_mutex_unlock(&g->lock);
	return ok ? 0 : fail_lost(e);
}

static int thread_barrier(struct lwm_comm *c, struct lwm_err *e)
{
	return meet_ranks(c, MEET, e);
}

static int show_pointer(struct lwm_comm *c, const void *p, struct lwm_err *e)
{
	group_of(c)->slot[c->rank] = p;
	return meet_ranks(c, SHOWN, e);
}

static int thread_bcast(struct lwm_comm *c, void *p, size_t bytes, int root, struct lwm_err *e)
{
	LWM_TRY(show_pointer(c, p, e));
	if (c->rank != root)
		memcpy(p, group_of(c)->slot[root], bytes);
	return meet_ranks(c, READ, e);
}

static int thread_allgather(struct lwm_comm *c, const void *mine, size_t bytes, void *all, struct lwm_err *e)
{
	LWM_TRY(show_pointer(c, mine, e));
	for (int r = 0; r < c->size; r++)
		if (group_of(c)->slot[r] != (char *)all + (size_t)r * bytes)
			memcpy((char *)all + (size_t)r * bytes, group_of(c)->slot[r], bytes);
	return meet_ranks(c, READ, e);
}

static int thread_alltoall(struct lwm_comm *c, const void *send, size_t stride, void *recv, size_t bytes, struct lwm_err *e)
{
	LWM_TRY(show_pointer(c, send, e));
	for (int r = 0; r < c->size; r++)
		if (r != c->rank)
			memcpy((char *)recv + (size_t)r * bytes, (const char *)group_of(c)->slot[r] + (size_t)c->rank * stride,
			       bytes);
	return meet_ranks(c, READ, e);
}

static int thread_start(struct lwm_comm *c, int to, const void *send, size_t send_bytes, int from, void *recv,
			size_t recv_bytes, struct lwm_err *e)
{
	struct rank_impl *r = c->impl;
	struct pending *p = &r->queue[r->last % LWM_COMM_INFLIGHT];
	if (r->last - r->first == LWM_COMM_INFLIGHT)
		return lwm_fail(e, LWM_EINTERNAL, "more than %d exchanges in flight", LWM_COMM_INFLIGHT);
	*p = (struct pending){ to, from, recv, send_bytes, recv_bytes, 0 };
	r->last++;
	if (!send_bytes)
		return 0;
	struct channel *ch = &r->g->channel[c->rank * c->size + to];
	pthread_mutex_lock(&r->g->lock);
	p->ticket = ch->put;
	ch->box[ch->put++ % LWM_COMM_INFLIGHT] = (struct message){ send, send_bytes };
	pthread_cond_broadcast(&r->g->wake);
	pthread_mutex_unlock(&r->g->lock);
	return 0;
}

static int take_message(struct lwm_comm *c, const struct pending *p, struct lwm_err *e)
{
	struct group *g = group_of(c);
	struct channel *ch = &g->channel[p->from * c->size + c->rank];
	pthread_mutex_lock(&g->lock);
	while (ch->put == ch->taken && !g->broken)
		pthread_cond_wait(&g->wake, &g->lock);
	bool ok = !g->broken;
	ch->reading = ok;
	struct message m = ok ? ch->box[ch->taken % LWM_COMM_INFLIGHT] : (struct message){ NULL, 0 };
	pthread_mutex_unlock(&g->lock);
	if (!ok)
		return fail_lost(e);
	bool fits = m.bytes == p->recv_bytes;
	if (fits)
		memcpy(p->recv, m.p, m.bytes);
	pthread_mutex_lock(&g->lock);
	ch->reading = false;
	ch->taken += fits;
	pthread_cond_broadcast(&g->wake);
	pthread_mutex_unlock(&g->lock);
	return fits ? 0 : lwm_fail(e, LWM_EINTERNAL, "rank %d sent %zu bytes where rank %d expected %zu", p->from, m.bytes,
				   c->rank, p->recv_bytes);
}

static int thread_finish(struct lwm_comm *c, struct lwm_err *e)
{
	struct rank_impl *r = c->impl;
	if (r->first == r->last)
		return lwm_fail(e, LWM_EINTERNAL, "no exchange in flight");
	struct pending *p = &r->queue[r->first++ % LWM_COMM_INFLIGHT];
	if (p->recv_bytes)
		LWM_TRY(take_message(c, p, e));
	if (!p->send_bytes)
		return 0;
	struct channel *ch = &r->g->channel[c->rank * c->size + p->to];
	pthread_mutex_lock(&r->g->lock);
	while ((int)(ch->taken - p->ticket) <= 0 && (!r->g->broken || ch->reading))
		pthread_cond_wait(&r->g->wake, &r->g->lock);
	bool ok = (int)(ch->taken - p->ticket) > 0;
	pthread_mutex_unlock(&r->g->lock);
	return ok ? 0 : fail_lost(e);
}

static void thread_free(struct lwm_comm *c)
{
	group_release(group_of(c));
	free(c->impl);
	lwm_comm_free_handle(c);
}

static void thread_abort(struct lwm_comm *c, int status)
{
	(void)status;
	family_break(group_of(c)->family);
}

static int thread_split(struct lwm_comm *c, int color, int key, struct lwm_comm **out, struct lwm_err *e);

static const struct lwm_comm_ops ops = { .free = thread_free,
					 .abort = thread_abort,
					 .split = thread_split,
					 .barrier = thread_barrier,
					 .bcast = thread_bcast,
					 .now = { thread_allgather, thread_alltoall },
					 .beside = { thread_allgather, thread_alltoall },
					 .start = thread_start,
					 .finish = thread_finish };

static struct lwm_comm *new_member(struct group *g, int rank)
{
	struct rank_impl *r = calloc(1, sizeof *r);
	struct lwm_comm *c = r ? lwm_comm_new_handle(&ops, rank, g->size, r) : NULL;
	if (!c) {
		free(r);
		return NULL;
	}
	r->g = g;
	return c;
}

/* My rank among those of my color, how many they are, and the lowest of them. */
static void find_place(const int (*all)[2], int n, int me, int *rank, int *size, int *leader)
{
	*rank = *size = 0;
	*leader = -1;
	for (int i = 0; i < n; i++) {
		if (all[i][0] != all[me][0])
			continue;
		if (*leader < 0)
			*leader = i;
		++*size;
		if (all[i][1] < all[me][1] || (all[i][1] == all[me][1] && i < me))
			++*rank;
	}
}

static int thread_split(struct lwm_comm *c, int color, int key, struct lwm_comm **out, struct lwm_err *e)
{
	int mine[2] = { color, key }, rank = 0, size = 0, leader = 0, rc;
	int(*all)[2] = calloc((size_t)c->size, sizeof *all);
	struct group *g = NULL;
	if (!all)
		return lwm_fail(e, LWM_EMEMORY, "out of memory while splitting a communicator");
	LWM_GO(thread_allgather(c, mine, sizeof mine, all, e));
	find_place((const int(*)[2])all, c->size, c->rank, &rank, &size, &leader);
	if (leader == c->rank && color >= 0)
		g = group_new(size, group_of(c)->family);
	LWM_GO(show_pointer(c, g, e));
	if (color >= 0)
		g = (struct group *)(uintptr_t)group_of(c)->slot[leader];
	LWM_GO(meet_ranks(c, READ, e));
	if (color >= 0 && !(g && (*out = new_member(g, rank))))
		rc = lwm_fail(e, LWM_EMEMORY, "out of memory while splitting a communicator");
out:
	free(all);
	return rc;
}

struct start {
	struct lwm_comm *c;
	lwm_rank_fn *fn;
	void *arg;
	int rc;
	struct lwm_err e;
	pthread_t thread;
	bool running;
};

static void *rank_main(void *p)
{
	struct start *s = p;
	s->rc = s->fn(s->c, s->arg, &s->e);
	if (s->rc < 0)
		family_break(group_of(s->c)->family);
	return NULL;
}

/* The failure that caused the others: not one that was heard of, and not one of "another rank left". */
static int cause_of(const struct start *s)
{
	return s->rc >= 0 ? 0 : s->rc == -LWM_ERANK ? 1 : s->e.who == LWM_ERR_HEARD ? 2 : 3;
}

static int first_cause(const struct start *s, int n, struct lwm_err *e)
{
	const struct start *worst = NULL;
	for (int i = 0; i < n; i++)
		if (cause_of(&s[i]) > (worst ? cause_of(worst) : 0))
			worst = &s[i];
	if (!worst)
		return 0;
	return lwm_fail(e, -worst->rc, "rank %d: %s", (int)(worst - s), worst->e.msg);
}

int lwm_comm_threads(int n, lwm_rank_fn *fn, void *arg, struct lwm_err *e)
{
	struct family *family = family_new();
	struct group *g = family ? group_new(n, family) : NULL;
	struct start *s = calloc((size_t)n, sizeof *s);
	int made = 0, rc = 0;
	while (g && s && made < n && (s[made].c = new_member(g, made))) {
		s[made].fn = fn;
		s[made].arg = arg;
		made++;
	}
	if (made < n)
		rc = lwm_fail(e, LWM_EMEMORY, "out of memory for %d thread ranks", n);
	for (int i = 0; rc == 0 && i < n; i++) {
		s[i].running = pthread_create(&s[i].thread, NULL, rank_main, &s[i]) == 0;
		if (!s[i].running) {
			family_break(family);
			rc = lwm_fail(e, LWM_EMEMORY, "cannot start thread %d of %d", i, n);
		}
	}
	for (int i = 0; i < made; i++)
		if (s[i].running)
			pthread_join(s[i].thread, NULL);
	if (rc == 0)
		rc = first_cause(s, n, e);
	if (g)
		g->refs = made ? made : 1;
	for (int i = 0; i < made; i++)
		lwm_comm_free(s[i].c);
	if (g && !made)
		group_release(g);
	if (family)
		family_release(family);
	free(s);
	return rc;
}
