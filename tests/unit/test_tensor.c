/* Where each weight lies, and which rank holds it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/str.h"
#include "common/model/llama.h"
#include "common/model/vqgan.h"
#include "common/tensor/adapter.h"
#include "common/tensor/choose.h"
#include "common/tensor/cut.h"
#include "common/tensor/range.h"

/* ---- the listing of a model's table: it decides what lies where in memory, and what a seed makes of it ---- */

/* Names, shapes, places and what happens to them; digests of the listings that the code before struct lwm_tensor gave. */
struct listing {
	const char *what;
	int64_t n, total, params;
	const char *digest;
};

static void add_line(struct lwm_str *s, const struct lwm_tensor *t)
{
	lwm_str_printf(s, "%s", t->name);
	for (int i = 0; i < t->ndim; i++)
		lwm_str_printf(s, "%s%" PRId64, i ? "x" : " ", t->shape[i]);
	lwm_str_printf(s, " %" PRId64 "+%" PRId64 "%s%s\n", t->offset, t->count, t->decays ? " decays" : "",
		       t->modality == LWM_VISION ? " vision" : "");
}

static void compare(const struct listing *want, const struct lwm_tensors *p, const struct lwm_str *s)
{
	const char *got = lwm_hash_bytes(s->s, s->len).hex;

	assert_int_equal(p->n, want->n);
	assert_int_equal(p->total, want->total);
	assert_int_equal(p->params, want->params);
	if (strcmp(got, want->digest))
		fail_msg("%s: the listing has the digest %s:\n%s", want->what, got, s->s);
}

static void check_llama(const struct listing *want, const struct lwm_llama_cfg *c)
{
	struct lwm_str s = { 0 };
	struct lwm_tensors p;
	int group = 0;

	assert_int_equal(lwm_llama_tensors(&p, c, NULL), 0);
	for (int64_t i = 0; i < p.n; i++) {
		const struct lwm_tensor *t = &p.list[i];

		add_line(&s, t);
		lwm_str_printf(&s, "  split %d heads %d init %d %g\n", t->split, t->rope_heads, t->init == LWM_INIT_CONST, t->value);
		assert_true(t->trainable && (t->group == group || t->group == ++group));
	}
	assert_int_equal(group, c->layers + 1);
	compare(want, &p, &s);
	lwm_str_release(&s);
	lwm_tensors_release(&p);
}

static void language_models_lie_as_they_did(void **state)
{
	static const struct listing want[] = {
		{ "nano", 29, 4699008, 4699008, "170d7ddcc1f5624e5dcc573ff7ddd3a9" },
		{ "nano with vision", 30, 4797312, 4797312, "8bd13c74c04966228db69c1288e669bf" },
		{ "200m", 129, 212366336, 212366336, "dfb4db4a488fbde3f806d51e6c7e5167" },
		{ "200m with vision", 131, 229667840, 229667840, "bf911cdb7601e1231f119218126bc6c7" },
		{ "124m, grouped heads", 110, 114150144, 114150144, "4d5b956ca08c0904c5959677d2b7be58" },
		{ "124m, grouped heads, untied, vision", 113, 153176832, 153176832, "f938df1c75cdbafd455ec72e36e32bc1" },
		{ "7b", 291, 6738415616, 6738415616, "17cab35cfb8c323c7149bbe3d0adb54d" },
	};
	struct lwm_llama_cfg c;

	(void)state;
	assert_int_equal(lwm_llama_preset(&c, "nano", NULL), 0);
	check_llama(&want[0], &c);
	lwm_llama_add_vision(&c, 512);
	check_llama(&want[1], &c);
	assert_int_equal(lwm_llama_preset(&c, "200m", NULL), 0);
	check_llama(&want[2], &c);
	lwm_llama_add_vision(&c, 8192);
	check_llama(&want[3], &c);
	assert_int_equal(lwm_llama_preset(&c, "124m", NULL), 0);
	c.kv_heads = 4;
	check_llama(&want[4], &c);
	c.tie_embeddings = false;
	lwm_llama_add_vision(&c, 100);
	check_llama(&want[5], &c);
	assert_int_equal(lwm_llama_preset(&c, "7b", NULL), 0);
	check_llama(&want[6], &c);
}

