/* test_media.c - frames in and out of FFmpeg: clips of our own making, odd sizes, damage, foreign files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/outfile.h"
#include "common/base/path.h"
#include "common/media/frames.h"
#include "common/media/picture.h"

extern char **environ;
static char dir[] = "/tmp/lwm_media_XXXXXX";

static char *in_dir(const char *name)
{
	static char buf[4][256];
	static int at;
	at = (at + 1) % 4;
	snprintf(buf[at], sizeof buf[at], "%s/%s", dir, name);
	return buf[at];
}

/* A bright square that walks over a ramp. */
static void paint(uint8_t *rgb, int w, int h, int t)
{
	for (int y = 0; y < h; y++) {
		for (int x = 0; x < w; x++) {
			uint8_t *p = rgb + ((size_t)y * (size_t)w + (size_t)x) * 3;
			int in = abs(x - (5 + t * 2) % w) < 6 && abs(y - h / 2) < 6;
			p[0] = in ? 250 : (uint8_t)(x * 255 / w);
			p[1] = in ? 20 : (uint8_t)(y * 255 / h);
			p[2] = (uint8_t)(40 + t);
		}
	}
}

static void make_clip(const char *path, int w, int h, int n, double fps)
{
	struct lwm_err e = { 0 };
	struct lwm_video *v;
	uint8_t *rgb = malloc((size_t)(w * h * 3));
	assert_int_equal(lwm_video_open(&v, path, w, h, fps, true, &e), 0);
	for (int t = 0; t < n; t++) {
		paint(rgb, w, h, t);
		assert_int_equal(lwm_video_add(v, rgb, &e), 0);
	}
	assert_int_equal(lwm_video_commit(v, &e), 0);
	free(rgb);
}

static int64_t read_clip(const char *path, const struct lwm_frames_opts *o, uint8_t **rgb, struct lwm_frames_info *info)
{
	struct lwm_err e = { 0 };
	int64_t n;
	if (lwm_frames_read(path, o, 1LL << 30, rgb, &n, info, &e) < 0)
		fail_msg("%s", e.msg);
	return n;
}

/* The code and that the sentence names the file. */
static void refuse(const char *path, const struct lwm_frames_opts *o, int code, const char *says)
{
	struct lwm_err e = { 0 };
	uint8_t *rgb;
	int64_t n;
	assert_int_equal(lwm_frames_read(path, o, 1LL << 30, &rgb, &n, NULL, &e), -code);
	assert_null(rgb);
	assert_non_null(strstr(e.msg, lwm_path_base(path)));
	if (!strstr(e.msg, says))
		fail_msg("\"%s\" not in: %s", says, e.msg);
}

static void pictures_come_back(void **state)
{
	static const char *const names[] = { "a.png", "a.ppm", "a.jpg" };
	uint8_t rgb[37 * 21 * 3], *back;
	struct lwm_err e = { 0 };
	struct lwm_frames_info info;
	(void)state;
	paint(rgb, 37, 21, 3);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(lwm_picture_write(in_dir(names[i]), rgb, 37, 21, 95, false, &e), 0);
		assert_int_equal(read_clip(in_dir(names[i]), NULL, &back, &info), 1);
		assert_true(info.still);
		assert_int_equal(info.width, 37);
		assert_int_equal(info.height, 21);
		double sum = 0;
		for (size_t k = 0; k < sizeof rgb; k++)
			sum += pow((double)back[k] - rgb[k], 2);
		if (i < 2)
			assert_memory_equal(back, rgb, sizeof rgb);
		else
			assert_true(sum / sizeof rgb < 20);
		free(back);
	}
	assert_int_equal(lwm_picture_write(in_dir("a.png"), rgb, 37, 21, 0, false, &e), -LWM_ECANTCREATE);
	lwm_err_clear(&e);
	assert_int_equal(lwm_picture_write(in_dir("a.tga"), rgb, 37, 21, 0, false, &e), -LWM_EUSAGE);
	struct lwm_str mem = { 0 }, mem2 = { 0 };
	lwm_err_clear(&e);
	assert_int_equal(lwm_png_encode(&mem, rgb, 37, 21, &e), 0);
	assert_int_equal(lwm_png_encode(&mem2, rgb, 37, 21, &e), 0);
	assert_int_equal(mem.len, mem2.len);
	assert_memory_equal(mem.s, mem2.s, mem.len);
	assert_memory_equal(mem.s, "\211PNG", 4);
	lwm_str_release(&mem);
	lwm_str_release(&mem2);
}

