/* action.h - what a driver does, as a few tokens before the frame that it leads to.
 *
 *	lwm_action_parse(&a, "left", e)                  what people type: "cmd=left; speed=30", "traj=0,4,0,8,...", "free"
 *	lwm_action_read(&a, json, e)                     what records hold: {"cmd": "left", "speed": [30, 30, 30, 30]}
 *	lwm_action_add(t, &a, &ids, e)                   appends its tokens
 *	lwm_action_take(t, ids, n, &a, e)                the way back
 *
 * A document of a drive (common/data/ingest/fields.h, <|world|>), of frames 0..n-1, each of its codes:
 *
 *	<s> <|world|> frame0 EOF  action1 frame1 EOF  action2 frame2 EOF ...  action(n-1) frame(n-1) EOV </s>
 *
 * action k leads from frame k-1 to frame k. Of an action there are five modes, any number of which may be present, in this order:
 *
 *	cmd     <|left|> <|right|> <|straight|> or <|stop|>
 *	traj    <|traj|> x y x y x y x y     where the car will be after 0.5, 1, 1.5, 2 s, from where it is now
 *	speed   <|speed|> v v v v            at these times
 *	steer   <|steer|> s s s s            at these times
 *	goal    <|goal|> x y                 a point of the picture where the car is to go
 *
 * and <|free|> when there is none: so a document without actions, one whose actions were dropped, and the stream without a prompt
 * of guidance look the same, and differ from the others in nothing but these tokens.
 *
 * A number is one of the bins <|b000|>..<|b127|>, the same for all quantities; what it means follows from its place. Bin k of a
 * quantity is the value low + k * step, and a value becomes the nearest bin:
 *
 *	quantity  low    high   step  bins  unit, direction
 *	traj x    -31.5  31.5   0.5   127   metres to the right (the axes of nuScenes' lidar, as published annotations have them)
 *	traj y     -7.5  56     0.5   128   metres ahead
 *	speed       0    127    1     128   km/h
 *	steer      -1     1     1/63  127   angle of the wheel / 780 degrees, positive to the left (nuScenes' CAN bus)
 *	goal x      0     1     1/127 128   part of the picture's width from the left
 *	goal y      0     1     1/127 128   part of its height from the top
 *
 * A value outside is refused, never moved to the end. Modes and scalings follow Vista (arXiv 2405.17398, section 3.2), which has
 * numbers where there are bins here; bins shared by all quantities are RT-2's (arXiv 2307.15818).
 *
 * Tokens: each of these words is one id where the tokenizer was trained with them (lwm-tokenizer-train --actions); another
 * tokenizer spells them in its pieces, which is longer and means the same. Words are encoded one by one, no space before them.
 *
 * Local calls; a and ids stay as they were when one fails.
 */
#ifndef LWM_TEXT_ACTION_H
#define LWM_TEXT_ACTION_H

#include <jansson.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/str.h"
#include "common/text/tokenizer.h"

enum lwm_action_mode {
	LWM_ACTION_CMD, LWM_ACTION_TRAJ, LWM_ACTION_SPEED, LWM_ACTION_STEER, LWM_ACTION_GOAL,
	LWM_ACTION_MODES
};
extern const char *const lwm_action_modes[]; /* "cmd", "traj", "speed", "steer", "goal", NULL */
#define LWM_ACTION_BIT(mode) (1u << (mode))

enum lwm_action_cmd { LWM_CMD_LEFT, LWM_CMD_RIGHT, LWM_CMD_STRAIGHT, LWM_CMD_STOP, LWM_CMDS };
extern const char *const lwm_action_cmds[]; /* "left", "right", "straight", "stop", NULL */

enum { LWM_ACTION_POINTS = 4, LWM_ACTION_BINS = 128 };

struct lwm_action { /* zero-initialised is free */
	unsigned has; /* LWM_ACTION_BIT of each mode that is present; 0: free */
	enum lwm_action_cmd cmd;
	double traj[2 * LWM_ACTION_POINTS]; /* x y, x y, ... */
	double speed[LWM_ACTION_POINTS], steer[LWM_ACTION_POINTS], goal[2];
};

/* Item; item; ...: left, right, straight, stop, free, or MODE=VALUES with commas: cmd=left, speed=30 (a single one: at all times),
 * speed=30,30,25,20, steer=..., traj=x,y,x,y,x,y,x,y, goal=x,y. -LWM_EUSAGE: anything else, a mode twice, free beside a mode, a
 * number that is none or lies outside of the table. */
int lwm_action_parse(struct lwm_action *a, const char *text, struct lwm_err *e);
/* The same text again; numbers as they are, not as their bins. */
void lwm_action_show(const struct lwm_action *a, struct lwm_str *out);
/* null, a text for lwm_action_parse, or an object with any of the modes: cmd a string, the others arrays of exactly their numbers.
 * -LWM_EDATA: anything else, unknown members among it. */
int lwm_action_read(struct lwm_action *a, const json_t *v, struct lwm_err *e);
void lwm_action_write(const struct lwm_action *a, struct lwm_str *out); /* appends that object, or null */

/* Appends the tokens of an action, at least one. -LWM_EDATA: a number is outside of the table. */
int lwm_action_add(struct lwm_tokenizer *t, const struct lwm_action *a, struct lwm_ids *ids, struct lwm_err *e);
int lwm_action_add_world(struct lwm_tokenizer *t, struct lwm_ids *ids, struct lwm_err *e); /* <|world|> */
/* What all n ids say, numbers as the values of their bins. -LWM_EDATA: they are not the tokens of one action. */
int lwm_action_take(const struct lwm_tokenizer *t, const int32_t *ids, int64_t n, struct lwm_action *a, struct lwm_err *e);

/* -LWM_EDATA: a number of a mode that is present is outside of the table. */
int lwm_action_check(const struct lwm_action *a, struct lwm_err *e);
/* A value of the table and its bin. i: which of the mode's numbers (of traj and goal the even ones are x). -1: outside. */
int lwm_action_bin(enum lwm_action_mode mode, int i, double value);
double lwm_action_value(enum lwm_action_mode mode, int i, int bin);
int lwm_action_bins(enum lwm_action_mode mode, int i); /* how many there are */
int lwm_action_numbers(enum lwm_action_mode mode);     /* of a mode: 0, 8, 4, 4, 2 */

/* The words, for a tokenizer that has each as one piece: 0 .. LWM_ACTION_WORDS - 1. name is returned. */
enum { LWM_ACTION_WORDS = 2 + LWM_CMDS + LWM_ACTION_MODES - 1 + LWM_ACTION_BINS, LWM_ACTION_NAME = 16 };
const char *lwm_action_word(int i, char name[LWM_ACTION_NAME]);

#endif
