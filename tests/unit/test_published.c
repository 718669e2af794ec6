/* The published loss, rows, rates and updates against what JAX and optax, at the versions that the release pins, make of the
 * released formulas (tests/golden/published-1/make.py). */
#include "tests/unit/data_fixture.h"

#include <math.h>

#include "common/data/loader/loader.h"
#include "common/data/pack/pack.h"
#include "common/io/rowshard.h"
#include "common/optim/weights.h"
#include "common/train/stage.h"

enum { TEXT = 40, VISION = 18, DOCS = 8, MAX_DOC = 300, MAX_ROWS = 8 };

/* ---- the documents of make.py ---- */

struct doc {
	int32_t tok[MAX_DOC];
	uint8_t loss[MAX_DOC];
	int64_t n;
};
static struct doc docs[DOCS];

static void put(struct doc *d, int32_t token, bool loss)
{
	d->tok[d->n] = token;
	d->loss[d->n++] = loss;
}

static void put_caption(struct doc *d, int k, int words, bool loss)
{
	for (int i = 0; i < words; i++)
		put(d, 3 + (5 * k + 7 * i) % 30, loss);
}

static void put_clip(struct doc *d, int k, int frames, int codes, bool loss)
{
	static const int32_t mark[2][3] = { { 33, 34, 35 }, { 36, 34, 35 } };
	for (int i = 0; i < 3; i++)
		put(d, mark[0][i], loss);
	for (int i = 0; i < frames * codes; i++) {
		put(d, TEXT + (11 * k + 3 * i) % 16, loss);
		if (i % codes == codes - 1)
			put(d, TEXT + (i == frames * codes - 1 ? 17 : 16), loss);
	}
	for (int i = 0; i < 3; i++)
		put(d, mark[1][i], loss);
}

static void make_docs(void)
{
	static const struct {
		int words, frames, codes;
		bool draw;
	} spec[DOCS] = { { 7, 2, 16, true }, { 12, 3, 16, false }, { 3, 2, 16, false }, { 20, 2, 16, true }, /* captioned clips */
			 { 30, 0, 0, false }, { 5, 0, 0, false },                                            /* text */
			 { 7, 1, 256, true }, { 7, 1, 256, false } }; /* image, seven words */
	for (int k = 0; k < DOCS; k++) {
		bool draw = spec[k].draw, clip = spec[k].frames > 0;
		put(&docs[k], 1, false);
		if (draw || !clip)
			put_caption(&docs[k], k, spec[k].words, !clip);
		if (clip)
			put_clip(&docs[k], k, spec[k].frames, spec[k].codes, draw);
		if (clip && !draw)
			put_caption(&docs[k], k, spec[k].words, true);
		put(&docs[k], 2, true);
	}
}

/* ---- rows ---- */

struct batch_of { /* rows of documents, -1: no more */
	const char *name;
	int64_t rows, seq, vision;
	int doc[MAX_ROWS][5];
};
static const struct batch_of packed = { "packed", 1, 256, VISION, { { 0, 1, 2, 3, -1 } } };
static const struct batch_of padded = { "padded", 4, 256, VISION, { { 0, -1 }, { 1, -1 }, { 2, -1 }, { 3, -1 } } };
static const struct batch_of mixed = { "mixed", 4, 256, VISION, { { 0, 4, -1 }, { 5, 4, -1 }, { 1, 2, 5, -1 }, { -1 } } };
static const struct batch_of draw = { "draw", 1, 512, VISION, { { 6, -1 } } };
static const struct batch_of tell = { "tell", 1, 512, VISION, { { 7, -1 } } };
static const struct batch_of text = { "text", 3, 64, 0, { { 4, -1 }, { 4, 5, -1 }, { 5, -1 } } };

