/* yaml.h - YAML files as a small tree: maps, sequences, scalars, each with its place in the file.
 *
 *	lwm_yaml_read(&y, "pipeline.yaml", e); root = lwm_yaml_root(y);
 *	lwm_node_need(root, "stages", &list, e); lwm_node_seconds(root, "time", &limit, e) ...      what is known of
 *	lwm_node_done(root, e);                                                                     and nothing else
 *	lwm_yaml_free(y);
 *
 * Read with libyaml's events under limits (1 MiB, depth 64, no aliases or anchors, no tags, no second document), so that a
 * hostile file costs nothing. Repeated keys are errors. Typed reading marks keys as seen; lwm_node_done then reports keys
 * nobody asked for with the nearest name that was asked for. Every sentence starts with FILE:LINE.
 */
#ifndef LWM_CLI_YAML_H
#define LWM_CLI_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/str.h"

struct lwm_yaml; /* owns every node and string of a document */

enum lwm_node_kind { LWM_SCALAR, LWM_MAP, LWM_SEQ };

struct lwm_node {
	enum lwm_node_kind kind;
	const char *file, *key, *text; /* key NULL outside a map; text of a scalar, "" for null */
	int line, column;
	bool quoted, seen; /* seen: somebody asked for this key */
	struct lwm_node **child; /* of a map or sequence, in file order */
	int64_t n;
	const char **asked; /* names that this map was asked for, for suggestions */
	int nasked;
	struct lwm_yaml *doc; /* whose memory it lies in */
};

int lwm_yaml_read(struct lwm_yaml **out, const char *path, struct lwm_err *e); /* "-" is stdin */
int lwm_yaml_parse(struct lwm_yaml **out, const char *name, const char *text, size_t n, struct lwm_err *e);
void lwm_yaml_free(struct lwm_yaml *y);
struct lwm_node *lwm_yaml_root(struct lwm_yaml *y);
/* Sets (or adds) the value at a dotted path: "train.steps=20", "stages.0.model=nano"; a list element that is a map may be
 * named by its `name` key instead of its number. A value that starts with [ or { is read as YAML, any other is a scalar
 * as it stands. Origin in messages: `origin`. */
int lwm_yaml_set(struct lwm_yaml *y, const char *assignment, const char *origin, struct lwm_err *e);

/* Map lookups. NULL when absent (or m is NULL). Mark the key as seen. */
struct lwm_node *lwm_node_get(struct lwm_node *m, const char *key);
/* Typed: leave *out alone when the key is absent, so that defaults stand. */
int lwm_node_bool(struct lwm_node *m, const char *key, bool *out, struct lwm_err *e);
int lwm_node_seconds(struct lwm_node *m, const char *key, double *out, struct lwm_err *e);
int lwm_node_choice(struct lwm_node *m, const char *key, const char *const *choices, int *out, struct lwm_err *e);
int lwm_node_need(struct lwm_node *m, const char *key, struct lwm_node **out, struct lwm_err *e); /* absent = error */
int lwm_node_kind_is(const struct lwm_node *n, enum lwm_node_kind kind, struct lwm_err *e);
/* An error at a node: "FILE:LINE: key: sentence". Returns -code. */
int lwm_node_fail(const struct lwm_node *n, int code, struct lwm_err *e, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
int lwm_node_done(struct lwm_node *m, struct lwm_err *e); /* unknown keys here and below: error with the nearest name */
/* A map that was looked up but never asked for a key was taken whole (free names), and lwm_node_done leaves it alone. */

#endif