static void clip_comes_back(void **state)
{
	struct lwm_frames_info info;
	uint8_t *rgb, ref[64 * 48 * 3];
	(void)state;
	make_clip(in_dir("c.mp4"), 64, 48, 30, 10);
	assert_int_equal(read_clip(in_dir("c.mp4"), NULL, &rgb, &info), 30);
	assert_int_equal(info.frames, 30);
	assert_false(info.still);
	assert_true(fabs(info.duration - 3) < 0.01 && fabs(info.fps - 10) < 0.01);
	for (int t = 0; t < 30; t++) {
		double sum = 0;
		paint(ref, 64, 48, t);
		for (size_t k = 0; k < sizeof ref; k++)
			sum += pow((double)rgb[(size_t)t * sizeof ref + k] - ref[k], 2);
		assert_true(sum / sizeof ref < 200); // chroma is halved
	}
	free(rgb);
}

static void same_bytes_every_run(void **state)
{
	struct lwm_err e = { 0 };
	char *a, *b;
	size_t n, m;
	(void)state;
	make_clip(in_dir("r1.mp4"), 32, 32, 5, 4);
	make_clip(in_dir("r2.mp4"), 32, 32, 5, 4);
	assert_int_equal(lwm_read_file(in_dir("r1.mp4"), 1 << 24, &a, &n, &e), 0);
	assert_int_equal(lwm_read_file(in_dir("r2.mp4"), 1 << 24, &b, &m, &e), 0);
	assert_int_equal(n, m);
	assert_memory_equal(a, b, n);
	free(a);
	free(b);
}

static void odd_sizes(void **state)
{
	struct lwm_frames_info info;
	uint8_t *rgb;
	(void)state;
	make_clip(in_dir("odd.mkv"), 65, 47, 4, 5);
	assert_int_equal(read_clip(in_dir("odd.mkv"), NULL, &rgb, &info), 4);
	assert_int_equal(info.width, 66);
	assert_int_equal(info.height, 48);
	free(rgb);
	struct lwm_frames_opts o = { .multiple = 16 };
	assert_int_equal(read_clip(in_dir("odd.mkv"), &o, &rgb, &info), 4);
	assert_int_equal(info.width, 64);
	assert_int_equal(info.height, 48);
	free(rgb);
	struct lwm_frames_opts p = { .width = 33, .height = 31 };
	assert_int_equal(read_clip(in_dir("odd.mkv"), &p, &rgb, &info), 4);
	assert_int_equal(info.width, 33);
	free(rgb);
	struct lwm_frames_opts big = { .multiple = 128 };
	refuse(in_dir("odd.mkv"), &big, LWM_EDATA, "smaller than one block");
}

static void sampling_is_even(void **state)
{
	struct lwm_frames_opts o = { .width = 32, .height = 32 }, s = o, m = o;
	uint8_t *all, *few;
	const size_t one = 32 * 32 * 3;
	(void)state;
	int64_t n = read_clip(in_dir("c.mp4"), &o, &all, NULL);
	s.sample_frames = 7;
	assert_int_equal(read_clip(in_dir("c.mp4"), &s, &few, NULL), 7);
	for (int64_t i = 0; i < 7; i++)
		assert_memory_equal(few + (size_t)i * one, all + (size_t)(i * (n - 1) / 6) * one, one);
	free(few);
	s.sample_frames = 1;
	assert_int_equal(read_clip(in_dir("c.mp4"), &s, &few, NULL), 1);
	assert_memory_equal(few, all, one);
	free(few);
	s.sample_frames = 100;
	assert_int_equal(read_clip(in_dir("c.mp4"), &s, &few, NULL), n);
	free(few);
	m.max_frames = 4;
	assert_int_equal(read_clip(in_dir("c.mp4"), &m, &few, NULL), 4);
	assert_memory_equal(few, all, 4 * one);
	free(few);
	free(all);
	struct lwm_frames_opts piece = { .start = 1, .end = 2 };
	assert_int_equal(read_clip(in_dir("c.mp4"), &piece, &few, NULL), 10);
	free(few);
}

