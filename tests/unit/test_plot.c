/* What pictures say: which colour is good, which way is up, and where the cells of a sweep lie. */
#include "tests/unit/eval_fixture.h"

#include "common/eval/plot.h"

/* Green is good: nine cells of 1 have the colour of the upper end of the legend, nine of 0 that of the lower one. */
static void test_colours_of_a_heatmap(void **state)
{
	static const int64_t x[] = { 1000, 2000, 3000 };
	static const double y[] = { 0, 50, 100 }, all[2][9] = { { 0 }, { 1, 1, 1, 1, 1, 1, 1, 1, 1 } };
	struct lwm_heatmap m = { .title = "", .subtitle = "", .x_label = "", .y_label = "", .x = x, .y = y, .nx = 3, .ny = 3 };
	(void)state;
	for (int good = 0; good < 2; good++) {
		struct lwm_str svg = { 0 };
		int green = 0, red = 0;
		m.value = all[good];
		OK(lwm_plot_draw_heatmap(&svg, &m, LWM_PLOT_SVG, err));
		for (const char *p = svg.s; (p = strstr(p, "rgb(4.705882%,")); p++)
			green++;
		for (const char *p = svg.s; (p = strstr(p, "rgb(94.117647%,")); p++)
			red++;
		assert_int_equal(green, good ? 10 : 1);
		assert_int_equal(red, good ? 1 : 10);
		lwm_str_release(&svg);
	}
}

/* What stands above the cells ends inside the picture, up to the widest one. */
static void test_words_of_a_heatmap_fit(void **state)
{
	static const int64_t x[] = { 1000 };
	static const double y[] = { 0 }, value[] = { 1 };
	char words[2000] = "";
	struct lwm_heatmap m = { .title = "", .subtitle = words, .x_label = "", .y_label = "", .x = x, .y = y, .nx = 1, .ny = 1,
				 .value = value };
	double width[3];
	static const size_t length[] = { 1, 100, 1999 };
	(void)state;
	for (int i = 0; i < 3; i++) {
		struct lwm_str svg = { 0 };
		memset(words, 'm', length[i]);
		OK(lwm_plot_draw_heatmap(&svg, &m, LWM_PLOT_SVG, err));
		const char *p = strstr(svg.s, " width=\"");
		assert_non_null(p);
		width[i] = strtod(p + 8, NULL);
		lwm_str_release(&svg);
	}
	assert_true(width[0] == 560);
	assert_true(width[1] > 100 * 9 + 80 && width[1] < 1200); /* 80 before them, each 9.7 wide */
	assert_true(width[2] == 1200);
}

static void test_grids(void **state)
{
	static const int64_t even[] = { 1000, 3000, 5000, 7000, 9000 }, twice[] = { 1000, 2000, 4000, 8000, 16000 };
	struct lwm_sweep s = { .length_min = 1000, .length_max = 9000, .nlengths = 5, .ndepths = 4 };
	int64_t *lengths, n;
	double *depths;
	(void)state;
	OK(lwm_sweep_lengths(&s, &lengths, &n, err));
	assert_memory_equal(lengths, even, sizeof even);
	free(lengths);
	s.log_lengths = true;
	s.length_max = 16000;
	OK(lwm_sweep_lengths(&s, &lengths, &n, err));
	assert_memory_equal(lengths, twice, sizeof twice);
	free(lengths);
	s.nlengths = 1;
	OK(lwm_sweep_lengths(&s, &lengths, &n, err));
	assert_int_equal(lengths[0], 16000);
	free(lengths);
	OK(lwm_sweep_depths(&s, &depths, &n, err));
	assert_true(depths[0] == 0 && depths[1] == 33 && depths[2] == 67 && depths[3] == 100);
	free(depths);
	s.ndepths = 1;
	OK(lwm_sweep_depths(&s, &depths, &n, err));
	assert_true(n == 1 && depths[0] == 50);
	free(depths);
	/* what rounding makes equal is asked once */
	s.log_lengths = false;
	s.length_max = 1002;
	s.nlengths = 6;
	s.ndepths = 301;
	OK(lwm_sweep_lengths(&s, &lengths, &n, err));
	assert_true(n == 3 && lengths[0] == 1000 && lengths[1] == 1001 && lengths[2] == 1002);
	free(lengths);
	OK(lwm_sweep_depths(&s, &depths, &n, err));
	assert_true(n == 101 && depths[0] == 0 && depths[50] == 50 && depths[100] == 100);
	free(depths);
}

/* A curve from the lower left to the upper right: up is where numbers are larger, also on a scale of powers. */
static void test_a_rising_curve(void **state)
{
	static const double x[] = { 0, 1 }, y[] = { 1, 10 };
	const struct lwm_curve curve = { "up", x, y, 2 };
	struct lwm_chart c = { .title = "t", .x_label = "x", .y_label = "y", .curve = &curve, .ncurves = 1 };
	(void)state;
	for (int log_y = 0; log_y < 2; log_y++) {
		struct lwm_str svg = { 0 };
		double x0, y0, x1, y1;
		c.log_y = log_y;
		OK(lwm_plot_draw_chart(&svg, &c, LWM_PLOT_SVG, err));
		const char *p = strstr(svg.s, "stroke-width");
		while (p && strncmp(p + 13, "1.3", 3) && strncmp(p + 14, "1.3", 3)) /* :1.3 or ="1.3", by the version of cairo */
			p = strstr(p + 1, "stroke-width");
		p = p ? strstr(p, " d=\"M ") : NULL;
		assert_non_null(p);
		assert_int_equal(sscanf(p, " d=\"M %lf %lf L %lf %lf", &x0, &y0, &x1, &y1), 4);
		assert_true(x0 < x1 && y0 > y1); /* y of a picture counts downwards */
		lwm_str_release(&svg);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_colours_of_a_heatmap),
		cmocka_unit_test(test_words_of_a_heatmap_fit),
		cmocka_unit_test(test_grids),
		cmocka_unit_test(test_a_rising_curve),
	};
	return cmocka_run_group_tests(tests, fx_set_up, fx_tear_down);
}
