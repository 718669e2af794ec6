/* What document and row shards have in common: vectors collected in spools become one file, and a manifest after it.
 *
 *	begin -> the caller fills spools and meta -> commit: values, then `content` (hash of all else) into meta, read back, the old
 *	manifest removed, the file renamed, the new manifest written
 *
 * A kill at any moment leaves a finished shard, the old or the new one, or one without manifest, which counts as none. */
#include "common/io/shard.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/json.h"
#include "common/base/path.h"
#include "common/io/seal.h"

#define META_LIMIT (256LL << 20)
static const char NO_CONTENT[] = "00000000000000000000000000000000";

/* A shard without its manifest is what a killed task leaves, and may be made anew. Anything else that stands there is
 * somebody's: a device or a folder is never replaced, another file only with force. */
static bool in_the_way(const char *path, bool force)
{
	static const char magic[8] = "\211HDF\r\n\032\n";
	struct stat st;
	char head[8];

	if (lstat(path, &st))
		return false;
	if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
		return true;
	if (force)
		return false;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool ours = fd >= 0 && read(fd, head, sizeof head) == sizeof head && !memcmp(head, magic, sizeof head);
	if (fd >= 0)
		close(fd);
	return !ours;
}

int lwm_shard_begin(struct lwm_shard_out *s, const char *path, const char *kind, const char *schema, const char *tool,
		    const char *config, bool force, struct lwm_err *e)
{
	char *name = lwm_manifest_path(path);
	memset(s, 0, sizeof *s);
	s->path = strdup(path);
	s->manifest.kind = strdup(kind);
	s->manifest.tool = strdup(tool);
	s->meta = json_object();
	if (!name || !s->path || !s->manifest.kind || !s->manifest.tool || !s->meta) {
		free(name);
		lwm_shard_release(s);
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	}
	bool finished = lwm_path_exists(path) && lwm_path_exists(name);
	free(name);
	if (in_the_way(path, force)) {
		lwm_shard_release(s);
		return lwm_fail(e, LWM_ECANTCREATE, "%s: is there already and no shard (--force replaces files alone)", path);
	}
	if (finished && !force) {
		lwm_shard_release(s);
		return lwm_fail(e, LWM_ECANTCREATE, "%s: exists (use --force to replace it)", path);
	}
	struct lwm_hash h = lwm_hash_bytes(config, strlen(config));
	memcpy(s->manifest.config_hash, h.hex, sizeof h.hex);
	lwm_put(s->meta, "schema", json_string(schema), &s->failed);
	lwm_put(s->meta, "tool", json_string(tool), &s->failed);
	lwm_put(s->meta, "config", json_string(config), &s->failed);
	lwm_put(s->meta, "content", json_string(NO_CONTENT), &s->failed);
	return 0;
}

void lwm_shard_release(struct lwm_shard_out *s)
{
	free(s->path);
	json_decref(s->meta);
	lwm_manifest_release(&s->manifest);
	memset(s, 0, sizeof *s);
}

/* The text of meta, malloc'ed; with every content hash it has the same length. */
static int meta_text(struct lwm_shard_out *s, const char *content, char **out, struct lwm_err *e)
{
	bool failed = s->failed;
	lwm_put(s->meta, "content", json_string(content), &failed);
	return lwm_json_dump(failed ? NULL : s->meta, JSON_INDENT(1) | JSON_SORT_KEYS, s->path, out, e);
}

/* Content id: everything but itself. */
static int hash_content(struct lwm_vfw *w, int nv, const char *text, char out[33], struct lwm_err *e)
{
	struct lwm_hash values, all;
	LWM_TRY(lwm_vfw_content(w, nv, &values, e));
	struct lwm_hasher *h = lwm_hasher_new();
	if (!h)
		return lwm_fail(e, LWM_EMEMORY, "out of memory");
	lwm_hasher_add(h, values.hex, sizeof values.hex);
	lwm_hasher_add(h, text, strlen(text));
	all = lwm_hasher_end(h);
	memcpy(out, all.hex, sizeof all.hex);
	return 0;
}

