/* opt_help.c - what a table says about itself: --help, --help-man, --help-completion, --print-config. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/num.h"
#include "common/cli/opt_int.h"

static const char common_help[] =
	"Common:  --config FILE  --set NAME=VALUE  --print-config  --plan  --json  -q, --quiet  -v, --verbose\n"
	"         --threads N  --seed N  --force  -h, --help  --version  (all explained: --help-all, --help-man)\n";

static const struct { const char *name, *arg, *help; } extra[] = {
	{ "config", "FILE", "options from a YAML file of \"name: value\" lines, bare or under the tool's name" },
	{ "set", "NAME=VALUE", "set an option by name; stronger than --config and the environment" },
	{ "print-config", NULL, "print every option with its value and where it came from, in the form --config reads" },
	{ "check-options", NULL, "only say whether these options are known and fit each other" },
	{ "help", NULL, "a summary of at most 60 lines" },
	{ "help-all", NULL, "every option explained" },
	{ "version", NULL, "the version; with --verbose how it was built" },
	{ "help-man", NULL, "this text, as a man page" },
	{ "help-completion", NULL, "completion for bash" },
};

static void int_text(int64_t v, struct lwm_str *out)
{
	char buf[32];
	if (v >= 1024 && v % 1024 == 0)
		lwm_str_puts(out, lwm_count_text(v, buf, sizeof buf));
	else
		lwm_str_printf(out, "%" PRId64, v);
}

/* The value as text: numbers, words, true/false; "" for an unset string; lists as "a, b". */
static void value_text(const struct lwm_opt *o, struct lwm_str *out)
{
	const struct lwm_paths *list = o->dst;
	const char *s;
	switch (o->type) {
	case LWM_T_FLAG:
		lwm_str_puts(out, *(bool *)o->dst ? "true" : "false");
		break;
	case LWM_T_INT:
		int_text(*(int64_t *)o->dst, out);
		break;
	case LWM_T_DOUBLE:
		lwm_str_printf(out, "%.12g", *(double *)o->dst);
		break;
	case LWM_T_SECONDS:
		lwm_str_printf(out, "%gs", *(double *)o->dst);
		break;
	case LWM_T_STR:
		s = *(const char **)o->dst;
		lwm_str_puts(out, s ? s : "");
		break;
	case LWM_T_CHOICE:
		lwm_str_puts(out, o->choices[*(int *)o->dst]);
		break;
	case LWM_T_LIST:
		for (int64_t i = 0; i < list->n; i++)
			lwm_str_printf(out, "%s%s", i ? ", " : "", list->v[i]);
		break;
	default:
		break;
	}
}

static void choices_text(const struct lwm_opt *o, const char *sep, struct lwm_str *out)
{
	for (int i = 0; o->choices && o->choices[i]; i++)
		lwm_str_printf(out, "%s%s", i ? sep : "", o->choices[i]);
}

static void arg_text(const struct lwm_opt *o, struct lwm_str *out)
{
	if (o->type == LWM_T_CHOICE)
		lwm_str_puts(out, " WORD");
	else if (o->arg)
		lwm_str_printf(out, " %s", o->arg);
}

/* "where it goes (a|b; default 3)" */
static void add_explanation(const struct lwm_opt *o, struct lwm_str *out)
{
	struct lwm_str v = { 0 };
	bool open = false;
	lwm_str_puts(out, o->help ? o->help : "");
	if (o->type == LWM_T_CHOICE) {
		lwm_str_puts(out, " (");
		choices_text(o, "|", out);
		open = true;
	}
	value_text(o, &v);
	if (o->flags & LWM_OPT_REQUIRED) {
		lwm_str_puts(out, open ? "; needed" : " (needed");
		open = true;
	} else if (v.len && !(o->type == LWM_T_FLAG && !*(bool *)o->dst) && !(o->flags & LWM_OPT_COUNTED)) {
		lwm_str_printf(out, open ? "; default %s" : " (default %s", v.s);
		open = true;
	}
	if (open)
		lwm_str_putc(out, ')');
	lwm_str_release(&v);
}

