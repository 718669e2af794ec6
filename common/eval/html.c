#include "common/eval/html.h"

#include <string.h>

static const char style[] =
	"<style>\n"
	":root{--fg:#1b1f24;--bg:#fff;--dim:#667;--line:#d8dce2;--ok:#0a7f4f;--bad:#c0214a}\n"
	"@media(prefers-color-scheme:dark){:root{--fg:#e6e8eb;--bg:#15181c;--dim:#99a;--line:#333a44;--ok:#3ecf8e;--bad:#ff6b8a}}\n"
	"body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:960px;margin:2em auto;padding:0 1em}\n"
	"h1{font-size:1.6em}h2{font-size:1.2em;margin-top:2em;border-bottom:1px solid var(--line)}\n"
	"table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .7em;border-bottom:1px solid var(--line);text-align:right}\n"
	"td:first-child,th:first-child{text-align:left}figure{margin:1em 0}figure svg,figure img{max-width:100%;height:auto;background:#fff}\n"
	"figcaption{color:var(--dim);font-size:.9em}pre{background:rgba(128,128,128,.12);padding:.8em;white-space:pre-wrap;overflow-wrap:anywhere}\n"
	".ok{color:var(--ok);font-weight:600}.bad{color:var(--bad);font-weight:600}.dim{color:var(--dim)}img.px{image-rendering:pixelated}\n"
	"@media print{body{margin:0;max-width:none}}\n"
	"</style>\n";

void lwm_html_text(struct lwm_str *b, const char *text)
{
	for (; *text; text++) {
		if (*text == '&')
			lwm_str_puts(b, "&amp;");
		else if (*text == '<')
			lwm_str_puts(b, "&lt;");
		else if (*text == '>')
			lwm_str_puts(b, "&gt;");
		else if (*text == '"')
			lwm_str_puts(b, "&quot;");
		else
			lwm_str_putc(b, *text);
	}
}

void lwm_html_begin(struct lwm_str *b, const char *title)
{
	lwm_str_puts(b, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
			"<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>");
	lwm_html_text(b, title);
	lwm_str_puts(b, "</title>\n");
	lwm_str_puts(b, style);
	lwm_str_puts(b, "</head><body>\n");
	lwm_html_heading(b, 1, title);
}

void lwm_html_end(struct lwm_str *b)
{
	lwm_str_puts(b, "</body></html>\n");
}

void lwm_html_heading(struct lwm_str *b, int level, const char *text)
{
	lwm_str_printf(b, "<h%d>", level);
	lwm_html_text(b, text);
	lwm_str_printf(b, "</h%d>\n", level);
}

void lwm_html_paragraph(struct lwm_str *b, const char *text)
{
	lwm_str_puts(b, "<p>");
	lwm_html_text(b, text);
	lwm_str_puts(b, "</p>\n");
}

static void caption_end(struct lwm_str *b, const char *caption)
{
	lwm_str_puts(b, "<figcaption>");
	lwm_html_text(b, caption);
	lwm_str_puts(b, "</figcaption></figure>\n");
}

void lwm_html_svg(struct lwm_str *b, const char *svg, size_t n, const char *caption)
{
	const char *at = memmem(svg, n, "<svg", 4);
	lwm_str_puts(b, "<figure>");
	if (at)
		lwm_str_add(b, at, n - (size_t)(at - svg));
	caption_end(b, caption);
}

static void base64(struct lwm_str *b, const unsigned char *p, size_t n)
{
	static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	for (size_t i = 0; i < n; i += 3) {
		unsigned v = (unsigned)p[i] << 16 | (i + 1 < n ? (unsigned)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
		char four[4] = { digit[v >> 18], digit[v >> 12 & 63], i + 1 < n ? digit[v >> 6 & 63] : '=',
				 i + 2 < n ? digit[v & 63] : '=' };
		lwm_str_add(b, four, 4);
	}
}

void lwm_html_png(struct lwm_str *b, const void *png, size_t n, const char *caption)
{
	lwm_str_puts(b, "<figure><img class=\"px\" alt=\"");
	lwm_html_text(b, caption);
	lwm_str_puts(b, "\" src=\"data:image/png;base64,");
	base64(b, png, n);
	lwm_str_puts(b, "\">");
	caption_end(b, caption);
}
