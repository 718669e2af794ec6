/* torch_int.h - inside common/io: a file of torch.save between the one who finds its tensors and the one who reads them. */
#ifndef LWM_IO_TORCH_INT_H
#define LWM_IO_TORCH_INT_H

#include "common/base/arena.h"
#include "common/io/pickle.h"
#include "common/io/torchfile.h"
#include "common/io/zip.h"

struct lwm_torch_entry {
	struct lwm_st_tensor t;
	const char *key; /* of the numbers that it looks at, its storage; several tensors may look at the same */
	int width;       /* bytes of a number */
	int64_t stored;  /* numbers there */
	int64_t at;      /* where these begin in the file */
	const struct lwm_zip_entry *zip; /* what they are in the archive; NULL: there is none */
	int64_t offset, stride[LWM_ST_DIMS]; /* of the tensor there, in numbers */
	int64_t span; /* from its first number to its last, and one */
	bool dense;   /* row-major: it spans as many as it has */
};
struct lwm_torch {
	char *path;
	int fd;
	int64_t bytes;
	struct lwm_zip *zip; /* NULL: the older form */
	struct lwm_arena *names;
	struct lwm_torch_entry *entry; /* by name */
	int64_t n, cap;
	char *held; /* of one that is not dense, what it spans; of others a piece on its way */
	int64_t held_entry, held_bytes;
};

/* Tensors of the object; where they lie in the file is not known after it. */
int lwm_torch_find(struct lwm_torch *t, const struct lwm_pk *root, struct lwm_err *e);

#endif
