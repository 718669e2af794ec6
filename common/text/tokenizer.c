/* Text to ids and back. A text is cut where no piece can reach over (words.c), parts met before come from a cache, the rest goes to
 * SentencePiece; decoding and names come from the table of pieces alone. The byte tokenizer fills such a table too. */
#include "common/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/outfile.h"
#include "common/base/path.h"
#include "common/text/text_int.h"

enum { MODEL_LIMIT = 256 << 20, BYTE_FIRST = 3, BYTE_VOCAB = 259 };
static const char bytes_name[] = "lwm bytes 1", bytes_file[] = "bytes\n";

/* The pieces of the byte tokenizer, so that everything after encoding is the same for both kinds. */
static int byte_pieces(struct lwm_tokenizer *t, struct lwm_err *e)
{
	static const char *const special[] = { "<unk>", "<s>", "</s>" };
	t->m.piece = calloc(BYTE_VOCAB, sizeof *t->m.piece);
	if (!t->m.piece)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for the byte tokenizer");
	t->m.n = t->m.cap = BYTE_VOCAB;
	for (int i = 0; i < BYTE_VOCAB; i++) {
		struct lwm_piece *x = &t->m.piece[i];
		x->name = calloc(1, 8);
		x->bytes = calloc(1, 8);
		if (!x->name || !x->bytes)
			return lwm_fail(e, LWM_EMEMORY, "out of memory for the byte tokenizer");
		if (i < BYTE_FIRST) {
			x->type = i ? LWM_PIECE_CONTROL : LWM_PIECE_UNKNOWN;
			memcpy(x->name, special[i], strlen(special[i]));
			x->nbytes = i ? 0 : 5;
			memcpy(x->bytes, i ? "" : " \xe2\x81\x87 ", x->nbytes);
		} else {
			x->type = LWM_PIECE_BYTE;
			x->bytes[0] = (char)(i - BYTE_FIRST);
			x->nbytes = 1;
			snprintf(x->name, 8, "<0x%02X>", (unsigned)(i - BYTE_FIRST));
		}
		x->nname = strlen(x->name);
	}
	t->bos = 1;
	t->eos = 2;
	t->hash = lwm_hash_bytes(bytes_name, strlen(bytes_name));
	return 0;
}

static int model_pieces(struct lwm_tokenizer *t, const char *path, struct lwm_err *e)
{
	char msg[512] = "";
	size_t n;
	LWM_TRY(lwm_read_file(path, MODEL_LIMIT, &t->file, &t->nfile, e));
	LWM_TRY(lwm_sp_model_parse(&t->m, t->file, t->nfile, path, e));
	char *plain = lwm_sp_model_without_prefix(t->file, t->nfile, &n);
	if (!plain)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory for the model", path);
	int rc = lwm_sp_open(&t->rest, plain, n, msg, sizeof msg);
	free(plain);
	/* A model that strips spaces would strip the one we put in place of its dummy prefix. */
	if (rc == 0 && (t->m.remove_spaces || t->m.charsmap || t->m.suffix || !t->m.escape_spaces))
		rc = lwm_sp_open(&t->whole, t->file, t->nfile, msg, sizeof msg);
	if (rc == LWM_SP_NO_MEMORY)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory for the model", path);
	if (rc < 0)
		return lwm_fail(e, LWM_EDATA, "%s: not a SentencePiece model (%s)", path, msg);
	lwm_cuts_init(&t->cuts, &t->m);
	t->bos = lwm_sp_bos(t->rest);
	t->eos = lwm_sp_eos(t->rest);
	t->unk = lwm_sp_unk(t->rest);
	if (t->bos < 0 || t->eos < 0 || t->bos >= t->m.n || t->eos >= t->m.n)
		return lwm_fail(e, LWM_ECONFIG, "%s: the model has no <s> or no </s>, which documents need", path);
	t->hash = lwm_hash_bytes(t->file, t->nfile);
	return 0;
}

/* The file that a spec stands for, malloc'ed; *bytes set when it is the byte tokenizer. */
static int find_file(const char *spec, char **path, bool *bytes, struct lwm_err *e)
{
	*bytes = !strcmp(spec, "bytes");
	*path = NULL;
	if (*bytes)
		return 0;
	int folder = lwm_path_folder(spec, e);
	LWM_TRY(folder);
	if (!folder) {
		*path = strdup(spec);
	} else {
		char *plain = lwm_path_join(spec, "tokenizer.txt");
		if (!plain)
			return lwm_fail(e, LWM_EMEMORY, "out of memory for a path");
		*bytes = lwm_path_exists(plain);
		free(plain);
		*path = lwm_path_join(spec, "tokenizer.model");
		if (*path && *bytes && lwm_path_exists(*path)) {
			free(*path);
			*path = NULL;
			return lwm_fail(e, LWM_ECONFIG, "%s: has both tokenizer.model and tokenizer.txt", spec);
		}
	}
	return *path ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for a path");
}

