/* The made-up world: the published needle strings, documents of the length asked for, items that depend on their
 * number. */
#include "tests/unit/data_fixture.h"

#include <jansson.h>
#include <math.h>

#include "common/data/needle.h"
#include "common/synth/synth.h"

static void test_needle_strings(void **state)
{
	(void)state;
	struct lwm_str s = { 0 };
	const char *three[] = { "Oslo", "Lima", "Doha" };
	assert_int_equal(lwm_needle_cities(), 69);
	for (int64_t i = 1; i < 69; i++)
		assert_true(strcmp(lwm_needle_city(i - 1), lwm_needle_city(i)) < 0);
	lwm_needle_text(&s, "Oslo", 1234567);
	assert_string_equal(s.s, "\nThe special magic Oslo number is: 1234567\n");
	lwm_str_reset(&s);
	lwm_needle_question_single(&s, "Oslo");
	assert_string_equal(s.s, "What is the special magic Oslo number?");
	lwm_str_reset(&s);
	lwm_needle_question_multi(&s, three, 1);
	assert_string_equal(s.s, "What is the special magic number for Oslo?");
	lwm_str_reset(&s);
	lwm_needle_question_multi(&s, three, 2);
	assert_string_equal(s.s, "What are the special magic numbers for Oslo, and Lima?");
	lwm_str_reset(&s);
	lwm_needle_question_multi(&s, three, 3);
	assert_string_equal(s.s, "What are the special magic numbers for Oslo, Lima, and Doha?");
	lwm_str_reset(&s);
	lwm_str_printf(&s, "%sC", lwm_needle_prompt_head());
	lwm_needle_prompt_tail_single(&s, "Q?");
	assert_string_equal(s.s, "You are a helpful assistant. USER: C Q? Don't give information outside the document "
				 "or repeat your findings. Keep your response short and direct. ASSISTANT: ");
	lwm_str_reset(&s);
	lwm_str_printf(&s, "%sC", lwm_needle_prompt_head());
	lwm_needle_prompt_tail_multi(&s, "Q?");
	assert_string_equal(s.s, "You are a helpful assistant. USER: C Q? Don't give information outside the document. "
				 "ASSISTANT: ");
	lwm_str_release(&s);
}

static void test_draws(void **state)
{
	(void)state;
	int64_t city[69], seen[69] = { 0 };
	for (uint64_t i = 0; i < 200; i++) {
		struct lwm_rng r = lwm_rng_at(1, LWM_RNG_TEST, 5, i);
		int64_t n = lwm_needle_draw_number(&r);
		assert_true(n >= 1000000 && n <= 9999999);
		lwm_needle_draw_cities(&r, 69, city);
		for (int k = 0; k < 69; k++)
			seen[city[k]]++;
	}
	for (int k = 0; k < 69; k++)
		assert_int_equal(seen[k], 200);
}

static void test_needle_documents(void **state)
{
	(void)state;
	struct lwm_tokenizer *t;
	struct lwm_str prompt = { 0 }, answer = { 0 }, again = { 0 };
	OK(lwm_tokenizer_open(&t, "bytes", &err));
	for (int64_t i = 0; i < 200; i++) {
		struct lwm_synth_needle how = { .seed = 3, .facts = 1 + i % 4, .tokens = 600 + 40 * (i % 7),
						.tokenizer = t };
		how.ask = 1 + i % how.facts;
		OK(lwm_synth_write_needle(&how, i, &prompt, &answer, &err));
		int64_t n = (int64_t)(prompt.len + answer.len) + 2;
		assert_true(n <= how.tokens && n > how.tokens / 2 - 120); /* a sentence more would not fit */
		char number[8];
		for (int64_t k = 0; k < how.ask; k++) { /* every number asked for stands in the context, once */
			memcpy(number, answer.s + 9 * k, 7);
			number[7] = 0;
			const char *at = strstr(prompt.s, number);
			assert_non_null(at);
			assert_null(strstr(at + 1, number));
			assert_true(at - prompt.s > 4 && !memcmp(at - 4, "is: ", 4));
		}
		assert_int_equal(answer.len, 9 * how.ask - 2);
		int64_t facts = 0;
		for (const char *s = prompt.s; (s = strstr(s, "number is: ")); s++)
			facts++;
		assert_int_equal(facts, how.facts);
		OK(lwm_synth_write_needle(&how, i, &again, &answer, &err));
		assert_string_equal(again.s, prompt.s);
		how.sentences = true;
		OK(lwm_synth_write_needle(&how, i, &again, &answer, &err));
		assert_int_equal(memcmp(answer.s, "The special magic ", 18), 0);
	}
	int64_t asked[4] = { 0 };
	for (int64_t i = 0; i < 200; i++) { /* ask 0: any number of them */
		struct lwm_synth_needle any = { .seed = 3, .facts = 3, .tokens = 600, .tokenizer = t };
		OK(lwm_synth_write_needle(&any, i, &prompt, &answer, &err));
		asked[(answer.len + 2) / 9]++;
		assert_true(!strstr(prompt.s, "What is the special magic ") == !(answer.len == 7));
	}
	assert_true(asked[1] > 40 && asked[2] > 40 && asked[3] > 40);
	struct lwm_synth_needle how = { .facts = 2, .ask = 1, .tokens = 100, .tokenizer = t };
	lwm_err_clear(&err);
	assert_int_equal(lwm_synth_write_needle(&how, 0, &prompt, &answer, &err), -LWM_ECONFIG);
	lwm_str_release(&prompt);
	lwm_str_release(&answer);
	lwm_str_release(&again);
	lwm_tokenizer_free(t);
}

