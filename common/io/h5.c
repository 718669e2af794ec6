/* All that HDF5 does for us: it lays out a file (names, types, places) and reads such a layout back. Values never pass through it.
 *
 *	create   HDF5 builds the structure in memory (h5_mem.c), its bytes go into the file, the vectors get their places in it
 *	open     HDF5 reads the structure; what it found is checked, a descriptor of the same file is taken over, HDF5 lets go
 *
 * HDF5 does not survive a refused allocation, so memory is asked for before each call; see common/io/README.md.
 *
 * One thread at a time is in the library, whether it was built for several or not: a checkpoint is laid out while others open rows.
 * Nobody waits long for that, since values do not pass through it. */
#include "common/io/h5.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/arena.h"
#include "common/io/h5_mem.h"
#include "common/io/openfile.h"

enum { ROOM = 4 << 20 }; /* bytes; what is done here takes well below one MiB */

static pthread_mutex_t library = PTHREAD_MUTEX_INITIALIZER; /* held from enter_library to the last call */
static _Thread_local bool starved; /* a call on this thread failed for want of memory */

static herr_t seek_want(unsigned n, const H5E_error2_t *d, void *ctx)
{
	(void)n;
	(void)ctx;
	starved = starved || d->min_num == H5E_NOSPACE_g || d->min_num == H5E_CANTALLOC_g; /* without _g: calls the library */
	return 0;
}

/* Called where a call fails, before another one wipes the messages away. */
static herr_t note_want(hid_t stack, void *ctx)
{
	H5Ewalk2(stack, H5E_WALK_UPWARD, seek_want, ctx);
	return 0;
}

/* Nothing of ours is open at the end of a program; a library that found no memory would not come to its own end. */
static void no_farewell(void)
{
	H5dont_atexit();
}

static int rehearse_once(struct lwm_err *e);

/* Before each use of the library. The stack of messages belongs to the thread; plug-ins could run foreign code for a filter
 * named in a file. HDF5 may crash when it gets no memory, so that is asked for here; and the first time everything is done
 * once without a file, for what it did not get to begin with makes it find fault with every file after that. */
static int enter_library(const char *path, struct lwm_err *e)
{
	static _Thread_local bool quiet;
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	static atomic_bool ready;
	starved = false;
	LWM_TRY(lwm_memory_room(ROOM, path, e));
	pthread_once(&once, no_farewell);
	if (!quiet && (H5Eset_auto2(H5E_DEFAULT, note_want, NULL) < 0 || H5PLset_loading_state(0) < 0))
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory for HDF5 to begin with", path);
	quiet = true;
	if (!ready)
		LWM_TRY(rehearse_once(e));
	ready = true;
	return 0;
}

static herr_t find_innermost(unsigned n, const H5E_error2_t *d, void *ctx)
{
	const char **out = ctx;
	if (n == 0)
		*out = d->desc;
	return 0;
}

static int fail_hdf5(struct lwm_err *e, int code, const char *path, const char *what)
{
	const char *why = NULL;
	H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, find_innermost, &why);
	lwm_fail(e, code, "%s: %s (HDF5: %s)", path, what, why ? why : "no reason given");
	H5Eclear2(H5E_DEFAULT);
	return -code;
}

static hid_t file_type(enum lwm_vtype t)
{
	switch (t) {
	case LWM_V_U8: return H5T_STD_U8LE;
	case LWM_V_U16: return H5T_STD_U16LE;
	case LWM_V_U32: return H5T_STD_U32LE;
	case LWM_V_I64: return H5T_STD_I64LE;
	case LWM_V_U64: return H5T_STD_U64LE;
	case LWM_V_F32: return H5T_IEEE_F32LE;
	default: return -1;
	}
}

/* A fixed-length string of n bytes, or -1. */
static hid_t text_type(int64_t n)
{
	hid_t t = H5Tcopy(H5T_C_S1);
	if (t >= 0 && (H5Tset_size(t, (size_t)n) < 0 || H5Tset_strpad(t, H5T_STR_NULLPAD) < 0 ||
		       H5Tset_cset(t, H5T_CSET_UTF8) < 0)) {
		H5Tclose(t);
		return -1;
	}
	return t;
}

