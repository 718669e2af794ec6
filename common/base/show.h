/* show.h - names and texts from outside as people may see them.
 *
 * A file's name may hold anything but '/' and 0. In a line on the terminal or in a log a newline would begin a line that we
 * never wrote, and an escape sequence would steer the terminal; in a batch script a newline ends a comment.
 */
#ifndef LWM_BASE_SHOW_H
#define LWM_BASE_SHOW_H

#include <stddef.h>

#include "common/base/err.h"
#include "common/base/str.h"

/* `text` into out (size > 0 bytes, 0-terminated): control characters spelt out as \n, \t, \r, \x1b, \u009b, bytes that are no
 * UTF-8 as \xff, all else as it is. What does not fit is left out, never half a character. Returns the length. */
size_t lwm_show(char *out, size_t size, const char *text);
/* The same, appended. */
void lwm_show_add(struct lwm_str *out, const char *text);
/* -LWM_EUSAGE when the name holds a control byte (below 0x20, 0x7f), saying which: for names that go into scripts, job
 * headers, logs and records. `what` says whose name it is ("the pipeline file"). */
int lwm_show_check(const char *name, const char *what, struct lwm_err *e);

#endif
