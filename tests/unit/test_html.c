/* Pages: whatever comes from outside is text or a picture in them, and never markup, script or half a character. */
#include "tests/unit/eval_fixture.h"

#include <ctype.h>

#include "common/base/utf8.h"
#include "common/eval/html.h"
#include "common/eval/plot.h"
#include "common/eval/run_report.h"

static const char policy[] = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
			     "style-src 'unsafe-inline'\">";

/* ---- a strict reader of pages ---- */

static bool one_of(const char *word, size_t n, const char *const *list)
{
	for (; *list; list++)
		if (strlen(*list) == n && !strncmp(word, *list, n))
			return true;
	return false;
}

/* A tag from '<' to '>': known name, known attributes, each in double quotes. Returns what follows it. */
static const char *read_tag(const char *p)
{
	static const char *const tags[] = { "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "table", "tr", "td",
					    "th", "figure", "figcaption", "img", "pre", NULL };
	static const char *const attributes[] = { "lang", "charset", "http-equiv", "content", "name", "class", "alt", "src", NULL };
	p += 1 + (p[1] == '/');
	size_t n = strspn(p, "abcdefghijklmnopqrstuvwxyz0123456789");
	if (!one_of(p, n, tags))
		fail_msg("a foreign tag: %.60s", p - 1);
	for (p += n; *p == ' ';) {
		p++;
		n = strspn(p, "abcdefghijklmnopqrstuvwxyz-");
		if (!one_of(p, n, attributes) || p[n] != '=' || p[n + 1] != '"')
			fail_msg("a foreign attribute: %.60s", p);
		if (!strncmp(p, "src", n))
			assert_int_equal(strncmp(p + n + 2, "data:image/", 11), 0);
		p = strchr(p + n + 2, '"');
		assert_non_null(p);
		p++;
	}
	if (*p != '>')
		fail_msg("a tag does not end: %.60s", p);
	return p + 1;
}

/* Counts the tags of a page that is as it must be. */
static int64_t tame(const struct lwm_str *page)
{
	int64_t n = 0;
	const char *p = page->s, *head = strstr(page->s, "<meta charset=\"utf-8\">");
	assert_int_equal(strlen(page->s), page->len);
	assert_int_equal(lwm_utf8_check(page->s, page->len), page->len);
	/* before anything that comes from outside */
	assert_non_null(head);
	assert_int_equal(strncmp(head + strlen("<meta charset=\"utf-8\">"), policy, strlen(policy)), 0);
	assert_int_equal(strncmp(p, "<!doctype html>\n", 16), 0);
	for (p += 16; *p;) {
		assert_true((unsigned char)*p >= 0x20 || *p == '\n' || *p == '\t');
		if (!strncmp(p, "<style>", 7))
			p = strstr(p, "</style>");
		else if (*p == '<')
			p = read_tag(p), n++;
		else
			p++;
	}
	return n;
}

#define BYTES(s) s, sizeof s - 1

/* ---- texts ---- */