static void test_books(void **state)
{
	(void)state;
	struct lwm_str a = { 0 }, q = { 0 }, b = { 0 }, unused = { 0 };
	lwm_synth_write_book(1, 4, 300, 5, &a, &q);
	lwm_synth_write_book(1, 4, 300, 5, &b, &unused);
	assert_string_equal(a.s, b.s);
	lwm_str_reset(&b);
	lwm_synth_write_book(1, 5, 300, 5, &b, &unused);
	assert_string_not_equal(a.s, b.s);
	int64_t lines = 0;
	for (char *s = q.s; *s; lines++) { /* each fact asked for is in the book: "the T of N" ... "is C." */
		char *end = strchr(s, '\n'), want[100];
		json_t *o = json_loadb(s, (size_t)(end - s), 0, NULL);
		assert_non_null(o);
		const char *ask = json_string_value(json_object_get(o, "question"));
		const char *colour = json_string_value(json_object_get(o, "answer"));
		assert_int_equal(memcmp(ask, "What colour is the ", 19), 0);
		snprintf(want, sizeof want, "The %.*s is %s.", (int)strlen(ask) - 20, ask + 19, colour);
		assert_non_null(strstr(a.s, want));
		json_decref(o);
		s = end + 1;
	}
	assert_int_equal(lines, 5);
	lwm_str_release(&a);
	lwm_str_release(&b);
	lwm_str_release(&q);
	lwm_str_release(&unused);
}

/* Two turns: the second asks for another part of what the first one told than its question was about, by its kind alone. */
static void test_dialogues(void **state)
{
	(void)state;
	static const char *const kind[] = { "And where was that?", "And what was there?", "And what colour was it?",
					    "And who was that?" };
	static const char *const ask[] = { "Where is ", "What has ", "What colour is the ", "Who has the " };
	struct lwm_str line = { 0 }, again = { 0 };
	int seen[4][4] = { { 0 } };
	for (int64_t i = 0; i < 400; i++) {
		char name[16], place[16], colour[16], thing[16], q[64], want[4][2][64];
		lwm_str_reset(&line);
		lwm_str_reset(&again);
		lwm_synth_write_dialogue(9, i, &line);
		lwm_synth_write_dialogue(9, i, &again);
		assert_string_equal(line.s, again.s);
		json_t *o = json_loads(line.s, 0, NULL), *m = json_object_get(o, "messages");
		const char *said[4];
		assert_int_equal(json_array_size(m), 4);
		for (size_t k = 0; k < 4; k++) {
			json_t *turn = json_array_get(m, k);
			assert_string_equal(json_string_value(json_object_get(turn, "role")), k % 2 ? "assistant" : "user");
			said[k] = json_string_value(json_object_get(turn, "content"));
		}
		assert_int_equal(sscanf(said[0], "%15s came to the %15s with a %15s %15[a-z].", name, place, colour, thing), 4);
		snprintf(want[0][0], 64, "%s is at the %s.", name, place);
		snprintf(want[0][1], 64, "At the %s.", place);
		snprintf(want[1][0], 64, "%s has a %s.", name, thing);
		snprintf(want[1][1], 64, "There was a %s.", thing);
		snprintf(want[2][0], 64, "The %s is %s.", thing, colour);
		snprintf(want[2][1], 64, "It was %s.", colour);
		snprintf(want[3][0], 64, "%s has the %s.", name, thing);
		snprintf(want[3][1], 64, "It was %s.", name);
		int first = 0, second = 0;
		while (first < 4 && strcmp(said[1], want[first][0]))
			first++;
		while (second < 4 && strcmp(said[2], kind[second]))
			second++;
		assert_true(first < 4 && second < 4 && first != second);
		snprintf(q, sizeof q, "%s%s?", ask[first], first < 2 ? name : thing);
		assert_string_equal(strstr(said[0], ". ") + 2, q);
		assert_string_equal(said[3], want[second][1]);
		seen[first][second]++;
		json_decref(o);
	}
	for (int k = 0; k < 16; k++)
		assert_true(k % 5 == 0 || seen[k / 4][k % 4] > 10);
	lwm_str_release(&line);
	lwm_str_release(&again);
}

