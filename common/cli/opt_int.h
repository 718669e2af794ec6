/* opt_int.h - what opt.c (parsing) and opt_help.c (texts) share. */
#ifndef LWM_CLI_OPT_INT_H
#define LWM_CLI_OPT_INT_H

#include "common/base/str.h"
#include "common/cli/opt.h"

enum { LWM_OPT_COUNTED = 2 }; /* an INT without argument: how often it was given */
enum { LWM_OPT_MAX = 288 };   /* options of one tool, the common ones included */

enum lwm_opt_origin { LWM_O_DEFAULT, LWM_O_CONFIG, LWM_O_ENV, LWM_O_SET, LWM_O_LINE };

struct lwm_opt_state {
	const struct lwm_opt *opt;
	enum lwm_opt_origin origin;
	char place[256]; /* file and line, or the variable's name */
};

struct lwm_parse {
	const struct lwm_tool *tool;
	struct lwm_opt_state st[LWM_OPT_MAX];
	int n, ntool; /* the tool's own come first */
};

void lwm_opt_env_name(const char *name, char *buf, size_t size);

void lwm_opt_help(const struct lwm_parse *p, bool all, struct lwm_str *out); /* all: however long; else 60 lines */
void lwm_opt_man(const struct lwm_parse *p, struct lwm_str *out);
void lwm_opt_completion(const struct lwm_parse *p, struct lwm_str *out);
void lwm_opt_print_config(const struct lwm_parse *p, bool json, struct lwm_str *out);

#endif
