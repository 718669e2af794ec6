/* json.h - reading JSON safely (jansson: duplicates refused, depth limited) and appending JSON lines durably. */
#ifndef LWM_BASE_JSON_H
#define LWM_BASE_JSON_H

#include <jansson.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/str.h"

/* A JSON object or array from a file of at most `limit` bytes, or from text. A text whose values would take more than about
 * 1 GiB (some 20 million) is -LWM_EDATA. The caller json_decref()s *out. */
int lwm_json_read(json_t **out, const char *path, int64_t limit, struct lwm_err *e);
int lwm_json_parse(json_t **out, const char *text, size_t n, const char *name, struct lwm_err *e);
/* Members of an object; absent or of another type is -LWM_EDATA naming file and key. Borrowed. */
int lwm_json_int(const json_t *o, const char *key, int64_t *out, const char *name, struct lwm_err *e);
int lwm_json_double(const json_t *o, const char *key, double *out, const char *name, struct lwm_err *e);
int lwm_json_str(const json_t *o, const char *key, const char **out, const char *name, struct lwm_err *e);
int lwm_json_get(const json_t *o, const char *key, json_type type, json_t **out, const char *name, struct lwm_err *e);
/* Sorted keys, two-space indent, newline at the end: the same value gives the same bytes. */
int lwm_json_write(const json_t *v, const char *path, bool force, struct lwm_err *e);

/* JSON lines file that is only appended to; a torn last line left by a kill is cut off when it is opened.
 * A symbolic link and what is no regular file are refused (-LWM_ECANTCREATE, inplace.h). */
struct lwm_jsonl;
int lwm_jsonl_open(struct lwm_jsonl **out, const char *path, struct lwm_err *e);
/* A line, without newline. What the disk does not take (it is full, it fails) waits in memory, up to 64 MiB of it, and is tried
 * again with the next line: a record of work never ends the work. Whole lines reach the file, or nothing of them. */
int lwm_jsonl_add(struct lwm_jsonl *f, const struct lwm_str *line, struct lwm_err *e);
int lwm_jsonl_sync(struct lwm_jsonl *f, struct lwm_err *e);  /* what waits is written and all of it is on the disk, or an error */
int lwm_jsonl_close(struct lwm_jsonl *f, struct lwm_err *e); /* the same, and f is gone either way; NULL is fine */

#endif
