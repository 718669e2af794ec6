/* Text files as records: plain, gzip and zstd, lines and JSON lines, split by lines and separators, under tiny limits.
 *
 * The first five bytes choose the settings, the rest is the file: as it is, or packed here so that changes reach the text. What
 * the reader makes of it is compared with a plain reading of the same text; no record is longer than the limit, memory stays in
 * proportion to limit and file, and every document is written or rejected. */
#include <fcntl.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "common/data/ingest/ingest_int.h"
#include "common/io/manifest.h"
#include "tests/fuzz/replay.h"

static struct lwm_tokenizer *bytes;
static struct lwm_fields *fields;
static const char *const separators[] = { NULL, "", "-", "---", "a longer one than the limit" };

static void must_at(bool ok, int line)
{
	if (ok)
		return;
	fprintf(stderr, "fuzz_text.c:%d does not hold\n", line);
	abort();
}
#define must(cond) must_at(cond, __LINE__)

static void set_up(void)
{
	static const char *const text[] = { "text" };
	const struct lwm_fields_cfg cfg = { .fields = text, .nfields = 1 };
	if (bytes)
		return;
	must(lwm_tokenizer_open(&bytes, "bytes", NULL) == 0);
	must(lwm_fields_open(&fields, &cfg, bytes, NULL) == 0);
}

/* ---- the file ---- */

enum kind { AS_IS, GZIP, ZSTD, KINDS };

