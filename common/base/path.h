/* path.h - names and folders: lists of inputs, what is at a path, making and removing folders, reading whole files.
 *
 * Functions that give `char *` return malloc'ed memory, NULL when there is none. Local calls.
 */
#ifndef LWM_BASE_PATH_H
#define LWM_BASE_PATH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/err.h"

struct lwm_paths { /* a list of owned strings */
	char **v;
	int64_t n, cap;
};
int lwm_paths_add(struct lwm_paths *p, const char *path, struct lwm_err *e);
void lwm_paths_release(struct lwm_paths *p);
/* Adds `path` if it is a file. If it is a folder, adds the files below it (sorted by name, recursively, dot files and
 * *.tmp.* skipped) that end in one of `suffixes` (NULL-terminated list, case ignored; NULL = all). "@FILE" adds the
 * paths listed in FILE, one a line, # comments, relative to the working folder. Nothing found is -LWM_ENOINPUT. */
int lwm_paths_expand(struct lwm_paths *p, const char *path, const char *const *suffixes, struct lwm_err *e);

bool lwm_path_exists(const char *path); /* or it cannot be told (a failing disk): what opens it then says why */
bool lwm_path_is_dir(const char *path);
/* 1 a folder, 0 something else or nothing; negative: a failing disk does not tell. */
int lwm_path_folder(const char *path, struct lwm_err *e);
const char *lwm_path_base(const char *path);                 /* after the last slash */
bool lwm_path_has_suffix(const char *path, const char *suffix); /* case ignored */
char *lwm_path_join(const char *dir, const char *name);      /* "dir/name" */
char *lwm_path_dir(const char *path);                        /* the folder; "." when there is no slash */
int lwm_mkdirs(const char *path, struct lwm_err *e);         /* mkdir -p */
int lwm_remove_tree(const char *path, struct lwm_err *e);    /* rm -rf of one folder of ours; missing is fine */
/* A plain file name: not empty, no slash, not "." or "..", no control bytes. For names read from index files. */
bool lwm_name_is_plain(const char *name);
/* Whole file into malloc'ed memory with a 0 after it; larger than `limit` bytes is -LWM_EDATA. "-" reads stdin. */
int lwm_read_file(const char *path, int64_t limit, char **out, size_t *n, struct lwm_err *e);
/* The same from where a descriptor stands to its end; `name` for messages. */
int lwm_read_fd(int fd, const char *name, int64_t limit, char **out, size_t *n, struct lwm_err *e);
/* 1 there is something of this name, 0 there is not. What cannot be told (a folder that cannot be searched, a failing
 * disk) is an error: a file that cannot be read is not one that is absent. */
int lwm_path_there(const char *path, struct lwm_err *e);
int lwm_path_want(const char *path, struct lwm_err *e); /* -LWM_ENOINPUT naming it when there is nothing */
/* Bytes free to us on the file system that holds path (or its nearest existing parent); -1 unknown. */
int64_t lwm_space_free(const char *path);

#endif