/* Wraps `text` at column 110, continuing at column `indent`. */
static void add_wrapped(struct lwm_str *out, const char *text, size_t column, size_t indent)
{
	while (*text) {
		size_t word = strcspn(text, " ");
		if (column > indent && column + 1 + word > 110) {
			lwm_str_printf(out, "\n%*s", (int)indent, "");
			column = indent;
		} else if (column > indent) {
			lwm_str_putc(out, ' ');
			column++;
		}
		lwm_str_add(out, text, word);
		column += word;
		text += word;
		while (*text == ' ')
			text++;
	}
	lwm_str_putc(out, '\n');
}

static void help_line(const struct lwm_opt *o, int width, struct lwm_str *out)
{
	struct lwm_str left = { 0 }, right = { 0 };
	if (o->letter)
		lwm_str_printf(&left, "  -%c, --%s", o->letter, o->name);
	else
		lwm_str_printf(&left, "      --%s", o->name);
	arg_text(o, &left);
	add_explanation(o, &right);
	lwm_str_printf(out, "%-*s  ", width, lwm_str_get(&left));
	if ((int)left.len > width)
		width = (int)left.len;
	add_wrapped(out, lwm_str_get(&right), (size_t)width + 2, (size_t)width + 2);
	lwm_str_release(&left);
	lwm_str_release(&right);
}

static int left_width(const struct lwm_parse *p)
{
	int width = 20;
	for (int i = 0; i < p->ntool; i++) {
		struct lwm_str left = { 0 };
		if (p->st[i].opt->type == LWM_T_HEAD)
			continue;
		lwm_str_printf(&left, "      --%s", p->st[i].opt->name);
		arg_text(p->st[i].opt, &left);
		if ((int)left.len > width && left.len <= 34)
			width = (int)left.len;
		lwm_str_release(&left);
	}
	return width;
}

/* Those that every program has, explained. */
static void common_options(const struct lwm_parse *p, int width, struct lwm_str *out)
{
	lwm_str_puts(out, "Common to all programs\n");
	for (int i = p->ntool; i < p->n; i++)
		help_line(p->st[i].opt, width, out);
	for (size_t i = 0; i < sizeof extra / sizeof extra[0]; i++) {
		struct lwm_opt o = { .name = extra[i].name, .arg = extra[i].arg, .help = extra[i].help, .type = LWM_T_HEAD };
		help_line(&o, width, out);
	}
}

static void ensure_newline(struct lwm_str *out)
{
	if (out->len && out->s[out->len - 1] != '\n')
		lwm_str_putc(out, '\n');
}

/* A section of the table: from its heading to before the next. */
static int section_end(const struct lwm_parse *p, int from)
{
	int i = from + 1;
	while (i < p->ntool && p->st[i].opt->type != LWM_T_HEAD)
		i++;
	return i;
}

/* The section's options by name only. */
static void short_section(const struct lwm_parse *p, int from, struct lwm_str *out)
{
	struct lwm_str names = { 0 };
	size_t n = strlen(p->st[from].opt->help);
	for (int i = from + 1; i < section_end(p, from); i++) {
		lwm_str_printf(&names, "%s--%s", i > from + 1 ? " " : "", p->st[i].opt->name);
		if (p->st[i].opt->arg)
			lwm_str_printf(&names, "=%s", p->st[i].opt->arg);
	}
	n -= n && p->st[from].opt->help[n - 1] == ':';
	lwm_str_printf(out, "%.*s: ", (int)n, p->st[from].opt->help);
	add_wrapped(out, lwm_str_get(&names), n + 2, 4);
	lwm_str_release(&names);
}

/* Sections from `brief` on only name their options, as do those common to all programs. all: nothing is only named. */
static void help_text(const struct lwm_parse *p, int brief, bool all, struct lwm_str *out)
{
	const struct lwm_tool *t = p->tool;
	int width = left_width(p);
	lwm_str_printf(out, "Usage: %s [options]%s%s\n%s\n\n", t->name, t->operands && *t->operands ? " " : "",
		       t->operands ? t->operands : "", t->summary);
	for (int i = 0; i < p->ntool; i++) {
		bool head = p->st[i].opt->type == LWM_T_HEAD;
		if (head && i >= brief) {
			short_section(p, i, out);
			i = section_end(p, i) - 1;
		} else if (head) {
			lwm_str_printf(out, "%s\n", p->st[i].opt->help);
		} else {
			help_line(p->st[i].opt, width, out);
		}
	}
	if (all)
		common_options(p, width, out);
	else
		lwm_str_puts(out, common_help);
	if (t->details) {
		lwm_str_printf(out, "\n%s", t->details);
		ensure_newline(out);
	}
	if (t->examples) {
		lwm_str_printf(out, "\nExamples:\n%s", t->examples);
		ensure_newline(out);
	}
}

