/* yaml_int.h - what yaml.c (documents) and node.c (values) share. */
#ifndef LWM_CLI_YAML_INT_H
#define LWM_CLI_YAML_INT_H

#include "common/base/arena.h"
#include "common/cli/yaml.h"

struct lwm_yaml {
	struct lwm_arena *arena;
	struct lwm_node *root;
	int64_t nodes;
};

/* Index of a key in a map, or -1. */
int64_t lwm_node_find(const struct lwm_node *m, const char *key, size_t len);

#endif
