/* text_int.h - inside common/text. */
#ifndef LWM_TEXT_TEXT_INT_H
#define LWM_TEXT_TEXT_INT_H

#include <stdatomic.h>

#include "common/text/sp_shim.h"
#include "common/text/tokenizer.h"

/* What we read ourselves from a serialised SentencePiece ModelProto:
 *
 *	1 pieces { 1 piece, 2 score, 3 type }     2 trainer_spec { 3 model_type, 24 treat_whitespace_as_suffix,
 *	                                            35 byte_fallback }
 *	3 normalizer_spec { 2 precompiled_charsmap, 3 add_dummy_prefix, 4 remove_extra_whitespaces,
 *	                    5 escape_whitespaces }      4 self_test_data
 */
enum lwm_piece_type { LWM_PIECE_NORMAL = 1, LWM_PIECE_UNKNOWN = 2, LWM_PIECE_CONTROL = 3, LWM_PIECE_USER = 4,
		      LWM_PIECE_UNUSED = 5, LWM_PIECE_BYTE = 6 };
struct lwm_piece {
	char *name;       /* as in the model, 0-terminated */
	char *bytes;      /* what it stands for */
	size_t nname, nbytes;
	float score;
	int type;
};
struct lwm_sp_model {
	struct lwm_piece *piece;
	int64_t n, cap;
	int model_type; /* 1 unigram, 2 bpe, 3 word, 4 char */
	bool byte_fallback, suffix, charsmap, dummy_prefix, remove_spaces, escape_spaces;
};
int lwm_sp_model_parse(struct lwm_sp_model *m, const char *p, size_t n, const char *name, struct lwm_err *e);
void lwm_sp_model_release(struct lwm_sp_model *m);
/* The same model without dummy prefix (and without self-test data, which would not hold any more). malloc'ed; NULL
 * when out of memory. Later fields win when protobuf merges, so one more normalizer_spec at the end does it. */
char *lwm_sp_model_without_prefix(const char *p, size_t n, size_t *out_n);

/* Where a text may be cut so that encoding the parts gives the ids of the whole: before a run of spaces and newlines,
 * unless some piece of the vocabulary reaches over such a place with the same byte before and the same byte after. */
struct lwm_cuts {
	bool on;
	uint8_t over[256][256]; /* [byte before the run][second byte of what follows, 0 at the end] */
};
/* Off unless the model is BPE with byte fallback and maps text to itself: there, merges know no more than their
 * pieces. */
void lwm_cuts_init(struct lwm_cuts *c, const struct lwm_sp_model *m);
/* End of the part that starts at text[a], a < n. */
size_t lwm_cuts_next(const struct lwm_cuts *c, const char *text, size_t a, size_t n);

/* Ids of parts seen before. One thread at a time. */
struct lwm_words;
struct lwm_words *lwm_words_new(void); /* NULL: out of memory */
void lwm_words_free(struct lwm_words *w);
/* *ids of a part or NULL; put remembers it. *hash carries over from find to put. */
const int32_t *lwm_words_find(struct lwm_words *w, const char *s, size_t n, uint64_t *hash, int64_t *nids);
void lwm_words_put(struct lwm_words *w, const char *s, size_t n, uint64_t hash, const int32_t *ids, int64_t nids);

/* Where a cache waits for its thread between two texts. Each has a cache line to itself: texts of a line each come and
 * go so often that threads which share one wait for each other more than they encode. */
enum { LWM_PLACES = 64 };
struct lwm_place {
	_Alignas(64) _Atomic(struct lwm_words *) w; /* NULL: none, or in use */
};

struct lwm_tokenizer {
	struct lwm_sp *whole, *rest; /* rest: no dummy prefix; whole NULL where a space before the text does the same */
	struct lwm_sp_model m;
	struct lwm_cuts cuts;
	char *file;
	size_t nfile;
	struct lwm_hash hash;
	int32_t bos, eos, unk;
	struct lwm_place place[LWM_PLACES];
};

#endif
