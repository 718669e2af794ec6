/* A machine for pickles that makes nodes and does nothing else. */
#include <endian.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/arena.h"
#include "common/io/pickle.h"
#include "common/io/pio.h"

enum {
	NODES_MOST = 1 << 20,
	MEMO_MOST = 1 << 22,
	PROTOCOL_MOST = 5,
	WINDOW = 1 << 17, /* of a file, in memory */
	HELD = 1 << 16,   /* longer strings of bytes in a file are not */
	LINE = 1 << 12,
};

struct lwm_pickle {
	struct lwm_arena *arena;
	const struct lwm_pk *root;
};

struct stack { /* of borrowed nodes */
	struct lwm_pk **v;
	int64_t n, cap;
};

struct machine {
	struct lwm_pickle *out;
	const uint8_t *p;        /* all of it; of a file the bytes [first, first + held) of it */
	int64_t first, held;
	int64_t at, end, op;     /* op: where the opcode stands that is worked on */
	int fd;                  /* -1: in memory */
	uint8_t *window;
	struct stack stack, memo;
	int64_t *mark, marks, marks_cap; /* heights of the stack */
	int64_t nodes;
	const char *where;
	struct lwm_err *e;
};

static int fault(struct machine *m, const char *what)
{
	return lwm_fail(m->e, LWM_EDATA, "%s: at byte %" PRId64 " of its pickle: %s", m->where, m->op, what);
}

static int no_memory(struct machine *m)
{
	return lwm_fail_memory(m->e, m->where);
}

/* ---- bytes ---- */

/* The next n bytes, at most a window of them, which stay where they are; of a file until the next call. */
static int peek(struct machine *m, int64_t n, const uint8_t **out, int64_t *have)
{
	int64_t rest = m->end - m->at;
	*have = rest < n ? rest : n;
	if (m->fd >= 0 && m->at + *have > m->first + m->held) {
		m->held = 0;
		int64_t more = rest < WINDOW ? rest : WINDOW;
		LWM_TRY(lwm_pread_all(m->fd, m->window, more, m->at, m->where, m->e));
		m->first = m->at;
		m->held = more;
	}
	*out = m->p + (m->at - m->first);
	return 0;
}

static int take(struct machine *m, int64_t n, const uint8_t **out)
{
	int64_t have = 0;
	LWM_TRY(peek(m, n, out, &have));
	if (have < n)
		return fault(m, "it ends in the middle");
	m->at += n;
	return 0;
}

/* The same for what a node will point to. */
static int take_kept(struct machine *m, int64_t n, const char **out)
{
	const uint8_t *p = NULL;
	LWM_TRY(take(m, n, &p));
	*out = (const char *)p;
	if (m->fd < 0)
		return 0;
	char *copy = lwm_arena_alloc(&m->out->arena, (size_t)n + 1);
	if (!copy)
		return no_memory(m);
	memcpy(copy, p, (size_t)n);
	*out = copy;
	return 0;
}

/* An unsigned number of 1, 2, 4 or 8 bytes, little-endian. */
static int number(struct machine *m, int bytes, uint64_t *out)
{
	const uint8_t *p = NULL;
	LWM_TRY(take(m, bytes, &p));
	*out = 0;
	for (int i = bytes; i-- > 0;)
		*out = *out << 8 | p[i];
	return 0;
}

/* To the end of the line, which is left out. */
static int line(struct machine *m, const char **s, int64_t *len)
{
	const uint8_t *from = NULL, *end;
	int64_t have = 0;
	LWM_TRY(peek(m, LINE, &from, &have));
	end = memchr(from, '\n', (size_t)have);
	if (!end)
		return fault(m, "it ends in the middle of a line");
	*len = end - from;
	LWM_TRY(take_kept(m, *len, s));
	m->at++;
	return 0;
}

/* ---- nodes, the stack, the memo ---- */

