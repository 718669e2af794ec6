/* What dead writers leave is swept, what live ones write is not; two writers of one name never meet; JSON lines survive a full
 * disk; what is read back comes from the disk; requests to stop. */
#include "tests/unit/io_fault.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <linux/magic.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/outfile.h"
#include "common/base/stop.h"
#include "common/base/tmpname.h"
#include "common/io/vecfile.h"

static struct lwm_err err;

static const char *folder(const char *name)
{
	const char *dir = at(name);

	assert_int_equal(mkdir(dir, 0777), 0);
	return dir;
}

/* Temporaries in a folder; first (may be NULL) gets the path of one. */
static int temporaries(const char *dir, char first[512])
{
	DIR *d = opendir(dir);
	struct dirent *x;
	int n = 0;

	assert_non_null(d);
	while ((x = readdir(d))) {
		if (!lwm_tmp_is(x->d_name))
			continue;
		n++;
		if (first)
			snprintf(first, 512, "%.250s/%.250s", dir, x->d_name);
	}
	closedir(d);
	return n;
}

/* A process that begins to write dir/x (a file or a folder) and then waits until it is killed, or dies at once. */
static pid_t writer(const char *dir, bool is_dir, bool dies)
{
	int ready[2];
	char c, path[512];
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		struct lwm_outfile *o;
		char *name;
		int fd;

		snprintf(path, sizeof path, "%.250s/x", dir);
		if (is_dir ? lwm_tmp_dir(path, &name, &fd, NULL) : lwm_outfile_open(&o, path, true, NULL))
			_exit(1);
		if (dies)
			_exit(0);
		if (write(ready[1], "x", 1) != 1)
			_exit(2);
		pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), dies ? 0 : 1);
	close(ready[0]);
	if (dies)
		waitpid(pid, NULL, 0);
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void the_dead_are_swept_the_living_are_not(void **state)
{
	static const char *const name[] = { "alive", "dead", "alive_d", "dead_d" };

	(void)state;
	for (int i = 0; i < 4; i++) {
		const char *dir = folder(name[i]);
		struct lwm_outfile *o;
		char path[600];
		pid_t pid = writer(dir, i > 1, i % 2);

		assert_int_equal(temporaries(dir, NULL), 1);
		snprintf(path, sizeof path, "%s/other", dir);
		must(lwm_outfile_open(&o, path, false, &err), &err);
		assert_int_equal(temporaries(dir, NULL), i % 2 ? 1 : 2); // its own, and the living one's
		must(lwm_outfile_commit(o, &err), &err);
		if (i % 2 == 0)
			end(pid);
	}
}

static void a_whole_temporary_folder_goes_with_what_is_in_it(void **state)
{
	const char *dir = folder("tree");
	char tmp[512], path[600];

	(void)state;
	writer(dir, true, true);
	assert_int_equal(temporaries(dir, tmp), 1);
	snprintf(path, sizeof path, "%s/model.safetensors", tmp);
	spill(path, "x", 1);
	lwm_tmp_sweep(dir);
	assert_int_equal(temporaries(dir, NULL), 0);
}

/* Before it gets its last name a folder has no lock in it: somebody may be at it, and then holds the folder itself. */
static void a_folder_without_a_lock_goes_when_nobody_holds_it(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		const char *dir = folder(i ? "left" : "held");
		char tmp[512], lock[600];

		writer(dir, true, true);
		temporaries(dir, tmp);
		snprintf(lock, sizeof lock, "%s/%s", tmp, LWM_TMP_LOCK);
		assert_int_equal(unlink(lock), 0);
		int hold = i ? -1 : lwm_tmp_hold(tmp);
		assert_true(i || hold >= 0);
		lwm_tmp_sweep(dir);
		assert_int_equal(temporaries(dir, NULL), !i);
		if (hold >= 0)
			close(hold);
	}
}