static void frame_tokenizers_lie_as_they_did(void **state)
{
	static const struct listing want[] = {
		{ "lwm", 277, 146244688, 146244675, "aa8bf368d11682e3a285946970c33f44" },
		{ "small", 193, 1039120, 1039107, "02a7d119333d961411978b16e485f1fc" },
		{ "tiny", 165, 738832, 738819, "93f4acf72af87314126f4bcea1666597" },
	};
	static const int kind[] = { [LWM_ROLE_CONV] = 0, [LWM_ROLE_BIAS] = 1, [LWM_ROLE_SCALE] = 2, [LWM_ROLE_CODEBOOK] = 3 };

	(void)state;
	for (size_t k = 0; k < sizeof want / sizeof *want; k++) {
		struct lwm_vqgan_cfg c;
		struct lwm_str s = { 0 };
		struct lwm_tensors p;

		assert_int_equal(lwm_vqgan_preset(&c, want[k].what, NULL), 0);
		assert_int_equal(lwm_vqgan_tensors(&p, &c, NULL), 0);
		for (int64_t i = 0; i < p.n; i++) {
			add_line(&s, &p.list[i]);
			lwm_str_printf(&s, "  kind %d\n", kind[p.list[i].role]);
		}
		compare(&want[k], &p, &s);
		lwm_str_release(&s);
		lwm_tensors_release(&p);
	}
}

static void some_lines(void **state)
{
	static const struct {
		const char *name;
		int64_t rows, cols, offset;
	} want[] = {
		{ "model.embed_tokens.weight", 32000, 128, 0 },
		{ "model.layers.0.input_layernorm.weight", 128, 0, 4096000 },
		{ "model.layers.1.self_attn.k_proj.weight", 128, 128, 4313472 },
		{ "model.layers.2.mlp.down_proj.weight", 128, 352, 4653824 },
		{ "model.norm.weight", 128, 0, 4698880 },
	};
	struct lwm_llama_cfg c;
	struct lwm_tensors p;

	(void)state;
	assert_int_equal(lwm_llama_preset(&c, "nano", NULL), 0);
	assert_int_equal(lwm_llama_tensors(&p, &c, NULL), 0);
	for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
		const struct lwm_tensor *t = lwm_tensors_find(&p, want[i].name);

		assert_non_null(t);
		assert_int_equal(t->shape[0], want[i].rows);
		assert_int_equal(t->shape[1], want[i].cols);
		assert_int_equal(t->offset, want[i].offset);
	}
	lwm_tensors_release(&p);
}

/* ---- the table ---- */

static void gaps_belong_to_nobody(void **state)
{
	struct lwm_tensors p = { .align = 16 };
	float v[48];

	(void)state;
	assert_int_equal(lwm_tensors_add(&p, &(struct lwm_tensor){ .name = "a", .ndim = 1, .shape = { 5 }, .value = 3 }, NULL), 0);
	assert_int_equal(lwm_tensors_add(&p, &(struct lwm_tensor){ .name = "b", .ndim = 2, .shape = { 2, 10 }, .value = 4 }, NULL), 0);
	assert_int_equal(p.total, 48);
	assert_int_equal(p.params, 25);
	assert_ptr_equal(lwm_tensors_at(&p, 4), &p.list[0]);
	assert_null(lwm_tensors_at(&p, 5));
	assert_ptr_equal(lwm_tensors_at(&p, 16), &p.list[1]);
	assert_null(lwm_tensors_at(&p, 36));
	assert_null(lwm_tensors_at(&p, 48));
	lwm_tensors_init(&p, 1, 0, 48, v);
	for (int64_t i = 0; i < 48; i++)
		assert_true(v[i] == (i < 5 ? 3 : i >= 16 && i < 36 ? 4 : 0));
	assert_int_equal(lwm_tensors_add(&p, &(struct lwm_tensor){ .name = "c", .ndim = 2, .shape = { 3, 0 } }, NULL), -LWM_ECONFIG);
	assert_int_equal(lwm_tensors_add(&p, &(struct lwm_tensor){ .name = "c", .ndim = 2, .shape = { INT64_MAX / 8, 7 } }, NULL),
			 -LWM_ECONFIG);
	assert_int_equal(p.n, 2);
	lwm_tensors_release(&p);
}

