/* fields_int.h - parsed field strings, inside common/data. */
#ifndef LWM_DATA_INGEST_FIELDS_INT_H
#define LWM_DATA_INGEST_FIELDS_INT_H

#include "common/base/arena.h"
#include "common/data/ingest/fields.h"

enum lwm_element_kind { LWM_ELEMENT_TEXT, LWM_ELEMENT_VISION, LWM_ELEMENT_BOS, LWM_ELEMENT_EOS };

struct lwm_element {
	enum lwm_element_kind kind;
	bool loss;
	const char **key; /* of text: the subfields; of vision: one */
	int64_t nkeys;
};
struct lwm_layout { /* one field string */
	struct lwm_element *v;
	int64_t n;
};

struct lwm_fields {
	struct lwm_arena *mem;
	struct lwm_tokenizer *t;
	struct lwm_fields_cfg cfg; /* its strings are copies in mem */
	struct lwm_layout *layout; /* [cfg.nfields] */
};

/* Everything is allocated in *mem. -LWM_ECONFIG with the reason. */
int lwm_layout_parse(struct lwm_layout *l, const char *text, struct lwm_arena **mem, struct lwm_err *e);

#endif
