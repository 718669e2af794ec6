/* llama_json.c - config.json of a LLaMA, as Hugging Face's transformers 4 and 5 write it. What it asks for and we do not compute
 * is refused by name: a model that opens is the model that was meant. */
#include <inttypes.h>
#include <string.h>

#include "common/base/json.h"
#include "common/model/llama_json.h"

int lwm_llama_to_json(const struct lwm_llama_cfg *c, json_t **out, struct lwm_err *e)
{
	*out = json_pack("{s:[s] s:s s:I s:I s:I s:I s:I s:I s:I s:f s:f s:f s:b s:s s:i s:i s:s s:b s:b}", "architectures",
			 "LlamaForCausalLM", "model_type", "llama", "hidden_size", (json_int_t)c->dim,
			 "intermediate_size", (json_int_t)c->ffn, "num_hidden_layers", (json_int_t)c->layers,
			 "num_attention_heads", (json_int_t)c->heads, "num_key_value_heads", (json_int_t)c->kv_heads,
			 "vocab_size", (json_int_t)c->vocab_text, "max_position_embeddings", (json_int_t)c->max_seq,
			 "rope_theta", c->rope_theta, "rms_norm_eps", c->rms_eps, "initializer_range", c->init_std,
			 "tie_word_embeddings", (int)c->tie_embeddings, "hidden_act", "silu", "bos_token_id", 1,
			 "eos_token_id", 2, "torch_dtype", "float32", "attention_bias", 0, "mlp_bias", 0);
	if (*out && (!c->vision_rows ||
		     !json_object_set_new(*out, "lwm",
					  json_pack("{s:I s:I s:I s:I}", "vision_vocab", (json_int_t)c->vision_rows, "codes",
						    (json_int_t)c->vision_codes, "eof", (json_int_t)c->vision_codes, "eov",
						    (json_int_t)(c->vision_codes + 1)))))
		return 0;
	json_decref(*out);
	*out = NULL;
	return lwm_fail(e, LWM_EMEMORY, "out of memory for a model configuration");
}

int lwm_trunk_to_json(const struct lwm_llama_cfg *c, json_t **out, struct lwm_err *e)
{
	LWM_TRY(lwm_llama_to_json(c, out, e));
	if (!json_object_set_new(*out, "_class_name", json_string("LwmTrunk")) &&
	    !json_object_set_new(*out, "architectures", json_pack("[s]", "LwmTrunk")) &&
	    !json_object_set_new(*out, "input_dim", json_integer((json_int_t)c->input_dim)))
		return 0;
	json_decref(*out);
	*out = NULL;
	return lwm_fail(e, LWM_EMEMORY, "out of memory for a model configuration");
}

/* ---- reading ---- */

static bool is_set(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);
	return v && !json_is_null(v);
}

static int optional_int(const json_t *o, const char *key, int64_t *out, const char *name, struct lwm_err *e)
{
	return is_set(o, key) ? lwm_json_int(o, key, out, name, e) : 0;
}

static int optional_double(const json_t *o, const char *key, double *out, const char *name, struct lwm_err *e)
{
	return is_set(o, key) ? lwm_json_double(o, key, out, name, e) : 0;
}

static int refuse_key(const char *name, const char *key, const json_t *value, const char *instead, struct lwm_err *e)
{
	char *s;
	LWM_TRY(lwm_json_dump(value, JSON_ENCODE_ANY | JSON_COMPACT, name, &s, e));
	lwm_fail(e, LWM_ECONFIG, "%s: %s is %.60s, which is not supported (%s)", name, key, s, instead);
	free(s);
	return -LWM_ECONFIG;
}

/* "rope_scaling" of version 4, "rope_parameters" of version 5: only plain rotation, of any base. */
static int read_rope(const json_t *o, double *theta, const char *name, struct lwm_err *e)
{
	static const char *const keys[] = { "rope_scaling", "rope_parameters" };
	LWM_TRY(optional_double(o, "rope_theta", theta, name, e));
	for (int i = 0; i < 2; i++) {
		const json_t *rope = json_object_get(o, keys[i]);
		if (!rope || json_is_null(rope))
			continue;
		const json_t *kind = json_object_get(rope, "rope_type");
		kind = kind ? kind : json_object_get(rope, "type");
		if (!json_is_object(rope) || (kind && (!json_is_string(kind) || strcmp(json_string_value(kind), "default"))) ||
		    (i == 0 && !kind))
			return refuse_key(name, keys[i], kind ? kind : rope, "a larger rope_theta alone extends the context", e);
		double part = 1;
		LWM_TRY(optional_double(rope, "rope_theta", theta, name, e));
		LWM_TRY(optional_double(rope, "partial_rotary_factor", &part, name, e));
		if (part != 1)
			return refuse_key(name, "partial_rotary_factor", json_object_get(rope, "partial_rotary_factor"),
				      "whole heads are rotated", e);
	}
	return 0;
}