/* Uniform values are drawn from one generator for the whole tensor: a piece is the same piece of the whole. */
static void a_piece_starts_as_in_the_whole(void **state)
{
	struct lwm_vqgan_cfg c = { .resolution = 8, .hidden = 4, .levels = 2, .mult = { 1, 2 }, .res_blocks = 1, .z_channels = 3,
				   .embed_dim = 3, .num_embeddings = 11, .groups = 2 };
	struct lwm_tensors p;

	(void)state;
	assert_int_equal(lwm_vqgan_tensors(&p, &c, NULL), 0);
	float *all = malloc((size_t)p.total * sizeof *all), *some = malloc((size_t)p.total * sizeof *some);
	lwm_tensors_init(&p, 7, 0, p.total, all);
	for (int64_t at = 0, n = 1; at < p.total; at += n, n = n * 5 % 1013 + 1) {
		if (n > p.total - at)
			n = p.total - at;
		lwm_tensors_init(&p, 7, at, n, some + at);
	}
	assert_memory_equal(all, some, (size_t)p.total * sizeof *all);
	free(all);
	free(some);
	lwm_tensors_release(&p);
}

/* Rows of a given length in any direction: of each number the mean is 0. A piece is the same piece of the whole. */
static void rows_of_one_length(void **state)
{
	enum { ROWS = 400, WIDTH = 7 };
	struct lwm_tensors p = { .align = 4 };
	struct lwm_tensor t = { .name = "rows", .ndim = 2, .shape = { ROWS, WIDTH }, .init = LWM_INIT_ROWS, .value = 3 };
	float v[ROWS * WIDTH], some[ROWS * WIDTH];
	double mean[WIDTH] = { 0 };

	(void)state;
	assert_int_equal(lwm_tensors_add(&p, &t, NULL), 0);
	lwm_tensors_init(&p, 2, 0, ROWS * WIDTH, v);
	for (int64_t at = 0, n = 1; at < ROWS * WIDTH; at += n, n = n * 5 % 97 + 1) {
		n = n < ROWS * WIDTH - at ? n : ROWS * WIDTH - at;
		lwm_tensors_init(&p, 2, at, n, some + at);
	}
	assert_memory_equal(v, some, sizeof v);
	for (int row = 0; row < ROWS; row++) {
		double sum = 0;

		for (int i = 0; i < WIDTH; i++) {
			double x = (double)v[row * WIDTH + i];

			sum += x * x;
			mean[i] += x / ROWS;
		}
		assert_true(sum > 9 - 1e-5 && sum < 9 + 1e-5);
	}
	for (int i = 0; i < WIDTH; i++) /* of deviation 3 / sqrt(7 ROWS) */
		assert_true(mean[i] > -0.23 && mean[i] < 0.23);
	lwm_tensors_release(&p);
}

/* ---- ranges: against an owner that is worked out for each element on its own ---- */

/* Of element i of t: the first rank of n that tensor parallelism gives it to (-1: all of them), and its place there. */
static int owner_of(const struct lwm_tensor *t, int n, int64_t i, int64_t *at)
{
	int64_t idx[LWM_TENSOR_DIMS], rest = i, place = 0;
	int rank = -1;

	for (int d = t->ndim - 1; d >= 0; d--) {
		idx[d] = rest % t->shape[d];
		rest /= t->shape[d];
	}
	for (int d = 0; d < t->ndim; d++) {
		int64_t size = t->shape[d];

		if (d == t->split) {
			int m = t->parts && t->parts < n ? t->parts : n;

			size /= m;
			rank = (int)(idx[d] / size) * (n / m);
			idx[d] %= size;
		}
		place = place * size + idx[d];
	}
	*at = place;
	return rank;
}

