/* action_int.h - what the two files of actions share: action.c (words), action_text.c (what people type, what records hold). */
#ifndef LWM_TEXT_ACTION_INT_H
#define LWM_TEXT_ACTION_INT_H

#include "common/text/action.h"

/* The numbers of a mode; NULL: cmd has none. */
double *lwm_action_values(struct lwm_action *a, enum lwm_action_mode mode);
const double *lwm_action_numbers_of(const struct lwm_action *a, enum lwm_action_mode mode);
/* -code: number i of the mode lies outside of the table. */
int lwm_action_outside(enum lwm_action_mode mode, int i, double v, int code, struct lwm_err *e);

#endif