/* The old manifest goes first: at no moment does a manifest speak of a file that is not the one beside it. */
static int publish_shard(struct lwm_shard_out *s, struct lwm_vfw *w, struct lwm_err *e)
{
	char *name = lwm_manifest_path(s->path);
	int rc = 0;
	if (!name)
		rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory", s->path);
	else if (unlink(name) && errno != ENOENT)
		rc = lwm_fail_errno(e, LWM_ECANTCREATE, errno, "%s: cannot remove the old manifest", name);
	free(name);
	if (rc < 0) {
		lwm_vfw_discard(w);
		return rc;
	}
	LWM_TRY(lwm_vfw_commit(w, e));
	return lwm_manifest_write(&s->manifest, s->path, e);
}

static int fill_vectors(struct lwm_shard_out *s, struct lwm_vfw *w, const struct lwm_vec *v, struct lwm_spool *spool, int nv,
		const char *blank, struct lwm_err *e)
{
	struct lwm_hash h;
	for (int i = 0; i < nv; i++)
		LWM_TRY(lwm_spool_copy(&spool[i], w, i, lwm_vtype_bytes(v[i].type), s->path, e));
	LWM_TRY(hash_content(w, nv, blank, s->manifest.content, e));
	char *text;
	LWM_TRY(meta_text(s, s->manifest.content, &text, e));
	int rc = lwm_vfw_put(w, nv, text, (int64_t)strlen(text), e);
	free(text);
	LWM_TRY(rc);
	LWM_TRY(lwm_vfw_finish(w, &h, &s->manifest.bytes, e));
	memcpy(s->manifest.hash, h.hex, sizeof h.hex);
	return 0;
}

int lwm_shard_commit(struct lwm_shard_out *s, const char *schema, struct lwm_vec *v, struct lwm_spool *spool, int nv,
		     struct lwm_err *e)
{
	struct lwm_vec all[LWM_VF_MAX];
	struct lwm_vfw *w = NULL;
	char *blank;
	int rc = 0;
	LWM_TRY(meta_text(s, NO_CONTENT, &blank, e));
	for (int i = 0; i < nv; i++) {
		v[i].n = lwm_spool_bytes(&spool[i]) / lwm_vtype_bytes(v[i].type);
		all[i] = v[i];
	}
	all[nv] = (struct lwm_vec){ "meta", LWM_V_TEXT, (int64_t)strlen(blank) };
	LWM_GO(lwm_vfw_open(&w, s->path, false, schema, all, nv + 1, true, e));
	LWM_GO(fill_vectors(s, w, all, spool, nv, blank, e));
	rc = publish_shard(s, w, e);
	w = NULL;
out:
	lwm_vfw_discard(w);
	free(blank);
	return rc;
}

/* ---- reading ---- */

void lwm_shard_close(struct lwm_shard_in *s)
{
	lwm_vfr_close(s->r);
	json_decref(s->meta);
	lwm_manifest_release(&s->manifest);
	memset(s, 0, sizeof *s);
}

static int read_meta(struct lwm_shard_in *s, int vec, const char *path, struct lwm_err *e)
{
	char *text;
	const char *have;
	LWM_TRY(lwm_vfr_text(s->r, vec, META_LIMIT, &text, e));
	int rc = lwm_json_parse(&s->meta, text, strlen(text), path, e);
	free(text);
	LWM_TRY(rc);
	LWM_TRY(lwm_json_str(s->meta, "content", &have, path, e));
	if (strcmp(have, s->manifest.content))
		return lwm_fail(e, LWM_EDATA, "%s: is not the file its manifest speaks of (stale or swapped)", path);
	return 0;
}

bool lwm_shard_holds(const char *path, const char *schema)
{
	char *have;
	bool holds = lwm_vf_schema(path, &have, NULL) == 0 && !strcmp(have, schema);
	free(have);
	return holds;
}

int lwm_shard_open_known(struct lwm_shard_in *s, const char *path, const char *schema, const struct lwm_vec *v, int nv,
			 struct lwm_err *e)
{
	struct lwm_vec all[LWM_VF_MAX];
	int rc;
	LWM_GO(lwm_manifest_check(&s->manifest, path, false, e));
	memcpy(all, v, (size_t)nv * sizeof *v);
	all[nv] = (struct lwm_vec){ "meta", LWM_V_TEXT, 0 };
	LWM_GO(lwm_vfr_open(&s->r, path, schema, all, nv + 1, e));
	LWM_GO(read_meta(s, nv, path, e));
	return 0;
out:
	lwm_shard_close(s);
	return rc;
}

