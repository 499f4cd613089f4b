/* Sparse products: after ReLU most inputs of a layer are 0, and those are left out.
 *
 * Weights are [columns / together][inputs][together], then [inputs][unit] for what columns are left.
 * Each unit of columns lies in the order that the kernel's `column_at` gives.
 */
#ifndef QS_SPARSE_H
#define QS_SPARSE_H

#include "linear.h"

/* Pack rows [outputs, inputs] of bytes, outputs being a multiple of the kernel's unit, and the largest
 * absolute weight of each input. */
void qs_pack_sparse(const qs_sparse *sparse, const int8_t *rows, int outputs, int inputs,
                    int8_t *packed, uint8_t *largest);

/* As qs_apply, of a layer that is packed like this. */
void qs_apply_sparse(const qs_kernel *kernel, const qs_linear *linear, const uint8_t *bytes,
                     size_t byte_stride, const float *row_steps, int rows, qs_finish *finish,
                     float *out, size_t stride, int32_t *sums, qs_gathered *scratch);

#endif