static struct lwm_pk *node(struct machine *m, enum lwm_pk_kind kind)
{
	struct lwm_pk *p;
	if (m->nodes++ == NODES_MOST) {
		fault(m, "more than a million objects, which no file of weights has");
		return NULL;
	}
	p = lwm_arena_alloc(&m->out->arena, sizeof *p);
	if (!p) {
		no_memory(m);
		return NULL;
	}
	p->kind = kind;
	return p;
}

static int grow(struct machine *m, struct stack *s, int64_t n)
{
	if (n <= s->cap)
		return 0;
	int64_t cap = s->cap * 2 > n ? s->cap * 2 : n < 64 ? 64 : n;
	struct lwm_pk **v = realloc(s->v, (size_t)cap * sizeof *v);
	if (!v)
		return no_memory(m);
	s->v = v;
	s->cap = cap;
	return 0;
}

static int push(struct machine *m, struct lwm_pk *p)
{
	if (!p)
		return m->e ? m->e->code : -LWM_EDATA;
	LWM_TRY(grow(m, &m->stack, m->stack.n + 1));
	m->stack.v[m->stack.n++] = p;
	return 0;
}

/* Values above the last mark, or of the whole stack. */
static int64_t height(const struct machine *m)
{
	return m->stack.n - (m->marks ? m->mark[m->marks - 1] : 0);
}

static int need(struct machine *m, int64_t n)
{
	return height(m) < n ? fault(m, "it takes more than was put there") : 0;
}

static struct lwm_pk *pop(struct machine *m)
{
	m->stack.n--;
	return m->stack.v[m->stack.n];
}

static int set_mark(struct machine *m)
{
	if (m->marks == m->marks_cap) {
		int64_t cap = m->marks_cap ? m->marks_cap * 2 : 16;
		int64_t *v = realloc(m->mark, (size_t)cap * sizeof *v);
		if (!v)
			return no_memory(m);
		m->mark = v;
		m->marks_cap = cap;
	}
	m->mark[m->marks++] = m->stack.n;
	return 0;
}

/* The values above the last mark, which goes: v stays valid until something is pushed. */
static int to_mark(struct machine *m, struct lwm_pk ***v, int64_t *n)
{
	if (!m->marks)
		return fault(m, "there is no mark");
	m->marks--;
	int64_t from = m->mark[m->marks];
	*n = m->stack.n - from;
	*v = m->stack.v + from;
	m->stack.n = from;
	return 0;
}

/* Puts n values into p. */
static int put_in(struct machine *m, struct lwm_pk *p, struct lwm_pk *const *v, int64_t n)
{
	if (p->n + n > p->cap) {
		int64_t cap = p->cap * 2 > p->n + n ? p->cap * 2 : p->n + n;
		const struct lwm_pk **to = lwm_arena_alloc(&m->out->arena, (size_t)cap * sizeof *to);
		if (!to)
			return no_memory(m);
		if (p->n)
			memcpy(to, p->v, (size_t)p->n * sizeof *to);
		p->v = to;
		p->cap = cap;
	}
	for (int64_t i = 0; i < n; i++)
		p->v[p->n++] = v[i];
	return 0;
}

static int remember(struct machine *m, uint64_t k)
{
	LWM_TRY(need(m, 1));
	if (k >= MEMO_MOST)
		return fault(m, "it remembers more than a file of weights has");
	LWM_TRY(grow(m, &m->memo, (int64_t)k + 1));
	while (m->memo.n <= (int64_t)k)
		m->memo.v[m->memo.n++] = NULL;
	m->memo.v[k] = m->stack.v[m->stack.n - 1];
	return 0;
}

static int recall(struct machine *m, uint64_t k)
{
	if (k >= (uint64_t)m->memo.n || !m->memo.v[k])
		return fault(m, "it recalls what it never remembered");
	return push(m, m->memo.v[k]);
}

/* ---- values ---- */

static int push_int(struct machine *m, enum lwm_pk_kind kind, int64_t v)
{
	struct lwm_pk *p = node(m, kind);
	if (p)
		p->i = v;
	return push(m, p);
}

