/* config.json as other programs write it: read right, or refused with the name of what is not done. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/json.h"
#include "common/model/llama_json.h"

#define SIZES "\"hidden_size\":64,\"intermediate_size\":160,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"vocab_size\":300"
#define LLAMA "\"model_type\":\"llama\","

static int read_it(const char *more, struct lwm_llama_cfg *c, struct lwm_err *e)
{
	char text[1000];
	json_t *o;
	snprintf(text, sizeof text, "{%s%s" SIZES "}", more, *more ? "," : "");
	memset(e, 0, sizeof *e);
	assert_int_equal(lwm_json_parse(&o, text, strlen(text), "config.json", e), 0);
	int rc = lwm_llama_from_json(c, o, "config.json", e);
	json_decref(o);
	return rc;
}

static void what_both_versions_write(void **state)
{
	struct lwm_llama_cfg c;
	struct lwm_err e;
	(void)state;
	/* transformers' own values where a key is missing */
	assert_int_equal(read_it("", &c, &e), 0);
	assert_true(c.kv_heads == 4 && c.max_seq == 2048 && c.rope_theta == 10000 && c.rms_eps == 1e-6 && !c.tie_embeddings);
	/* version 4 */
	assert_int_equal(read_it(LLAMA "\"rope_theta\":5e7,\"rope_scaling\":null,\"num_key_value_heads\":2,\"rms_norm_eps\":1e-5,"
				       "\"max_position_embeddings\":1048576,\"tie_word_embeddings\":true,\"attention_bias\":false,"
				       "\"mlp_bias\":false,\"hidden_act\":\"silu\",\"head_dim\":16,\"torch_dtype\":\"bfloat16\","
				       "\"eos_token_id\":[2,7],\"pretraining_tp\":1", &c, &e), 0);
	assert_true(c.rope_theta == 5e7 && c.kv_heads == 2 && c.rms_eps == 1e-5 && c.max_seq == 1048576 && c.tie_embeddings);
	/* version 5: the base lies inside, and only there */
	assert_int_equal(read_it(LLAMA "\"rope_parameters\":{\"rope_theta\":1e6,\"rope_type\":\"default\"},\"dtype\":\"float32\"", &c, &e), 0);
	assert_true(c.rope_theta == 1e6);
	assert_int_equal(read_it("\"rope_scaling\":{\"rope_type\":\"default\"},\"rope_theta\":500000", &c, &e), 0);
	assert_true(c.rope_theta == 500000);
	/* the same transformer under other names */
	assert_int_equal(read_it("\"model_type\":\"mistral\",\"sliding_window\":null", &c, &e), 0);
	assert_int_equal(read_it("\"model_type\":\"mistral\",\"sliding_window\":4096,\"use_sliding_window\":false", &c, &e), 0);
	assert_int_equal(read_it("\"hidden_act\":\"swish\"", &c, &e), 0);
}

static void what_is_refused_is_named(void **state)
{
	static const char *const bad[][2] = {
		{ "\"model_type\":\"qwen2\"", "model_type is \"qwen2\"" },
		{ "\"model_type\":\"gemma\"", "model_type is \"gemma\"" },
		{ "\"model_type\":\"gpt2\"", "model_type is \"gpt2\"" },
		{ "\"model_type\":7", "model_type is 7" },
		{ "\"model_type\":\"mistral\"", "no sliding_window, which means 4096" },
		{ "\"model_type\":\"mistral\",\"sliding_window\":4096", "sliding_window is 4096" },
		{ LLAMA "\"sliding_window\":1024", "sliding_window is 1024" },
		{ LLAMA "\"use_sliding_window\":true,\"sliding_window\":4096", "sliding_window is 4096" },
		{ LLAMA "\"hidden_act\":\"gelu\"", "hidden_act is \"gelu\"" },
		{ LLAMA "\"attention_bias\":true", "attention_bias is true" },
		{ LLAMA "\"mlp_bias\":true", "mlp_bias is true" },
		{ LLAMA "\"head_dim\":32", "head_dim is 32" },
		{ LLAMA "\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}", "rope_scaling is \"linear\"" },
		{ LLAMA "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}", "rope_scaling is \"llama3\"" },
		{ LLAMA "\"rope_scaling\":{\"factor\":2}", "rope_scaling is {\"factor\":2}" },
		{ LLAMA "\"rope_parameters\":{\"rope_theta\":1e4,\"rope_type\":\"yarn\",\"factor\":4}", "rope_parameters is \"yarn\"" },
		{ LLAMA "\"rope_parameters\":{\"rope_theta\":1e4,\"partial_rotary_factor\":0.5}", "partial_rotary_factor is 0.5" },
		{ LLAMA "\"partial_rotary_factor\":0.25", "partial_rotary_factor is 0.25" },
		{ LLAMA "\"quantization_config\":{\"bits\":4}", "weights are quantized" },
	};
	struct lwm_llama_cfg c;
	struct lwm_err e;
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(read_it(bad[i][0], &c, &e), -LWM_ECONFIG);
		if (!strstr(e.msg, bad[i][1]) || !strstr(e.msg, "config.json"))
			fail_msg("%s: %s", bad[i][0], e.msg);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_both_versions_write),
		cmocka_unit_test(what_is_refused_is_named),
	};
	return cmocka_run_group_tests_name("llama_json", tests, NULL, NULL);
}
