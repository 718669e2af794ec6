/* Clips by name: a table of the last parts of their paths, open addressing, and the shards that hold their codes. */
#include "common/data/ingest/shelf.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/arena.h"
#include "common/data/ingest/clipdoc.h"
#include "common/io/docshard.h"
#include "common/media/frames.h"

struct clip {
	const char *path; /* without the suffix of a medium; borrowed from mem */
	int32_t shard;
	int64_t doc;
};

struct lwm_shelf {
	struct lwm_arena *mem;
	struct lwm_docs **shard;
	struct clip *clip;
	int64_t nshards, nclips, cap;
	int64_t *slot; /* [slots] index of a clip + 1, 0: empty; by the hash of the last part of its path */
	int64_t slots; /* a power of two */
	int64_t vocab_text, vision_codes, frame_codes;
	struct lwm_hash hash;
	pthread_mutex_t lock;
};

/* Bytes of a path without the suffix of a medium, and without slashes at the end. */
static size_t stem_of(const char *path)
{
	size_t n = strlen(path);
	while (n > 1 && path[n - 1] == '/')
		n--;
	for (const char *const *s = lwm_media_suffixes; *s; s++) {
		size_t k = strlen(*s);
		if (n > k && !strncasecmp(path + n - k, *s, k))
			return n - k;
	}
	return n;
}

static const char *last_part(const char *path, size_t n)
{
	const char *p = path + n;
	while (p > path && p[-1] != '/')
		p--;
	return p;
}

static int64_t slot_of(const struct lwm_shelf *s, const char *path, size_t n)
{
	const char *part = last_part(path, n);
	return (int64_t)(lwm_hash64(part, (size_t)(path + n - part), 0) & (uint64_t)(s->slots - 1));
}

static int no_memory(struct lwm_err *e)
{
	return lwm_fail(e, LWM_EMEMORY, "out of memory for the names of clips");
}

static int add_clip(struct lwm_shelf *s, const char *path, int32_t shard, int64_t doc, struct lwm_err *e)
{
	if (s->nclips == s->cap) {
		int64_t cap = s->cap ? 2 * s->cap : 1024;
		struct clip *v = realloc(s->clip, (size_t)cap * sizeof *v);
		if (!v)
			return no_memory(e);
		s->clip = v;
		s->cap = cap;
	}
	char *own = lwm_arena_printf(&s->mem, "%.*s", (int)stem_of(path), path);
	if (!own)
		return no_memory(e);
	s->clip[s->nclips++] = (struct clip){ own, shard, doc };
	return 0;
}

/* The clips of one shard, which must have been made for the same ids. */
static int add_shard(struct lwm_shelf *s, const char *path, const struct lwm_tokenizer *t, struct lwm_hasher *h, struct lwm_err *e)
{
	int32_t k = (int32_t)s->nshards;
	struct lwm_doc doc;
	LWM_TRY(lwm_docs_open(&s->shard[k], path, e));
	s->nshards++;
	const struct lwm_docs_meta *m = lwm_docs_get_meta(s->shard[k]);
	if (strcmp(m->tokenizer, lwm_tokenizer_hash(t)->hex) || m->vocab_vision != s->vision_codes + 2)
		return lwm_fail(e, LWM_ECONFIG, "%s: codes of another tokenizer or another codebook (%" PRId64 " codes, wanted %" PRId64
				")", path, m->vocab_vision - 2, s->vision_codes);
	for (int64_t i = 0; i < lwm_docs_count(s->shard[k]); i++) {
		LWM_TRY(lwm_docs_get(s->shard[k], i, &doc, e));
		LWM_TRY(add_clip(s, doc.source && *doc.source ? doc.source : doc.id, k, i, e));
	}
	lwm_hasher_add(h, lwm_docs_manifest(s->shard[k])->hash, 32);
	return 0;
}

static int index_clips(struct lwm_shelf *s, struct lwm_err *e)
{
	for (s->slots = 16; s->slots < 2 * s->nclips;)
		s->slots *= 2;
	s->slot = calloc((size_t)s->slots, sizeof *s->slot);
	if (!s->slot)
		return no_memory(e);
	for (int64_t i = 0; i < s->nclips; i++) {
		int64_t k = slot_of(s, s->clip[i].path, strlen(s->clip[i].path));
		while (s->slot[k])
			k = (k + 1) & (s->slots - 1);
		s->slot[k] = i + 1;
	}
	return 0;
}

