/* The frame tokenizer as LWM releases it: one pickle of nested dicts of NumPy arrays, in flax's names, without a configuration,
 * which follows from the shapes. Read, never written.
 *
 * Names: vqgan.py of LWM (flax numbers modules by kind); blocks of the decoder are counted from the coarse end there, too.
 * Arrays: numpy/core/multiarray (protocols 3 and 4) and numpy/core/numeric (5) of NumPy 1 and 2. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/arena.h"
#include "common/base/num.h"
#include "common/base/path.h"
#include "common/io/model_int.h"
#include "common/io/pickle.h"
#include "common/io/pio.h"
#include "common/io/st_int.h"

enum { DEPTH = 8, PIECE = 1 << 18, LEVELS = 16 };

struct array {
	struct lwm_st_tensor t;
	int64_t at; /* in the file */
	int width;
};
struct weights {
	char *path;
	int fd;
	struct lwm_arena *names;
	struct array *list;
	int64_t n, cap;
	char *piece;
};

static void close_weights(void *p)
{
	struct weights *w = p;
	if (w->fd >= 0)
		close(w->fd);
	lwm_arena_free(&w->names);
	free(w->list);
	free(w->piece);
	free(w->path);
	free(w);
}

/* ---- arrays ---- */

static const struct lwm_pk *numpy_call(const struct lwm_pk *p, const char *part, const char *name)
{
	char module[2][64];
	snprintf(module[0], sizeof module[0], "numpy.core.%s", part);
	snprintf(module[1], sizeof module[1], "numpy._core.%s", part);
	const struct lwm_pk *args = lwm_pk_call(p, module[0], name);
	return args ? args : lwm_pk_call(p, module[1], name);
}

/* numpy.dtype('f4', ...), built with (3, '<', ...). */
static bool dtype_of(const struct lwm_pk *p, struct array *a)
{
	static const struct {
		const char *name;
		enum lwm_st_dtype dtype;
		int width;
	} types[] = { { "f4", LWM_ST_F32, 4 }, { "f2", LWM_ST_F16, 2 }, { "f8", LWM_ST_F64, 8 } };
	const struct lwm_pk *args = lwm_pk_call(p, "numpy", "dtype"), *state = p->state;
	if (!args || args->n < 1 || !state || state->kind != LWM_PK_TUPLE || state->n < 2 || !lwm_pk_is_text(state->v[1], "<"))
		return false;
	for (int i = 0; i < 3; i++)
		if (lwm_pk_is_text(args->v[0], types[i].name)) {
			a->t.dtype = types[i].dtype;
			a->width = types[i].width;
			return true;
		}
	return false;
}

/* 1 an array, 0 something else; negative: an array that is not read here. */
static int array_of(const struct weights *w, const char *name, const struct lwm_pk *p, struct array *a, struct lwm_err *e)
{
	const struct lwm_pk *shape, *type, *bytes, *args = numpy_call(p, "numeric", "_frombuffer");
	bool rows = true;
	if (args && args->n >= 4) { /* (bytes, dtype, shape, 'C') */
		bytes = args->v[0];
		type = args->v[1];
		shape = args->v[2];
		rows = lwm_pk_is_text(args->v[3], "C");
	} else if (numpy_call(p, "multiarray", "_reconstruct") && p->state && p->state->kind == LWM_PK_TUPLE && p->state->n >= 5) {
		shape = p->state->v[1]; /* (1, shape, dtype, Fortran's order, bytes) */
		type = p->state->v[2];
		rows = p->state->v[3]->kind == LWM_PK_BOOL && !p->state->v[3]->i;
		bytes = p->state->v[4];
	} else {
		return 0;
	}
	if (bytes->kind != LWM_PK_BYTES)
		return lwm_fail(e, LWM_EDATA, "%s: '%s' is in a pickle of protocol 2: write it with protocol 4", w->path, name);
	if (!rows || !dtype_of(type, a))
		return lwm_fail(e, LWM_EDATA, "%s: '%s' is no array of little-endian floating-point numbers row by row", w->path, name);
	if (shape->kind != LWM_PK_TUPLE || shape->n > LWM_ST_DIMS)
		return lwm_fail(e, LWM_EDATA, "%s: '%s' has no usable shape", w->path, name);
	a->t.size = 1;
	a->t.ndim = (int)shape->n;
	for (int d = 0; d < a->t.ndim; d++) {
		a->t.shape[d] = shape->v[d]->kind == LWM_PK_INT ? shape->v[d]->i : -1;
		if (a->t.shape[d] < 0 || lwm_mul(a->t.size, a->t.shape[d], &a->t.size))
			return lwm_fail(e, LWM_EDATA, "%s: '%s' has no usable shape", w->path, name);
	}
	if (lwm_mul(a->t.size, a->width, &a->t.end) || a->t.end != bytes->len)
		return lwm_fail(e, LWM_EDATA, "%s: '%s' holds %" PRId64 " bytes, its shape wants another number", w->path, name, bytes->len);
	a->at = bytes->at;
	return 1;
}

