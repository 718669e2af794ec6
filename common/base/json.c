/* json.c - JSON values in and out, their members with names in messages, and files of JSON lines. */
#include "common/base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/inplace.h"
#include "common/base/log.h"
#include "common/base/outfile.h"
#include "common/base/path.h"

int lwm_json_read(json_t **out, const char *path, int64_t limit, struct lwm_err *e)
{
	char *text;
	size_t n;
	LWM_TRY(lwm_read_file(path, limit, &text, &n, e));
	int rc = lwm_json_parse(out, text, n, path, e);
	free(text);
	return rc;
}

int lwm_json_get(const json_t *o, const char *key, json_type type, json_t **out, const char *name, struct lwm_err *e)
{
	static const char *const kind[] = { "an object", "an array", "a string", "a whole number", "a number", "true",
					    "false", "null" };
	json_t *v = json_object_get(o, key);
	if (!v)
		return lwm_fail(e, LWM_EDATA, "%s: key '%s' is missing", name, key);
	bool ok = json_typeof(v) == type || (type == JSON_REAL && json_is_integer(v));
	if (!ok)
		return lwm_fail(e, LWM_EDATA, "%s: '%s' must be %s", name, key, kind[type]);
	*out = v;
	return 0;
}

int lwm_json_int(const json_t *o, const char *key, int64_t *out, const char *name, struct lwm_err *e)
{
	json_t *v = NULL;
	LWM_TRY(lwm_json_get(o, key, JSON_INTEGER, &v, name, e));
	*out = json_integer_value(v);
	return 0;
}

int lwm_json_double(const json_t *o, const char *key, double *out, const char *name, struct lwm_err *e)
{
	json_t *v = NULL;
	LWM_TRY(lwm_json_get(o, key, JSON_REAL, &v, name, e));
	*out = json_number_value(v);
	return 0;
}

int lwm_json_str(const json_t *o, const char *key, const char **out, const char *name, struct lwm_err *e)
{
	json_t *v = NULL;
	LWM_TRY(lwm_json_get(o, key, JSON_STRING, &v, name, e));
	*out = json_string_value(v);
	return 0;
}

int lwm_json_text(const json_t *v, struct lwm_str *text, struct lwm_err *e)
{
	char *s;
	LWM_TRY(lwm_json_dump(v, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(17), "a file", &s, e));
	lwm_str_puts(text, s);
	lwm_str_putc(text, '\n');
	free(s);
	return lwm_str_ok(text, e);
}

int lwm_json_write(const json_t *v, const char *path, bool force, struct lwm_err *e)
{
	struct lwm_str s = { 0 };
	int rc = lwm_json_text(v, &s, e);
	if (rc == 0)
		rc = lwm_write_file(path, s.s, s.len, force, e);
	lwm_str_release(&s);
	return rc;
}

struct lwm_jsonl {
	int fd;
	char *path;
	struct lwm_str waiting; /* whole lines that the disk did not take */
	bool torn;              /* the file ends in a part of one: it is cut off before more is written */
	off_t end;              /* of what the file holds, while torn */
};

#define WAITING_LIMIT (64u << 20)

/* Cuts a torn last line: everything after the last newline. */
static int cut_tail(int fd, const char *path, struct lwm_err *e)
{
	char buf[4096];
	off_t end = lseek(fd, 0, SEEK_END), at = end;
	while (at > 0) {
		off_t from = at > (off_t)sizeof buf ? at - (off_t)sizeof buf : 0;
		ssize_t n = pread(fd, buf, (size_t)(at - from), from);
		if (n != at - from)
			return lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot read its end", path);
		for (ssize_t i = n; i-- > 0;) {
			if (buf[i] == '\n') {
				at = from + i + 1;
				goto found;
			}
		}
		at = from;
	}
found:
	if (at != end && ftruncate(fd, at))
		return lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot cut a torn last line", path);
	return 0;
}

int lwm_jsonl_open(struct lwm_jsonl **out, const char *path, struct lwm_err *e)
{
	struct lwm_jsonl *f = calloc(1, sizeof *f);
	*out = NULL;
	if (!f || !(f->path = strdup(path))) {
		free(f);
		return lwm_fail_memory(e, path);
	}
	int rc = lwm_inplace_open(&f->fd, path, O_RDWR | O_CREAT | O_APPEND, e);
	if (rc == 0)
		rc = cut_tail(f->fd, path, e);
	if (rc < 0) {
		if (f->fd >= 0)
			close(f->fd);
		free(f->path);
		free(f);
		return rc;
	}
	*out = f;
	return 0;
}

/* Writes what waits, in one call, so that lines of several processes do not mix. A line that got there by half is cut off again. */
static int write_waiting(struct lwm_jsonl *f, struct lwm_err *e)
{
	struct stat st;

	if (f->torn && ftruncate(f->fd, f->end))
		return lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot cut off a torn line", f->path);
	f->torn = false;
	if (!f->waiting.len)
		return 0;
	if (fstat(f->fd, &st))
		return lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot be looked at", f->path);
	f->end = st.st_size;
	int rc = lwm_write_all(f->fd, f->waiting.s, f->waiting.len, f->path, e);
	if (rc == 0)
		lwm_str_reset(&f->waiting);
	else
		f->torn = ftruncate(f->fd, f->end) != 0;
	return rc;
}

int lwm_jsonl_add(struct lwm_jsonl *f, const struct lwm_str *line, struct lwm_err *e)
{
	struct lwm_err why = { 0 };
	bool waited = f->waiting.len > 0;

	LWM_TRY(lwm_str_ok(line, e));
	lwm_str_add(&f->waiting, lwm_str_get(line), line->len);
	lwm_str_putc(&f->waiting, '\n');
	LWM_TRY(lwm_str_ok(&f->waiting, e));
	if (write_waiting(f, &why) == 0) {
		if (waited)
			lwm_log(LWM_INFO, "%s: the lines that waited are written", f->path);
		return 0;
	}
	if (f->waiting.len > WAITING_LIMIT) {
		if (e)
			*e = why;
		return why.code;
	}
	if (!waited)
		lwm_log(LWM_WARN, "%s; lines wait in memory until it can be written again", why.msg);
	return 0;
}

int lwm_jsonl_sync_file(const struct lwm_jsonl *f, struct lwm_err *e)
{
	if (fsync(f->fd) && errno != EINVAL)
		return lwm_fail_errno(e, LWM_EIO, errno, "%s: fsync failed", f->path);
	return 0;
}

int lwm_jsonl_sync(struct lwm_jsonl *f, struct lwm_err *e)
{
	LWM_TRY(write_waiting(f, e));
	return lwm_jsonl_sync_file(f, e);
}

int lwm_jsonl_close(struct lwm_jsonl *f, struct lwm_err *e)
{
	if (!f)
		return 0;
	int rc = lwm_jsonl_sync(f, e);
	if (close(f->fd) && rc == 0)
		rc = lwm_fail_errno(e, LWM_EIO, errno, "%s: close failed", f->path);
	lwm_str_release(&f->waiting);
	free(f->path);
	free(f);
	return rc;
}
