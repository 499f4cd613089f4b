/* The encoder: whole sentences in chunks of about QS_ROWS positions, without padding. */
#include "run.h"

/* Self-attention of the sentences `first`… whose positions lie below each other. */
static void attend_within(qs_run *run, int heads, int first, int last) {
    int head_width = run->model->dims.head_width, width = heads * head_width;
    const float *qkv = run->wide_rows;
    float *mix = run->mix;
    for (int sentence = first; sentence < last; sentence++) {
        int length = run->call->lengths[sentence], padded = qs_padded(length, 8);
        for (int place = 0; place < length; place++)
            qs_write_key(run->keys, qkv + (size_t)place * run->wide + width, place, padded, heads,
                         head_width);
        qs_attend(run, heads, qkv, run->wide, length, run->keys, padded, qkv + 2 * width, run->wide,
                  length, mix);
        qkv += (size_t)length * run->wide;
        mix += (size_t)length * run->narrow;
    }
}

static void encode_layer(qs_run *run, const qs_encoder_layer *layer, int first, int last,
                         int rows) {
    qs_ready(run, &layer->norm, rows);
    qs_into(run, &layer->qkv, rows, run->wide_rows, run->wide);
    attend_within(run, layer->sizes.heads, first, last);
    qs_to_bytes(run, run->mix, layer->out.inputs, rows);
    qs_onto_states(run, &layer->out, rows);
    qs_settle(run, &layer->norm, rows);
    qs_feed(run, &layer->ffn, rows);
}

/* Keys and values that decoder layer `layer` reads of the sentences. */
static void keep_memory(qs_run *run, int layer, int first, int last, int rows) {
    const qs_dims *dims = &run->model->dims;
    const qs_decoder_layer *decoder = &run->model->decoder[layer];
    int heads = decoder->sizes.cross_heads;
    size_t width = (size_t)(heads * dims->head_width);
    size_t whole = run->padded_tokens * (size_t)dims->width;
    float *layer_keys = run->cross_keys + (size_t)layer * whole;
    float *layer_values = run->cross_values + (size_t)layer * whole;
    qs_into(run, &decoder->key_value, rows, run->wide_rows, run->wide);
    const float *both = run->wide_rows;
    for (int sentence = first; sentence < last; sentence++) {
        int length = run->call->lengths[sentence], padded = qs_padded(length, 8);
        float *keys = layer_keys + run->source_at[sentence] * width;
        float *values = layer_values + run->source_at[sentence] * width;
        for (int place = 0; place < length; place++, both += run->wide) {
            qs_write_key(keys, both, place, padded, heads, dims->head_width);
            for (size_t i = 0; i < width; i++) values[(size_t)place * width + i] = both[width + i];
        }
    }
}

static void encode_chunk(qs_run *run, const int32_t *sources, int first, int last, int rows) {
    const qs_model *model = run->model;
    for (int sentence = first, row = 0; sentence < last; sentence++)
        for (int place = 0; place < run->call->lengths[sentence]; place++, row++)
            qs_embed(run, &model->source_table, sources[row], place, row);
    for (int layer = 0; layer < model->dims.encoder_layers; layer++)
        encode_layer(run, &model->encoder[layer], first, last, rows);
    qs_ready(run, &model->encoder_norm, rows);
    for (int layer = 0; layer < model->dims.decoder_layers; layer++)
        keep_memory(run, layer, first, last, rows);
}

void qs_encode(qs_run *run) {
    const int32_t *sources = run->call->sources;
    for (int first = 0, last; first < run->call->rows; first = last) {
        int rows = run->call->lengths[first];
        for (last = first + 1; last < run->call->rows; last++) {
            int length = run->call->lengths[last];
            if (rows + length > QS_ROWS) break;
            rows += length;
        }
        encode_chunk(run, sources, first, last, rows);
        sources += rows;
    }
}
