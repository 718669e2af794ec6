/* opt.c - a tool's main: its table and the common one become one list of options, and what is said of them is applied from the
 * weakest source to the strongest: --config, environment, --set, command line. The command line is read first all the same, for
 * it names the files and may ask for something else than a run (--help).
 */
#include "common/cli/opt.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/json.h"
#include "common/base/launch.h"
#include "common/base/log.h"
#include "common/base/num.h"
#include "common/base/show.h"
#include "common/base/stop.h"
#include "common/base/threads.h"
#include "common/cli/opt_int.h"
#include "common/cli/yaml.h"

enum action { A_RUN, A_HELP, A_HELP_ALL, A_VERSION, A_MAN, A_COMPLETION, A_PRINT_CONFIG, A_CHECK };

/* What one command line asks for; the table's destinations are filled later, weakest source first. */
struct line {
	enum action action;
	struct lwm_paths config, set;
	struct given {
		int opt; /* index into lwm_parse.st */
		const char *text;
	} *given;
	int ngiven;
	struct lwm_yaml *docs[16]; /* alive until the tool is done: it borrows their strings */
	int ndocs;
};

static struct lwm_common common;
static bool begun; /* the tool does its work */
static const struct lwm_opt common_opts[] = {
	LWM_OPT_FLAG(0, "plan", &common.plan, "say what would be done and stop"),
	LWM_OPT_FLAG(0, "json", &common.json, "results (and errors) as JSON on standard output"),
	LWM_OPT_FLAG('q', "quiet", &common.quiet, "only warnings and errors on standard error"),
	{ LWM_T_INT, 'v', "verbose", &common.verbose, 0, "say more; may be repeated", 0, 9, 0, LWM_OPT_COUNTED },
	LWM_OPT_INT(0, "threads", &common.threads, 0, 4096, "N", "threads; 0: all this process may use", 0),
	LWM_OPT_INT(0, "seed", &common.seed, 0, 9e15, "N", "seed of all random choices", 0),
	LWM_OPT_FLAG(0, "force", &common.force, "replace existing outputs"),
	LWM_OPT_END
};

static const struct { const char *name; char letter; bool arg; enum action action; } actions[] = {
	{ "help", 'h', false, A_HELP },
	{ "help-all", 0, false, A_HELP_ALL },
	{ "version", 'V', false, A_VERSION },
	{ "help-man", 0, false, A_MAN },
	{ "help-completion", 0, false, A_COMPLETION },
	{ "print-config", 0, false, A_PRINT_CONFIG },
	{ "check-options", 0, false, A_CHECK },
	{ "config", 0, true, A_RUN },
	{ "set", 0, true, A_RUN },
};
enum { NACTIONS = sizeof actions / sizeof actions[0], V_ACTION = 1000, V_OPT = 2000, V_NO = 3000 };

/* What compiled this, for --version --verbose. */
static const char *build_text(void)
{
	return "gcc " __VERSION__
#if defined(__x86_64__)
		", x86-64"
#elif defined(__aarch64__)
		", aarch64"
#endif
#if defined(__SANITIZE_ADDRESS__)
		", address sanitizer"
#elif defined(__SANITIZE_THREAD__)
		", thread sanitizer"
#endif
#if !defined(__OPTIMIZE__)
		", not optimised"
#endif
		;
}

static void add_table(struct lwm_parse *p, const struct lwm_opt *o)
{
	for (; o && o->type != LWM_T_END; o++) {
		if (o->type == LWM_T_TABLE) {
			add_table(p, o->dst);
			continue;
		}
		LWM_BUG_ON(p->n == LWM_OPT_MAX);
		if (o->type != LWM_T_HEAD)
			LWM_BUG_ON(!o->dst || !o->name);
		p->st[p->n++].opt = o;
	}
}

static int find_opt(const struct lwm_parse *p, const char *name)
{
	for (int i = 0; i < p->n; i++) {
		const char *a = p->st[i].opt->name, *b = name;
		if (!a)
			continue;
		while (*a && (*a == *b || (*a == '-' && *b == '_')))
			a++, b++;
		if (!*a && !*b)
			return i;
	}
	return -1;
}

