/* A disk that fails under a clip: whichever read it is, and whatever FFmpeg makes of it, that is no damage and no end. */
#include <errno.h>

#include "tests/unit/io_fault.h"

#include <dlfcn.h>

#include "common/base/rng.h"
#include "common/media/frames.h"
#include "common/media/picture.h"

static int64_t countdown = -1; /* reads of the clip until one fails; negative: none does */
static int64_t reads;
static bool once; /* a bad sector stays bad, a server that was away comes back */

ssize_t read(int fd, void *p, size_t n)
{
	ssize_t (*real)(int, void *, size_t);
	char link[64], path[512];
	*(void **)&real = dlsym(RTLD_NEXT, "read");
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t len = readlink(link, path, sizeof path - 1);
	if (len > 0 && !memcmp(path, scratch, strlen(scratch))) {
		reads++;
		if (countdown == 0) {
			countdown = once ? -1 : 0;
			errno = EIO;
			return -1;
		}
		countdown -= countdown > 0;
	}
	return real(fd, p, n);
}

/* Noise: several reads long. */
static void make(const char *path, bool still)
{
	enum { SIDE = 192, FRAMES = 24 };
	struct lwm_err e = { 0 };
	struct lwm_video *v;
	static uint8_t rgb[SIDE * SIDE * 3];
	if (!still)
		must(lwm_video_open(&v, path, SIDE, SIDE, 8, true, &e), &e);
	for (uint64_t t = 0; t < FRAMES; t++) {
		struct lwm_rng r = lwm_rng_at(3, LWM_RNG_TEST, 0, t);
		for (size_t i = 0; i < sizeof rgb; i++)
			rgb[i] = (uint8_t)lwm_rng_below(&r, 256);
		if (!still)
			must(lwm_video_add(v, rgb, &e), &e);
	}
	if (still)
		must(lwm_picture_write(path, rgb, SIDE, SIDE, 90, true, &e), &e);
	else
		must(lwm_video_commit(v, &e), &e);
}

/* Pictures end to end: a format without a table, whose end is where reading ends. */
static void join(const char *to, const char *picture, int n)
{
	size_t len;
	char *s = slurp(picture, &len);
	FILE *f = fopen(to, "wb");
	assert_non_null(f);
	for (int i = 0; i < n; i++)
		assert_int_equal(fwrite(s, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
	free(s);
}

static int decode(const char *path, int64_t *frames, struct lwm_err *e)
{
	struct lwm_frames_opts o = { .damaged_ok = true };
	uint8_t *rgb = NULL;
	memset(e, 0, sizeof *e);
	reads = *frames = 0;
	int rc = lwm_frames_read(path, &o, 1 << 26, &rgb, frames, NULL, e);
	free(rgb);
	return rc;
}

static void is_never_damage(void **state)
{
	static const char *const name[] = { "clip.mp4", "clip.mkv", "frame.png", "frame.ppm", "frame.jpg", "frames.mjpeg" };
	struct lwm_err e;
	int64_t frames, whole;
	(void)state;
	for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
		countdown = -1;
		if (i < 5)
			make(at(name[i]), i >= 2);
		else
			join(at(name[i]), at("frame.jpg"), 12);
		must(decode(at(name[i]), &whole, &e), &e);
		int64_t n = reads;
		assert_true(n >= (i < 2 ? 4 : 1));
		for (int64_t k = 0; k < 2 * n; k++) {
			once = k >= n;
			countdown = k % n;
			int rc = decode(at(name[i]), &frames, &e);
			if (rc != -LWM_EIO || !strstr(e.msg, name[i]) || !strstr(e.msg, strerror(EIO)))
				fail_msg("%s, read %d of %d: %d, %d of %d frames: %s", name[i], (int)k, (int)n, rc, (int)frames,
					 (int)whole, e.msg);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(is_never_damage) };
	return cmocka_run_group_tests_name("media_disk", tests, scratch_make, scratch_remove);
}
