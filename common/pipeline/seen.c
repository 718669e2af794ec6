/* seen.c - the memory of hashes and checks (OUT/.lwm-run/LABEL.seen.json), and the look of files that says whether it still
 * holds. */
#include "common/pipeline/seen.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/hash.h"
#include "common/base/json.h"

#define SCHEMA "lwm-run-seen/1"
#define SECOND INT64_C(1000000000)

enum { FINE = 20 * 1000 * 1000, MEMO = 64, LOOK = 128 };

int64_t lwm_run_wall_time(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * SECOND + t.tv_nsec;
}

static void write_look(const struct stat *st, char out[LOOK])
{
	snprintf(out, LOOK, "%" PRId64 " %" PRId64 ".%09ld %" PRId64 ".%09ld %" PRIu64, (int64_t)st->st_size,
		 (int64_t)st->st_mtim.tv_sec, st->st_mtim.tv_nsec, (int64_t)st->st_ctim.tv_sec, st->st_ctim.tv_nsec,
		 (uint64_t)st->st_ino);
}

/* From when on a change of the file would give it another time. */
static int64_t settled_at(const struct stat *st, bool *coarse)
{
	*coarse = st->st_mtim.tv_nsec == 0 || st->st_ctim.tv_nsec == 0;
	int64_t m = st->st_mtim.tv_sec * SECOND + st->st_mtim.tv_nsec, c = st->st_ctim.tv_sec * SECOND + st->st_ctim.tv_nsec;
	return (m > c ? m : c) + (*coarse ? 2 * SECOND : FINE);
}

int lwm_run_seen_open(struct lwm_run_seen *s, const struct lwm_pipeline *p, const struct lwm_pipe_task *t, bool fresh,
		      struct lwm_err *e)
{
	const char *schema;
	memset(s, 0, sizeof *s);
	if (asprintf(&s->path, "%s/.lwm-run/%s.seen.json", p->out, t->label) < 0) {
		s->path = NULL;
		return lwm_fail_memory(e, NULL);
	}
	/* one that cannot be read is as good as none */
	if (!fresh && lwm_path_exists(s->path) && lwm_json_read(&s->o, s->path, 1 << 26, NULL) == 0) {
		schema = json_string_value(json_object_get(s->o, "schema"));
		if (!schema || strcmp(schema, SCHEMA)) {
			json_decref(s->o);
			s->o = NULL;
		}
	}
	if (!s->o)
		s->o = json_pack("{s:s, s:{}}", "schema", SCHEMA, "hashes");
	if (s->o)
		return 0;
	lwm_run_seen_close(s);
	return lwm_fail_memory(e, NULL);
}

void lwm_run_seen_close(struct lwm_run_seen *s)
{
	char *dir = s->path && s->dirty ? lwm_path_dir(s->path) : NULL;
	if (dir && lwm_path_is_dir(dir)) /* where it cannot be written, files are hashed again the next time */
		lwm_json_write(s->o, s->path, true, NULL);
	free(dir);
	json_decref(s->o);
	free(s->path);
	memset(s, 0, sizeof *s);
}

/* ---- inputs ---- */

/* Many tasks have an input in common: it is hashed once. */
static struct {
	pthread_mutex_t lock;
	struct {
		char key[33], look[LOOK], hex[33];
	} of[MEMO];
	int next;
} memo = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool recall_hash(const char *key, const char *look, char hex[33])
{
	bool found = false;
	pthread_mutex_lock(&memo.lock);
	for (int i = 0; i < MEMO && !found; i++)
		if (!strcmp(memo.of[i].key, key) && !strcmp(memo.of[i].look, look)) {
			memcpy(hex, memo.of[i].hex, 33);
			found = true;
		}
	pthread_mutex_unlock(&memo.lock);
	return found;
}

static void remember_hash(const char *key, const char *look, const char hex[33])
{
	pthread_mutex_lock(&memo.lock);
	int i = memo.next++ % MEMO;
	snprintf(memo.of[i].key, sizeof memo.of[i].key, "%s", key);
	snprintf(memo.of[i].look, LOOK, "%s", look);
	memcpy(memo.of[i].hex, hex, 33);
	pthread_mutex_unlock(&memo.lock);
}

