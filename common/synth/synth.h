/* synth.h - a small world made up from a seed: books, chats, moving shapes, drives, needle documents. Training data whose right
 * answers are known. Item i of a kind is a function of (seed, i) alone, so any split over tasks gives the same items, and another
 * seed or other numbers give held-out data. A few hundred words, so that a small vocabulary gives whole words as tokens.
 *
 * Everything is local and appended to the strings given, unless it says otherwise; lwm_str_ok says whether there was memory.
 */
#ifndef LWM_SYNTH_SYNTH_H
#define LWM_SYNTH_SYNTH_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/rng.h"
#include "common/base/str.h"
#include "common/text/action.h"
#include "common/text/tokenizer.h"

/* ---- text ---- */

void lwm_synth_add_sentence(struct lwm_rng *r, struct lwm_str *out); /* "The old sailor walked to the quiet harbour." */
/* A book of `sentences` sentences in paragraphs and chapters, with facts planted ("The boat of Anna is green."), 64 of them at
 * most. For each fact one line {"book", "question", "answer", "prompt"} is added to *questions. */
void lwm_synth_write_book(uint64_t seed, int64_t i, int64_t sentences, int64_t facts, struct lwm_str *text,
			  struct lwm_str *questions);
/* One line {"prompt", "answer"}: the prompt ends in "ASSISTANT:". */
void lwm_synth_write_chat(uint64_t seed, int64_t i, struct lwm_str *line);
/* One line {"messages": [...]}, two questions with their answers. The first turn tells who came where with what; the second asks for
 * another part of that ("And what colour was it?"), and says nothing of it itself. */
void lwm_synth_write_dialogue(uint64_t seed, int64_t i, struct lwm_str *line);

/* ---- needles ---- */

struct lwm_synth_needle {
	uint64_t seed;
	int64_t facts;                   /* needles in a document, each of another city */
	int64_t ask;                     /* how many of them the question asks for; 1 = the single-needle prompt; 0 = of 1 to
					  * facts, drawn for each document */
	int64_t tokens;                  /* whole document with <s> and </s>, at most; drawn from about half of it up */
	bool sentences;                  /* answer in the needle's words, not the bare numbers */
	struct lwm_tokenizer *tokenizer; /* that counts the tokens */
	/* Real text to hide them in, borrowed: sentence k is text[start[k]..start[k+1]), documents take a run of them from a place
	 * that is drawn. NULL: made-up sentences. */
	const char *text;
	const int64_t *start; /* [text_sentences + 1] */
	int64_t text_sentences;
};
/* prompt, replaced: everything up to "ASSISTANT: "; answer, replaced: the numbers in the order asked for, ", " between.
 * -LWM_ECONFIG when the facts alone need more tokens than there are. */
int lwm_synth_write_needle(const struct lwm_synth_needle *want, int64_t i, struct lwm_str *prompt, struct lwm_str *answer,
			   struct lwm_err *e);
/* Strings worth a piece of their own in a small vocabulary: the cities and the fixed parts of the prompts. Returns how many; they
 * stay where they are. Not for several threads at once. */
int64_t lwm_synth_list_symbols(const char *const **out);

/* ---- moving shapes ---- */

struct lwm_synth_clip {
	int shape, colour, background, motion; /* indices into the words */
	double x, y, size;                     /* of the first frame, in parts of the frame; size: half the width */
};
struct lwm_synth_clip lwm_synth_draw_clip(uint64_t seed, int64_t i);
/* Frame t of n: size x size pixels of 3 bytes, red first, rows from the top. */
void lwm_synth_render_frame(const struct lwm_synth_clip *c, int64_t t, int64_t n, int size, uint8_t *rgb);
/* "a red circle moves left on a black background"; a still picture without the motion: "a red circle on a black
 * background". */
void lwm_synth_write_caption(const struct lwm_synth_clip *c, bool still, struct lwm_str *out);
/* One JSON object with every string that field layouts need: caption, question and answer (the i-th of the questions
 * in turn), prompt_make "... USER: Generate a video of {caption} ASSISTANT:", prompt_ask "... USER: {question}\n",
 * prompt_end " ASSISTANT:". */
void lwm_synth_write_record(const struct lwm_synth_clip *c, bool still, int64_t i, struct lwm_str *out);
/* For checks of what a model drew: name and value of colour i of the palette, colours of shapes first; NULL after the last one. */
const char *lwm_synth_find_colour(int i, uint8_t rgb[3]);

/* ---- drives ---- */

/* A road seen from above, and a car that steers. A frame is half a second, whatever the rate of the file. The camera goes along
 * with the car, so that the road comes down the picture; the car is red, and nothing else is.
 *
 * Left and right move it a fifth of the road to the side, 0.16 of the picture, until it is at the edge, where it drives on along
 * it; straight does not, and stop stops it. A drive begins in one of the three middle places, so each command can be seen. Commands
 * stand for themselves: nothing in the picture tells which is next. What does is the speed, of 18, 36 or 54 km/h: a sign beside the
 * road, once passed, makes it 18 (yellow) or 54 (blue). */
enum { LWM_SYNTH_DRIVE_MOST = 256 /* frames after the first */ };
struct lwm_synth_drive {
	int verge, sign, sign_at, phase;          /* colours; in quarters of the distance of two dashes: way to the sign, begin */
	int8_t cmd[LWM_SYNTH_DRIVE_MOST + 8];     /* enum lwm_action_cmd: leads to frame t, from 1 */
	int8_t side[LWM_SYNTH_DRIVE_MOST + 8];    /* place across the road at frame t, -2..2 from left to right */
	int32_t way[LWM_SYNTH_DRIVE_MOST + 8];    /* driven so far, likewise in quarters: 2.5 m */
};
struct lwm_synth_drive lwm_synth_draw_drive(uint64_t seed, int64_t i);
/* Frame t, 0..LWM_SYNTH_DRIVE_MOST: size x size pixels of 3 bytes, rows from the top. */
void lwm_synth_render_drive(const struct lwm_synth_drive *d, int64_t t, int size, uint8_t *rgb);
/* What leads to frame t: cmd, traj, speed and steer of the next two seconds, and goal where that is in the picture. -1: t is not in
 * 1..LWM_SYNTH_DRIVE_MOST. */
int lwm_synth_drive_action(const struct lwm_synth_drive *d, int64_t t, struct lwm_action *a);
/* "a red car on a road between green verges with a blue sign, left, then straight". */
void lwm_synth_write_drive_caption(const struct lwm_synth_drive *d, int64_t frames, struct lwm_str *out);
/* One JSON object: caption, actions (common/data/ingest/world.h), and the truth: x of the car in parts of the picture, metres
 * driven, colour and metres of the sign. */
void lwm_synth_write_drive(const struct lwm_synth_drive *d, int64_t frames, struct lwm_str *out);
/* For checks of what a model drew: the middle of what is red, in parts of the picture. false: less than 1 % is. */
bool lwm_synth_find_car(const uint8_t *rgb, int width, int height, double *x, double *y);

#endif