void lwm_opt_help(const struct lwm_parse *p, bool all, struct lwm_str *out)
{
	for (int brief = p->ntool; brief >= 0; brief--) {
		int lines = 0;
		if (brief < p->ntool && p->st[brief].opt->type != LWM_T_HEAD)
			continue;
		lwm_str_reset(out);
		help_text(p, brief, all, out);
		for (size_t i = 0; i < out->len; i++)
			lines += out->s[i] == '\n';
		if (all || lines <= 60)
			return;
	}
}

/* ---- man page ---- */

static void man_text(struct lwm_str *out, const char *s)
{
	for (bool start = true; *s; s++) {
		if (start && (*s == '.' || *s == '\''))
			lwm_str_puts(out, "\\&");
		if (*s == '\\')
			lwm_str_puts(out, "\\e");
		else if (*s == '-')
			lwm_str_puts(out, "\\-");
		else
			lwm_str_putc(out, *s);
		start = *s == '\n';
	}
}

static void man_option(struct lwm_str *out, char letter, const char *name, const char *arg, const char *help)
{
	lwm_str_puts(out, ".TP\n");
	if (letter)
		lwm_str_printf(out, "\\fB\\-%c\\fR, ", letter);
	lwm_str_puts(out, "\\fB\\-\\-");
	man_text(out, name);
	lwm_str_puts(out, "\\fR");
	if (arg) {
		lwm_str_puts(out, " \\fI");
		man_text(out, arg);
		lwm_str_puts(out, "\\fR");
	}
	lwm_str_putc(out, '\n');
	man_text(out, help);
	lwm_str_putc(out, '\n');
}

static void man_options(const struct lwm_parse *p, int from, int to, struct lwm_str *out)
{
	for (int i = from; i < to; i++) {
		const struct lwm_opt *o = p->st[i].opt;
		struct lwm_str text = { 0 };
		if (o->type == LWM_T_HEAD) {
			lwm_str_puts(out, ".SS ");
			man_text(out, o->help);
			lwm_str_putc(out, '\n');
			continue;
		}
		add_explanation(o, &text);
		man_option(out, o->letter, o->name, o->type == LWM_T_CHOICE ? "WORD" : o->arg, lwm_str_get(&text));
		lwm_str_release(&text);
	}
}

static void man_block(struct lwm_str *out, const char *head, const char *text)
{
	if (!text)
		return;
	lwm_str_printf(out, ".SH %s\n.nf\n", head);
	man_text(out, text);
	ensure_newline(out);
	lwm_str_puts(out, ".fi\n");
}

void lwm_opt_man(const struct lwm_parse *p, struct lwm_str *out)
{
	const struct lwm_tool *t = p->tool;
	lwm_str_printf(out, ".TH %s 1 \"\" \"lwm %s\" \"LWM tools\"\n.SH NAME\n", t->name, LWM_VERSION);
	man_text(out, t->name);
	lwm_str_puts(out, " \\- ");
	man_text(out, t->summary);
	lwm_str_puts(out, "\n.SH SYNOPSIS\n\\fB");
	man_text(out, t->name);
	lwm_str_puts(out, "\\fR [options] ");
	man_text(out, t->operands ? t->operands : "");
	lwm_str_puts(out, "\n.SH OPTIONS\n");
	man_options(p, 0, p->ntool, out);
	lwm_str_puts(out, ".SS Common to all tools\n");
	man_options(p, p->ntool, p->n, out);
	for (size_t i = 0; i < sizeof extra / sizeof extra[0]; i++)
		man_option(out, 0, extra[i].name, extra[i].arg, extra[i].help);
	man_block(out, "DETAILS", t->details);
	man_block(out, "EXAMPLES", t->examples);
	man_block(out, "ENVIRONMENT",
		  "Each option can be given as LWM_NAME, in capitals with _ for -. Weakest first: default, --config,\n"
		  "environment, --set, command line.\n");
	man_block(out, "EXIT STATUS",
		  "0 done or nothing to do; 1 a check says no; 64 usage; 65 bad data; 66 no input; 69 device or MPI\n"
		  "unavailable; 70 internal; 71 memory; 73 cannot create; 74 I/O or disk full; 75 saved, run me again;\n"
		  "76 a rank is lost or stuck; 78 configuration contradicts data or checkpoint; 79 numbers went bad.\n");
}

