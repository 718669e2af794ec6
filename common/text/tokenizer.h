/* tokenizer.h - text to ids and back: a SentencePiece model, or bytes with no model at all.
 *
 *	lwm_tokenizer_open(&t, "tokenizer.model", e)    or "bytes", or a folder that holds a tokenizer
 *	lwm_tokenizer_encode(t, text, n, &ids, e)       appends; any number of threads at once
 *	lwm_tokenizer_decode(t, ids.v, ids.n, &str)
 *	lwm_tokenizer_free(t)
 *
 * The byte tokenizer numbers like LLaMA's byte pieces: 0 <unk>, 1 <s>, 2 </s>, 3..258 the bytes 0..255. Its
 * vocabulary is 259; nothing is padded: vision codes start at lwm_tokenizer_vocab(t), for every tokenizer.
 *
 * Encoding never adds <s> or </s>, and never recognises them in text. Where the model asks for a dummy prefix, every
 * call of encode puts one space before the text, as the library does; lwm_tokenizer_encode_rest does not (for text
 * that continues where earlier text ended).
 *
 * Malformed UTF-8: the byte tokenizer takes any bytes. For a SentencePiece model encode replaces each malformed byte
 * by U+FFFD, as the library does; callers who would rather reject check first with lwm_utf8_check.
 */
#ifndef LWM_TEXT_TOKENIZER_H
#define LWM_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/str.h"

struct lwm_tokenizer; /* immutable after open, but for an internal cache of words behind a lock */

struct lwm_ids { /* zero-initialised is empty */
	int32_t *v;
	int64_t n, cap;
};
int lwm_ids_reserve(struct lwm_ids *a, int64_t n, struct lwm_err *e); /* room for n more */
int lwm_ids_add(struct lwm_ids *a, const int32_t *v, int64_t n, struct lwm_err *e);
void lwm_ids_release(struct lwm_ids *a);

/* spec: "bytes", a SentencePiece model file, or a folder with tokenizer.model or tokenizer.txt in it.
 * -LWM_ENOINPUT no such file, -LWM_EDATA not a model, -LWM_ECONFIG a model without <s> or </s>. */
int lwm_tokenizer_open(struct lwm_tokenizer **out, const char *spec, struct lwm_err *e);
/* The same, where it matters which one it is. check sees each file that spec stands for: lwm_model_check_file (io/model.h) refuses
 * with -LWM_EDATA a tokenizer in a model folder that is not the one of the folder's manifest. `hash` is what `who` records of its
 * tokenizer, NULL or "": nothing; another tokenizer than that is -LWM_ECONFIG naming both. */
typedef int lwm_tokenizer_check_fn(const char *path, struct lwm_err *e);
int lwm_tokenizer_open_as(struct lwm_tokenizer **out, const char *spec, lwm_tokenizer_check_fn *check, const char *hash,
			  const char *who, struct lwm_err *e);
void lwm_tokenizer_free(struct lwm_tokenizer *t); /* NULL is fine */

/* Appends the ids of n bytes of text to *ids. */
int lwm_tokenizer_encode(struct lwm_tokenizer *t, const char *text, size_t n, struct lwm_ids *ids, struct lwm_err *e);
int lwm_tokenizer_encode_rest(struct lwm_tokenizer *t, const char *text, size_t n, struct lwm_ids *ids,
			      struct lwm_err *e);
/* Appends the text of ids. <s> and </s> and ids outside the vocabulary give nothing, <unk> gives U+2047 between
 * spaces, the dummy prefix before the first piece is taken off. Bytes come back as they went in, malformed or not. */
void lwm_tokenizer_decode(const struct lwm_tokenizer *t, const int32_t *ids, int64_t n, struct lwm_str *out);

int32_t lwm_tokenizer_vocab(const struct lwm_tokenizer *t); /* V_text */
int32_t lwm_tokenizer_bos(const struct lwm_tokenizer *t);
int32_t lwm_tokenizer_eos(const struct lwm_tokenizer *t);
bool lwm_tokenizer_is_bytes(const struct lwm_tokenizer *t);
/* The bytes an id stands for (as decode, without the dummy prefix rule): streaming output. *n is their number. */
const char *lwm_tokenizer_bytes(const struct lwm_tokenizer *t, int32_t id, size_t *n);

/* XXH3-128 of the model file; of the words "lwm bytes 1" for the byte tokenizer. Shards and checkpoints carry it. */
const struct lwm_hash *lwm_tokenizer_hash(const struct lwm_tokenizer *t);
/* Writes tokenizer.model (the same bytes that were read), or tokenizer.txt for bytes, into the folder; open(dir)
 * reads it. An equal file is left alone; another one is -LWM_ECANTCREATE without force. */
int lwm_tokenizer_copy_to(const struct lwm_tokenizer *t, const char *dir, bool force, struct lwm_err *e);
/* tokenizer.json and tokenizer_config.json into `dir`, where neither is yet: with them AutoTokenizer of transformers 4 and 5 gives
 * our ids after <s>. context: most tokens of the model beside it. 1 written; 0 not, because that format would give other ids (the
 * byte tokenizer; models other than BPE with byte fallback, with a map of characters or symbols of the user's). */
int lwm_tokenizer_write_hf(const struct lwm_tokenizer *t, const char *dir, int64_t context, struct lwm_err *e);

/* Trains a BPE model (identity normalisation, byte fallback, digits split, whitespace kept) and writes it. */
struct lwm_tokenizer_train_cfg {
	const char *const *inputs; /* text files, read line by line */
	int64_t ninputs;
	const char *const *symbols; /* strings that become one piece each, longest match first */
	int64_t nsymbols;
	int64_t vocab;      /* pieces in all, 3 special and 256 bytes among them; fewer if the text has fewer */
	int64_t sample;     /* lines drawn at most; 0 = all */
	int64_t threads;
};
int lwm_tokenizer_train(const struct lwm_tokenizer_train_cfg *how, const char *path, bool force, struct lwm_err *e);

#endif
