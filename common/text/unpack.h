/* unpack.h - inside common/text: how a packed text file becomes bytes. A file is told by how it begins, whatever its name. */
#ifndef LWM_TEXT_UNPACK_H
#define LWM_TEXT_UNPACK_H

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"

struct lwm_unpack_step {
	const unsigned char *in; /* n bytes of the file, none at its end */
	size_t n;
	char *out; /* room for so many */
	size_t room;
	size_t used, made; /* filled */
	bool inside;       /* filled: of a frame, so that the file may not end here */
};

/* One kind of packing: begin, then step after step, then end. path is for messages. */
struct lwm_unpacker {
	const char *suffix; /* that such files usually have; looked at in folders only */
	const char *magic;  /* their first bytes */
	size_t nmagic;
	int (*begin)(void **state, const char *path, struct lwm_err *e);
	int (*step)(void *state, struct lwm_unpack_step *x, const char *path, struct lwm_err *e);
	void (*end)(void *state);
};
/* NULL: none, the file is plain. */
const struct lwm_unpacker *lwm_unpacker_of(const unsigned char *first, size_t n);

#endif
