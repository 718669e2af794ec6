/* html.h - self-contained pages: inline style and pictures, no script, no outside reference; dark mode; prints on A4. */
#ifndef LWM_EVAL_HTML_H
#define LWM_EVAL_HTML_H

#include <stddef.h>

#include "common/base/str.h"

void lwm_html_begin(struct lwm_str *b, const char *title);
void lwm_html_end(struct lwm_str *b);
void lwm_html_text(struct lwm_str *b, const char *text); /* escaped */
void lwm_html_heading(struct lwm_str *b, int level, const char *text);
void lwm_html_paragraph(struct lwm_str *b, const char *text);
/* An svg document as it is (its XML header is left out), or a png as base64. */
void lwm_html_svg(struct lwm_str *b, const char *svg, size_t n, const char *caption);
void lwm_html_png(struct lwm_str *b, const void *png, size_t n, const char *caption);

#endif
