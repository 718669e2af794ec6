/* A file of torch.save: its two forms, and the values of its tensors. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/num.h"
#include "common/io/pio.h"
#include "common/io/st_int.h"
#include "common/io/torch_int.h"

enum { PIECE = 1 << 18 };
#define OBJECT_MOST (1LL << 30) /* bytes of an object without its numbers */

void lwm_torch_close(struct lwm_torch *t)
{
	if (!t)
		return;
	if (t->fd >= 0)
		close(t->fd);
	lwm_zip_close(t->zip);
	lwm_arena_free(&t->names);
	free(t->entry);
	free(t->held);
	free(t->path);
	free(t);
}

/* ---- archives ---- */

/* The entry of that name in the archive's one folder. */
static const struct lwm_zip_entry *entry_of(const struct lwm_torch *t, const char *name)
{
	const char *first = lwm_zip_count(t->zip) ? lwm_zip_at(t->zip, 0)->name : "";
	const char *slash = strchr(first, '/');
	char path[512];
	int folder = slash ? (int)(slash - first) + 1 : 0;
	if (snprintf(path, sizeof path, "%.*s%s", folder, first, name) >= (int)sizeof path)
		return NULL;
	return lwm_zip_find(t->zip, path);
}

static int read_entry(const struct lwm_torch *t, const struct lwm_zip_entry *x, char **out, struct lwm_err *e)
{
	*out = malloc((size_t)x->bytes + 1);
	if (!*out)
		return lwm_fail_memory(e, t->path);
	return lwm_pread_all(t->fd, *out, x->bytes, x->at, t->path, e);
}

static int check_order(const struct lwm_torch *t, struct lwm_err *e)
{
	const struct lwm_zip_entry *x = entry_of(t, "byteorder");
	char text[8] = "";
	if (entry_of(t, "constants.pkl"))
		return lwm_fail(e, LWM_EDATA, "%s: a TorchScript program, not weights (save model.state_dict())", t->path);
	if (!x)
		return 0; /* of versions that wrote the machine's, which was little */
	if (x->bytes < (int64_t)sizeof text)
		LWM_TRY(lwm_pread_all(t->fd, text, x->bytes, x->at, t->path, e));
	return strcmp(text, "little") ? lwm_fail(e, LWM_EDATA, "%s: is not little-endian", t->path) : 0;
}

static int place_in_archive(struct lwm_torch *t, struct lwm_torch_entry *x, struct lwm_err *e)
{
	char name[128] = "";
	int64_t bytes;
	if (snprintf(name, sizeof name, "data/%s", x->key) < (int)sizeof name)
		x->zip = entry_of(t, name);
	if (!x->zip)
		return lwm_fail(e, LWM_EDATA, "%s: the numbers of '%.80s' are missing", t->path, x->t.name);
	if (lwm_mul(x->stored, x->width, &bytes) || bytes != x->zip->bytes)
		return lwm_fail(e, LWM_EDATA, "%s: '%.80s' should look at %" PRId64 " numbers of %d bytes, stored are %" PRId64 " bytes",
				t->path, x->t.name, x->stored, x->width, x->zip->bytes);
	x->at = x->zip->at;
	return 0;
}

static int open_archive(struct lwm_torch *t, struct lwm_err *e)
{
	struct lwm_pickle *p = NULL;
	char *text = NULL;
	int rc;
	LWM_TRY(lwm_zip_open(&t->zip, t->fd, t->bytes, t->path, e));
	const struct lwm_zip_entry *x = entry_of(t, "data.pkl");
	if (!x || x->bytes > OBJECT_MOST)
		return lwm_fail(e, LWM_EDATA, "%s: an archive (ZIP), but not of torch.save: it has no data.pkl", t->path);
	LWM_TRY(check_order(t, e));
	LWM_GO(read_entry(t, x, &text, e));
	LWM_GO(lwm_pickle_read(&p, text, (size_t)x->bytes, t->path, e));
	LWM_GO(lwm_torch_find(t, lwm_pickle_root(p), e));
	for (int64_t i = 0; i < t->n; i++)
		LWM_GO(place_in_archive(t, &t->entry[i], e));
out:
	lwm_pickle_free(p);
	free(text);
	return rc;
}

/* ---- the older form: magic number, version, machine, object, keys, then the numbers of each key ---- */

static bool is_magic(const struct lwm_pk *p)
{
	static const char magic[] = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
	return p->kind == LWM_PK_LONG && p->len == 10 && !memcmp(p->s, magic, 10);
}

enum { MAGIC, VERSION, MACHINE, OBJECT, KEYS, PARTS };

