/* Language models as LWM releases them for JAX: a stream of MessagePack records, each an array of flax by its path, or all of
 * them in one tree (`params::`, `trainstate_params::`, `flax_params::` of LWM). Layers lie one behind the other in one array each,
 * matrices (in, out); here they are tensors of their own, (out, in). Optimizer state in the stream is passed over. Such a file says
 * nothing of heads and angles: config.json lies beside it. Read, never written.
 *
 * Stream: StreamingCheckpointer of LWM; arrays: flax.serialization (ext 1: shape, dtype, bytes; larger ones in chunks); bytes:
 * the MessagePack specification. */
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
#include "common/io/msgpack.h"
#include "common/io/pio.h"
#include "common/io/st_int.h"

enum { PIECE = 1 << 18, DEPTH = 12, PATH_ROOM = 512, CHUNKS_MOST = 4096, TILE = 64 };

struct array { /* as it lies in the file */
	enum lwm_st_dtype dtype;
	int width, ndim;
	int64_t shape[3];
	struct chunk {
		int64_t at, bytes;
	} *chunk;
	int64_t nchunks;
};
struct entry {
	struct lwm_st_tensor t;
	int64_t array, first; /* of the array, and the first value in it */
	bool turned;          /* it lies (in, out) */
};
struct weights {
	char *path;
	struct lwm_msgpack in;
	struct lwm_arena *names;
	struct array *array;
	struct entry *list;
	int64_t arrays, array_cap, n, cap;
	char *piece, *held; /* held: of the last turned entry, as it is given out */
	int64_t held_entry, held_bytes;
};

static void close_weights(void *p)
{
	struct weights *w = p;
	if (w->in.fd >= 0)
		close(w->in.fd);
	for (int64_t i = 0; i < w->arrays; i++)
		free(w->array[i].chunk);
	lwm_msgpack_release(&w->in);
	lwm_arena_free(&w->names);
	free(w->array);
	free(w->list);
	free(w->piece);
	free(w->held);
	free(w->path);
	free(w);
}

static int fault(const struct weights *w, const char *path, const char *what, struct lwm_err *e)
{
	return lwm_fail(e, LWM_EDATA, "%s: '%.120s': %s", w->path, path, what);
}

/* Room for one more. */
static int grow(void **list, int64_t n, int64_t *cap, size_t size, const char *path, struct lwm_err *e)
{
	if (n < *cap)
		return 0;
	int64_t more = *cap ? *cap * 2 : 64;
	void *v = realloc(*list, (size_t)more * size);
	if (!v)
		return lwm_fail_memory(e, path);
	*list = v;
	*cap = more;
	return 0;
}

/* ---- names ---- */

/* Of LWM, of Hugging Face, is it a matrix that is turned. Layers: below h/scan_decoder. */
static const struct part {
	const char *theirs, *ours;
	bool turned;
	int dims;
} parts[] = {
	{ "transformer/wte/embedding", "model.embed_tokens.weight", false, 2 },
	{ "transformer/vte/embedding", "model.vision_embed_tokens.weight", false, 2 },
	{ "transformer/ln_f/kernel", "model.norm.weight", false, 1 },
	{ "lm_head/kernel", "lm_head.weight", true, 2 },
	{ "vision_head/kernel", "vision_head.weight", true, 2 },
}, layer_parts[] = {
	{ "attention/wq/kernel", "self_attn.q_proj.weight", true, 2 },
	{ "attention/wk/kernel", "self_attn.k_proj.weight", true, 2 },
	{ "attention/wv/kernel", "self_attn.v_proj.weight", true, 2 },
	{ "attention/wo/kernel", "self_attn.o_proj.weight", true, 2 },
	{ "feed_forward/w1/kernel", "mlp.gate_proj.weight", true, 2 },
	{ "feed_forward/w2/kernel", "mlp.down_proj.weight", true, 2 },
	{ "feed_forward/w3/kernel", "mlp.up_proj.weight", true, 2 },
	{ "attention_norm/kernel", "input_layernorm.weight", false, 1 },
	{ "ffn_norm/kernel", "post_attention_layernorm.weight", false, 1 },
};

