/* json_memory.c - what jansson does when it gets no memory: it may lose a key, a member or a part of a string and continue, or
 * end the program. So its allocations are watched, what was made without all of them is not used, and while it parses there is
 * a reserve. */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"

static _Thread_local bool starved; /* an allocation failed, and nobody has been told yet */

/* Memory that is given up when there is no other, so that the parser comes to its end; shared by all threads. */
static struct {
	pthread_mutex_t lock;
	void *block;
	_Atomic size_t size;
} spare = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool give_up(void)
{
	pthread_mutex_lock(&spare.lock);
	bool any = spare.block != NULL;
	free(spare.block);
	spare.block = NULL;
	spare.size = 0;
	pthread_mutex_unlock(&spare.lock);
	return any;
}

/* Costs a load where the reserve is there already. */
static bool hold_room(size_t n)
{
	if (spare.size >= n)
		return true;
	pthread_mutex_lock(&spare.lock);
	if (spare.size < n) { /* another thread may have been faster */
		free(spare.block);
		spare.block = malloc(n);
		spare.size = spare.block ? n : 0;
	}
	bool held = spare.size >= n;
	pthread_mutex_unlock(&spare.lock);
	return held;
}

static void *give_memory(size_t n)
{
	void *p = malloc(n);
	if (p)
		return p;
	starved = true;
	return give_up() ? malloc(n) : NULL;
}

__attribute__((constructor)) static void watch_memory(void)
{
	json_set_alloc_funcs(give_memory, free);
}

static int out_of_memory(const char *name, struct lwm_err *e)
{
	return lwm_fail(e, LWM_EMEMORY, "%s: out of memory for its JSON", name);
}

enum { CHECKED = 8 << 20, VALUE = 48, MEMBER = 160 }; /* bytes of a text that is looked at; of memory, about */
#define JSON_MOST (INT64_C(1) << 30)

/* Memory that the values of a text would take, at least: "0," is two bytes in a file and a value in a list. */
static int64_t memory_of(const char *s, size_t n)
{
	int64_t bytes = 0;
	for (size_t i = 0; i < n; i++) {
		if (s[i] == ',' || s[i] == '[' || s[i] == '{')
			bytes += VALUE;
		else if (s[i] == ':')
			bytes += MEMBER - VALUE;
		else if (s[i] == '"')
			for (i++; i < n && s[i] != '"'; i++)
				i += s[i] == '\\';
	}
	return bytes;
}

struct text {
	const char *s;
	size_t n;
};

/* The next piece for the parser; none more once memory is short, so that little is taken of the reserve. */
static size_t next_piece(void *buffer, size_t size, void *ctx)
{
	struct text *t = ctx;
	size_t n = t->n < size ? t->n : size;
	if (starved)
		return (size_t)-1;
	memcpy(buffer, t->s, n);
	t->s += n;
	t->n -= n;
	return n;
}

static const char *fault_of(const json_error_t *je)
{
	return json_error_code(je) == json_error_null_character ? "a text with \\u0000 cannot stand here" : je->text;
}

static int parse_text(json_t **out, const char *text, size_t n, size_t flags, const char *name, struct lwm_err *e)
{
	enum { PIECE = 1 << 18 /* what one piece may take, and more */, KEPT = 1 << 20 };
	struct text t = { text, n };
	json_error_t je;
	bool before = starved;
	*out = NULL;
	if (n > CHECKED && memory_of(text, n) > JSON_MOST)
		return lwm_fail(e, LWM_EDATA, "%s: has more values than fit into %" PRId64 " bytes of memory", name, JSON_MOST);
	if (n > SIZE_MAX / 8 || !hold_room(PIECE + 4 * n)) /* the string being read doubles its room */
		return out_of_memory(name, e);
	starved = false;
	*out = json_load_callback(next_piece, &t, JSON_REJECT_DUPLICATES | flags, &je);
	bool lost = starved || (!*out && json_error_code(&je) == json_error_out_of_memory);
	starved = before;
	if (spare.size > KEPT)
		give_up();
	if (*out && !lost)
		return 0;
	json_decref(*out);
	*out = NULL;
	return lost ? out_of_memory(name, e) : lwm_fail(e, LWM_EDATA, "%s:%d:%d: %s", name, je.line, je.column,
							fault_of(&je));
}

int lwm_json_parse(json_t **out, const char *text, size_t n, const char *name, struct lwm_err *e)
{
	return parse_text(out, text, n, 0, name, e);
}

int lwm_json_parse_record(json_t **out, const char *text, size_t n, const char *name, struct lwm_err *e)
{
	return parse_text(out, text, n, JSON_ALLOW_NUL, name, e);
}

json_t *lwm_json_copy(const json_t *v)
{
	bool before = starved;
	starved = false;
	json_t *out = json_deep_copy(v);
	bool lost = starved;
	starved = before || lost;
	if (!lost)
		return out;
	json_decref(out);
	return NULL;
}

int lwm_json_dump(const json_t *v, size_t flags, const char *name, char **out, struct lwm_err *e)
{
	starved = starved && !v; /* what could not be built lacked memory if anything did */
	*out = v ? json_dumps(v, flags) : NULL;
	bool lost = starved;
	starved = false;
	if (*out && !lost)
		return 0;
	free(*out);
	*out = NULL;
	return lost ? out_of_memory(name, e) : lwm_fail(e, LWM_EDATA, "%s: holds a text that is not UTF-8", name);
}

json_t *lwm_json_strings(char *const *v, int64_t n)
{
	json_t *list = json_array();
	for (int64_t i = 0; i < n; i++)
		if (json_array_append_new(list, json_string(v[i]))) {
			json_decref(list);
			return NULL;
		}
	return list;
}
