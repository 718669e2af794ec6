/* A road seen from above and a car that steers. Everything stands on a grid: the car is in one of five places across the road and
 * moves by one of them, the road goes by in quarters of the distance between two dashes; so a small codebook tells all of it, and a
 * turn is half a car's length to the side. */
#include <math.h>
#include <string.h>

#include "common/synth/synth.h"

enum { KIND_DRIVE = 5, EDGE = 2 /* places from the middle */, SAMPLES = 3 /* per pixel and axis */ };
enum { LONG = LWM_SYNTH_DRIVE_MOST + 8 };

/* In parts of the frame, which is FRAME metres high and wide. */
#define FRAME 20.0
#define SIDE 0.16     /* from one place to the next */
#define QUARTER 0.125 /* of the distance from dash to dash */
#define CAR_Y 0.62
#define CAR_WIDE 0.1 /* half of it */
#define CAR_LONG 0.15
#define ROAD 0.42 /* half of it */
#define SIGN_X 0.93
#define SIGN_SIZE 0.065
#define SLANT 0.55 /* radians, while it steers */

static const struct {
	const char *name;
	uint8_t rgb[3];
} verges[] = { { "green", { 40, 150, 60 } }, { "brown", { 130, 95, 55 } } };
static const struct {
	const char *name;
	int speed;
	uint8_t rgb[3];
} signs[] = { { "yellow", 1, { 245, 220, 40 } }, { "blue", 3, { 50, 80, 235 } } };
static const uint8_t car[] = { 225, 25, 25 }, window[] = { 250, 235, 235 }, asphalt[] = { 55, 55, 60 }, dash[] = { 240, 240, 240 };

/* Commands in stretches: in half of the drives one for all of it. */
static void plan_commands(struct lwm_synth_drive *d, struct lwm_rng *r)
{
	static const enum lwm_action_cmd of[] = { LWM_CMD_LEFT, LWM_CMD_LEFT, LWM_CMD_LEFT, LWM_CMD_RIGHT, LWM_CMD_RIGHT,
						  LWM_CMD_RIGHT, LWM_CMD_STRAIGHT, LWM_CMD_STRAIGHT, LWM_CMD_STRAIGHT,
						  LWM_CMD_STOP };
	bool one = lwm_rng_below(r, 2) == 0;
	for (int t = 1; t < LONG;) {
		int n = one ? LONG : 2 + (int)lwm_rng_below(r, 3);
		enum lwm_action_cmd c = of[lwm_rng_below(r, (int64_t)(sizeof of / sizeof *of))];
		for (; n > 0 && t < LONG; n--)
			d->cmd[t++] = (int8_t)c;
	}
}

struct lwm_synth_drive lwm_synth_draw_drive(uint64_t seed, int64_t i)
{
	struct lwm_rng r = lwm_rng_at(seed, LWM_RNG_SYNTH, KIND_DRIVE, (uint64_t)i);
	struct lwm_synth_drive d = { .verge = (int)lwm_rng_below(&r, 2), .sign = (int)lwm_rng_below(&r, 2) };
	int speed = 1 + (int)lwm_rng_below(&r, 3);
	d.sign_at = 3 + (int)lwm_rng_below(&r, 12);
	d.side[0] = (int8_t)(lwm_rng_below(&r, 3) - 1);
	d.phase = (int)lwm_rng_below(&r, 4);
	plan_commands(&d, &r);
	for (int t = 1; t < LONG; t++) {
		int to = d.cmd[t] == LWM_CMD_LEFT ? -1 : d.cmd[t] == LWM_CMD_RIGHT ? 1 : 0, at = d.side[t - 1] + to;
		d.side[t] = (int8_t)(at < -EDGE ? -EDGE : at > EDGE ? EDGE : at);
		if (d.way[t - 1] >= d.sign_at)
			speed = signs[d.sign].speed;
		d.way[t] = d.way[t - 1] + (d.cmd[t] == LWM_CMD_STOP ? 0 : speed);
	}
	return d;
}

int lwm_synth_drive_action(const struct lwm_synth_drive *d, int64_t t, struct lwm_action *a)
{
	int k = (int)t;
	*a = (struct lwm_action){ 0 };
	if (t < 1 || t > LWM_SYNTH_DRIVE_MOST)
		return -1;
	a->has = LWM_ACTION_BIT(LWM_ACTION_CMD) | LWM_ACTION_BIT(LWM_ACTION_TRAJ) | LWM_ACTION_BIT(LWM_ACTION_SPEED) |
		 LWM_ACTION_BIT(LWM_ACTION_STEER);
	a->cmd = (enum lwm_action_cmd)d->cmd[k];
	for (int j = 0; j < LWM_ACTION_POINTS; j++) {
		a->traj[2 * j] = (d->side[k + j] - d->side[k - 1]) * SIDE * FRAME;
		a->traj[2 * j + 1] = (d->way[k + j] - d->way[k - 1]) * QUARTER * FRAME;
		a->speed[j] = (d->way[k + j] - d->way[k + j - 1]) * QUARTER * FRAME * 2 * 3.6;
		a->steer[j] = 0.5 * (d->side[k + j - 1] - d->side[k + j]);
	}
	/* where it is after two seconds, when that can be seen */
	a->goal[0] = 0.5 + SIDE * d->side[k + 3];
	a->goal[1] = CAR_Y - QUARTER * (d->way[k + 3] - d->way[k - 1]);
	if (a->goal[1] > 0)
		a->has |= LWM_ACTION_BIT(LWM_ACTION_GOAL);
	else
		a->goal[0] = a->goal[1] = 0;
	return 0;
}

