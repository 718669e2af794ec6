/* opt.h - one table per tool drives parsing, --help, the man page and completion.
 *
 *	static const struct lwm_opt opts[] = {
 *		LWM_OPT_STR('o', "output", &a.out, "FILE", "where the shard goes", LWM_OPT_REQUIRED),
 *		LWM_OPT_INT(0, "seq-length", &a.seq, 2, 1 << 24, "N", "tokens in one row", 0),
 *		LWM_OPT_END };
 *	static const struct lwm_tool tool = { .name = "lwm-pack", .summary = "...", .operands = "SHARD...",
 *		.min_operands = 1, .max_operands = -1, .opts = opts, .details = "...", .examples = "..." };
 *	int main(int argc, char **argv) { return lwm_tool_main(&tool, argc, argv, pack_shards); }
 *
 * Values come, weakest first, from the defaults in the destinations, --config FILE (a YAML map of option names; a key
 * named like the tool may hold the map), the environment (LWM_SEQ_LENGTH), --set name=value, the command line.
 * --print-config shows each value and where it came from, --check-options only says whether the program would take them. Every
 * tool has: --help --version --config --set --print-config --plan --json --quiet --verbose --threads --seed --force. They are in
 * struct lwm_common. --help-man and --help-completion print what `make install` installs. A list from a stronger source replaces
 * the weaker one's. "_" and "-" in names are the same.
 */
#ifndef LWM_CLI_OPT_H
#define LWM_CLI_OPT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/path.h"

enum lwm_opt_type { LWM_T_END, LWM_T_HEAD, LWM_T_FLAG, LWM_T_INT, LWM_T_DOUBLE, LWM_T_STR, LWM_T_SECONDS, LWM_T_CHOICE,
		    LWM_T_LIST, LWM_T_TABLE };
enum { LWM_OPT_REQUIRED = 1 };

/* A line of a table: an option, a heading of --help, or another table. Made by the macros below, which take: letter, name,
 * where the value goes, range or choices, the value's name in --help, one phrase of explanation, flags. */
struct lwm_opt {
	enum lwm_opt_type type;
	char letter; /* of -x; 0: none */
	const char *name; /* after the two dashes; NULL: not an option */
	void *dst; /* bool, int64_t, double, const char *, double, int (index), struct lwm_paths; of a TABLE that table */
	const char *arg, *help;
	double min, max; /* both allowed */
	const char *const *choices; /* the words of a CHOICE, NULL-terminated */
	unsigned flags;
};
#define LWM_OPT_FLAG(l, n, d, h) { LWM_T_FLAG, l, n, d, 0, h, 0, 0, 0, 0 }
#define LWM_OPT_INT(l, n, d, lo, hi, a, h, f) { LWM_T_INT, l, n, d, a, h, lo, hi, 0, f }
#define LWM_OPT_DOUBLE(l, n, d, lo, hi, a, h, f) { LWM_T_DOUBLE, l, n, d, a, h, lo, hi, 0, f }
#define LWM_OPT_STR(l, n, d, a, h, f) { LWM_T_STR, l, n, d, a, h, 0, 0, 0, f }
#define LWM_OPT_SECONDS(l, n, d, a, h, f) { LWM_T_SECONDS, l, n, d, a, h, 0, 0, 0, f }
#define LWM_OPT_CHOICE(l, n, d, c, h, f) { LWM_T_CHOICE, l, n, d, 0, h, 0, 0, c, f }
#define LWM_OPT_LIST(l, n, d, a, h, f) { LWM_T_LIST, l, n, d, a, h, 0, 0, 0, f } /* may be given several times */
/* What several tools share: which part of the inputs an array task takes, the marks around a document. */
#define LWM_OPT_TASKS(i, n) \
	LWM_OPT_INT(0, "task", i, 0, 1e9, "I", "take the inputs whose number modulo --tasks is I, from 0", 0), \
	LWM_OPT_INT(0, "tasks", n, 1, 1e9, "N", "number of tasks that share the inputs", 0)
#define LWM_OPT_MARKS(no_bos, no_eos) \
	LWM_OPT_FLAG(0, "no-bos", no_bos, "no <s> at the start of documents"), \
	LWM_OPT_FLAG(0, "no-eos", no_eos, "no </s> at their end")
/* For tools that make documents of turn lists; layouts: their names. */
#define LWM_OPT_CHAT(layout, layouts, system, escape) \
	LWM_OPT_CHOICE(0, "chat-layout", layout, layouts, "of the turns that the field <|chat|> stands for", 0), \
	LWM_OPT_STR(0, "system", system, "TEXT", "system prompt of chats that have none (default: the published one)", 0), \
	LWM_OPT_FLAG(0, "escape-special", escape, "a space is put into words of the model in chats; else they are refused")