static void write_row(struct lwm_rows_writer *w, const int *doc, int64_t seq)
{
	int32_t tok[512] = { 0 };
	struct lwm_segment seg[4];
	struct lwm_loss_run run[512];
	int64_t n = 0, nseg = 0;
	for (; doc[nseg] >= 0; nseg++) {
		const struct doc *d = &docs[doc[nseg]];
		seg[nseg] = (struct lwm_segment){ .start = n, .len = d->n, .doc = doc[nseg] };
		for (int64_t i = 0; i < d->n; i++, n++) {
			tok[n] = d->tok[i];
			run[n] = (struct lwm_loss_run){ n, d->loss[i] };
		}
	}
	for (; n < seq; n++)
		run[n] = (struct lwm_loss_run){ n, 0 };
	OK(lwm_rows_append(w, tok, seg, nseg, run, n, &err));
}

static void write_rows(const struct batch_of *x, const char *path)
{
	struct lwm_rows_meta m = { .seq = x->seq, .vocab_text = TEXT, .vocab_vision = x->vision, .tokenizer = "", .tool = "test",
				   .config = "", .weighting = "per_example" };
	struct lwm_rows_writer *w;
	OK(lwm_rows_create(&w, path, &m, true, &err));
	for (int64_t r = 0; r < x->rows; r++)
		write_row(w, x->doc[r], x->seq);
	OK(lwm_rows_commit(w, &err));
}

/* ---- loss and gradient ---- */

/* What a model could say, as make.py has it. */
static double logit(int doc, int64_t pos, int head, int v)
{
	double d = doc, p = (double)pos, x = v;
	return 2 * sin(0.9 * d + 0.31 * p + 1.7 * x + 0.013 * p * x) + cos(2.3 * x + 0.7 * head + 0.11 * p);
}

static double direction(int j, int doc, int64_t pos, int head, int v)
{
	return cos(0.7 * j + 0.11 * doc + 0.29 * (double)pos + 0.53 * v + head);
}

struct sums { /* over a step, divided by its norm: loss by modality, gradient of the loss along three directions */
	double loss[2], weight[2], dot[3], norm;
};

/* A label at a token of a document: weight * nll, and weight * (softmax - target) along the directions. */
static void add_label(struct sums *s, int doc, int64_t pos, int32_t target, double weight)
{
	int head = target >= TEXT, n = head ? VISION : TEXT, id = head ? target - TEXT : target;
	double sum = 0;
	for (int v = 0; v < n; v++)
		sum += exp(logit(doc, pos, head, v));
	s->loss[head] += weight * (log(sum) - logit(doc, pos, head, id));
	s->weight[head] += weight;
	for (int v = 0; v < n; v++)
		for (int j = 0; j < 3; j++)
			s->dot[j] += weight * (exp(logit(doc, pos, head, v)) / sum - (v == id)) * direction(j, doc, pos, head, v);
}

/* Labels of row `row` of the batch; `at` of its first token. doc, pos: whose token stands there. */
static void add_row(struct sums *s, const struct batch_of *x, const struct lwm_batch *b, int64_t at, int64_t row)
{
	int64_t k = -1;
	for (int64_t t = 0; t < b->seq; t++) {
		k += b->segments[at + t] >= 0 && (t == 0 || b->segments[at + t] != b->segments[at + t - 1]);
		if (b->weights[at + t] > 0)
			add_label(s, x->doc[row][k], b->positions[at + t], b->targets[at + t], (double)b->weights[at + t]);
	}
}

struct how {
	enum lwm_weighting by;
	double text, vision;
	int ranks;
	int64_t micro;
};

static void add_rank(struct sums *s, const struct batch_of *x, const struct lwm_loader_source *src, const struct how *h, int rank)
{
	struct lwm_loader_cfg c = { .source = src, .nsources = 1, .rows_per_step = x->rows, .rank = rank, .ranks = h->ranks,
				    .micro_rows = h->micro, .weighting = h->by, .text_weight = h->text,
				    .vision_weight = h->vision };
	struct lwm_loader *l;
	struct lwm_batch *b;
	OK(lwm_loader_open(&l, &c, &err));
	for (int64_t i = 0; i < lwm_loader_micros(l); i++) {
		OK(lwm_loader_get(l, 0, i, &b, &err));
		s->norm += b->norm;
		for (int64_t r = 0; r < b->rows; r++)
			add_row(s, x, b, r * b->seq, lwm_loader_sample(l, b->first_sample + r).row);
	}
	lwm_loader_close(l);
}

