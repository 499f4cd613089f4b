/* A decoder step: one new position for each sentence or hypothesis that goes on. */
#include "run.h"

/* Self-attention of the new positions to those before them. */
static void attend_before(qs_run *run, int layer, int rows, int place) {
    const qs_dims *dims = &run->model->dims;
    int heads = run->model->decoder[layer].sizes.heads;
    size_t width = (size_t)(heads * dims->head_width);
    size_t whole = run->padded_steps * (size_t)run->beam * (size_t)dims->width;
    for (int row = 0; row < rows; row++) {
        int slot = run->active[row];
        int padded = qs_padded(qs_steps(run->call, qs_sentence_of(run, slot)), 8);
        size_t at = (size_t)layer * whole + qs_slot_at(run, slot) * width;
        float *keys = run->self_keys + at, *values = run->self_values + at;
        const float *qkv = run->wide_rows + (size_t)row * run->wide;
        qs_write_key(keys, qkv + width, place, padded, heads, dims->head_width);
        for (size_t i = 0; i < width; i++)
            values[(size_t)place * width + i] = qkv[2 * width + i];
        qs_attend(run, heads, qkv, run->wide, 1, keys, padded, values, width, place + 1,
                  run->mix + (size_t)row * run->narrow);
    }
}

/* The recurrent unit of the new positions: adds to the states. */
static void recur(qs_run *run, int layer, int rows, int place) {
    size_t width = (size_t)run->model->dims.width;
    size_t slots = (size_t)run->call->rows * (size_t)run->beam;
    float *states = run->states + (size_t)layer * slots * width;
    for (int row = 0; row < rows; row++) {
        float *state = states + (size_t)run->active[row] * width;
        if (place == 0)
            for (size_t i = 0; i < width; i++) state[i] = 0.0f;
        run->model->kernel->floats->recur(run->wide_rows + (size_t)row * run->wide, (int)width,
                                          state, run->x + (size_t)row * run->narrow);
    }
}

/* Attention to the source: the rows of a sentence lie side by side and read its keys together. */
static void attend_source(qs_run *run, int layer, int rows) {
    const qs_dims *dims = &run->model->dims;
    int heads = run->model->decoder[layer].sizes.cross_heads;
    size_t width = (size_t)(heads * dims->head_width);
    size_t whole = run->padded_tokens * (size_t)dims->width;
    for (int row = 0, count; row < rows; row += count) {
        int sentence = qs_sentence_of(run, run->active[row]);
        int length = run->call->lengths[sentence];
        for (count = 1; row + count < rows; count++)
            if (qs_sentence_of(run, run->active[row + count]) != sentence) break;
        size_t at = (size_t)layer * whole + run->source_at[sentence] * width;
        qs_attend(run, heads, run->wide_rows + (size_t)row * run->wide, run->wide, count,
                  run->cross_keys + at, qs_padded(length, 8), run->cross_values + at, width, length,
                  run->mix + (size_t)row * run->narrow);
    }
}

static void step_layer(qs_run *run, int index, int rows, int place) {
    const qs_decoder_layer *layer = &run->model->decoder[index];
    qs_ready(run, &layer->norm, rows);
    qs_into(run, &layer->qkv, rows, run->wide_rows, run->wide);
    if (run->model->dims.recurrent) {
        recur(run, index, rows, place);
    } else {
        attend_before(run, index, rows, place);
        qs_to_bytes(run, run->mix, layer->out.inputs, rows);
        qs_onto_states(run, &layer->out, rows);
    }
    qs_settle(run, &layer->norm, rows);
    qs_ready(run, &layer->cross_norm, rows);
    qs_into(run, &layer->query, rows, run->wide_rows, run->wide);
    attend_source(run, index, rows);
    qs_to_bytes(run, run->mix, layer->cross_out.inputs, rows);
    qs_onto_states(run, &layer->cross_out, rows);
    qs_settle(run, &layer->cross_norm, rows);
    qs_feed(run, &layer->ffn, rows);
}

void qs_step(qs_run *run, int rows, int place) {
    const qs_model *model = run->model;
    for (int row = 0; row < rows; row++) qs_embed(run, &model->table, run->last[row], place, row);
    for (int layer = 0; layer < model->dims.decoder_layers; layer++)
        step_layer(run, layer, rows, place);
    qs_ready(run, &model->decoder_norm, rows);
}
