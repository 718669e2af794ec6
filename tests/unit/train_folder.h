/* train_folder.h - a folder for the stages that the tests of one program train, and rows in it. */
#ifndef TESTS_TRAIN_FOLDER_H
#define TESTS_TRAIN_FOLDER_H

#include <unistd.h>

#include "common/base/log.h"
#include "common/base/path.h"
#include "tests/unit/train_fixture.h"

static char root[128], rows[160];

/* For a cmocka group: `name` of the program; ids of its rows from vocab_text on are vision. */
static inline int folder_of(const char *name, int64_t vocab_text)
{
	struct lwm_err e = { 0 };

	lwm_log_init(name, LWM_ERROR);
	snprintf(root, sizeof root, "/tmp/lwm-%s-%ld", name, (long)getpid());
	snprintf(rows, sizeof rows, "%s/rows.h5", root);
	return lwm_mkdirs(root, &e) < 0 || fx_rows_of(rows, vocab_text, &e) < 0 ? -1 : 0;
}

static inline int folder_gone(void **state)
{
	struct lwm_err e = { 0 };

	(void)state;
	return lwm_remove_tree(root, &e);
}

#endif
