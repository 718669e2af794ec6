/* The words of the needle-in-a-haystack evaluation, as published. */
#include "common/data/needle.h"

#include <inttypes.h>

static const char *const cities[] = {
	"Almaty", "Amman", "Amsterdam", "Antananarivo", "Astana", "Athens", "Baghdad", "Bangalore", "Bangkok",
	"Barcelona", "Beirut", "Belgrade", "Berlin", "Bratislava", "Brussels", "Bucharest", "Budapest",
	"Buenos Aires", "Cairo", "Chicago", "Colombo", "Copenhagen", "Dakar", "Damascus", "Delhi", "Doha",
	"Dubai", "Helsinki", "Ho Chi Minh City", "Istanbul", "Jakarta", "Johannesburg", "Kampala", "Khartoum",
	"Kigali", "Kuala Lumpur", "Lagos", "Lima", "Lisbon", "Los Angeles", "Madrid", "Maputo", "Melbourne",
	"Mexico City", "Moscow", "Mumbai", "Nairobi", "Oslo", "Paris", "Port Louis", "Rabat", "San Francisco",
	"Santiago", "Sarajevo", "Seattle", "Seoul", "Shanghai", "Sofia", "Sydney", "Tashkent", "Thimphu",
	"Tokyo", "Toronto", "Tunis", "Vancouver", "Victoria", "Vienna", "Yangon", "Yerevan",
};

int64_t lwm_needle_cities(void)
{
	return (int64_t)(sizeof cities / sizeof *cities);
}

const char *lwm_needle_city(int64_t i)
{
	return cities[i];
}

void lwm_needle_draw_cities(struct lwm_rng *r, int64_t k, int64_t *out)
{
	int64_t pool[sizeof cities / sizeof *cities], n = lwm_needle_cities();
	for (int64_t i = 0; i < n; i++)
		pool[i] = i;
	for (int64_t i = 0; i < k && i < n; i++) {
		int64_t j = i + lwm_rng_below(r, n - i);
		out[i] = pool[j];
		pool[j] = pool[i];
	}
}

int64_t lwm_needle_draw_number(struct lwm_rng *r)
{
	return 1000000 + lwm_rng_below(r, 9000000);
}

void lwm_needle_text(struct lwm_str *out, const char *city, int64_t number)
{
	lwm_str_printf(out, "\nThe special magic %s number is: %" PRId64 "\n", city, number);
}

void lwm_needle_question_single(struct lwm_str *out, const char *city)
{
	lwm_str_printf(out, "What is the special magic %s number?", city);
}

void lwm_needle_question_multi(struct lwm_str *out, const char *const *names, int64_t n)
{
	if (n == 1) {
		lwm_str_printf(out, "What is the special magic number for %s?", names[0]);
		return;
	}
	lwm_str_puts(out, "What are the special magic numbers for ");
	for (int64_t i = 0; i < n; i++)
		lwm_str_printf(out, "%s%s%s", i == n - 1 ? "and " : "", names[i], i == n - 1 ? "?" : ", ");
}

const char *lwm_needle_prompt_head(void)
{
	return "You are a helpful assistant. USER: ";
}

void lwm_needle_prompt_tail_single(struct lwm_str *out, const char *question)
{
	lwm_str_printf(out, " %s Don't give information outside the document or repeat your findings. "
		       "Keep your response short and direct. ASSISTANT: ", question);
}

void lwm_needle_prompt_tail_multi(struct lwm_str *out, const char *question)
{
	lwm_str_printf(out, " %s Don't give information outside the document. ASSISTANT: ", question);
}