/* The shape has its colour, lies inside the frame, and moves the way its caption says. */
static void test_clips(void **state)
{
	(void)state;
	enum { SIZE = 32, N = 8 };
	static uint8_t rgb[SIZE * SIZE * 3];
	for (int64_t i = 0; i < 120; i++) {
		struct lwm_synth_clip c = lwm_synth_draw_clip(2, i);
		struct lwm_str cap = { 0 }, record = { 0 };
		double cx[N], cy[N];
		char name[16] = "";
		uint8_t colour[3];
		lwm_synth_write_caption(&c, false, &cap);
		assert_int_equal(sscanf(cap.s, "a %15s", name), 1);
		int k = 0;
		while (lwm_synth_find_colour(k, colour) && strcmp(lwm_synth_find_colour(k, colour), name))
			k++;
		assert_non_null(lwm_synth_find_colour(k, colour));
		for (int t = 0; t < N; t++) {
			int64_t n = 0, sx = 0, sy = 0;
			lwm_synth_render_frame(&c, t, N, SIZE, rgb);
			for (int p = 0; p < SIZE * SIZE; p++)
				if (!memcmp(rgb + 3 * p, colour, 3)) {
					n++;
					sx += p % SIZE;
					sy += p / SIZE;
				}
			assert_true(n > 20 && n < SIZE * SIZE / 4);
			cx[t] = (double)sx / (double)n;
			cy[t] = (double)sy / (double)n;
		}
		double dx = cx[N - 1] - cx[0], dy = cy[N - 1] - cy[0];
		assert_true(!strstr(cap.s, "moves left") == !(dx < -8));
		assert_true(!strstr(cap.s, "moves right") == !(dx > 8));
		assert_true(!strstr(cap.s, "moves up") == !(dy < -8));
		assert_true(!strstr(cap.s, "moves down") == !(dy > 8));
		lwm_synth_write_record(&c, false, i, &record);
		json_t *o = json_loads(record.s, 0, NULL);
		assert_non_null(o);
		assert_string_equal(json_string_value(json_object_get(o, "caption")), cap.s);
		json_decref(o);
		lwm_str_release(&cap);
		lwm_str_release(&record);
	}
}