static int add_shards(struct lwm_shelf *s, const struct lwm_paths *files, const struct lwm_tokenizer *t, struct lwm_err *e)
{
	struct lwm_hasher *h = lwm_hasher_new();
	s->shard = calloc((size_t)files->n + 1, sizeof *s->shard);
	int rc = h && s->shard ? 0 : no_memory(e);
	for (int64_t i = 0; i < files->n && rc == 0; i++)
		rc = add_shard(s, files->v[i], t, h, e);
	if (h)
		s->hash = lwm_hasher_end(h);
	return rc;
}

int lwm_shelf_open(struct lwm_shelf **out, const struct lwm_paths *shards, const struct lwm_tokenizer *t, int64_t vision_codes,
		   int64_t frame_codes, struct lwm_err *e)
{
	static const char *const ends[] = { ".h5", NULL };
	struct lwm_shelf *s = calloc(1, sizeof *s);
	struct lwm_paths files = { 0 };
	int rc = 0;
	*out = NULL;
	if (!s)
		return no_memory(e);
	pthread_mutex_init(&s->lock, NULL);
	s->vocab_text = lwm_tokenizer_vocab(t);
	s->vision_codes = vision_codes;
	s->frame_codes = frame_codes;
	for (int64_t i = 0; i < shards->n && rc == 0; i++)
		rc = lwm_paths_expand(&files, shards->v[i], ends, e);
	if (rc == 0)
		rc = add_shards(s, &files, t, e);
	if (rc == 0)
		rc = index_clips(s, e);
	lwm_paths_release(&files);
	if (rc < 0)
		lwm_shelf_close(s);
	else
		*out = s;
	return rc;
}

void lwm_shelf_close(struct lwm_shelf *s)
{
	if (!s)
		return;
	for (int64_t i = 0; i < s->nshards; i++)
		lwm_docs_close(s->shard[i]);
	pthread_mutex_destroy(&s->lock);
	lwm_arena_free(&s->mem);
	free(s->shard);
	free(s->clip);
	free(s->slot);
	free(s);
}

/* Does the path end in the name, at a slash? */
static bool ends_in(const char *path, const char *name, size_t n)
{
	size_t k = strlen(path);
	return k >= n && !memcmp(path + k - n, name, n) && (k == n || path[k - n - 1] == '/');
}

/* The one clip of that name. */
static int find_clip(const struct lwm_shelf *s, const char *name, const struct clip **out, struct lwm_err *e)
{
	size_t n;
	while (!strncmp(name, "./", 2) || *name == '/')
		name += *name == '/' ? 1 : 2;
	n = stem_of(name);
	*out = NULL;
	for (int64_t k = n ? slot_of(s, name, n) : 0; n && s->slot[k]; k = (k + 1) & (s->slots - 1)) {
		const struct clip *c = &s->clip[s->slot[k] - 1];
		if (!ends_in(c->path, name, n))
			continue;
		if (*out)
			return lwm_fail(e, LWM_EDATA, "'%.200s' is the name of two clips, %.300s and %.300s", name, (*out)->path,
					c->path);
		*out = c;
	}
	return *out ? 0 : lwm_fail(e, LWM_EDATA, "no clip that is called '%.200s' has been encoded", name);
}

int lwm_shelf_codes(void *shelf, const char *name, struct lwm_ids *out, struct lwm_err *e)
{
	struct lwm_shelf *s = shelf;
	const struct clip *c;
	struct lwm_doc doc;
	struct lwm_ids tokens = { 0 };
	int64_t before = out->n;
	LWM_TRY(find_clip(s, name, &c, e));
	pthread_mutex_lock(&s->lock);
	int rc = lwm_docs_get(s->shard[c->shard], c->doc, &doc, e);
	if (rc == 0)
		rc = lwm_ids_reserve(&tokens, doc.n, e);
	if (rc == 0)
		rc = lwm_docs_read(s->shard[c->shard], c->doc, 0, doc.n, tokens.v, e);
	pthread_mutex_unlock(&s->lock);
	if (rc == -LWM_EDATA && e) /* a damaged shard is no fault of the record that asks */
		rc = e->code = -LWM_EIO;
	if (rc == 0)
		rc = lwm_clip_codes(tokens.v, doc.n, s->vocab_text, s->vision_codes, s->frame_codes, out, e);
	lwm_ids_release(&tokens);
	if (rc == 0 && out->n == before)
		rc = lwm_fail(e, LWM_EDATA, "'%.200s' has no codes", name);
	return rc;
}

int64_t lwm_shelf_clips(const struct lwm_shelf *s)
{
	return s->nclips;
}

struct lwm_hash lwm_shelf_hash(const struct lwm_shelf *s)
{
	return s->hash;
}
