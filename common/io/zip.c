/* Reads the central directory of a ZIP archive, and nothing that is compressed. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/arena.h"
#include "common/io/pio.h"
#include "common/io/zip.h"

enum {
	END = 22, END64 = 56, LOCATOR = 20, CENTRAL = 46, LOCAL = 30, /* bytes of the fixed parts */
	TAIL = END + 65535 + LOCATOR, /* the last record begins not earlier than here */
	PIECE = 1 << 18,
};
#define DIRECTORY_MOST (1LL << 30)

struct lwm_zip {
	const char *path;
	int fd;
	int64_t bytes;
	struct lwm_zip_entry *entry; /* by place */
	const struct lwm_zip_entry **name; /* by name */
	int64_t n;
	struct lwm_arena *names;
};

static uint64_t get(const unsigned char *p, int bytes)
{
	uint64_t v = 0;
	for (int i = bytes; i-- > 0;)
		v = v << 8 | p[i];
	return v;
}

static int fault(const struct lwm_zip *z, const char *what, struct lwm_err *e)
{
	return lwm_fail(e, LWM_EDATA, "%s: %s", z->path, what);
}

struct directory {
	uint64_t at, bytes, entries;
};

/* The record of ZIP64, which the 20 bytes before the usual one point to. */
static int end_of_zip64(struct lwm_zip *z, const unsigned char *locator, struct directory *d, struct lwm_err *e)
{
	unsigned char r[END64];
	uint64_t at = get(locator + 8, 8);
	if (z->bytes < END64 || at > (uint64_t)(z->bytes - END64))
		return fault(z, "its directory is said to lie behind its end", e);
	LWM_TRY(lwm_pread_all(z->fd, r, END64, (int64_t)at, z->path, e));
	if (memcmp(r, "PK\6\6", 4))
		return fault(z, "its ZIP64 record is damaged", e);
	d->entries = get(r + 32, 8);
	d->bytes = get(r + 40, 8);
	d->at = get(r + 48, 8);
	return 0;
}

static int find_directory(struct lwm_zip *z, struct directory *d, struct lwm_err *e)
{
	int64_t n = z->bytes < TAIL ? z->bytes : TAIL, i;
	unsigned char *tail = malloc((size_t)n + 1);
	int rc;
	if (!tail)
		return lwm_fail_memory(e, z->path);
	LWM_GO(lwm_pread_all(z->fd, tail, n, z->bytes - n, z->path, e));
	for (i = n - END; i >= 0 && memcmp(tail + i, "PK\5\6", 4); i--)
		;
	if (i < 0) {
		rc = fault(z, "an archive (ZIP) without its directory: cut short?", e);
		goto out;
	}
	d->entries = get(tail + i + 10, 2);
	d->bytes = get(tail + i + 12, 4);
	d->at = get(tail + i + 16, 4);
	if (i >= LOCATOR && !memcmp(tail + i - LOCATOR, "PK\6\7", 4))
		rc = end_of_zip64(z, tail + i - LOCATOR, d, e);
	if (rc == 0 && (d->at > (uint64_t)z->bytes || d->bytes > (uint64_t)z->bytes - d->at || d->bytes > DIRECTORY_MOST ||
			d->entries > d->bytes / CENTRAL))
		rc = fault(z, "its directory does not fit into the file", e);
out:
	free(tail);
	return rc;
}

/* Sizes and place that do not fit into 4 bytes stand in an extra field, in this order, each if it is all ones. */
static bool wide(const unsigned char *extra, uint64_t n, uint64_t *size, uint64_t *packed, uint64_t *at)
{
	uint64_t *const field[] = { size, packed, at };
	uint64_t len = 0;
	if (*size != UINT32_MAX && *packed != UINT32_MAX && *at != UINT32_MAX)
		return true;
	for (; n >= 4; extra += 4 + len, n -= 4 + len) {
		uint64_t used = 4;
		len = get(extra + 2, 2);
		if (len > n - 4)
			return false;
		if (get(extra, 2) != 1)
			continue;
		for (int i = 0; i < 3; i++) {
			if (*field[i] != UINT32_MAX)
				continue;
			if (used + 8 > 4 + len)
				return false;
			*field[i] = get(extra + used, 8);
			used += 8;
		}
		return true;
	}
	return false;
}