/* The truth of a drive against its frames and its actions; every command moves the car as it says, from where it begins. */
static void test_drives(void **state)
{
	enum { SIZE = 64, N = 8 };
	static uint8_t rgb[2][SIZE * SIZE * 3];
	int seen[4] = { 0 }, differ = 0, goals = 0, early = 0;
	(void)state;
	for (int64_t i = 0; i < 60; i++) {
		struct lwm_synth_drive d = lwm_synth_draw_drive(7, i), again = lwm_synth_draw_drive(7, i);
		struct lwm_synth_drive other = lwm_synth_draw_drive(8, i);
		assert_memory_equal(&d, &again, sizeof d);
		differ += memcmp(&d, &other, sizeof d) != 0;
		assert_in_range(d.side[0] + 1, 0, 2);
		double x0 = 0;
		for (int t = 0; t < N; t++) {
			struct lwm_action a;
			double x, y;
			lwm_synth_render_drive(&d, t, SIZE, rgb[t % 2]);
			assert_true(lwm_synth_find_car(rgb[t % 2], SIZE, SIZE, &x, &y));
			assert_true(fabs(x - (0.5 + 0.16 * d.side[t])) < 0.02 && fabs(y - 0.62) < 0.03);
			if (t == 0) {
				x0 = x;
				assert_int_equal(lwm_synth_drive_action(&d, 0, &a), -1);
				continue;
			}
			assert_int_equal(lwm_synth_drive_action(&d, t, &a), 0);
			assert_int_equal(a.cmd, d.cmd[t]);
			seen[a.cmd]++;
			int moved = d.side[t] - d.side[t - 1], driven = d.way[t] - d.way[t - 1];
			int to = a.cmd == LWM_CMD_LEFT ? -1 : a.cmd == LWM_CMD_RIGHT ? 1 : 0;
			assert_true(moved == to || (moved == 0 && d.side[t] == 2 * to));
			assert_true(a.cmd == LWM_CMD_STOP ? driven == 0 : driven >= 1 && driven <= 3);
			if (d.way[t - 1] >= d.sign_at && driven)
				assert_int_equal(driven, d.sign ? 3 : 1);
			early += d.way[t - 1] < d.sign_at && driven && driven != (d.sign ? 3 : 1);
			/* the first command moves the car where it says: nothing else could */
			if (t == 1)
				assert_true(to < 0 ? x < x0 - 0.1 : to > 0 ? x > x0 + 0.1 : fabs(x - x0) < 0.02);
			/* numbers: metres of a picture of 20 m, km/h, within the table of actions */
			assert_true(fabs(a.traj[0] - 3.2 * moved) < 1e-9 && fabs(a.traj[1] - 2.5 * driven) < 1e-9);
			assert_true(fabs(a.traj[7] - 2.5 * (d.way[t + 3] - d.way[t - 1])) < 1e-9);
			assert_true(fabs(a.traj[6] - 3.2 * (d.side[t + 3] - d.side[t - 1])) < 1e-9);
			assert_true(fabs(a.speed[0] - 18 * driven) < 1e-9 && fabs(a.steer[0] + 0.5 * moved) < 1e-9);
			assert_true(fabs(a.speed[3] - 18 * (d.way[t + 3] - d.way[t + 2])) < 1e-9);
			if (a.has & LWM_ACTION_BIT(LWM_ACTION_GOAL)) {
				goals++;
				assert_true(fabs(a.goal[0] - 0.5 - 0.16 * d.side[t + 3]) < 1e-9);
				assert_true(fabs(a.goal[1] - 0.62 + a.traj[7] / 20) < 1e-9);
			}
			for (int m = 1; m < LWM_ACTION_MODES; m++)
				for (int k = 0; k < lwm_action_numbers((enum lwm_action_mode)m); k++) {
					const double *const of[] = { NULL, a.traj, a.speed, a.steer, a.goal };
					assert_true(lwm_action_bin((enum lwm_action_mode)m, k, of[m][k]) >= 0);
				}
			/* the road goes by unless the car stands */
			bool same = !memcmp(rgb[0], rgb[1], sizeof rgb[0]);
			bool straight = t < 2 || d.side[t - 1] == d.side[t - 2]; /* the picture before shows no turn */
			assert_true(driven ? !same : !straight || same);
		}
	}
	assert_true(differ > 55 && goals > 20 && early > 50);
	for (int c = 0; c < 4; c++)
		assert_true(seen[c] > 10);
	struct lwm_action a;
	struct lwm_synth_drive d = lwm_synth_draw_drive(7, 0);
	assert_int_equal(lwm_synth_drive_action(&d, LWM_SYNTH_DRIVE_MOST, &a), 0);
	assert_int_equal(lwm_synth_drive_action(&d, LWM_SYNTH_DRIVE_MOST + 1, &a), -1);
	memset(rgb, 90, sizeof rgb);
	double x, y;
	assert_false(lwm_synth_find_car(rgb[0], SIZE, SIZE, &x, &y));
}

/* What is written is what the readers of drives take. */
static void test_drive_record(void **state)
{
	struct lwm_synth_drive d = lwm_synth_draw_drive(7, 3);
	struct lwm_str s = { 0 };
	(void)state;
	lwm_synth_write_drive(&d, 5, &s);
	json_t *o = json_loads(lwm_str_get(&s), 0, NULL), *list = json_object_get(o, "actions");
	assert_non_null(o);
	assert_int_equal(json_array_size(list), 5);
	assert_true(json_is_null(json_array_get(list, 0)));
	for (int t = 1; t < 5; t++) {
		struct lwm_action a, b;
		OK(lwm_action_read(&a, json_array_get(list, (size_t)t), &err));
		assert_int_equal(lwm_synth_drive_action(&d, t, &b), 0);
		assert_int_equal(a.has, b.has);
		assert_int_equal(a.cmd, b.cmd);
		for (int k = 0; k < 8; k++)
			assert_true(fabs(a.traj[k] - b.traj[k]) < 1e-6);
	}
	json_t *truth = json_object_get(o, "truth");
	for (size_t t = 0; t < 5; t++) {
		assert_true(fabs(json_number_value(json_array_get(json_object_get(truth, "x"), t)) - 0.5 - 0.16 * d.side[t]) < 1e-6);
		assert_true(fabs(json_number_value(json_array_get(json_object_get(truth, "metres"), t)) - 2.5 * d.way[t]) < 1e-6);
	}
	assert_non_null(strstr(json_string_value(json_object_get(o, "caption")), lwm_action_cmds[d.cmd[1]]));
	json_decref(o);
	lwm_str_release(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_needle_strings), cmocka_unit_test(test_draws),
		cmocka_unit_test(test_needle_documents), cmocka_unit_test(test_books), cmocka_unit_test(test_dialogues),
		cmocka_unit_test(test_clips),
		cmocka_unit_test(test_drives), cmocka_unit_test(test_drive_record),
	};
	return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
