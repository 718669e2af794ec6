/* lines.h - text files as lines, plain, .gz or .zst (told by their first bytes), in bounded memory.
 *
 * A UTF-8 byte order mark at the start is dropped; lines end in LF or CR LF, which is not part of them; a last line
 * without an end counts. Compressed data that stops in the middle is -LWM_EDATA. One thread per handle.
 */
#ifndef LWM_TEXT_LINES_H
#define LWM_TEXT_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

struct lwm_lines;

/* path "-" is standard input. Lines of more than max_line bytes are reported as too long and skipped; memory stays below
 * max_line and 256 KiB, besides the window of the decompressor. */
int lwm_lines_open(struct lwm_lines **out, const char *path, size_t max_line, struct lwm_err *e);
void lwm_lines_close(struct lwm_lines *l); /* NULL is fine */
/* 1 a line, 0 the end, negative an error. *line lives until the next call and is not 0-terminated. *too_long: nothing
 * of it is given. */
int lwm_lines_next(struct lwm_lines *l, const char **line, size_t *n, bool *too_long, struct lwm_err *e);
/* For records that are no lines: the next bytes as they come, some of them. 1, 0 at the end, negative. *bytes lives until the next
 * call. Not in turns with lwm_lines_next, which cuts at line ends. */
int lwm_lines_bytes(struct lwm_lines *l, const char **bytes, size_t *n, struct lwm_err *e);
/* Suffixes of packed files, for looking through folders: ".gz" for 0, and so on; NULL after the last. */
const char *lwm_lines_suffix(int i);
int64_t lwm_lines_read(const struct lwm_lines *l); /* bytes of the file consumed so far, before decompression */

#endif
