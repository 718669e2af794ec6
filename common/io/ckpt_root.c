/* The folders of a root: which checkpoint is the newest, which ones are kept, what is set aside, what is swept. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/path.h"
#include "common/base/str.h"
#include "common/io/ckpt_int.h"

struct steps {
	int64_t *v; /* descending */
	int64_t n;
};

static int by_step(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return x < y ? 1 : x > y ? -1 : 0;
}

static int add_step(struct steps *s, int64_t step, const char *root, struct lwm_err *e)
{
	int64_t *v = realloc(s->v, (size_t)(s->n + 1) * sizeof *v);
	if (!v)
		return lwm_fail_memory(e, root);
	s->v = v;
	s->v[s->n++] = step;
	return 0;
}

static int list_steps(const char *root, struct steps *s, struct lwm_err *e)
{
	struct dirent *d;
	int64_t step;
	int rc = 0;
	memset(s, 0, sizeof *s);
	DIR *dir = opendir(root);
	if (!dir && errno == ENOENT)
		return 0;
	if (!dir)
		return lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot list the folder", root);
	errno = 0;
	while (rc == 0 && (d = readdir(dir)))
		if (lwm_ckpt_step_of(d->d_name, &step))
			rc = add_step(s, step, root, e);
	if (rc == 0 && errno)
		rc = lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot list the folder", root);
	closedir(dir);
	if (s->n)
		qsort(s->v, (size_t)s->n, sizeof *s->v, by_step);
	return rc;
}

/* ---- the newest one ---- */

struct search {
	const char *root;
	lwm_ckpt_look_fn *look;
	lwm_ckpt_bad_fn *bad;
	void *ctx;
	int64_t damaged;     /* folders that are finished and not whole */
	struct lwm_str list; /* them, each with what is wrong */
};

/* One folder: 1 whole, 0 passed over, negative: it cannot be told. What went away meanwhile was retired by its owner. */
static int look_at(struct search *s, const char *dir, struct lwm_err *e)
{
	struct lwm_err why = { 0 };
	bool unfinished = lwm_ckpt_unfinished(dir);
	int rc = s->look(s->ctx, dir, &why);

	if (rc == 0)
		return 1;
	if (!lwm_path_exists(dir))
		return 0;
	if (rc != -LWM_EDATA) {
		if (e)
			*e = why;
		return rc;
	}
	if (s->bad)
		s->bad(s->ctx, dir, &why);
	if (unfinished)
		return 0;
	lwm_str_printf(&s->list, "%s%s", s->damaged++ ? "; " : "", why.msg);
	return 0;
}

static int nothing_whole(struct search *s, struct lwm_err *e)
{
	LWM_TRY(lwm_str_ok(&s->list, e));
	return lwm_fail(e, LWM_EDATA, "%s: none of its checkpoints is whole: %s", s->root, lwm_str_get(&s->list));
}

int lwm_ckpt_search(char **dir, const char *root, bool older_ok, lwm_ckpt_look_fn *look, lwm_ckpt_bad_fn *bad, void *ctx,
		    struct lwm_err *e)
{
	struct search s = { .root = root, .look = look, .bad = bad, .ctx = ctx };
	struct steps all;
	int rc = list_steps(root, &all, e);
	*dir = NULL;
	for (int64_t i = 0; rc == 0 && i < all.n; i++) {
		char *path = lwm_ckpt_dir(root, all.v[i]);
		rc = path ? look_at(&s, path, e) : lwm_fail_memory(e, root);
		if (rc == 1)
			*dir = path;
		else
			free(path);
	}
	if (rc == 0 && s.damaged)
		rc = nothing_whole(&s, e);
	if (rc == 1 && s.damaged && !older_ok) {
		rc = lwm_fail(e, LWM_EDATA, "%s; the newest whole checkpoint is %s: name that folder, or say --older-ok",
			      lwm_str_get(&s.list), *dir);
		free(*dir);
		*dir = NULL;
	}
	lwm_str_release(&s.list);
	free(all.v);
	return rc < 0 ? rc : 0;
}

struct plain { /* a search by lwm_ckpt_verify */
	enum lwm_ckpt_check how;
	lwm_ckpt_bad_fn *bad;
	void *ctx;
};

static int look_alone(void *ctx, const char *dir, struct lwm_err *e)
{
	const struct plain *p = ctx;
	return lwm_ckpt_verify(dir, p->how, e);
}

static void bad_alone(void *ctx, const char *dir, const struct lwm_err *why)
{
	const struct plain *p = ctx;
	if (p->bad)
		p->bad(p->ctx, dir, why);
}

