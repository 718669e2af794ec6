/* Items of MessagePack: its specification, "formats". */
#include "common/io/msgpack.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/io/pio.h"

enum { WINDOW = 1 << 16 };

static int fault(const struct lwm_msgpack *in, const char *what, struct lwm_err *e)
{
	return lwm_fail(e, LWM_EDATA, "%s: at byte %" PRId64 ": %s", in->where, in->at, what);
}

/* n bytes, at most a few hundred: where they stand until the next call. */
static int take(struct lwm_msgpack *in, int64_t n, const unsigned char **out, struct lwm_err *e)
{
	if (n > in->end - in->at)
		return fault(in, "the stream ends in the middle", e);
	if (!in->window && !(in->window = malloc(WINDOW)))
		return lwm_fail_memory(e, in->where);
	if (in->at < in->first || in->at + n > in->first + in->held) {
		int64_t more = in->end - in->at < WINDOW ? in->end - in->at : WINDOW;
		in->held = 0;
		LWM_TRY(lwm_pread_all(in->fd, in->window, more, in->at, in->where, e));
		in->first = in->at;
		in->held = more;
	}
	*out = in->window + (in->at - in->first);
	in->at += n;
	return 0;
}

/* Big-endian. */
static int number(struct lwm_msgpack *in, int bytes, uint64_t *out, struct lwm_err *e)
{
	const unsigned char *p = NULL;
	LWM_TRY(take(in, bytes, &p, e));
	*out = 0;
	for (int i = 0; i < bytes; i++)
		*out = *out << 8 | p[i];
	return 0;
}

/* What lies behind its length is passed over; of a short text it is read. */
static int stretch(struct lwm_msgpack *in, struct lwm_mp_item *x, enum lwm_mp_kind kind, uint64_t n, struct lwm_err *e)
{
	const unsigned char *p = NULL;
	uint64_t type;
	x->kind = kind;
	if (kind == LWM_MP_EXT) {
		LWM_TRY(number(in, 1, &type, e));
		x->type = (int8_t)type;
	}
	if (n > (uint64_t)(in->end - in->at))
		return fault(in, "what is there reaches beyond the end", e);
	x->n = (int64_t)n;
	x->at = in->at;
	if (kind == LWM_MP_TEXT && n < sizeof x->text) {
		LWM_TRY(take(in, (int64_t)n, &p, e));
		if (!memchr(p, 0, n))
			memcpy(x->text, p, n);
		return 0;
	}
	in->at += (int64_t)n;
	return 0;
}

static int counted(struct lwm_msgpack *in, struct lwm_mp_item *x, enum lwm_mp_kind kind, uint64_t n, struct lwm_err *e)
{
	if (n > (uint64_t)(in->end - in->at))
		return fault(in, "more items than there are bytes", e);
	x->kind = kind;
	x->n = (int64_t)n;
	return 0;
}

/* Numbers and lengths of 1, 2, 4, 8 bytes: the opcode says which. */
static int with_number(struct lwm_msgpack *in, struct lwm_mp_item *x, int op, struct lwm_err *e)
{
	static const struct {
		unsigned char op, bytes;
		enum lwm_mp_kind kind;
	} ops[] = {
		{ 0xc4, 1, LWM_MP_BYTES }, { 0xc5, 2, LWM_MP_BYTES }, { 0xc6, 4, LWM_MP_BYTES }, { 0xc7, 1, LWM_MP_EXT },
		{ 0xc8, 2, LWM_MP_EXT },   { 0xc9, 4, LWM_MP_EXT },   { 0xca, 4, LWM_MP_FLOAT }, { 0xcb, 8, LWM_MP_FLOAT },
		{ 0xcc, 1, LWM_MP_INT },   { 0xcd, 2, LWM_MP_INT },   { 0xce, 4, LWM_MP_INT },	 { 0xcf, 8, LWM_MP_INT },
		{ 0xd0, 1, LWM_MP_INT },   { 0xd1, 2, LWM_MP_INT },   { 0xd2, 4, LWM_MP_INT },	 { 0xd3, 8, LWM_MP_INT },
		{ 0xd9, 1, LWM_MP_TEXT },  { 0xda, 2, LWM_MP_TEXT },  { 0xdb, 4, LWM_MP_TEXT },	 { 0xdc, 2, LWM_MP_ARRAY },
		{ 0xdd, 4, LWM_MP_ARRAY }, { 0xde, 2, LWM_MP_MAP },   { 0xdf, 4, LWM_MP_MAP },
	};
	size_t i = 0;
	uint64_t v;
	while (i < sizeof ops / sizeof *ops && ops[i].op != op)
		i++;
	if (i == sizeof ops / sizeof *ops)
		return fault(in, "no item of MessagePack", e);
	LWM_TRY(number(in, ops[i].bytes, &v, e));
	if (ops[i].kind == LWM_MP_ARRAY || ops[i].kind == LWM_MP_MAP)
		return counted(in, x, ops[i].kind, v, e);
	if (ops[i].kind != LWM_MP_INT && ops[i].kind != LWM_MP_FLOAT)
		return stretch(in, x, ops[i].kind, v, e);
	x->kind = ops[i].kind;
	if (op >= 0xd0 && ops[i].bytes < 8 && v >> (8 * ops[i].bytes - 1))
		v |= UINT64_MAX << (8 * ops[i].bytes);
	x->n = (int64_t)v;
	return 0;
}

int lwm_msgpack_next(struct lwm_msgpack *in, struct lwm_mp_item *x, struct lwm_err *e)
{
	uint64_t op;
	int rc;
	memset(x, 0, sizeof *x);
	if (in->at == in->end)
		return 0;
	LWM_TRY(number(in, 1, &op, e));
	if (op < 0x80 || op >= 0xe0) {
		x->kind = LWM_MP_INT;
		x->n = (int8_t)op;
		rc = 0;
	} else if (op < 0x90) {
		rc = counted(in, x, LWM_MP_MAP, op & 15, e);
	} else if (op < 0xa0) {
		rc = counted(in, x, LWM_MP_ARRAY, op & 15, e);
	} else if (op < 0xc0) {
		rc = stretch(in, x, LWM_MP_TEXT, op & 31, e);
	} else if (op == 0xc0) {
		x->kind = LWM_MP_NIL;
		rc = 0;
	} else if (op == 0xc2 || op == 0xc3) {
		x->kind = LWM_MP_BOOL;
		x->n = op & 1;
		rc = 0;
	} else if (op >= 0xd4 && op <= 0xd8) {
		rc = stretch(in, x, LWM_MP_EXT, 1ull << (op - 0xd4), e);
	} else {
		rc = with_number(in, x, (int)op, e);
	}
	return rc < 0 ? rc : 1;
}

void lwm_msgpack_release(struct lwm_msgpack *in)
{
	free(in->window);
	in->window = NULL;
}
