/* An HDF5 file of vectors, written and read by their places in it.
 *
 *	| structure (HDF5's) | vector 0: block, block ... | vector 1 | ... | sums: one a block, then one over all sums |
 *
 * Writing takes the sum of every block on its way out, and in the end reads the file back from the disk and compares. Reading
 * checks a block when a value of it is wanted, and keeps the last one of each vector. */
#include "common/io/vecfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/num.h"
#include "common/base/outfile.h"
#include "common/base/path.h"
#include "common/io/h5.h"
#include "common/io/openfile.h"
#include "common/io/pio.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "values are moved between memory and file unchanged: a little-endian machine is needed"
#endif

enum { BULK = 16 * LWM_VF_BLOCK, KICK = 8 << 20 };

static int64_t blocks_of(int64_t bytes, int64_t block)
{
	return (bytes + block - 1) / block;
}

struct wvec {
	struct lwm_vec v;
	int64_t at, bytes, done; /* place in the file, size, bytes that reached the file */
	int64_t sum0;            /* index of its first sum */
	char *part;              /* a block, `have` bytes of it waiting */
	int64_t have;
};

struct lwm_vfw {
	struct lwm_outfile *o;
	int nv; /* without `sums` */
	struct wvec vec[LWM_VF_MAX + 1];
	uint64_t *sum;
	int64_t nsum, bytes, block;
	int64_t kick_from, kick_to; /* written, and the disk not yet asked to begin with it */
};

static int check_room(const char *path, int64_t need, struct lwm_err *e)
{
	char a[32], b[32];
	int64_t room = lwm_space_free(path);
	if (room < 0 || room >= need)
		return 0;
	return lwm_fail(e, LWM_EIO, "%s: the file needs %s, the file system has %s left", path,
			lwm_bytes_text((double)need, a, sizeof a), lwm_bytes_text((double)room, b, sizeof b));
}

/* Small blocks for what is read in small pieces, as long as their sums are few. */
static int64_t fine_block(int64_t bytes)
{
	int64_t block = LWM_VF_FINE;
	while (block < LWM_VF_BLOCK && blocks_of(bytes, block) > LWM_VF_FINE_SUMS)
		block *= 2;
	return block;
}

/* Sizes, sums and buffers of all vectors; the table of sums is the last one. */
static int plan_vectors(struct lwm_vfw *w, const struct lwm_vec *v, int nv, bool fine, int64_t *total, struct lwm_err *e)
{
	*total = 0;
	w->nv = nv;
	for (int i = 0; i < nv; i++) {
		struct wvec *x = &w->vec[i];
		int64_t n = v[i].n == LWM_VEC_ABSENT ? 0 : v[i].n;
		x->v = v[i];
		if (lwm_mul(n, lwm_vtype_bytes(v[i].type), &x->bytes) || *total > INT64_MAX / 2 - x->bytes)
			return lwm_fail(e, LWM_EDATA, "%s: '%s' would be too large", w->o->path, v[i].name);
		*total += x->bytes;
	}
	w->block = fine ? fine_block(*total) : LWM_VF_BLOCK;
	for (int i = 0; i < nv; i++) {
		w->vec[i].sum0 = w->nsum;
		w->nsum += blocks_of(w->vec[i].bytes, w->block);
	}
	w->vec[nv].v = (struct lwm_vec){ "sums", LWM_V_U64, w->nsum + 1 };
	w->vec[nv].bytes = (w->nsum + 1) * 8;
	*total += w->vec[nv].bytes + (1 << 16);
	w->sum = calloc((size_t)w->nsum + 1, 8);
	for (int i = 0; i < nv; i++)
		w->vec[i].part = malloc((size_t)w->block);
	for (int i = 0; i < nv; i++)
		if (!w->sum || !w->vec[i].part)
			return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", w->o->path);
	return 0;
}

static int make_structure(struct lwm_vfw *w, const char *schema, struct lwm_err *e)
{
	struct lwm_vec v[LWM_VF_MAX + 1];
	int64_t at[LWM_VF_MAX + 1];
	for (int i = 0; i <= w->nv; i++)
		v[i] = w->vec[i].v;
	LWM_TRY(lwm_h5_create(w->o->fd, w->o->path, schema, v, w->nv + 1, at, &w->bytes, e));
	for (int i = 0; i <= w->nv; i++)
		w->vec[i].at = at[i];
	return 0;
}

