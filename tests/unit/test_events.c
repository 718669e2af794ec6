/* Curves for TensorBoard are the bytes of its own writer; a resumed run says where it resumes; a full disk loses nothing that fits
 * later. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/outfile.h"
#include "common/base/path.h"
#include "common/train/events.h"

static const double at = 1700000000.25;
static const unsigned char golden[] = {
#include "tests/golden/events-1/events.inc"
};
static char root[128];

/* The only file of a folder. */
static char *read_events(const char *dir, size_t *n)
{
	struct lwm_err e = { 0 };
	struct dirent *d;
	char path[600] = "", *text;
	DIR *f = opendir(dir);
	assert_non_null(f);
	while ((d = readdir(f)))
		if (!strncmp(d->d_name, "events.out.tfevents.1700000000.", 31)) {
			assert_string_equal(path, "");
			snprintf(path, sizeof path, "%s/%s", dir, d->d_name);
		}
	closedir(f);
	if (lwm_read_file(path, 1 << 20, &text, n, &e) < 0)
		fail_msg("%s", e.msg);
	return text;
}

static void bytes_are_those_of_tensorboard(void **state)
{
	struct lwm_err e = { 0 };
	struct lwm_events *v;
	char dir[160];
	size_t n;
	(void)state;
	snprintf(dir, sizeof dir, "%s/golden", root);
	if (lwm_events_open(&v, dir, at, 300, &e) < 0)
		fail_msg("%s", e.msg);
	lwm_events_scalar(v, at + 301 % 7, 301, "train/loss", 2.5);
	lwm_events_scalar(v, at + 302 % 7, 302, "train/loss", -1e-30);
	lwm_events_more(v, at + (double)((1LL << 40) % 7), 1LL << 40, "eval/", ",\"psnr\":21.5,\"loss_hex\":\"0x1p+0\",\"bad\":null");
	lwm_events_more(v, at, 3, "eval/", "");
	lwm_events_close(v);
	char *text = read_events(dir, &n);
	assert_int_equal(n, sizeof golden);
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)text[i] != golden[i])
			fail_msg("byte %zu is %02x, TensorBoard writes %02x", i, (unsigned char)text[i], golden[i]);
	free(text);
}

static void what_is_in_the_way_is_left_alone(void **state)
{
	struct lwm_err e = { 0 };
	struct lwm_events *v;
	char file[160];
	(void)state;
	snprintf(file, sizeof file, "%s/file", root);
	assert_int_equal(lwm_write_file(file, "x", 1, false, &e), 0);
	assert_true(lwm_events_open(&v, file, at, 0, &e) < 0);
	assert_null(v);
	lwm_events_close(NULL);
}

static int set_up(void **state)
{
	struct lwm_err e = { 0 };
	(void)state;
	lwm_log_init("test_events", LWM_ERROR);
	snprintf(root, sizeof root, "/tmp/lwm-test-events-%ld", (long)getpid());
	return lwm_mkdirs(root, &e);
}

static int tear_down(void **state)
{
	struct lwm_err e = { 0 };
	(void)state;
	return lwm_remove_tree(root, &e);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(bytes_are_those_of_tensorboard),
					    cmocka_unit_test(what_is_in_the_way_is_left_alone) };
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