int lwm_run_seen_hash(struct lwm_run_seen *s, const char *path, const struct stat *st, char hex[33], struct lwm_err *e)
{
	struct lwm_hash key = lwm_hash_bytes(path, strlen(path)), hash; /* names need not be UTF-8 */
	char look[LOOK], text[LOOK + 40];
	json_t *hashes = json_object_get(s->o, "hashes");
	const char *was = json_string_value(json_object_get(hashes, key.hex));
	int64_t began = lwm_run_wall_time();
	size_t n;
	bool coarse;

	write_look(st, look);
	n = strlen(look);
	if (was && !strncmp(was, look, n) && was[n] == ' ' && strlen(was) == n + 33) {
		memcpy(hex, was + n + 1, 33);
		return 0;
	}
	if (!recall_hash(key.hex, look, hex)) {
		LWM_TRY(lwm_hash_file(path, &hash, NULL, e));
		memcpy(hex, hash.hex, 33);
		if (settled_at(st, &coarse) > began)
			return 0;
		remember_hash(key.hex, look, hex);
	}
	snprintf(text, sizeof text, "%s %s", look, hex);
	if (json_is_object(hashes) && json_object_set_new(hashes, key.hex, json_string(text)) == 0)
		s->dirty = true;
	return 0;
}

/* ---- outputs ---- */

static bool add_file(struct lwm_hasher *h, const char *path, const struct stat *st, struct lwm_run_look *l)
{
	char look[LOOK];
	bool coarse;
	int64_t at = settled_at(st, &coarse);
	write_look(st, look);
	lwm_hasher_add(h, path, strlen(path) + 1);
	lwm_hasher_add(h, look, strlen(look) + 1);
	l->settled = at > l->settled ? at : l->settled;
	l->coarse = l->coarse || coarse;
	return true;
}

/* Of a folder everything in it; one that is empty, or called @..., is not remembered. */
static bool add_output(struct lwm_hasher *h, const char *path, struct lwm_run_look *l)
{
	struct lwm_paths files = { 0 };
	struct stat st;
	bool ok = stat(path, &st) == 0;
	if (ok && !S_ISDIR(st.st_mode))
		return add_file(h, path, &st, l);
	ok = ok && path[0] != '@' && lwm_paths_expand(&files, path, NULL, NULL) == 0;
	for (int64_t i = 0; ok && i < files.n; i++)
		ok = stat(files.v[i], &st) == 0 && add_file(h, files.v[i], &st, l);
	lwm_paths_release(&files);
	return ok;
}

void lwm_run_look_at(const struct lwm_pipe_task *t, int check, struct lwm_run_look *l)
{
	struct lwm_hasher *h = lwm_hasher_new();
	bool ok = h && t->outputs.n;
	struct lwm_hash hash;
	memset(l, 0, sizeof *l);
	if (!h)
		return;
	lwm_hasher_add(h, &check, sizeof check);
	for (int64_t i = 0; i < t->check.n; i++)
		lwm_hasher_add(h, t->check.v[i], strlen(t->check.v[i]) + 1);
	for (int64_t i = 0; ok && i < t->outputs.n; i++)
		ok = add_output(h, t->outputs.v[i], l);
	hash = lwm_hasher_end(h);
	if (ok)
		memcpy(l->hex, hash.hex, sizeof l->hex);
}

bool lwm_run_seen_whole(const struct lwm_run_seen *s, const struct lwm_run_look *l)
{
	const char *was = json_string_value(json_object_get(s->o, "verified"));
	return was && *l->hex && !strcmp(was, l->hex);
}

void lwm_run_seen_verified(struct lwm_run_seen *s, const struct lwm_run_look *l, int64_t began)
{
	if (*l->hex && l->settled <= began && json_object_set_new(s->o, "verified", json_string(l->hex)) == 0)
		s->dirty = true;
}