/* `part` of an array, from value `first`: dims are the tensor's as it lies. */
static int add_entry(struct weights *w, const char *name, const struct part *part, int64_t first, int ndim, const int64_t *dims,
		     struct lwm_err *e)
{
	LWM_TRY(grow((void **)&w->list, w->n, &w->cap, sizeof *w->list, w->path, e));
	struct entry *x = &w->list[w->n];
	const struct array *a = &w->array[w->arrays - 1];
	*x = (struct entry){ .array = w->arrays - 1, .first = first, .turned = part->turned };
	x->t.name = lwm_arena_strdup(&w->names, name);
	x->t.dtype = a->dtype;
	x->t.ndim = ndim;
	x->t.size = 1;
	for (int d = 0; d < ndim; d++) {
		x->t.shape[part->turned ? ndim - 1 - d : d] = dims[d];
		x->t.size *= dims[d];
	}
	x->t.end = x->t.size * a->width;
	w->n++;
	return x->t.name ? 0 : lwm_fail_memory(e, w->path);
}

/* The array that was read last becomes tensors. path: of LWM, without what stands before the model. */
static int name_array(struct weights *w, const char *path, struct lwm_err *e)
{
	static const char layers[] = "transformer/h/scan_decoder/";
	const struct array *a = &w->array[w->arrays - 1];
	char name[96];
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		if (!strcmp(path, parts[i].theirs)) {
			if (a->ndim != parts[i].dims)
				return fault(w, path, "has another number of dimensions", e);
			return add_entry(w, parts[i].ours, &parts[i], 0, a->ndim, a->shape, e);
		}
	for (size_t i = 0; !strncmp(path, layers, strlen(layers)) && i < sizeof layer_parts / sizeof *layer_parts; i++) {
		const struct part *p = &layer_parts[i];
		if (strcmp(path + strlen(layers), p->theirs))
			continue;
		if (a->ndim != p->dims + 1 || a->shape[0] > 10000)
			return fault(w, path, "is not one of each layer", e);
		int64_t each = a->shape[1] * (p->turned ? a->shape[2] : 1);
		for (int64_t k = 0; k < a->shape[0]; k++) {
			snprintf(name, sizeof name, "model.layers.%" PRId64 ".%s", k, p->ours);
			LWM_TRY(add_entry(w, name, p, k * each, a->ndim - 1, a->shape + 1, e));
		}
		return 0;
	}
	return fault(w, path, "is no part of a language model of LWM with its layers in one array (scan_layers)", e);
}

/* ---- arrays ---- */

/* Does this path, from the root of the file, lead into the model? *below: from there on. */
static bool wanted(const char *path, const char **below)
{
	while (!strncmp(path, "params/", 7))
		path += 7;
	*below = path;
	return strcmp(path, "step") && strncmp(path, "opt_state", 9);
}

static int add_chunk(struct weights *w, struct array *a, int64_t at, int64_t bytes, struct lwm_err *e)
{
	struct chunk *v = realloc(a->chunk, (size_t)(a->nchunks + 1) * sizeof *v);
	if (!v)
		return lwm_fail_memory(e, w->path);
	a->chunk = v;
	v[a->nchunks++] = (struct chunk){ at, bytes };
	return 0;
}

static int next(struct weights *w, struct lwm_mp_item *x, enum lwm_mp_kind kind, const char *path, struct lwm_err *e)
{
	int rc = lwm_msgpack_next(&w->in, x, e);
	return rc < 0 ? rc : rc == 0 || x->kind != kind ? fault(w, path, "is not stored as flax stores arrays", e) : 0;
}

/* The inside of an ext 1: (shape, dtype, bytes). shape NULL: of one piece of a larger array, whose shape is said elsewhere. */
static int read_array(struct weights *w, const struct lwm_mp_item *ext, struct array *a, bool piece, const char *path,
		      struct lwm_err *e)
{
	static const struct {
		const char *name;
		enum lwm_st_dtype dtype;
		int width;
	} types[] = { { "bfloat16", LWM_ST_BF16, 2 }, { "float32", LWM_ST_F32, 4 }, { "float16", LWM_ST_F16, 2 } };
	struct lwm_mp_item x;
	int64_t end = w->in.at;
	size_t k = 0;
	w->in.at = ext->at;
	LWM_TRY(next(w, &x, LWM_MP_ARRAY, path, e));
	if (ext->type != 1 || x.n != 3)
		return fault(w, path, "is not stored as flax stores arrays", e);
	LWM_TRY(next(w, &x, LWM_MP_ARRAY, path, e));
	int64_t dims = x.n;
	if (dims > 3)
		return fault(w, path, "has more than three dimensions", e);
	for (int64_t d = 0; d < dims; d++) {
		LWM_TRY(next(w, &x, LWM_MP_INT, path, e));
		if (!piece)
			a->shape[d] = x.n;
	}
	if (!piece)
		a->ndim = (int)dims;
	LWM_TRY(next(w, &x, LWM_MP_TEXT, path, e));
	while (k < 3 && strcmp(types[k].name, x.text))
		k++;
	if (k == 3)
		return fault(w, path, "is of a type that is not read here", e);
	if (a->nchunks && a->dtype != types[k].dtype)
		return fault(w, path, "is of two types", e);
	a->dtype = types[k].dtype;
	a->width = types[k].width;
	LWM_TRY(next(w, &x, LWM_MP_BYTES, path, e));
	if (w->in.at != end)
		return fault(w, path, "is not stored as flax stores arrays", e);
	return add_chunk(w, a, x.at, x.n, e);
}