/* The whole step: every rank's micro batches added up, then divided, as the trainer does. */
static struct sums step(const struct batch_of *x, const struct how *h)
{
	struct lwm_loader_source src = { .name = "x" };
	struct sums s = { .norm = 0 };
	char name[32];
	snprintf(name, sizeof name, "%s.rows.h5", x->name);
	write_rows(x, in_scratch(name));
	OK(lwm_paths_add(&src.shards, in_scratch(name), &err));
	for (int r = 0; r < h->ranks; r++)
		add_rank(&s, x, &src, h, r);
	lwm_paths_release(&src.shards);
	for (int m = 0; m < 2; m++) {
		s.loss[m] /= s.norm;
		s.weight[m] /= s.norm;
	}
	for (int j = 0; j < 3; j++)
		s.dot[j] /= s.norm;
	return s;
}

struct golden {
	const char *name;
	double loss, text, vision, example, token, dot[3];
};

static const struct golden *golden(const char *name)
{
	static const struct golden all[] = {
#include "tests/golden/published-1/loss.inc"
	};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if (!strcmp(all[i].name, name))
			return &all[i];
	fail_msg("no golden '%s'", name);
	return NULL;
}

static void near(const char *name, const char *what, double got, double want)
{
	if (!(fabs(got - want) <= 2e-7 * (1 + fabs(want)))) /* weights are fp32 */
		fail_msg("%s, %s: %.10g, expected %.10g", name, what, got, want);
}

static void check(const char *want, const struct batch_of *x, struct how h)
{
	const struct golden *g = golden(want);
	struct sums s = step(x, &h);
	double half = x->vision ? 0.5 : 1;
	near(want, "text", s.loss[0] / half, g->text);
	near(want, "vision", s.loss[1] / half, g->vision);
	near(want, "loss", s.loss[0] + s.loss[1], g->loss);
	for (int j = 0; j < 3; j++)
		near(want, "gradient", s.dot[j], g->dot[j]);
}

/* Row by row as released, however the rows fall on ranks and micro batches; a row without a label of a modality, or of any,
 * counts. */
static void released_loss(void **state)
{
	static const struct batch_of *const all[] = { &packed, &padded, &mixed, &draw, &tell, &text };
	static const struct how split[] = { { .ranks = 1, .micro = 4 }, { .ranks = 1, .micro = 1 }, { .ranks = 2, .micro = 1 },
					    { .ranks = 4, .micro = 1 } };
	(void)state;
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		check(all[i]->name, all[i], (struct how){ LWM_PUBLISHED, 0, 0, 1, 1 });
	for (size_t k = 0; k < sizeof split / sizeof *split; k++)
		check("mixed", &mixed, (struct how){ LWM_PUBLISHED, 0, 0, split[k].ranks, split[k].micro });
	check("mixed", &mixed, (struct how){ LWM_PUBLISHED, 0.5, 0.5, 1, 2 }); /* said, it is the same */
}

/* The released loss of documents that have a row each is, of the same documents packed, the loss by example with its weights. */
static void released_loss_of_examples(void **state)
{
	(void)state;
	check("padded", &packed, (struct how){ LWM_PER_EXAMPLE, 0.5, 0.5, 1, 1 });
	check("padded", &padded, (struct how){ LWM_PER_EXAMPLE, 0.5, 0.5, 2, 1 });
}

/* Without weights of modalities, by example and by token. */
static void one_loss(void **state)
{
	static const struct batch_of *const all[] = { &packed, &padded, &mixed, &draw, &text };
	(void)state;
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		struct sums e = step(all[i], &(struct how){ LWM_PER_EXAMPLE, 0, 0, 1, 1 });
		struct sums t = step(all[i], &(struct how){ LWM_PER_TOKEN, 0, 0, 1, 1 });
		near(all[i]->name, "by example", e.loss[0] + e.loss[1], golden(all[i]->name)->example);
		near(all[i]->name, "by token", t.loss[0] + t.loss[1], golden(all[i]->name)->token);
	}
}

