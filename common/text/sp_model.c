/* What a SentencePiece model file says of its pieces and of its normaliser, read by ourselves: protobuf fields, those of
 * text_int.h; all others are passed over. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/text/text_int.h"

enum { MOST_PIECES = 1 << 22 }; /* a piece of two bytes in the file takes a hundred here */

/* One field of a protobuf message: number, and either a value or a range of bytes. */
struct field {
	uint64_t number, value;
	const char *p;
	size_t n;
};

static int varint(const char **p, const char *end, uint64_t *out)
{
	*out = 0;
	for (int shift = 0; shift < 64 && *p < end; shift += 7) {
		uint8_t b = (uint8_t) * (*p)++;
		*out |= (uint64_t)(b & 127) << shift;
		if (b < 128)
			return 0;
	}
	return -1;
}

/* 1 a field, 0 the end, -1 malformed. */
static int next_field(const char **p, const char *end, struct field *f)
{
	uint64_t key, len;
	if (*p == end)
		return 0;
	if (varint(p, end, &key) < 0)
		return -1;
	f->number = key >> 3;
	f->value = 0;
	f->p = *p;
	f->n = 0;
	switch (key & 7) {
	case 0:
		return varint(p, end, &f->value) < 0 ? -1 : 1;
	case 1:
		len = 8;
		break;
	case 2:
		if (varint(p, end, &len) < 0)
			return -1;
		break;
	case 5:
		len = 4;
		break;
	default:
		return -1;
	}
	if (len > (uint64_t)(end - *p))
		return -1;
	f->p = *p;
	f->n = (size_t)len;
	*p += len;
	return 1;
}

static char *copy(const char *p, size_t n)
{
	char *s = malloc(n + 1);
	if (s) {
		memcpy(s, p, n);
		s[n] = 0;
	}
	return s;
}

/* What the piece stands for: U+2581 is a space, <0xNN> a byte, control pieces nothing. */
static int set_bytes(struct lwm_piece *x)
{
	static const char space[] = "\xe2\x96\x81", unknown[] = " \xe2\x81\x87 ";
	x->bytes = malloc((x->nname > sizeof unknown ? x->nname : sizeof unknown) + 1);
	if (!x->bytes)
		return -1;
	if (x->type == LWM_PIECE_CONTROL) {
		x->nbytes = 0;
	} else if (x->type == LWM_PIECE_UNKNOWN) {
		x->nbytes = sizeof unknown - 1;
		memcpy(x->bytes, unknown, sizeof unknown);
	} else if (x->type == LWM_PIECE_BYTE) {
		x->nbytes = 1;
		x->bytes[0] = x->nname == 6 ? (char)strtoul(x->name + 3, NULL, 16) : '?';
	} else {
		size_t o = 0;
		for (size_t i = 0; i < x->nname; o++)
			if (x->nname - i >= 3 && !memcmp(x->name + i, space, 3)) {
				x->bytes[o] = ' ';
				i += 3;
			} else {
				x->bytes[o] = x->name[i++];
			}
		x->nbytes = o;
	}
	x->bytes[x->nbytes] = 0;
	return 0;
}

static int add_piece(struct lwm_sp_model *m, const char *p, size_t n, const char *name, struct lwm_err *e)
{
	struct lwm_piece x = { .type = LWM_PIECE_NORMAL };
	struct field f, text = { 0 };
	const char *end = p + n;
	int r;
	while ((r = next_field(&p, end, &f)) > 0) {
		if (f.number == 1)
			text = f;
		else if (f.number == 2 && f.n == sizeof x.score)
			memcpy(&x.score, f.p, sizeof x.score); /* little-endian, as we are */
		else if (f.number == 3)
			x.type = (int)f.value;
	}
	if (r < 0)
		return lwm_fail(e, LWM_EDATA, "%s: piece %" PRId64 " of the SentencePiece model is malformed", name,
				m->n);
	if (m->n == MOST_PIECES)
		return lwm_fail(e, LWM_EDATA, "%s: the SentencePiece model has more than %d pieces", name, MOST_PIECES);
	if (m->n == m->cap) {
		int64_t cap = m->cap ? 2 * m->cap : 1024;
		struct lwm_piece *v = realloc(m->piece, (size_t)cap * sizeof *v);
		if (!v)
			return lwm_fail(e, LWM_EMEMORY, "%s: out of memory for the vocabulary", name);
		m->piece = v;
		m->cap = cap;
	}
	x.nname = text.n;
	x.name = copy(text.p ? text.p : "", text.n);
	if (!x.name || set_bytes(&x) < 0) {
		free(x.name);
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory for the vocabulary", name);
	}
	m->piece[m->n++] = x;
	return 0;
}

static int trainer_spec(struct lwm_sp_model *m, const char *p, size_t n)
{
	struct field f;
	const char *end = p + n;
	int r;
	while ((r = next_field(&p, end, &f)) > 0)
		switch (f.number) {
		case 3:
			m->model_type = (int)f.value;
			break;
		case 24:
			m->suffix = f.value;
			break;
		case 35:
			m->byte_fallback = f.value;
			break;
		}
	return r;
}

static int normalizer_spec(struct lwm_sp_model *m, const char *p, size_t n)
{
	struct field f;
	const char *end = p + n;
	int r;
	while ((r = next_field(&p, end, &f)) > 0)
		switch (f.number) {
		case 2:
			m->charsmap = f.n > 0;
			break;
		case 3:
			m->dummy_prefix = f.value;
			break;
		case 4:
			m->remove_spaces = f.value;
			break;
		case 5:
			m->escape_spaces = f.value;
			break;
		}
	return r;
}

int lwm_sp_model_parse(struct lwm_sp_model *m, const char *p, size_t n, const char *name, struct lwm_err *e)
{
	struct field f;
	const char *end = p + n;
	int r, bad = 0;
	memset(m, 0, sizeof *m);
	m->model_type = 1; /* defaults of the protobuf */
	m->dummy_prefix = m->remove_spaces = m->escape_spaces = true;
	while ((r = next_field(&p, end, &f)) > 0 && !bad)
		switch (f.number) {
		case 1:
			LWM_TRY(add_piece(m, f.p, f.n, name, e));
			break;
		case 2:
			bad = trainer_spec(m, f.p, f.n);
			break;
		case 3:
			bad = normalizer_spec(m, f.p, f.n);
			break;
		}
	if (r < 0 || bad || m->n == 0 || m->n > INT32_MAX / 2)
		return lwm_fail(e, LWM_EDATA, "%s: not a SentencePiece model (its protobuf does not parse)", name);
	return 0;
}

void lwm_sp_model_release(struct lwm_sp_model *m)
{
	for (int64_t i = 0; i < m->n; i++) {
		free(m->piece[i].name);
		free(m->piece[i].bytes);
	}
	free(m->piece);
	*m = (struct lwm_sp_model){ 0 };
}

char *lwm_sp_model_without_prefix(const char *p, size_t n, size_t *out_n)
{
	static const char patch[] = { 3 << 3 | 2, 2, 3 << 3 | 0, 0 };
	const char *end = p + n, *start = p;
	char *out = malloc(n + sizeof patch);
	size_t o = 0;
	struct field f;
	if (!out)
		return NULL;
	while (next_field(&p, end, &f) > 0) {
		if (f.number != 4) {
			memcpy(out + o, start, (size_t)(p - start));
			o += (size_t)(p - start);
		}
		start = p;
	}
	memcpy(out + o, patch, sizeof patch);
	*out_n = o + sizeof patch;
	return out;
}