static int put_schema(hid_t file, const char *schema)
{
	hid_t t = text_type((int64_t)strlen(schema)), s = H5Screate(H5S_SCALAR), a = -1;
	int rc = -1;
	if (t >= 0 && s >= 0)
		a = H5Acreate2(file, "schema", t, s, H5P_DEFAULT, H5P_DEFAULT);
	if (a >= 0 && H5Awrite(a, t, schema) >= 0)
		rc = 0;
	if (a >= 0 && H5Aclose(a) < 0)
		rc = -1;
	if (s >= 0)
		H5Sclose(s);
	if (t >= 0)
		H5Tclose(t);
	return rc;
}

/* One dataset with its storage allocated and left unfilled. */
static int put_vec(hid_t file, hid_t dcpl, const struct lwm_vec *v, int64_t *at)
{
	bool text = v->type == LWM_V_TEXT;
	hsize_t dim = (hsize_t)v->n;
	hid_t t = text ? text_type(v->n) : H5Tcopy(file_type(v->type));
	hid_t s = text ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &dim, NULL), d = -1;
	int rc = -1;
	if (t >= 0 && s >= 0)
		d = H5Dcreate2(file, v->name, t, s, H5P_DEFAULT, dcpl, H5P_DEFAULT);
	if (d >= 0) {
		haddr_t where = v->n ? H5Dget_offset(d) : HADDR_UNDEF;
		*at = where == HADDR_UNDEF ? -1 : (int64_t)where;
		rc = v->n && *at < 0 ? -1 : 0;
		if (H5Dclose(d) < 0)
			rc = -1;
	}
	if (s >= 0)
		H5Sclose(s);
	if (t >= 0)
		H5Tclose(t);
	return rc;
}

