/* html.c - pages in which everything that comes from outside is text or a picture. */
#include "common/eval/html.h"

#include <stdbool.h>
#include <string.h>

#include "common/base/path.h"
#include "common/base/utf8.h"

static const char style[] =
	"<style>\n"
	":root{--fg:#1b1f24;--bg:#fff;--dim:#667;--line:#d8dce2;--ok:#0a7f4f;--bad:#c0214a}\n"
	"@media(prefers-color-scheme:dark){:root{--fg:#e6e8eb;--bg:#15181c;--dim:#99a;--line:#333a44;--ok:#3ecf8e;--bad:#ff6b8a}}\n"
	"body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:960px;margin:2em auto;padding:0 1em}\n"
	"h1{font-size:1.6em}h2{font-size:1.2em;margin-top:2em;border-bottom:1px solid var(--line)}\n"
	"table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .7em;border-bottom:1px solid var(--line);text-align:right}\n"
	"td:first-child,th:first-child{text-align:left}figure{margin:1em 0}figure img{max-width:100%;height:auto;background:#fff}\n"
	"figcaption{color:var(--dim);font-size:.9em}pre{background:rgba(128,128,128,.12);padding:.8em;white-space:pre-wrap;overflow-wrap:anywhere}\n"
	".ok{color:var(--ok);font-weight:600}.bad{color:var(--bad);font-weight:600}.dim{color:var(--dim)}img.px{image-rendering:pixelated}\n"
	"@media print{body{margin:0;max-width:none}}\n"
	"</style>\n";

/* No script runs and nothing is fetched, whatever got into the page: pictures are in it, and so is the style. */
static const char policy[] =
	"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">";

/* U+2400 and what follows it are pictures of the control characters. */
static void add_control(struct lwm_str *b, unsigned char c)
{
	char picture[] = { (char)0xe2, (char)0x90, (char)(0x80 + (c == 0x7f ? 0x21 : c)), 0 };
	lwm_str_puts(b, picture);
}

void lwm_html_add_bytes(struct lwm_str *b, const char *bytes, size_t n)
{
	static const struct { char c; const char *name; } named[] = {
		{ '&', "&amp;" }, { '<', "&lt;" }, { '>', "&gt;" }, { '"', "&quot;" }, { '\'', "&#39;" },
	};
	for (size_t i = 0, k; i < n; i += k ? k : 1) {
		unsigned char c = (unsigned char)bytes[i];
		size_t e = 0;
		k = lwm_utf8_len(bytes + i, n - i);
		while (e < 5 && named[e].c != bytes[i])
			e++;
		if (k == 0 || (k == 2 && c == 0xc2 && (unsigned char)bytes[i + 1] < 0xa0))
			lwm_str_puts(b, "\xEF\xBF\xBD");
		else if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
			add_control(b, c);
		else if (e < 5)
			lwm_str_puts(b, named[e].name);
		else
			lwm_str_add(b, bytes + i, k);
	}
}

void lwm_html_add_text(struct lwm_str *b, const char *text)
{
	lwm_html_add_bytes(b, text, strlen(text));
}

