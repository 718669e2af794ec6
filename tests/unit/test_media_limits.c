/* Pictures that claim to be large: refused by what their headers say, before memory is taken for them. Headers of our own making
 * of every kind, thin pictures, sizes that change in the middle, indexes of millions of frames in a file of a kilobyte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "common/base/outfile.h"
#include "common/base/path.h"
#include "common/base/str.h"
#include "common/media/frames.h"
#include "common/media/picture.h"
#include "tests/unit/peak.h"

#define MIB (1LL << 20)
extern char **environ;
static char dir[] = "/tmp/lwm_media_limits_XXXXXX";

static const char *in_dir(const char *name)
{
	static char buf[8][256];
	static int at;
	at = (at + 1) % 8;
	snprintf(buf[at], sizeof buf[at], "%s/%s", dir, name);
	return buf[at];
}

static void save(const char *name, struct lwm_str *s)
{
	assert_false(s->failed);
	assert_int_equal(lwm_write_file(in_dir(name), s->s, s->len, true, NULL), 0);
	lwm_str_release(s);
}

/* ---- bytes of headers ---- */

static void be(struct lwm_str *s, uint64_t v, int bytes)
{
	while (bytes--)
		lwm_str_putc(s, (char)(v >> 8 * bytes));
}

static void le(struct lwm_str *s, uint64_t v, int bytes)
{
	for (int i = 0; i < bytes; i++)
		lwm_str_putc(s, (char)(v >> 8 * i));
}

static void zeros(struct lwm_str *s, int n)
{
	be(s, 0, n > 8 ? 8 : n);
	if (n > 8)
		zeros(s, n - 8);
}

static void png_chunk(struct lwm_str *s, const char *type, const void *data, size_t n)
{
	size_t from = s->len + 4;
	be(s, n, 4);
	lwm_str_add(s, type, 4);
	lwm_str_add(s, data, n);
	be(s, crc32(0, (const Bytef *)s->s + from, (uInt)(s->len - from)), 4);
}

/* A PNG with right sums whose data has `rows` rows of black. */
static void make_png(const char *name, uint32_t w, uint32_t h, int depth, int rows)
{
	struct lwm_str s = { 0 }, head = { 0 };
	uLong raw = (uLong)rows * (w * 3 + 1), packed = compressBound(raw);
	uint8_t *black = calloc(1, raw), *out = malloc(packed);
	assert_true(black && out && compress2(out, &packed, black, raw, 9) == Z_OK);
	lwm_str_add(&s, "\x89PNG\r\n\x1a\n", 8);
	be(&head, w, 4);
	be(&head, h, 4);
	be(&head, (uint64_t)depth << 8 | 2, 2); /* RGB */
	zeros(&head, 3);
	png_chunk(&s, "IHDR", head.s, head.len);
	png_chunk(&s, "IDAT", out, packed);
	png_chunk(&s, "IEND", "", 0);
	lwm_str_release(&head);
	free(black);
	free(out);
	save(name, &s);
}

static void make_bmp(const char *name, uint32_t w, uint32_t h)
{
	struct lwm_str s = { 0 };
	lwm_str_puts(&s, "BM");
	le(&s, 2000, 4);
	le(&s, 0, 4);
	le(&s, 54, 4);
	le(&s, 40, 4);
	le(&s, w, 4);
	le(&s, h, 4);
	le(&s, 1, 2);
	le(&s, 24, 2);
	zeros(&s, 24 + 1946);
	save(name, &s);
}

static void make_text_header(const char *name, const char *header)
{
	struct lwm_str s = { 0 };
	lwm_str_puts(&s, header);
	zeros(&s, 2000);
	save(name, &s);
}

static void make_gif(const char *name, unsigned w, unsigned h, unsigned frame_w, unsigned frame_h)
{
	struct lwm_str s = { 0 };
	lwm_str_puts(&s, "GIF89a");
	le(&s, w, 2);
	le(&s, h, 2);
	lwm_str_add(&s, "\xf0\0\0\0\0\0\xff\xff\xff\x2c\0\0\0\0", 14);
	le(&s, frame_w, 2);
	le(&s, frame_h, 2);
	lwm_str_add(&s, "\0\x02\x02\x4c\x01\0;", 7);
	save(name, &s);
}