/* All names that could have been meant; returns how many. */
static int option_names(const struct lwm_parse *p, const char *names[LWM_OPT_MAX + NACTIONS])
{
	int n = 0;
	for (int i = 0; i < p->n; i++)
		if (p->st[i].opt->name)
			names[n++] = p->st[i].opt->name;
	for (int i = 0; i < NACTIONS; i++)
		names[n++] = actions[i].name;
	return n;
}

static int bad_choice(const struct lwm_opt *o, const char *text, const char *what, struct lwm_err *e)
{
	struct lwm_str list = { 0 };
	int rc;
	for (int i = 0; o->choices[i]; i++)
		lwm_str_printf(&list, "%s%s", i ? ", " : "", o->choices[i]);
	rc = lwm_fail(e, LWM_EUSAGE, "%s: '%s' is none of %s", what, text, lwm_str_get(&list));
	lwm_str_release(&list);
	return rc;
}

static int64_t int_bound(double v)
{
	return v >= 9.2e18 ? INT64_MAX : v <= -9.2e18 ? INT64_MIN : (int64_t)v;
}

/* Stores one text into the option's destination; `what` names the source in messages. */
static int store_value(const struct lwm_opt *o, const char *text, const char *what, struct lwm_err *e)
{
	switch (o->type) {
	case LWM_T_FLAG:
		return lwm_parse_bool(text, o->dst, what, e);
	case LWM_T_INT:
		return lwm_parse_int(text, int_bound(o->min), int_bound(o->max), o->dst, what, e);
	case LWM_T_DOUBLE:
		return lwm_parse_double(text, o->min, o->max, o->dst, what, e);
	case LWM_T_SECONDS:
		return lwm_parse_seconds(text, o->dst, what, e);
	case LWM_T_STR:
		*(const char **)o->dst = text;
		return 0;
	case LWM_T_LIST:
		return lwm_paths_add(o->dst, text, e);
	case LWM_T_CHOICE:
		for (int i = 0; o->choices[i]; i++) {
			if (!strcmp(o->choices[i], text)) {
				*(int *)o->dst = i;
				return 0;
			}
		}
		return bad_choice(o, text, what, e);
	default:
		return 0;
	}
}

static int assign_value(struct lwm_parse *p, int i, const char *text, enum lwm_opt_origin origin, const char *place,
		  const char *what, struct lwm_err *e)
{
	struct lwm_opt_state *st = &p->st[i];
	/* a stronger source replaces the whole list, the same source adds to it */
	if (st->opt->type == LWM_T_LIST && st->origin != origin)
		lwm_paths_release(st->opt->dst);
	st->origin = origin;
	snprintf(st->place, sizeof st->place, "%s", place);
	return store_value(st->opt, text, what, e);
}

static int apply_node(struct lwm_parse *p, struct lwm_node *n, struct lwm_err *e)
{
	char place[256], what[512];
	int i = find_opt(p, n->key);
	if (i < 0) {
		const char *names[LWM_OPT_MAX + NACTIONS];
		char hint[LWM_HINT];
		return lwm_fail(e, LWM_EUSAGE, "%s:%d: unknown option '%s'%s", n->file, n->line, n->key,
				lwm_hint(hint, n->key, names, option_names(p, names)));
	}
	snprintf(place, sizeof place, "%s:%d", n->file, n->line);
	snprintf(what, sizeof what, "%s: %s", place, n->key);
	if (n->kind == LWM_SEQ && p->st[i].opt->type == LWM_T_LIST) {
		for (int64_t k = 0; k < n->n; k++) {
			LWM_TRY(lwm_node_kind_is(n->child[k], LWM_SCALAR, e));
			LWM_TRY(assign_value(p, i, n->child[k]->text, LWM_O_CONFIG, place, what, e));
		}
		return 0;
	}
	LWM_TRY(lwm_node_kind_is(n, LWM_SCALAR, e));
	return assign_value(p, i, n->text, LWM_O_CONFIG, place, what, e);
}