int lwm_vfw_open(struct lwm_vfw **out, const char *path, bool among, const char *schema, const struct lwm_vec *v,
		 int nv, bool fine, struct lwm_err *e)
{
	int64_t total = 0;
	int rc;
	struct lwm_vfw *w = calloc(1, sizeof *w);
	*out = NULL;
	LWM_BUG_ON(nv > LWM_VF_MAX);
	if (!w)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	LWM_GO(among ? lwm_outfile_open_among(&w->o, path, e) : lwm_outfile_open(&w->o, path, true, e));
	LWM_GO(plan_vectors(w, v, nv, fine, &total, e));
	LWM_GO(check_room(path, total, e));
	LWM_GO(make_structure(w, schema, e));
	*out = w;
	return 0;
out:
	lwm_vfw_discard(w);
	return rc;
}

/* Lets the disk begin while the next values are made and hashed. Only fsync says what came of it. */
static void begin_writing(struct lwm_vfw *w, int64_t at, int64_t n)
{
	if (at != w->kick_to)
		w->kick_from = at;
	w->kick_to = at + n;
	if (w->kick_to - w->kick_from < KICK)
		return;
	sync_file_range(w->o->fd, w->kick_from, w->kick_to - w->kick_from, SYNC_FILE_RANGE_WRITE);
	w->kick_from = w->kick_to;
}

/* Whole blocks, or the last one of the vector: `done` counts what reached the file. */
static int put_blocks(struct lwm_vfw *w, struct wvec *x, const char *p, int64_t n, struct lwm_err *e)
{
	for (int64_t i = 0; i < n; i += w->block) {
		int64_t len = n - i < w->block ? n - i : w->block;
		w->sum[x->sum0 + (x->done + i) / w->block] = lwm_hash64(p + i, (size_t)len, 0);
	}
	LWM_TRY(lwm_pwrite_all(w->o->fd, p, n, x->at + x->done, w->o->path, e));
	begin_writing(w, x->at + x->done, n);
	x->done += n;
	return 0;
}

static int put_bytes(struct lwm_vfw *w, struct wvec *x, const char *p, int64_t n, struct lwm_err *e)
{
	while (n) {
		if (x->have == 0 && n >= w->block) {
			int64_t whole = n / w->block * w->block;
			whole = whole < BULK ? whole : BULK;
			LWM_TRY(put_blocks(w, x, p, whole, e));
			p += whole;
			n -= whole;
			continue;
		}
		int64_t k = w->block - x->have < n ? w->block - x->have : n;
		memcpy(x->part + x->have, p, (size_t)k);
		x->have += k;
		p += k;
		n -= k;
		if (x->have == w->block) {
			LWM_TRY(put_blocks(w, x, x->part, w->block, e));
			x->have = 0;
		}
	}
	return 0;
}

int lwm_vfw_put(struct lwm_vfw *w, int vec, const void *p, int64_t n, struct lwm_err *e)
{
	struct wvec *x = &w->vec[vec];
	int64_t bytes = n * lwm_vtype_bytes(x->v.type);
	if (bytes > x->bytes - x->done - x->have)
		return lwm_fail(e, LWM_EINTERNAL, "%s: more values for '%s' than were announced", w->o->path,
				x->v.name);
	LWM_TRY(put_bytes(w, x, p, bytes, e));
	if (x->have && x->done + x->have == x->bytes) {
		LWM_TRY(put_blocks(w, x, x->part, x->have, e));
		x->have = 0;
	}
	return 0;
}

static int check_complete(const struct lwm_vfw *w, int nvec, struct lwm_err *e)
{
	for (int i = 0; i < nvec; i++)
		if (w->vec[i].done != w->vec[i].bytes)
			return lwm_fail(e, LWM_EINTERNAL, "%s: '%s' lacks values", w->o->path, w->vec[i].v.name);
	return 0;
}

