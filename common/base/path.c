/* path.c - lists of names, what is at a path, folders made and removed, whole files read. */
#include "common/base/path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

int lwm_paths_add(struct lwm_paths *p, const char *path, struct lwm_err *e)
{
	if (p->n == p->cap) {
		int64_t cap = p->cap ? p->cap * 2 : 16;
		char **v = realloc(p->v, (size_t)cap * sizeof *v);
		if (!v)
			return lwm_fail(e, LWM_EMEMORY, "out of memory at a list of %" PRId64 " paths", p->n);
		p->v = v;
		p->cap = cap;
	}
	p->v[p->n] = strdup(path);
	if (!p->v[p->n])
		return lwm_fail(e, LWM_EMEMORY, "out of memory at a list of %" PRId64 " paths", p->n);
	p->n++;
	return 0;
}

void lwm_paths_release(struct lwm_paths *p)
{
	for (int64_t i = 0; i < p->n; i++)
		free(p->v[i]);
	free(p->v);
	memset(p, 0, sizeof *p);
}

static bool is_wanted(const char *name, const char *const *suffixes)
{
	if (strstr(name, ".tmp."))
		return false;
	if (!suffixes)
		return true;
	for (; *suffixes; suffixes++)
		if (lwm_path_has_suffix(name, *suffixes))
			return true;
	return false;
}