void lwm_html_begin(struct lwm_str *b, const char *title)
{
	lwm_str_puts(b, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
	lwm_str_puts(b, policy);
	lwm_str_puts(b, "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>");
	lwm_html_add_text(b, title);
	lwm_str_puts(b, "</title>\n");
	lwm_str_puts(b, style);
	lwm_str_puts(b, "</head><body>\n");
	lwm_html_add_heading(b, 1, title);
}

void lwm_html_end(struct lwm_str *b)
{
	lwm_str_puts(b, "</body></html>\n");
}

void lwm_html_add_heading(struct lwm_str *b, int level, const char *text)
{
	lwm_str_printf(b, "<h%d>", level);
	lwm_html_add_text(b, text);
	lwm_str_printf(b, "</h%d>\n", level);
}

void lwm_html_add_paragraph(struct lwm_str *b, const char *text)
{
	lwm_str_puts(b, "<p>");
	lwm_html_add_text(b, text);
	lwm_str_puts(b, "</p>\n");
}

static void add_base64(struct lwm_str *b, const unsigned char *p, size_t n)
{
	static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	for (size_t i = 0; i < n; i += 3) {
		unsigned v = (unsigned)p[i] << 16 | (i + 1 < n ? (unsigned)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
		char four[4] = { digit[v >> 18], digit[v >> 12 & 63], i + 1 < n ? digit[v >> 6 & 63] : '=',
				 i + 2 < n ? digit[v & 63] : '=' };
		lwm_str_add(b, four, 4);
	}
}

static void add_image(struct lwm_str *b, const char *type, const void *data, size_t n, const char *alt)
{
	lwm_str_printf(b, "<img%s alt=\"", strcmp(type, "image/png") ? "" : " class=\"px\"");
	lwm_html_add_text(b, alt);
	lwm_str_printf(b, "\" src=\"data:%s;base64,", type);
	add_base64(b, data, n);
	lwm_str_puts(b, "\">");
}

static void end_figure(struct lwm_str *b, const char *caption)
{
	lwm_str_puts(b, "<figcaption>");
	lwm_html_add_text(b, caption);
	lwm_str_puts(b, "</figcaption></figure>\n");
}

static void add_figure(struct lwm_str *b, const char *type, const void *data, size_t n, const char *caption)
{
	lwm_str_puts(b, "<figure>");
	add_image(b, type, data, n, caption);
	end_figure(b, caption);
}

void lwm_html_add_svg(struct lwm_str *b, const char *svg, size_t n, const char *caption)
{
	add_figure(b, "image/svg+xml", svg, n, caption);
}

void lwm_html_add_png(struct lwm_str *b, const void *png, size_t n, const char *caption)
{
	add_figure(b, "image/png", png, n, caption);
}

void lwm_html_begin_rows(struct lwm_str *b)
{
	lwm_str_puts(b, "<figure><table>\n");
}

void lwm_html_add_png_row(struct lwm_str *b, const void *png, size_t n, const char *label)
{
	lwm_str_puts(b, "<tr><td>");
	lwm_html_add_text(b, label);
	lwm_str_puts(b, "</td><td>");
	add_image(b, "image/png", png, n, label);
	lwm_str_puts(b, "</td></tr>\n");
}

void lwm_html_end_rows(struct lwm_str *b, const char *caption)
{
	lwm_str_puts(b, "</table>");
	end_figure(b, caption);
}

/* ---- pictures from outside ---- */

static bool is_png(const char *p, size_t n)
{
	return n >= 16 && !memcmp(p, "\x89PNG\r\n\x1a\n", 8) && !memcmp(p + 12, "IHDR", 4);
}

static bool is_jpeg(const char *p, size_t n)
{
	return n >= 4 && !memcmp(p, "\xff\xd8\xff", 3);
}

static bool begins_with(const char *p, size_t n, const char *with)
{
	return n >= strlen(with) && !memcmp(p, with, strlen(with));
}

/* What may stand before the root of an XML document: its length, 0 when there is nothing more of it. */
static size_t prolog_length(const char *p, size_t n)
{
	static const struct { const char *open, *close; } part[] = {
		{ "\xef\xbb\xbf", "" }, { "<?", "?>" }, { "<!--", "-->" }, { "<!DOCTYPE", ">" },
	};
	if (n && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n'))
		return 1;
	for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
		if (!begins_with(p, n, part[i].open))
			continue;
		size_t from = strlen(part[i].open), own = 0;
		const char *inner = i == 3 ? memchr(p, '[', n) : NULL, *end = memmem(p + from, n - from, part[i].close,
										     strlen(part[i].close));
		if (inner && end && inner < end) { /* a type with declarations of its own */
			own = (size_t)(inner - p);
			inner = memchr(inner, ']', n - own);
			end = inner ? memchr(inner, '>', n - (size_t)(inner - p)) : NULL;
		}
		return end ? (size_t)(end - p) + strlen(part[i].close) : 0;
	}
	return 0;
}

static bool is_svg(const char *p, size_t n)
{
	for (size_t k; (k = prolog_length(p, n)); n -= k)
		p += k;
	return (begins_with(p, n, "<svg") && n > 4 && p[4] && strchr(" \t\r\n/>", p[4])) || begins_with(p, n, "<svg:svg");
}

int lwm_html_add_picture(struct lwm_str *b, const char *path, const char *data, size_t n, const char *caption, struct lwm_err *e)
{
	static const struct {
		const char *suffix, *type;
		bool (*is)(const char *p, size_t n);
	} kind[] = { { ".png", "image/png", is_png }, { ".jpg", "image/jpeg", is_jpeg }, { ".jpeg", "image/jpeg", is_jpeg },
		     { ".svg", "image/svg+xml", is_svg } };
	for (size_t i = 0; i < sizeof kind / sizeof *kind; i++) {
		if (!lwm_path_has_suffix(path, kind[i].suffix))
			continue;
		if (!kind[i].is(data, n))
			return lwm_fail(e, LWM_EDATA, "%s: is not what its suffix says: it does not begin like a %s file", path,
					kind[i].suffix);
		add_figure(b, kind[i].type, data, n, caption);
		return 0;
	}
	return lwm_fail(e, LWM_EUSAGE, "%s: pictures of a page are .png, .jpg or .svg", path);
}