/* {"0": ..., "1": ...} of n pairs: their values in order. piece: arrays, else sizes. */
static int read_numbered(struct weights *w, struct array *a, bool piece, const char *path, struct lwm_err *e)
{
	struct lwm_mp_item x;
	char want[24];
	LWM_TRY(next(w, &x, LWM_MP_MAP, path, e));
	int64_t n = x.n;
	if (n > (piece ? CHUNKS_MOST : 3))
		return fault(w, path, piece ? "is in too many pieces" : "has more than three dimensions", e);
	for (int64_t i = 0; i < n; i++) {
		snprintf(want, sizeof want, "%" PRId64, i);
		LWM_TRY(next(w, &x, LWM_MP_TEXT, path, e));
		if (strcmp(x.text, want))
			return fault(w, path, "has its pieces in another order", e);
		LWM_TRY(next(w, &x, piece ? LWM_MP_EXT : LWM_MP_INT, path, e));
		if (piece)
			LWM_TRY(read_array(w, &x, a, true, path, e));
		else
			a->shape[i] = x.n;
	}
	if (!piece)
		a->ndim = (int)n;
	return 0;
}

/* {"__msgpack_chunked_array__": true, "shape": ..., "chunks": ...}, whose first key was read. */
static int read_chunked(struct weights *w, struct array *a, int64_t pairs, const char *path, struct lwm_err *e)
{
	static const char *const keys[] = { "shape", "chunks" };
	struct lwm_mp_item x;
	LWM_TRY(next(w, &x, LWM_MP_BOOL, path, e));
	for (int i = 0; i < 2; i++) {
		LWM_TRY(next(w, &x, LWM_MP_TEXT, path, e));
		if (pairs != 3 || strcmp(x.text, keys[i]))
			return fault(w, path, "is not stored as flax stores arrays", e);
		LWM_TRY(read_numbered(w, a, i == 1, path, e));
	}
	return 0;
}

/* What was read is all there is of it; it becomes tensors, or is not wanted and goes. */
static int settle(struct weights *w, const char *path, struct lwm_err *e)
{
	struct array *a = &w->array[w->arrays - 1];
	const char *below;
	int64_t size = 1, bytes = 0;
	for (int d = 0; d < a->ndim; d++)
		if (a->shape[d] < 1 || lwm_mul(size, a->shape[d], &size))
			return fault(w, path, "has no usable shape", e);
	for (int64_t i = 0; i < a->nchunks; i++) {
		if (a->chunk[i].bytes % a->width)
			return fault(w, path, "has a piece that ends in the middle of a number", e);
		bytes += a->chunk[i].bytes;
	}
	if (lwm_mul(size, a->width, &size) || size != bytes)
		return fault(w, path, "does not hold what its shape says", e);
	if (wanted(path, &below))
		return name_array(w, below, e);
	free(a->chunk);
	w->arrays--;
	return 0;
}

static int new_array(struct weights *w, struct lwm_err *e)
{
	LWM_TRY(grow((void **)&w->array, w->arrays, &w->array_cap, sizeof *w->array, w->path, e));
	w->array[w->arrays++] = (struct array){ 0 };
	return 0;
}

/* One item with all that is in it; path: of it, with room for what is below. */
static int read_tree(struct weights *w, char *path, size_t len, int depth, struct lwm_err *e)
{
	struct lwm_mp_item x;
	const char *below;
	int rc = lwm_msgpack_next(&w->in, &x, e);
	if (rc <= 0)
		return rc < 0 ? rc : fault(w, path, "the file ends before it", e);
	if (depth > DEPTH)
		return fault(w, path, "lies too deep", e);
	if (x.kind == LWM_MP_EXT && x.type == 1) {
		LWM_TRY(new_array(w, e));
		LWM_TRY(read_array(w, &x, &w->array[w->arrays - 1], false, path, e));
		return settle(w, path, e);
	}
	if (x.kind == LWM_MP_ARRAY) {
		for (int64_t i = 0, n = x.n; i < n; i++)
			LWM_TRY(read_tree(w, path, len, depth + 1, e));
		return 0;
	}
	if (x.kind != LWM_MP_MAP)
		return wanted(path, &below) ? fault(w, path, "is no array", e) : 0;
	for (int64_t i = 0, n = x.n; i < n; i++) {
		LWM_TRY(next(w, &x, LWM_MP_TEXT, path, e));
		if (i == 0 && !strcmp(x.text, "__msgpack_chunked_array__")) {
			LWM_TRY(new_array(w, e));
			LWM_TRY(read_chunked(w, &w->array[w->arrays - 1], n, path, e));
			return settle(w, path, e);
		}
		if (!*x.text || x.n > 64 || len + 66 > PATH_ROOM)
			return fault(w, path, "holds a name that is none", e);
		int more = snprintf(path + len, PATH_ROOM - len, "%s%s", len ? "/" : "", x.text);
		LWM_TRY(read_tree(w, path, len + (size_t)more, depth + 1, e));
		path[len] = 0;
	}
	return 0;
}