/* The options of one file; with sections named like tools, only ours counts. */
static int apply_config(struct lwm_parse *p, struct line *l, const char *path, struct lwm_err *e)
{
	struct lwm_node *root, *map;
	if (l->ndocs == (int)(sizeof l->docs / sizeof l->docs[0]))
		return lwm_fail(e, LWM_EUSAGE, "--config: more than %d files", l->ndocs);
	LWM_TRY(lwm_yaml_read(&l->docs[l->ndocs], path, e));
	root = lwm_yaml_root(l->docs[l->ndocs++]);
	LWM_TRY(lwm_node_kind_is(root, LWM_MAP, e));
	map = lwm_node_get(root, p->tool->name);
	if (map)
		LWM_TRY(lwm_node_kind_is(map, LWM_MAP, e));
	for (int64_t i = 0; i < root->n; i++)
		if (!(root->child[i]->kind == LWM_MAP && !strncmp(root->child[i]->key, "lwm-", 4)))
			LWM_TRY(apply_node(p, root->child[i], e));
	for (int64_t i = 0; map && i < map->n; i++)
		LWM_TRY(apply_node(p, map->child[i], e));
	return 0;
}

void lwm_opt_env_name(const char *name, char *buf, size_t size)
{
	size_t n = (size_t)snprintf(buf, size, "LWM_%s", name);
	for (size_t i = 0; i < n && i < size; i++)
		buf[i] = buf[i] == '-' ? '_' : (char)toupper((unsigned char)buf[i]);
}

static int apply_env(struct lwm_parse *p, struct lwm_err *e)
{
	char name[128];
	for (int i = 0; i < p->n; i++) {
		const char *text;
		if (!p->st[i].opt->name)
			continue;
		lwm_opt_env_name(p->st[i].opt->name, name, sizeof name);
		text = getenv(name);
		if (text && *text)
			LWM_TRY(assign_value(p, i, text, LWM_O_ENV, name, name, e));
	}
	return 0;
}

static int apply_set(struct lwm_parse *p, const char *assignment, struct lwm_err *e)
{
	char name[128], what[160], hint[LWM_HINT];
	const char *eq = strchr(assignment, '='), *names[LWM_OPT_MAX + NACTIONS];
	int i;
	if (!eq || eq == assignment || (size_t)(eq - assignment) >= sizeof name)
		return lwm_fail(e, LWM_EUSAGE, "--set %s: expected NAME=VALUE", assignment);
	snprintf(name, sizeof name, "%.*s", (int)(eq - assignment), assignment);
	i = find_opt(p, name);
	if (i >= 0) {
		snprintf(what, sizeof what, "--set %s", name);
		return assign_value(p, i, eq + 1, LWM_O_SET, "--set", what, e);
	}
	return lwm_fail(e, LWM_EUSAGE, "--set %s: unknown option '%s'%s", assignment, name,
			lwm_hint(hint, name, names, option_names(p, names)));
}

/* ---- the command line ---- */

static bool letter_taken(const struct lwm_parse *p, char c)
{
	for (int i = 0; i < p->ntool; i++)
		if (p->st[i].opt->letter == c)
			return true;
	return false;
}

struct table {
	struct option lo[2 * LWM_OPT_MAX + NACTIONS + 1];
	char no[LWM_OPT_MAX][48], shorts[3 * LWM_OPT_MAX + 16];
	int letter[256]; /* value of a letter; 0 unknown */
};

static void table_add(struct table *t, int *n, const char *name, char letter, int has_arg, int val)
{
	size_t len = strlen(t->shorts);
	t->lo[(*n)++] = (struct option){ name, has_arg, NULL, val };
	if (letter && !t->letter[(unsigned char)letter]) {
		t->letter[(unsigned char)letter] = val;
		snprintf(t->shorts + len, sizeof t->shorts - len, "%c%s", letter,
			 has_arg == required_argument ? ":" : "");
	}
}