static bool run_ffmpeg(const char *in, const char *filters, const char *out)
{
	const char *const argv[] = { "ffmpeg", "-v", "error", "-y", "-threads", "1", "-i", in, "-vf", filters, "-vsync",
				     "passthrough", "-f", "rawvideo", out, NULL };
	pid_t pid;
	int status;
	if (posix_spawnp(&pid, "ffmpeg", NULL, NULL, (char *const *)(uintptr_t)argv, environ) != 0)
		return false;
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void pixels_are_the_programs(void **state)
{
	static const struct {
		struct lwm_frames_opts o;
		const char *filters;
	} cases[] = {
#define FLAGS "flags=bicubic+accurate_rnd+full_chroma_int+bitexact"
		/* 64 x 48: the long side is truncated, not rounded to 43 */
		{ { .fps = 4, .width = 32, .height = 32 },
		  "fps=4,scale=w=42:h=32:" FLAGS ",crop=32:32:5:0,setsar=1,format=rgb24" },
		{ { .fps = 25, .width = 80, .height = 96 },
		  "fps=25,scale=w=128:h=96:" FLAGS ",crop=80:96:24:0,setsar=1,format=rgb24" },
		/* half a pixel: to the even one */
		{ { .width = 45, .height = 36 }, "scale=w=48:h=36:" FLAGS ",crop=45:36:2:0,setsar=1,format=rgb24" },
		{ { .width = 47, .height = 36 }, "scale=w=48:h=36:" FLAGS ",crop=47:36:0:0,setsar=1,format=rgb24" },
		{ { .width = 64, .height = 45 }, "scale=w=64:h=48:" FLAGS ",crop=64:45:0:2,setsar=1,format=rgb24" },
		{ { .multiple = 16 }, "scale=" FLAGS ",crop=64:48,setsar=1,format=rgb24" },
		{ { .start = 0.5, .end = 2.2, .multiple = 1 },
		  "trim=start=0.5,trim=end=2.2,setpts=PTS-STARTPTS,scale=" FLAGS ",format=rgb24" },
	};
	struct lwm_err e = { 0 };
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		uint8_t *rgb;
		char *ref;
		size_t bytes;
		struct lwm_frames_info info;
		if (!run_ffmpeg(in_dir("c.mp4"), cases[i].filters, in_dir("ref.raw"))) {
			print_message("the ffmpeg program is not installed: nothing to compare with\n");
			skip();
		}
		int64_t n = read_clip(in_dir("c.mp4"), &cases[i].o, &rgb, &info);
		assert_int_equal(lwm_read_file(in_dir("ref.raw"), 1 << 28, &ref, &bytes, &e), 0);
		assert_int_equal(bytes, (size_t)n * (size_t)info.width * (size_t)info.height * 3);
		assert_memory_equal(ref, rgb, bytes);
		free(ref);
		free(rgb);
	}
}

/* Puts a turn of so many degrees clockwise into the track header of an mp4, as telephones write it. */
static void turn_mp4(const char *from, const char *to, int degrees, int w, int h)
{
	enum { MATRIX = 4 + 40 }; /* behind the letters: the fields before it in version 0 */
	const int32_t one = 0x10000, m[4][9] = { { one, 0, 0, 0, one, 0, 0, 0, 1 << 30 },
						 { 0, one, 0, -one, 0, 0, h * one, 0, 1 << 30 },
						 { -one, 0, 0, 0, -one, 0, w * one, h * one, 1 << 30 },
						 { 0, -one, 0, one, 0, 0, 0, w * one, 1 << 30 } };
	struct lwm_err e = { 0 };
	char *p, *at;
	size_t n;
	assert_int_equal(lwm_read_file(from, 1 << 28, &p, &n, &e), 0);
	at = memmem(p, n, "tkhd", 4);
	assert_non_null(at);
	assert_int_equal(at[4], 0);
	for (int i = 0; i < 9; i++)
		for (int k = 0; k < 4; k++)
			at[MATRIX + 4 * i + k] = (char)((uint32_t)m[degrees / 90][i] >> (24 - 8 * k));
	assert_int_equal(lwm_write_file(to, p, n, true, &e), 0);
	free(p);
}

