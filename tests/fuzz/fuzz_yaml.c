/* YAML files: reading, every typed access, --set on what was read. */
#include "common/cli/yaml.h"
#include "tests/fuzz/replay.h"

static void walk(struct lwm_node *n)
{
	static const char *const words[] = { "a", "b", NULL };
	double d;
	bool b;
	int c;
	for (int64_t k = 0; k < n->n; k++) {
		struct lwm_err e = { 0 };
		const char *key = n->child[k]->key;
		if (n->kind == LWM_MAP) {
			lwm_node_bool(n, key, &b, &e);
			lwm_node_seconds(n, key, &d, &e);
			lwm_node_choice(n, key, words, &c, &e);
		}
		walk(n->child[k]);
	}
}

static void fuzz_one(const uint8_t *p, size_t n)
{
	struct lwm_yaml *y;
	struct lwm_err e = { 0 };
	if (lwm_yaml_parse(&y, "fuzz", (const char *)p, n, &e) < 0) {
		if (!e.code || !*e.msg)
			abort(); /* a refusal says why */
		return;
	}
	walk(lwm_yaml_root(y));
	lwm_node_done(lwm_yaml_root(y), &e);
	lwm_err_clear(&e);
	lwm_yaml_set(y, "a.b.0=[1, {c: d}]", "--set", &e);
	lwm_yaml_free(y);
}
