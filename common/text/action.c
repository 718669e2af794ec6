/* The table of quantities, and actions as words: to tokens and back. */
#include "common/text/action.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/text/action_int.h"

const char *const lwm_action_modes[] = { "cmd", "traj", "speed", "steer", "goal", NULL };
const char *const lwm_action_cmds[] = { "left", "right", "straight", "stop", NULL };

enum { WORLD, FREE, FIRST_CMD, FIRST_MODE = FIRST_CMD + LWM_CMDS, FIRST_BIN = FIRST_MODE + LWM_ACTION_MODES - 1 };

/* Of even and odd numbers of a mode. */
static const struct {
	int numbers;
	struct {
		double low, high;
		int bins;
	} of[2];
} scale[LWM_ACTION_MODES] = {
	[LWM_ACTION_TRAJ] = { 2 * LWM_ACTION_POINTS, { { -31.5, 31.5, 127 }, { -7.5, 56, 128 } } },
	[LWM_ACTION_SPEED] = { LWM_ACTION_POINTS, { { 0, 127, 128 }, { 0, 127, 128 } } },
	[LWM_ACTION_STEER] = { LWM_ACTION_POINTS, { { -1, 1, 127 }, { -1, 1, 127 } } },
	[LWM_ACTION_GOAL] = { 2, { { 0, 1, 128 }, { 0, 1, 128 } } },
};

int lwm_action_numbers(enum lwm_action_mode mode)
{
	return scale[mode].numbers;
}

int lwm_action_bins(enum lwm_action_mode mode, int i)
{
	return scale[mode].of[i % 2].bins;
}

double lwm_action_value(enum lwm_action_mode mode, int i, int bin)
{
	double low = scale[mode].of[i % 2].low, high = scale[mode].of[i % 2].high;
	return low + bin * (high - low) / (scale[mode].of[i % 2].bins - 1);
}

int lwm_action_bin(enum lwm_action_mode mode, int i, double v)
{
	double low = scale[mode].of[i % 2].low, high = scale[mode].of[i % 2].high;
	if (!(v >= low && v <= high))
		return -1;
	return (int)lround((v - low) / (high - low) * (scale[mode].of[i % 2].bins - 1));
}

double *lwm_action_values(struct lwm_action *a, enum lwm_action_mode mode)
{
	double *const of[LWM_ACTION_MODES] = { NULL, a->traj, a->speed, a->steer, a->goal };
	return of[mode];
}

const double *lwm_action_numbers_of(const struct lwm_action *a, enum lwm_action_mode mode)
{
	const double *const of[LWM_ACTION_MODES] = { NULL, a->traj, a->speed, a->steer, a->goal };
	return of[mode];
}

int lwm_action_outside(enum lwm_action_mode mode, int i, double v, int code, struct lwm_err *e)
{
	static const char *const axis[] = { " x", " y" };
	bool point = mode == LWM_ACTION_TRAJ || mode == LWM_ACTION_GOAL;
	return lwm_fail(e, code, "action: %s%s %g is not in %g..%g", lwm_action_modes[mode], point ? axis[i % 2] : "", v,
			scale[mode].of[i % 2].low, scale[mode].of[i % 2].high);
}

int lwm_action_check(const struct lwm_action *a, struct lwm_err *e)
{
	for (int m = 0; m < LWM_ACTION_MODES; m++)
		for (int i = 0; i < scale[m].numbers && a->has & LWM_ACTION_BIT(m); i++) {
			double v = lwm_action_numbers_of(a, (enum lwm_action_mode)m)[i];
			if (lwm_action_bin((enum lwm_action_mode)m, i, v) < 0)
				return lwm_action_outside((enum lwm_action_mode)m, i, v, LWM_EDATA, e);
		}
	return 0;
}

const char *lwm_action_word(int i, char name[LWM_ACTION_NAME])
{
	static const char *const start[] = { "world", "free" };
	if (i >= FIRST_BIN)
		snprintf(name, LWM_ACTION_NAME, "<|b%03d|>", i - FIRST_BIN);
	else
		snprintf(name, LWM_ACTION_NAME, "<|%s|>", i < FIRST_CMD ? start[i] : i < FIRST_MODE ?
			 lwm_action_cmds[i - FIRST_CMD] : lwm_action_modes[1 + i - FIRST_MODE]);
	return name;
}