/* Attention that reaches so many tokens back only: fine when it is switched off, said in either of two ways. */
static int check_window(const json_t *o, bool mistral, const char *name, struct lwm_err *e)
{
	const json_t *used = json_object_get(o, "use_sliding_window");
	if (json_is_false(used))
		return 0;
	if (is_set(o, "sliding_window"))
		return refuse_key(name, "sliding_window", json_object_get(o, "sliding_window"), "every token sees all before it", e);
	if (mistral && !json_object_get(o, "sliding_window"))
		return lwm_fail(e, LWM_ECONFIG, "%s: has no sliding_window, which means 4096 for a mistral; not supported (write null for "
				"attention to all tokens)", name);
	return 0;
}

static int check_family(const json_t *o, const char *name, struct lwm_err *e)
{
	const json_t *type = json_object_get(o, "model_type"), *act = json_object_get(o, "hidden_act");
	bool mistral = json_is_string(type) && !strcmp(json_string_value(type), "mistral");
	static const char *const off[] = { "attention_bias", "mlp_bias" };
	static const char *const quantized[] = { "quantization_config", "quantization" };
	double part = 1;
	if (is_set(o, "model_type") && !mistral && (!json_is_string(type) || strcmp(json_string_value(type), "llama")))
		return refuse_key(name, "model_type", type, "llama is, and mistral without a window", e);
	LWM_TRY(check_window(o, mistral, name, e));
	if (is_set(o, "hidden_act") && (!json_is_string(act) || (strcmp(json_string_value(act), "silu") &&
								  strcmp(json_string_value(act), "swish"))))
		return refuse_key(name, "hidden_act", act, "silu is", e);
	for (int i = 0; i < 2; i++)
		if (is_set(o, off[i]) && !json_is_false(json_object_get(o, off[i])))
			return refuse_key(name, off[i], json_object_get(o, off[i]), "there are no biases", e);
	for (int i = 0; i < 2; i++)
		if (is_set(o, quantized[i]))
			return lwm_fail(e, LWM_ECONFIG, "%s: has a %s: its weights are quantized, which is not supported", name, quantized[i]);
	LWM_TRY(optional_double(o, "partial_rotary_factor", &part, name, e));
	if (part != 1)
		return refuse_key(name, "partial_rotary_factor", json_object_get(o, "partial_rotary_factor"), "whole heads are rotated", e);
	return 0;
}

static int read_sizes(struct lwm_llama_cfg *c, const json_t *o, const char *name, struct lwm_err *e)
{
	int64_t head_dim = 0;
	LWM_TRY(lwm_json_int(o, "hidden_size", &c->dim, name, e));
	LWM_TRY(lwm_json_int(o, "intermediate_size", &c->ffn, name, e));
	LWM_TRY(lwm_json_int(o, "num_hidden_layers", &c->layers, name, e));
	LWM_TRY(lwm_json_int(o, "num_attention_heads", &c->heads, name, e));
	LWM_TRY(lwm_json_int(o, "vocab_size", &c->vocab_text, name, e));
	c->kv_heads = c->heads;
	LWM_TRY(optional_int(o, "num_key_value_heads", &c->kv_heads, name, e));
	LWM_TRY(optional_int(o, "head_dim", &head_dim, name, e));
	if (head_dim && c->heads > 0 && head_dim != c->dim / c->heads)
		return lwm_fail(e, LWM_ECONFIG, "%s: head_dim is %" PRId64 ", which is not supported (%" PRId64 " = hidden_size / num_attention_heads is)",
				name, head_dim, (c->dim / c->heads));
	return 0;
}

int lwm_llama_from_json(struct lwm_llama_cfg *c, const json_t *o, const char *name, struct lwm_err *e)
{
	const json_t *vision = json_object_get(o, "lwm");
	memset(c, 0, sizeof *c);
	LWM_TRY(check_family(o, name, e));
	LWM_TRY(read_sizes(c, o, name, e));
	c->max_seq = 2048; /* what a missing key means: transformers' LlamaConfig */
	c->rope_theta = 10000;
	c->rms_eps = 1e-6;
	c->init_std = 0.02;
	LWM_TRY(optional_int(o, "max_position_embeddings", &c->max_seq, name, e));
	LWM_TRY(read_rope(o, &c->rope_theta, name, e));
	LWM_TRY(optional_double(o, "rms_norm_eps", &c->rms_eps, name, e));
	LWM_TRY(optional_double(o, "initializer_range", &c->init_std, name, e));
	c->tie_embeddings = json_is_true(json_object_get(o, "tie_word_embeddings"));
	LWM_TRY(optional_int(o, "input_dim", &c->input_dim, name, e));
	if (vision) {
		LWM_TRY(lwm_json_int(vision, "vision_vocab", &c->vision_rows, name, e));
		LWM_TRY(lwm_json_int(vision, "codes", &c->vision_codes, name, e));
	}
	if (lwm_llama_check(c, e) < 0)
		return lwm_context(e, "%s", name);
	return 0;
}
