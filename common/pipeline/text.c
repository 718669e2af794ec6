/* text.c - replaces ${variables} in the values of a pipeline file. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/str.h"
#include "common/cli/opt_int.h"
#include "common/pipeline/text.h"

enum { MAX_NESTING = 16, MAX_TEXT = 1 << 16 };

static int expand_text(const struct lwm_pipe_scope *s, const struct lwm_node *at, const char *text, int depth,
		  struct lwm_str *out, struct lwm_err *e);

static int fail_unknown(const struct lwm_pipe_scope *s, const struct lwm_node *at, const char *name, struct lwm_err *e)
{
	const char *names[64] = { "out", "name", "here", "bin", "stage", "item", "index" };
	char hint[LWM_HINT];
	int n = 7;
	for (int64_t i = 0; s->p->vars && i < s->p->vars->n && n < 64; i++)
		names[n++] = s->p->vars->child[i]->key;
	return lwm_node_fail(at, LWM_EUSAGE, e, "no variable '%s'%s", name, lwm_hint(hint, name, names, n));
}

/* ${item}: whole; ${item.name}: after the last slash; ${item.stem}: that without its last suffix. part: what follows "item". */
static int add_item(const struct lwm_pipe_scope *s, const struct lwm_node *at, const char *part, struct lwm_str *out,
		     struct lwm_err *e)
{
	const char *base = s->item, *slash, *dot;
	size_t n;
	if (!s->item)
		return lwm_node_fail(at, LWM_EUSAGE, e, "${item} is only there in a stage with foreach");
	slash = strrchr(base, '/');
	if (*part && slash)
		base = slash + 1;
	n = strlen(base);
	dot = strrchr(base, '.');
	if (!strcmp(part, ".stem") && dot && dot > base)
		n = (size_t)(dot - base);
	lwm_str_add(out, base, n);
	return 0;
}

static int add_variable(const struct lwm_pipe_scope *s, const struct lwm_node *at, const char *name, int depth,
		    struct lwm_str *out, struct lwm_err *e)
{
	struct lwm_node *v = NULL;
	if (depth > MAX_NESTING)
		return lwm_node_fail(at, LWM_EUSAGE, e, "variable '%s' goes round in a circle", name);
	for (int64_t i = 0; s->p->vars && i < s->p->vars->n; i++)
		if (!strcmp(s->p->vars->child[i]->key, name))
			v = s->p->vars->child[i];
	if (v)
		return expand_text(s, v, v->text, depth + 1, out, e);
	if (!strcmp(name, "item") || !strcmp(name, "item.name") || !strcmp(name, "item.stem"))
		return add_item(s, at, name + 4, out, e);
	if (!strcmp(name, "out") && s->p->out)
		lwm_str_puts(out, s->p->out);
	else if (!strcmp(name, "name") && s->p->name)
		lwm_str_puts(out, s->p->name);
	else if (!strcmp(name, "bin"))
		lwm_str_puts(out, s->p->bin);
	else if (!strcmp(name, "stage") && s->stage)
		lwm_str_puts(out, s->stage);
	else if (!strcmp(name, "index") && s->item)
		lwm_str_printf(out, "%" PRId64, s->index);
	else if (!strcmp(name, "here"))
		lwm_str_add(out, s->p->file,
			    strrchr(s->p->file, '/') ? (size_t)(strrchr(s->p->file, '/') - s->p->file) : 0);
	else
		return fail_unknown(s, at, name, e);
	if (!strcmp(name, "here") && !strchr(s->p->file, '/'))
		lwm_str_putc(out, '.');
	return 0;
}

static int expand_text(const struct lwm_pipe_scope *s, const struct lwm_node *at, const char *text, int depth,
		  struct lwm_str *out, struct lwm_err *e)
{
	char name[80];
	while (*text) {
		size_t n = strcspn(text, "$");
		lwm_str_add(out, text, n);
		text += n;
		if (out->len > MAX_TEXT)
			return lwm_node_fail(at, LWM_EUSAGE, e, "longer than 64 KiB with its variables");
		if (!*text)
			break;
		if (text[1] == '$') {
			lwm_str_putc(out, '$');
			text += 2;
			continue;
		}
		n = text[1] == '{' ? strcspn(text, "}") : 0;
		if (n < 3 || !text[n] || n - 2 >= sizeof name)
			return lwm_node_fail(at, LWM_EUSAGE, e, "a '$' starts ${NAME} or is written '$$'");
		snprintf(name, sizeof name, "%.*s", (int)n - 2, text + 2);
		LWM_TRY(add_variable(s, at, name, depth, out, e));
		text += n + 1;
	}
	return 0;
}

int lwm_pipeline_expand_text(const struct lwm_pipe_scope *s, const struct lwm_node *at, const char *text, const char **out,
		  struct lwm_err *e)
{
	struct lwm_str b = { 0 };
	int rc;
	LWM_GO(expand_text(s, at, text, 0, &b, e));
	LWM_GO(lwm_str_ok(&b, e));
	for (size_t i = 0; i < b.len; i++) {
		unsigned char c = (unsigned char)b.s[i];
		if (c < 0x20 || c == 0x7f) {
			rc = lwm_node_fail(at, LWM_EUSAGE, e, "a control byte (0x%02x) in a value", c);
			goto out;
		}
	}
	*out = lwm_arena_strdup(&s->p->arena, lwm_str_get(&b));
	if (!*out)
		rc = lwm_fail_memory(e, NULL);
out:
	lwm_str_release(&b);
	return rc;
}

const char *lwm_pipeline_option_env(const char *option)
{
	char name[128];
	const char *v;
	lwm_opt_env_name(option, name, sizeof name);
	v = getenv(name);
	return v && *v ? v : NULL;
}
