/* Sizes of the values of vectors: for the file that holds them, and for HDF5, which gives them their places in it. */
#include "common/io/vectype.h"

int lwm_vtype_bytes(enum lwm_vtype t)
{
	switch (t) {
	case LWM_V_U16: return 2;
	case LWM_V_U32:
	case LWM_V_F32: return 4;
	case LWM_V_I64:
	case LWM_V_U64: return 8;
	default: return 1;
	}
}