static void make_tiff(const char *name, uint32_t w, uint32_t h)
{
	const uint32_t tag[][3] = { { 256, 4, w }, { 257, 4, h }, { 258, 3, 8 }, { 259, 3, 1 }, { 262, 3, 1 },
				    { 273, 4, 8 }, { 277, 3, 1 }, { 278, 4, h }, { 279, 4, 1000 } };
	struct lwm_str s = { 0 };
	lwm_str_add(&s, "II*\0", 4);
	le(&s, 1008, 4);
	zeros(&s, 1000);
	le(&s, 9, 2);
	for (int i = 0; i < 9; i++) {
		le(&s, tag[i][0], 2);
		le(&s, tag[i][1], 2);
		le(&s, 1, 4);
		le(&s, tag[i][2], 4);
	}
	le(&s, 0, 4);
	save(name, &s);
}

static void make_webp(const char *name, uint32_t w, uint32_t h)
{
	struct lwm_str s = { 0 };
	lwm_str_puts(&s, "RIFF");
	le(&s, 4 + 8 + 56, 4);
	lwm_str_puts(&s, "WEBPVP8L");
	le(&s, 55, 4);
	lwm_str_putc(&s, 0x2f);
	le(&s, (w - 1) | (h - 1) << 14, 4);
	zeros(&s, 51);
	save(name, &s);
}

/* A real JPEG in which the frame header tells another size. */
static void jpeg_of(struct lwm_str *s, unsigned w, unsigned h)
{
	static uint8_t rgb[64 * 48 * 3];
	char *text;
	size_t n;
	assert_int_equal(lwm_picture_write(in_dir("small.jpg"), rgb, 64, 48, 90, true, NULL), 0);
	assert_int_equal(lwm_read_file(in_dir("small.jpg"), 1 << 20, &text, &n, NULL), 0);
	char *sof = memmem(text, n, "\xff\xc0", 2);
	assert_non_null(sof);
	char size[4] = { (char)(h >> 8), (char)h, (char)(w >> 8), (char)w };
	memcpy(sof + 5, size, 4);
	lwm_str_add(s, text, n);
	free(text);
}

/* ---- reading under a limit ---- */

struct work {
	const char *path;
	struct lwm_frames_opts o;
	int rc;            /* that is expected */
	int64_t frames;    /* that come before it */
	const char *says;  /* a part of the sentence; NULL: none */
};

static bool read_all(void *arg)
{
	const struct work *w = arg;
	struct lwm_frames *f;
	struct lwm_err e = { 0 };
	int64_t n = 0;
	int rc = lwm_frames_open(&f, w->path, &w->o, &e);
	if (rc == 0) {
		struct lwm_frames_info info = lwm_frames_info_of(f);
		uint8_t *rgb = malloc((size_t)info.width * (size_t)info.height * 3);
		while ((rc = lwm_frames_next(f, rgb, NULL, &e)) == 1)
			n++;
		free(rgb);
		lwm_frames_close(f);
	}
	bool ok = rc == w->rc && n == w->frames && (!w->says || strstr(e.msg, w->says)) && (rc == 0 || strstr(e.msg, w->path));
	if (!ok)
		fprintf(stderr, "%s: %d, %lld frames: %s\n", w->path, rc, (long long)n, e.msg);
	return ok;
}

/* What the work takes is at most `most` bytes more than FFmpeg takes for a picture of one pixel. */
static void takes(const struct work *w, int64_t most)
{
	struct work idle = { .path = in_dir("dot.png"), .frames = 1 }, copy = *w;
	int64_t none = peak_bytes(read_all, &idle), took = peak_bytes(read_all, &copy);
	assert_true(none >= 0);
	if (took < 0 || took > none + most)
		fail_msg("%s: %lld bytes, %lld of them for any picture", w->path, (long long)took, (long long)none);
}