/* ---- pictures ---- */

/* What is seen at a point, x to the right, y down, in parts of the frame, while the car goes to a side (turn). */
static const uint8_t *colour_at(const struct lwm_synth_drive *d, int t, int turn, double x, double y)
{
	double dx = x - (0.5 + SIDE * d->side[t]), dy = y - CAR_Y, c = cos(SLANT * turn), s = sin(SLANT * turn);
	double across = c * dx + s * dy, along = -s * dx + c * dy;
	if (fabs(across) <= CAR_WIDE && fabs(along) <= CAR_LONG)
		return along < -0.03 && along > -0.08 && fabs(across) < 0.07 ? window : car;
	double sy = CAR_Y - QUARTER * (d->sign_at - d->way[t]);
	if (hypot(x - SIGN_X, y - sy) <= SIGN_SIZE)
		return signs[d->sign].rgb;
	if (fabs(x - 0.5) > ROAD)
		return verges[d->verge].rgb;
	/* dashes come down as the car drives up */
	double from = (y - CAR_Y) / QUARTER - d->way[t] + d->phase, in = from / 4 - floor(from / 4);
	bool line = fabs(fabs(x - 0.5) - SIDE) < 0.02;
	return line && in < 0.5 ? dash : asphalt;
}

void lwm_synth_render_drive(const struct lwm_synth_drive *d, int64_t t, int size, uint8_t *rgb)
{
	LWM_BUG_ON(t < 0 || t > LWM_SYNTH_DRIVE_MOST);
	int turn = t ? d->side[t] - d->side[t - 1] : 0;
	for (int y = 0; y < size; y++)
		for (int x = 0; x < size; x++) {
			int sum[3] = { 0 };
			for (int k = 0; k < SAMPLES * SAMPLES; k++) {
				double px = (x + (k % SAMPLES + 0.5) / SAMPLES) / size;
				double py = (y + (k / SAMPLES + 0.5) / SAMPLES) / size;
				const uint8_t *c = colour_at(d, (int)t, turn, px, py);
				for (int ch = 0; ch < 3; ch++)
					sum[ch] += c[ch];
			}
			for (int ch = 0; ch < 3; ch++)
				*rgb++ = (uint8_t)(sum[ch] / (SAMPLES * SAMPLES));
		}
}

bool lwm_synth_find_car(const uint8_t *rgb, int width, int height, double *x, double *y)
{
	int64_t n = 0;
	double sx = 0, sy = 0;
	for (int i = 0; i < height; i++)
		for (int k = 0; k < width; k++, rgb += 3) {
			if (rgb[0] < 110 || rgb[0] < 2 * rgb[1] || rgb[0] < 2 * rgb[2])
				continue;
			n++;
			sx += k + 0.5;
			sy += i + 0.5;
		}
	if ((double)n < 0.01 * width * height)
		return false;
	*x = sx / (double)n / width;
	*y = sy / (double)n / height;
	return true;
}

/* ---- texts ---- */

void lwm_synth_write_drive_caption(const struct lwm_synth_drive *d, int64_t frames, struct lwm_str *out)
{
	lwm_str_printf(out, "a red car on a road between %s verges with a %s sign", verges[d->verge].name, signs[d->sign].name);
	for (int64_t t = 1; t < frames; t++)
		if (t == 1 || d->cmd[t] != d->cmd[t - 1])
			lwm_str_printf(out, ", %s%s", t == 1 ? "" : "then ", lwm_action_cmds[d->cmd[t]]);
}

void lwm_synth_write_drive(const struct lwm_synth_drive *d, int64_t frames, struct lwm_str *out)
{
	struct lwm_str caption = { 0 };
	lwm_synth_write_drive_caption(d, frames, &caption);
	lwm_str_puts(out, "{\"caption\": ");
	lwm_str_json(out, lwm_str_get(&caption), caption.len);
	out->failed = out->failed || caption.failed;
	lwm_str_release(&caption);
	lwm_str_puts(out, ",\n \"actions\": [null");
	for (int64_t t = 1; t < frames; t++) {
		struct lwm_action a;
		LWM_BUG_ON(lwm_synth_drive_action(d, t, &a) < 0);
		lwm_str_puts(out, ",\n  ");
		lwm_action_write(&a, out);
	}
	lwm_str_puts(out, "],\n \"truth\": {\"x\": [");
	for (int64_t t = 0; t < frames; t++)
		lwm_str_printf(out, "%s%.9g", t ? ", " : "", 0.5 + SIDE * d->side[t]);
	lwm_str_puts(out, "], \"metres\": [");
	for (int64_t t = 0; t < frames; t++)
		lwm_str_printf(out, "%s%.9g", t ? ", " : "", d->way[t] * QUARTER * FRAME);
	lwm_str_printf(out, "], \"sign\": \"%s\", \"sign_metres\": %.9g}}\n", signs[d->sign].name, d->sign_at * QUARTER * FRAME);
}