int lwm_tokenizer_open(struct lwm_tokenizer **out, const char *spec, struct lwm_err *e)
{
	struct lwm_tokenizer *t = aligned_alloc(_Alignof(struct lwm_tokenizer), sizeof *t);
	char *path = NULL;
	bool bytes;
	int rc;
	*out = NULL;
	if (!t)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for the tokenizer");
	memset(t, 0, sizeof *t);
	LWM_GO(find_file(spec, &path, &bytes, e));
	LWM_GO(bytes ? byte_pieces(t, e) : model_pieces(t, path, e));
	*out = t;
out:
	free(path);
	if (rc < 0)
		lwm_tokenizer_free(t);
	return rc;
}

void lwm_tokenizer_free(struct lwm_tokenizer *t)
{
	if (!t)
		return;
	for (int i = 0; i < LWM_PLACES; i++)
		lwm_words_free(t->place[i].w);
	lwm_sp_close(t->whole);
	lwm_sp_close(t->rest);
	lwm_sp_model_release(&t->m);
	free(t->file);
	free(t);
}

/* The place where this thread looks first; threads beyond the places share. */
static unsigned own_place(void)
{
	static atomic_uint threads;
	static _Thread_local unsigned mine; /* from 1 */
	if (!mine)
		mine = atomic_fetch_add(&threads, 1) % LWM_PLACES + 1;
	return mine - 1;
}

static struct lwm_words *take_words(struct lwm_tokenizer *t)
{
	unsigned own = own_place();
	for (unsigned i = 0; i < LWM_PLACES; i++) {
		struct lwm_place *p = &t->place[(own + i) % LWM_PLACES];
		struct lwm_words *w = atomic_load_explicit(&p->w, memory_order_relaxed);
		if (w && (w = atomic_exchange(&p->w, NULL)))
			return w;
	}
	return lwm_words_new();
}

static void give_words(struct lwm_tokenizer *t, struct lwm_words *w)
{
	unsigned own = own_place();
	for (unsigned i = 0; i < LWM_PLACES; i++) {
		struct lwm_words *none = NULL;
		if (atomic_compare_exchange_strong(&t->place[(own + i) % LWM_PLACES].w, &none, w))
			return;
	}
	lwm_words_free(w);
}

/* *v is malloc'ed. */
static int encode_sp(const struct lwm_sp *sp, const char *text, size_t n, int32_t **v, int64_t *count, struct lwm_err *e)
{
	char msg[512] = "";
	*count = lwm_sp_encode(sp, text, n, v, msg, sizeof msg);
	if (*count == LWM_SP_NO_MEMORY)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for the tokens of %zu bytes of text", n);
	if (*count < 0)
		return lwm_fail(e, LWM_EDATA, "SentencePiece could not encode %zu bytes of text: %s", n, msg);
	return 0;
}

/* A part that is new: encoded, appended and remembered. */
static int encode_part(struct lwm_tokenizer *t, struct lwm_words *w, const char *text, size_t n, uint64_t hash,
		       struct lwm_ids *ids, struct lwm_err *e)
{
	int32_t *v;
	int64_t count;
	LWM_TRY(encode_sp(t->rest, text, n, &v, &count, e));
	lwm_words_put(w, text, n, hash, v, count);
	int rc = lwm_ids_add(ids, v, count, e);
	free(v);
	return rc;
}

static int encode_parts(struct lwm_tokenizer *t, struct lwm_words *w, const char *text, size_t n, struct lwm_ids *ids,
			struct lwm_err *e)
{
	for (size_t a = 0, b; a < n; a = b) {
		uint64_t hash = 0;
		int64_t count;
		b = lwm_cuts_next(&t->cuts, text, a, n);
		const int32_t *v = lwm_words_find(w, text + a, b - a, &hash, &count);
		LWM_TRY(v ? lwm_ids_add(ids, v, count, e) : encode_part(t, w, text + a, b - a, hash, ids, e));
	}
	return 0;
}

/* Encodes with one more space before the text: only the first part is copied for it. */
static int encode_prefixed(struct lwm_tokenizer *t, struct lwm_words *w, const char *text, size_t n,
			   struct lwm_ids *ids, struct lwm_err *e)
{
	size_t a = 0;
	while (a < n && (text[a] == ' ' || text[a] == '\n'))
		a++;
	a = lwm_cuts_next(&t->cuts, text, a, n);
	char small[256], *first = a < sizeof small ? small : malloc(a + 1);
	if (!first)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for %zu bytes of text", a);
	first[0] = ' ';
	memcpy(first + 1, text, a);
	int rc = encode_parts(t, w, first, a + 1, ids, e);
	if (first != small)
		free(first);
	return rc < 0 ? rc : encode_parts(t, w, text + a, n - a, ids, e);
}

static int encode_bytes(const char *text, size_t n, struct lwm_ids *ids, struct lwm_err *e)
{
	LWM_TRY(lwm_ids_reserve(ids, (int64_t)n, e));
	for (size_t i = 0; i < n; i++)
		ids->v[ids->n + (int64_t)i] = BYTE_FIRST + (uint8_t)text[i];
	ids->n += (int64_t)n;
	return 0;
}