int lwm_shard_open(struct lwm_shard_in *s, const char *path, const char *kind, const char *schema,
		   const struct lwm_vec *v, int nv, struct lwm_err *e)
{
	int rc;
	memset(s, 0, sizeof *s);
	LWM_GO(lwm_manifest_read(&s->manifest, path, e));
	if (strcmp(s->manifest.kind, kind)) {
		rc = lwm_fail(e, LWM_EDATA, "%s: is a shard of %s, expected %s", path, s->manifest.kind, kind);
		goto out;
	}
	return lwm_shard_open_known(s, path, schema, v, nv, e);
out:
	lwm_shard_close(s);
	return rc;
}

/* ---- tokens ---- */

enum { PIECE = 16384 };
/* These loops see every token; at -O2 the compiler leaves them scalar. */
#define VECTORIZED __attribute__((optimize("O3")))

VECTORIZED static uint32_t top_id(const int32_t *t, int64_t n)
{
	uint32_t top = 0; /* an id read as negative is large here */
	for (int64_t i = 0; i < n; i++)
		top = (uint32_t)t[i] > top ? (uint32_t)t[i] : top;
	return top;
}

VECTORIZED static void narrow(const int32_t *restrict t, int64_t n, uint16_t *restrict out)
{
	for (int64_t i = 0; i < n; i++)
		out[i] = (uint16_t)t[i];
}

VECTORIZED static void widen(const uint16_t *restrict t, int64_t n, int32_t *restrict out)
{
	for (int64_t i = 0; i < n; i++)
		out[i] = t[i];
}

enum lwm_vtype lwm_token_type(int64_t vocab)
{
	return vocab <= 65536 ? LWM_V_U16 : LWM_V_U32;
}

int lwm_tokens_add(struct lwm_spool *s, const int32_t *tokens, int64_t n, int64_t vocab, int64_t *bad,
		   const char *path, struct lwm_err *e)
{
	uint16_t small[PIECE];
	*bad = -1;
	if (n && (int64_t)top_id(tokens, n) >= vocab) {
		*bad = 0;
		while (tokens[*bad] >= 0 && tokens[*bad] < vocab)
			++*bad;
		return 0;
	}
	if (lwm_token_type(vocab) == LWM_V_U32) /* ids are not negative: the bytes are the same */
		return lwm_spool_add(s, tokens, n * 4, path, e);
	while (n) {
		int64_t k = n < PIECE ? n : PIECE;
		narrow(tokens, k, small);
		LWM_TRY(lwm_spool_add(s, small, k * 2, path, e));
		tokens += k;
		n -= k;
	}
	return 0;
}

static int check_ids(const int32_t *t, int64_t n, int64_t first, int64_t vocab, const char *path, struct lwm_err *e)
{
	uint32_t top = top_id(t, n);
	if (n && (int64_t)top >= vocab)
		return lwm_fail(e, LWM_EDATA,
				"%s: token id %" PRIu32 " between tokens %" PRId64 " and %" PRId64
				", the vocabulary has %" PRId64,
				path, top, first, first + n, vocab);
	return 0;
}

int lwm_tokens_read(struct lwm_vfr *r, int vec, int64_t first, int64_t n, int64_t vocab, int32_t *out,
		    const char *path, struct lwm_err *e)
{
	if (lwm_vfr_vec(r, vec)->type == LWM_V_U32) {
		LWM_TRY(lwm_vfr_read(r, vec, first, n, out, e));
		return check_ids(out, n, first, vocab, path, e);
	}
	uint16_t small[PIECE];
	for (int64_t at = 0; at < n; at += PIECE) {
		int64_t k = n - at < PIECE ? n - at : PIECE;
		LWM_TRY(lwm_vfr_read(r, vec, first + at, k, small, e));
		widen(small, k, out + at);
	}
	return check_ids(out, n, first, vocab, path, e);
}
