/* hf_json.c - a SentencePiece tokenizer as tokenizer.json and tokenizer_config.json, for Hugging Face's tokenizers: the same ids.
 *
 * A BPE model of pieces and scores becomes a list of merges: every cut of a piece into two other pieces, best score first, then by
 * the ids of the two. What the format cannot say in the same way (unigram models, maps of characters, symbols of the user's) is not
 * written at all. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/arena.h"
#include "common/base/json.h"
#include "common/base/outfile.h"
#include "common/base/path.h"
#include "common/base/utf8.h"
#include "common/text/text_int.h"

#define SPACE "\xe2\x96\x81" /* U+2581 */

static bool can_be_said(const struct lwm_sp_model *m)
{
	if (m->model_type != 2 || !m->byte_fallback || m->suffix || m->charsmap || !m->dummy_prefix || m->remove_spaces ||
	    !m->escape_spaces)
		return false;
	for (int64_t i = 0; i < m->n; i++)
		if (m->piece[i].type == LWM_PIECE_USER || lwm_utf8_check(m->piece[i].name, m->piece[i].nname) < m->piece[i].nname)
			return false;
	return true;
}

/* ---- merges ---- */

struct names {
	const struct lwm_sp_model *m;
	int32_t *slot; /* id + 1, by hash */
	uint64_t mask;
};

static int names_make(struct names *t, const struct lwm_sp_model *m, struct lwm_err *e)
{
	uint64_t size = 16;
	while (size < 2 * (uint64_t)m->n)
		size *= 2;
	*t = (struct names){ m, calloc(size, sizeof *t->slot), size - 1 };
	if (!t->slot)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for the names of %" PRId64 " pieces", m->n);
	for (int64_t i = 0; i < m->n; i++) {
		uint64_t h = lwm_hash64(m->piece[i].name, m->piece[i].nname, 0);
		if (m->piece[i].type != LWM_PIECE_NORMAL)
			continue;
		while (t->slot[h & t->mask])
			h++;
		t->slot[h & t->mask] = (int32_t)i + 1;
	}
	return 0;
}

/* Id of a normal piece, -1: there is none. */
static int32_t names_find(const struct names *t, const char *s, size_t n)
{
	for (uint64_t h = lwm_hash64(s, n, 0); t->slot[h & t->mask]; h++) {
		const struct lwm_piece *x = &t->m->piece[t->slot[h & t->mask] - 1];
		if (x->nname == n && !memcmp(x->name, s, n))
			return t->slot[h & t->mask] - 1;
	}
	return -1;
}

struct merge {
	float score;
	int32_t left, right;
};

static int by_rank(const void *a, const void *b)
{
	const struct merge *x = a, *y = b;
	if (x->score != y->score)
		return x->score > y->score ? -1 : 1;
	if (x->left != y->left)
		return x->left < y->left ? -1 : 1;
	return (x->right > y->right) - (x->right < y->right);
}

/* *v is malloc'ed. */
static int find_merges(const struct lwm_sp_model *m, struct merge **v, int64_t *n, struct lwm_err *e)
{
	struct names t;
	int64_t cap = 0;
	int rc = names_make(&t, m, e);
	*v = NULL;
	*n = 0;
	for (int64_t i = 0; rc == 0 && i < m->n; i++) {
		const struct lwm_piece *x = &m->piece[i];
		for (size_t at = x->type == LWM_PIECE_NORMAL ? lwm_utf8_len(x->name, x->nname) : x->nname; at && at < x->nname;
		     at += lwm_utf8_len(x->name + at, x->nname - at)) {
			int32_t left = names_find(&t, x->name, at), right = names_find(&t, x->name + at, x->nname - at);
			if (left < 0 || right < 0)
				continue;
			if (*n == cap) {
				struct merge *more = realloc(*v, (size_t)(cap = cap ? 2 * cap : 4096) * sizeof *more);
				if (!more) {
					rc = lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " merges", cap);
					break;
				}
				*v = more;
			}
			(*v)[(*n)++] = (struct merge){ x->score, left, right };
		}
	}
	free(t.slot);
	if (*n)
		qsort(*v, (size_t)*n, sizeof **v, by_rank);
	return rc;
}

static json_t *merges_json(const struct lwm_sp_model *m, struct lwm_err *e)
{
	struct merge *v;
	int64_t n;
	int rc = find_merges(m, &v, &n, e);
	json_t *list = rc == 0 ? json_array() : NULL;
	for (int64_t i = 0; list && i < n; i++) {
		struct lwm_str s = { 0 };
		lwm_str_printf(&s, "%s %s", m->piece[v[i].left].name, m->piece[v[i].right].name);
		if (lwm_str_ok(&s, NULL) < 0 || json_array_append_new(list, json_stringn(lwm_str_get(&s), s.len))) {
			json_decref(list);
			list = NULL;
		}
		lwm_str_release(&s);
	}
	free(v);
	return list;
}