static void table_make(struct table *t, const struct lwm_parse *p)
{
	int n = 0;
	memset(t, 0, sizeof *t);
	t->shorts[0] = ':';
	for (int i = 0; i < p->n; i++) {
		const struct lwm_opt *o = p->st[i].opt;
		bool flag = o->type == LWM_T_FLAG, counted = o->flags & LWM_OPT_COUNTED;
		if (o->type == LWM_T_HEAD)
			continue;
		table_add(t, &n, o->name, i >= p->ntool && letter_taken(p, o->letter) ? 0 : o->letter,
			  flag || counted ? optional_argument : required_argument, V_OPT + i);
		if (flag) {
			snprintf(t->no[i], sizeof t->no[i], "no-%s", o->name);
			table_add(t, &n, t->no[i], 0, no_argument, V_NO + i);
		}
	}
	for (int i = 0; i < NACTIONS; i++)
		table_add(t, &n, actions[i].name, letter_taken(p, actions[i].letter) ? 0 : actions[i].letter,
			  actions[i].arg ? required_argument : no_argument, V_ACTION + i);
}

static int bad_option(const struct lwm_parse *p, const struct table *t, char **argv, int c, struct lwm_err *e)
{
	const char *word = argv[optind - 1], *names[LWM_OPT_MAX + NACTIONS], *near;
	char name[128];
	int matches = 0;
	if (c == ':')
		return lwm_fail(e, LWM_EUSAGE, "%s needs a value (see --help)", word);
	if (strncmp(word, "--", 2))
		return lwm_fail(e, LWM_EUSAGE, "unknown option -%c (see --help)", optopt);
	snprintf(name, sizeof name, "%.*s", (int)strcspn(word + 2, "="), word + 2);
	for (const struct option *o = t->lo; o->name; o++)
		matches += !strncmp(o->name, name, strlen(name));
	if (optopt && matches)
		return lwm_fail(e, LWM_EUSAGE, "--%s takes no value", name);
	if (matches > 1)
		return lwm_fail(e, LWM_EUSAGE, "--%s fits several options (see --help)", name);
	near = lwm_nearest(name, names, option_names(p, names));
	return lwm_fail(e, LWM_EUSAGE, "unknown option --%s%s%s%s", name, near ? " (did you mean --" : " (see --help)",
			near ? near : "", near ? "?)" : "");
}

static int take_option(struct line *l, int val, const char *arg, struct lwm_err *e)
{
	if (val >= V_OPT) {
		bool no = val >= V_NO;
		int i = val - (no ? V_NO : V_OPT);
		l->given[l->ngiven++] = (struct given){ i, no ? "false" : arg };
		return 0;
	}
	val -= V_ACTION;
	LWM_BUG_ON(val < 0 || val >= NACTIONS);
	if (actions[val].action != A_RUN) {
		l->action = actions[val].action;
		return 0;
	}
	return lwm_paths_add(!strcmp(actions[val].name, "set") ? &l->set : &l->config, arg, e);
}

static int read_line(struct lwm_parse *p, struct line *l, int argc, char **argv, struct lwm_err *e)
{
	struct table t;
	int c, rc = 0;
	table_make(&t, p);
	l->given = calloc((size_t)argc * 2 + 64, sizeof *l->given);
	if (!l->given)
		return lwm_fail_memory(e, NULL);
	for (int i = 1; i < argc; i++)
		if (strlen(argv[i]) > 1 << 17)
			return lwm_fail(e, LWM_EUSAGE, "argument %d is longer than 128 KiB", i);
	opterr = 0;
	optind = 0;
	while (rc == 0 && (c = getopt_long(argc, argv, t.shorts, t.lo, NULL)) != -1) {
		if (c == '?' || c == ':')
			return bad_option(p, &t, argv, c, e);
		/* -abcdef can hold more letters than the command line has words */
		if (l->ngiven >= argc * 2 + 63)
			return lwm_fail(e, LWM_EUSAGE, "too many letters in one option");
		rc = take_option(l, c < 256 ? t.letter[c] : c, optarg, e);
	}
	return rc;
}

static int apply_line(struct lwm_parse *p, const struct line *l, struct lwm_err *e)
{
	char what[64];
	for (int k = 0; k < l->ngiven; k++) {
		const struct lwm_opt *o = p->st[l->given[k].opt].opt;
		const char *text = l->given[k].text;
		snprintf(what, sizeof what, "--%s", o->name);
		if (!text && (o->flags & LWM_OPT_COUNTED)) {
			++*(int64_t *)o->dst;
			p->st[l->given[k].opt].origin = LWM_O_LINE;
			continue;
		}
		LWM_TRY(assign_value(p, l->given[k].opt, text ? text : "true", LWM_O_LINE, "command line", what, e));
	}
	return 0;
}