static void headers(void **state)
{
	static const char *const names[] = { "big.png", "deep.png", "big.bmp", "big.ppm", "big.pgm", "big.pam", "big.gif", "canvas.gif",
					     "big.tiff", "big.jpg", "big.y4m" };
	struct lwm_str jpeg = { 0 };
	(void)state;
	make_png("big.png", 60000, 60000, 8, 2);
	make_png("deep.png", 60000, 60000, 16, 1);
	make_bmp("big.bmp", 60000, 60000);
	make_text_header("big.ppm", "P6\n60000 60000\n255\n");
	make_text_header("big.pgm", "P5\n60000 60000\n255\n");
	make_text_header("big.pam", "P7\nWIDTH 60000\nHEIGHT 60000\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n");
	make_text_header("big.y4m", "YUV4MPEG2 W60000 H60000 F25:1 Ip A1:1 C420jpeg\nFRAME\n");
	make_gif("big.gif", 60000, 60000, 60000, 60000);
	make_gif("canvas.gif", 60000, 60000, 1, 1);
	make_tiff("big.tiff", 60000, 60000);
	jpeg_of(&jpeg, 60000, 60000);
	save("big.jpg", &jpeg);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct work w = { .path = in_dir(names[i]), .o = { .width = 16, .height = 16 }, .rc = -LWM_EDATA,
				  .says = "60000 x 60000 pixels are more than the limit of 67108864 (--max-pixels raises it)" };
		takes(&w, 16 * MIB);
		w.o.damaged_ok = true; /* that is no damage that could be borne */
		takes(&w, 16 * MIB);
	}
	make_webp("big.webp", 16384, 16384);
	struct work w = { .path = in_dir("big.webp"), .rc = -LWM_EDATA, .says = "16384 x 16384 pixels are more than the limit" };
	takes(&w, 16 * MIB);
}

/* The limit is the caller's: to the pixel, in both directions, for what is read and what is made of it. */
static void limits(void **state)
{
	(void)state;
	make_png("p.png", 100, 50, 8, 50);
	for (int64_t limit = 4998; limit <= 5002; limit++) {
		struct work w = { .path = in_dir("p.png"), .o = { .max_pixels = limit }, .rc = limit < 5000 ? -LWM_EDATA : 0,
				  .frames = limit >= 5000, .says = limit < 5000 ? "100 x 50 pixels are more than the limit of" : NULL };
		assert_true(read_all(&w));
	}
	struct work out = { .path = in_dir("p.png"), .o = { .max_pixels = 6000, .width = 100, .height = 61 }, .rc = -LWM_EUSAGE,
			    .says = "--max-pixels" };
	assert_true(read_all(&out));
	out.o = (struct lwm_frames_opts){ .max_pixels = -1 };
	assert_true(read_all(&out));
	out.o = (struct lwm_frames_opts){ .max_pixels = 1LL << 31 };
	assert_true(read_all(&out));
	/* a codec's blocks are more than the picture: 70 x 50 is 80 x 64 to it */
	struct lwm_video *v;
	static uint8_t rgb[70 * 50 * 3];
	assert_int_equal(lwm_video_open(&v, in_dir("v.mp4"), 70, 50, 10, true, NULL), 0);
	for (int i = 0; i < 5; i++)
		assert_int_equal(lwm_video_add(v, rgb, NULL), 0);
	assert_int_equal(lwm_video_commit(v, NULL), 0);
	struct work clip = { .path = in_dir("v.mp4"), .o = { .max_pixels = 3500 }, .frames = 5 };
	assert_true(read_all(&clip));
	clip.o.max_pixels = 3499;
	clip.rc = -LWM_EDATA;
	clip.frames = 0;
	clip.says = "70 x 50 pixels are more than the limit of 3499";
	assert_true(read_all(&clip));
}