static int no_dots(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

static int byte_order(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* Most file systems say with the name what it is. */
static int entry_folder(const struct dirent *d, const char *path, struct lwm_err *e)
{
	return d->d_type == DT_REG ? 0 : d->d_type == DT_DIR ? 1 : lwm_path_folder(path, e);
}

static int add_dir(struct lwm_paths *p, const char *dir, const char *const *suffixes, int depth, struct lwm_err *e)
{
	struct dirent **list;
	int rc = 0, n;
	if (depth > 32)
		return lwm_fail(e, LWM_EUSAGE, "%s: folders are nested more than 32 deep", dir);
	n = scandir(dir, &list, no_dots, byte_order);
	if (n < 0)
		return lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot list the folder", dir);
	for (int i = 0; i < n; i++) {
		char *path = rc < 0 ? NULL : lwm_path_join(dir, list[i]->d_name);
		int folder = path ? entry_folder(list[i], path, e) : 0;
		if (folder < 0)
			rc = folder;
		else if (folder)
			rc = add_dir(p, path, suffixes, depth + 1, e);
		else if (path && is_wanted(list[i]->d_name, suffixes))
			rc = lwm_paths_add(p, path, e);
		free(path);
		free(list[i]);
	}
	free(list);
	return rc;
}

static int add_list(struct lwm_paths *p, const char *file, struct lwm_err *e)
{
	char *text, *line, *save = NULL;
	size_t n;
	int rc = 0;
	LWM_TRY(lwm_read_file(file, 1 << 28, &text, &n, e));
	for (line = strtok_r(text, "\r\n", &save); line && rc >= 0; line = strtok_r(NULL, "\r\n", &save))
		if (*line && *line != '#')
			rc = lwm_paths_add(p, line, e);
	free(text);
	return rc;
}

int lwm_paths_expand(struct lwm_paths *p, const char *path, const char *const *suffixes, struct lwm_err *e)
{
	int64_t before = p->n;
	int folder = path[0] == '@' ? 0 : lwm_path_folder(path, e);
	LWM_TRY(folder);
	if (path[0] == '@') {
		LWM_TRY(add_list(p, path + 1, e));
	} else if (folder) {
		LWM_TRY(add_dir(p, path, suffixes, 0, e));
	} else {
		if (strcmp(path, "-") && access(path, R_OK))
			return lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot read", path);
		LWM_TRY(lwm_paths_add(p, path, e));
	}
	if (p->n == before)
		return lwm_fail(e, LWM_ENOINPUT, "%s: no usable files in it", path);
	return 0;
}

bool lwm_path_exists(const char *path)
{
	return access(path, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

int lwm_path_folder(const char *path, struct lwm_err *e)
{
	struct stat st;
	if (stat(path, &st) == 0)
		return S_ISDIR(st.st_mode);
	/* what the name itself forbids is said by whoever opens it, as of any file */
	if (errno == ENOENT || errno == ENOTDIR || errno == EACCES || errno == ELOOP || errno == ENAMETOOLONG)
		return 0;
	return lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot be looked at", path);
}

bool lwm_path_is_dir(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

const char *lwm_path_base(const char *path)
{
	const char *s = strrchr(path, '/');
	return s ? s + 1 : path;
}

bool lwm_path_has_suffix(const char *path, const char *suffix)
{
	size_t n = strlen(path), k = strlen(suffix);
	return n >= k && !strcasecmp(path + n - k, suffix);
}

char *lwm_path_join(const char *dir, const char *name)
{
	char *out;
	size_t n = strlen(dir);
	return asprintf(&out, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name) < 0 ? NULL : out;
}

char *lwm_path_dir(const char *path)
{
	const char *s = strrchr(path, '/');
	return !s ? strdup(".") : s == path ? strdup("/") : strndup(path, (size_t)(s - path));
}

int lwm_mkdirs(const char *path, struct lwm_err *e)
{
	char *copy = strdup(path);
	int rc = 0;
	if (!copy)
		return lwm_fail_memory(e, path);
	for (char *s = copy + 1; rc >= 0; s++) {
		char c = *s;
		if (c != '/' && c != 0)
			continue;
		*s = 0;
		if (mkdir(copy, 0777) && errno != EEXIST)
			rc = lwm_fail_errno(e, LWM_ECANTCREATE, errno, "%s: cannot create the folder", copy);
		else if (!lwm_path_is_dir(copy))
			rc = lwm_fail(e, LWM_ECANTCREATE, "%s: exists and is not a folder", copy);
		*s = c;
		if (c == 0)
			break;
	}
	free(copy);
	return rc;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

int lwm_remove_tree(const char *path, struct lwm_err *e)
{
	if (!lwm_path_exists(path))
		return 0;
	if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS))
		return lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot remove", path);
	return 0;
}

bool lwm_name_is_plain(const char *name)
{
	if (!*name || !strcmp(name, ".") || !strcmp(name, ".."))
		return false;
	for (; *name; name++)
		if (*name == '/' || (unsigned char)*name < 0x20 || *name == 0x7f)
			return false;
	return true;
}

static int too_large(const char *path, int64_t limit, struct lwm_err *e)
{
	return lwm_fail(e, LWM_EDATA, "%s: larger than the %" PRId64 " bytes that are read here", path, limit);
}

/* First size of the buffer: a file's own, so that memory is in proportion to it; what has no size grows from small. */
static int first_room(int fd, const char *path, int64_t limit, size_t *cap, struct lwm_err *e)
{
	struct stat st;
	bool file = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
	off_t at = file ? lseek(fd, 0, SEEK_CUR) : 0;
	int64_t left = file && at >= 0 && at < st.st_size ? (int64_t)(st.st_size - at) : 0;
	if (left > limit)
		return too_large(path, limit, e);
	*cap = left < 65536 ? 65536 : (size_t)left + 2; /* a byte to see the end by, and the 0 */
	return 0;
}

int lwm_read_fd(int fd, const char *path, int64_t limit, char **out, size_t *n, struct lwm_err *e)
{
	size_t cap = 0, len = 0;
	LWM_TRY(first_room(fd, path, limit, &cap, e));
	char *buf = malloc(cap);
	while (buf) {
		ssize_t k = read(fd, buf + len, cap - len - 1);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0) {
			free(buf);
			return lwm_fail_errno(e, LWM_EIO, errno, "%s: read failed at byte %zu", path, len);
		}
		len += (size_t)k;
		if ((int64_t)len > limit) {
			free(buf);
			return too_large(path, limit, e);
		}
		if (k == 0) {
			buf[len] = 0;
			*out = buf;
			*n = len;
			return 0;
		}
		if (cap - len < 2) {
			char *p = cap > SIZE_MAX / 2 ? NULL : realloc(buf, cap *= 2);
			if (!p)
				free(buf);
			buf = p;
		}
	}
	return lwm_fail(e, LWM_EMEMORY, "%s: out of memory while reading it", path);
}

int lwm_read_file(const char *path, int64_t limit, char **out, size_t *n, struct lwm_err *e)
{
	bool is_stdin = !strcmp(path, "-");
	int fd = is_stdin ? 0 : open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot open", path);
	int rc = lwm_read_fd(fd, path, limit, out, n, e);
	if (!is_stdin)
		close(fd);
	return rc;
}

int lwm_path_there(const char *path, struct lwm_err *e)
{
	if (access(path, F_OK) == 0)
		return 1;
	if (errno == ENOENT || errno == ENOTDIR)
		return 0;
	return lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot be looked for", path);
}

int64_t lwm_space_free(const char *path)
{
	struct statvfs st;
	char *dir = strdup(path);
	int64_t out = -1;
	while (dir) {
		if (statvfs(dir, &st) == 0) {
			out = (int64_t)st.f_bavail * (int64_t)st.f_frsize;
			break;
		}
		if (!strcmp(dir, ".") || !strcmp(dir, "/"))
			break;
		char *up = lwm_path_dir(dir);
		free(dir);
		dir = up;
	}
	free(dir);
	return out;
}

int lwm_path_want(const char *path, struct lwm_err *e)
{
	int rc = lwm_path_there(path, e);
	return rc ? rc < 0 ? rc : 0 : lwm_fail(e, LWM_ENOINPUT, "%s: there is no such file or folder", path);
}
