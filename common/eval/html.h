/* html.h - self-contained pages: inline style and pictures, no script, no outside reference; dark mode; prints on A4.
 *
 * Names, captions, answers of models and pictures come from anywhere. Texts are escaped whole: bytes that are no UTF-8 become
 * U+FFFD, control characters their pictures (U+2400 ...), so that nothing is swallowed. Pictures, svg too, are <img> with their
 * data in it, where a browser runs no script and fetches nothing; a content security policy in every page says the same.
 *
 * Everything is appended to *b: lwm_html_begin, then whatever the page shows, then lwm_html_end, and lwm_str_ok says whether there
 * was memory for it all.
 */
#ifndef LWM_EVAL_HTML_H
#define LWM_EVAL_HTML_H

#include <stddef.h>

#include "common/base/str.h"

void lwm_html_begin(struct lwm_str *b, const char *title);
void lwm_html_end(struct lwm_str *b);
void lwm_html_add_text(struct lwm_str *b, const char *text); /* escaped */
void lwm_html_add_bytes(struct lwm_str *b, const char *bytes, size_t n); /* the same, with zeros in it */
void lwm_html_add_heading(struct lwm_str *b, int level, const char *text);
void lwm_html_add_paragraph(struct lwm_str *b, const char *text);
/* Pictures of our own making. */
void lwm_html_add_svg(struct lwm_str *b, const char *svg, size_t n, const char *caption);
void lwm_html_add_png(struct lwm_str *b, const void *png, size_t n, const char *caption);
/* The same of several, one below the other, each with a label before it: begin, a row for each, end. */
void lwm_html_begin_rows(struct lwm_str *b);
void lwm_html_add_png_row(struct lwm_str *b, const void *png, size_t n, const char *label);
void lwm_html_end_rows(struct lwm_str *b, const char *caption);
/* A file from outside: .png, .jpg, .jpeg or .svg; -LWM_EDATA when its first bytes are of something else, -LWM_EUSAGE for another
 * suffix. */
int lwm_html_add_picture(struct lwm_str *b, const char *path, const char *data, size_t n, const char *caption, struct lwm_err *e);

#endif