/* For tools that make documents of drives; names: of the modes that are told. */
#define LWM_OPT_WORLD(actions, names, drop) \
	LWM_OPT_CHOICE(0, "actions", actions, names, "of drives (the field <|world|>): which are told; steer: with speed", 0), \
	LWM_OPT_DOUBLE(0, "action-drop", drop, 0, 1, "X", "share of drives that are told without any, for guidance", 0)
#define LWM_OPT_OLDER(d) \
	LWM_OPT_FLAG(0, "older-ok", d, "of a folder of checkpoints take an older one where the newest is damaged")
/* For tools that compute: on which device. */
#define LWM_OPT_DEVICE(d) LWM_OPT_STR(0, "device", d, "DEV", "auto, cpu, ref, cuda, cuda:N", 0)
/* For tools in which a language model answers: its tokenizer, and how much of a prompt is fed at a time. */
#define LWM_OPT_MODEL_TOKENIZER(l, d) \
	LWM_OPT_STR(l, "tokenizer", d, "SPEC", "the model's own, wherever it lies; default: the one beside it", 0)
#define LWM_OPT_PREFILL(n) LWM_OPT_INT(0, "prefill-chunk", n, 1, 1 << 20, "N", "prompt tokens at a time", 0)
/* For tools that read pictures and videos. */
#define LWM_OPT_MAX_PIXELS(n) \
	LWM_OPT_INT(0, "max-pixels", n, 1, 1 << 30, "N", "of a frame that is read; larger ones are refused before they are decoded", 0)
#define LWM_OPT_HEAD(h) { LWM_T_HEAD, 0, 0, 0, 0, h, 0, 0, 0, 0 }
/* The options of another table up to its end, in this place: a table can be put together from parts that lie beside the code
 * that they set. t stays alive as long as the tool. */
#define LWM_OPT_TABLE(t) { LWM_T_TABLE, 0, 0, (void *)(t), 0, 0, 0, 0, 0, 0 }
#define LWM_OPT_END { LWM_T_END, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

struct lwm_common {
	bool plan, json, quiet, force;
	int64_t verbose, threads, seed; /* threads 0: all the process may use (OMP_NUM_THREADS, affinity) */
};

struct lwm_args;
struct lwm_tool {
	/* "lwm-pack"; one sentence; "SHARD..."; what --help says after the options, then commands to start from: lines of
	 * text, or NULL */
	const char *name, *summary, *operands, *details, *examples;
	int min_operands, max_operands; /* max -1: any number */
	const struct lwm_opt *opts;
	bool ranks;   /* made to be started as many ranks: of what is wrong before they know each other, rank 0 speaks alone */
	bool stops;   /* signals are requests (common/base/stop.h) from the first moment on */
	bool stops_others; /* and a second Ctrl-C is reported: it has processes to end first */
	/* What can be said of the options without looking at a file: before run, and alone by --check-options. May be NULL. */
	int (*check)(const struct lwm_args *a, struct lwm_err *e);
	bool own_set; /* --set changes a file that the tool itself reads: it gets them in lwm_args.set */
};

struct lwm_args {
	struct lwm_common common;
	char **operand; /* borrowed from argv */
	int noperand;
	bool checking;  /* --check-options: nothing will be run */
	const struct lwm_paths *set; /* NAME=VALUE texts in order, when the tool has own_set */
};

/* A tool's work after parsing: returns 0, LWM_ENO (1) or a negative code with *e filled. */
typedef int lwm_tool_fn(const struct lwm_args *a, struct lwm_err *e);

/* Parses, answers --help/--version/--print-config, sets up the log, runs, prints the error ("lwm-pack: sentence", as JSON on
 * stdout too with --json), closes stdout with a check, returns the exit status. */
int lwm_tool_main(const struct lwm_tool *tool, int argc, char **argv, lwm_tool_fn *work);

/* Prints the error of a run now, and what waits for standard output. For tools with ranks, before lwm_comm_end: a launcher ends all
 * ranks as soon as one has left with an error, the one that would have explained it too. */
void lwm_tool_say(int rc, struct lwm_err *e);

/* For tools that share their inputs among tasks (LWM_OPT_TASKS): are these two options possible together? -LWM_EUSAGE. */
int lwm_tool_tasks(int64_t task, int64_t tasks, struct lwm_err *e);
/* The inputs of this task: of all that the operands name (lwm_paths_expand) those whose number modulo `tasks` is `task`. Added to
 * *out; a tool without tasks says 0 and 1. */
int lwm_tool_inputs(const struct lwm_args *a, const char *const *suffixes, int64_t task, int64_t tasks, struct lwm_paths *out,
		    struct lwm_err *e);
/* Either one output for all inputs, or a folder for an output each, which tasks need. -LWM_EUSAGE. */
int lwm_tool_outputs(const char *output, const char *out_dir, int64_t task, int64_t tasks, struct lwm_err *e);
/* Prints what --json promises, one line, and takes o over; NULL says that there was no memory for it. */
int lwm_tool_json(json_t *o, struct lwm_err *e);

#define LWM_VERSION "0.1.0"

#endif