/* ---- names ---- */

/* Names of flax to those of diffusers, from the leaves up; false: not a part that is known. */
static bool leaf(const char *s, const char **out)
{
	static const char *const leaves[][2] = { { "kernel", "weight" }, { "scale", "weight" }, { "bias", "bias" } };
	for (int i = 0; i < 3; i++)
		if (!strcmp(s, leaves[i][0])) {
			*out = leaves[i][1];
			return true;
		}
	return false;
}

static bool resnet(const char *s, char *to, size_t n)
{
	static const char *const parts[][2] = { { "GroupNorm_0/", "norm1" }, { "Conv_0/", "conv1" }, { "GroupNorm_1/", "norm2" },
						{ "Conv_1/", "conv2" }, { "Conv_2/", "conv_shortcut" } };
	const char *last;
	int block, used = 0;
	if (sscanf(s, "ResnetBlock_%2d/%n", &block, &used) != 1 || !used || block < 0)
		return false;
	for (int i = 0; i < 5; i++) {
		size_t len = strlen(parts[i][0]);
		if (!strncmp(s + used, parts[i][0], len) && leaf(s + used + len, &last)) {
			snprintf(to, n, "resnets.%d.%s.%s", block, parts[i][1], last);
			return true;
		}
	}
	return false;
}

static bool half(const char *s, bool down, char *to, size_t n)
{
	static const char *const parts[][2] = { { "Conv_0/", "conv_in" }, { "Conv_1/", "conv_out" }, { "GroupNorm_0/", "conv_norm_out" } };
	const char *last, *step = down ? "Downsample_0/Conv_0/" : "Upsample_0/Conv_0/";
	char rest[96];
	int level, used = 0;
	for (int i = 0; i < 3; i++) {
		size_t len = strlen(parts[i][0]);
		if (!strncmp(s, parts[i][0], len) && leaf(s + len, &last)) {
			snprintf(to, n, "%s.%s", parts[i][1], last);
			return true;
		}
	}
	if (!strncmp(s, "MidBlock_0/", 11) && resnet(s + 11, rest, sizeof rest)) {
		snprintf(to, n, "mid_block.%s", rest);
		return true;
	}
	if (sscanf(s, down ? "DownsamplingBlock_%2d/%n" : "UpsamplingBlock_%2d/%n", &level, &used) != 1 || !used || level < 0 || level >= LEVELS)
		return false;
	if (resnet(s + used, rest, sizeof rest)) {
		snprintf(to, n, "%s_blocks.%d.%s", down ? "down" : "up", level, rest);
		return true;
	}
	if (strncmp(s + used, step, strlen(step)) || !leaf(s + used + strlen(step), &last))
		return false;
	snprintf(to, n, "%s_blocks.%d.%ssamplers.0.conv.%s", down ? "down" : "up", level, down ? "down" : "up", last);
	return true;
}

static bool translate(const char *s, char *to, size_t n)
{
	char rest[128];
	const char *last;
	if (!strcmp(s, "quantize/embeddings")) {
		snprintf(to, n, "quantize.embedding.weight");
		return true;
	}
	for (int post = 0; post < 2; post++) {
		const char *name = post ? "post_quant_conv" : "quant_conv";
		size_t len = strlen(name);
		if (!strncmp(s, name, len) && s[len] == '/' && leaf(s + len + 1, &last)) {
			snprintf(to, n, "%s.%s", name, last);
			return true;
		}
	}
	bool down = !strncmp(s, "encoder/", 8);
	if ((!down && strncmp(s, "decoder/", 8)) || !half(s + 8, down, rest, sizeof rest))
		return false;
	snprintf(to, n, "%s.%s", down ? "encoder" : "decoder", rest);
	return true;
}

/* ---- the tree ---- */