/* Each range of each rank's part, as runs, names the elements that lie there. */
static void check_part(const struct lwm_tensor *t, int r, int n)
{
	int64_t size = lwm_part_size(t, n), *want = calloc((size_t)size + 1, sizeof *want), at;

	for (int64_t i = 0; i < t->count; i++) {
		int own = owner_of(t, n, i, &at), got;
		int64_t place;

		got = lwm_part_of(t, n, i, &place);
		assert_int_equal(got, own < 0 ? 0 : own);
		assert_int_equal(place, at);
		if (own < 0 || (own <= r && r < own + lwm_part_copies(t, n)))
			want[at] = i;
	}
	for (int64_t from = 0; from <= size; from++)
		for (int64_t to = from; to <= size; to++) {
			struct lwm_run run[LWM_RUNS];
			int runs = lwm_part_runs(t, r, n, from, to - from, run);
			int64_t k = from;

			assert_true(runs <= LWM_RUNS);
			for (int i = 0; i < runs; i++)
				for (int64_t j = 0; j < run[i].count; j++)
					for (int64_t m = 0; m < run[i].run; m++, k++)
						assert_int_equal(run[i].offset + j * run[i].stride + m, want[k]);
			assert_int_equal(k, to);
		}
	free(want);
}

static void parts_of_tensors(void **state)
{
	static const struct lwm_tensor t[] = {
		{ .name = "rows", .ndim = 2, .shape = { 8, 5 }, .count = 40, .split = 0 },
		{ .name = "columns", .ndim = 2, .shape = { 5, 8 }, .count = 40, .split = 1 },
		{ .name = "whole", .ndim = 1, .shape = { 7 }, .count = 7, .split = LWM_SPLIT_NONE },
		{ .name = "middle", .ndim = 3, .shape = { 3, 4, 2 }, .count = 24, .split = 1 },
		{ .name = "last", .ndim = 4, .shape = { 2, 2, 2, 4 }, .count = 32, .split = 3 },
		{ .name = "shared", .ndim = 2, .shape = { 8, 3 }, .count = 24, .split = 0, .parts = 2, .rope_heads = 2 },
		{ .name = "one", .ndim = 2, .shape = { 2, 6 }, .count = 12, .split = 1, .parts = 1 },
	};
	struct lwm_tensor k = { .name = "k", .ndim = 2, .shape = { 12, 2 }, .count = 24, .split = 0, .parts = 6 };
	struct lwm_tensor q = { .name = "q", .ndim = 2, .shape = { 12, 2 }, .count = 24, .split = 0, .rope_heads = 3 };

	(void)state;
	for (size_t i = 0; i < sizeof t / sizeof *t; i++)
		for (int n = 1; n <= 4; n *= 2) {
			assert_true(lwm_part_fits(&t[i], n));
			for (int r = 0; r < n; r++)
				check_part(&t[i], r, n);
		}
	assert_false(lwm_part_fits(&t[0], 3));
	assert_true(lwm_part_fits(&t[2], 3));
	assert_true(lwm_part_fits(&q, 3));
	assert_false(lwm_part_fits(&q, 2)); /* 12 rows divide, 3 heads do not */
	assert_true(lwm_part_fits(&k, 3) && lwm_part_fits(&k, 12));
	assert_false(lwm_part_fits(&k, 4) || lwm_part_fits(&k, 8)); /* 6 parts and 4 ranks, 8 ranks and 6 parts */
	assert_int_equal(lwm_part_copies(&k, 12), 2);
	assert_int_equal(lwm_part_copies(&k, 3), 1);
	assert_int_equal(lwm_part_copies(&t[2], 3), 3);
}