static void only_names_of_ours_are_swept(void **state)
{
	static const char *const not_ours[] = { "x.tmp.1234", "x.tmp.host", "x.tmp.host-ABCDEFGH", "x.tmp.host-abcdefg", "x.tmp.-abcdefgh",
						"x.tmp.ho st-abcdefgh", "notes.tmp.txt", "x.tmp", "x-abcdefgh" };
	const char *dir = folder("names");
	char path[600];

	(void)state;
	for (size_t i = 0; i < sizeof not_ours / sizeof *not_ours; i++) {
		assert_false(lwm_tmp_is(not_ours[i]));
		snprintf(path, sizeof path, "%s/%s", dir, not_ours[i]);
		spill(path, "mine", 4);
	}
	assert_true(lwm_tmp_is("a.tmp.b.tmp.node_17-abcdefgh"));
	lwm_tmp_sweep(dir);
	for (size_t i = 0; i < sizeof not_ours / sizeof *not_ours; i++) {
		snprintf(path, sizeof path, "%s/%s", dir, not_ours[i]);
		assert_int_equal(access(path, F_OK), 0);
	}
}

static void writers_of_one_name_never_meet(void **state)
{
	const char *dir = folder("race");
	struct lwm_outfile *o[20];
	char path[600], got[40];
	size_t n;

	(void)state;
	snprintf(path, sizeof path, "%s/x", dir);
	for (int i = 0; i < 20; i++) { // all of one process number
		must(lwm_outfile_open(&o[i], path, true, &err), &err);
		for (int k = 0; k < i; k++)
			assert_string_not_equal(o[i]->tmp, o[k]->tmp);
	}
	for (int i = 0; i < 20; i++) {
		snprintf(got, sizeof got, "writer %d", i);
		must(lwm_outfile_write(o[i], got, strlen(got), &err), &err);
	}
	for (int i = 0; i < 20; i++) {
		must(lwm_outfile_commit(o[i], &err), &err);
		char *text = slurp(path, &n);
		snprintf(got, sizeof got, "writer %d", i);
		assert_string_equal(text, got);
		free(text);
	}
	assert_int_equal(temporaries(dir, NULL), 0);
}

static void a_long_name_still_gets_a_temporary(void **state)
{
	char name[252], path[700];
	struct lwm_outfile *o;

	(void)state;
	memset(name, 'n', 250);
	name[250] = 0;
	snprintf(path, sizeof path, "%s/%s", folder("long"), name);
	must(lwm_outfile_open(&o, path, false, &err), &err);
	assert_true(lwm_tmp_is(lwm_path_base(o->tmp)));
	must(lwm_outfile_commit(o, &err), &err);
	assert_int_equal(access(path, F_OK), 0);
}

/* ---- JSON lines ---- */

static void set_limit(rlim_t bytes)
{
	struct rlimit r;

	getrlimit(RLIMIT_FSIZE, &r);
	r.rlim_cur = bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

static void add_line(struct lwm_jsonl *f, int i)
{
	struct lwm_str s = { 0 };

	lwm_str_printf(&s, "{\"line\":%d,\"text\":\"%s\"}", i, "long enough that a limit falls inside of a line");
	must(lwm_jsonl_add(f, &s, &err), &err);
	lwm_str_release(&s);
}

static void expect_lines(const char *path, int want)
{
	size_t n;
	int i = 0;
	char *text = slurp(path, &n), *save = NULL;

	assert_true(n == 0 || text[n - 1] == '\n');
	for (char *p = strtok_r(text, "\n", &save); p; p = strtok_r(NULL, "\n", &save), i++) {
		json_t *o;
		int64_t line;
		must(lwm_json_parse(&o, p, strlen(p), path, &err), &err);
		must(lwm_json_int(o, "line", &line, path, &err), &err);
		assert_int_equal(line, i);
		json_decref(o);
	}
	assert_int_equal(i, want);
	free(text);
}

/* The file cannot grow for a while, as on a full disk: no line is lost, none is torn, nothing fails. */
static void lines_wait_for_the_disk(void **state)
{
	struct lwm_jsonl *f;
	const char *path = at("lines.jsonl");
	char keep[512];
	struct rlimit old;

	(void)state;
	snprintf(keep, sizeof keep, "%s", path);
	getrlimit(RLIMIT_FSIZE, &old);
	signal(SIGXFSZ, SIG_IGN);
	must(lwm_jsonl_open(&f, keep, &err), &err);
	add_line(f, 0);
	for (int round = 0; round < 3; round++) {
		struct stat st;
		struct lwm_err mine = { 0 };

		assert_int_equal(stat(keep, &st), 0);
		set_limit((rlim_t)st.st_size + 30);
		for (int i = 0; i < 5; i++)
			add_line(f, 1 + round * 6 + i);
		expect_lines(keep, 1 + round * 6); // nothing of them, rather than a part of one
		assert_int_equal(lwm_jsonl_sync(f, &mine), -LWM_EIO);
		assert_non_null(strstr(mine.msg, "lines.jsonl"));
		set_limit(old.rlim_cur);
		add_line(f, 1 + round * 6 + 5);
		expect_lines(keep, 1 + round * 6 + 6);
	}
	assert_int_equal(stat(keep, &(struct stat){ 0 }), 0);
	set_limit(10);
	add_line(f, 19);
	assert_int_equal(lwm_jsonl_close(f, &err), -LWM_EIO); // lost lines are not silent at the end
	lwm_err_clear(&err);
	set_limit(old.rlim_cur);
	expect_lines(keep, 19);
}

/* ---- reading back ---- */

static int64_t disk_reads(void)
{
	char line[128];
	long long n = -1;
	FILE *f = fopen("/proc/self/io", "r");

	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "read_bytes: %lld", &n) == 1)
			break;
	if (f)
		fclose(f);
	return n;
}