static size_t pack(enum kind k, const uint8_t *p, size_t n, uint8_t **out)
{
	size_t room = k == GZIP ? compressBound((uLong)n) + 64 : k == ZSTD ? ZSTD_compressBound(n) : n;
	*out = malloc(room + 1);
	must(*out != NULL);
	if (k == ZSTD)
		return ZSTD_compress(*out, room, p, n, 1);
	if (k == AS_IS) {
		memcpy(*out, p, n);
		return n;
	}
	z_stream z = { .next_in = (uint8_t *)(uintptr_t)p, .avail_in = (unsigned)n, .next_out = *out, .avail_out = (unsigned)room };
	must(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
	must(deflate(&z, Z_FINISH) == Z_STREAM_END);
	n = z.total_out;
	deflateEnd(&z);
	return n;
}

static bool looks_packed(const uint8_t *p, size_t n)
{
	return (n >= 2 && p[0] == 0x1f && p[1] == 0x8b) || (n >= 4 && !memcmp(p, "\x28\xb5\x2f\xfd", 4));
}

/* ---- the same reading, plainly ---- */

struct plain {
	const uint8_t *p;
	size_t n, at;
	bool any;
};

static bool plain_line(struct plain *t, const uint8_t **s, size_t *n)
{
	if (t->at == t->n)
		return false;
	const uint8_t *end = memchr(t->p + t->at, '\n', t->n - t->at);
	*s = t->p + t->at;
	*n = end ? (size_t)(end - *s) : t->n - t->at;
	t->at += *n + (end != NULL);
	if (end && *n && (*s)[*n - 1] == '\r')
		--*n;
	return true;
}

static bool is_blank(const uint8_t *s, size_t n)
{
	while (n && (s[n - 1] == ' ' || s[n - 1] == '\t'))
		n--;
	return n == 0;
}

/* 1 and the text; 2 a record over the limit; 0 the end. */
static int plain_record(struct plain *t, const struct lwm_reader *r, size_t limit, struct lwm_str *text)
{
	const struct lwm_ingest_cfg *c = r->cfg;
	const uint8_t *s;
	size_t n;
	int64_t lines = 0;
	bool over = false, cut = false;
	lwm_str_reset(text);
	while (plain_line(t, &s, &n)) {
		if (!r->format->is_text && n <= limit && is_blank(s, n))
			continue;
		if (r->format->is_text && c->separator && n == strlen(c->separator) && !memcmp(s, c->separator, n)) {
			cut = true;
			break;
		}
		over = over || text->len + (lines > 0) + n > limit;
		lwm_str_add(text, "\n", lines > 0);
		lwm_str_add(text, s, n);
		if (++lines == (!r->format->is_text ? 1 : c->split_lines))
			break;
	}
	bool one = lines > 0 || (r->format->is_text && (cut || !t->any));
	t->any = true;
	return one ? over ? 2 : 1 : 0;
}

/* ---- properties ---- */

/* In use besides what is cached; 0 where the allocator does not say (address sanitizer). */
static size_t in_use(void)
{
	struct mallinfo2 m = mallinfo2();
	return m.uordblks + m.hblkhd;
}

static void read_records(const struct lwm_ingest_cfg *c, const char *path, struct plain *t, size_t file)
{
	struct lwm_reader r;
	struct lwm_record rec = { 0 };
	struct lwm_str want = { 0 };
	struct lwm_err e = { 0 };
	size_t before = in_use(), limit = (size_t)c->max_bytes;
	int more, expect;
	if (lwm_reader_open(&r, c, path, &e) < 0) {
		must(e.code && *e.msg && !t);
		return;
	}
	while ((more = lwm_reader_next(&r, &rec, &e)) > 0) {
		must(rec.text.len <= limit);
		must(rec.text.cap <= 2 * limit + (17 << 10)); /* what it keeps from the record before it is small */
		must(in_use() <= before + (1 << 20) + 8 * limit + 2 * file + (t ? 2 * t->n : (size_t)192 << 20));
		expect = t ? plain_record(t, &r, limit, &want) : 1;
		must(expect > 0 && (!t || (expect == 2) == (rec.fault != NULL)));
		if (t && expect == 1)
			must(rec.text.len == want.len && !memcmp(lwm_str_get(&rec.text), lwm_str_get(&want), want.len));
		must(lwm_record_encode(&rec, c, path, &e) == 0);
		must(rec.fault || rec.doc.ids.n > 0);
		must(!rec.malformed || *rec.why.msg);
	}
	if (more < 0)
		must(e.code && *e.msg && !t);
	else if (t)
		must(plain_record(t, &r, limit, &want) == 0);
	lwm_reader_close(&r);
	lwm_str_release(&want);
	lwm_str_release(&rec.text);
	lwm_docbuf_release(&rec.doc);
}

/* The whole way: documents in = documents out + rejected, in the manifest too. */
static void ingest(const struct lwm_ingest_cfg *c, const char *path)
{
	char dir[40], name[64];
	struct lwm_paths in = { 0 }, out = { 0 };
	struct lwm_ingest_stats st;
	struct lwm_manifest m;
	struct lwm_err e = { 0 };
	snprintf(dir, sizeof dir, "%s/lwm_fuzz_XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	must(mkdtemp(dir) != NULL);
	snprintf(name, sizeof name, "%s/x.h5", dir);
	must(lwm_paths_add(&in, path, NULL) == 0 && lwm_paths_add(&out, name, NULL) == 0);
	if (lwm_ingest_run(c, &in, &out, &st, &e) == 0) {
		must(st.in == st.out + st.malformed + st.filtered);
		must(lwm_manifest_read(&m, name, NULL) == 0);
		must(m.in == st.in && m.out == st.out && m.in == m.out + m.rejected);
		lwm_manifest_release(&m);
	} else {
		must(e.code && *e.msg && !lwm_path_exists(name));
	}
	lwm_paths_release(&in);
	lwm_paths_release(&out);
	lwm_remove_tree(dir, NULL);
}

static void fuzz_one(const uint8_t *p, size_t n)
{
	char path[64];
	struct lwm_ingest_cfg c = { .max_bad = -1, .force = true, .threads = 1, .tool = "fuzz", .config = "{}", .policy = "bos,eos" };
	if (n < 5 || n > 1 << 20)
		return;
	set_up();
	enum kind k = p[0] % KINDS;
	c.tokenizer = bytes;
	c.fields = fields;
	c.split_lines = p[1] % 5;
	c.separator = separators[p[2] % 5];
	c.max_bytes = p[3] < 200 ? 1 + p[3] % 24 : (int64_t)1 << (p[3] % 20);
	c.format = p[4] & 1 ? LWM_FORMAT_JSONL : LWM_FORMAT_TEXT;
	c.replace_bad_utf8 = p[4] & 2;
	bool whole = (p[4] & 12) == 12 && lwm_hash64(p, n, 0) % 8 == 0; /* writing a shard takes longer than all else */
	p += 5;
	n -= 5;
	uint8_t *file;
	size_t size = pack(k, p, n, &file);
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	must(fd >= 0 && write(fd, file, size) == (ssize_t)size);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	size_t bom = n >= 3 && !memcmp(p, "\xef\xbb\xbf", 3) ? 3 : 0;
	struct plain t = { p, n, bom, false };
	read_records(&c, path, k == AS_IS && looks_packed(p, n) ? NULL : &t, size);
	if (whole)
		ingest(&c, path);
	close(fd);
	free(file);
}