/* (("params", "params", ...), bytes), of which the first item was read. */
static int read_record(struct weights *w, char *path, struct lwm_err *e)
{
	struct lwm_mp_item x;
	const char *below;
	size_t len = 0;
	int64_t end = w->in.end;
	LWM_TRY(next(w, &x, LWM_MP_ARRAY, "record", e));
	*path = 0;
	for (int64_t i = 0, n = x.n; i < n; i++) {
		LWM_TRY(next(w, &x, LWM_MP_TEXT, path, e));
		if (!*x.text || x.n > 64 || len + 66 > PATH_ROOM)
			return fault(w, path, "holds a name that is none", e);
		len += (size_t)snprintf(path + len, PATH_ROOM - len, "%s%s", len ? "/" : "", x.text);
	}
	LWM_TRY(next(w, &x, LWM_MP_BYTES, path, e));
	if (!wanted(path, &below))
		return 0;
	w->in.at = x.at;
	w->in.end = x.at + x.n;
	int rc = read_tree(w, path, len, 0, e);
	if (rc == 0 && w->in.at != w->in.end)
		rc = fault(w, path, "is followed by something else", e);
	w->in.end = end;
	return rc;
}

static int by_name(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	return strcmp(x->t.name, y->t.name);
}

static int read_file(struct weights *w, struct lwm_err *e)
{
	char path[PATH_ROOM] = "";
	struct lwm_mp_item x;
	int rc;
	while ((rc = lwm_msgpack_next(&w->in, &x, e)) > 0) {
		if (x.kind == LWM_MP_MAP && !w->n) { /* all in one tree */
			w->in.at = 0;
			rc = read_tree(w, path, 0, 0, e);
		} else if (x.kind == LWM_MP_ARRAY && x.n == 2) {
			rc = read_record(w, path, e);
		} else {
			rc = lwm_fail(e, LWM_EDATA, "%s: is no stream of arrays", w->path);
		}
		if (rc < 0)
			break;
	}
	if (rc < 0)
		return rc;
	if (!w->n)
		return lwm_fail(e, LWM_EDATA, "%s: holds no weights", w->path);
	qsort(w->list, (size_t)w->n, sizeof *w->list, by_name);
	for (int64_t i = 1; i < w->n; i++)
		if (!strcmp(w->list[i - 1].t.name, w->list[i].t.name))
			return lwm_fail(e, LWM_EDATA, "%s: has '%s' twice", w->path, w->list[i].t.name);
	return 0;
}

/* ---- values ---- */

/* n values of the array from `first`, raw. */
static int raw_values(struct weights *w, const struct array *a, int64_t first, int64_t n, char *out, struct lwm_err *e)
{
	int64_t at = first * a->width, bytes = n * a->width;
	for (int64_t i = 0; i < a->nchunks && bytes; i++) {
		const struct chunk *c = &a->chunk[i];
		if (at >= c->bytes) {
			at -= c->bytes;
			continue;
		}
		int64_t k = c->bytes - at < bytes ? c->bytes - at : bytes;
		LWM_TRY(lwm_pread_all(w->in.fd, out, k, c->at + at, w->path, e));
		out += k;
		bytes -= k;
		at = 0;
	}
	return 0;
}

/* rows x cols numbers of so many bytes, to cols x rows; in tiles that caches hold. */
static void turn(const char *from, int64_t rows, int64_t cols, int width, char *to)
{
	for (int64_t r0 = 0; r0 < rows; r0 += TILE)
		for (int64_t c0 = 0; c0 < cols; c0 += TILE)
			for (int64_t r = r0; r < rows && r < r0 + TILE; r++)
				for (int64_t c = c0; c < cols && c < c0 + TILE; c++)
					memcpy(to + (c * rows + r) * width, from + (r * cols + c) * width, (size_t)width);
}

