/* Linear layers: packing weights, and products of many rows. */
#ifndef QS_LINEAR_H
#define QS_LINEAR_H

#include "model.h"

enum {
    QS_ROWS = 64,       /* rows of a product at once: their bytes stay in the first caches */
    QS_SUMS = 64 * 64,  /* sums of a panel: 16 KB */
    QS_LONGEST_PANEL = QS_SUMS
};

/* Columns of a panel for so many rows (QS_ROWS at most): a multiple of QS_BLOCK. */
static inline int qs_panel_columns(int rows, int outputs) {
    int columns = QS_SUMS / rows / QS_BLOCK * QS_BLOCK;
    return columns < outputs ? columns : outputs;
}

/* Pack rows [outputs, inputs] of bytes; `packed` has room for outputs up to a multiple of 16. */
void qs_pack(const int8_t *rows, int outputs, int inputs, int8_t *packed);

/* Find an order of packed weights whose sums start from `start` [outputs], and bring them into it.
 * 1, or 0 where there is not enough memory. */
int qs_reorder(int8_t *packed, int outputs, int inputs, const int32_t *start, qs_order *order);

/* What sums start from for bytes around 128: -128 times the sum of each row. */
void qs_starts(const int8_t *rows, int outputs, int inputs, int32_t *start);

/* Whether no two neighbours exceed QS_PAIR together. */
int qs_weights_fit(const int8_t *rows, size_t count);

typedef void qs_finish(const qs_panel *panel, float *out, size_t stride);

/* Products of all rows, finished into `out`. `sums` is scratch of QS_SUMS. */
void qs_apply(const qs_kernel *kernel, const qs_linear *linear, const uint8_t *bytes,
              size_t byte_stride, const float *row_steps, int rows, qs_finish *finish, float *out,
              size_t stride, int32_t *sums);

/* The panel of columns `column`… of a few rows (QS_ROWS at most): its sums are computed. */
qs_panel qs_panel_of(const qs_kernel *kernel, const qs_linear *linear, const uint8_t *bytes,
                     size_t byte_stride, const float *row_steps, int rows, int column, int columns,
                     int32_t *sums);

#endif