/* 2 x 60000 pixels are little; with the short side at 256 they are 2 gigapixels. */
static void thin(void **state)
{
	(void)state;
	make_png("thin.png", 2, 60000, 8, 60000);
	make_png("flat.png", 60000, 2, 8, 2);
	for (int i = 0; i < 2; i++) {
		struct work w = { .path = in_dir(i ? "thin.png" : "flat.png"), .o = { .width = 256, .height = 256 }, .rc = -LWM_EDATA,
				  .says = i ? "made 256 x 7680000, are more than the limit of 67108864" :
					      "made 7680000 x 256, are more than the limit of 67108864" };
		takes(&w, 16 * MIB);
		struct work own = { .path = w.path, .frames = 1 };
		assert_true(read_all(&own));
	}
}

/* Small, small, claims to be large, small: refused at its place, or left out when damage is borne. */
static void changes_in_the_middle(void **state)
{
	struct lwm_str s = { 0 };
	(void)state;
	for (int i = 0; i < 6; i++)
		jpeg_of(&s, i == 3 ? 60000 : 64, i == 3 ? 60000 : 48);
	save("middle.mjpeg", &s);
	struct work w = { .path = in_dir("middle.mjpeg"), .rc = -LWM_EDATA, .frames = 5,
			  .says = "60000 x 60000 pixels are more than the limit of 67108864 (--max-pixels raises it)" };
	takes(&w, 16 * MIB);
	w.o.damaged_ok = true;
	w.rc = 0;
	w.says = NULL;
	takes(&w, 16 * MIB);
	/* within the limit it is no picture of this clip all the same */
	for (int i = 0; i < 6; i++)
		jpeg_of(&s, i == 3 ? 128 : 64, 48);
	save("other.mjpeg", &s);
	struct work other = { .path = in_dir("other.mjpeg"), .rc = -LWM_EDATA, .frames = 3, .says = "changes from 64 x 48 to 128 x 48" };
	assert_true(read_all(&other));
	other.o.max_pixels = 64 * 48;
	other.says = "128 x 48 pixels are more than the limit of 3072";
	assert_true(read_all(&other));
}

static void in_a_folder(void **state)
{
	(void)state;
	assert_int_equal(lwm_mkdirs(in_dir("pics"), NULL), 0);
	make_png("pics/a.png", 8, 8, 8, 8);
	make_png("pics/b.png", 60000, 60000, 8, 1);
	struct work w = { .path = in_dir("pics"), .o = { .width = 8, .height = 8 }, .rc = -LWM_EDATA, .frames = 1,
			  .says = "pics/b.png: 60000 x 60000" };
	takes(&w, 16 * MIB);
}

/* ---- what a header counts ---- */

static void box(struct lwm_str *out, const char *type, struct lwm_str *body)
{
	be(out, 8 + body->len, 4);
	lwm_str_add(out, type, 4);
	lwm_str_add(out, lwm_str_get(body), body->len);
	lwm_str_release(body);
}

/* A full box of 32-bit numbers behind its version and flags. */
static void numbers(struct lwm_str *out, const char *type, int n, ...)
{
	struct lwm_str b = { 0 };
	va_list ap;
	va_start(ap, n);
	be(&b, 0, 4);
	while (n--)
		be(&b, va_arg(ap, unsigned), 4);
	va_end(ap);
	box(out, type, &b);
}

static void sample_table(struct lwm_str *out, unsigned frames)
{
	struct lwm_str entry = { 0 }, list = { 0 }, b = { 0 };
	zeros(&entry, 6);
	be(&entry, 1, 2);
	zeros(&entry, 16);
	be(&entry, 64 << 16 | 48, 4);
	be(&entry, 0x480000, 4);
	be(&entry, 0x480000, 4);
	be(&entry, 1, 6);
	zeros(&entry, 32);
	be(&entry, 24 << 16 | 0xffff, 4);
	be(&list, 1, 8);
	box(&list, "jpeg", &entry);
	box(&b, "stsd", &list);
	numbers(&b, "stts", 3, 1, frames, 1);
	numbers(&b, "stsc", 4, 1, 1, frames, 1);
	numbers(&b, "stsz", 2, 1, frames); /* each of one byte: nothing more is in the file about them */
	numbers(&b, "stco", 2, 1, 40);
	box(out, "stbl", &b);
}