static int check_needs(const struct lwm_parse *p, int noperand, struct lwm_err *e)
{
	const struct lwm_tool *t = p->tool;
	for (int i = 0; i < p->n; i++)
		if ((p->st[i].opt->flags & LWM_OPT_REQUIRED) && p->st[i].origin == LWM_O_DEFAULT)
			return lwm_fail(e, LWM_EUSAGE, "--%s is needed (see --help)", p->st[i].opt->name);
	if (noperand < t->min_operands)
		return lwm_fail(e, LWM_EUSAGE, "expected %s (see --help)", t->operands ? t->operands : "operands");
	if (t->max_operands >= 0 && noperand > t->max_operands)
		return lwm_fail(e, LWM_EUSAGE, "%d operand%s given, at most %d expected (see --help)", noperand, noperand == 1 ? "" : "s",
				t->max_operands);
	return 0;
}

static int apply_all(struct lwm_parse *p, struct line *l, struct lwm_err *e)
{
	for (int64_t i = 0; i < l->config.n; i++)
		LWM_TRY(apply_config(p, l, l->config.v[i], e));
	LWM_TRY(apply_env(p, e));
	for (int64_t i = 0; i < l->set.n && !p->tool->own_set; i++)
		LWM_TRY(apply_set(p, l->set.v[i], e));
	return apply_line(p, l, e);
}

/* ---- answers and the end ---- */

static void add_version(const struct lwm_tool *t, struct lwm_str *out)
{
	lwm_str_printf(out, "%s %s\n", t->name, LWM_VERSION);
	if (common.verbose)
		lwm_str_printf(out, "built with %s\n", build_text());
}

static int print_answer(const struct lwm_parse *p, enum action a, struct lwm_err *e)
{
	struct lwm_str out = { 0 };
	int rc;
	if (a == A_HELP || a == A_HELP_ALL)
		lwm_opt_help(p, a == A_HELP_ALL, &out);
	else if (a == A_VERSION)
		add_version(p->tool, &out);
	else if (a == A_MAN)
		lwm_opt_man(p, &out);
	else if (a == A_COMPLETION)
		lwm_opt_completion(p, &out);
	else
		lwm_opt_print_config(p, common.json, &out);
	rc = lwm_str_ok(&out, e);
	if (rc == 0)
		fwrite(lwm_str_get(&out), 1, out.len, stdout);
	lwm_str_release(&out);
	return rc;
}

static bool json_wanted(int argc, char **argv)
{
	if (common.json)
		return true;
	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
		if (!strcmp(argv[i], "--json"))
			return true;
	return false;
}

static void print_error(const char *tool, int rc, const struct lwm_err *e, bool json)
{
	struct lwm_str s = { 0 };
	const char *msg = *e->msg ? e->msg : lwm_code_name(rc);
	char shown[2 * sizeof e->msg]; /* room for many a control character; of more than that the end is cut */
	if (e->said || e->who == LWM_ERR_HEARD)
		return; /* of many ranks the one where it happened speaks */
	lwm_show(shown, sizeof shown, msg);
	fprintf(stderr, "%s: %s\n", tool, shown);
	if (!json)
		return;
	lwm_str_printf(&s, "{\"error\": {\"code\": %d, \"name\": \"%s\", \"message\": ", -rc, lwm_code_name(rc));
	lwm_str_json(&s, msg, strlen(msg));
	lwm_str_puts(&s, "}}\n");
	fwrite(lwm_str_get(&s), 1, s.len, stdout);
	lwm_str_release(&s);
}

void lwm_tool_say(int rc, struct lwm_err *e)
{
	if (rc < 0)
		print_error(lwm_log_program(), rc, e, common.json);
	e->said = true;
	fflush(stdout);
}

