/* train_probe.h - running a stage in a cmocka test (include <cmocka.h> before), and what a run left behind, as numbers: its
 * checkpoints flat, its metrics by step. */
#ifndef TESTS_TRAIN_PROBE_H
#define TESTS_TRAIN_PROBE_H

#include "tests/unit/train_fixture.h"

static inline void must(int rc, const struct lwm_err *e)
{
	if (rc < 0)
		fail_msg("%s", e->msg);
}

/* For lwm_comm_threads; arg: struct lwm_stage. */
static inline int run_on(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	return lwm_stage_run(arg, c, e);
}

/* On so many ranks; stop_after: steps, 0: to the end. Fails the test where the run does. */
static inline void train_once(struct lwm_stage *s, int ranks, int64_t stop_after)
{
	struct lwm_err e = { 0 };
	int rc;

	s->stop_after = stop_after;
	rc = lwm_comm_threads(ranks, run_on, s, &e);
	if (rc < 0 && rc != -LWM_ESAVED)
		fail_msg("mesh %s: %s", s->mesh_dim, e.msg);
	assert_int_equal(rc, stop_after ? -LWM_ESAVED : 0);
}

/* One checkpoint, tensors end to end in the order of its table; freed by probe_free. */
struct probe {
	int64_t n, tensors, size[128]; /* size: elements of each tensor */
	float *v[LWM_CKPT_TRAINED];
	json_t *state;
};

static inline void probe_free(struct probe *p)
{
	for (int g = 0; g < LWM_CKPT_TRAINED; g++)
		free(p->v[g]);
	json_decref(p->state);
	memset(p, 0, sizeof *p);
}

static inline int probe_group(struct lwm_ckpt *c, int g, float *out, struct lwm_err *e)
{
	for (int64_t i = 0; i < lwm_ckpt_count(c); i++) {
		LWM_TRY(lwm_ckpt_read(c, (enum lwm_ckpt_group)g, i, 0, lwm_ckpt_size(c, i), out, e));
		out += lwm_ckpt_size(c, i);
	}
	return 0;
}

static inline int probe_step(struct probe *p, const char *out, int64_t step, struct lwm_err *e)
{
	char *dir = lwm_ckpt_dir(out, step);
	struct lwm_ckpt *c;
	int rc = lwm_ckpt_open(&c, dir, e);
	memset(p, 0, sizeof *p);
	free(dir);
	LWM_TRY(rc);
	p->tensors = lwm_ckpt_count(c);
	assert_true(p->tensors <= (int64_t)(sizeof p->size / sizeof *p->size));
	for (int64_t i = 0; i < p->tensors; i++)
		p->n += p->size[i] = lwm_ckpt_size(c, i);
	for (int g = 0; rc == 0 && g < LWM_CKPT_TRAINED; g++) {
		p->v[g] = malloc((size_t)p->n * sizeof **p->v);
		rc = probe_group(c, g, p->v[g], e);
	}
	p->state = json_deep_copy(lwm_ckpt_get_meta(c)->state);
	lwm_ckpt_close(c);
	return rc;
}

/* The lines of one event in metrics.jsonl, in order, as a JSON array. NULL: the file cannot be read. */
static inline json_t *probe_events(const char *out, const char *event)
{
	char path[512], *text, *p, *end;
	struct lwm_err e = { 0 };
	size_t n;
	json_t *list = json_array();
	snprintf(path, sizeof path, "%s/metrics.jsonl", out);
	if (lwm_read_file(path, 1 << 24, &text, &n, &e) < 0) {
		json_decref(list);
		return NULL;
	}
	for (p = text; (end = memchr(p, '\n', n - (size_t)(p - text))); p = end + 1) {
		json_t *o = json_loadb(p, (size_t)(end - p), 0, NULL);
		const char *have = json_string_value(json_object_get(o, "event"));
		if (have && !strcmp(have, event))
			json_array_append(list, o);
		json_decref(o);
	}
	free(text);
	return list;
}

/* A number of line i: KEY_hex where there is one, else KEY; NaN where there is neither. */
static inline double probe_number(json_t *list, size_t i, const char *key)
{
	char hex[64];
	json_t *o = json_array_get(list, i);
	snprintf(hex, sizeof hex, "%s_hex", key);
	const char *text = json_string_value(json_object_get(o, hex));
	const json_t *v = json_object_get(o, key);
	return text ? strtod(text, NULL) : json_is_number(v) ? json_number_value(v) : NAN;
}

#endif