/* A length of so many bytes, then that much. */
static int push_bytes(struct machine *m, enum lwm_pk_kind kind, int bytes)
{
	uint64_t n = 0;
	const char *s = NULL;
	LWM_TRY(number(m, bytes, &n));
	if (n > (uint64_t)(m->end - m->at))
		return fault(m, "it ends in the middle");
	int64_t at = m->at;
	if (m->fd < 0 || n <= HELD)
		LWM_TRY(take_kept(m, (int64_t)n, &s));
	else
		m->at += (int64_t)n;
	if (!s && kind != LWM_PK_BYTES)
		return fault(m, "a text longer than names and words are");
	struct lwm_pk *p = node(m, kind);
	if (p) {
		p->s = s;
		p->len = (int64_t)n;
		p->at = at;
	}
	return push(m, p);
}

/* A length of so many bytes, then a number in that many. */
static int push_long(struct machine *m, int bytes)
{
	LWM_TRY(push_bytes(m, LWM_PK_LONG, bytes));
	struct lwm_pk *p = m->stack.v[m->stack.n - 1];
	if (p->len > 8)
		return 0;
	uint64_t v = p->len && (p->s[p->len - 1] & 0x80) ? UINT64_MAX : 0;
	for (int64_t i = p->len; i-- > 0;)
		v = v << 8 | (uint8_t)p->s[i];
	p->kind = LWM_PK_INT;
	p->i = (int64_t)v;
	return 0;
}

static int push_float(struct machine *m)
{
	const uint8_t *s = NULL;
	uint64_t u;
	LWM_TRY(take(m, 8, &s));
	memcpy(&u, s, 8);
	u = be64toh(u);
	struct lwm_pk *p = node(m, LWM_PK_FLOAT);
	if (p)
		memcpy(&p->f, &u, 8);
	return push(m, p);
}

static int push_tuple(struct machine *m, int64_t n)
{
	LWM_TRY(need(m, n));
	struct lwm_pk *p = node(m, LWM_PK_TUPLE);
	if (!p)
		return push(m, p);
	LWM_TRY(put_in(m, p, m->stack.v + m->stack.n - n, n));
	m->stack.n -= n;
	return push(m, p);
}

static int push_marked(struct machine *m, enum lwm_pk_kind kind)
{
	struct lwm_pk **v = NULL, *p = node(m, kind);
	int64_t n = 0;
	if (!p)
		return push(m, p);
	LWM_TRY(to_mark(m, &v, &n));
	LWM_TRY(put_in(m, p, v, n));
	return push(m, p);
}

static int push_global(struct machine *m)
{
	struct lwm_pk *p = node(m, LWM_PK_GLOBAL);
	if (!p)
		return push(m, p);
	LWM_TRY(line(m, &p->s, &p->len));
	LWM_TRY(line(m, &p->name, &p->name_len));
	return push(m, p);
}

static int stack_global(struct machine *m)
{
	LWM_TRY(need(m, 2));
	struct lwm_pk *name = pop(m), *module = pop(m), *p = node(m, LWM_PK_GLOBAL);
	if (!p)
		return push(m, p);
	if (name->kind != LWM_PK_TEXT || module->kind != LWM_PK_TEXT)
		return fault(m, "a name that is no text");
	p->s = module->s;
	p->len = module->len;
	p->name = name->s;
	p->name_len = name->len;
	return push(m, p);
}

/* REDUCE, NEWOBJ; NEWOBJ_EX has named arguments above, which nothing here asks for. */
static int call(struct machine *m, bool named)
{
	LWM_TRY(need(m, named ? 3 : 2));
	if (named)
		pop(m);
	struct lwm_pk *args = pop(m), *of = pop(m), *p = node(m, LWM_PK_CALL);
	if (!p)
		return push(m, p);
	if (args->kind != LWM_PK_TUPLE)
		return fault(m, "arguments that are no tuple");
	p->of = of;
	p->args = args;
	return push(m, p);
}