/* An image drawn for seven words: what the text's seven labels weigh against 257 of vision. */
static void shares(void **state)
{
	static const struct {
		struct how h;
		double text, vision;
	} t[] = { { { LWM_PUBLISHED, 0, 0, 1, 1 }, 0.5, 0.5 },
		  { { LWM_PER_EXAMPLE, 0, 0, 1, 1 }, 7. / 264, 257. / 264 },
		  { { LWM_PER_TOKEN, 0, 0, 1, 1 }, 7. / 264, 257. / 264 },
		  { { LWM_PUBLISHED, 2, 1, 1, 1 }, 2, 1 },
		  { { LWM_PER_EXAMPLE, 0.25, 0.75, 1, 1 }, 0.25, 0.75 },
		  { { LWM_PER_EXAMPLE, 1, 0, 1, 1 }, 1, 0 },
		  { { LWM_PER_TOKEN, 3, 1, 1, 1 }, 21. / 278, 257. / 278 } };
	(void)state;
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct sums s = step(&draw, &t[i].h);
		near("draw", "share of text", s.weight[0], t[i].text);
		near("draw", "share of vision", s.weight[1], t[i].vision);
	}
}

/* A model with a vision head counts half for text, also where a batch has no vision at all; refused: a weight below 0. */
static void vision_model(void **state)
{
	struct lwm_loader_source src = { .name = "x" };
	struct lwm_loader *l;
	struct lwm_batch *b;
	(void)state;
	write_rows(&text, in_scratch("words.rows.h5"));
	OK(lwm_paths_add(&src.shards, in_scratch("words.rows.h5"), &err));
	struct lwm_loader_cfg c = { .source = &src, .nsources = 1, .rows_per_step = 3, .ranks = 1, .micro_rows = 3,
				    .weighting = LWM_PUBLISHED };
	for (int vision = 0; vision < 2; vision++) {
		double sum = 0;
		c.vision = vision;
		OK(lwm_loader_open(&l, &c, &err));
		OK(lwm_loader_get(l, 0, 0, &b, &err));
		for (int64_t t = 0; t < b->rows * b->seq; t++)
			sum += (double)b->weights[t];
		assert_true(b->norm == 3);
		near("words", "weights", sum, vision ? 1.5 : 3);
		lwm_loader_close(l);
	}
	c.text_weight = -1;
	lwm_err_clear(&err);
	assert_int_equal(lwm_loader_open(&l, &c, &err), -LWM_ECONFIG);
	lwm_paths_release(&src.shards);
}

/* ---- documents end to end ---- */

enum { STREAM = 48, STREAM_ROWS = 6, STREAM_DOCS = 8 };
static const int stream_order[STREAM_DOCS] = { 4, 0, 5, 1, 5, 4, 2, 3 };

static void pack_stream(const char *to)
{
	struct lwm_docs_meta m = { .vocab_text = TEXT, .vocab_vision = VISION, .tokenizer = "", .tool = "test", .config = "",
				   .policy = "" };
	struct lwm_pack_source src = { .name = "x" };
	struct lwm_pack_stats st;
	struct lwm_docs_writer *w;
	OK(lwm_docs_create(&w, in_scratch("stream.docs.h5"), &m, true, &err));
	for (int k = 0; k < STREAM_DOCS; k++) {
		const struct doc *d = &docs[stream_order[k]];
		struct lwm_loss_run run[MAX_DOC];
		for (int64_t i = 0; i < d->n; i++)
			run[i] = (struct lwm_loss_run){ i, d->loss[i] };
		OK(lwm_docs_append(w, "", NULL, d->tok, d->n, run, d->n, &err));
	}
	OK(lwm_docs_commit(w, &err));
	OK(lwm_paths_add(&src.shards, in_scratch("stream.docs.h5"), &err));
	struct lwm_pack_cfg cfg = { .source = &src, .nsources = 1, .seq_length = STREAM, .mode = LWM_PACK_CONCAT, .force = true,
				    .output = to, .tool = "test", .drop_tail = true };
	OK(lwm_pack_run(&cfg, &st, NULL, &err));
	assert_int_equal(st.rows, STREAM_ROWS);
	lwm_paths_release(&src.shards);
}

