#include "sparse.h"

#include <stdlib.h>
#include <string.h>

void qs_pack_sparse(const qs_sparse *sparse, const int8_t *rows, int outputs, int inputs,
                    int8_t *packed, uint8_t *largest) {
    memset(largest, 0, (size_t)inputs);
    for (int first = 0; first < outputs;) {
        int columns = outputs - first < sparse->together ? sparse->unit : sparse->together;
        for (int input = 0; input < inputs; input++)
            for (int place = 0; place < columns; place++) {
                int output = first + place / sparse->unit * sparse->unit +
                             sparse->column_at(place % sparse->unit);
                int8_t weight = rows[(size_t)output * (size_t)inputs + (size_t)input];
                uint8_t size = (uint8_t)abs(weight);
                if (size > largest[input]) largest[input] = size;
                *packed++ = weight;
            }
        first += columns;
    }
}

/* Gather a few rows (QS_ROWS at most): row r's terms are those from `ends[r]` to `ends[r + 1]`. */
static void gather_rows(const qs_kernel *kernel, const qs_linear *linear, const uint8_t *bytes,
                        size_t byte_stride, int rows, qs_gathered *scratch, size_t *ends) {
    ends[0] = 0;
    for (int row = 0; row < rows; row++, bytes += byte_stride)
        ends[row + 1] = ends[row] + (size_t)kernel->sparse->gather(
                                        bytes, linear->largest, linear->inputs, scratch,
                                        scratch->terms + ends[row]);
}

void qs_apply_sparse(const qs_kernel *kernel, const qs_linear *linear, const uint8_t *bytes,
                     size_t byte_stride, const float *row_steps, int rows, qs_finish *finish,
                     float *out, size_t stride, int32_t *sums, qs_gathered *scratch) {
    int together = kernel->sparse->together, most_rows = QS_SUMS / together;
    size_t ends[QS_ROWS + 1];
    for (int row = 0; row < rows; row += most_rows) {
        int count = rows - row < most_rows ? rows - row : most_rows;
        gather_rows(kernel, linear, bytes + (size_t)row * byte_stride, byte_stride, count, scratch,
                    ends);
        int most = QS_SUMS / count / together * together;
        for (int column = 0; column < linear->outputs; column += most) {
            int columns = linear->outputs - column < most ? linear->outputs - column : most;
            const int8_t *weights = linear->packed + (size_t)column * (size_t)linear->inputs;
            for (int r = 0; r < count; r++)
                kernel->sparse->multiply(scratch->terms + ends[r], (int)(ends[r + 1] - ends[r]),
                                         weights, linear->inputs, columns,
                                         sums + (size_t)r * (size_t)columns);
            qs_panel panel = {
                sums, count, columns, row_steps + row, linear->steps + column,
                linear->bias + column,
            };
            finish(&panel, out + (size_t)row * stride + column, stride);
        }
    }
}