static int encode_text(struct lwm_tokenizer *t, bool prefix, const char *text, size_t n, struct lwm_ids *ids,
		       struct lwm_err *e)
{
	if (!t->rest)
		return encode_bytes(text, n, ids, e);
	if (n == 0)
		return 0;
	if (prefix && t->whole) {
		int32_t *v;
		int64_t count;
		LWM_TRY(encode_sp(t->whole, text, n, &v, &count, e));
		int rc = lwm_ids_add(ids, v, count, e);
		free(v);
		return rc;
	}
	struct lwm_words *w = take_words(t);
	if (!w)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for the tokenizer's cache");
	int rc = prefix && t->m.dummy_prefix ? encode_prefixed(t, w, text, n, ids, e)
					     : encode_parts(t, w, text, n, ids, e);
	give_words(t, w);
	return rc;
}

int lwm_tokenizer_encode(struct lwm_tokenizer *t, const char *text, size_t n, struct lwm_ids *ids, struct lwm_err *e)
{
	return encode_text(t, true, text, n, ids, e);
}

int lwm_tokenizer_encode_rest(struct lwm_tokenizer *t, const char *text, size_t n, struct lwm_ids *ids,
			      struct lwm_err *e)
{
	return encode_text(t, false, text, n, ids, e);
}

void lwm_tokenizer_decode(const struct lwm_tokenizer *t, const int32_t *ids, int64_t n, struct lwm_str *out)
{
	bool first = t->rest && (t->m.dummy_prefix || t->m.remove_spaces);
	for (int64_t i = 0; i < n; i++) {
		size_t len;
		const char *s = lwm_tokenizer_bytes(t, ids[i], &len);
		size_t skip = first && len && s[0] == ' ' && t->m.piece[ids[i]].type != LWM_PIECE_UNKNOWN;
		lwm_str_add(out, s + skip, len - skip);
		first = first && !len;
	}
}

int32_t lwm_tokenizer_vocab(const struct lwm_tokenizer *t)
{
	return (int32_t)t->m.n;
}

int32_t lwm_tokenizer_bos(const struct lwm_tokenizer *t)
{
	return t->bos;
}

int32_t lwm_tokenizer_eos(const struct lwm_tokenizer *t)
{
	return t->eos;
}

bool lwm_tokenizer_is_bytes(const struct lwm_tokenizer *t)
{
	return !t->rest;
}

const char *lwm_tokenizer_bytes(const struct lwm_tokenizer *t, int32_t id, size_t *n)
{
	bool in = id >= 0 && id < t->m.n;
	*n = in ? t->m.piece[id].nbytes : 0;
	return in ? t->m.piece[id].bytes : "";
}

const struct lwm_hash *lwm_tokenizer_hash(const struct lwm_tokenizer *t)
{
	return &t->hash;
}

int lwm_tokenizer_copy_to(const struct lwm_tokenizer *t, const char *dir, bool force, struct lwm_err *e)
{
	const char *want = t->rest ? t->file : bytes_file;
	size_t n = t->rest ? t->nfile : strlen(bytes_file), have_n;
	char *path = lwm_path_join(dir, t->rest ? "tokenizer.model" : "tokenizer.txt"), *have = NULL;
	bool same = false;
	int rc = path ? lwm_path_there(path, e) : lwm_fail(e, LWM_EMEMORY, "out of memory for a path");
	if (rc > 0) {
		rc = lwm_read_file(path, MODEL_LIMIT, &have, &have_n, force ? NULL : e);
		same = rc == 0 && have_n == n && !memcmp(have, want, n);
		rc = force ? 0 : rc;
	}
	if (rc >= 0 && !same)
		rc = lwm_write_file(path, want, n, force, e);
	free(have);
	free(path);
	return rc;
}

/* The files that a spec stands for, to whoever knows what they should be. */
static int check_spec(const char *spec, lwm_tokenizer_check_fn *check, struct lwm_err *e)
{
	static const char *const name[] = { "tokenizer.model", "tokenizer.txt" };
	if (!strcmp(spec, "bytes"))
		return 0;
	int folder = lwm_path_folder(spec, e);
	LWM_TRY(folder);
	if (!folder)
		return check(spec, e);
	for (int i = 0; i < 2; i++) {
		char *path = lwm_path_join(spec, name[i]);
		int rc = path ? lwm_path_there(path, e) : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", spec);
		if (rc > 0)
			rc = check(path, e);
		free(path);
		LWM_TRY(rc);
	}
	return 0;
}

int lwm_tokenizer_open_as(struct lwm_tokenizer **out, const char *spec, lwm_tokenizer_check_fn *check,
			  const char *hash, const char *who, struct lwm_err *e)
{
	struct lwm_tokenizer *t;
	*out = NULL;
	LWM_TRY(check_spec(spec, check, e));
	LWM_TRY(lwm_tokenizer_open(&t, spec, e));
	const char *have = lwm_tokenizer_hash(t)->hex;
	if (hash && *hash && strcmp(hash, have)) {
		int rc = lwm_fail(e, LWM_ECONFIG, "the tokenizer %s has the hash %s; %s was made with the one of hash %s", spec,
				  have, who, hash);
		lwm_tokenizer_free(t);
		return rc;
	}
	*out = t;
	return 0;
}