/* Where pixel (x, y) of a picture that was turned stood before; w, h: before. */
static size_t before_turn(int degrees, int x, int y, int w, int h)
{
	int u = degrees == 90 ? y : degrees == 180 ? w - 1 - x : w - 1 - y;
	int v = degrees == 90 ? h - 1 - x : degrees == 180 ? h - 1 - y : x;
	return ((size_t)v * (size_t)w + (size_t)u) * 3;
}

static void clips_of_telephones_stand_upright(void **state)
{
	enum { W = 64, H = 32 };
	uint8_t *plain, *turned;
	struct lwm_frames_info info;
	(void)state;
	make_clip(in_dir("flat.mp4"), W, H, 3, 10);
	assert_int_equal(read_clip(in_dir("flat.mp4"), NULL, &plain, NULL), 3);
	for (int degrees = 90; degrees < 360; degrees += 90) {
		double sum = 0;
		turn_mp4(in_dir("flat.mp4"), in_dir("turned.mp4"), degrees, W, H);
		assert_int_equal(read_clip(in_dir("turned.mp4"), NULL, &turned, &info), 3);
		assert_int_equal(info.width, degrees == 180 ? W : H);
		assert_int_equal(info.height, degrees == 180 ? H : W);
		for (int y = 0; y < info.height; y++)
			for (int x = 0; x < info.width; x++)
				for (int c = 0; c < 3; c++)
					sum += abs(turned[((size_t)y * (size_t)info.width + (size_t)x) * 3 + (size_t)c] -
						   plain[before_turn(degrees, x, y, W, H) + (size_t)c]);
		if (!(sum / (W * H * 3) < 4)) /* colours are kept at half the size, and are turned like that */
			fail_msg("turned by %d: differs by %g a value", degrees, sum / (W * H * 3));
		free(turned);
	}
	free(plain);
}

static void folder_is_a_clip(void **state)
{
	struct lwm_err e = { 0 };
	uint8_t rgb[24 * 16 * 3], *back;
	struct lwm_frames_info info;
	(void)state;
	assert_int_equal(lwm_mkdirs(in_dir("pics"), &e), 0);
	for (int t = 0; t < 5; t++) {
		char name[32];
		snprintf(name, sizeof name, "pics/f%03d.png", t);
		paint(rgb, 24, 16, t);
		assert_int_equal(lwm_picture_write(in_dir(name), rgb, 24, 16, 0, false, &e), 0);
	}
	assert_int_equal(read_clip(in_dir("pics"), NULL, &back, &info), 5);
	assert_int_equal(info.frames, 5);
	for (int t = 0; t < 5; t++) {
		paint(rgb, 24, 16, t);
		assert_memory_equal(back + (size_t)t * sizeof rgb, rgb, sizeof rgb);
	}
	free(back);
	struct lwm_frames_opts two = { .sample_frames = 2 };
	assert_int_equal(read_clip(in_dir("pics"), &two, &back, &info), 2);
	assert_memory_equal(back + sizeof rgb, rgb, sizeof rgb);
	free(back);
	assert_int_equal(lwm_write_file(in_dir("pics/g.png"), "no", 2, false, &e), 0);
	refuse(in_dir("pics"), NULL, LWM_EDATA, "g.png");
}

static void cut_file(const char *from, const char *to, double part)
{
	struct lwm_err e = { 0 };
	char *p;
	size_t n;
	assert_int_equal(lwm_read_file(from, 1 << 28, &p, &n, &e), 0);
	assert_int_equal(lwm_write_file(to, p, (size_t)((double)n * part), true, &e), 0);
	free(p);
}

