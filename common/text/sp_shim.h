/* sp_shim.h - the few calls of libsentencepiece that we use, as C. Only common/text includes this. */
#ifndef LWM_TEXT_SP_SHIM_H
#define LWM_TEXT_SP_SHIM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lwm_sp;

/* What failures return: the library's own sentence is in msg; or there was no memory, and msg is empty. */
enum { LWM_SP_FAILED = -1, LWM_SP_NO_MEMORY = -2 };

/* From a serialised model. */
int lwm_sp_open(struct lwm_sp **out, const char *model, size_t n, char *msg, size_t msg_size);
void lwm_sp_close(struct lwm_sp *sp);
/* Number of ids; *ids is malloc'ed. Thread-safe. */
int64_t lwm_sp_encode(const struct lwm_sp *sp, const char *text, size_t n, int32_t **ids, char *msg, size_t msg_size);
int32_t lwm_sp_bos(const struct lwm_sp *sp);
int32_t lwm_sp_eos(const struct lwm_sp *sp);
int32_t lwm_sp_unk(const struct lwm_sp *sp);

/* Gives the next line (without its end) or NULL; the pointer lives until the next call. */
typedef const char *lwm_sp_line(void *user, size_t *n);
/* args: "name", "value", ..., NULL. *model is malloc'ed. */
int lwm_sp_train(const char *const *args, lwm_sp_line *next, void *user, char **model, size_t *n, char *msg,
		 size_t msg_size);

#ifdef __cplusplus
}
#endif

#endif