/* Times would make equal inputs give different bytes. */
static hid_t new_file(struct lwm_mem_file *m, const char *path)
{
	hid_t fcpl = H5Pcreate(H5P_FILE_CREATE), fapl = H5Pcreate(H5P_FILE_ACCESS), file = -1;
	if (fcpl >= 0 && fapl >= 0 && H5Pset_obj_track_times(fcpl, false) >= 0 && lwm_mem_set(fapl, m) >= 0 &&
	    H5Pset_libver_bounds(fapl, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0)
		file = H5Fcreate(path, H5F_ACC_TRUNC, fcpl, fapl);
	if (fcpl >= 0)
		H5Pclose(fcpl);
	if (fapl >= 0)
		H5Pclose(fapl);
	return file;
}

static int create_structure(struct lwm_mem_file *m, const char *path, const char *schema, const struct lwm_vec *v,
			    int nv, int64_t *at, struct lwm_err *e)
{
	int rc = 0;
	hid_t file = new_file(m, path), dcpl = H5Pcreate(H5P_DATASET_CREATE);
	if (file < 0 || dcpl < 0 || H5Pset_layout(dcpl, H5D_CONTIGUOUS) < 0 ||
	    H5Pset_alloc_time(dcpl, H5D_ALLOC_TIME_EARLY) < 0 || H5Pset_fill_time(dcpl, H5D_FILL_TIME_NEVER) < 0 ||
	    H5Pset_obj_track_times(dcpl, false) < 0 || put_schema(file, schema) < 0)
		rc = fail_hdf5(e, LWM_EMEMORY, path, "cannot build its structure");
	for (int i = 0; rc == 0 && i < nv; i++)
		if (v[i].n == LWM_VEC_ABSENT)
			at[i] = -1;
		else if (put_vec(file, dcpl, &v[i], &at[i]) < 0)
			rc = fail_hdf5(e, LWM_EMEMORY, path, "cannot build its structure");
	if (dcpl >= 0)
		H5Pclose(dcpl);
	if (file >= 0 && H5Fclose(file) < 0 && rc == 0)
		rc = fail_hdf5(e, LWM_EMEMORY, path, "cannot build its structure");
	return rc;
}

int lwm_h5_create(int fd, const char *path, const char *schema, const struct lwm_vec *v, int nv, int64_t *at,
		  int64_t *bytes, struct lwm_err *e)
{
	struct lwm_mem_file m = { 0 };
	pthread_mutex_lock(&library);
	int rc = enter_library(path, e);
	if (rc == 0)
		rc = create_structure(&m, path, schema, v, nv, at, e);
	pthread_mutex_unlock(&library);
	if (rc == 0)
		rc = lwm_mem_copy(&m, fd, path, e);
	*bytes = m.size;
	lwm_mem_release(&m);
	return rc;
}

/* No lock: readers must work on file systems without locks, and what is published is never written again. */
static int open_file(hid_t *file, const char *path, struct lwm_err *e)
{
	struct stat st;
	if (stat(path, &st))
		return errno == ENOENT ? lwm_fail(e, LWM_ENOINPUT, "%s: there is no such file", path)
				       : lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot be looked at", path);
	if (!S_ISREG(st.st_mode))
		return lwm_fail(e, LWM_EDATA, "%s: not a regular file", path);
	hid_t fapl = H5Pcreate(H5P_FILE_ACCESS);
	/* strong: closing leaves nothing of it in memory, whatever went wrong before; the driver is the default one, named in case
	 * that found no memory when HDF5 began */
	if (fapl < 0 || H5Pset_fapl_sec2(fapl) < 0 || H5Pset_file_locking(fapl, false, true) < 0 ||
	    H5Pset_fclose_degree(fapl, H5F_CLOSE_STRONG) < 0)
		return fail_hdf5(e, LWM_EMEMORY, path, "cannot set up HDF5");
	int rc = 1;
	while (rc == 1) {
		*file = H5Fopen(path, H5F_ACC_RDONLY, fapl);
		rc = *file < 0 ? lwm_openfile_room(path, e) : 0;
	}
	if (rc == 0 && *file < 0)
		rc = fail_hdf5(e, LWM_EDATA, path, "not a readable HDF5 file");
	H5Pclose(fapl);
	return rc;
}

static int read_schema(hid_t file, char out[64])
{
	hid_t a = -1, t = -1, mem = -1;
	int rc = -1;
	size_t n;
	if (H5Aexists(file, "schema") <= 0)
		return -1;
	a = H5Aopen(file, "schema", H5P_DEFAULT);
	if (a < 0 || (t = H5Aget_type(a)) < 0)
		goto out;
	n = H5Tget_size(t);
	if (H5Tget_class(t) != H5T_STRING || H5Tis_variable_str(t) != 0 || n < 1 || n > 63 ||
	    H5Aget_storage_size(a) != n)
		goto out;
	memset(out, 0, 64);
	mem = text_type((int64_t)n);
	if (mem >= 0 && H5Aread(a, mem, out) >= 0)
		rc = 0;
out:
	if (mem >= 0)
		H5Tclose(mem);
	if (t >= 0)
		H5Tclose(t);
	if (a >= 0)
		H5Aclose(a);
	return rc;
}

static bool type_fits(hid_t t, struct lwm_vec *v, bool scalar)
{
	if (v->type == LWM_V_TEXT) {
		v->n = (int64_t)H5Tget_size(t);
		return scalar && H5Tget_class(t) == H5T_STRING && H5Tis_variable_str(t) == 0;
	}
	if (scalar)
		return false;
	if (v->type == LWM_V_TOKENS)
		v->type = H5Tequal(t, H5T_STD_U16LE) > 0 ? LWM_V_U16 : LWM_V_U32;
	if (v->type == LWM_V_UINT)
		v->type = H5Tequal(t, H5T_STD_U16LE) > 0 ? LWM_V_U16 : H5Tequal(t, H5T_STD_U32LE) > 0 ? LWM_V_U32 : LWM_V_I64;
	return H5Tequal(t, file_type(v->type)) > 0;
}

/* Contiguous in this file: external and virtual storage would read other files, filters other code. */
static bool layout_fits(hid_t d)
{
	hid_t p = H5Dget_create_plist(d);
	bool ok = p >= 0 && H5Pget_layout(p) == H5D_CONTIGUOUS && H5Pget_external_count(p) == 0 &&
		  H5Pget_nfilters(p) == 0;
	if (p >= 0)
		H5Pclose(p);
	return ok;
}

static int get_vec(hid_t file, struct lwm_vec *v, int64_t *at, int64_t bytes)
{
	H5L_info_t link;
	hid_t d = -1, t = -1, s = -1;
	hsize_t dim = 0;
	int rc = -1, nd, exists = H5Lexists(file, v->name, H5P_DEFAULT);
	if (exists == 0 && v->n == LWM_VEC_ABSENT) {
		v->n = 0;
		*at = -1;
		return 0;
	}
	if (exists <= 0 || H5Lget_info(file, v->name, &link, H5P_DEFAULT) < 0 ||
	    link.type != H5L_TYPE_HARD)
		return -1;
	d = H5Dopen2(file, v->name, H5P_DEFAULT);
	if (d < 0 || (t = H5Dget_type(d)) < 0 || (s = H5Dget_space(d)) < 0 || !layout_fits(d))
		goto out;
	nd = H5Sget_simple_extent_ndims(s);
	if (nd < 0 || nd > 1 || (nd == 1 && H5Sget_simple_extent_dims(s, &dim, NULL) != 1) || dim > INT64_MAX / 16)
		goto out;
	v->n = (int64_t)dim;
	if (!type_fits(t, v, nd == 0) || v->n < 0)
		goto out;
	*at = -1;
	if (v->n) {
		haddr_t where = H5Dget_offset(d);
		int64_t size = v->n * lwm_vtype_bytes(v->type);
		if (where == HADDR_UNDEF || size > bytes || (int64_t)where > bytes - size)
			goto out;
		*at = (int64_t)where;
	}
	rc = 0;
out:
	if (s >= 0)
		H5Sclose(s);
	if (t >= 0)
		H5Tclose(t);
	if (d >= 0)
		H5Dclose(d);
	return rc;
}

/* A descriptor of the very file HDF5 has open, whatever the name means by now. */
static int own_fd(hid_t file, const char *path, int *fd, int64_t *bytes, struct lwm_err *e)
{
	struct stat st;
	void *handle = NULL;
	int rc = 1;
	if (H5Fget_vfd_handle(file, H5P_DEFAULT, &handle) < 0 || !handle)
		return fail_hdf5(e, LWM_EIO, path, "cannot take over the open file");
	while (rc == 1) {
		*fd = fcntl(*(int *)handle, F_DUPFD_CLOEXEC, 0);
		rc = *fd < 0 ? lwm_openfile_room(path, e) : 0;
	}
	if (rc == 0 && (*fd < 0 || fstat(*fd, &st)))
		rc = lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot take over the open file", path);
	if (rc == 0)
		*bytes = (int64_t)st.st_size;
	return rc;
}

static int open_once(const char *path, const char *schema, struct lwm_vec *v, int nv, int64_t *at, int *fd,
		     struct lwm_err *e)
{
	char have[64];
	int64_t bytes = 0;
	int rc = 0;
	hid_t file = -1;
	*fd = -1;
	LWM_TRY(open_file(&file, path, e));
	if (read_schema(file, have) < 0) {
		rc = lwm_fail(e, LWM_EDATA, "%s: HDF5, but without the schema mark of this system", path);
	} else if (strcmp(have, schema)) {
		rc = lwm_fail(e, LWM_EDATA, "%s: holds %s, expected %s", path, have, schema);
	} else {
		rc = own_fd(file, path, fd, &bytes, e);
	}
	for (int i = 0; rc == 0 && i < nv; i++)
		if (get_vec(file, &v[i], &at[i], bytes) < 0)
			rc = lwm_fail(e, LWM_EDATA, "%s: '%s' is missing or not stored as %s says", path, v[i].name,
				      schema);
	H5Fclose(file);
	H5Eclear2(H5E_DEFAULT);
	if (rc < 0 && *fd >= 0) {
		close(*fd);
		*fd = -1;
	}
	return rc;
}

static bool reads_back(struct lwm_mem_file *m, struct lwm_vec *v, int nv)
{
	char have[64];
	int64_t at;
	hid_t fapl = H5Pcreate(H5P_FILE_ACCESS), file = -1;
	if (fapl >= 0 && lwm_mem_reopen(fapl, m) >= 0)
		file = H5Fopen("rehearsal", H5F_ACC_RDONLY, fapl);
	bool ok = file >= 0 && read_schema(file, have) == 0;
	for (int i = 0; i < nv && ok; i++)
		ok = get_vec(file, &v[i], &at, m->size) == 0;
	if (file >= 0 && H5Fclose(file) < 0)
		ok = false;
	if (fapl >= 0)
		H5Pclose(fapl);
	return ok;
}

/* Writes and reads a file that is nowhere but in memory. */
static int rehearse_once(struct lwm_err *e)
{
	static const char name[] = "HDF5 to begin with";
	struct lwm_vec v[] = { { "u8", LWM_V_U8, 3 },   { "u16", LWM_V_U16, 3 }, { "u32", LWM_V_U32, 3 }, { "i64", LWM_V_I64, 3 },
			       { "u64", LWM_V_U64, 3 }, { "f32", LWM_V_F32, 3 }, { "text", LWM_V_TEXT, 3 } };
	enum { N = sizeof v / sizeof *v };
	struct lwm_mem_file m = { 0 };
	int64_t at[N];
	int rc = create_structure(&m, name, "lwm-rehearsal", v, N, at, e);
	if (rc == 0 && !reads_back(&m, v, N))
		rc = lwm_fail(e, LWM_EMEMORY, "out of memory for %s", name);
	lwm_mem_release(&m);
	return rc;
}

/* Two looks at a file: what seems to be damage may be want of memory for a moment, which HDF5 may have had no memory to say.
 * Want that lasts is met by the room that is asked for; a damaged file may itself ask for more memory than there is, and does
 * so both times. */
struct looks {
	struct lwm_err why;
	int n;
	bool starved; /* at the first one */
};

/* HDF5 was once short of memory, through no fault of the file: from then on it may find fault with whole files. */
static atomic_bool unsound;

static bool look_again(struct looks *l, int rc)
{
	if (l->n++ == 0 && rc == -LWM_EDATA) {
		l->starved = starved;
		lwm_err_clear(&l->why);
		starved = false;
		return true;
	}
	return false;
}

static int give_verdict(const struct looks *l, int rc, const char *path, struct lwm_err *e)
{
	if (l->starved && !starved)
		unsound = true;
	if (rc == -LWM_EDATA && unsound)
		return lwm_fail(e, LWM_EMEMORY, "%s: out of memory for reading it with HDF5", path);
	return rc < 0 ? lwm_fail(e, -rc, "%s", l->why.msg) : rc;
}

int lwm_h5_open(const char *path, const char *schema, struct lwm_vec *v, int nv, int64_t *at, int *fd,
		struct lwm_err *e)
{
	struct lwm_vec asked[LWM_VF_MAX + 1];
	struct looks l = { 0 };
	int rc;
	LWM_BUG_ON(nv > LWM_VF_MAX + 1);
	memcpy(asked, v, (size_t)nv * sizeof *v);
	pthread_mutex_lock(&library);
	do {
		memcpy(v, asked, (size_t)nv * sizeof *v); /* a look at the file sets sizes and types */
		*fd = -1;
		rc = enter_library(path, &l.why);
		if (rc == 0)
			rc = open_once(path, schema, v, nv, at, fd, &l.why);
	} while (look_again(&l, rc));
	pthread_mutex_unlock(&library);
	return give_verdict(&l, rc, path, e);
}

static int schema_once(const char *path, char **schema, struct lwm_err *e)
{
	char have[64];
	hid_t file = -1;
	int rc = 0;
	*schema = NULL;
	LWM_TRY(open_file(&file, path, e));
	if (read_schema(file, have) < 0)
		rc = lwm_fail(e, LWM_EDATA, "%s: HDF5, but without the schema mark of this system", path);
	else if (!(*schema = strdup(have)))
		rc = lwm_fail(e, LWM_EMEMORY, "%s: out of memory", path);
	H5Fclose(file);
	H5Eclear2(H5E_DEFAULT);
	return rc;
}

int lwm_h5_schema(const char *path, char **schema, struct lwm_err *e)
{
	struct looks l = { 0 };
	int rc;
	*schema = NULL;
	pthread_mutex_lock(&library);
	do {
		rc = enter_library(path, &l.why);
		if (rc == 0)
			rc = schema_once(path, schema, &l.why);
	} while (look_again(&l, rc));
	pthread_mutex_unlock(&library);
	return give_verdict(&l, rc, path, e);
}