int lwm_vfw_content(struct lwm_vfw *w, int nvec, struct lwm_hash *out, struct lwm_err *e)
{
	LWM_TRY(check_complete(w, nvec, e));
	struct lwm_hasher *h = lwm_hasher_new();
	if (!h)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", w->o->path);
	for (int i = 0; i < nvec; i++)
		lwm_hasher_add(h, &w->vec[i].v.n, sizeof w->vec[i].v.n);
	int64_t n = nvec < w->nv ? w->vec[nvec].sum0 : w->nsum;
	lwm_hasher_add(h, w->sum, (size_t)n * 8);
	*out = lwm_hasher_end(h);
	return 0;
}

/* ---- reading back what was written ---- */

struct readback {
	struct lwm_vfw *w;
	struct lwm_hasher *h;
	char *buf; /* BULK bytes */
	int64_t at;
};

/* Hashes the file up to byte `end`; with x, compares each block of it with the sum of what was in memory. */
static int read_back(struct readback *b, int64_t end, const struct wvec *x, struct lwm_err *e)
{
	struct lwm_vfw *w = b->w;
	while (b->at < end) {
		int64_t n = end - b->at < BULK ? end - b->at : BULK;
		LWM_TRY(lwm_pread_all(w->o->fd, b->buf, n, b->at, w->o->path, e));
		lwm_hasher_add(b->h, b->buf, (size_t)n);
		for (int64_t i = 0; x && i < n; i += w->block) {
			int64_t len = n - i < w->block ? n - i : w->block, k = x->sum0 + (b->at - x->at + i) / w->block;
			if (lwm_hash64(b->buf + i, (size_t)len, 0) != w->sum[k])
				return lwm_fail(e, LWM_EIO,
						"%s: what was read back differs from what was written, byte %" PRId64
						" of '%s'",
						w->o->path, b->at - x->at + i, x->v.name);
		}
		b->at += n;
	}
	return 0;
}

static int compare_vectors(struct readback *b, struct lwm_err *e)
{
	struct lwm_vfw *w = b->w;
	for (;;) { /* vectors in the order of their places */
		const struct wvec *next = NULL;
		for (int i = 0; i < w->nv; i++)
			if (w->vec[i].bytes && w->vec[i].at >= b->at && (!next || w->vec[i].at < next->at))
				next = &w->vec[i];
		if (!next)
			return read_back(b, w->bytes, NULL, e);
		LWM_TRY(read_back(b, next->at, NULL, e));
		LWM_TRY(read_back(b, next->at + next->bytes, next, e));
	}
}

int lwm_vfw_finish(struct lwm_vfw *w, struct lwm_hash *hash, int64_t *bytes, struct lwm_err *e)
{
	struct readback b = { .w = w };
	int rc;
	LWM_TRY(check_complete(w, w->nv, e));
	w->sum[w->nsum] = lwm_hash64(w->sum, (size_t)w->nsum * 8, 0);
	LWM_TRY(lwm_pwrite_all(w->o->fd, w->sum, (w->nsum + 1) * 8, w->vec[w->nv].at, w->o->path, e));
	if (fsync(w->o->fd))
		return lwm_fail_errno(e, LWM_EIO, errno, "%s: fsync failed", w->o->path);
	lwm_drop_cache(w->o->fd); /* what is compared is what the disk has */
	b.h = lwm_hasher_new();
	b.buf = malloc(BULK);
	rc = b.h && b.buf ? compare_vectors(&b, e) : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", w->o->path);
	if (b.h)
		*hash = lwm_hasher_end(b.h);
	free(b.buf);
	*bytes = w->bytes;
	return rc;
}

int lwm_vfw_commit(struct lwm_vfw *w, struct lwm_err *e)
{
	struct lwm_outfile *o = w->o;
	w->o = NULL;
	lwm_vfw_discard(w);
	return lwm_outfile_commit(o, e);
}

void lwm_vfw_discard(struct lwm_vfw *w)
{
	if (!w)
		return;
	lwm_outfile_discard(w->o);
	for (int i = 0; i < w->nv; i++)
		free(w->vec[i].part);
	free(w->sum);
	free(w);
}

/* ---- reading ---- */

struct rvec {
	struct lwm_vec v;
	int64_t at, bytes, sum0;
	char *block; /* the last block read for small pieces */
	int64_t block_no;
};

