/* Weights in safetensors files. */
#include "common/io/model_int.h"

static const char suffix[] = ".safetensors";

static int open_one(void **out, const char *path, struct lwm_err *e)
{
	struct lwm_st *s = NULL;
	int rc = lwm_st_open(&s, path, e);
	*out = s;
	return rc;
}

static void close_one(void *p)
{
	lwm_st_close(p);
}

static int64_t count_one(const void *p)
{
	return lwm_st_count(p);
}

static const struct lwm_st_tensor *tensor_of_one(const void *p, int64_t i)
{
	return lwm_st_get_tensor(p, i);
}

static int read_one(void *p, int64_t i, int64_t offset, int64_t n, float *out, struct lwm_err *e)
{
	return lwm_st_read(p, i, offset, n, out, e);
}

static int check_one(void *p, struct lwm_err *e)
{
	return lwm_st_check(p, e);
}

static struct lwm_hash identity_of_one(const void *p)
{
	return lwm_st_identity(p);
}

static const struct lwm_weight_file files = {
	.suffix = suffix,
	.names = { "model.safetensors", "diffusion_pytorch_model.safetensors" },
	.open = open_one,
	.close = close_one,
	.count = count_one,
	.tensor = tensor_of_one,
	.read = read_one,
	.check = check_one,
	.identity = identity_of_one,
};

static bool lies_in(const char *dir)
{
	return lwm_folder_lies_in(dir, &files);
}

static int open_weights(void **out, const struct lwm_model_place *from, struct lwm_err *e)
{
	return lwm_folder_open(out, &files, from, e);
}

/* ---- writing ---- */

static int create_file(void **out, const char *path, const struct lwm_st_tensor *t, int64_t n, struct lwm_err *e)
{
	struct lwm_st_writer *w = NULL;
	int rc = lwm_st_create(&w, path, t, n, NULL, false, e);
	*out = w;
	return rc;
}

static int write_values(void *file, const float *v, int64_t n, struct lwm_err *e)
{
	return lwm_st_write(file, v, n, e);
}

static int commit_file(void *file, struct lwm_hash *identity, struct lwm_err *e)
{
	return lwm_st_commit(file, identity, e);
}

static void discard_file(void *file)
{
	lwm_st_discard(file);
}

const struct lwm_model_format lwm_model_safetensors = {
	.name = "safetensors",
	.suffix = suffix,
	.lies_in = lies_in,
	.open = open_weights,
	.close = lwm_folder_close,
	.count = lwm_folder_count,
	.tensor = lwm_folder_tensor,
	.read = lwm_folder_read,
	.check = lwm_folder_check,
	.create = create_file,
	.write = write_values,
	.commit = commit_file,
	.discard = discard_file,
};