/* Where the data of an entry begin: behind its local header, whose name and extra field may have other lengths. */
static int place(struct lwm_zip *z, struct lwm_zip_entry *x, uint64_t header, struct lwm_err *e)
{
	unsigned char r[LOCAL];
	if (z->bytes < LOCAL || header > (uint64_t)(z->bytes - LOCAL))
		return lwm_fail(e, LWM_EDATA, "%s: '%.80s' is said to lie behind its end", z->path, x->name);
	LWM_TRY(lwm_pread_all(z->fd, r, LOCAL, (int64_t)header, z->path, e));
	if (memcmp(r, "PK\3\4", 4))
		return lwm_fail(e, LWM_EDATA, "%s: '%.80s' does not lie where its directory says", z->path, x->name);
	x->at = (int64_t)(header + LOCAL + get(r + 26, 2) + get(r + 28, 2));
	if (x->at > z->bytes || x->bytes > z->bytes - x->at)
		return lwm_fail(e, LWM_EDATA, "%s: '%.80s' reaches beyond its end", z->path, x->name);
	return 0;
}

/* The entry at p, of at most n bytes; *used: its bytes in the directory. */
static int read_entry(struct lwm_zip *z, const unsigned char *p, uint64_t n, uint64_t *used, struct lwm_err *e)
{
	struct lwm_zip_entry *x = &z->entry[z->n];
	if (n < CENTRAL || memcmp(p, "PK\1\2", 4))
		return fault(z, "its directory is damaged", e);
	uint64_t name = get(p + 28, 2), extra = get(p + 30, 2), size = get(p + 24, 4), packed = get(p + 20, 4), at = get(p + 42, 4);
	*used = CENTRAL + name + extra + get(p + 32, 2);
	if (*used > n || memchr(p + CENTRAL, 0, name))
		return fault(z, "its directory is damaged", e);
	char *text = lwm_arena_alloc(&z->names, name + 1);
	if (!text)
		return lwm_fail_memory(e, z->path);
	memcpy(text, p + CENTRAL, name);
	x->name = text;
	x->crc = (uint32_t)get(p + 16, 4);
	if (!wide(p + CENTRAL + name, extra, &size, &packed, &at))
		return lwm_fail(e, LWM_EDATA, "%s: '%.80s' has no size", z->path, x->name);
	if (get(p + 10, 2) || (get(p + 8, 2) & 1) || size != packed)
		return lwm_fail(e, LWM_EDATA, "%s: '%.80s' is compressed or encrypted, which files of weights are not", z->path,
				x->name);
	if (size > (uint64_t)z->bytes)
		return lwm_fail(e, LWM_EDATA, "%s: '%.80s' of %" PRIu64 " bytes is larger than the file", z->path, x->name, size);
	x->bytes = (int64_t)size;
	LWM_TRY(place(z, x, at, e));
	z->n++;
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct lwm_zip_entry *x = a, *y = b;
	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(const struct lwm_zip_entry *const *)a)->name, (*(const struct lwm_zip_entry *const *)b)->name);
}

static int sort(struct lwm_zip *z, struct lwm_err *e)
{
	qsort(z->entry, (size_t)z->n, sizeof *z->entry, by_place);
	for (int64_t i = 1; i < z->n; i++)
		if (z->entry[i].at < z->entry[i - 1].at + z->entry[i - 1].bytes)
			return lwm_fail(e, LWM_EDATA, "%s: '%.80s' and '%.80s' overlap", z->path, z->entry[i - 1].name,
					z->entry[i].name);
	for (int64_t i = 0; i < z->n; i++)
		z->name[i] = &z->entry[i];
	qsort(z->name, (size_t)z->n, sizeof *z->name, by_name);
	for (int64_t i = 1; i < z->n; i++)
		if (!strcmp(z->name[i - 1]->name, z->name[i]->name))
			return lwm_fail(e, LWM_EDATA, "%s: has '%.80s' twice", z->path, z->name[i]->name);
	return 0;
}