static json_t *vocab_json(const struct lwm_sp_model *m)
{
	json_t *o = json_object();
	for (int64_t i = 0; o && i < m->n; i++)
		if (json_object_setn_new(o, m->piece[i].name, m->piece[i].nname, json_integer(i))) {
			json_decref(o);
			o = NULL;
		}
	return o;
}

static json_t *special(const struct lwm_tokenizer *t, int32_t id)
{
	return json_pack("{s:i s:s s:b s:b s:b s:b s:b}", "id", id, "content", t->m.piece[id].name, "single_word", 0, "lstrip", 0,
			 "rstrip", 0, "normalized", 0, "special", 1);
}

static json_t *tokenizer_json(const struct lwm_tokenizer *t, struct lwm_err *e)
{
	const char *bos = t->m.piece[t->bos].name;
	json_t *vocab = vocab_json(&t->m), *merges = merges_json(&t->m, e);
	/* of each pair "o" steals a reference, also when it fails */
	json_t *model = json_pack("{s:s s:n s:s s:n s:n s:b s:b s:b s:o s:o}", "type", "BPE", "dropout", "unk_token", t->m.piece[t->unk].name,
				  "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 1, "byte_fallback", 1, "ignore_merges", 0,
				  "vocab", vocab, "merges", merges);
	json_t *before = json_pack("{s:s s:[{s:s s:s} {s:s s:{s:s} s:s}]}", "type", "Sequence", "normalizers", "type", "Prepend", "prepend",
				   SPACE, "type", "Replace", "pattern", "String", " ", "content", SPACE);
	json_t *begin = json_pack("{s:s s:[{s:{s:s s:i}} {s:{s:s s:i}}] s:[{s:{s:s s:i}} {s:{s:s s:i}} {s:{s:s s:i}} {s:{s:s s:i}}] "
				  "s:{s:{s:s s:[i] s:[s]}}}", "type", "TemplateProcessing",
				  "single", "SpecialToken", "id", bos, "type_id", 0, "Sequence", "id", "A", "type_id", 0,
				  "pair", "SpecialToken", "id", bos, "type_id", 0, "Sequence", "id", "A", "type_id", 0,
				  "SpecialToken", "id", bos, "type_id", 1, "Sequence", "id", "B", "type_id", 1,
				  "special_tokens", bos, "id", bos, "ids", t->bos, "tokens", bos);
	json_t *back = json_pack("{s:s s:[{s:s s:{s:s} s:s} {s:s} {s:s} {s:s s:s s:i s:i}]}", "type", "Sequence", "decoders", "type",
				 "Replace", "pattern", "String", SPACE, "content", " ", "type", "ByteFallback", "type", "Fuse", "type",
				 "Strip", "content", " ", "start", 1, "stop", 0);
	return json_pack("{s:s s:n s:n s:[o o o] s:o s:n s:o s:o s:o}", "version", "1.0", "truncation", "padding", "added_tokens",
			 special(t, t->unk), special(t, t->bos), special(t, t->eos), "normalizer", before, "pre_tokenizer",
			 "post_processor", begin, "decoder", back, "model", model);
}

static json_t *config_json(const struct lwm_tokenizer *t, int64_t context)
{
	return json_pack("{s:s s:s s:s s:s s:b s:b s:b s:I}", "tokenizer_class", "PreTrainedTokenizerFast", "bos_token",
			 t->m.piece[t->bos].name, "eos_token", t->m.piece[t->eos].name, "unk_token", t->m.piece[t->unk].name,
			 "add_bos_token", 1, "add_eos_token", 0, "clean_up_tokenization_spaces", 0, "model_max_length",
			 (json_int_t)context);
}

static int write_one(json_t *o, const char *dir, const char *name, struct lwm_err *e)
{
	char *text = NULL, *path = lwm_path_join(dir, name);
	int rc = path ? lwm_json_dump(o, JSON_INDENT(1), name, &text, e) : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", dir);
	if (rc == 0)
		rc = lwm_write_file(path, text, strlen(text), false, e);
	free(text);
	free(path);
	json_decref(o);
	return rc;
}

int lwm_tokenizer_write_hf(const struct lwm_tokenizer *t, const char *dir, int64_t context, struct lwm_err *e)
{
	if (!t->rest || !can_be_said(&t->m))
		return 0;
	LWM_TRY(write_one(tokenizer_json(t, e), dir, "tokenizer.json", e));
	LWM_TRY(write_one(config_json(t, context), dir, "tokenizer_config.json", e));
	return 1;
}