struct lwm_vfr {
	struct lwm_openfile file;
	char *path;
	int nv;
	struct rvec vec[LWM_VF_MAX];
	int64_t block, nsum, sums_at;
	uint64_t *sum;     /* NULL while the file is closed */
	uint64_t sums_sum; /* the sum over the table, which must be the same whenever it is read again */
};

static void drop_memory(struct lwm_vfr *r)
{
	for (int i = 0; i < r->nv; i++) {
		free(r->vec[i].block);
		r->vec[i].block = NULL;
		r->vec[i].block_no = -1;
	}
	free(r->sum);
	r->sum = NULL;
}

static void drop_parked(struct lwm_openfile *f)
{
	drop_memory((struct lwm_vfr *)((char *)f - offsetof(struct lwm_vfr, file)));
}

static int load_sums(struct lwm_vfr *r, struct lwm_err *e)
{
	r->sum = malloc(((size_t)r->nsum + 1) * 8);
	if (!r->sum)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", r->path);
	LWM_TRY(lwm_pread_all(r->file.fd, r->sum, (r->nsum + 1) * 8, r->sums_at, r->path, e));
	if (r->sum[r->nsum] != lwm_hash64(r->sum, (size_t)r->nsum * 8, 0))
		return lwm_fail(e, LWM_EDATA, "%s: its table of checksums is damaged", r->path);
	return 0;
}

/* The file is open, its sums are there, until done. */
static int use_file(struct lwm_vfr *r, struct lwm_err *e)
{
	LWM_TRY(lwm_openfile_use(&r->file, e));
	if (r->sum)
		return 0;
	int rc = load_sums(r, e);
	if (rc == 0 && r->sum[r->nsum] != r->sums_sum)
		rc = lwm_fail(e, LWM_EDATA, "%s: is another file than before: it was changed while it was being read", r->path);
	if (rc < 0) {
		drop_memory(r);
		lwm_openfile_done(&r->file);
	}
	return rc;
}

/* The size of the blocks follows from how many sums there are: more blocks of half the size, unless no vector has more than one,
 * when the sums are the same. */
static int find_block(struct lwm_vfr *r, int64_t have, struct lwm_err *e)
{
	for (r->block = LWM_VF_BLOCK; r->block >= LWM_VF_FINE; r->block /= 2) {
		r->nsum = 0;
		for (int i = 0; i < r->nv; i++) {
			r->vec[i].sum0 = r->nsum;
			r->nsum += blocks_of(r->vec[i].bytes, r->block);
		}
		if (have == r->nsum + 1)
			return 0;
	}
	return lwm_fail(e, LWM_EDATA, "%s: 'sums' does not fit the other vectors", r->path);
}

static int open_at(struct lwm_vfr *r, const char *schema, struct lwm_vec *v, int64_t *at, struct lwm_err *e)
{
	int nv = r->nv, fd;
	v[nv] = (struct lwm_vec){ "sums", LWM_V_U64, 0 };
	LWM_TRY(lwm_h5_open(r->path, schema, v, nv + 1, at, &fd, e));
	LWM_TRY(lwm_openfile_adopt(&r->file, fd, e));
	for (int i = 0; i < nv; i++)
		r->vec[i] = (struct rvec){ v[i], at[i], v[i].n * lwm_vtype_bytes(v[i].type), 0, NULL, -1 };
	r->sums_at = at[nv];
	LWM_TRY(find_block(r, v[nv].n, e));
	LWM_TRY(lwm_openfile_use(&r->file, e));
	int rc = load_sums(r, e);
	if (rc == 0)
		r->sums_sum = r->sum[r->nsum];
	lwm_openfile_done(&r->file);
	return rc;
}

int lwm_vfr_open(struct lwm_vfr **out, const char *path, const char *schema, const struct lwm_vec *want, int nv,
		 struct lwm_err *e)
{
	struct lwm_vec v[LWM_VF_MAX + 1];
	int64_t at[LWM_VF_MAX + 1];
	struct lwm_vfr *r = calloc(1, sizeof *r);
	*out = NULL;
	if (!r || !(r->path = strdup(path))) {
		free(r);
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	}
	r->nv = nv;
	r->file.path = r->path;
	r->file.parked = drop_parked;
	memcpy(v, want, (size_t)nv * sizeof *v);
	int rc = open_at(r, schema, v, at, e);
	if (rc < 0)
		lwm_vfr_close(r);
	else
		*out = r;
	return rc;
}

