#include "linear.h"

#include <stdlib.h>
#include <string.h>

void qs_pack(const int8_t *rows, int outputs, int inputs, int8_t *packed) {
    int blocks = qs_padded(outputs, QS_BLOCK) / QS_BLOCK, groups = inputs / QS_GROUP;
    for (int block = 0; block < blocks; block++)
        for (int n = 0; n < QS_BLOCK; n++) {
            int output = block * QS_BLOCK + n;
            int8_t *to = packed + (size_t)block * (size_t)inputs * QS_BLOCK + n * QS_GROUP;
            for (int g = 0; g < groups; g++, to += QS_BLOCK * QS_GROUP)
                if (output < outputs)
                    memcpy(to, rows + (size_t)output * (size_t)inputs + g * QS_GROUP, QS_GROUP);
                else
                    memset(to, 0, QS_GROUP);
        }
}

void qs_starts(const int8_t *rows, int outputs, int inputs, int32_t *start) {
    for (int output = 0; output < outputs; output++) {
        int32_t sum = 0; /* at most 16,384 / 2 * 128 = 2^20 */
        for (int i = 0; i < inputs; i++) sum += rows[(size_t)output * (size_t)inputs + (size_t)i];
        start[output] = -128 * sum;
    }
}

int qs_weights_fit(const int8_t *rows, size_t count) {
    int excess = 0;
    for (size_t i = 0; i + 1 < count; i += 2) excess |= abs(rows[i]) + abs(rows[i + 1]) > QS_PAIR;
    return !excess;
}

qs_panel qs_panel_of(const qs_kernel *kernel, const qs_linear *linear, const uint8_t *bytes,
                     size_t byte_stride, const float *row_steps, int rows, int column, int columns,
                     int32_t *sums) {
    int groups = linear->inputs / QS_GROUP;
    size_t block = (size_t)(column / QS_BLOCK);
    qs_order order = linear->order;
    if (order.places != NULL) {
        order.places += block * (size_t)QS_ORDER(groups);
        order.centres += block * (size_t)QS_CENTRES(groups);
        order.start += column;
    }
    kernel->product(bytes, byte_stride, rows,
                    linear->packed + (size_t)column * (size_t)linear->inputs, groups,
                    order.places != NULL ? &order : NULL, linear->start + column,
                    columns / QS_BLOCK, sums);
    return (qs_panel){
        sums, rows, columns, row_steps, linear->steps + column, linear->bias + column,
    };
}

void qs_apply(const qs_kernel *kernel, const qs_linear *linear, const uint8_t *bytes,
              size_t byte_stride, const float *row_steps, int rows, qs_finish *finish, float *out,
              size_t stride, int32_t *sums) {
    for (int row = 0; row < rows; row += QS_ROWS) {
        int count = rows - row < QS_ROWS ? rows - row : QS_ROWS;
        int panel_columns = qs_panel_columns(count, linear->outputs);
        for (int column = 0; column < linear->outputs; column += panel_columns) {
            int columns = linear->outputs - column;
            if (columns > panel_columns) columns = panel_columns;
            qs_panel panel =
                qs_panel_of(kernel, linear, bytes + (size_t)row * byte_stride, byte_stride,
                            row_steps + row, count, column, columns, sums);
            finish(&panel, out + (size_t)row * stride + column, stride);
        }
    }
}
