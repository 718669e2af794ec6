/* spawn.c - starts a program and hears how it ended. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/pipeline/command.h"

extern char **environ;

static int spawn_process(const struct lwm_paths *argv, char **v, int out_fd, int err_fd, pid_t *pid)
{
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	sigset_t none, defaults;
	int rc = posix_spawn_file_actions_init(&fa);
	if (rc)
		return rc;
	rc = posix_spawnattr_init(&attr);
	if (rc) {
		posix_spawn_file_actions_destroy(&fa);
		return rc;
	}
	sigemptyset(&none);
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setpgroup(&attr, 0);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &defaults);
	rc = posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	if (!rc)
		rc = posix_spawn_file_actions_adddup2(&fa, out_fd, 1);
	if (!rc)
		rc = posix_spawn_file_actions_adddup2(&fa, err_fd, 2);
	if (!rc)
		rc = posix_spawnp(pid, argv->v[0], &fa, &attr, v, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&fa);
	return rc;
}

int lwm_spawn_start(const struct lwm_paths *argv, int out_fd, int err_fd, pid_t *pid, struct lwm_err *e)
{
	char **v = calloc((size_t)argv->n + 1, sizeof *v);
	int rc;
	if (!v)
		return lwm_fail_memory(e, NULL);
	for (int64_t i = 0; i < argv->n; i++)
		v[i] = argv->v[i];
	rc = spawn_process(argv, v, out_fd, err_fd, pid);
	free(v);
	return rc ? lwm_fail_errno(e, LWM_EUNAVAIL, rc, "%s: cannot start", argv->v[0]) : 0;
}

int lwm_spawn_wait(const struct lwm_paths *argv, int fd, int *status, char *text, size_t size, struct lwm_err *e)
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC), pipe_fd[2], rc, ws;
	size_t n = 0;
	char rest[512];
	pid_t pid;
	if (null < 0 || pipe2(pipe_fd, O_CLOEXEC)) {
		rc = lwm_fail_errno(e, LWM_EMEMORY, errno, "cannot open a pipe");
		if (null >= 0)
			close(null);
		return rc;
	}
	rc = fd == 1 ? lwm_spawn_start(argv, pipe_fd[1], 2, &pid, e) : lwm_spawn_start(argv, null, pipe_fd[1], &pid, e);
	close(pipe_fd[1]);
	close(null);
	while (rc == 0) {
		bool room = n + 1 < size;
		ssize_t k = read(pipe_fd[0], room ? text + n : rest, room ? size - 1 - n : sizeof rest);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			break;
		n += room ? (size_t)k : 0;
	}
	text[n] = 0;
	close(pipe_fd[0]);
	if (rc < 0)
		return rc;
	while (waitpid(pid, &ws, 0) < 0 && errno == EINTR)
		;
	*status = WIFEXITED(ws) ? WEXITSTATUS(ws) : 128 + WTERMSIG(ws);
	return 0;
}