void lwm_vfr_close(struct lwm_vfr *r)
{
	if (!r)
		return;
	lwm_openfile_close(&r->file);
	drop_memory(r);
	free(r->path);
	free(r);
}

const struct lwm_vec *lwm_vfr_vec(const struct lwm_vfr *r, int vec)
{
	return &r->vec[vec].v;
}

/* Bytes from..from+n-1 of a vector, from at a block boundary, up to one or to the end. */
static int get_blocks(struct lwm_vfr *r, const struct rvec *x, int64_t from, int64_t n, char *out, struct lwm_err *e)
{
	LWM_TRY(lwm_pread_all(r->file.fd, out, n, x->at + from, r->path, e));
	for (int64_t i = 0; i < n; i += r->block) {
		int64_t len = n - i < r->block ? n - i : r->block;
		if (lwm_hash64(out + i, (size_t)len, 0) != r->sum[x->sum0 + (from + i) / r->block])
			return lwm_fail(e, LWM_EDATA, "%s: '%s' is damaged in its %d bytes from byte %" PRId64,
					r->path, x->v.name, (int)len, from + i);
	}
	return 0;
}

static int load_block(struct lwm_vfr *r, struct rvec *x, int64_t k, struct lwm_err *e)
{
	int64_t from = k * r->block, n = x->bytes - from < r->block ? x->bytes - from : r->block;
	if (x->block_no == k)
		return 0;
	if (!x->block && !(x->block = malloc((size_t)r->block)))
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", r->path);
	x->block_no = -1;
	LWM_TRY(get_blocks(r, x, from, n, x->block, e));
	x->block_no = k;
	return 0;
}

static int read_bytes(struct lwm_vfr *r, struct rvec *x, int64_t a, int64_t b, char *p, struct lwm_err *e)
{
	while (a < b) {
		int64_t k = a / r->block, in = a % r->block, whole = (b - a) / r->block * r->block;
		if (in == 0 && whole) {
			whole = whole < BULK ? whole : BULK;
			LWM_TRY(get_blocks(r, x, a, whole, p, e));
		} else {
			LWM_TRY(load_block(r, x, k, e));
			whole = r->block - in < b - a ? r->block - in : b - a;
			memcpy(p, x->block + in, (size_t)whole);
		}
		a += whole;
		p += whole;
	}
	return 0;
}

int lwm_vfr_read(struct lwm_vfr *r, int vec, int64_t first, int64_t n, void *out, struct lwm_err *e)
{
	struct rvec *x = &r->vec[vec];
	int64_t size = lwm_vtype_bytes(x->v.type);
	if (first < 0 || n < 0 || first > x->v.n - n)
		return lwm_fail(e, LWM_EDATA, "%s: values %" PRId64 " to %" PRId64 " of '%s', which has %" PRId64,
				r->path, first, first + n, x->v.name, x->v.n);
	if (n == 0)
		return 0;
	LWM_TRY(use_file(r, e));
	int rc = read_bytes(r, x, first * size, (first + n) * size, out, e);
	lwm_openfile_done(&r->file);
	return rc;
}

int lwm_vfr_text(struct lwm_vfr *r, int vec, int64_t limit, char **out, struct lwm_err *e)
{
	int64_t n = r->vec[vec].v.n;
	*out = NULL;
	if (n > limit)
		return lwm_fail(e, LWM_EDATA, "%s: '%s' has %" PRId64 " bytes, at most %" PRId64 " are read", r->path,
				r->vec[vec].v.name, n, limit);
	char *s = malloc((size_t)n + 1);
	if (!s)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory", r->path);
	int rc = lwm_vfr_read(r, vec, 0, n, s, e);
	if (rc < 0) {
		free(s);
		return rc;
	}
	s[n] = 0;
	*out = s;
	return 0;
}

int lwm_vf_schema(const char *path, char **schema, struct lwm_err *e)
{
	return lwm_h5_schema(path, schema, e);
}
