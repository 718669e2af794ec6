/* One run at a time in a folder: processes, and a holder on another node. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/lock.h"
#include "common/base/log.h"
#include "common/base/path.h"

static char dir[128], file[160];

/* A process that holds the lock until it is killed, or for `seconds`; with `as` not NULL the file names another holder. */
static pid_t holder(const char *as, unsigned seconds)
{
	int ready[2];
	char c;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		struct lwm_lock *l;
		struct lwm_err e = { 0 };
		FILE *f;

		if (lwm_lock_take(&l, dir, 0, &e))
			_exit(1);
		// r+: another descriptor would end the lock when it is closed, so it stays open
		if (as && (!(f = fopen(file, "r+")) || ftruncate(fileno(f), 0) || fputs(as, f) < 0 || fflush(f)))
			_exit(2);
		if (write(ready[1], "x", 1) != 1)
			_exit(3);
		sleep(seconds);
		_exit(0); // the lock ends with the process
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	return pid;
}

static void refused(double seconds, const char *whom)
{
	struct lwm_err e = { 0 };
	struct lwm_lock *l = NULL;

	assert_int_equal(lwm_lock_take(&l, dir, seconds, &e), -LWM_ECANTCREATE);
	assert_null(l);
	assert_non_null(strstr(e.msg, whom));
	assert_non_null(strstr(e.msg, dir));
}

static void taken(double seconds)
{
	struct lwm_err e = { 0 };
	struct lwm_lock *l = NULL;

	if (lwm_lock_take(&l, dir, seconds, &e))
		fail_msg("%s", e.msg);
	lwm_lock_free(l);
	assert_int_equal(access(file, F_OK), 0);
}

static void finish(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_lives_here(void **state)
{
	pid_t pid = holder(NULL, 60);
	char text[32];
	double t0 = lwm_now();

	(void)state;
	snprintf(text, sizeof text, "pid %ld", (long)pid);
	refused(60, text); // without waiting for a minute
	assert_true(lwm_now() - t0 < 30);
	finish(pid);
	taken(0);
}

static void test_elsewhere(void **state)
{
	pid_t pid = holder("far-away pid 1, job 7\n", 60);

	(void)state;
	refused(1, "far-away pid 1, job 7");
	finish(pid);
	pid = holder("far-away pid 1\n", 1);
	taken(60); // its node's locks end while we wait
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	pid = holder("?", 60);
	refused(1, "another process");
	finish(pid);
}

static void looks(enum lwm_lock_state want, const char *whom)
{
	char text[192];

	assert_int_equal(lwm_lock_look(dir, text, sizeof text), want);
	if (!strstr(text, whom) || (!*whom && *text))
		fail_msg("'%s' instead of '%s'", text, whom);
}

static void put_text(const char *text)
{
	FILE *f = fopen(file, "w");

	assert_true(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

/* Looking tells who holds it, and takes nothing. */
static void test_look(void **state)
{
	struct lwm_err e = { 0 };
	struct lwm_lock *l;
	char mine[128], host[64] = "";
	pid_t pid;

	(void)state;
	unlink(file);
	looks(LWM_LOCK_FREE, "");
	assert_int_equal(access(file, F_OK), -1);
	pid = holder(NULL, 60);
	snprintf(mine, sizeof mine, "pid %ld", (long)pid);
	looks(LWM_LOCK_HELD, mine);
	looks(LWM_LOCK_HELD, mine);
	refused(0, mine);
	finish(pid);
	looks(LWM_LOCK_FREE, mine); // it was killed: the text stays, the lock does not
	put_text("far-away pid 1, job 7\n");
	looks(LWM_LOCK_UNSEEN, "far-away pid 1, job 7");
	assert_int_equal(gethostname(host, sizeof host - 1), 0);
	snprintf(mine, sizeof mine, "%s pid %ld\n", host, (long)getpid());
	put_text(mine); // a process lives here under that number, and locks nothing
	looks(LWM_LOCK_FREE, "pid");
	assert_int_equal(lwm_lock_take(&l, dir, 0, &e), 0);
	lwm_lock_free(l);
	looks(LWM_LOCK_FREE, "");
	unlink(file);
	assert_int_equal(mkfifo(file, 0600), 0);
	looks(LWM_LOCK_FREE, "");
	unlink(file);
}

static void test_no_folder(void **state)
{
	struct lwm_err e = { 0 };
	struct lwm_lock *l;

	(void)state;
	assert_true(lwm_lock_take(&l, "/nowhere/at/all", 0, &e) < 0);
	assert_non_null(strstr(e.msg, "/nowhere/at/all"));
	lwm_lock_free(NULL);
}

static int set_up(void **state)
{
	struct lwm_err e = { 0 };

	(void)state;
	lwm_log_init("test_lock", LWM_ERROR);
	unsetenv("SLURM_JOB_ID");
	snprintf(dir, sizeof dir, "/tmp/lwm-test-lock-%ld", (long)getpid());
	snprintf(file, sizeof file, "%s/.lock", dir);
	return lwm_mkdirs(dir, &e);
}

static int tear_down(void **state)
{
	struct lwm_err e = { 0 };

	(void)state;
	return lwm_remove_tree(dir, &e);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_lives_here), cmocka_unit_test(test_elsewhere),
					    cmocka_unit_test(test_look), cmocka_unit_test(test_no_folder) };

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
