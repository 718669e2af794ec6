/* io_fault.h - damage for files under test: scratch folders, copies, cuts, flips. */
#ifndef LWM_TESTS_UNIT_IO_FAULT_H
#define LWM_TESTS_UNIT_IO_FAULT_H

/* cmocka wants these first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/err.h"
#include "common/base/path.h"

static char scratch[160];

static inline int scratch_make(void **state)
{
	(void)state;
	/* in memory where that is possible: thousands of files are synced */
	snprintf(scratch, sizeof scratch, "%s/lwm_io_XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	return mkdtemp(scratch) ? 0 : -1;
}

static inline int scratch_remove(void **state)
{
	(void)state;
	return lwm_remove_tree(scratch, NULL);
}

/* "SCRATCH/name" in one of a few rotating buffers */
static inline const char *at(const char *name)
{
	static char buf[8][512];
	static int i;
	i = (i + 1) % 8;
	snprintf(buf[i], sizeof buf[i], "%s/%s", scratch, name);
	return buf[i];
}

static inline void must(int rc, const struct lwm_err *e)
{
	if (rc < 0)
		fail_msg("%d: %s", rc, e->msg);
}

static inline char *slurp(const char *path, size_t *n)
{
	char *s;
	struct lwm_err e = { 0 };
	must(lwm_read_file(path, 1 << 28, &s, n, &e), &e);
	return s;
}

/* In place, without ceremony: what a failing disk does. Not O_TRUNC: some file systems then sync at close. */
static inline void spill(const char *path, const char *s, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT, 0666);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, s, n), n);
	assert_int_equal(ftruncate(fd, (off_t)n), 0);
	close(fd);
}

static inline void flip(const char *path, size_t byte, unsigned char mask)
{
	unsigned char c;
	int fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &c, 1, (off_t)byte), 1);
	c ^= mask;
	assert_int_equal(pwrite(fd, &c, 1, (off_t)byte), 1);
	close(fd);
}

#endif