struct stream_row {
	int32_t input[STREAM], target[STREAM];
	char loss[STREAM + 1];
};

static void check_stream_row(const struct lwm_batch *b, const struct stream_row *want)
{
	assert_int_equal(b->seq, STREAM);
	for (int t = 0; t < STREAM; t++) {
		assert_int_equal(b->tokens[t], want->input[t]);
		assert_int_equal(b->targets[t], want->target[t]);
		assert_int_equal(b->weights[t] > 0, want->loss[t] == '1');
		assert_int_equal(b->positions[t], t);
		assert_int_equal(b->segments[t], 0);
	}
}

/* Labels of a row, each at the token of the document where it stands. */
static void add_stream_row(struct sums *s, const struct lwm_batch *b, int64_t row)
{
	int64_t first = 0; /* of the document */
	for (int64_t k = 0; k < STREAM_DOCS; first += docs[stream_order[k++]].n)
		for (int64_t pos = 0; pos < docs[stream_order[k]].n; pos++) {
			int64_t t = first + pos - row * STREAM;
			if (t >= 0 && t < STREAM && b->weights[t] > 0)
				add_label(s, stream_order[k], pos, b->targets[t], (double)b->weights[t] / STREAM_ROWS);
		}
}

/* Token by token the rows of the released loader, each of S inputs with S targets; and their loss, packed by lwm-pack. */
static void released_stream(void **state)
{
	static const struct stream_row want[STREAM_ROWS] = {
#include "tests/golden/published-1/stream.inc"
	};
	struct lwm_loader_source src = { .name = "x" };
	struct lwm_loader *l;
	struct lwm_batch *b;
	struct sums s = { .norm = 0 };
	(void)state;
	pack_stream(in_scratch("stream.rows.h5"));
	OK(lwm_paths_add(&src.shards, in_scratch("stream.rows.h5"), &err));
	struct lwm_loader_cfg c = { .source = &src, .nsources = 1, .rows_per_step = STREAM_ROWS, .ranks = 1, .micro_rows = 1,
				    .weighting = LWM_PUBLISHED, .seq_length = STREAM };
	OK(lwm_loader_open(&l, &c, &err));
	assert_int_equal(lwm_loader_info_of(l)->seq_length, STREAM);
	for (int64_t i = 0; i < STREAM_ROWS; i++) {
		OK(lwm_loader_get(l, 0, i, &b, &err));
		check_stream_row(b, &want[lwm_loader_sample(l, i).row]);
		assert_int_equal(b->tokens_n, STREAM);
		assert_int_equal(b->segments_n, 1);
		assert_true(b->norm == 1);
		add_stream_row(&s, b, lwm_loader_sample(l, i).row);
	}
	lwm_loader_close(l);
	lwm_paths_release(&src.shards);
	near("stream", "text", s.loss[0], golden("stream")->text / 2);
	near("stream", "vision", s.loss[1], golden("stream")->vision / 2);
	for (int j = 0; j < 3; j++)
		near("stream", "gradient", s.dot[j], golden("stream")->dot[j]);
}

/* ---- rates and updates ---- */

static void rates(void **state)
{
	static const struct {
		double init, peak, end;
		int64_t warm, decay, n;
		double lr;
	} want[] = {
#include "tests/golden/published-1/rates.inc"
	};
	struct lwm_stage s;
	(void)state;
	OK(lwm_stage_init(&s, &err));
	s.schedule.shape = LWM_COSINE;
	s.schedule.warmup_from = LWM_FROM_ZERO;
	for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
		s.schedule.init_lr = want[i].init;
		s.schedule.lr = want[i].peak;
		s.schedule.min_lr = want[i].end;
		s.schedule.warmup_steps = want[i].warm;
		s.schedule.decay_steps = want[i].decay;
		double got = lwm_schedule_rate(&s.schedule, s.steps, want[i].n);
		if (!(fabs(got - want[i].lr) <= 1e-12 * want[i].peak))
			fail_msg("update %d of warm-up %d, decay %d: %.15g, expected %.15g", (int)want[i].n, (int)want[i].warm,
				 (int)want[i].decay, got, want[i].lr);
	}
	lwm_stage_release(&s);
}