/* An mp4 of a kilobyte whose only track claims so many frames. */
static void make_mp4(const char *name, unsigned frames)
{
	static const unsigned one = 0x10000, top = 0x40000000;
	struct lwm_str file = { 0 }, moov = { 0 }, trak = { 0 }, mdia = { 0 }, minf = { 0 }, b = { 0 };
	lwm_str_add(&b, "isom\0\0\2\0isommp41", 16);
	box(&file, "ftyp", &b);
	zeros(&b, 100);
	box(&file, "mdat", &b);
	numbers(&moov, "mvhd", 24, 0, 0, 1000, frames, one, 0x1000000, 0, 0, one, 0, 0, 0, one, 0, 0, 0, top, 0, 0, 0, 0, 0, 0, 2);
	numbers(&trak, "tkhd", 20, 0, 0, 1, 0, frames, 0, 0, 0, 0, one, 0, 0, 0, one, 0, 0, 0, top, 64u << 16, 48u << 16);
	numbers(&mdia, "mdhd", 5, 0, 0, 1000, frames, 0x55c40000);
	numbers(&mdia, "hdlr", 6, 0, 0x76696465 /* vide */, 0, 0, 0, 0);
	numbers(&minf, "vmhd", 2, 0, 0);
	sample_table(&minf, frames);
	box(&mdia, "minf", &minf);
	box(&trak, "mdia", &mdia);
	box(&moov, "trak", &trak);
	box(&file, "moov", &moov);
	save(name, &file);
}

/* FFmpeg lists every frame an mp4 claims: 24 bytes each, though there is nothing behind them. */
static void index_of_millions(void **state)
{
	(void)state;
	make_mp4("index.mp4", 80000000);
	struct work w = { .path = in_dir("index.mp4"), .rc = -LWM_EDATA };
	takes(&w, 600 * MIB);
	make_mp4("index.mp4", 8000000);
	w.o.max_pixels = 1 << 20; /* who reads small pictures needs no more for anything */
	takes(&w, 100 * MIB);
}

static bool run_ffmpeg(const char *codec, int side, const char *out)
{
	char source[64];
	const char *const argv[] = { "ffmpeg", "-v", "quiet", "-y", "-f", "lavfi", "-i", source, "-c:v", codec, out, NULL };
	pid_t pid;
	int status;
	snprintf(source, sizeof source, "color=s=%dx%d:r=25:d=0.1", side, side);
	return posix_spawnp(&pid, "ffmpeg", NULL, NULL, (char *const *)(uintptr_t)argv, environ) == 0 &&
	       waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* Containers without a header: their streams turn up while FFmpeg looks at the first packets, and must be held to the limit too. */
static void streams_that_turn_up(void **state)
{
	static const struct {
		const char *codec, *name;
		int side;
	} t[] = { { "flv", "late.flv", 7000 }, { "mpeg2video", "late.mpg", 4000 }, { "mpeg2video", "late.ts", 4000 } };
	char says[80];
	(void)state;
	for (int i = 0; i < 3; i++) {
		if (!run_ffmpeg(t[i].codec, t[i].side, in_dir(t[i].name))) {
			print_message("the ffmpeg program is not installed: nothing to read\n");
			skip();
		}
		snprintf(says, sizeof says, "%d x %d pixels are more than the limit of 1048576", t[i].side, t[i].side);
		struct work w = { .path = in_dir(t[i].name), .o = { .max_pixels = 1 << 20, .width = 16, .height = 16 },
				  .rc = -LWM_EDATA, .says = says };
		takes(&w, 30 * MIB);
	}
}

static int set_up(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	make_png("dot.png", 1, 1, 8, 1);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	return lwm_remove_tree(dir, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(index_of_millions), /* first: the process has seen no larger limit */
		cmocka_unit_test(headers),
		cmocka_unit_test(limits),
		cmocka_unit_test(thin),
		cmocka_unit_test(changes_in_the_middle),
		cmocka_unit_test(in_a_folder),
		cmocka_unit_test(streams_that_turn_up),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
