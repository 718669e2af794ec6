/* feed.c - one decoding thread and a ring of a few batches between it and the user. */
#include "common/media/feed.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"

enum { SLOTS = 3 }; /* one in use, one ready, one being filled */

struct slot {
	struct lwm_feed_batch b;
	uint8_t *rgb;
	int64_t room; /* bytes */
};

struct lwm_feed {
	char *const *path;
	int64_t n, per;
	struct lwm_frames_opts opts;
	struct slot slot[SLOTS];
	int64_t filled, taken; /* batches so far; slot = number % SLOTS */
	bool done, stop, holding;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock;
	pthread_cond_t changed;
};

/* The next slot to fill, NULL when the user has gone. */
static struct slot *free_slot(struct lwm_feed *f)
{
	pthread_mutex_lock(&f->lock);
	while (!f->stop && f->filled - f->taken == SLOTS)
		pthread_cond_wait(&f->changed, &f->lock);
	struct slot *s = f->stop ? NULL : &f->slot[f->filled % SLOTS];
	pthread_mutex_unlock(&f->lock);
	return s;
}

static void publish_slot(struct lwm_feed *f, bool done)
{
	pthread_mutex_lock(&f->lock);
	if (done)
		f->done = true;
	else
		f->filled++;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
}

static int make_room(struct slot *s, int64_t frames, int width, int height, struct lwm_err *e)
{
	int64_t bytes;
	if (lwm_mul3(frames * 3, width, height, &bytes))
		return lwm_fail(e, LWM_EMEMORY, "a batch of %" PRId64 " frames of %d x %d is too large", frames, width,
				height);
	if (bytes <= s->room)
		return 0;
	uint8_t *p = realloc(s->rgb, (size_t)bytes);
	if (!p)
		return lwm_fail(e, LWM_EMEMORY, "no memory for %" PRId64 " frames of %d x %d", frames, width, height);
	s->rgb = p;
	s->room = bytes;
	return 0;
}

/* Fills a batch from an open clip. */
static int fill_batch(struct lwm_feed *f, struct lwm_frames *c, struct slot *s, struct lwm_err *e)
{
	struct lwm_frames_info info = lwm_frames_info_of(c);
	size_t one = (size_t)info.width * (size_t)info.height * 3;
	LWM_TRY(make_room(s, f->per, info.width, info.height, e));
	s->b.width = info.width;
	s->b.height = info.height;
	s->b.rgb = s->rgb;
	while (s->b.n < f->per) {
		int rc = lwm_frames_next(c, s->rgb + (size_t)s->b.n * one, NULL, e);
		if (rc < 0)
			return rc;
		s->b.last = rc == 0;
		if (rc == 0) {
			snprintf(s->b.damage, sizeof s->b.damage, "%s", lwm_frames_damage(c));
			return 0;
		}
		s->b.n++;
	}
	return 0;
}

/* All batches of a clip; false: the user has gone. */
static bool one_clip(struct lwm_feed *f, int64_t i)
{
	struct lwm_frames *c = NULL;
	struct lwm_err e = { 0 };
	int64_t given = 0;
	int rc = lwm_frames_open(&c, f->path[i], &f->opts, &e);
	bool last = false;
	while (!last) {
		struct slot *s = free_slot(f);
		if (!s)
			break;
		memset(&s->b, 0, sizeof s->b);
		s->b.clip = i;
		s->b.first = given;
		if (rc == 0)
			rc = fill_batch(f, c, s, &e);
		if (rc < 0) {
			s->b.rc = rc;
			s->b.err = e;
			s->b.n = 0;
			s->b.last = true;
		}
		given += s->b.n;
		last = s->b.last;
		publish_slot(f, false);
	}
	lwm_frames_close(c);
	return last;
}

static void *read_clips(void *arg)
{
	struct lwm_feed *f = arg;
	for (int64_t i = 0; i < f->n; i++)
		if (!one_clip(f, i))
			break;
	publish_slot(f, true);
	return NULL;
}

int lwm_feed_open(struct lwm_feed **out, char *const *paths, int64_t n, const struct lwm_frames_opts *opts,
		  int64_t frames_per_batch, struct lwm_err *e)
{
	struct lwm_feed *f = calloc(1, sizeof *f);
	*out = NULL;
	if (!f)
		return lwm_fail(e, LWM_EMEMORY, "out of memory");
	f->path = paths;
	f->n = n;
	f->opts = *opts;
	f->per = frames_per_batch > 0 && frames_per_batch < 1 << 20 ? frames_per_batch : 1;
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->changed, NULL);
	int err = pthread_create(&f->thread, NULL, read_clips, f);
	f->started = err == 0;
	if (err) {
		lwm_feed_close(f);
		return lwm_fail_errno(e, LWM_EMEMORY, err, "no thread for decoding");
	}
	*out = f;
	return 0;
}

int lwm_feed_next(struct lwm_feed *f, struct lwm_feed_batch *b, struct lwm_err *e)
{
	pthread_mutex_lock(&f->lock);
	if (f->holding) { // the batch handed out last is free now
		f->taken++;
		f->holding = false;
		pthread_cond_broadcast(&f->changed);
	}
	while (!f->done && f->filled == f->taken)
		pthread_cond_wait(&f->changed, &f->lock);
	f->holding = f->filled > f->taken;
	if (f->holding)
		*b = f->slot[f->taken % SLOTS].b;
	pthread_mutex_unlock(&f->lock);
	if (f->holding && b->rc == -LWM_EMEMORY) {
		if (e && !e->code)
			*e = b->err;
		return b->rc;
	}
	return f->holding;
}

void lwm_feed_close(struct lwm_feed *f)
{
	if (!f)
		return;
	if (f->started) {
		pthread_mutex_lock(&f->lock);
		f->stop = true;
		pthread_cond_broadcast(&f->changed);
		pthread_mutex_unlock(&f->lock);
		pthread_join(f->thread, NULL);
	}
	pthread_cond_destroy(&f->changed);
	pthread_mutex_destroy(&f->lock);
	for (int i = 0; i < SLOTS; i++)
		free(f->slot[i].rgb);
	free(f);
}