int lwm_ckpt_latest(char **dir, const char *root, bool older_ok, enum lwm_ckpt_check how, lwm_ckpt_bad_fn *bad, void *ctx,
		    struct lwm_err *e)
{
	struct plain p = { how, bad, ctx };
	return lwm_ckpt_search(dir, root, older_ok, look_alone, bad_alone, &p, e);
}

/* ---- setting aside ---- */

int lwm_ckpt_set_aside(const char *root, const char *path, struct lwm_err *e)
{
	enum { NAMES = 10000 };
	char *box = lwm_path_join(root, "damaged"), *to = NULL;
	int rc = box ? lwm_mkdirs(box, e) : lwm_fail_memory(e, path);

	for (int n = 0; rc == 0 && (!to || lwm_path_exists(to)) && n < NAMES; n++) {
		free(to);
		if (asprintf(&to, n ? "%s/%s.%d" : "%s/%s", box, lwm_path_base(path), n) < 0) {
			to = NULL;
			rc = lwm_fail_memory(e, path);
		}
	}
	if (rc == 0 && lwm_path_exists(to)) /* nothing that was set aside is written over */
		rc = lwm_fail(e, LWM_ECANTCREATE, "%s: is there, as are all names before it; %s is not moved", to, path);
	if (rc == 0 && rename(path, to))
		rc = lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot be moved to %s", path, to);
	if (rc == 0)
		lwm_log(LWM_WARN, "%s: moved to %s", path, to);
	free(to);
	free(box);
	return rc;
}

int lwm_ckpt_set_aside_newer(const char *root, int64_t step, struct lwm_err *e)
{
	struct steps s;
	int rc = list_steps(root, &s, e);
	for (int64_t i = 0; rc == 0 && i < s.n && s.v[i] > step; i++) {
		char *path = lwm_ckpt_dir(root, s.v[i]);
		if (!path)
			rc = lwm_fail_memory(e, root);
		else if (!lwm_ckpt_unfinished(path))
			rc = lwm_ckpt_set_aside(root, path, e);
		free(path);
	}
	free(s.v);
	return rc;
}

/* ---- keeping ---- */

enum { REMEMBERED = 64 };

struct lwm_ckpt_keeper {
	char *root;
	int64_t keep_last, keep_every;
	bool defer;
	lwm_ckpt_look_fn *look; /* NULL: by lwm_ckpt_verify */
	void *ctx;
	struct seen {
		int64_t step;
		struct lwm_hash print;
	} seen[REMEMBERED]; /* checkpoints seen whole, with what their files looked like then */
	int64_t nseen;
};

int lwm_ckpt_keeper_new(struct lwm_ckpt_keeper **out, const char *root, int64_t keep_last, int64_t keep_every,
			struct lwm_err *e)
{
	struct lwm_ckpt_keeper *k = calloc(1, sizeof *k);

	*out = NULL;
	if (!k || !(k->root = strdup(root))) {
		free(k);
		return lwm_fail_memory(e, root);
	}
	k->keep_last = keep_last < 1 ? 1 : keep_last;
	k->keep_every = keep_every;
	*out = k;
	return 0;
}

void lwm_ckpt_keeper_free(struct lwm_ckpt_keeper *k)
{
	if (!k)
		return;
	free(k->root);
	free(k);
}

void lwm_ckpt_keeper_look(struct lwm_ckpt_keeper *k, lwm_ckpt_look_fn *look, void *ctx)
{
	k->look = look;
	k->ctx = ctx;
}

void lwm_ckpt_keeper_defer(struct lwm_ckpt_keeper *k, bool defer)
{
	k->defer = defer;
}