/* ---- completion ---- */

void lwm_opt_completion(const struct lwm_parse *p, struct lwm_str *out)
{
	char fn[64];
	snprintf(fn, sizeof fn, "_%s", p->tool->name);
	for (char *c = fn; *c; c++)
		if (*c == '-')
			*c = '_';
	lwm_str_printf(out, "%s() {\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n\tCOMPREPLY=()\n"
		       "\tcase $prev in\n", fn);
	for (int i = 0; i < p->n; i++) {
		if (p->st[i].opt->type != LWM_T_CHOICE)
			continue;
		lwm_str_printf(out, "\t--%s) mapfile -t COMPREPLY < <(compgen -W '", p->st[i].opt->name);
		choices_text(p->st[i].opt, " ", out);
		lwm_str_puts(out, "' -- \"$cur\"); return ;;\n");
	}
	lwm_str_puts(out, "\tesac\n\t[[ $cur == -* ]] || return\n\tmapfile -t COMPREPLY < <(compgen -W '");
	for (int i = 0; i < p->n; i++)
		if (p->st[i].opt->name)
			lwm_str_printf(out, "--%s ", p->st[i].opt->name);
	for (size_t i = 0; i < sizeof extra / sizeof extra[0]; i++)
		lwm_str_printf(out, "--%s ", extra[i].name);
	lwm_str_printf(out, "' -- \"$cur\")\n}\ncomplete -o default -F %s %s\n", fn, p->tool->name);
}

/* ---- effective configuration ---- */

static void config_value(const struct lwm_opt *o, struct lwm_str *out)
{
	struct lwm_str v = { 0 };
	const struct lwm_paths *list = o->dst;
	if (o->type == LWM_T_LIST) {
		lwm_str_putc(out, '[');
		for (int64_t i = 0; i < list->n; i++) {
			lwm_str_puts(out, i ? ", " : "");
			lwm_str_json(out, list->v[i], strlen(list->v[i]));
		}
		lwm_str_putc(out, ']');
		return;
	}
	if (o->type == LWM_T_INT)
		lwm_str_printf(&v, "%" PRId64, *(int64_t *)o->dst);
	else if (o->type == LWM_T_SECONDS)
		lwm_str_printf(&v, "%.12g", *(double *)o->dst);
	else
		value_text(o, &v);
	if (o->type == LWM_T_STR || o->type == LWM_T_CHOICE)
		lwm_str_json(out, lwm_str_get(&v), v.len);
	else
		lwm_str_puts(out, lwm_str_get(&v));
	lwm_str_release(&v);
}

static bool is_unset(const struct lwm_opt *o)
{
	return o->type == LWM_T_STR && !*(const char **)o->dst;
}

static const char *origin_text(const struct lwm_opt_state *st)
{
	return st->origin == LWM_O_DEFAULT ? "default" : st->origin == LWM_O_LINE ? "command line" : st->place;
}

void lwm_opt_print_config(const struct lwm_parse *p, bool json, struct lwm_str *out)
{
	const char *sep = "{";
	for (int i = 0; i < p->n; i++) {
		const struct lwm_opt_state *st = &p->st[i];
		if (!st->opt->name)
			continue;
		if (json) {
			lwm_str_printf(out, "%s\n  \"%s\": {\"value\": ", sep, st->opt->name);
			if (is_unset(st->opt))
				lwm_str_puts(out, "null");
			else
				config_value(st->opt, out);
			lwm_str_puts(out, ", \"origin\": ");
			lwm_str_json(out, origin_text(st), strlen(origin_text(st)));
			lwm_str_putc(out, '}');
			sep = ",";
			continue;
		}
		if (is_unset(st->opt)) {
			lwm_str_printf(out, "# %s:  # not set\n", st->opt->name);
			continue;
		}
		lwm_str_printf(out, "%s: ", st->opt->name);
		config_value(st->opt, out);
		lwm_str_printf(out, "  # %s\n", origin_text(st));
	}
	if (json)
		lwm_str_puts(out, "\n}\n");
}
