/* Files written where they lie: locks, lines, logs. What stands there under their name is not followed and not changed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/base/inplace.h"
#include "common/base/json.h"
#include "common/base/lock.h"
#include "common/base/outfile.h"
#include "common/base/path.h"

static char dir[64];

static char *in_dir(const char *name)
{
	static char path[4][160];
	static int k;
	k = (k + 1) % 4;
	snprintf(path[k], sizeof path[k], "%s/%s", dir, name);
	return path[k];
}

static void put(const char *name, const char *text)
{
	assert_int_equal(lwm_write_file(in_dir(name), text, strlen(text), true, NULL), 0);
}

static void holds(const char *name, const char *want)
{
	char *text;
	size_t n;
	assert_int_equal(lwm_read_file(in_dir(name), 1 << 20, &text, &n, NULL), 0);
	assert_string_equal(text, want);
	free(text);
}

static int use_lock(const char *path, struct lwm_err *e)
{
	struct lwm_lock *l = NULL;
	int rc;
	(void)path;
	rc = lwm_lock_take(&l, dir, 0, e);
	lwm_lock_free(l);
	return rc;
}

static int use_lines(const char *path, struct lwm_err *e)
{
	struct lwm_jsonl *f = NULL;
	struct lwm_str s = { 0 };
	int rc = lwm_jsonl_open(&f, path, e);
	lwm_str_puts(&s, "{}");
	if (rc == 0)
		rc = lwm_jsonl_add(f, &s, e);
	lwm_str_release(&s);
	lwm_jsonl_close(f, NULL);
	return rc;
}

static int use_log(const char *path, struct lwm_err *e)
{
	int fd, rc = lwm_inplace_open(&fd, path, O_WRONLY | O_CREAT | O_TRUNC, e);
	if (rc < 0) {
		assert_int_equal(fd, -1);
		return rc;
	}
	/* a child that inherits it must not be surprised by O_NONBLOCK */
	assert_int_equal(fcntl(fd, F_GETFL) & (O_NONBLOCK | O_APPEND), 0);
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	close(fd);
	return 0;
}

static const struct way {
	const char *name;
	int (*use)(const char *path, struct lwm_err *e);
} ways[] = { { ".lock", use_lock }, { "x.jsonl", use_lines }, { "x.log", use_log } };
enum { WAYS = sizeof ways / sizeof *ways };

static void refused(const struct way *w, const char *says)
{
	struct lwm_err e = { 0 };
	assert_int_equal(w->use(in_dir(w->name), &e), -LWM_ECANTCREATE);
	assert_non_null(strstr(e.msg, w->name));
	if (!strstr(e.msg, says))
		fail_msg("'%s' lacks '%s'", e.msg, says);
	assert_int_equal(remove(in_dir(w->name)), 0);
}

static void test_links(void **state)
{
	static const char precious[] = "line one\nno newline at the end";
	(void)state;
	put("victim", precious);
	for (int i = 0; i < WAYS; i++) {
		assert_int_equal(symlink("victim", in_dir(ways[i].name)), 0);
		refused(&ways[i], "symbolic link");
		holds("victim", precious);
		/* one that leads nowhere makes nothing elsewhere */
		assert_int_equal(symlink("not_there_yet", in_dir(ways[i].name)), 0);
		refused(&ways[i], "symbolic link");
		assert_false(lwm_path_exists(in_dir("not_there_yet")));
		assert_int_equal(symlink("/dev/null", in_dir(ways[i].name)), 0);
		refused(&ways[i], "symbolic link");
	}
}

static void test_other_kinds(void **state)
{
	(void)state;
	for (int i = 0; i < WAYS; i++) {
		assert_int_equal(mkfifo(in_dir(ways[i].name), 0666), 0);
		refused(&ways[i], "FIFO"); /* and does not wait for a writer */
		assert_int_equal(mkdir(in_dir(ways[i].name), 0777), 0);
		refused(&ways[i], "folder");
		if (mknod(in_dir(ways[i].name), S_IFCHR | 0666, makedev(1, 3)) == 0)
			refused(&ways[i], "device");
	}
}

/* Links above the file are the user's own arrangement of disks. */
static void test_folder_link(void **state)
{
	struct lwm_err e = { 0 };
	(void)state;
	assert_int_equal(mkdir(in_dir("big_disk"), 0777), 0);
	assert_int_equal(symlink("big_disk", in_dir("run")), 0);
	if (use_lines(in_dir("run/x.jsonl"), &e))
		fail_msg("%s", e.msg);
	holds("big_disk/x.jsonl", "{}\n");
	if (use_log(in_dir("run/x.log"), &e))
		fail_msg("%s", e.msg);
}

static void test_standing(void **state)
{
	struct lwm_err e = { 0 };
	(void)state;
	assert_int_equal(lwm_inplace_free(in_dir("nothing"), &e), 0);
	put("file", "x");
	assert_int_equal(lwm_inplace_free(in_dir("file"), &e), 0);
	assert_int_equal(mkfifo(in_dir("fifo"), 0666), 0);
	assert_int_equal(lwm_inplace_free(in_dir("fifo"), &e), -LWM_ECANTCREATE);
	lwm_err_clear(&e);
	assert_int_equal(lwm_inplace_free("/dev/null", &e), -LWM_ECANTCREATE);
	assert_non_null(strstr(e.msg, "device"));
}

static int set_up(void **state)
{
	(void)state;
	snprintf(dir, sizeof dir, "/tmp/lwm_inplace_XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	return lwm_remove_tree(dir, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_links, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_other_kinds, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_folder_link, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_standing, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
