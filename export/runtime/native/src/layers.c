/* The steps that encoder and decoder share. */
#include "run.h"

static const qs_floats *floats_of(const qs_run *run) { return run->model->kernel->floats; }

void qs_write_key(float *keys, const float *key, int place, int padded, int heads, int head_width) {
    for (int head = 0; head < heads; head++) {
        size_t block = (size_t)head * (size_t)padded + (size_t)(place / 8 * 8);
        float *to = keys + block * (size_t)head_width + place % 8;
        for (int d = 0; d < head_width; d++) to[d * 8] = *key++;
    }
}

void qs_to_bytes(qs_run *run, const float *x, int width, int rows) {
    for (int row = 0; row < rows; row++)
        run->row_steps[row] =
            floats_of(run)->quantise(x + (size_t)row * run->narrow, width,
                                     run->bytes + (size_t)row * run->byte_stride);
}

static void norm_rows(qs_run *run, const qs_norm *norm, int rows, float *y) {
    const qs_dims *dims = &run->model->dims;
    for (int row = 0; row < rows; row++)
        floats_of(run)->norm(run->x + (size_t)row * run->narrow, norm->gain, norm->bias,
                             dims->epsilon, dims->width, y + (size_t)row * run->narrow);
}

void qs_ready(qs_run *run, const qs_norm *norm, int rows) {
    if (run->model->dims.post_norm) {
        qs_to_bytes(run, run->x, run->model->dims.width, rows);
    } else {
        norm_rows(run, norm, rows, run->y);
        qs_to_bytes(run, run->y, run->model->dims.width, rows);
    }
}

void qs_settle(qs_run *run, const qs_norm *norm, int rows) {
    if (run->model->dims.post_norm) norm_rows(run, norm, rows, run->x);
}

void qs_into(qs_run *run, const qs_linear *linear, int rows, float *out, size_t stride) {
    qs_apply(run->model->kernel, linear, run->bytes, run->byte_stride, run->row_steps, rows,
             floats_of(run)->store, out, stride, run->sums);
}

void qs_onto_states(qs_run *run, const qs_linear *linear, int rows) {
    qs_apply(run->model->kernel, linear, run->bytes, run->byte_stride, run->row_steps, rows,
             floats_of(run)->add, run->x, run->narrow, run->sums);
}

void qs_embed(qs_run *run, const qs_table *table, int32_t id, int position, int row) {
    size_t width = (size_t)run->model->dims.width;
    floats_of(run)->embed(table->bytes + (size_t)id * width, table->steps[id] * run->model->scale,
                          run->model->positions + (size_t)position * width, (int)width,
                          run->x + (size_t)row * run->narrow);
}

void qs_feed(qs_run *run, const qs_feed_forward *ffn, int rows) {
    const qs_floats *f = floats_of(run);
    int hidden = ffn->outer.inputs, activation = run->model->dims.activation;
    qs_ready(run, &ffn->norm, rows);
    qs_apply(run->model->kernel, &ffn->inner, run->bytes, run->byte_stride, run->row_steps, rows,
             activation == QS_RELU ? f->relu : f->store, run->wide_rows, run->wide, run->sums);
    for (int row = 0; row < rows; row++) {
        float *x = run->wide_rows + (size_t)row * run->wide;
        uint8_t *bytes = run->bytes + (size_t)row * run->byte_stride;
        if (activation == QS_SILU) f->silu(x, hidden);
        if (activation == QS_GELU) f->gelu(x, hidden);
        run->row_steps[row] = activation == QS_RELU ? f->quantise_positive(x, hidden, bytes)
                                                    : f->quantise(x, hidden, bytes);
    }
    if (ffn->outer.largest != NULL)
        qs_apply_sparse(run->model->kernel, &ffn->outer, run->bytes, run->byte_stride,
                        run->row_steps, rows, f->add, run->x, run->narrow, run->sums,
                        &run->gathered);
    else
        qs_onto_states(run, &ffn->outer, rows);
    qs_settle(run, &ffn->norm, rows);
}

void qs_attend(qs_run *run, int heads, const float *query, size_t stride, int rows,
               const float *keys, int padded, const float *values, size_t value_stride, int length,
               float *mix) {
    int width = run->model->dims.head_width;
    for (int head = 0; head < heads; head++) {
        size_t at = (size_t)head * (size_t)width;
        qs_attention attention = {
            .query = query + at,
            .query_stride = stride,
            .rows = rows,
            .keys = keys + at * (size_t)padded,
            .values = values + at,
            .value_stride = value_stride,
            .length = length,
            .width = width,
            .scale = run->model->attention_scale,
            .scores = run->scores,
            .mix = mix + at,
            .mix_stride = run->narrow,
        };
        floats_of(run)->attend(&attention);
    }
}
