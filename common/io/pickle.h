/* pickle.h - inside common/io: what a Python pickle says, as a tree of inert nodes.
 *
 *	lwm_pickle_read(&p, bytes, n, where, e)                what lies in memory
 *	lwm_pickle_read_file(&p, fd, from, end, &used, where, e)   what lies in a file, but for the long strings of bytes in it
 *	lwm_pk_get(lwm_pickle_root(p), "state_dict") ...
 *	lwm_pickle_free(p)
 *
 * Nothing is looked up, imported or called: what a pickle would have Python call is a node that says so (LWM_PK_CALL), and it is
 * the reader of the tree who knows some of these names. Protocols 2 to 5, the opcodes that programs write weights with; text of
 * older protocols, and anything else, is refused. No pickle can ask for more memory than a few times its own bytes and 200 MB for a
 * million objects. The same node may stand in several places, and in itself: who walks down must know how far.
 *
 * Opcodes: CPython, Lib/pickletools.py. Local calls.
 */
#ifndef LWM_IO_PICKLE_H
#define LWM_IO_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

enum lwm_pk_kind {
	LWM_PK_NONE,
	LWM_PK_BOOL,   /* i */
	LWM_PK_INT,    /* i */
	LWM_PK_LONG,   /* a number of more than 8 bytes: s, little-endian, two's complement */
	LWM_PK_FLOAT,  /* f */
	LWM_PK_TEXT,   /* s, UTF-8 as it stands there */
	LWM_PK_BYTES,  /* s */
	LWM_PK_TUPLE,  /* v */
	LWM_PK_LIST,   /* v */
	LWM_PK_SET,    /* v */
	LWM_PK_DICT,   /* v: key, value, key, value ... */
	LWM_PK_GLOBAL, /* s: the module, name: what of it */
	LWM_PK_CALL,   /* of: the callable, args: its arguments, a tuple; v: what was put into the result, as in a list or a dict */
	LWM_PK_STORED  /* args: the persistent id, for what lies elsewhere */
};

struct lwm_pk {
	enum lwm_pk_kind kind;
	int64_t i;
	double f;
	const char *s, *name; /* not 0-terminated; NULL: too long to be held, it lies at `at` */
	int64_t len, name_len;
	int64_t at;           /* of s: from the first byte, or in the file */
	const struct lwm_pk *of, *args;
	const struct lwm_pk **v;
	int64_t n, cap;
	const struct lwm_pk *state; /* what was built into it (BUILD); NULL: nothing */
};

struct lwm_pickle;
/* bytes outlive what is read. where begins sentences. -LWM_EDATA, -LWM_EMEMORY. */
int lwm_pickle_read(struct lwm_pickle **out, const void *bytes, size_t n, const char *where, struct lwm_err *e);
/* The bytes [from, end) of a file. used: bytes of the pickle, others may follow it (may be NULL). What is longer than 64 KiB,
 * as numbers in it are, is not read: its place is known. */
int lwm_pickle_read_file(struct lwm_pickle **out, int fd, int64_t from, int64_t end, int64_t *used, const char *where,
			 struct lwm_err *e);
const struct lwm_pk *lwm_pickle_root(const struct lwm_pickle *p); /* borrowed */
void lwm_pickle_free(struct lwm_pickle *p); /* NULL is fine */

bool lwm_pk_is_text(const struct lwm_pk *p, const char *text);
bool lwm_pk_is_global(const struct lwm_pk *p, const char *module, const char *name);
/* A call of that name; NULL: it is none. Its arguments. */
const struct lwm_pk *lwm_pk_call(const struct lwm_pk *p, const char *module, const char *name);
/* A dict, or what collections has of its kind. */
bool lwm_pk_is_dict(const struct lwm_pk *p);
/* Of a dict, the last value of that key, as Python has it; NULL: none, or no dict. */
const struct lwm_pk *lwm_pk_get(const struct lwm_pk *dict, const char *key);

#endif
