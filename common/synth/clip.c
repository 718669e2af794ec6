/* A shape on a plain background that moves along a straight line. A pixel is the mean of SAMPLES x SAMPLES points, so that edges
 * are smooth and small sizes still differ; the path stays inside the frame. */
#include <math.h>
#include <string.h>

#include "common/data/needle.h"
#include "common/synth/synth.h"

enum { KIND_CLIP = 3, SHAPES = 3, COLOURS = 6, BACKGROUNDS = 3, MOTIONS = 5, SAMPLES = 4 /* per pixel and axis */ };

static const char *const shapes[SHAPES] = { "circle", "square", "triangle" };
static const struct {
	const char *name;
	uint8_t rgb[3];
} paint[COLOURS + BACKGROUNDS] = {
	{ "red", { 220, 30, 30 } },      { "green", { 30, 180, 50 } },  { "blue", { 40, 70, 230 } },
	{ "yellow", { 235, 215, 40 } },  { "purple", { 150, 50, 190 } }, { "orange", { 240, 140, 30 } },
	{ "black", { 16, 16, 16 } },     { "gray", { 110, 110, 110 } }, { "white", { 235, 235, 235 } },
};
static const struct {
	const char *words;
	double dx, dy; /* over the whole clip, in parts of the frame */
} motions[MOTIONS] = {
	{ "moves left", -0.5, 0 }, { "moves right", 0.5, 0 }, { "moves up", 0, -0.5 }, { "moves down", 0, 0.5 },
	{ "stands still", 0, 0 },
};

struct lwm_synth_clip lwm_synth_draw_clip(uint64_t seed, int64_t i)
{
	struct lwm_rng r = lwm_rng_at(seed, LWM_RNG_SYNTH, KIND_CLIP, (uint64_t)i);
	struct lwm_synth_clip c = { .shape = (int)lwm_rng_below(&r, SHAPES), .colour = (int)lwm_rng_below(&r, COLOURS),
				    .background = (int)lwm_rng_below(&r, BACKGROUNDS),
				    .motion = (int)lwm_rng_below(&r, MOTIONS) };
	double u = lwm_rng_double(&r), v = lwm_rng_double(&r);
	c.size = 0.14 + 0.06 * lwm_rng_double(&r); /* half the width of the shape */
	/* the whole path stays inside the frame */
	double dx = motions[c.motion].dx, dy = motions[c.motion].dy;
	double x0 = c.size - fmin(dx, 0), x1 = 1 - c.size - fmax(dx, 0);
	double y0 = c.size - fmin(dy, 0), y1 = 1 - c.size - fmax(dy, 0);
	c.x = x0 + u * (x1 - x0);
	c.y = y0 + v * (y1 - y0);
	return c;
}

static bool is_inside(int shape, double dx, double dy, double size)
{
	switch (shape) {
	case 0:
		return dx * dx + dy * dy <= size * size;
	case 1:
		return fabs(dx) <= 0.85 * size && fabs(dy) <= 0.85 * size;
	default: /* point up */
		return dy <= 0.8 * size && dy >= -size && fabs(dx) <= (dy + size) / 1.8;
	}
}

void lwm_synth_render_frame(const struct lwm_synth_clip *c, int64_t t, int64_t n, int size, uint8_t *rgb)
{
	double at = n > 1 ? (double)t / (double)(n - 1) : 0;
	double cx = c->x + at * motions[c->motion].dx, cy = c->y + at * motions[c->motion].dy;
	const uint8_t *in = paint[c->colour].rgb, *out = paint[COLOURS + c->background].rgb;
	for (int y = 0; y < size; y++)
		for (int x = 0; x < size; x++) {
			int hit = 0;
			for (int k = 0; k < SAMPLES * SAMPLES; k++) {
				double px = (x + (k % SAMPLES + 0.5) / SAMPLES) / size;
				double py = (y + (k / SAMPLES + 0.5) / SAMPLES) / size;
				hit += is_inside(c->shape, px - cx, py - cy, c->size);
			}
			const int all = SAMPLES * SAMPLES;
			for (int ch = 0; ch < 3; ch++)
				*rgb++ = (uint8_t)((in[ch] * hit + out[ch] * (all - hit)) / all);
		}
}

void lwm_synth_write_caption(const struct lwm_synth_clip *c, bool still, struct lwm_str *out)
{
	lwm_str_printf(out, "a %s %s%s%s on a %s background", paint[c->colour].name, shapes[c->shape], still ? "" : " ",
		       still ? "" : motions[c->motion].words, paint[COLOURS + c->background].name);
}

/* The k-th question about a clip; about a still picture there are only the first three. */
static void ask_about(const struct lwm_synth_clip *c, int k, struct lwm_str *question, struct lwm_str *answer)
{
	switch (k) {
	case 0:
		lwm_str_puts(question, "What colour is the shape?");
		lwm_str_puts(answer, paint[c->colour].name);
		break;
	case 1:
		lwm_str_puts(question, "What shape is it?");
		lwm_str_puts(answer, shapes[c->shape]);
		break;
	case 2:
		lwm_str_puts(question, "What colour is the background?");
		lwm_str_puts(answer, paint[COLOURS + c->background].name);
		break;
	default:
		lwm_str_puts(question, "How does it move?");
		lwm_str_printf(answer, "it %s", motions[c->motion].words);
		break;
	}
}

static void add_member(struct lwm_str *out, const char *key, const struct lwm_str *value)
{
	lwm_str_puts(out, out->len && out->s[out->len - 1] != '{' ? ", " : "");
	lwm_str_json(out, key, strlen(key));
	lwm_str_puts(out, ": ");
	lwm_str_json(out, lwm_str_get(value), value->len);
	out->failed = out->failed || value->failed;
}

void lwm_synth_write_record(const struct lwm_synth_clip *c, bool still, int64_t i, struct lwm_str *out)
{
	struct lwm_str v[6] = { { 0 } };
	static const char *const keys[] = { "caption", "question", "answer", "prompt_make", "prompt_ask",
					    "prompt_end" };
	lwm_synth_write_caption(c, still, &v[0]);
	ask_about(c, (int)(i % (still ? 3 : 4)), &v[1], &v[2]);
	lwm_str_printf(&v[3], "%sGenerate %s of %s ASSISTANT:", lwm_needle_prompt_head(),
		       still ? "an image" : "a video", lwm_str_get(&v[0]));
	lwm_str_printf(&v[4], "%s%s\n", lwm_needle_prompt_head(), lwm_str_get(&v[1]));
	lwm_str_puts(&v[5], " ASSISTANT:");
	lwm_str_putc(out, '{');
	for (int k = 0; k < 6; k++) {
		add_member(out, keys[k], &v[k]);
		lwm_str_release(&v[k]);
	}
	lwm_str_puts(out, "}\n");
}

const char *lwm_synth_find_colour(int i, uint8_t rgb[3])
{
	if (i < 0 || i >= COLOURS + BACKGROUNDS)
		return NULL;
	memcpy(rgb, paint[i].rgb, 3);
	return paint[i].name;
}