static void a_cut_clip_is_not_a_short_one(void **state)
{
	static const char *const names[] = { "c.mp4", "odd2.mkv" }, *const cut[] = { "cut.mp4", "cut.mkv" };
	struct lwm_frames_opts ok = { .damaged_ok = true }, sample = { .sample_frames = 3 };
	struct lwm_err e = { 0 };
	(void)state;
	make_clip(in_dir("odd2.mkv"), 65, 47, 40, 10);
	for (int i = 0; i < 2; i++) {
		struct lwm_frames *f;
		uint8_t rgb[66 * 48 * 3];
		int n = 0, rc;
		cut_file(in_dir(names[i]), in_dir(cut[i]), 0.6);
		refuse(in_dir(cut[i]), NULL, LWM_EDATA, "header promises");
		refuse(in_dir(cut[i]), &sample, LWM_EDATA, "header promises");
		assert_int_equal(lwm_frames_open(&f, in_dir(cut[i]), &ok, &e), 0);
		while ((rc = lwm_frames_next(f, rgb, NULL, &e)) == 1)
			n++;
		assert_int_equal(rc, 0);
		assert_true(n > 0 && n < (i ? 40 : 30));
		assert_true(lwm_frames_damage(f)[0]);
		lwm_frames_close(f);
	}
}

/* Any length and any flipped byte gives frames or an error, and never a crash or a leak. */
static void damage_of_any_kind(void **state)
{
	static const char *const names[] = { "r1.mp4", "a.png", "a.jpg" }, *const bad[] = { "x.mp4", "x.png", "x.jpg" };
	struct lwm_err e = { 0 };
	(void)state;
	for (int i = 0; i < 3; i++) {
		char *p;
		size_t n;
		assert_int_equal(lwm_read_file(in_dir(names[i]), 1 << 24, &p, &n, &e), 0);
		for (size_t k = 0; k < n; k += 1 + n / 60) {
			uint8_t *rgb;
			int64_t frames;
			lwm_err_clear(&e);
			assert_int_equal(lwm_write_file(in_dir(bad[i]), p, k, true, &e), 0);
			int rc = lwm_frames_read(in_dir(bad[i]), NULL, 1 << 24, &rgb, &frames, NULL, &e);
			if (rc != -LWM_EDATA && !(rc == 0 && frames > 0 && k > n / 2))
				fail_msg("%s cut to %zu of %zu: %d, %s", names[i], k, n, rc, e.msg);
			free(rgb);
			p[k] ^= 0x55;
			lwm_err_clear(&e);
			assert_int_equal(lwm_write_file(in_dir(bad[i]), p, n, true, &e), 0);
			rc = lwm_frames_read(in_dir(bad[i]), NULL, 1 << 24, &rgb, &frames, NULL, &e);
			assert_true(rc < 0 ? e.msg[0] != 0 : frames > 0);
			free(rgb);
			p[k] ^= 0x55;
			lwm_err_clear(&e);
		}
		free(p);
	}
}

static void put(const char *name, const void *p, size_t n)
{
	struct lwm_err e = { 0 };
	assert_int_equal(lwm_write_file(in_dir(name), p, n, true, &e), 0);
}

static void foreign_files(void **state)
{
	static const char wav[] = "RIFF\x2c\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0"
				  "data\x08\0\0\0\1\0\2\0\3\0\4\0";
	static const char list[] = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nc.mp4\n#EXT-X-ENDLIST\n";
	static const char concat[] = "ffconcat version 1.0\nfile c.mp4\n";
	static const char y4m[] = "YUV4MPEG2 W64 H64 F25:1 Ip A1:1 C420\n";
	(void)state;
	put("sound.wav", wav, sizeof wav - 1);
	refuse(in_dir("sound.wav"), NULL, LWM_EDATA, "no video stream");
	put("none.y4m", y4m, sizeof y4m - 1);
	refuse(in_dir("none.y4m"), NULL, LWM_EDATA, "");
	put("list.mp4", list, sizeof list - 1);
	refuse(in_dir("list.mp4"), NULL, LWM_EDATA, "cannot be read");
	put("list.m3u8", list, sizeof list - 1);
	refuse(in_dir("list.m3u8"), NULL, LWM_EDATA, "cannot be read");
	put("many.ffconcat", concat, sizeof concat - 1);
	refuse(in_dir("many.ffconcat"), NULL, LWM_EDATA, "cannot be read");
	put("text.mp4", "hello", 5);
	refuse(in_dir("text.mp4"), NULL, LWM_EDATA, "cannot be read");
	put("empty.mp4", "", 0);
	refuse(in_dir("empty.mp4"), NULL, LWM_EDATA, "is empty");
	refuse(in_dir("missing.mp4"), NULL, LWM_ENOINPUT, "No such file");
	struct lwm_frames_opts o = { .width = 16 };
	refuse(in_dir("c.mp4"), &o, LWM_EUSAGE, "not possible");
}

