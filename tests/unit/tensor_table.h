/* tensor_table.h - a table of tensors out of an array of names and shapes. */
#ifndef LWM_TESTS_UNIT_TENSOR_TABLE_H
#define LWM_TESTS_UNIT_TENSOR_TABLE_H

#include "common/tensor/tensor.h"

#define TABLE(array, entries) (&(const struct lwm_tensors){ .list = (struct lwm_tensor *)(uintptr_t)(array), .n = (entries) })

#endif