/* The whole of entry i as it is given out, in w->held. */
static int hold(struct weights *w, int64_t i, struct lwm_err *e)
{
	const struct entry *x = &w->list[i];
	const struct array *a = &w->array[x->array];
	if (w->held_entry == i)
		return 0;
	w->held_entry = -1;
	if (x->t.end > w->held_bytes) {
		free(w->held);
		w->held = malloc((size_t)x->t.end);
		w->held_bytes = w->held ? x->t.end : 0;
	}
	char *raw = malloc((size_t)x->t.end);
	int rc = w->held && raw ? raw_values(w, a, x->first, x->t.size, raw, e) : lwm_fail_memory(e, w->path);
	if (rc == 0) {
		turn(raw, x->t.shape[1], x->t.shape[0], a->width, w->held);
		w->held_entry = i;
	}
	free(raw);
	return rc;
}

static int read_values(void *p, int64_t i, int64_t offset, int64_t n, float *out, struct lwm_err *e)
{
	struct weights *w = p;
	const struct entry *x = &w->list[i];
	const struct array *a = &w->array[x->array];
	int64_t step = PIECE / a->width;
	if (offset < 0 || n < 0 || offset > x->t.size - n)
		return lwm_fail(e, LWM_EDATA, "%s: values %" PRId64 " to %" PRId64 " of '%s', which has %" PRId64, w->path, offset,
				offset + n, x->t.name, x->t.size);
	if (x->turned) {
		LWM_TRY(hold(w, i, e));
		lwm_st_widen(w->held + offset * a->width, a->dtype, n, out);
		return 0;
	}
	for (int64_t done = 0; done < n; done += step) {
		int64_t k = n - done < step ? n - done : step;
		LWM_TRY(raw_values(w, a, x->first + offset + done, k, w->piece, e));
		lwm_st_widen(w->piece, a->dtype, k, out + done);
	}
	return 0;
}

/* ---- the format ---- */

static const char *const names[] = { "params", "streaming_params", "streaming_train_state" };

static const char *name_in(const char *dir)
{
	for (int i = 0; i < 3; i++)
		if (lwm_folder_has(dir, names[i]))
			return names[i];
	return NULL;
}

/* A record begins with an array of two, of which the first is an array; a tree with a map whose first key is a text. */
static bool is_stream(const char *path)
{
	struct stat st;
	unsigned char head[2] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return false;
	bool file = !fstat(fd, &st) && S_ISREG(st.st_mode) && read(fd, head, 2) == 2;
	close(fd);
	return file && ((head[0] == 0x92 && (head[1] & 0xf0) == 0x90) ||
			(head[0] > 0x80 && head[0] < 0x90 && (head[1] & 0xe0) == 0xa0));
}

static bool lies_in(const char *dir)
{
	return lwm_folder_has(dir, LWM_MODEL_CONFIG) && name_in(dir);
}

static int open_weights(void **out, const struct lwm_model_place *from, struct lwm_err *e)
{
	const char *name = from->file ? from->file : name_in(from->dir);
	struct stat st;
	int rc;
	struct weights *w = calloc(1, sizeof *w);
	if (!w)
		return lwm_fail_memory(e, from->dir);
	w->in.fd = w->held_entry = -1;
	w->path = lwm_path_join(from->dir, name ? name : names[0]);
	w->piece = malloc(PIECE);
	if (!w->path || !w->piece) {
		rc = lwm_fail_memory(e, from->dir);
		goto out;
	}
	w->in.where = w->path;
	w->in.fd = open(w->path, O_RDONLY | O_CLOEXEC);
	if (w->in.fd < 0 || fstat(w->in.fd, &st)) {
		rc = lwm_fail_errno(e, LWM_ENOINPUT, errno, "%s: cannot open", w->path);
		goto out;
	}
	w->in.end = (int64_t)st.st_size;
	LWM_GO(read_file(w, e));
	*out = w;
	return 0;
out:
	close_weights(w);
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

static int no_sums(void *p, struct lwm_err *e)
{
	return lwm_fail(e, LWM_ENO, "%s: carries no checksums", ((struct weights *)p)->path);
}

const struct lwm_model_format lwm_model_stream = {
	.name = "lwm-stream",
	.is_file = is_stream,
	.lies_in = lies_in,
	.as_in_memory = true,
	.open = open_weights,
	.close = close_weights,
	.count = count_tensors,
	.tensor = tensor_at,
	.read = read_values,
	.check = no_sums,
};
