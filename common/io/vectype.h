/* vectype.h - inside common/io: what kinds of vectors an HDF5 file of ours has. A format is a table of them (vecfile.h). */
#ifndef LWM_IO_VECTYPE_H
#define LWM_IO_VECTYPE_H

#include <stdint.h>

enum lwm_vtype {
	LWM_V_U8,
	LWM_V_U16,
	LWM_V_U32,
	LWM_V_I64,
	LWM_V_U64,
	LWM_V_F32,
	LWM_V_TEXT,  /* one string of n bytes */
	LWM_V_TOKENS, /* reading only: U16 or U32 */
	LWM_V_UINT    /* reading only: U16, U32 or I64 */
};
int lwm_vtype_bytes(enum lwm_vtype t); /* of one value; of TEXT one byte of it */

#define LWM_VF_MAX 12 /* vectors of a file, `sums` not counted */

/* As n of a vector. Writing: the file gets none of that name. Reading: it may lack it, and n becomes 0 then. */
enum { LWM_VEC_ABSENT = -1 };

struct lwm_vec {
	const char *name;
	enum lwm_vtype type;
	int64_t n; /* writing: values it will get; reading: filled */
};

#endif