static int add_word(struct lwm_tokenizer *t, int word, struct lwm_ids *ids, struct lwm_err *e)
{
	char name[LWM_ACTION_NAME];
	lwm_action_word(word, name);
	return lwm_tokenizer_encode_rest(t, name, strlen(name), ids, e);
}

int lwm_action_add_world(struct lwm_tokenizer *t, struct lwm_ids *ids, struct lwm_err *e)
{
	return add_word(t, WORLD, ids, e);
}

static int add_mode(struct lwm_tokenizer *t, const struct lwm_action *a, enum lwm_action_mode mode, struct lwm_ids *ids,
		    struct lwm_err *e)
{
	const double *v = lwm_action_numbers_of(a, mode);
	if (mode == LWM_ACTION_CMD)
		return add_word(t, FIRST_CMD + (int)a->cmd, ids, e);
	LWM_TRY(add_word(t, FIRST_MODE + (int)mode - 1, ids, e));
	for (int i = 0; i < scale[mode].numbers; i++) {
		int bin = lwm_action_bin(mode, i, v[i]);
		if (bin < 0)
			return lwm_action_outside(mode, i, v[i], LWM_EDATA, e);
		LWM_TRY(add_word(t, FIRST_BIN + bin, ids, e));
	}
	return 0;
}

int lwm_action_add(struct lwm_tokenizer *t, const struct lwm_action *a, struct lwm_ids *ids, struct lwm_err *e)
{
	int64_t before = ids->n;
	int rc = a->has ? 0 : add_word(t, FREE, ids, e);
	for (int m = 0; m < LWM_ACTION_MODES && rc == 0; m++)
		if (a->has & LWM_ACTION_BIT(m))
			rc = add_mode(t, a, (enum lwm_action_mode)m, ids, e);
	if (rc < 0)
		ids->n = before;
	return rc;
}

/* The word at the begin of a text, and what is behind it; -1: none. */
static int next_word(const char **s)
{
	char name[LWM_ACTION_NAME];
	for (int i = 0; i < LWM_ACTION_WORDS; i++) {
		size_t n = strlen(lwm_action_word(i, name));
		if (!strncmp(*s, name, n)) {
			*s += n;
			return i;
		}
	}
	return -1;
}

static int take_mode(const char **s, int word, struct lwm_action *a)
{
	bool cmd = word >= FIRST_CMD && word < FIRST_MODE;
	if (!cmd && (word < FIRST_MODE || word >= FIRST_BIN))
		return -1;
	enum lwm_action_mode mode = cmd ? LWM_ACTION_CMD : (enum lwm_action_mode)(1 + word - FIRST_MODE);
	if (a->has >= LWM_ACTION_BIT(mode)) /* twice, or not in order */
		return -1;
	a->has |= LWM_ACTION_BIT(mode);
	if (cmd)
		a->cmd = (enum lwm_action_cmd)(word - FIRST_CMD);
	for (int i = 0; i < scale[mode].numbers; i++) {
		int bin = next_word(s) - FIRST_BIN;
		if (bin < 0 || bin >= lwm_action_bins(mode, i))
			return -1;
		lwm_action_values(a, mode)[i] = lwm_action_value(mode, i, bin);
	}
	return 0;
}

int lwm_action_take(const struct lwm_tokenizer *t, const int32_t *ids, int64_t n, struct lwm_action *a, struct lwm_err *e)
{
	struct lwm_str text = { 0 };
	struct lwm_action got = { 0 };
	int rc;
	for (int64_t i = 0; i < n; i++) {
		size_t len;
		const char *s = lwm_tokenizer_bytes(t, ids[i], &len);
		lwm_str_add(&text, s, len);
	}
	LWM_GO(lwm_str_ok(&text, e));
	const char *s = lwm_str_get(&text);
	int word = next_word(&s);
	bool good = word == FREE || take_mode(&s, word, &got) == 0;
	while (good && word != FREE && *s)
		good = take_mode(&s, next_word(&s), &got) == 0;
	if (good && s == lwm_str_get(&text) + text.len)
		*a = got;
	else
		rc = lwm_fail(e, LWM_EDATA, "'%.80s' are not the tokens of one action", lwm_str_get(&text));
out:
	lwm_str_release(&text);
	return rc;
}
