/* json.h - reading JSON safely (jansson: duplicates refused, depth limited) and appending JSON lines durably.
 *
 * Memory is never data: what jansson read or wrote while an allocation of its own failed is thrown away, and the failure is
 * -LWM_EMEMORY. Values are built with jansson's own functions, whose results say whether anything was lost; but jansson's
 * json_load..., json_dump... and json_deep_copy do not say it: use the functions below.
 */
#ifndef LWM_BASE_JSON_H
#define LWM_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/str.h"

/* A JSON object or array from a file of at most `limit` bytes, or from text. A text whose values would take more than about
 * 1 GiB (some 20 million) is -LWM_EDATA. The caller json_decref()s *out. */
int lwm_json_read(json_t **out, const char *path, int64_t limit, struct lwm_err *e);
int lwm_json_parse(json_t **out, const char *text, size_t n, const char *name, struct lwm_err *e);
/* The same of a record of a corpus, whose texts may hold \u0000, which is refused elsewhere: they end at json_string_length. */
int lwm_json_parse_record(json_t **out, const char *text, size_t n, const char *name, struct lwm_err *e);
/* Members of an object; absent or of another type is -LWM_EDATA naming file and key. Borrowed. */
int lwm_json_int(const json_t *o, const char *key, int64_t *out, const char *name, struct lwm_err *e);
int lwm_json_double(const json_t *o, const char *key, double *out, const char *name, struct lwm_err *e);
int lwm_json_str(const json_t *o, const char *key, const char **out, const char *name, struct lwm_err *e);
int lwm_json_get(const json_t *o, const char *key, json_type type, json_t **out, const char *name, struct lwm_err *e);
/* A deep copy; NULL: out of memory. */
json_t *lwm_json_copy(const json_t *v);
/* An array of strings; NULL: out of memory, or a string that is not UTF-8 (lwm_json_dump tells which). */
json_t *lwm_json_strings(char *const *v, int64_t n);
/* json_dumps; *out is malloc'ed. v NULL: it could not be built. -LWM_EMEMORY, or -LWM_EDATA: a text in it is not UTF-8. */
int lwm_json_dump(const json_t *v, size_t flags, const char *name, char **out, struct lwm_err *e);
/* Sorted keys, two-space indent, newline at the end: the same value gives the same bytes. `text` is appended to. */
int lwm_json_text(const json_t *v, struct lwm_str *text, struct lwm_err *e);
int lwm_json_write(const json_t *v, const char *path, bool force, struct lwm_err *e);

/* JSON lines file that is only appended to; a torn last line left by a kill is cut off when it is opened.
 * A symbolic link and what is no regular file are refused (-LWM_ECANTCREATE, inplace.h). */
struct lwm_jsonl;
int lwm_jsonl_open(struct lwm_jsonl **out, const char *path, struct lwm_err *e);
/* A line, without newline. What the disk does not take (it is full, it fails) waits in memory, up to 64 MiB of it, and is tried
 * again with the next line: a record of work never ends the work. Whole lines reach the file, or nothing of them. */
int lwm_jsonl_add(struct lwm_jsonl *f, const struct lwm_str *line, struct lwm_err *e);
int lwm_jsonl_sync(struct lwm_jsonl *f, struct lwm_err *e);  /* what waits is written and all of it is on the disk, or an error */
/* What is in the file now is on the disk, or an error; may be called beside the others, from any thread. */
int lwm_jsonl_sync_file(const struct lwm_jsonl *f, struct lwm_err *e);
int lwm_jsonl_close(struct lwm_jsonl *f, struct lwm_err *e); /* the same, and f is gone either way; NULL is fine */

/* Lines that carry a check: the last member of each is "check", the XXH3-64 (16 hex digits) of the line's text without that
 * member, so of {A,"check":"H"} the text {A}. Puts it into a line that is a whole object with at least one member. */
int lwm_jsonl_seal(struct lwm_str *line, struct lwm_err *e);
/* Gives every line of such a file to `each`, numbered from 1. A missing file has no lines, and a last line without newline
 * is what a kill left: it is dropped. A line that does not fit its check, or carries none where another line of the file
 * does, is -LWM_EDATA naming file, line and `remedy` (what to do: "delete the line: ..."). Only a file of which no line
 * carries a check, one from before there were checks, is taken without: *sealed is false, and what is added to it should
 * carry none either. */
typedef int lwm_jsonl_fn(void *ctx, const json_t *object, int64_t line, struct lwm_err *e);
int lwm_jsonl_read(const char *path, const char *remedy, bool *sealed, lwm_jsonl_fn *each, void *ctx, struct lwm_err *e);

#endif