static int check_head(const struct lwm_torch *t, int part, const struct lwm_pk *p, struct lwm_err *e)
{
	if (part == MAGIC && !is_magic(p))
		return lwm_fail(e, LWM_EDATA, "%s: is no file of torch.save", t->path);
	if (part == VERSION && (p->kind != LWM_PK_INT || p->i != 1001))
		return lwm_fail(e, LWM_EDATA, "%s: of a version of torch.save that is not known", t->path);
	if (part == MACHINE) {
		const struct lwm_pk *little = lwm_pk_get(p, "little_endian");
		if (little && (little->kind != LWM_PK_BOOL || !little->i))
			return lwm_fail(e, LWM_EDATA, "%s: is not little-endian", t->path);
	}
	return 0;
}

static int by_key(const void *a, const void *b)
{
	return strcmp((*(struct lwm_torch_entry *const *)a)->key, (*(struct lwm_torch_entry *const *)b)->key);
}

/* Numbers of a key lie at `at` of the file, behind how many they are: for all that look at them. Returns the bytes they take. */
static int64_t place_key(struct lwm_torch *t, struct lwm_torch_entry **list, const char *key, int64_t at, struct lwm_err *e)
{
	struct lwm_torch_entry want = { .key = key }, *p = &want;
	struct lwm_torch_entry **x = bsearch(&p, list, (size_t)t->n, sizeof *list, by_key);
	unsigned char raw[8];
	int64_t n = 0, bytes;
	if (!x)
		return lwm_fail(e, LWM_EDATA, "%s: holds numbers ('%.40s') that no tensor by name looks at: where the next ones lie cannot be told",
				t->path, key);
	LWM_TRY(lwm_pread_all(t->fd, raw, 8, at, t->path, e));
	for (int i = 8; i-- > 0;)
		n = (int64_t)((uint64_t)n << 8 | raw[i]);
	if (n < 0 || lwm_mul(n, (*x)->width, &bytes) || bytes > t->bytes - at - 8)
		return lwm_fail(e, LWM_EDATA, "%s: the numbers of '%.80s' reach beyond its end", t->path, (*x)->t.name);
	while (x > list && !strcmp(x[-1]->key, key))
		x--;
	for (; x < list + t->n && !strcmp((*x)->key, key); x++) {
		if ((*x)->stored != n || (*x)->at || (int64_t)(*x)->width * n != bytes)
			return lwm_fail(e, LWM_EDATA, "%s: '%.80s' says another size of its numbers, or they are there twice", t->path,
					(*x)->t.name);
		(*x)->at = at + 8;
	}
	return bytes + 8;
}

static int place_keys(struct lwm_torch *t, const struct lwm_pk *keys, int64_t at, struct lwm_err *e)
{
	struct lwm_torch_entry **list = calloc((size_t)t->n + 1, sizeof *list);
	int rc = list ? 0 : lwm_fail_memory(e, t->path);
	for (int64_t i = 0; rc == 0 && i < t->n; i++)
		list[i] = &t->entry[i];
	if (rc == 0)
		qsort(list, (size_t)t->n, sizeof *list, by_key);
	for (int64_t i = 0; rc == 0 && i < keys->n; i++) {
		const struct lwm_pk *k = keys->v[i];
		char key[128] = "";
		if (k->kind == LWM_PK_TEXT && k->len < (int64_t)sizeof key)
			memcpy(key, k->s, (size_t)k->len);
		int64_t bytes = place_key(t, list, key, at, e);
		rc = bytes < 0 ? (int)bytes : 0;
		at += bytes;
	}
	for (int64_t i = 0; rc == 0 && i < t->n; i++)
		if (!t->entry[i].at)
			rc = lwm_fail(e, LWM_EDATA, "%s: the numbers of '%.80s' are missing", t->path, t->entry[i].t.name);
	free(list);
	return rc;
}

static int open_older(struct lwm_torch *t, struct lwm_err *e)
{
	struct lwm_pickle *p = NULL;
	int64_t at = 0, used = 0;
	int rc = 0;
	for (int part = 0; part < PARTS && rc == 0; part++, at += used) {
		lwm_pickle_free(p);
		rc = lwm_pickle_read_file(&p, t->fd, at, t->bytes, &used, t->path, e);
		if (rc == 0)
			rc = check_head(t, part, lwm_pickle_root(p), e);
		if (rc == 0 && part == OBJECT)
			rc = lwm_torch_find(t, lwm_pickle_root(p), e);
		if (rc == 0 && part == KEYS)
			rc = lwm_pickle_root(p)->kind == LWM_PK_LIST
				     ? place_keys(t, lwm_pickle_root(p), at + used, e)
				     : lwm_fail(e, LWM_EDATA, "%s: has no list of what it stores", t->path);
	}
	lwm_pickle_free(p);
	return rc;
}

