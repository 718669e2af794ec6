/* msgpack.h - inside common/io: MessagePack in a file, item by item, without holding what is long.
 *
 *	struct lwm_msgpack in = { .fd = fd, .end = size, .where = path };
 *	lwm_msgpack_next(&in, &item, e)      1: an item; 0: the file ends; of an array or a map its items follow
 *	lwm_msgpack_release(&in)
 *
 * Of strings up to 255 bytes the text is there; of longer ones, of bytes and of extensions the place, and what is in them is passed
 * over (or read: set in.at back to item.at). Local calls. -LWM_EDATA: damaged, or ends in the middle.
 */
#ifndef LWM_IO_MSGPACK_H
#define LWM_IO_MSGPACK_H

#include <stdint.h>

#include "common/base/err.h"

enum lwm_mp_kind {
	LWM_MP_NIL, LWM_MP_BOOL, LWM_MP_INT, LWM_MP_FLOAT, LWM_MP_TEXT, LWM_MP_BYTES, LWM_MP_EXT, LWM_MP_ARRAY, LWM_MP_MAP
};

struct lwm_mp_item {
	enum lwm_mp_kind kind;
	int64_t n;      /* BOOL, INT: the value; TEXT, BYTES, EXT: bytes; ARRAY: items; MAP: pairs */
	int64_t at;     /* TEXT, BYTES, EXT: where they lie */
	int type;       /* EXT */
	char text[256]; /* TEXT of less than 256 bytes without a 0 in it, with one behind it; else "" */
};

struct lwm_msgpack {
	int fd;
	int64_t at, end;
	const char *where; /* begins sentences */
	unsigned char *window;
	int64_t first, held; /* of the window in the file */
};
int lwm_msgpack_next(struct lwm_msgpack *in, struct lwm_mp_item *x, struct lwm_err *e);
void lwm_msgpack_release(struct lwm_msgpack *in); /* memory only */

#endif