static void what_is_read_back_comes_from_the_disk(void **state)
{
	enum { BYTES = 8 << 20 };
	const struct lwm_vec v = { "x", LWM_V_U8, BYTES };
	char dir[] = "/var/tmp/lwm_durable_XXXXXX", path[200], *data = malloc(BYTES);
	struct lwm_vfw *w;
	struct lwm_hash h;
	struct statfs fs;
	int64_t bytes, before = disk_reads();

	(void)state;
	assert_non_null(data);
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/x.h5", dir);
	assert_int_equal(statfs(dir, &fs), 0);
	if (before < 0 || fs.f_type == TMPFS_MAGIC) {
		free(data);
		lwm_remove_tree(dir, NULL);
		print_message("skip reading back: /var/tmp has no disk behind it, or the kernel does not count\n");
		skip();
	}
	memset(data, 7, BYTES);
	must(lwm_vfw_open(&w, path, false, "lwm-test-1", &v, 1, false, &err), &err);
	must(lwm_vfw_put(w, 0, data, BYTES, &err), &err);
	before = disk_reads();
	must(lwm_vfw_finish(w, &h, &bytes, &err), &err);
	assert_true(disk_reads() - before >= BYTES);
	must(lwm_vfw_commit(w, &err), &err);
	lwm_remove_tree(dir, NULL);
	free(data);
}

/* ---- requests to stop: each in a process of its own ---- */

/* What the child saw: the wish, 100 added when its reason is not the one given. */
static int asked(void (*ask)(void), const char *reason)
{
	int ws;
	pid_t pid = fork();

	if (pid == 0) {
		ask();
		int wish = (int)lwm_stop_wanted();
		_exit(wish + (strcmp(lwm_stop_reason(), reason) ? 100 : 0));
	}
	waitpid(pid, &ws, 0);
	return WIFEXITED(ws) ? WEXITSTATUS(ws) : -WTERMSIG(ws);
}

static void nothing(void)
{
	lwm_stop_install(60, at("STOP"));
}

static void usr1(void)
{
	lwm_stop_catch(false);
	raise(SIGUSR1);
}

static void term(void)
{
	lwm_stop_catch(false);
	raise(SIGTERM);
}

static void quiet_stderr(void)
{
	assert_non_null(freopen("/dev/null", "w", stderr));
}

static void ctrl_c(void)
{
	quiet_stderr();
	lwm_stop_catch(false);
	raise(SIGINT);
}

static void ctrl_c_twice(void)
{
	ctrl_c();
	raise(SIGINT);
}

static void ctrl_c_twice_reported(void)
{
	quiet_stderr();
	lwm_stop_catch(true);
	raise(SIGINT);
	raise(SIGINT);
}

static void save_alone(void)
{
	lwm_stop_catch(false);
	raise(SIGUSR2);
}

static void save_once(void)
{
	save_alone();
	lwm_stop_wanted();
}

static void stop_file_beats_signal(void)
{
	spill(at("STOP"), "", 0);
	lwm_stop_install(60, at("STOP"));
	raise(SIGUSR1);
}