static int read_directory(struct lwm_zip *z, const struct directory *d, struct lwm_err *e)
{
	uint64_t at = 0, used = 0;
	int rc;
	unsigned char *p = malloc(d->bytes + 1);
	z->entry = calloc(d->entries + 1, sizeof *z->entry);
	z->name = calloc(d->entries + 1, sizeof *z->name);
	if (!p || !z->entry || !z->name) {
		free(p);
		return lwm_fail_memory(e, z->path);
	}
	LWM_GO(lwm_pread_all(z->fd, p, (int64_t)d->bytes, (int64_t)d->at, z->path, e));
	for (uint64_t i = 0; i < d->entries; i++, at += used)
		LWM_GO(read_entry(z, p + at, d->bytes - at, &used, e));
	rc = sort(z, e);
out:
	free(p);
	return rc;
}

int lwm_zip_open(struct lwm_zip **out, int fd, int64_t bytes, const char *path, struct lwm_err *e)
{
	struct directory d = { 0 };
	int rc;
	struct lwm_zip *z = calloc(1, sizeof *z);
	*out = NULL;
	if (!z)
		return lwm_fail_memory(e, path);
	z->path = path;
	z->fd = fd;
	z->bytes = bytes;
	LWM_GO(find_directory(z, &d, e));
	LWM_GO(read_directory(z, &d, e));
	*out = z;
	return 0;
out:
	lwm_zip_close(z);
	return rc;
}

void lwm_zip_close(struct lwm_zip *z)
{
	if (!z)
		return;
	lwm_arena_free(&z->names);
	free(z->entry);
	free(z->name);
	free(z);
}

int64_t lwm_zip_count(const struct lwm_zip *z)
{
	return z->n;
}

const struct lwm_zip_entry *lwm_zip_at(const struct lwm_zip *z, int64_t i)
{
	return &z->entry[i];
}

const struct lwm_zip_entry *lwm_zip_find(const struct lwm_zip *z, const char *name)
{
	const struct lwm_zip_entry key = { .name = name }, *p = &key;
	const struct lwm_zip_entry *const *at = bsearch(&p, z->name, (size_t)z->n, sizeof *z->name, by_name);
	return at ? *at : NULL;
}

/* CRC-32 of ISO 3309, four bits at a time. */
static uint32_t crc32_of(uint32_t crc, const unsigned char *p, int64_t n)
{
	static const uint32_t of[16] = {
		0,	    0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
		0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
	};
	for (int64_t i = 0; i < n; i++) {
		crc = of[(crc ^ p[i]) & 15] ^ crc >> 4;
		crc = of[(crc ^ p[i] >> 4) & 15] ^ crc >> 4;
	}
	return crc;
}

int lwm_zip_check(const struct lwm_zip *z, const struct lwm_zip_entry *x, struct lwm_err *e)
{
	uint32_t crc = UINT32_MAX;
	int rc = 0;
	if (!x->crc && x->bytes)
		return lwm_fail(e, LWM_ENO, "%s: '%.80s' carries no CRC-32", z->path, x->name);
	unsigned char *piece = malloc(PIECE);
	if (!piece)
		return lwm_fail_memory(e, z->path);
	for (int64_t done = 0; rc == 0 && done < x->bytes; done += PIECE) {
		int64_t n = x->bytes - done < PIECE ? x->bytes - done : PIECE;
		rc = lwm_pread_all(z->fd, piece, n, x->at + done, z->path, e);
		if (rc == 0)
			crc = crc32_of(crc, piece, n);
	}
	free(piece);
	if (rc == 0 && ~crc != x->crc)
		return lwm_fail(e, LWM_EDATA, "%s: '%.80s' is damaged: its CRC-32 is another", z->path, x->name);
	return rc;
}