enum { NORM = 3, MATRIX = 5, ALL = NORM + MATRIX, UPDATES = 14 };

/* A norm and a matrix, end to end. */
static void updates_on(struct lk_dev *dev, struct lwm_comm *comm, const struct lwm_stage *s, const double want[UPDATES][ALL])
{
	static const float first[ALL] = { 1, 1.1f, 0.9f, 0.5f, -0.25f, 0.125f, 2, -1.5f };
	struct lwm_tensor list[2] = { { .count = NORM, .trainable = true },
				      { .offset = NORM, .count = MATRIX, .trainable = true, .decays = true } };
	const struct lwm_tensors t = { .list = list, .n = 2, .total = ALL };
	struct lwm_cut cut;
	struct lwm_weights w;
	OK(lwm_cut_new(&cut, &t, 1, 1, &err));
	OK(lwm_weights_new(&w, dev, LK_F32, &cut, NULL, comm, false, &err));
	assert_true(cut.count >= ALL && cut.count <= 64);
	float host[64] = { 0 };
	memcpy(host, first, sizeof first);
	OK(lwm_weights_put(&w, LWM_STATE_WEIGHTS, host, &err));
	for (int n = 0; n < UPDATES; n++) {
		double norm;
		for (int i = 0; i < ALL; i++)
			host[i] = (float)(0.4 * sin(1.3 * n + 0.9 * i) + 0.05 * i);
		assert_int_equal(lk_upload(dev, w.grad, host, (size_t)cut.count * sizeof *host), 0);
		OK(lwm_weights_reduce(&w, &t, 1, &norm, &err));
		double lr = lwm_schedule_rate(&s->schedule, s->steps, n), clip = s->guards.clip;
		OK(lwm_weights_update(&w, &t, &s->adamw, n, lr, norm > clip ? clip / norm : 1, &err));
		OK(lwm_weights_take(&w, LWM_STATE_WEIGHTS, host, &err));
		for (int i = 0; i < ALL; i++)
			if (!(fabs((double)host[i] - want[n][i]) <= 2e-6))
				fail_msg("update %d, weight %d: %.9g, expected %.9g", n, i, (double)host[i], want[n][i]);
		memset(host + ALL, 0, sizeof host - ALL * sizeof *host);
	}
	lwm_weights_release(&w);
	lwm_cut_release(&cut);
}

/* optax.chain(clip_by_global_norm, adamw) with the rates above and an empty list of exclusions. */
static void updates(void **state)
{
	static const double want[UPDATES][ALL] = {
#include "tests/golden/published-1/updates.inc"
	};
	struct lwm_stage s;
	struct lwm_comm *comm;
	struct lk_dev *dev;
	char why[256];
	(void)state;
	OK(lwm_stage_init(&s, &err));
	s.schedule.shape = LWM_COSINE;
	s.schedule.warmup_from = LWM_FROM_ZERO;
	s.schedule.lr = 0.02;
	s.schedule.min_lr = 0.004;
	s.schedule.warmup_steps = 4;
	s.schedule.decay_steps = 12;
	s.adamw.decay_all = true;
	assert_int_equal(lk_dev_open(&dev, "cpu", 1, why, sizeof why), 0);
	OK(lwm_comm_self(&comm, &err));
	updates_on(dev, comm, &s, want);
	lwm_stage_release(&s);
	lwm_comm_free(comm);
	lk_dev_close(dev);
}

static int set_up(void **state)
{
	make_docs();
	return scratch_make(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(released_loss), cmocka_unit_test(released_loss_of_examples),
					    cmocka_unit_test(one_loss), cmocka_unit_test(shares), cmocka_unit_test(vision_model),
					    cmocka_unit_test(released_stream), cmocka_unit_test(rates), cmocka_unit_test(updates) };
	return cmocka_run_group_tests(tests, set_up, scratch_remove);
}