/* A name that looks like a protocol or a pattern is only a name. */
static void names_are_names(void **state)
{
	uint8_t rgb[8 * 8 * 3], *back;
	struct lwm_err e = { 0 };
	char cwd[4096];
	(void)state;
	paint(rgb, 8, 8, 0);
	assert_int_equal(lwm_picture_write(in_dir("p%03d.jpg"), rgb, 8, 8, 0, false, &e), 0);
	assert_int_equal(read_clip(in_dir("p%03d.jpg"), NULL, &back, NULL), 1);
	free(back);
	assert_non_null(getcwd(cwd, sizeof cwd));
	assert_int_equal(chdir(dir), 0);
	make_clip("concat:a.mp4", 16, 16, 2, 2);
	assert_int_equal(read_clip("concat:a.mp4", NULL, &back, NULL), 2);
	free(back);
	assert_int_equal(chdir(cwd), 0);
}

static void nothing_half_written(void **state)
{
	struct lwm_video *v;
	struct lwm_err e = { 0 };
	uint8_t rgb[16 * 16 * 3] = { 0 };
	(void)state;
	assert_int_equal(lwm_video_open(&v, in_dir("half.mp4"), 16, 16, 4, false, &e), 0);
	assert_int_equal(lwm_video_add(v, rgb, &e), 0);
	assert_false(lwm_path_exists(in_dir("half.mp4")));
	lwm_video_discard(v);
	assert_false(lwm_path_exists(in_dir("half.mp4")));
	assert_int_equal(lwm_video_open(&v, in_dir("c.mp4"), 16, 16, 4, false, &e), -LWM_ECANTCREATE);
	lwm_err_clear(&e);
	assert_int_equal(lwm_video_open(&v, in_dir("none.mp4"), 16, 16, 4, false, &e), 0);
	assert_int_equal(lwm_video_commit(v, &e), -LWM_EUSAGE);
	assert_false(lwm_path_exists(in_dir("none.mp4")));
}

static void sheets(void **state)
{
	struct lwm_sheet s;
	struct lwm_err e = { 0 };
	uint8_t cell[2 * 2 * 3];
	(void)state;
	memset(cell, 7, sizeof cell);
	assert_int_equal(lwm_sheet_init(&s, 3, 2, 4, 4, 1, &e), 0);
	assert_int_equal(s.width, 16);
	assert_int_equal(s.height, 11);
	lwm_sheet_put(&s, 2, 1, cell, 2);
	int64_t dark = 0;
	for (int64_t i = 0; i < (int64_t)s.width * s.height; i++)
		dark += s.rgb[i * 3] == 7;
	assert_int_equal(dark, 16);
	assert_int_equal(s.rgb[(6 * 16 + 11) * 3], 7);
	assert_int_equal(s.rgb[(5 * 16 + 11) * 3], 255);
	lwm_sheet_release(&s);
	assert_int_equal(lwm_sheet_init(&s, 1 << 20, 1 << 20, 64, 64, 0, &e), -LWM_EUSAGE);
}

static int group_setup(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int group_teardown(void **state)
{
	struct lwm_err e = { 0 };
	(void)state;
	return lwm_remove_tree(dir, &e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pictures_come_back),      cmocka_unit_test(clip_comes_back),
		cmocka_unit_test(same_bytes_every_run),    cmocka_unit_test(odd_sizes),
		cmocka_unit_test(sampling_is_even),        cmocka_unit_test(pixels_are_the_programs),
		cmocka_unit_test(folder_is_a_clip),        cmocka_unit_test(a_cut_clip_is_not_a_short_one),
		cmocka_unit_test(damage_of_any_kind),      cmocka_unit_test(foreign_files),
		cmocka_unit_test(names_are_names),         cmocka_unit_test(nothing_half_written),
		cmocka_unit_test(sheets),                  cmocka_unit_test(clips_of_telephones_stand_upright),
	};
	return cmocka_run_group_tests_name("media", tests, group_setup, group_teardown);
}