/* A mesh of 2 tensor-parallel ranks, each with its own vector in 3 slices: every element is held once, or by both. */
static void a_mesh_holds_everything(void **state)
{
	enum { TP = 2, SLICES = 3 };
	struct lwm_llama_cfg c = { .vocab_text = 10, .vision_rows = 6, .vision_codes = 3, .dim = 8, .ffn = 6, .layers = 2,
				   .heads = 4, .kv_heads = 2, .max_seq = 8, .rope_theta = 1e4, .rms_eps = 1e-6, .init_std = 0.02 };
	struct lwm_tensors p, local;
	struct lwm_cut cut;

	(void)state;
	assert_int_equal(lwm_llama_tensors(&p, &c, NULL), 0);
	assert_int_equal(lwm_tensors_local(&local, &p, TP, NULL), 0);
	assert_int_equal(local.n, p.n);
	int *held = calloc((size_t)p.total, sizeof *held);
	assert_int_equal(lwm_cut_new(&cut, &local, 1, SLICES, NULL), 0);
	for (int r = 0; r < TP; r++)
		for (int k = 0; k < SLICES; k++) {
			struct lwm_cut s = lwm_cut_of(&cut, k);

			assert_int_equal(s.first % 16, 0);
			assert_int_equal(s.count * SLICES, s.local);
			assert_true(s.local >= local.total && s.local < local.total + 16 * SLICES);
			for (int64_t i = 0; i < p.n; i++) {
				struct lwm_run run[LWM_RUNS];
				int64_t from, n, at;

				if (!lwm_cut_own(&s, &local.list[i], &from, &n, &at))
					continue;
				int runs = lwm_part_runs(&p.list[i], r, TP, from - local.list[i].offset, n, run);
				for (int j = 0; j < runs; j++)
					for (int64_t m = 0; m < run[j].run * run[j].count; m++)
						held[p.list[i].offset + run[j].offset + m / run[j].run * run[j].stride +
						     m % run[j].run]++;
			}
		}
	for (int64_t i = 0; i < p.total; i++)
		assert_int_equal(held[i], lwm_tensors_at(&p, i)->split == LWM_SPLIT_NONE ? TP : 1);
	assert_int_equal(lwm_tensors_find(&local, "model.layers.0.self_attn.k_proj.weight")->rope_heads, 1);
	lwm_cut_release(&cut);
	lwm_tensors_release(&local);
	assert_int_equal(lwm_tensors_local(&local, &p, 4, NULL), -LWM_ECONFIG); /* 10 rows of the table */
	free(held);
	lwm_tensors_release(&p);
}

/* ---- what is frozen, over replicas ---- */

/* Stretches follow each other in the local vector, their slices in the state. */
static void check_stretches(const struct lwm_cut *cut, int ranks)
{
	for (int r = 0; r < ranks * cut->shards; r++) {
		struct lwm_cut s = lwm_cut_of(cut, r);
		int64_t end = 0;

		for (int64_t i = 0, n = lwm_cut_stretches(&s), state = 0; i < n; i++) {
			struct lwm_cut_stretch q = lwm_cut_stretch(&s, i);

			assert_true(q.at >= end && q.slice % 16 == 0 && ranks * q.slice >= q.count && q.state == state);
			assert_true(q.at + ranks * q.slice <= s.local);
			for (int64_t k = 0; k < lwm_cut_owned(&s, &q); k++)
				assert_int_equal(lwm_cut_place(&s, q.state + k), q.at + s.replica * q.slice + k);
			end = q.at + q.count;
			state += q.slice;
			assert_true(state <= s.count);
		}
	}
}

static int64_t trained_by(const struct lwm_tensors *p, const struct lwm_cut *cut, int rank, int *held)
{
	struct lwm_cut s = lwm_cut_of(cut, rank), alone = lwm_cut_alone(&s);
	int64_t sum = 0, next = 0, from, n, at, from1, n1, at1;

	for (int64_t i = 0; i < p->n; i++) {
		if (!lwm_cut_own(&s, &p->list[i], &from, &n, &at))
			continue;
		assert_true(lwm_cut_own(&alone, &p->list[i], &from1, &n1, &at1));
		assert_true(lwm_cut_place(&s, at) == at1 + from - from1);
		for (int64_t k = 0; k < n; k++)
			held[from + k]++;
		int64_t lies = lwm_cut_trained(&s, &p->list[i], at, n, &next);
		assert_true(p->list[i].trainable ? lies >= 0 && lies + n <= s.trained : lies == -1);
		sum += p->list[i].trainable ? n : 0;
	}
	return sum;
}