static int persistent(struct machine *m)
{
	LWM_TRY(need(m, 1));
	struct lwm_pk *id = pop(m), *p = node(m, LWM_PK_STORED);
	if (p)
		p->args = id;
	return push(m, p);
}

static int build(struct machine *m)
{
	LWM_TRY(need(m, 2));
	struct lwm_pk *state = pop(m);
	m->stack.v[m->stack.n - 1]->state = state;
	return 0;
}

/* n values on top go into what lies below them: of a list or set one by one, of a dict in pairs. */
static int put_above(struct machine *m, struct lwm_pk **v, int64_t n, bool pairs)
{
	if (height(m) < 1)
		return fault(m, "there is nothing to put a value into");
	struct lwm_pk *to = m->stack.v[m->stack.n - 1];
	bool series = to->kind == LWM_PK_LIST || to->kind == LWM_PK_SET;
	bool fits = to->kind == LWM_PK_CALL || (pairs ? to->kind == LWM_PK_DICT : series);
	if (!fits || (pairs && n % 2))
		return fault(m, "values that do not fit what they are put into");
	return put_in(m, to, v, n);
}

static int put_top(struct machine *m, int64_t n, bool pairs)
{
	LWM_TRY(need(m, n + 1));
	m->stack.n -= n;
	return put_above(m, m->stack.v + m->stack.n, n, pairs);
}

static int put_marked(struct machine *m, bool pairs)
{
	struct lwm_pk **v = NULL;
	int64_t n = 0;
	LWM_TRY(to_mark(m, &v, &n));
	return put_above(m, v, n, pairs);
}

/* ---- opcodes ---- */

static int number_op(struct machine *m, uint8_t op)
{
	uint64_t v = 0;
	switch (op) {
	case 0x80: /* PROTO */
		LWM_TRY(number(m, 1, &v));
		return v > PROTOCOL_MOST ? fault(m, "of a protocol that is not known") : 0;
	case 0x95: /* FRAME: how many bytes follow in one piece */
		return number(m, 8, &v);
	case 'K':
		LWM_TRY(number(m, 1, &v));
		return push_int(m, LWM_PK_INT, (int64_t)v);
	case 'M':
		LWM_TRY(number(m, 2, &v));
		return push_int(m, LWM_PK_INT, (int64_t)v);
	case 'J':
		LWM_TRY(number(m, 4, &v));
		return push_int(m, LWM_PK_INT, (int32_t)(uint32_t)v);
	case 'q':
		LWM_TRY(number(m, 1, &v));
		return remember(m, v);
	case 'r':
		LWM_TRY(number(m, 4, &v));
		return remember(m, v);
	case 0x94: /* MEMOIZE */
		return remember(m, (uint64_t)m->memo.n);
	case 'h':
		LWM_TRY(number(m, 1, &v));
		return recall(m, v);
	case 'j':
		LWM_TRY(number(m, 4, &v));
		return recall(m, v);
	}
	return 1;
}

static int bytes_op(struct machine *m, uint8_t op)
{
	switch (op) {
	case 0x8a: return push_long(m, 1);
	case 0x8b: return push_long(m, 4);
	case 'G': return push_float(m);
	case 0x8c: return push_bytes(m, LWM_PK_TEXT, 1);
	case 'X': return push_bytes(m, LWM_PK_TEXT, 4);
	case 0x8d: return push_bytes(m, LWM_PK_TEXT, 8);
	case 'U': return push_bytes(m, LWM_PK_TEXT, 1); /* a string of Python 2 */
	case 'T': return push_bytes(m, LWM_PK_TEXT, 4);
	case 'C': return push_bytes(m, LWM_PK_BYTES, 1);
	case 'B': return push_bytes(m, LWM_PK_BYTES, 4);
	case 0x8e: return push_bytes(m, LWM_PK_BYTES, 8);
	case 0x96: return push_bytes(m, LWM_PK_BYTES, 8); /* a bytearray */
	}
	return 1;
}