static void test_text(void **state)
{
	static const struct {
		const char *text;
		size_t n;
		const char *want;
	} t[] = {
		{ BYTES("<script>alert(1)</script>"), "&lt;script&gt;alert(1)&lt;/script&gt;" },
		{ BYTES("\" onerror='x' &amp;"), "&quot; onerror=&#39;x&#39; &amp;amp;" },
		{ BYTES("ü漢🙂\n\t"), "ü漢🙂\n\t" },
		{ BYTES("a\0b"), "a␀b" },
		{ BYTES("\x1b[2J\r\x7f\a"), "␛[2J␍␡␇" },
		{ BYTES("\xff<\xc3\xc0\xaf\xed\xa0\x80"), "\xEF\xBF\xBD&lt;\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD" },
		{ BYTES("\xc2\x9b|\xc2\xa0"), "\xEF\xBF\xBD|\xc2\xa0" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct lwm_str b = { 0 };
		lwm_html_add_bytes(&b, t[i].text, t[i].n);
		assert_string_equal(lwm_str_get(&b), t[i].want);
		lwm_str_release(&b);
	}
}

static int64_t page_of(const char *text, size_t n)
{
	struct lwm_str b = { 0 };
	char *z = strndup(text, n);
	assert_non_null(z);
	lwm_html_begin(&b, z);
	lwm_html_add_heading(&b, 2, z);
	lwm_html_add_paragraph(&b, z);
	lwm_html_add_svg(&b, text, n, z);
	lwm_html_add_png(&b, text, n, z);
	lwm_html_begin_rows(&b);
	lwm_html_add_png_row(&b, text, n, z);
	lwm_html_end_rows(&b, z);
	lwm_str_puts(&b, "<pre>");
	lwm_html_add_bytes(&b, text, n);
	lwm_str_puts(&b, "</pre>\n");
	lwm_html_end(&b);
	int64_t tags = tame(&b);
	lwm_str_release(&b);
	free(z);
	return tags;
}

/* The same tags stand in a page of any text as in one of none. */
static void test_random(void **state)
{
	static const char *const pieces[] = { "<", ">", "\"", "'", "&", "</pre>", "<script>", "</script>", "<!--", "-->", "]]>", "\n",
					      "onload=", "javascript:", "\xff", "\xc3", "\xe2\x80", "\x1b", "ü", "</title>", "a", "=", " " };
	struct lwm_rng r = lwm_rng_at(3, LWM_RNG_TEST, 0, 0);
	int64_t want = page_of("", 0);
	(void)state;
	for (int k = 0; k < 400; k++) {
		struct lwm_str t = { 0 };
		for (int64_t i = lwm_rng_below(&r, 30); i >= 0; i--) {
			if (lwm_rng_below(&r, 4) == 0)
				lwm_str_putc(&t, (char)lwm_rng_below(&r, 256));
			else
				lwm_str_puts(&t, pieces[lwm_rng_below(&r, sizeof pieces / sizeof *pieces)]);
		}
		assert_int_equal(page_of(t.s, t.len), want);
		lwm_str_release(&t);
	}
}

/* ---- pictures ---- */

static int value_of(char c)
{
	return isupper((unsigned char)c)   ? c - 'A'
	       : islower((unsigned char)c) ? c - 'a' + 26
	       : isdigit((unsigned char)c) ? c - '0' + 52
	       : c == '+'		   ? 62
	       : c == '/'		   ? 63
					   : -1;
}

/* The page shows exactly these bytes as this type. */
static void shows(const struct lwm_str *b, const char *type, const char *data, size_t n)
{
	char start[64];
	snprintf(start, sizeof start, "src=\"data:%s;base64,", type);
	const char *p = strstr(b->s, start);
	assert_non_null(p);
	p += strlen(start);
	for (size_t i = 0; i < n; i++, p += i % 3 ? 1 : 2) {
		int hi = value_of(p[0]), lo = value_of(p[1]), at = (int)(i % 3);
		assert_true(hi >= 0 && lo >= 0);
		assert_int_equal((unsigned char)data[i], ((hi << (2 + 2 * at)) | (lo >> (4 - 2 * at))) & 255);
	}
}

static const char png[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1", jpeg[] = "\xff\xd8\xff\xe0JFIF";
static const char evil[] = "<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"><script>alert(2)</script></svg>";

static void test_pictures(void **state)
{
	static const struct {
		const char *name, *data;
		size_t n;
		const char *type; /* NULL: refused */
	} t[] = {
		{ "a.svg", BYTES(evil), "image/svg+xml" },
		{ "a.png", BYTES(png), "image/png" },
		{ "a.PNG", BYTES(png), "image/png" },
		{ "a.jpg", BYTES(jpeg), "image/jpeg" },
		{ "a.svg", BYTES("<?xml version=\"1.0\"?>\n<!-- a > b --><!DOCTYPE svg>\n<svg/>"), "image/svg+xml" },
		{ "a.svg", BYTES("\xef\xbb\xbf<!DOCTYPE svg [ <!ENTITY a \"b>\"> ] >\n<svg width='1'>"), "image/svg+xml" },
		{ "a.svg", BYTES("<!DOCTYPE html><html><svg></svg></html>"), NULL },
		{ "a.svg", BYTES("<html><svg></svg></html>"), NULL },
		{ "a.svg", BYTES("<svgx>"), NULL },
		{ "a.svg", BYTES("<!-- never closed <svg>"), NULL },
		{ "a.svg", BYTES(""), NULL },
		{ "a.svg", BYTES(png), NULL },
		{ "a.png", BYTES("<html><script>alert(1)</script></html>"), NULL },
		{ "a.png", BYTES(evil), NULL },
		{ "a.png", png, 15, NULL },
		{ "a.jpg", BYTES(png), NULL },
		{ "a.jpeg", BYTES("<html>"), NULL },
	};
	(void)state;
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct lwm_str b = { 0 };
		struct lwm_err e = { 0 };
		char *copy = malloc(t[i].n + 1); /* of its size: a read behind it is seen */
		assert_non_null(copy);
		memcpy(copy, t[i].data, t[i].n);
		lwm_html_begin(&b, "t");
		int rc = lwm_html_add_picture(&b, t[i].name, copy, t[i].n, "a <b>", &e);
		if (rc != (t[i].type ? 0 : -LWM_EDATA))
			fail_msg("picture %zu: %d %s", i, rc, e.msg);
		lwm_html_end(&b);
		tame(&b);
		if (t[i].type)
			shows(&b, t[i].type, t[i].data, t[i].n);
		else
			assert_true(strstr(e.msg, t[i].name) && !strstr(b.s, "<img"));
		lwm_str_release(&b);
		free(copy);
	}
	FAILS(lwm_html_add_picture(&(struct lwm_str){ 0 }, "a.html", BYTES(evil), "c", err), LWM_EUSAGE, "a.html");
}

/* ---- whole reports ---- */

static void add(struct lwm_paths *p, const char *name, const char *path)
{
	char spec[600];
	snprintf(spec, sizeof spec, "%s=%s", name, path);
	OK(lwm_paths_add(p, spec, err));
}

static void write_bytes(const char *path, const void *data, size_t n)
{
	OK(lwm_write_file(path, data, n, true, err));
}

static void test_report(void **state)
{
	static const char hostile[] = "</td><script>alert(1)</script>\xff\x1b\"'&";
	struct lwm_run_report r = { .title = hostile };
	struct lwm_str page = { 0 }, failures = { 0 };
	char spec[600];
	int64_t failed;
	(void)state;
	OK(lwm_mkdirs(fx_path("stage"), err));
	fx_write("stage/metrics.jsonl", "{\"event\":\"start\",\"step\":0,\"unit\":\"<b id=x>\"}\n"
					"{\"event\":\"step\",\"step\":1,\"loss\":3.5,\"seconds\":1,\"seen\":64}\n"
					"{\"event\":\"step\",\"step\":2,\"loss\":2.5,\"seconds\":1,\"seen\":128}\n");
	add(&r.stages, hostile, fx_path("stage"));
	write_bytes(fx_path("evil.svg"), BYTES(evil));
	add(&r.pictures, hostile, fx_path("evil.svg"));
	write_bytes(fx_path("said.txt"), BYTES("before\0<script>behind the zero\xff"));
	add(&r.texts, hostile, fx_path("said.txt"));
	snprintf(spec, sizeof spec, "%s: %s#v >= 3", hostile, fx_write("v.json", "{\"v\":2}"));
	OK(lwm_paths_add(&r.checks, spec, err));
	r.timing = fx_write("timing.jsonl", "{\"stage\":\"<script>\",\"seconds\":1.5}\n");
	OK(lwm_run_report_make(&r, &page, &failures, &failed, err));
	tame(&page);
	assert_non_null(strstr(page.s, "before␀&lt;script&gt;behind the zero\xEF\xBF\xBD"));
	assert_non_null(strstr(page.s, "&lt;b id=x&gt;"));
	shows(&page, "image/svg+xml", "<?xml", 5); /* our own chart is an image as well */
	assert_null(strstr(page.s, "<svg"));
	assert_string_equal(failures.s, "</td><script>alert(1)</script>\\xff\\x1b\"'&: 2, wanted >= 3\n");
	write_bytes(fx_path("fake.png"), BYTES(evil));
	add(&r.pictures, "fake", fx_path("fake.png"));
	lwm_str_reset(&page);
	FAILS(lwm_run_report_make(&r, &page, &failures, &failed, err), LWM_EDATA, "fake.png");
	lwm_str_release(&page);
	lwm_str_release(&failures);
	lwm_paths_release(&r.stages);
	lwm_paths_release(&r.pictures);
	lwm_paths_release(&r.texts);
	lwm_paths_release(&r.checks);
}

/* cairo refuses text that is no UTF-8; the picture is drawn all the same. */
static void test_chart_names(void **state)
{
	double x[] = { 1, 2 }, y[] = { 1, 2 };
	struct lwm_curve curve = { "stage \xff\xc3\x1b", x, y, 2 };
	struct lwm_chart c = { .title = "\xed\xa0\x80", .x_label = "\x80", .y_label = "y", .curve = &curve, .ncurves = 1 };
	struct lwm_str svg = { 0 };
	(void)state;
	OK(lwm_plot_draw_chart(&svg, &c, LWM_PLOT_SVG, err));
	assert_non_null(strstr(svg.s, "</svg>"));
	lwm_str_release(&svg);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),	 cmocka_unit_test(test_random),	     cmocka_unit_test(test_pictures),
		cmocka_unit_test(test_report), cmocka_unit_test(test_chart_names),
	};
	return cmocka_run_group_tests(tests, fx_set_up, fx_tear_down);
}