static void what_trains_is_shared_by_replicas(void **state)
{
	static const struct {
		struct lwm_choose how;
		const char *lora;
	} cases[] = { { { "*self_attn*", NULL, NULL }, NULL }, { { "*norm*", NULL, NULL }, NULL },
		      { { NULL, "*embed*,*layers.0.*", NULL }, NULL }, { { "*lora*", NULL, NULL }, "*q_proj*,*down*" },
		      { { NULL, NULL, NULL }, "*_proj*" } };
	struct lwm_llama_cfg c = { .vocab_text = 40, .dim = 64, .ffn = 96, .layers = 3, .heads = 4, .kv_heads = 2, .max_seq = 8,
				   .rope_theta = 1e4, .rms_eps = 1e-6, .init_std = 0.02 };

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		for (int shards = 1; shards <= 3; shards += 2)
			for (int ranks = 2; ranks <= 8; ranks += 3) {
				struct lwm_adapters how = { .targets = cases[i].lora, .rank = 4 };
				struct lwm_tensors p;
				struct lwm_cut cut;
				int64_t most = 0, all = 0;

				assert_int_equal(lwm_llama_tensors(&p, &c, NULL), 0);
				assert_int_equal(lwm_adapters_add(&p, &how, NULL), 0);
				assert_int_equal(lwm_choose_tensors(&p, &cases[i].how, NULL), 0);
				assert_int_equal(lwm_cut_new(&cut, &p, shards, ranks, NULL), 0);
				assert_true(cut.spread && cut.local % (16 * ranks) == 0);
				check_stretches(&cut, ranks);
				int *held = calloc((size_t)p.total, sizeof *held);
				for (int s = 0; s < shards; s++) {
					int64_t of_shard = 0, of_rank = 0;

					for (int r = 0; r < ranks; r++) {
						int64_t n = trained_by(&p, &cut, r * shards + s, held);

						of_shard += n;
						of_rank = n > of_rank ? n : of_rank;
					}
					assert_true(of_rank <= of_shard / ranks + 16 * p.n);
					most = of_rank > most ? of_rank : most;
					all += of_shard;
				}
				for (int64_t k = 0; k < p.total; k++)
					assert_int_equal(held[k], 1);
				assert_int_equal(cut.trained, cut.packed ? (most + 15) / 16 * 16 : cut.count);
				if (i == 0 && shards == 1 && ranks == 2) { /* slices that need no rounding: nobody has more */
					assert_int_equal(cut.trained, all / ranks);
					assert_int_equal(lwm_cut_moving(&cut), all / ranks);
				}
				free(held);
				lwm_cut_release(&cut);
				lwm_tensors_release(&p);
			}
}

static void overlaps(void **state)
{
	const struct lwm_tensor t = { .offset = 10, .count = 5 };

	(void)state;
	for (int64_t first = 0; first < 20; first++)
		for (int64_t count = 0; count < 20; count++) {
			int64_t from = -1, n = -1, want = 0, lowest = -1;

			for (int64_t i = first; i < first + count; i++)
				if (i >= 10 && i < 15) {
					lowest = lowest < 0 ? i : lowest;
					want++;
				}
			assert_int_equal(lwm_tensor_overlap(&t, first, count, &from, &n), want > 0);
			if (want) {
				assert_int_equal(from, lowest);
				assert_int_equal(n, want);
			}
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(language_models_lie_as_they_did), cmocka_unit_test(frame_tokenizers_lie_as_they_did),
		cmocka_unit_test(some_lines),                      cmocka_unit_test(gaps_belong_to_nobody),
		cmocka_unit_test(a_piece_starts_as_in_the_whole), cmocka_unit_test(rows_of_one_length),
		cmocka_unit_test(parts_of_tensors),
		cmocka_unit_test(a_mesh_holds_everything),         cmocka_unit_test(overlaps),
		cmocka_unit_test(what_trains_is_shared_by_replicas),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