static int add_array(struct weights *w, const char *path, const struct array *a, struct lwm_err *e)
{
	char name[192];
	if (!translate(path, name, sizeof name))
		return lwm_fail(e, LWM_EDATA, "%s: holds '%.120s', which is no part of LWM's frame tokenizer", w->path, path);
	if (w->n == w->cap) {
		int64_t cap = w->cap ? w->cap * 2 : 128;
		struct array *v = realloc(w->list, (size_t)cap * sizeof *v);
		if (!v)
			return lwm_fail_memory(e, w->path);
		w->list = v;
		w->cap = cap;
	}
	w->list[w->n] = *a;
	w->list[w->n].t.name = lwm_arena_strdup(&w->names, name);
	return w->list[w->n++].t.name ? 0 : lwm_fail_memory(e, w->path);
}

/* path: of p, with a slash behind it; room for what is below. */
static int walk(struct weights *w, const struct lwm_pk *p, char *path, size_t len, int depth, struct lwm_err *e)
{
	for (int64_t i = 0; i + 1 < p->n; i += 2) {
		const struct lwm_pk *key = p->v[i], *value = p->v[i + 1];
		struct array a = { 0 };
		if (key->kind != LWM_PK_TEXT || key->len > 64 || len + 66 > 512 || memchr(key->s, 0, (size_t)key->len))
			return lwm_fail(e, LWM_EDATA, "%s: a name in it is no name", w->path);
		memcpy(path + len, key->s, (size_t)key->len);
		path[len + (size_t)key->len] = 0;
		int rc = array_of(w, path, value, &a, e);
		if (rc > 0) {
			rc = add_array(w, path, &a, e);
		} else if (rc == 0 && lwm_pk_is_dict(value) && depth < DEPTH) {
			path[len + (size_t)key->len] = '/';
			rc = walk(w, value, path, len + (size_t)key->len + 1, depth + 1, e);
		} else if (rc == 0) {
			rc = lwm_fail(e, LWM_EDATA, "%s: '%s' is neither a dict nor an array of NumPy (of JAX? store numpy.asarray of it)",
				      w->path, path);
		}
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int by_name(const void *a, const void *b)
{
	const struct array *x = a, *y = b;
	return strcmp(x->t.name, y->t.name);
}

static int find_arrays(struct weights *w, int64_t bytes, struct lwm_err *e)
{
	struct lwm_pickle *p = NULL;
	char path[512] = "";
	int rc;
	LWM_GO(lwm_pickle_read_file(&p, w->fd, 0, bytes, NULL, w->path, e));
	const struct lwm_pk *root = lwm_pickle_root(p), *below = lwm_pk_get(root, "params");
	root = below ? below : root;
	if (!lwm_pk_is_dict(root)) {
		rc = lwm_fail(e, LWM_EDATA, "%s: a pickle, but not of LWM's frame tokenizer: it is no dict", w->path);
		goto out;
	}
	LWM_GO(walk(w, root, path, 0, 0, e));
	qsort(w->list, (size_t)w->n, sizeof *w->list, by_name);
	for (int64_t i = 1; i < w->n && rc == 0; i++)
		if (!strcmp(w->list[i - 1].t.name, w->list[i].t.name))
			rc = lwm_fail(e, LWM_EDATA, "%s: has '%s' twice", w->path, w->list[i].t.name);
out:
	lwm_pickle_free(p);
	return rc;
}

static int open_file(struct weights **out, const struct lwm_model_place *from, struct lwm_err *e)
{
	struct stat st;
	int rc;
	struct weights *w = calloc(1, sizeof *w);
	if (!w)
		return lwm_fail_memory(e, from->dir);
	w->fd = -1;
	w->path = lwm_path_join(from->dir, from->file);
	w->piece = malloc(PIECE);
	if (!w->path || !w->piece) {
		rc = lwm_fail_memory(e, from->dir);
		goto out;
	}
	w->fd = open(w->path, O_RDONLY | O_CLOEXEC);
	if (w->fd < 0 || fstat(w->fd, &st)) {
		rc = lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot open", w->path);
		goto out;
	}
	LWM_GO(find_arrays(w, (int64_t)st.st_size, e));
	*out = w;
	return 0;
out:
	close_weights(w);
	return rc;
}

/* ---- the configuration ---- */

/* What a convolution of that name makes; 0: there is none. In memory its axes are rows, columns, in, out. */
static int64_t channels_of(const struct weights *w, const char *name)
{
	struct array key = { .t.name = name };
	const struct array *a = bsearch(&key, w->list, (size_t)w->n, sizeof *w->list, by_name);
	return a && a->t.ndim == 4 ? a->t.shape[3] : 0;
}

static int64_t block_channels(const struct weights *w, int level, int block)
{
	char name[96];
	snprintf(name, sizeof name, "encoder.down_blocks.%d.resnets.%d.conv1.weight", level, block);
	return channels_of(w, name);
}

static int64_t codes_of(const struct weights *w)
{
	struct array key = { .t.name = "quantize.embedding.weight" };
	const struct array *a = bsearch(&key, w->list, (size_t)w->n, sizeof *w->list, by_name);
	return a && a->t.ndim == 2 ? a->t.shape[0] : 0;
}

static int make_config(const struct weights *w, json_t **out, struct lwm_err *e)
{
	int64_t z = channels_of(w, "encoder.conv_out.weight"), embed = channels_of(w, "quant_conv.weight"), codes = codes_of(w);
	json_t *channels = json_array();
	int levels = 0, blocks = 0;
	bool lost = !channels;
	for (int64_t n; levels < LEVELS && (n = block_channels(w, levels, 0)); levels++)
		lost |= json_array_append_new(channels, json_integer((json_int_t)n)) < 0;
	while (blocks < LEVELS && block_channels(w, 0, blocks))
		blocks++;
	if (!lost && (!levels || !z || !embed || !codes)) {
		json_decref(channels);
		return lwm_fail(e, LWM_EDATA, "%s: a part of LWM's frame tokenizer is missing", w->path);
	}
	/* 32 groups: what flax's GroupNorm has unless it is told otherwise */
	*out = json_pack("{s:s, s:o, s:I, s:I, s:i, s:i, s:I, s:i, s:b, s:{s:s}}", "_class_name", "VQModel", "block_out_channels",
			 channels, "latent_channels", (json_int_t)z, "vq_embed_dim", (json_int_t)embed, "layers_per_block", blocks,
			 "norm_num_groups", 32, "num_vq_embeddings", (json_int_t)codes, "sample_size", 256,
			 "mid_block_add_attention", 0, "lwm", "pixel_range", "[-1,1]");
	if (*out && !lost)
		return 0;
	json_decref(*out);
	*out = NULL;
	return lwm_fail_memory(e, w->path);
}

/* ---- the format ---- */

static bool is_pickle(const char *path)
{
	struct stat st;
	unsigned char head[2] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return false;
	bool is = !fstat(fd, &st) && S_ISREG(st.st_mode) && read(fd, head, 2) == 2 && head[0] == 0x80 && head[1] >= 2 &&
		  head[1] <= 5;
	close(fd);
	return is;
}

static bool lies_in(const char *dir)
{
	(void)dir;
	return false; /* LWM's folders hold a language model beside it: the file is named */
}

static int config_of(const struct lwm_model_place *from, json_t **out, struct lwm_err *e)
{
	struct weights *w = NULL;
	LWM_TRY(open_file(&w, from, e));
	int rc = make_config(w, out, e);
	close_weights(w);
	return rc;
}

static int open_weights(void **out, const struct lwm_model_place *from, struct lwm_err *e)
{
	struct weights *w = NULL;
	int rc = open_file(&w, from, e);
	*out = w;
	return rc;
}

static int64_t count_tensors(const void *p)
{
	return ((const struct weights *)p)->n;
}

static const struct lwm_st_tensor *tensor_at(const void *p, int64_t i)
{
	return &((const struct weights *)p)->list[i].t;
}

static int read_values(void *p, int64_t i, int64_t offset, int64_t n, float *out, struct lwm_err *e)
{
	struct weights *w = p;
	const struct array *a = &w->list[i];
	int64_t step = PIECE / a->width;
	if (offset < 0 || n < 0 || offset > a->t.size - n)
		return lwm_fail(e, LWM_EDATA, "%s: values %" PRId64 " to %" PRId64 " of '%s', which has %" PRId64, w->path, offset,
				offset + n, a->t.name, a->t.size);
	for (int64_t done = 0; done < n; done += step) {
		int64_t k = n - done < step ? n - done : step;
		LWM_TRY(lwm_pread_all(w->fd, w->piece, k * a->width, a->at + (offset + done) * a->width, w->path, e));
		lwm_st_widen(w->piece, a->t.dtype, k, out + done);
	}
	return 0;
}

static int no_sums(void *p, struct lwm_err *e)
{
	return lwm_fail(e, LWM_ENO, "%s: carries no checksums", ((struct weights *)p)->path);
}

const struct lwm_model_format lwm_model_vqpickle = {
	.name = "lwm-vqgan",
	.is_file = is_pickle,
	.lies_in = lies_in,
	.as_in_memory = true,
	.config = config_of,
	.open = open_weights,
	.close = close_weights,
	.count = count_tensors,
	.tensor = tensor_at,
	.read = read_values,
	.check = no_sums,
};
