/* ingest_int.h - records of text files, inside common/data. */
#ifndef LWM_DATA_INGEST_INT_H
#define LWM_DATA_INGEST_INT_H

#include "common/data/ingest.h"
#include "common/data/lines.h"

struct lwm_record {
	struct lwm_str text;
	int64_t line;      /* where it starts, from 1 */
	bool json;
	const char *fault; /* why it is rejected; malformed says which kind of reason */
	bool malformed;
	struct lwm_err why;
	struct lwm_docbuf doc;
};

struct lwm_reader {
	const struct lwm_ingest_cfg *cfg;
	struct lwm_lines *l;
	const char *path;
	bool json, any, end;
	int64_t line;
};
/* Opens a text file. */
int lwm_reader_open(struct lwm_reader *r, const struct lwm_ingest_cfg *cfg, const char *path, struct lwm_err *e);
void lwm_reader_close(struct lwm_reader *r);
/* The next record into *rec (its memory is reused): 1, 0 at the end, negative. */
int lwm_reader_next(struct lwm_reader *r, struct lwm_record *rec, struct lwm_err *e);

/* Tokenises *rec; what is wrong with the record itself goes into rec->fault. Any thread. */
int lwm_record_encode(struct lwm_record *rec, const struct lwm_ingest_cfg *cfg, const char *path, struct lwm_err *e);

#endif
