/* Published samples of drives: a small made-up one of each layout, everything that is broken, and frames against Pillow's. */
#include "tests/unit/data_fixture.h"

#include <math.h>

#include "common/data/ingest/annos.h"
#include "common/media/lanczos.h"

static struct lwm_anno_how how = { .frames = 3 };

static int setup(void **state)
{
	(void)state;
	memcpy(how.cmd, lwm_anno_cmds, sizeof how.cmd);
	return 0;
}

static int take(struct lwm_anno *a, const char *json)
{
	json_t *o = json_loads(json, JSON_DECODE_ANY, NULL);
	assert_non_null(o);
	lwm_err_clear(&err);
	int rc = lwm_anno_read(a, o, &how, &err);
	json_decref(o);
	return rc;
}

static void expect(const char *json, const char *action, int64_t times)
{
	struct lwm_anno a;
	struct lwm_str s = { 0 };
	if (take(&a, json) < 0)
		fail_msg("%s: %s", json, err.msg);
	lwm_action_show(&a.action, &s);
	assert_string_equal(lwm_str_get(&s), action);
	assert_int_equal(a.times, times);
	assert_int_equal(a.frames.n, 3);
	lwm_str_release(&s);
	lwm_anno_release(&a);
}

#define FRAMES "\"frames\": [\"samples/CAM_FRONT/a.jpg\", \"sweeps/CAM_FRONT/b.jpg\", \"sweeps/CAM_FRONT/c.jpg\", \"d.jpg\"]"
#define TRAJ "\"traj\": [0, 0, 0.5, 4, 1, 8, 1.5, 12, 2, 16]"
#define SPEED "\"speed\": [10, 20, 21, 22, 23.5]"
#define ANGLE "\"angle\": [1, 390, -390, 0, 78]"
#define GOAL "\"goal\": [800, 450], \"z\": 12.5"
#define SAMPLE(frames, traj, speed, angle, cmd, goal) \
	"{" frames ", " traj ", " speed ", " angle ", \"cmd\": " cmd ", " goal "}"

static void test_nuscenes(void **state)
{
	static const char *const path[] = { "samples/CAM_FRONT/a.jpg", "sweeps/CAM_FRONT/b.jpg", "sweeps/CAM_FRONT/c.jpg" };
	struct lwm_anno a;
	(void)state;
	expect(SAMPLE(FRAMES, TRAJ, SPEED, ANGLE, "2", GOAL),
	       "cmd=straight;traj=0.5,4,1,8,1.5,12,2,16;speed=20,21,22,23.5;steer=0.5,-0.5,0,0.1;goal=0.5,0.5", 2);
	/* what is rare is there five times, what is complete twice that */
	expect(SAMPLE(FRAMES, TRAJ, SPEED, ANGLE, "0", GOAL),
	       "cmd=right;traj=0.5,4,1,8,1.5,12,2,16;speed=20,21,22,23.5;steer=0.5,-0.5,0,0.1;goal=0.5,0.5", 10);
	expect(SAMPLE(FRAMES, TRAJ, "\"speed\": []", "\"angle\": []", "1", GOAL),
	       "cmd=left;traj=0.5,4,1,8,1.5,12,2,16;goal=0.5,0.5", 5);
	expect(SAMPLE(FRAMES, TRAJ, SPEED, "\"angle\": []", "3", GOAL),
	       "cmd=stop;traj=0.5,4,1,8,1.5,12,2,16;speed=20,21,22,23.5;goal=0.5,0.5", 1);
	/* goals that cannot be seen */
	static const char *const unseen[] = { "\"goal\": [800, 450], \"z\": 0", "\"goal\": [800, 450], \"z\": -1",
					      "\"goal\": [0, 450], \"z\": 1", "\"goal\": [1600, 450], \"z\": 1",
					      "\"goal\": [800, -3], \"z\": 1", "\"goal\": [800, 900], \"z\": 1" };
	for (int i = 0; i < 6; i++) {
		char json[600];
		snprintf(json, sizeof json, "{" FRAMES ", " TRAJ ", " SPEED ", " ANGLE ", \"cmd\": 3, %s}", unseen[i]);
		expect(json, "cmd=stop;traj=0.5,4,1,8,1.5,12,2,16;speed=20,21,22,23.5;steer=0.5,-0.5,0,0.1", 1);
	}
	OK(take(&a, SAMPLE(FRAMES, TRAJ, SPEED, ANGLE, "2", GOAL)));
	assert_int_equal(a.layout, LWM_ANNO_NUSCENES);
	for (int i = 0; i < 3; i++)
		assert_string_equal(a.frames.v[i], path[i]);
	lwm_anno_release(&a);
	assert_int_equal(a.frames.n, 0);
	/* another meaning of the commands */
	how.cmd[2] = LWM_CMD_STOP;
	expect(SAMPLE(FRAMES, TRAJ, "\"speed\": []", "\"angle\": []", "2", GOAL), "cmd=stop;traj=0.5,4,1,8,1.5,12,2,16;goal=0.5,0.5", 1);
	how.cmd[2] = LWM_CMD_STRAIGHT;
}