static int object_op(struct machine *m, uint8_t op)
{
	struct lwm_pk **v;
	int64_t n;
	switch (op) {
	case 'N': return push(m, node(m, LWM_PK_NONE));
	case 0x88: return push_int(m, LWM_PK_BOOL, 1);
	case 0x89: return push_int(m, LWM_PK_BOOL, 0);
	case '}': return push(m, node(m, LWM_PK_DICT));
	case ']': return push(m, node(m, LWM_PK_LIST));
	case 0x8f: return push(m, node(m, LWM_PK_SET));
	case ')': return push_tuple(m, 0);
	case 0x85: return push_tuple(m, 1);
	case 0x86: return push_tuple(m, 2);
	case 0x87: return push_tuple(m, 3);
	case 't': return push_marked(m, LWM_PK_TUPLE);
	case 0x91: return push_marked(m, LWM_PK_SET); /* a frozen one */
	case 'a': return put_top(m, 1, false);
	case 's': return put_top(m, 2, true);
	case 'e': return put_marked(m, false);
	case 0x90: return put_marked(m, false); /* into a set */
	case 'u': return put_marked(m, true);
	case '(': return set_mark(m);
	case '0':
		LWM_TRY(need(m, 1));
		pop(m);
		return 0;
	case '1': return to_mark(m, &v, &n);
	case 'c': return push_global(m);
	case 0x93: return stack_global(m);
	case 'R': return call(m, false);
	case 0x81: return call(m, false);
	case 0x92: return call(m, true);
	case 'b': return build(m);
	case 'Q': return persistent(m);
	}
	return 1;
}

static int run(struct machine *m)
{
	for (;;) {
		const uint8_t *op = NULL;
		m->op = m->at;
		LWM_TRY(take(m, 1, &op));
		if (*op == '.')
			break;
		int rc = number_op(m, *op);
		if (rc == 1)
			rc = bytes_op(m, *op);
		if (rc == 1)
			rc = object_op(m, *op);
		if (rc == 1)
			return lwm_fail(m->e, LWM_EDATA, "%s: at byte %" PRId64 " of its pickle: 0x%02x is no opcode that weights are written with",
					m->where, m->op, *op);
		if (rc < 0)
			return rc;
	}
	if (m->marks || m->stack.n != 1)
		return fault(m, "it ends with more, or less, than one object");
	m->out->root = pop(m);
	return 0;
}

static int start(struct machine *m, struct lwm_pickle **out)
{
	*out = NULL;
	m->out = calloc(1, sizeof *m->out);
	if (!m->out)
		return no_memory(m);
	int rc = run(m);
	free(m->stack.v);
	free(m->memo.v);
	free(m->mark);
	if (rc < 0)
		lwm_pickle_free(m->out);
	else
		*out = m->out;
	return rc;
}

int lwm_pickle_read(struct lwm_pickle **out, const void *bytes, size_t n, const char *where, struct lwm_err *e)
{
	struct lwm_err own = { 0 };
	struct machine m = { .p = bytes, .end = (int64_t)n, .fd = -1, .where = where, .e = e ? e : &own };
	return start(&m, out);
}

int lwm_pickle_read_file(struct lwm_pickle **out, int fd, int64_t from, int64_t end, int64_t *used, const char *where,
			 struct lwm_err *e)
{
	struct lwm_err own = { 0 };
	struct machine m = { .at = from, .end = end, .fd = fd, .where = where, .e = e ? e : &own };
	*out = NULL;
	m.p = m.window = malloc(WINDOW);
	if (!m.window)
		return no_memory(&m);
	int rc = start(&m, out);
	free(m.window);
	if (used)
		*used = m.at - from;
	return rc;
}

const struct lwm_pk *lwm_pickle_root(const struct lwm_pickle *p)
{
	return p->root;
}

void lwm_pickle_free(struct lwm_pickle *p)
{
	if (!p)
		return;
	lwm_arena_free(&p->arena);
	free(p);
}