static void limit_far(void)
{
	setenv("LWM_TIME_LIMIT", "100s", 1);
	lwm_stop_install(60, NULL); // the grace is for Slurm's limit
	lwm_stop_cost(20, 70);
}

static void limit_too_near_for_a_step(void)
{
	setenv("LWM_TIME_LIMIT", "100s", 1);
	lwm_stop_install(60, NULL);
	lwm_stop_cost(50, 70);
}

static void slurm(double left, double grace, double unit, double save)
{
	char text[32];

	snprintf(text, sizeof text, "%lld", (long long)time(NULL) + (long long)left);
	setenv("SLURM_JOB_END_TIME", text, 1);
	lwm_stop_install(grace, NULL);
	lwm_stop_cost(unit, save);
}

static void slurm_far(void)
{
	slurm(200, 120, 50, 60);
}

static void slurm_within_grace(void)
{
	slurm(110, 120, 0, 0);
}

static void slurm_save_longer_than_grace(void)
{
	slurm(200, 120, 0, 250);
}

static void slurm_step_longer_than_what_is_left(void)
{
	slurm(3000, 120, 3600, 60);
}

static void requests_to_stop(void **state)
{
	(void)state;
	unsetenv("LWM_TIME_LIMIT");
	unsetenv("SLURM_JOB_END_TIME");
	assert_int_equal(asked(nothing, ""), LWM_STOP_NO);
	assert_int_equal(asked(usr1, "SIGUSR1"), LWM_STOP_END);
	assert_int_equal(asked(term, "SIGTERM"), LWM_STOP_END);
	assert_int_equal(asked(ctrl_c, "SIGINT"), LWM_STOP_END);
	assert_int_equal(asked(ctrl_c_twice, ""), -SIGINT);
	assert_int_equal(asked(ctrl_c_twice_reported, "SIGINT"), LWM_STOP_NOW);
	assert_int_equal(asked(save_alone, ""), LWM_STOP_SAVE);
	assert_int_equal(asked(save_once, ""), LWM_STOP_NO);
	assert_int_equal(asked(stop_file_beats_signal, "stop file"), LWM_STOP_FILE);
	assert_int_equal(asked(limit_far, ""), LWM_STOP_NO);
	assert_int_equal(asked(limit_too_near_for_a_step, "time limit"), LWM_STOP_END);
	assert_int_equal(asked(slurm_far, ""), LWM_STOP_NO);
	assert_int_equal(asked(slurm_within_grace, "time limit"), LWM_STOP_END);
	assert_int_equal(asked(slurm_save_longer_than_grace, "time limit"), LWM_STOP_END);
	assert_int_equal(asked(slurm_step_longer_than_what_is_left, "time limit"), LWM_STOP_END);
}

static void ctrl_c_is_answered_at_once(void **state)
{
	int fd[2], ws;
	char text[200] = "";

	(void)state;
	assert_int_equal(pipe(fd), 0);
	pid_t pid = fork();
	if (pid == 0) {
		dup2(fd[1], 2);
		lwm_log_init("lwm-probe", LWM_INFO);
		lwm_stop_catch(false);
		raise(SIGINT);
		_exit(0); // before anything asked for the wish
	}
	close(fd[1]);
	assert_true(read(fd[0], text, sizeof text - 1) > 0);
	close(fd[0]);
	waitpid(pid, &ws, 0);
	assert_non_null(strstr(text, "lwm-probe: saving; press Ctrl-C again to leave"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_dead_are_swept_the_living_are_not),
		cmocka_unit_test(a_whole_temporary_folder_goes_with_what_is_in_it),
		cmocka_unit_test(a_folder_without_a_lock_goes_when_nobody_holds_it),
		cmocka_unit_test(only_names_of_ours_are_swept),
		cmocka_unit_test(writers_of_one_name_never_meet),
		cmocka_unit_test(a_long_name_still_gets_a_temporary),
		cmocka_unit_test(lines_wait_for_the_disk),
		cmocka_unit_test(what_is_read_back_comes_from_the_disk),
		cmocka_unit_test(requests_to_stop),
		cmocka_unit_test(ctrl_c_is_answered_at_once),
	};

	lwm_log_init("test", LWM_ERROR);
	return cmocka_run_group_tests_name("durable", tests, scratch_make, scratch_remove);
}