int lwm_tool_json(json_t *o, struct lwm_err *e)
{
	char *text;
	int rc = lwm_json_dump(o, JSON_SORT_KEYS | JSON_COMPACT, "the report", &text, e);
	json_decref(o);
	LWM_TRY(rc);
	puts(text);
	free(text);
	return 0;
}

/* A full disk under standard output shows here at the latest. */
static int close_stdout(const struct lwm_tool *t, int status)
{
	bool bad = ferror(stdout) != 0;
	errno = 0;
	/* EBADF: it was closed from the start, and nothing was written */
	if (fclose(stdout) && errno != EBADF)
		bad = true;
	if (!bad)
		return status;
	fprintf(stderr, "%s: standard output: write failed%s%s\n", t->name, errno ? ": " : "",
		errno ? strerror(errno) : "");
	return status <= 1 ? LWM_EIO : status;
}

static void release_line(struct lwm_parse *p, struct line *l)
{
	for (int i = 0; i < l->ndocs; i++)
		lwm_yaml_free(l->docs[i]);
	for (int i = 0; i < p->n; i++)
		if (p->st[i].opt->type == LWM_T_LIST)
			lwm_paths_release(p->st[i].opt->dst);
	lwm_paths_release(&l->config);
	lwm_paths_release(&l->set);
	free(l->given);
}

static int parse_and_run(struct lwm_parse *p, struct line *l, int argc, char **argv, lwm_tool_fn *work,
			 struct lwm_err *e)
{
	struct lwm_args args = { 0 };
	LWM_TRY(read_line(p, l, argc, argv, e));
	/* questions about the tool are answered whatever else the line or the environment says */
	if (l->action == A_VERSION)
		LWM_TRY(apply_line(p, l, e));
	if (l->action != A_RUN && l->action != A_PRINT_CONFIG && l->action != A_CHECK)
		return print_answer(p, l->action, e);
	LWM_TRY(apply_all(p, l, e));
	if (l->action == A_PRINT_CONFIG)
		return print_answer(p, l->action, e);
	args.operand = argv + optind;
	args.noperand = argc - optind;
	LWM_TRY(check_needs(p, args.noperand, e));
	lwm_log_init(p->tool->name, common.quiet ? LWM_WARN : common.verbose ? LWM_DEBUG : LWM_INFO);
	args.common = common;
	args.set = &l->set;
	args.checking = l->action == A_CHECK;
	if (p->tool->check)
		LWM_TRY(p->tool->check(&args, e));
	if (l->action == A_CHECK)
		return 0;
	begun = true;
	return work(&args, e);
}

/* Options and files are the same for all ranks, and so is what is wrong with them. The others wait a moment, because a launcher
 * ends all ranks when one has left with an error. */
static bool stays_silent(const struct lwm_err *e)
{
	const struct timespec moment = { 1, 0 };
	if (begun || e->said || e->who != LWM_ERR_MINE || lwm_launch_rank() == 0)
		return false;
	nanosleep(&moment, NULL);
	return true;
}

int lwm_tool_main(const struct lwm_tool *tool, int argc, char **argv, lwm_tool_fn *work)
{
	static struct lwm_parse p;
	struct line l = { .action = A_RUN };
	struct lwm_err e = { 0 };
	int rc;
	if (tool->stops)
		lwm_stop_hold();
	lwm_threads_settle(argv);
	signal(SIGPIPE, SIG_DFL); /* `lwm-inspect x | head` ends quietly */
	signal(SIGXFSZ, SIG_IGN); /* a file that may not grow (ulimit -f) is a failed write like a full disk */
	memset(&p, 0, sizeof p);
	memset(&common, 0, sizeof common);
	p.tool = tool;
	lwm_log_init(tool->name, LWM_INFO);
	if (tool->stops)
		lwm_stop_catch(tool->stops_others);
	add_table(&p, tool->opts);
	p.ntool = p.n;
	add_table(&p, common_opts);
	rc = parse_and_run(&p, &l, argc, argv, work, &e);
	if (rc < 0 && !(tool->ranks && stays_silent(&e)))
		print_error(tool->name, rc, &e, json_wanted(argc, argv));
	release_line(&p, &l);
	return close_stdout(tool, rc < 0 ? -rc : rc);
}