/* Names, sizes, times and inodes of a folder's files: what changes when somebody touches them. */
static int look_of(const char *dir, struct lwm_hash *out, struct lwm_err *e)
{
	struct lwm_paths files = { 0 };
	struct lwm_str text = { 0 };
	struct stat st;
	int rc = lwm_paths_expand(&files, dir, NULL, e);

	for (int64_t i = 0; rc == 0 && i < files.n; i++) {
		if (stat(files.v[i], &st)) {
			rc = lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot be looked at", files.v[i]);
			break;
		}
		lwm_str_printf(&text, "%s %" PRId64 " %" PRId64 ".%ld %" PRId64 ".%ld %" PRIu64 "\n", files.v[i],
			       (int64_t)st.st_size, (int64_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (int64_t)st.st_ctim.tv_sec,
			       st.st_ctim.tv_nsec, (uint64_t)st.st_ino);
	}
	if (rc == 0)
		rc = lwm_str_ok(&text, e);
	if (rc == 0)
		*out = lwm_hash_bytes(lwm_str_get(&text), text.len);
	lwm_str_release(&text);
	lwm_paths_release(&files);
	return rc;
}

static struct seen *find_seen(struct lwm_ckpt_keeper *k, int64_t step)
{
	for (int64_t i = 0; i < k->nseen && i < REMEMBERED; i++)
		if (k->seen[i].step == step)
			return &k->seen[i];
	return NULL;
}

int lwm_ckpt_keeper_seen(struct lwm_ckpt_keeper *k, int64_t step, struct lwm_err *e)
{
	struct seen *s = find_seen(k, step);
	struct lwm_hash print;
	char *dir = lwm_ckpt_dir(k->root, step);
	int rc = dir ? look_of(dir, &print, e) : lwm_fail_memory(e, k->root);

	free(dir);
	LWM_TRY(rc);
	if (!s)
		s = &k->seen[k->nseen++ % REMEMBERED];
	*s = (struct seen){ step, print };
	return 0;
}

/* Is it whole? Seen so before and not touched since, or hashed now. */
static int still_whole(struct lwm_ckpt_keeper *k, int64_t step, const char *dir, struct lwm_err *e)
{
	struct seen *s = find_seen(k, step);
	struct lwm_hash print;

	if (s && look_of(dir, &print, NULL) == 0 && !strcmp(print.hex, s->print.hex))
		return 0;
	LWM_TRY(k->look ? k->look(k->ctx, dir, e) : lwm_ckpt_verify(dir, LWM_CKPT_FULL, e));
	return lwm_ckpt_keeper_seen(k, step, e);
}

/* Out of sight in one step, then removed; a rest that a kill left is removed by the next call. */
static int drop_folder(const struct lwm_ckpt_keeper *k, const char *from, struct lwm_err *e)
{
	char name[80], *to;
	int rc = 0;
	snprintf(name, sizeof name, ".trash-%.60s", lwm_path_base(from));
	to = lwm_path_join(k->root, name);
	if (!to)
		return lwm_fail_memory(e, k->root);
	rc = lwm_remove_tree(to, e);
	if (rc == 0 && rename(from, to))
		rc = lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot be moved away", from);
	if (rc == 0 && !k->defer)
		rc = lwm_remove_tree(to, e);
	free(to);
	return rc;
}

int lwm_ckpt_sweep(const char *root, struct lwm_err *e)
{
	struct dirent *d;
	int rc = 0;
	DIR *dir = opendir(root);
	if (!dir)
		return errno == ENOENT ? 0 : lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot list the folder", root);
	while (rc == 0 && (d = readdir(dir))) {
		if (strncmp(d->d_name, ".trash-step_", 12))
			continue;
		char *path = lwm_path_join(root, d->d_name);
		rc = path ? lwm_remove_tree(path, e) : lwm_fail_memory(e, root);
		free(path);
	}
	closedir(dir);
	return rc;
}

/* One folder older than the newest. *kept counts those that are whole. */
static int judge_folder(struct lwm_ckpt_keeper *k, int64_t step, const char *dir, int64_t *kept, struct lwm_err *e)
{
	struct lwm_err why = { 0 };
	int rc;

	if (lwm_ckpt_unfinished(dir))
		return drop_folder(k, dir, e);
	if (*kept >= k->keep_last)
		return k->keep_every > 0 && step % k->keep_every == 0 ? 0 : drop_folder(k, dir, e);
	rc = still_whole(k, step, dir, &why);
	if (rc == 0) {
		++*kept;
		return 0;
	}
	if (rc != -LWM_EDATA) {
		lwm_log(LWM_WARN, "%s (left as it is, and not counted as kept)", why.msg);
		return 0;
	}
	lwm_log(LWM_WARN, "%s (removed: a newer checkpoint is whole)", why.msg);
	return drop_folder(k, dir, e);
}

int lwm_ckpt_keeper_saved(struct lwm_ckpt_keeper *k, int64_t step, struct lwm_err *e)
{
	struct steps s;
	int64_t kept = 1; /* the one that was just committed, read back from the disk by its writers: it is never dropped */
	int rc = lwm_ckpt_keeper_seen(k, step, e);
	if (rc == 0)
		rc = list_steps(k->root, &s, e);
	else
		return rc;
	for (int64_t i = 0; rc == 0 && i < s.n; i++) {
		char *dir = lwm_ckpt_dir(k->root, s.v[i]);
		if (!dir)
			rc = lwm_fail_memory(e, k->root);
		else if (s.v[i] < step)
			rc = judge_folder(k, s.v[i], dir, &kept, e);
		else if (s.v[i] > step && lwm_ckpt_unfinished(dir)) /* a save that was killed, of a run that went further */
			rc = drop_folder(k, dir, e);
		free(dir);
	}
	free(s.v);
	return rc == 0 && !k->defer ? lwm_ckpt_sweep(k->root, e) : rc;
}
