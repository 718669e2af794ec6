/* dense_int.h - between dense*.c and the hot loops they call. */
#ifndef LK_CPU_DENSE_INT_H
#define LK_CPU_DENSE_INT_H

#include "kernels/cpu/cpu_int.h"

#endif