int lwm_torch_open(struct lwm_torch **out, const char *path, struct lwm_err *e)
{
	struct stat st;
	char head[2] = "";
	int rc;
	struct lwm_torch *t = calloc(1, sizeof *t);
	*out = NULL;
	if (!t || !(t->path = strdup(path))) {
		free(t);
		return lwm_fail_memory(e, path);
	}
	t->held_entry = -1;
	t->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (t->fd < 0 || fstat(t->fd, &st)) {
		rc = lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot open", path);
		goto out;
	}
	t->bytes = (int64_t)st.st_size;
	if (!S_ISREG(st.st_mode) || t->bytes < 2) {
		rc = lwm_fail(e, LWM_EDATA, "%s: too short for a file of torch.save", path);
		goto out;
	}
	LWM_GO(lwm_pread_all(t->fd, head, 2, 0, path, e));
	LWM_GO(memcmp(head, "PK", 2) ? open_older(t, e) : open_archive(t, e));
	*out = t;
	return 0;
out:
	lwm_torch_close(t);
	return rc;
}

const char *lwm_torch_path(const struct lwm_torch *t)
{
	return t->path;
}

int64_t lwm_torch_count(const struct lwm_torch *t)
{
	return t->n;
}

const struct lwm_st_tensor *lwm_torch_tensor(const struct lwm_torch *t, int64_t i)
{
	return &t->entry[i].t;
}

/* ---- values ---- */

/* Bytes of entry i from number `from` of its storage are in t->held. */
static int hold(struct lwm_torch *t, int64_t i, int64_t from, int64_t n, struct lwm_err *e)
{
	const struct lwm_torch_entry *x = &t->entry[i];
	int64_t bytes = n * x->width;
	t->held_entry = -1;
	if (bytes > t->held_bytes) {
		free(t->held);
		t->held_bytes = 0;
		t->held = malloc((size_t)bytes);
		if (!t->held)
			return lwm_fail_memory(e, t->path);
		t->held_bytes = bytes;
	}
	return lwm_pread_all(t->fd, t->held, bytes, x->at + from * x->width, t->path, e);
}

/* n numbers from `offset` of the tensor, by their strides, out of its span. */
static void gather(const struct lwm_torch *t, const struct lwm_torch_entry *x, int64_t offset, int64_t n, float *out)
{
	for (int64_t k = 0; k < n; k++) {
		int64_t at = 0, rest = offset + k;
		for (int d = x->t.ndim; d-- > 0; rest /= x->t.shape[d])
			at += rest % x->t.shape[d] * x->stride[d];
		lwm_st_widen(t->held + at * x->width, x->t.dtype, 1, out + k);
	}
}

int lwm_torch_read(struct lwm_torch *t, int64_t i, int64_t offset, int64_t n, float *out, struct lwm_err *e)
{
	const struct lwm_torch_entry *x = &t->entry[i];
	int64_t step = PIECE / x->width;
	if (x->t.dtype > LWM_ST_F64)
		return lwm_fail(e, LWM_EDATA, "%s: '%.80s' does not hold floating-point numbers", t->path, x->t.name);
	if (offset < 0 || n < 0 || offset > x->t.size - n)
		return lwm_fail(e, LWM_EDATA, "%s: values %" PRId64 " to %" PRId64 " of '%.80s', which has %" PRId64, t->path, offset,
				offset + n, x->t.name, x->t.size);
	if (!x->dense) {
		if (t->held_entry != i)
			LWM_TRY(hold(t, i, x->offset, x->span, e));
		t->held_entry = i;
		gather(t, x, offset, n, out);
		return 0;
	}
	for (int64_t done = 0; done < n; done += step) {
		int64_t k = n - done < step ? n - done : step;
		LWM_TRY(hold(t, i, x->offset + offset + done, k, e));
		lwm_st_widen(t->held, x->t.dtype, k, out + done);
	}
	return 0;
}

int lwm_torch_check(struct lwm_torch *t, struct lwm_err *e)
{
	if (!t->zip)
		return lwm_fail(e, LWM_ENO, "%s: carries no checksums", t->path);
	for (int64_t i = 0; i < lwm_zip_count(t->zip); i++)
		LWM_TRY(lwm_zip_check(t->zip, lwm_zip_at(t->zip, i), e));
	return 0;
}