static void test_youtube(void **state)
{
	struct lwm_anno a;
	(void)state;
	expect("{\"folder_name\": \"J Utah/abc\", \"first_frame\": \"000000998.jpg\"}", "free", 1);
	OK(take(&a, "{\"folder_name\": \"J Utah/abc\", \"first_frame\": \"000000998.jpg\"}"));
	assert_int_equal(a.layout, LWM_ANNO_YOUTUBE);
	assert_string_equal(a.frames.v[0], "J Utah/abc/000000998.jpg");
	assert_string_equal(a.frames.v[1], "J Utah/abc/000000999.jpg");
	assert_string_equal(a.frames.v[2], "J Utah/abc/000001000.jpg");
	lwm_anno_release(&a);
	OK(take(&a, "{\"folder_name\": \"v\", \"first_frame\": \"98.png\"}"));
	assert_string_equal(a.frames.v[2], "v/100.png");
	lwm_anno_release(&a);
}

static void test_broken(void **state)
{
	static const struct {
		const char *json, *fault, *says;
	} bad[] = {
		{ "3", "wrong type", "is no object" },
		{ "{}", "missing key", "neither 'frames' nor 'folder_name'" },
		{ SAMPLE("\"frames\": [\"a\", \"b\"]", TRAJ, SPEED, ANGLE, "2", GOAL), "too few frames", "2 frames, not the 3" },
		{ SAMPLE("\"frames\": \"a\"", TRAJ, SPEED, ANGLE, "2", GOAL), "wrong type", "'frames' is no list" },
		{ SAMPLE("\"frames\": [\"a\", 3, \"c\"]", TRAJ, SPEED, ANGLE, "2", GOAL), "wrong type", "frame 1 is no text" },
		{ SAMPLE("\"frames\": [\"a\", \"/etc/x\", \"c\"]", TRAJ, SPEED, ANGLE, "2", GOAL), "bad path", "'/etc/x' is no path below" },
		{ SAMPLE("\"frames\": [\"a\", \"../x\", \"c\"]", TRAJ, SPEED, ANGLE, "2", GOAL), "bad path", "'../x' is no path below" },
		{ SAMPLE("\"frames\": [\"a\", \"a/../../x\", \"c\"]", TRAJ, SPEED, ANGLE, "2", GOAL), "bad path", "is no path below" },
		{ SAMPLE(FRAMES, "\"t\": 0", SPEED, ANGLE, "2", GOAL), "bad action", "no field 'traj'" },
		{ SAMPLE(FRAMES, "\"traj\": [0, 0, 1, 2]", SPEED, ANGLE, "2", GOAL), "bad action", "'traj' is no list of 10 numbers" },
		{ SAMPLE(FRAMES, "\"traj\": []", SPEED, ANGLE, "2", GOAL), "bad action", "'traj' is no list of 10 numbers" },
		{ SAMPLE(FRAMES, "\"traj\": [0, 0, 50, 4, 1, 8, 1, 1, 1, 1]", SPEED, ANGLE, "2", GOAL), "bad action", "traj x 50 is not in" },
		{ SAMPLE(FRAMES, TRAJ, "\"speed\": [1, 2]", ANGLE, "2", GOAL), "bad action", "'speed' is no list of 5 numbers" },
		{ SAMPLE(FRAMES, TRAJ, "\"speed\": [1, 2, 3, 4, \"5\"]", ANGLE, "2", GOAL), "bad action", "'speed' is no list of 5 numbers" },
		{ SAMPLE(FRAMES, TRAJ, "\"speed\": null", ANGLE, "2", GOAL), "bad action", "'speed' is no list of 5 numbers" },
		{ SAMPLE(FRAMES, TRAJ, SPEED, "\"angle\": [0, 0, 0, 0, 800]", "2", GOAL), "bad action", "steer 1.02564 is not in -1..1" },
		{ SAMPLE(FRAMES, TRAJ, SPEED, ANGLE, "4", GOAL), "bad action", "'cmd' is none of 0, 1, 2, 3" },
		{ SAMPLE(FRAMES, TRAJ, SPEED, ANGLE, "-1", GOAL), "bad action", "'cmd' is none of 0, 1, 2, 3" },
		{ SAMPLE(FRAMES, TRAJ, SPEED, ANGLE, "\"left\"", GOAL), "bad action", "'cmd' is none of 0, 1, 2, 3" },
		{ SAMPLE(FRAMES, TRAJ, SPEED, ANGLE, "2", "\"goal\": [800]"), "bad action", "'goal' is no list of 2 numbers" },
		{ SAMPLE(FRAMES, TRAJ, SPEED, ANGLE, "2", "\"goal\": [800, 450]"), "bad action", "no field 'z'" },
		{ SAMPLE(FRAMES, TRAJ, SPEED, ANGLE, "2", "\"goal\": [800, 450], \"z\": \"1\""), "bad action", "'z' is no number" },
		{ "{\"folder_name\": \"v\"}", "missing key", "no field 'first_frame'" },
		{ "{\"folder_name\": 3, \"first_frame\": \"1.jpg\"}", "wrong type", "'folder_name' is no text" },
		{ "{\"folder_name\": \"v\", \"first_frame\": 1}", "wrong type", "'first_frame' is no text" },
		{ "{\"folder_name\": \"v\", \"first_frame\": \"x1.jpg\"}", "bad path", "'x1.jpg' is no number with a suffix" },
		{ "{\"folder_name\": \"v\", \"first_frame\": \"1\"}", "bad path", "'1' is no number with a suffix" },
		{ "{\"folder_name\": \"v\", \"first_frame\": \"1.x/../y\"}", "bad path", "is no number with a suffix" },
		{ "{\"folder_name\": \"v\", \"first_frame\": \"1234567890123456789.jpg\"}", "bad path", "is no number with a suffix" },
		{ "{\"folder_name\": \"..\", \"first_frame\": \"1.jpg\"}", "bad path", "is no path below the data root" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct lwm_anno a;
		int rc = take(&a, bad[i].json);
		if (rc != -LWM_EDATA || !a.fault || strcmp(a.fault, bad[i].fault) || !strstr(err.msg, bad[i].says))
			fail_msg("%s: %s: %s", bad[i].json, a.fault ? a.fault : "no fault", err.msg);
		assert_int_equal(a.frames.n, 0);
	}
	lwm_err_clear(&err);
}

static void test_crops(void **state)
{
	static const int row[][8] = { /* size, wanted, box */
		{ 1600, 900, 576, 320, 0, 6, 1600, 888 },  { 1600, 900, 1024, 576, 0, 0, 1600, 900 },
		{ 640, 480, 64, 64, 80, 0, 480, 480 },     { 48, 97, 128, 64, 0, 36, 48, 24 },
		{ 65, 64, 64, 64, 0, 0, 64, 64 },          { 1, 500, 512, 64, 0, 250, 1, 1 },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct lwm_box b = lwm_crop_to_aspect(row[i][0], row[i][1], row[i][2], row[i][3]);
		if (b.x != row[i][4] || b.y != row[i][5] || b.width != row[i][6] || b.height != row[i][7])
			fail_msg("case %zu: %d %d %d %d", i, b.x, b.y, b.width, b.height);
	}
}

/* Every byte as Pillow has it. */
static void test_against_pillow(void **state)
{
	static const struct {
		int w, h, tw, th;
		uint64_t fnv;
		uint8_t begin[12];
	} golden[] = {
#include "tests/golden/lanczos-1/lanczos.inc"
	};
	(void)state;
	for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
		int w = golden[i].w, h = golden[i].h, tw = golden[i].tw, th = golden[i].th;
		uint8_t *rgb = malloc((size_t)(w * h) * 3), *out = malloc((size_t)(tw * th) * 3), *p = rgb;
		uint64_t fnv = 0xcbf29ce484222325;
		for (int y = 0; y < h; y++)
			for (int x = 0; x < w; x++) {
				*p++ = (uint8_t)(x * 7 + y * 13 + (x * y) % 31 * 5);
				*p++ = (x / 5 + y / 3) % 2 ? 255 : 0;
				*p++ = (uint8_t)((x * x + 3 * y * y) >> 3);
			}
		OK(lwm_lanczos(rgb, w, h, lwm_crop_to_aspect(w, h, tw, th), out, tw, th, &err));
		for (int k = 0; k < tw * th * 3; k++)
			fnv = (fnv ^ out[k]) * 0x100000001b3;
		assert_memory_equal(out, golden[i].begin, 12);
		if (fnv != golden[i].fnv)
			fail_msg("%d x %d to %d x %d: other bytes than Pillow's", w, h, tw, th);
		free(rgb);
		free(out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nuscenes), cmocka_unit_test(test_youtube), cmocka_unit_test(test_broken),
		cmocka_unit_test(test_crops),    cmocka_unit_test(test_against_pillow),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
