/* llama_json.h - the configuration of a LLaMA as the config.json that other programs read and write. */
#ifndef LWM_MODEL_LLAMA_JSON_H
#define LWM_MODEL_LLAMA_JSON_H

#include <jansson.h>

#include "common/model/llama.h"

/* Hugging Face's LlamaForCausalLM config.json plus our "lwm" object. *out is decref'ed by the caller. Reading takes what versions 4
 * and 5 of transformers write; another family, a window, biases, another activation, scaled rotation, heads of another size or
 * quantized weights are -LWM_ECONFIG naming the key and its value. */
int lwm_llama_to_json(const struct lwm_llama_cfg *c, json_t **out, struct lwm_err *e);
/* A trunk (trunk.h): the same with `input_dim`, and a class of ours, which no other program takes for a language model. Read by
 * lwm_llama_from_json, too. */
int lwm_trunk_to_json(const struct lwm_llama_cfg *c, json_t **out, struct lwm_err *e);
int lwm_llama_from_json(struct lwm_llama_cfg *c, const json_t *o, const char *name, struct lwm_err *e);

#endif
