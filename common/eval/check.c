/* A check: a number in a JSON file against a bound. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/num.h"
#include "common/eval/run_report.h"

/* A member of an object by name, of an array by number. NULL: there is none. */
static json_t *find_member(json_t *v, const char *key)
{
	struct lwm_err ignored = { 0 };
	int64_t i;
	if (!json_is_array(v))
		return json_object_get(v, key);
	return lwm_parse_int(key, 0, INT32_MAX, &i, key, &ignored) < 0 ? NULL : json_array_get(v, (size_t)i);
}

/* "FILE#a.b.0" */
static int number_at(const char *where, double *out, struct lwm_err *e)
{
	char *copy = strdup(where), *hash = copy ? strrchr(copy, '#') : NULL, *save = NULL;
	json_t *root = NULL, *v;
	int rc;
	if (!hash) {
		free(copy);
		return lwm_fail(e, LWM_EUSAGE, "'%s': expected FILE#key.key", where);
	}
	*hash = 0;
	rc = lwm_json_read(&root, copy, 1 << 26, e);
	v = root;
	for (char *k = strtok_r(hash + 1, ".", &save); rc == 0 && k; k = strtok_r(NULL, ".", &save)) {
		v = find_member(v, k);
		if (!v)
			rc = lwm_fail(e, LWM_EDATA, "%s: has no '%s'", copy, k);
	}
	if (rc == 0 && !json_is_number(v))
		rc = lwm_fail(e, LWM_EDATA, "%s: is not a number", where);
	if (rc == 0)
		*out = json_number_value(v);
	json_decref(root);
	free(copy);
	return rc;
}

static char *trim_blanks(char *s)
{
	size_t n;
	while (*s == ' ')
		s++;
	n = strlen(s);
	while (n && s[n - 1] == ' ')
		s[--n] = 0;
	return s;
}

/* Product of numbers and places. */
static int read_product(char *text, double *out, struct lwm_err *e)
{
	char *p;
	*out = 1;
	while ((p = strsep(&text, "*"))) {
		double v;
		p = trim_blanks(p);
		LWM_TRY(strchr(p, '#') ? number_at(p, &v, e) : lwm_parse_double(p, -1e300, 1e300, &v, "a side of it", e));
		*out *= v;
	}
	return 0;
}

static int read_sides(struct lwm_check *c, char *left, char *right, struct lwm_err *e)
{
	LWM_TRY(read_product(left, &c->value, e));
	LWM_TRY(read_product(right, &c->bound, e));
	c->ok = c->at_least ? c->value >= c->bound : c->value <= c->bound;
	return 0;
}

int lwm_check_read(struct lwm_check *c, const char *spec, struct lwm_err *e)
{
	char *copy = strdup(spec), *colon = copy ? strstr(copy, ": ") : NULL, *op = NULL;
	int rc;
	memset(c, 0, sizeof *c);
	if (colon) {
		c->at_least = (op = strstr(colon, ">=")) != NULL;
		if (!op)
			op = strstr(colon, "<=");
	}
	if (!op) {
		free(copy);
		return lwm_fail(e, LWM_EUSAGE, "--check '%s': expected 'NAME: FILE#key >= NUMBER' (or <=)", spec);
	}
	*colon = *op = 0;
	snprintf(c->name, sizeof c->name, "%s", copy);
	snprintf(c->text, sizeof c->text, "%s", spec + (colon - copy) + 2);
	rc = read_sides(c, colon + 2, op + 2, e);
	if (rc < 0)
		lwm_context(e, "--check '%s'", spec);
	free(copy);
	return rc;
}
